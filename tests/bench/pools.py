"""Our side: pools of containers that are ready before a clock starts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from flexray import App, Function
from tests.waiting import wait_until


def echo(value: Any) -> Any:
    return value


def nap(length_s: float) -> None:
    time.sleep(length_s)


@contextmanager
def warm(function: Callable[..., Any], containers: int) -> Iterator[Function[..., Any]]:
    """A running function with exactly so many containers, all of them ready."""
    with pool(function, min_containers=containers, max_containers=containers) as running:
        wait_until(lambda: running.get_current_stats().containers["ready"] == containers, 120)
        yield running


@contextmanager
def pool(function: Callable[..., Any], **options: Any) -> Iterator[Function[..., Any]]:
    """A running function of an app of its own."""
    app = App("bench")
    running = app.function(**options)(function)
    with app.run():
        yield running
