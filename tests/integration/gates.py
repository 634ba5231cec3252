"""Lets a test hold inputs where they run, and see which of them run at once."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tests.waiting import wait_until


@dataclass(frozen=True)
class Gate:
    """A folder that the test and its containers share. Functions take it with them by value."""

    folder: Path

    def enter(self, name: object) -> int:
        """Called by an input: says that it runs, and waits until the gate is open; the container's process."""
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
