"""Watches how many containers a function has, and prints every change."""

import threading
import time
from types import TracebackType
from typing import Any, Self

import flexray

EVERY_S = 0.2


class PoolWatch:
    """A thread that looks at a function's pool five times a second."""

    def __init__(self, function: flexray.Function[..., Any]) -> None:
        self.began_at = time.time()
        self.counts: list[tuple[float, int, int]] = []
        """(seconds since the beginning, containers ready, containers starting)"""
        self._function = function
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    @property
    def elapsed_s(self) -> float:
        return time.time() - self.began_at

    def _look(self) -> None:
        while not self._stop.wait(EVERY_S):
            containers = self._function.get_current_stats().containers
            ready = containers["ready"]
            starting = containers["launched"] + containers["loading"]
            self._note(ready, starting)

    def _note(self, ready: int, starting: int) -> None:
        at_s = self.elapsed_s
        if not self.counts or self.counts[-1][1:] != (ready, starting):
            print(f"  {at_s:5.1f} s   {'█' * ready}{'░' * starting}".ljust(18), _described(ready, starting))
        self.counts.append((at_s, ready, starting))

    def wait_until_empty(self, timeout_s: float = 30.0) -> None:
        """Return when the last container is gone."""
        deadline = time.time() + timeout_s
        looks = len(self.counts)
        while len(self.counts) == looks or self.counts[-1][1:] != (0, 0):
            if time.time() > deadline:
                raise TimeoutError(f"{self._function.name} still has containers after {timeout_s:g} s")
            time.sleep(EVERY_S)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()


def _described(ready: int, starting: int) -> str:
    if not ready and not starting:
        return "no container"
    words = f"{ready} container{'' if ready == 1 else 's'} ready"
    return f"{words}, {starting} starting" if starting else words
