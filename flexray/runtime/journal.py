"""Sends what a container of a deployed app prints to the logs on the head node.

One rule: user code never waits for it. What cannot be sent is kept, up to a size, and sent later.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from queue import SimpleQueue
from typing import Any

import ray
from ray.exceptions import ActorDiedError, RayError, RayTaskError

from flexray.errors import ExecutionError
from flexray.output import whole_lines
from flexray.runtime.head import find_logs
from flexray.runtime.inbox import Inbox
from flexray.runtime.logstore import Printed

GATHER_S = 0.25
"""Lines are sent so late at most."""
ANSWER_S = 30.0
AGAIN_S = 1.0
FLUSH_S = 2.0
"""How long the end of the container waits for its last lines to be kept."""
KEPT_CHARACTERS = 1 << 20
"""While the logs cannot be reached; the oldest lines go first."""


class Journal:
    """Lines on their way to the logs. Any thread may call it."""

    def __init__(self, app: str, function: str, container_id: str) -> None:
        self._of = (app, function, container_id)
        self._prints: Inbox[tuple[int, str, str | None]] = Inbox(self._take)
        """(thread, stream, text), and None where what that thread left without a newline is a line."""
        self._sending = threading.Lock()
        self._lines: deque[Printed] = deque()
        self._size = 0
        self._lost = 0
        self._partial: dict[tuple[int, str], str] = {}
        """(thread, stream) to what it wrote since its last newline."""
        self._come: SimpleQueue[None] = SimpleQueue()
        """An item where there are lines; giving one never waits, even in a finalizer."""
        self._logs: Any = None
        threading.Thread(target=self._serve, name="flexray-journal", daemon=True).start()

    def write(self, stream: str, text: str, thread: int | None = None) -> None:
        """Take what this thread, or another, or a program (0), has written; whole lines are sent."""
        self._prints.put((threading.get_ident() if thread is None else thread, stream, text))

    def end_line(self) -> None:
        """An input on this thread is over: what it left without a newline is a line."""
        self._prints.put((threading.get_ident(), "", None))

    def _take(self, printed: tuple[int, str, str | None]) -> None:
        thread, stream, text = printed
        if text is None:
            for key in [key for key in self._partial if key[0] == thread]:
                self._add(key[1], self._partial.pop(key))
            return
        key = thread, stream
        lines, rest = whole_lines(self._partial.pop(key, "") + text)
        if lines:
            self._add(stream, lines.removesuffix("\n"))
        if rest:
            self._partial[key] = rest

    def _add(self, stream: str, text: str) -> None:
        text = text.encode("utf-8", "replace").decode()  # Names of files may have what no text has.
        self._lines.append(Printed(*self._of, time.time(), stream, text))
        self._size += len(text)
        while self._size > KEPT_CHARACTERS and len(self._lines) > 1:
            self._size -= len(self._lines.popleft().text)
            self._lost += 1
        if self._come.empty():
            self._come.put(None)

    def close(self) -> None:
        """Send what is left, as far as that is done soon; this process ends."""
        with self._prints.held():
            while self._partial:
                (_, stream), text = self._partial.popitem()
                self._add(stream, text)
        with contextlib.suppress(RayError, ExecutionError):
            self._send(FLUSH_S)

    def _serve(self) -> None:
        while True:
            self._come.get()
            time.sleep(GATHER_S)
            try:
                self._send(ANSWER_S)
            except (RayError, ExecutionError) as error:
                if isinstance(error, RayTaskError) and not isinstance(error.cause, ExecutionError):
                    self._drop()
                if isinstance(error, ActorDiedError):
                    self._logs = None  # Somebody has ended it: the next look starts another.
                time.sleep(AGAIN_S)
                self._come.put(None)

    def _drop(self) -> None:
        """The log store cannot take these lines, now or later."""
        with self._prints.held():
            self._lost += len(self._lines)
            self._lines.clear()
            self._size = 0

    def _send(self, timeout_s: float) -> None:
        if not self._sending.acquire(timeout=timeout_s):
            return  # Others are on their way since long.
        try:
            with self._prints.held():
                lines, self._lines, self._size = self._lines, deque(), 0
                lost, self._lost = self._lost, 0
            if lost:
                told = f"({lost:,} prints were lost here)"
                lines.appendleft(Printed(*self._of, time.time(), "stderr", told))
            try:
                if lines:
                    self._logs = self._logs or find_logs()
                    ray.get(self._logs.add.remote(list(lines)), timeout=timeout_s)
            except BaseException:
                with self._prints.held():
                    self._lines.extendleft(reversed(lines))
                    self._size += sum(len(line.text) for line in lines)
                raise
        finally:
            self._sending.release()
