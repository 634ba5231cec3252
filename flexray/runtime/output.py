"""Catches what user code prints in a container, by the caller whose input printed it.

One rule: a line belongs to the dispatcher whose input runs in this context; where the context says nothing
(a thread of the user's own, a subprocess) and one dispatcher alone has inputs here, it belongs to that one.
What is printed before the first input, by enter hooks, belongs to the dispatcher of that input.

Subprocesses, forks and libraries in C write to the descriptors of this process, which are files of Ray's:
what is new there is read whenever something is printed, begins, ends or is looked for.

A print may come in the middle of anything here, from a finalizer, so the lock may be taken again; and the
journal, which has one of its own, is told when this one is free.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import stat
import sys
import threading
from codecs import getincrementaldecoder
from collections import deque
from collections.abc import Iterator
from contextvars import ContextVar
from typing import BinaryIO, TextIO

from flexray.output import Stream, Written, last_written
from flexray.runtime.journal import Journal

STREAMS: tuple[Stream, ...] = ("stdout", "stderr")

LINE_MAX = 8192
"""A line without an end is cut after so many characters."""
KEPT_CHARACTERS = 1 << 20
"""Per dispatcher, while nobody fetches it; the oldest lines go first."""
LINE_BUFFERED = 1
"""C's `_IOLBF`."""

current_dispatcher: ContextVar[str | None] = ContextVar("flexray_dispatcher", default=None)


