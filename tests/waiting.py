"""The only way in which a test waits."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T], timeout_s: float = 10.0, *, every_s: float = 0.02) -> T:
    """The condition's first true value; fails the test, naming the condition, after `timeout_s` seconds."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            name = getattr(condition, "__qualname__", condition)
            message = f"{name} was still {value!r} after {timeout_s:g} s"
            raise AssertionError(message)
        time.sleep(every_s)
