"""What really happened to one input, and what may never happen to it."""

from __future__ import annotations

from dataclasses import dataclass, field

from flexray.core.status import CANCELLED, FAILED, LOST, OK, REFUSED, START_FAILED, UNSTARTED
from tests.sim.scenarios import Scenario

ROUNDING_S = 1e-6


class Violation(AssertionError):
    """The state machines broke a promise; the message has the invariant's number and what was seen."""


@dataclass(slots=True, eq=False)
class Truth:
    """One input. Every method raises `Violation` when what it is told must not happen."""

    input_id: int
    caller_id: str
    patient: bool
    scenario: Scenario
    poison: bool = False
    """It kills the container that runs it."""
    once: bool = False
    """It is sent at most once."""
    settled: list[int] = field(default_factory=list)
    settled_at: float | None = None
    running_on: dict[str, int] = field(default_factory=dict)
    runs: int = 0
    cuts: int = 0
    """Runs that ended with the death of their container."""
    outcomes: list[tuple[int, float]] = field(default_factory=list)
    """(status, when) of the runs that ended by themselves."""
    cancelled_at: float | None = None
    withdrawn: bool = False
    """Cancelled before it had been sent to a container."""
    abandoned: bool = False
    """Its caller is dead."""

    @property
    def is_over(self) -> bool:
        return self.abandoned or bool(self.settled)

    def begin(self, container_id: str, now: float) -> None:
        """It begins to run there."""
        if self.running_on:
            self.fail(f"2: begins on {container_id} while it runs on {list(self.running_on)}")
        if self.withdrawn:
            self.fail("cancelled before it was sent, and runs")
        if (self.scenario.at_most_once or self.once) and self.cuts:
            self.fail("at most once, cut off by a death, and runs again")
        if not self.scenario.kills_containers:
            self._check_rerun(now)
        self.runs += 1
        self.running_on[container_id] = 1

    def _check_rerun(self, now: float) -> None:
        """Where no container dies, a run follows only a failure, as often and as late as the policy says."""
        if not self.outcomes:
            return
        policy = self.scenario.retries
        status, ended_at = self.outcomes[-1]
        attempt = len(self.outcomes)
        if status == OK or policy is None or attempt > policy.max_retries:
            self.fail(f"1: runs again after {self.outcomes}")
        delay_s = min(policy.max_delay, policy.initial_delay * policy.backoff_coefficient ** (attempt - 1))
        if now < ended_at + delay_s - ROUNDING_S:
            self.fail(
                f"attempt {attempt + 1} begins {now - ended_at:.3f} s after the failure, not {delay_s:g} s"
            )

    def end(self, container_id: str, status: int, now: float) -> None:
        self.running_on.pop(container_id, None)
        self.outcomes.append((status, now))

    def cut(self, container_id: str) -> None:
        """Ray has declared the container dead that runs it."""
        if self.running_on.pop(container_id, None):
            self.cuts += 1

    def settle(self, status: int, now: float) -> None:
        self.settled.append(status)
        self.settled_at = now
        if len(self.settled) > 1:
            self.fail(f"1: settled {self.settled}")
        ended = [outcome for outcome, _ in self.outcomes]
        permitted = {
            OK: OK in ended,
            FAILED: FAILED in ended,
            UNSTARTED: False,
            CANCELLED: self.cancelled_at is not None,
            LOST: self._may_be_lost(),
            START_FAILED: self.scenario.fails_starts,
            REFUSED: not self.patient and not self.runs,
        }
        if not permitted[status]:
            self.fail(f"1: settled as {status} after runs that ended {ended} and {self.cuts} cut off")

    def _may_be_lost(self) -> bool:
        scenario = self.scenario
        if scenario.poison and not scenario.at_most_once and not scenario.faults.kill_container:
            return self.poison
        if scenario.at_most_once or self.once:
            return not scenario.is_calm  # It may have run is all that its caller knows.
        return bool(scenario.faults.kill_container)

    def fail(self, what: str) -> None:
        raise Violation(f"{what} (input {self.input_id} of {self.caller_id})")
