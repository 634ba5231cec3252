"""Lets a test hold inputs where they run, see which of them run at once, and go on meanwhile."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tests.waiting import wait_until

if TYPE_CHECKING:  # Functions take this module with them into containers.
    from flexray.function import Function, Stats

T = TypeVar("T")


@dataclass(frozen=True)
class Gate:
    """A folder that the test and its containers share. Functions take it with them by value."""

    folder: Path

    def enter(self, name: object) -> int:
        """Called by an input: says that it runs, waits until the gate is open, gives its process."""
        (self.folder / f"in-{name}").touch()
        wait_until((self.folder / "open").exists, timeout_s=60)
        return os.getpid()

    def open(self) -> None:
        """Let all inputs go on, those to come included."""
        (self.folder / "open").touch()

    @property
    def entered(self) -> list[str]:
        """The names of all inputs that came so far."""
        return sorted(path.name.removeprefix("in-") for path in self.folder.glob("in-*"))


def in_background(work: Callable[[], T]) -> Future[T]:
    """The outcome of work that runs on a thread of its own."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001  # Whoever asks for the outcome gets it.
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def calls(function: Function[..., T], names: Iterable[object]) -> list[Future[T]]:
    """One blocking call for each name, all at once."""
    return [in_background(lambda name=name: function.remote(name)) for name in names]  # type: ignore[misc]


def results(futures: Iterable[Future[T]], timeout_s: float = 60) -> list[T]:
    """What the calls gave; raises the first failure."""
    return [future.result(timeout_s) for future in futures]


def at(function: Function[..., Any], **expected: int) -> Stats | None:
    """The function's stats, where they are as expected; for `wait_until`."""
    stats = function.get_current_stats()
    return stats if all(getattr(stats, name) == value for name, value in expected.items()) else None
