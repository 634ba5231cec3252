"""Catches what user code prints in a container, by the caller whose input printed it.

One rule: a line belongs to the dispatcher whose input runs in this context; where the context says nothing
(a thread of the user's own, a subprocess) and one dispatcher alone has inputs here, it belongs to that one.
What is printed before the first input, by enter hooks, belongs to the dispatcher of that input.

Subprocesses, forks and libraries in C write to the descriptors of this process, which are files of Ray's:
what is new there is read whenever something is printed, begins, ends or is looked for. What is printed and
belongs to nobody is written there, too.
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
from contextvars import ContextVar
from typing import BinaryIO, NamedTuple, TextIO

from flexray.output import Stream, Written, whole_lines
from flexray.runtime.inbox import Inbox
from flexray.runtime.journal import Journal

KEPT_CHARACTERS = 1 << 20
"""Per dispatcher, while nobody fetches it; the oldest lines go first."""
LINE_BUFFERED = 1
"""C's `_IOLBF`."""

current_dispatcher: ContextVar[str | None] = ContextVar("flexray_dispatcher", default=None)


class Print(NamedTuple):
    """A piece of text that was written to a standard stream."""

    dispatcher_id: str | None
    """Whose input runs in the context."""
    thread: int
    stream: Stream
    text: str | None
    """None: what has no newline yet is to be seen, too."""


class Capture:
    """Lines printed here, by dispatcher. All of it is touched in the inbox's hold alone."""

    def __init__(self) -> None:
        self._prints: Inbox[Print] = Inbox(self._take)
        self._lines: dict[str, deque[Written]] = {}
        self._sizes: dict[str, int] = {}
        self._partial: dict[tuple[str | int, Stream], str] = {}
        """What has no newline yet, by dispatcher, or by thread where it is nobody's."""
        self._active: dict[str, int] = {}
        self._early: deque[Written] | None = deque()
        """Printed by enter hooks, before anybody had an input here; None: given to whoever had the first."""
        self._early_size = 0
        self._files: dict[Stream, _File] = {}
        self._journal: Journal | None = None

    def install(self, journal: Journal | None) -> None:
        """Replace sys.stdout and sys.stderr of this process; the journal is told all that is printed."""
        self._journal = journal
        self._files = {"stdout": _File(1, sys.stdout), "stderr": _File(2, sys.stderr)}
        sys.stdout = stdout = _Router(self, "stdout", self._files["stdout"])
        sys.stderr = stderr = _Router(self, "stderr", self._files["stderr"])
        with contextlib.suppress(Exception):  # Else what C prints is in the file when 4 KB of it are there.
            libc = ctypes.CDLL(None)
            for stream in self._files:
                libc.setvbuf(ctypes.c_void_p.in_dll(libc, stream), None, LINE_BUFFERED, 0)
        os.register_at_fork(after_in_child=stdout.be_a_fork)
        os.register_at_fork(after_in_child=stderr.be_a_fork)

    def write(self, stream: Stream, text: str | None) -> None:
        """Take what was printed in this context, on this thread. Never waits."""
        self._prints.put(Print(current_dispatcher.get(), threading.get_ident(), stream, text))

    def begin(self, dispatcher_id: str) -> None:
        """An input of this dispatcher runs from now on."""
        with self._prints.held():
            self._read_files(to_the_end=dispatcher_id not in self._active)
            self._active[dispatcher_id] = self._active.get(dispatcher_id, 0) + 1
            early, self._early = self._early, None
            for stream, text, is_logged in early or ():
                self._write(dispatcher_id, stream, text, is_logged=is_logged)

    def end(self, dispatcher_id: str) -> None:
        """An input is over: what it left without a newline is a line."""
        with self._prints.held():
            self._read_files(to_the_end=self._active[dispatcher_id] == 1)
            self._active[dispatcher_id] -= 1
            if not self._active[dispatcher_id]:
                del self._active[dispatcher_id]
                for stream in self._files:
                    rest = self._partial.pop((dispatcher_id, stream), "")
                    if rest:
                        self._add(dispatcher_id, stream, rest + "\n")

    def look(self, *, to_the_end: bool = False) -> None:
        """Take in what was written past Python; to the end, also what has no newline."""
        with self._prints.held():
            self._read_files(to_the_end=to_the_end)

    def drain(self, dispatcher_id: str) -> list[Written]:
        """What was printed for this dispatcher since the last call."""
        if dispatcher_id not in self._lines:
            return []
        with self._prints.held():
            self._sizes.pop(dispatcher_id, None)
            return list(self._lines.pop(dispatcher_id, ()))

    def _take(self, printed: Print) -> None:
        self._read_files()  # What was written before it comes before it.
        stream, text = printed.stream, printed.text
        dispatcher_id = printed.dispatcher_id or self._only()
        if dispatcher_id is None and self._early is None:
            self._write_to_file(printed)
        elif text is not None:
            if self._journal is not None:
                self._journal.write(stream, text, printed.thread)
            if dispatcher_id is not None:
                self._write(dispatcher_id, stream, text)
            else:
                self._keep_early(stream, text)

    def _write_to_file(self, printed: Print) -> None:
        """In whole lines, for other threads and processes write there, too."""
        key, file = (printed.thread, printed.stream), self._files[printed.stream]
        lines, rest = whole_lines(self._partial.pop(key, "") + (printed.text or ""))
        if printed.text is None:
            lines, rest = lines + rest, ""
        if rest:
            self._partial[key] = rest
        file.write(lines)
        if self._journal is not None and not file.is_followed:
            self._journal.write(printed.stream, lines, printed.thread)

    def _only(self) -> str | None:
        """The only dispatcher that has inputs here."""
        return next(iter(self._active)) if len(self._active) == 1 else None

    def _write(self, dispatcher_id: str, stream: Stream, text: str, *, is_logged: bool = False) -> None:
        lines, rest = whole_lines(self._partial.pop((dispatcher_id, stream), "") + text)
        if lines:
            self._add(dispatcher_id, stream, lines, is_logged=is_logged)
        if rest:
            self._partial[dispatcher_id, stream] = rest

    def _keep_early(self, stream: Stream, text: str, *, is_logged: bool = False) -> None:
        assert self._early is not None
        self._early.append((stream, text, is_logged))
        self._early_size += len(text)
        while self._early_size > KEPT_CHARACTERS and len(self._early) > 1:
            self._early_size -= len(self._early.popleft()[1])

    def _read_files(self, *, to_the_end: bool = False) -> None:
        """Take in what was written past Python since the last look."""
        for stream, file in self._files.items():
            text = file.read(to_the_end=to_the_end)
            if text:
                if self._journal is not None:
                    self._journal.write(stream, text, 0)
                if self._early is not None:
                    self._keep_early(stream, text, is_logged=True)
                elif (dispatcher_id := self._only()) is not None:
                    self._add(dispatcher_id, stream, text, is_logged=True)

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
        self._descriptor = descriptor
        self.is_followed = False
        """Not where it is no file, for Ray rotates its logs, or where there is no `/proc`."""
        self._rest = ""
        self._decoder = getincrementaldecoder("utf-8")("replace")
        with contextlib.suppress(OSError):
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                self._file = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
                self._at = os.lseek(self._file, 0, os.SEEK_END)
                self.is_followed = True

    def write(self, text: str) -> None:
        """Past the stream behind, which has a lock of its own."""
        data = text.encode("utf-8", "replace")
        with contextlib.suppress(OSError):  # The disk is full, or the user's code has closed it.
            while data:
                data = data[os.write(self._descriptor, data) :]

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
        lines, self._rest = whole_lines(self._rest + self._decoder.decode(written))
        if self._rest and to_the_end:
            lines, self._rest = f"{lines}{self._rest}\n", ""
        return told + lines


