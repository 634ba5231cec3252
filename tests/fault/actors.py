"""The processes of FlexRay's actors, found by Ray's own listing, and the killing of them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from ray._private.state import actors as _listed

from tests import living
from tests.waiting import wait_until

CONTROLLER = "flexray:controller"
CALL_QUEUE = "flexray:call-queue"


class Actors:
    """All of the cluster that this process is connected to."""

    def alive(self) -> dict[str, int]:
        """Name to process of every named actor that lives and has a process."""
        return {
            actor["Name"]: actor["Pid"]
            for actor in _listed().values()
            if actor["State"] == "ALIVE" and actor["Name"]
        }

    def containers(self, app_name: str) -> dict[str, int]:
        """Id to process of the containers of an app that runs for its caller."""
        return self.containers_like(f"{app_name}.")

    def containers_like(self, prefix: str) -> dict[str, int]:
        """The same of all whose ids begin so."""
        return {name: pid for name, pid in living.containers().items() if pid and name.startswith(prefix)}

    @property
    def controller(self) -> int:
        """The controller's process; waits for it where it is restarting."""
        return wait_until(lambda: self.alive().get(CONTROLLER, 0), timeout_s=20)

    def kill_controller(self) -> int:
        """Kill it; returns the process that it was."""
        pid = self.controller
        kill(pid)
        return pid

    def wait_for_restart(self, old: int) -> int:
        """The process of the controller after the one that was killed."""
        return wait_until(lambda: self.alive().get(CONTROLLER, old) != old and self.controller, timeout_s=20)

    @property
    def call_queue(self) -> int:
        """The call queue's process; waits for it where it is restarting."""
        return wait_until(lambda: self.alive().get(CALL_QUEUE, 0), timeout_s=20)

    def kill_call_queue(self) -> int:
        """Kill it; returns the process that it was."""
        pid = self.call_queue
        kill(pid)
        return pid

    def wait_for_call_queue(self, old: int) -> int:
        """The process of the call queue after the one that was killed."""
        return wait_until(lambda: self.alive().get(CALL_QUEUE, old) != old and self.call_queue, timeout_s=20)


def kill(pid: int) -> None:
    """SIGKILL, and wait until the process is gone."""
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: is_gone(pid), timeout_s=10)


def is_gone(pid: int, lived_at: float | None = None) -> bool:
    """Whether the process is dead, reaped by its parent or not.

    One that began after `lived_at`, of the monotonic clock, is another, or a thread of another: where there
    are 32,768 numbers, minutes of starts use them all.
    """
    try:
        state, *others = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return True
    began_at = int(others[18]) / os.sysconf("SC_CLK_TCK")
    return state in "ZX" or (lived_at is not None and began_at > lived_at)
