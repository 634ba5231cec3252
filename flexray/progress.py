"""One line for a running map: a bar, counts, and what it waits for.

One rule: `update` only notes the counts, so a map may call it for every input; drawing happens ten times a
second on a terminal, and elsewhere as a plain line every 5 s.
"""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

from flexray.output import BOTTOM, is_terminal

if TYPE_CHECKING:
    from rich.text import Text

SECONDS_BETWEEN_PLAIN_LINES = 5.0
_WIDEST_BAR = 30
_NARROWEST_BAR = 8

_shown_by_default = False


def show_by_default(shown: bool) -> None:
    """Says whether maps that do not say `progress=` show a bar where there is a terminal."""
    global _shown_by_default  # noqa: PLW0603  # A switch of the process, as `flexray run` is its one user.
    _shown_by_default = shown


def shown_by_default() -> bool:
    """Whether a map that does not say `progress=` shows a bar: the switch is on and stderr is a terminal."""
    return _shown_by_default and is_terminal(sys.stderr)


@dataclass(frozen=True, slots=True)
class Counts:
    """What a map's line tells."""

    done: int = 0
    """Inputs that have an outcome."""
    running: int = 0
    """Inputs that are on a container."""
    waiting: int = 0
    """Inputs that were read and are not yet on a container."""
    ready: int = 0
    """Containers that can take inputs."""
    starting: int = 0
    """Containers on their way."""
    notice: str | None = None
    """Why nothing moves, or None."""


class MapProgress:
    """The line of one map on stderr, from its making to `close`.

    Args:
        name: The function's name.
        total: How many inputs there are; None where that is not known, as for an endless iterator.
    """

    def __init__(self, name: str, total: int | None = None) -> None:
        self.name = name
        self.total = total
        self.counts = Counts()
        self._began = time.monotonic()
        self._closed = threading.Event()
        self._drawn = _can_redraw()
        if self._drawn:
            BOTTOM.add(self.lines)
        else:
            threading.Thread(target=self._print_lines, name="flexray-progress", daemon=True).start()

    def update(
        self,
        done: int = 0,
        running: int = 0,
        waiting: int = 0,
        ready: int = 0,
        starting: int = 0,
        notice: str | None = None,
    ) -> None:
        """Takes the counts as they are now. Cheap: it draws nothing.

        Args:
            done: Inputs that have an outcome.
            running: Inputs that are on a container.
            waiting: Inputs that were read and are not yet on a container.
            ready: Containers that can take inputs.
            starting: Containers on their way.
            notice: Why nothing moves, or None.
        """
        self.counts = Counts(done, running, waiting, ready, starting, notice)

    def close(self, failed: bool = False) -> None:
        """Replaces the bar by one line that stays. A second call does nothing.

        Args:
            failed: Whether the map ended before its last input, by an error or by Ctrl-C.
        """
        if self._closed.is_set():
            return
        self._closed.set()
        ending = describe_ending(self.name, self.counts, self.elapsed_s, failed)
        if not self._drawn:
            _print_plainly(ending)
            return
        from rich.text import Text  # noqa: PLC0415  # Only bars need rich.

        mark, style = ("✗", "red") if failed else ("✓", "green")
        mark = mark if _can_encode(mark) else "-"
        BOTTOM.remove(self.lines, Text.assemble((mark, style), " ", (ending, "dim")))

    @property
    def elapsed_s(self) -> float:
        """Seconds since it was made."""
        return time.monotonic() - self._began

    def lines(self, width: int) -> list[Text]:
        """The bar for a terminal of that many columns; a notice that does not fit beside it is under it."""
        return draw(self.name, self.total, self.counts, self.elapsed_s, width)

    def _print_lines(self) -> None:
        while not self._closed.wait(SECONDS_BETWEEN_PLAIN_LINES):
            _print_plainly(f"{self.name}: {describe(self.counts)}, {format_seconds(self.elapsed_s)}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # GeneratorExit is the caller leaving its loop early: what it wanted to do.
        self.close(failed=kind is not None and not issubclass(kind, GeneratorExit))


def draw(name: str, total: int | None, counts: Counts, elapsed_s: float, width: int) -> list[Text]:
    """The lines of a bar. What does not fit is left out in this order: the bar, then `(2 starting)`."""
    from rich.cells import cell_len  # noqa: PLC0415  # Only bars need rich.
    from rich.text import Text  # noqa: PLC0415

    after = f"  {format_seconds(elapsed_s)}"
    said = describe(counts, with_notice=False)
    room = width - cell_len(name) - cell_len(after) - 4
    if room - cell_len(said) < 0:
        said = describe(counts, with_notice=False, with_starting=False)
    room -= cell_len(said)
    line = Text(name, style="bold")
    if total is None:
        line.append(f" {_spinner(elapsed_s)}", style="cyan")
    elif room >= _NARROWEST_BAR:
        line.append(" ").append_text(_bar(counts.done, total, min(room, _WIDEST_BAR)))
    line.append(f"  {said}", style="not bold").append(after, style="not bold dim")
    if counts.notice is None:
        return [line]
    notice = Text(f"  {counts.notice}", style="yellow")
    if line.cell_len + notice.cell_len < width:
        return [line.append_text(notice)]
    return [line, notice]


def describe(counts: Counts, *, with_notice: bool = True, with_starting: bool = True) -> str:
    """The counts in words.

    `describe(Counts(1204, 8, 88, 2, 2))` is "1,204 done, 8 running, 88 waiting, 4 containers (2 starting)".
    """
    containers = counts.ready + counts.starting
    said = (
        f"{counts.done:,} done, {counts.running:,} running, {counts.waiting:,} waiting, "
        f"{containers:,} container{'' if containers == 1 else 's'}"
    )
    if with_starting and counts.starting:
        said += f" ({counts.starting:,} starting)"
    if with_notice and counts.notice:
        said += f"; {counts.notice}"
    return said


def describe_ending(name: str, counts: Counts, elapsed_s: float, failed: bool) -> str:
    """The line that stays, as "resize: 2,000 done in 12 s"."""
    took = format_seconds(elapsed_s)
    return f"{name}: {counts.done:,} done{', stopped after' if failed else ' in'} {took}"


def format_seconds(seconds: float) -> str:
    """A duration as a person reads it: 0.4 s, 12 s, 3:05, 1:02:03."""
    if seconds < 1:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{int(seconds)} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _bar(done: int, total: int, width: int) -> Text:
    from rich.text import Text  # noqa: PLC0415

    full, empty = ("━", "─") if _can_encode("━─") else ("#", "-")
    filled = width if total == 0 else min(width, width * done // total)
    return Text.assemble((full * filled, "not bold cyan"), (empty * (width - filled), "not bold dim"))


def _spinner(elapsed_s: float) -> str:
    frames = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏" if _can_encode("⠋") else "|/-\\"
    return frames[int(elapsed_s * 10) % len(frames)]


def _can_encode(text: str) -> bool:
    try:
        text.encode(getattr(sys.stderr, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _can_redraw() -> bool:
    if not is_terminal(sys.stderr):
        return False
    from rich.console import Console  # noqa: PLC0415  # Only bars need rich.

    return not Console(file=sys.stderr).is_dumb_terminal


def _print_plainly(line: str) -> None:
    if sys.stderr is not None:
        try:
            print(line, file=sys.stderr, flush=True)  # noqa: T201  # This is what it is for.
        except (OSError, ValueError):
            return  # The caller closed its stream.