class _Router(io.TextIOBase):
    """A standard stream that gives all to the capture; in a fork, whole lines to the file."""

    def __init__(self, capture: Capture, stream: Stream, file: _File) -> None:
        self._capture = capture
        self._stream = stream
        self._file = file
        self._of_thread: threading.local | None = None
        """In a fork, what each thread has written since its last newline."""

    def be_a_fork(self) -> None:
        """The capture is the parent's, which reads the file."""
        self._of_thread = threading.local()

    def write(self, text: str) -> int:
        if self._of_thread is None:
            if text:
                self._capture.write(self._stream, text)
        else:
            lines, self._of_thread.rest = whole_lines(getattr(self._of_thread, "rest", "") + text)
            self._file.write(lines)
        return len(text)

    def flush(self) -> None:
        if self._of_thread is None:
            self._capture.write(self._stream, None)
        else:
            rest, self._of_thread.rest = getattr(self._of_thread, "rest", ""), ""
            self._file.write(rest)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._file.behind.fileno()

    @property
    def buffer(self) -> BinaryIO:
        return self._file.behind.buffer

    def reconfigure(self, **_: object) -> None:
        """Nothing to change: text is kept as it is."""

    def isatty(self) -> bool:
        return False

    @property
    def encoding(self) -> str:  # type: ignore[override]  # TextIOBase declares an attribute.
        return "utf-8"
