"""Catches what user code prints in a container, by the caller whose input printed it.

One rule: a line belongs to the dispatcher whose input runs in this context; where the context says nothing
(a thread of the user's own, a subprocess) and one dispatcher alone has inputs here, it belongs to that one.
What is printed before the first input, by enter hooks, belongs to the dispatcher of that input.

Subprocesses, forks and libraries in C write to the descriptors of this process, which are files of Ray's:
what is new there is read whenever something is printed, begins, ends or is fetched.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import sys
import threading
from codecs import getincrementaldecoder
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
        self._files: dict[Stream, _File] = {}
        self._journal: Callable[[Stream, str], None] | None = None
        self._is_fork = False

    def install(self, journal: Callable[[Stream, str], None] | None) -> None:
        """Replace sys.stdout and sys.stderr of this process; the journal is told all that is printed."""
        self._journal = journal
        for number, stream in enumerate(STREAMS, start=1):
            self._files[stream] = _File(number)
        sys.stdout = _Router(self, "stdout", sys.stdout)
        sys.stderr = _Router(self, "stderr", sys.stderr)
        os.register_at_fork(after_in_child=self._leave_it_to_the_parent)

    def _leave_it_to_the_parent(self) -> None:
        self._is_fork = True

    def begin(self, dispatcher_id: str) -> None:
        with self._lock:
            self._read_files()
            self._active[dispatcher_id] = self._active.get(dispatcher_id, 0) + 1
            early, self._early = self._early, None
            for stream, text in early or ():
                self._write(dispatcher_id, stream, text)

    def end(self, dispatcher_id: str) -> None:
        """An input is over: what it left without a newline is a line."""
        with self._lock:
            self._read_files(to_the_end=sum(self._active.values()) == 1)
            self._active[dispatcher_id] -= 1
            if not self._active[dispatcher_id]:
                del self._active[dispatcher_id]
                for stream in STREAMS:
                    rest = self._partial.pop((dispatcher_id, stream), "")
                    if rest:
                        self._add(dispatcher_id, stream, rest + "\n")

    def write(self, stream: Stream, text: str) -> bool:
        """Keep the text; False where it is to be written to the file, for it belongs to nobody here."""
        if self._is_fork:
            return False
        with self._lock:
            self._read_files()
            kept = self._keep(current_dispatcher.get(), stream, text)
        if self._journal is not None and (kept or not self._files[stream].is_followed):
            self._journal(stream, text)
        return kept

    def _keep(self, dispatcher_id: str | None, stream: Stream, text: str) -> bool:
        """Whether it belongs to some dispatcher: this one, or the only one that has inputs here."""
        if dispatcher_id is None:
            if self._early is not None:
                self._keep_early(self._early, stream, text)
                return True
            if len(self._active) != 1:
                return False
            dispatcher_id = next(iter(self._active))
        self._write(dispatcher_id, stream, text)
        return True

    def _read_files(self, *, to_the_end: bool = False) -> None:
        """Take in what was written past Python since the last look."""
        for stream, file in self._files.items():
            text = file.read(to_the_end=to_the_end)
            if text:
                self._keep(None, stream, text)
                if self._journal is not None:
                    self._journal(stream, text)

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

    def _keep_early(self, early: deque[tuple[Stream, str]], stream: Stream, text: str) -> None:
        early.append((stream, text))
        self._early_size += len(text)
        while self._early_size > KEPT_CHARACTERS and len(early) > 1:
            self._early_size -= len(early.popleft()[1])

    def look(self) -> None:
        """Take in what subprocesses of inputs that run have written."""
        with self._lock:
            self._read_files()

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


class _File:
    """The file behind a descriptor of this process: what is new in it, line by line."""

    def __init__(self, descriptor: int) -> None:
        self.is_followed = False
        """Not where it is no file, for Ray rotates its logs, or where there is no `/proc`."""
        self._rest = ""
        self._decoder = getincrementaldecoder("utf-8")("replace")
        with contextlib.suppress(OSError):
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                self._file = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
                self._at = os.fstat(self._file).st_size
                self.is_followed = True

    def read(self, *, to_the_end: bool) -> str:
        """Whole lines; to the end, what has no newline gets one."""
        if not self.is_followed:
            return ""
        since, self._at = self._at, os.fstat(self._file).st_size
        if self._at <= since and not (to_the_end and self._rest):
            return ""
        since = max(since, self._at - KEPT_CHARACTERS)
        written = os.pread(self._file, max(0, self._at - since), since)
        lines, newline, rest = (self._rest + self._decoder.decode(written)).rpartition("\n")
        self._rest = last_written(rest)
        text = lines + newline
        if self._rest and (to_the_end or len(self._rest) > LINE_MAX):
            text, self._rest = f"{text}{self._rest}\n", ""
        return text


class _Router(io.TextIOBase):
    """A standard stream that gives the capture what it can place, and the rest to the stream behind it."""

    def __init__(
        self,
        capture: Capture,
        stream: Stream,
        behind: TextIO,
    ) -> None:
        self._capture = capture
        self._stream = stream
        self._behind = behind

    def write(self, text: str) -> int:
        if text and not self._capture.write(self._stream, text):
            self._behind.write(text)
            self._behind.flush()  # It is read from the file.
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
