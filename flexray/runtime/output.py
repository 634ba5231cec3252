"""Catches what user code prints in a container, by the caller whose input printed it.

One rule: a line belongs to the dispatcher whose input runs in this context; where the context says nothing
(a thread of the user's own) and one dispatcher alone has inputs here, it belongs to that one. What is printed
before the first input, by enter hooks, belongs to the dispatcher of that input.
"""

from __future__ import annotations

import io
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from typing import BinaryIO, TextIO

from flexray.output import Stream, last_written

STREAMS: tuple[Stream, ...] = ("stdout", "stderr")

LINE_MAX = 8192
"""A line without an end is cut after so many characters."""
KEPT_CHARACTERS = 1 << 20
"""Per dispatcher, while nobody fetches it; the oldest lines go first."""

current_dispatcher: ContextVar[str | None] = ContextVar("flexray_dispatcher", default=None)


class Capture:
    """Lines printed here, by dispatcher."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: dict[str, deque[tuple[Stream, str]]] = {}
        self._sizes: dict[str, int] = {}
        self._partial: dict[tuple[str, Stream], str] = {}
        self._active: dict[str, int] = {}
        self._early: deque[tuple[Stream, str]] | None = deque()
        """Printed by enter hooks, before anybody had an input here; None: given to whoever had the first."""
        self._early_size = 0

    def install(self, journal: Callable[[Stream, str], None] | None) -> None:
        """Replace sys.stdout and sys.stderr of this process; the journal is told all that they are given."""
        sys.stdout = _Router(self, "stdout", sys.stdout, journal)
        sys.stderr = _Router(self, "stderr", sys.stderr, journal)

    def begin(self, dispatcher_id: str) -> None:
        with self._lock:
            self._active[dispatcher_id] = self._active.get(dispatcher_id, 0) + 1
            early, self._early = self._early, None
            for stream, text in early or ():
                self._write(dispatcher_id, stream, text)

    def end(self, dispatcher_id: str) -> None:
        """An input is over: what it left without a newline is a line."""
        with self._lock:
            self._active[dispatcher_id] -= 1
            if not self._active[dispatcher_id]:
                del self._active[dispatcher_id]
                for stream in STREAMS:
                    rest = self._partial.pop((dispatcher_id, stream), "")
                    if rest:
                        self._add(dispatcher_id, stream, rest + "\n")

    def write(self, stream: Stream, text: str) -> bool:
        """Keep the text; False where it belongs to nobody."""
        dispatcher_id = current_dispatcher.get()
        with self._lock:
            if dispatcher_id is None:
                if self._early is not None:
                    return self._keep_early(self._early, stream, text)
                if len(self._active) != 1:
                    return False
                dispatcher_id = next(iter(self._active))
            self._write(dispatcher_id, stream, text)
            return True

    def _write(self, dispatcher_id: str, stream: Stream, text: str) -> None:
        whole = self._partial.pop((dispatcher_id, stream), "") + text
        lines, newline, rest = whole.rpartition("\n")
        if newline:
            self._add(dispatcher_id, stream, lines + newline)
        rest = last_written(rest)
        if len(rest) > LINE_MAX:
            self._add(dispatcher_id, stream, rest + "\n")
        elif rest:
            self._partial[dispatcher_id, stream] = rest

    def _keep_early(self, early: deque[tuple[Stream, str]], stream: Stream, text: str) -> bool:
        early.append((stream, text))
        self._early_size += len(text)
        while self._early_size > KEPT_CHARACTERS and len(early) > 1:
            self._early_size -= len(early.popleft()[1])
        return True

    def drain(self, dispatcher_id: str) -> list[tuple[Stream, str]]:
        """(stream, whole lines) printed for this dispatcher since the last call."""
        if dispatcher_id not in self._lines:
            return []
        with self._lock:
            self._sizes.pop(dispatcher_id, None)
            return list(self._lines.pop(dispatcher_id, ()))

    def _add(self, dispatcher_id: str, stream: Stream, text: str) -> None:
        lines = self._lines.setdefault(dispatcher_id, deque())
        lines.append((stream, text))
        size = self._sizes.get(dispatcher_id, 0) + len(text)
        while size > KEPT_CHARACTERS and len(lines) > 1:
            size -= len(lines.popleft()[1])
        self._sizes[dispatcher_id] = size


class _Router(io.TextIOBase):
    """A standard stream that gives the capture what it can place, and the rest to the stream behind it."""

    def __init__(
        self,
        capture: Capture,
        stream: Stream,
        behind: TextIO,
        journal: Callable[[Stream, str], None] | None,
    ) -> None:
        self._capture = capture
        self._journal = journal
        self._stream = stream
        self._behind = behind

    def write(self, text: str) -> int:
        if text and self._journal is not None:
            self._journal(self._stream, text)
        if text and not self._capture.write(self._stream, text):
            self._behind.write(text)
        return len(text)

    def flush(self) -> None:
        self._behind.flush()

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._behind.fileno()

    @property
    def buffer(self) -> BinaryIO:
        return self._behind.buffer

    def reconfigure(self, **_: object) -> None:
        """Nothing to change: text is kept as it is."""

    def isatty(self) -> bool:
        return False

    @property
    def encoding(self) -> str:  # type: ignore[override]  # TextIOBase declares an attribute.
        return "utf-8"