class Capture:
    """Written printed here, by dispatcher."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._depth = 0
        """How often whoever has the lock has taken it."""
        self._lines: dict[str, deque[Written]] = {}
        self._sizes: dict[str, int] = {}
        self._partial: dict[tuple[str, Stream], str] = {}
        self._active: dict[str, int] = {}
        self._early: deque[tuple[Stream, str]] | None = deque()
        """Printed by enter hooks, before anybody had an input here; None: given to whoever had the first."""
        self._early_size = 0
        self._files: dict[Stream, _File] = {}
        self._journal: Journal | None = None
        self._untold: deque[tuple[Stream, str]] = deque()
        """Read from the files, and not in the journal yet."""
        self._is_fork = False

    def install(self, journal: Journal | None) -> None:
        """Replace sys.stdout and sys.stderr of this process; the journal is told all that is printed."""
        self._journal = journal
        self._files = {"stdout": _File(1, sys.stdout), "stderr": _File(2, sys.stderr)}
        sys.stdout = stdout = _Router(self, "stdout", 1, sys.stdout)
        sys.stderr = stderr = _Router(self, "stderr", 2, sys.stderr)
        with contextlib.suppress(Exception):  # Else what C prints is in the file when 4 KB of it are there.
            libc = ctypes.CDLL(None)
            for name in STREAMS:
                libc.setvbuf(ctypes.c_void_p.in_dll(libc, name), None, LINE_BUFFERED, 0)

        def leave_it_to_the_parent() -> None:
            self._is_fork = True
            stdout.be_a_fork()
            stderr.be_a_fork()

        os.register_at_fork(after_in_child=leave_it_to_the_parent)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with self._lock:
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                is_free = not self._depth
        while is_free and self._journal is not None:
            try:
                stream, text = self._untold.popleft()
            except IndexError:
                break
            self._journal.write(stream, text, of_thread=False)

    def begin(self, dispatcher_id: str) -> None:
        with self._locked():
            self._read_files(to_the_end=dispatcher_id not in self._active)
            self._active[dispatcher_id] = self._active.get(dispatcher_id, 0) + 1
            early, self._early = self._early, None
            for stream, text in early or ():
                self._write(dispatcher_id, stream, text)

    def end(self, dispatcher_id: str) -> None:
        """An input is over: what it left without a newline is a line."""
        with self._locked():
            self._read_files(to_the_end=self._active[dispatcher_id] == 1)
            self._active[dispatcher_id] -= 1
            if not self._active[dispatcher_id]:
                del self._active[dispatcher_id]
                for stream in STREAMS:
                    rest = self._partial.pop((dispatcher_id, stream), "")
                    if rest:
                        self._add(dispatcher_id, stream, rest + "\n")

    def look(self, *, to_the_end: bool = False) -> None:
        """Take in what was written past Python; to the end, also what has no newline."""
        with self._locked():
            self._read_files(to_the_end=to_the_end)

    def write(self, stream: Stream, text: str) -> bool:
        """Keep the text; False where it is to be written to the file, for it belongs to nobody here."""
        if self._is_fork:
            return False
        with self._locked():
            self._read_files()
            dispatcher_id = current_dispatcher.get() or self._only()
            kept = dispatcher_id is not None or self._early is not None
            if dispatcher_id is not None:
                self._write(dispatcher_id, stream, text)
            elif self._early is not None:
                self._keep_early(self._early, stream, text)
            is_nested = self._depth > 1
        if self._journal is not None and (kept or not self._files[stream].is_followed):
            if is_nested:
                self._untold.append((stream, text))
            else:
                self._journal.write(stream, text)
        return kept

    def _only(self) -> str | None:
        """The only dispatcher that has inputs here."""
        return next(iter(self._active)) if len(self._active) == 1 else None

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

    def _read_files(self, *, to_the_end: bool = False) -> None:
        """Take in what was written past Python since the last look."""
        for stream, file in self._files.items():
            text = file.read(to_the_end=to_the_end)
            if text:
                if self._journal is not None:
                    self._untold.append((stream, text))
                if self._early is not None:
                    self._keep_early(self._early, stream, text)
                elif (dispatcher_id := self._only()) is not None:
                    self._add(dispatcher_id, stream, text, is_logged=True)

    def drain(self, dispatcher_id: str) -> list[Written]:
        """What was printed for this dispatcher since the last call."""
        if dispatcher_id not in self._lines:
            return []
        with self._locked():
            self._sizes.pop(dispatcher_id, None)
            return list(self._lines.pop(dispatcher_id, ()))

    def _add(self, dispatcher_id: str, stream: Stream, text: str, *, is_logged: bool = False) -> None:
        lines = self._lines.setdefault(dispatcher_id, deque())
        lines.append((stream, text, is_logged))
        size = self._sizes.get(dispatcher_id, 0) + len(text)
        while size > KEPT_CHARACTERS and len(lines) > 1:
            size -= len(lines.popleft()[1])
        self._sizes[dispatcher_id] = size


class _File:
    """The file behind a standard stream of this process: what is new in it, line by line."""

    def __init__(self, descriptor: int, behind: TextIO) -> None:
        self.behind = behind
        self.is_followed = False
        """Not where it is no file, for Ray rotates its logs, or where there is no `/proc`."""
        self._rest = ""
        self._decoder = getincrementaldecoder("utf-8")("replace")
        with contextlib.suppress(OSError):
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                self._file = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
                self._at = os.lseek(self._file, 0, os.SEEK_END)
                self.is_followed = True

    def read(self, *, to_the_end: bool) -> str:
        """Whole lines; to the end, what has no newline gets one."""
        if not self.is_followed:
            return ""
        try:
            if to_the_end:
                self.behind.flush()  # `sys.stdout.buffer` is there.
            size = os.lseek(self._file, 0, os.SEEK_END)  # A third of what fstat takes.
            if size == self._at and not (to_the_end and self._rest):
                return ""
            if size < self._at:  # It was cut off.
                self._at = 0
            since = max(self._at, size - KEPT_CHARACTERS)
            written = os.pread(self._file, size - since, since)
        except (OSError, ValueError):  # The disk fails, or the user's code has closed it.
            self.is_followed = False
            return ""
        lost, self._at = since - self._at, since + len(written)
        return self._lines(written, lost, to_the_end=to_the_end)

    def _lines(self, written: bytes, lost: int, *, to_the_end: bool) -> str:
        told = ""
        if lost:
            self._rest = ""
            self._decoder.reset()
            lost += len(written)
            written = written.partition(b"\n")[2]
            told = f"({lost - len(written):,} bytes were lost here)\n"
        lines, newline, rest = (self._rest + self._decoder.decode(written)).rpartition("\n")
        text = told + lines + newline
        self._rest = last_written(rest)
        if self._rest and (to_the_end or len(self._rest) > LINE_MAX):
            text, self._rest = f"{text}{self._rest}\n", ""
        return text


class _Router(io.TextIOBase):
    """A standard stream that gives the capture what it can place, and the rest to the stream behind it."""

    def __init__(self, capture: Capture, stream: Stream, descriptor: int, behind: TextIO) -> None:
        self._capture = capture
        self._stream = stream
        self._descriptor = descriptor
        self._behind = behind
        self._is_fork = False
        self._mine = threading.local()
        """What this thread has written for the file since its last newline: others write there, too."""

    def be_a_fork(self) -> None:
        """What the parent has not finished, it will write itself."""
        self._is_fork = True
        self._mine = threading.local()

    def write(self, text: str) -> int:
        if text and not self._capture.write(self._stream, text):
            lines, newline, rest = (getattr(self._mine, "rest", "") + text).rpartition("\n")
            self._mine.rest = last_written(rest)
            if newline:
                self._write_out(lines + newline)
            if len(self._mine.rest) > LINE_MAX:
                self.flush()
        return len(text)

    def flush(self) -> None:
        rest, self._mine.rest = getattr(self._mine, "rest", ""), ""
        self._write_out(rest)

    def _write_out(self, text: str) -> None:
        if self._is_fork:  # The stream behind has a lock, which a thread of the parent may have had.
            data = text.encode("utf-8", "replace")
            while data:
                data = data[os.write(self._descriptor, data) :]
        else:
            if text:
                self._behind.write(text)
            self._behind.flush()  # It is read from the file.

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
