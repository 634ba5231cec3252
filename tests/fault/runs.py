"""What really ran, written down by the inputs themselves: the truth beside what FlexRay says."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from pathlib import Path
from threading import Event


@dataclass(frozen=True)
class Run:
    name: str
    pid: int
    began_at: float
    ended_at: float | None
    """None: it did not come to its end, or has not yet."""


@dataclass(frozen=True)
class Runs:
    """A folder that the test and its containers share. Functions take it with them by value."""

    folder: Path

    @contextmanager
    def of(self, name: object, lasting_s: float = 0.0) -> Iterator[None]:
        """Called by an input: notes its beginning and its end, `lasting_s` later."""
        self._note("began", name)
        yield
        if lasting_s:
            Event().wait(lasting_s)  # The input's work.
        self._note("ended", name)

    def _note(self, what: str, name: object) -> None:
        line = (
            f"{what} {name} {os.getpid()} {time.monotonic()}\n"  # One clock for all processes of a machine.
        )
        with (self.folder / "runs").open("ab", buffering=0) as file:
            file.write(line.encode())  # At once and at the end, whoever else writes.

    def all(self) -> list[Run]:
        """Every run so far, by beginning."""
        began: dict[tuple[str, int], list[float]] = {}
        ended: dict[tuple[str, int], list[float]] = {}
        path = self.folder / "runs"
        for line in path.read_text().splitlines() if path.exists() else ():
            what, name, pid, at = line.split()
            (began if what == "began" else ended).setdefault((name, int(pid)), []).append(float(at))
        runs = []
        for key, beginnings in began.items():
            ends = ended.get(key, [])
            for began_at, ended_at in zip_longest(beginnings, ends):
                runs.append(Run(*key, began_at, ended_at))
        return sorted(runs, key=lambda run: run.began_at)

    def counts(self) -> Counter[str]:
        """Input to how often it began."""
        return Counter(run.name for run in self.all())

    def unended(self) -> list[Run]:
        """Runs without an end: cut off by a death, or still going on."""
        return [run for run in self.all() if run.ended_at is None]

    def repeated(self) -> set[str]:
        """Inputs that began more than once."""
        return {name for name, count in self.counts().items() if count > 1}

    def overlapping(self) -> set[str]:
        """Inputs of which a run began before the end of another; those cut off by a death do not count."""
        by_name: dict[str, list[Run]] = {}
        for run in self.all():
            by_name.setdefault(run.name, []).append(run)
        return {
            name
            for name, runs in by_name.items()
            for one, next_one in pairwise(runs)
            if one.ended_at is not None and one.ended_at > next_one.began_at
        }
