"""What reaches the caller's terminal: containers' output, the user's own prints, and lines that are redrawn.

One rule: lines that are redrawn are at the bottom and everything else is written above them, whole line by
whole line. While there are none, nothing here stands between the user's program and its streams.
"""

from __future__ import annotations

import atexit
import contextlib
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TextIO, cast

if TYPE_CHECKING:
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

REDRAWS_PER_S = 10

Lines = Callable[[int], "list[Text]"]
"""Gives the lines of one bar for a terminal of that many columns."""


LINE_MAX = 8192
"""A line without an end is cut after so many characters."""
Stream = Literal["stdout", "stderr"]
Written = tuple[Stream, str, bool]
"""Where a container wrote, what, and whether it is in Ray's log of that process, too."""


def relay(function_name: str, text: str, stream: Stream) -> None:
    """Prints lines that a container wrote, each with the function's name before it.

    Args:
        function_name: The function's name.
        text: Whole lines; the newline of the last may be missing.
        stream: Where the container wrote them, and where they are printed here.
    """
    target = sys.stderr if stream == "stderr" else sys.stdout
    if target is None or not text:
        return
    name = f"\x1b[36m{function_name}\x1b[0m" if is_terminal(target) else function_name
    lines = text.removesuffix("\n").split("\n")
    written = "".join(f"{name} | {line}\n" for line in lines)
    # A stream that the caller closed is no reason to fail what it called.
    with contextlib.suppress(OSError, ValueError), BOTTOM.lock:
        if not (is_terminal(target) and BOTTOM.write(written)):
            target.write(written)
            target.flush()


def last_written(text: str) -> str:
    """A line that is not over, without what a progress bar has written over by a carriage return."""
    end = "\r" if text.endswith("\r") else ""
    return text.rstrip("\r").rpartition("\r")[2] + end


def whole_lines(text: str) -> tuple[str, str]:
    """The whole lines of it, and what is to be kept until more comes; too much of that is a line, too."""
    lines, newline, rest = text.rpartition("\n")
    rest = last_written(rest)
    return (f"{lines}{newline}{rest}\n", "") if len(rest) > LINE_MAX else (lines + newline, rest)


def is_terminal(stream: TextIO | None) -> bool:
    """Whether the stream writes to a terminal. A closed one, or none, does not."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:
        return False


class Bottom:
    """The redrawn lines of all bars, shown from the first `add` to the last `remove`. Thread safe."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        """Held for every write to the terminal while bars are shown."""
        self._bars: list[Lines] = []
        self._live: Live | None = None
        self._streams: list[StreamAbove] = []
        self._stopped = threading.Event()

    def add(self, bar: Lines) -> None:
        """Shows a bar below those that are shown already."""
        with self.lock:
            self._bars.append(bar)
            if self._live is None:
                self._start()

    def remove(self, bar: Lines, last: Text) -> None:
        """Takes the bar away and leaves `last` above what remains."""
        with self.lock:
            if bar not in self._bars:
                return
            self._bars.remove(bar)
            if self._live is not None:
                self._live.console.print(last, soft_wrap=True, highlight=False)
                if not self._bars:
                    self._stop()

    def close(self) -> None:
        """Takes all bars away and gives the program its streams back."""
        with self.lock:
            self._bars.clear()
            if self._live is not None:
                self._stop()

    def write(self, text: str) -> bool:
        """Writes whole lines above the bars; False if there are no bars. The lock must be held."""
        if self._live is None:
            return False
        if not text:
            return True
        from rich.segment import Segment, Segments  # noqa: PLC0415  # Only bars need rich.

        # As it is, escape sequences included; the terminal wraps it.
        self._live.console.print(Segments([Segment(text)]), soft_wrap=True, end="")
        return True

    def redraw(self) -> None:
        """Draws the bars as they are now."""
        with self.lock:
            if self._live is not None:
                self._live.refresh()

    def _start(self) -> None:
        from rich.console import Console  # noqa: PLC0415  # Only bars need rich.
        from rich.live import Live  # noqa: PLC0415

        self._live = Live(
            get_renderable=self._render,
            console=Console(file=cast(TextIO, _Unchanged(sys.stderr))),
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start(refresh=True)
        streams = {id(stream): stream for stream in (sys.stdout, sys.stderr) if is_terminal(stream)}
        self._streams = [StreamAbove(self, stream) for stream in streams.values()]
        self._stopped = threading.Event()
        threading.Thread(
            target=self._keep_redrawing, args=(self._stopped,), name="flexray-progress", daemon=True
        ).start()
        atexit.register(self.close)

    def _stop(self) -> None:
        atexit.unregister(self.close)
        self._stopped.set()
        live, self._live = self._live, None
        streams, self._streams = self._streams, []
        try:
            if live is not None:
                live.stop()
        finally:
            for stream in streams:
                stream.restore()

    def _keep_redrawing(self, stopped: threading.Event) -> None:
        while not stopped.wait(1 / REDRAWS_PER_S):
            with self.lock:
                if not stopped.is_set():
                    self.redraw()

    def _render(self) -> Group:
        from rich.console import Group  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        width = 80 if self._live is None else self._live.console.width
        begun = [Text.from_ansi(text) for stream in self._streams for text in stream.begun.values()]
        lines = [*begun, *(line for bar in self._bars for line in bar(width))]
        for line in lines:
            line.no_wrap = True
            line.truncate(width - 1, overflow="ellipsis")
        return Group(*lines)


class StreamAbove:
    """Lets what a stream is given to write go above the bars, from its making to `restore`.

    Whole lines go above at once; a line that is begun is drawn with the bars until it is whole. Only the
    stream's `write` is replaced, so that log handlers and all others who hold the stream are served too.
    """

    def __init__(self, bottom: Bottom, stream: TextIO) -> None:
        self._bottom = bottom
        self._stream = stream
        self._write = stream.write
        self.begun: dict[int, str] = {}
        """Thread to what it wrote since its last newline; print() writes a line and its newline apart."""
        with contextlib.suppress(AttributeError):  # A stream of the user's own may forbid it.
            self._replace_write(self.write)

    def write(self, text: str) -> int:
        """Writes whole lines and keeps the rest; returns how many characters it took."""
        with self._bottom.lock:
            thread = threading.get_ident()
            whole, newline, rest = (self.begun.get(thread, "") + text).rpartition("\n")
            if not self._bottom.write(whole + newline):
                return self._write(text)
            self.begun[thread] = rest.rpartition("\r")[2] or rest
            if not rest:
                del self.begun[thread]
        return len(text)

    def restore(self) -> None:
        """Gives the stream its own `write` back, and what is begun."""
        with contextlib.suppress(AttributeError):
            del cast(Any, self._stream).write
        begun = "".join(self.begun.values())
        self.begun.clear()
        if begun:
            self._write(begun)
            self._stream.flush()

    def _replace_write(self, write: Callable[[str], int]) -> None:
        cast(Any, self._stream).write = write


class _Unchanged:
    """A stream with the `write` that it has now."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.write = stream.write

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


BOTTOM = Bottom()
"""The one of this process."""
