"""Moves the clock of the schedules of the cluster that RAY_ADDRESS names, as the lines of its input say.

`2026-07-01T06:00:01-04:00` stops it at that time; `2026-07-01T06:00:01-04:00 shop/serve 2` then waits until
that function keeps so many containers warm. A line of output says that it is done; at the end the clock goes
right again.
"""

# ruff: noqa: T201

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import ray

import flexray
from flexray import backend
from tests.waiting import wait_until


def move(at: float | None) -> None:
    """To that second of Unix, where it stands still; None: it goes right again."""
    backend.connect()
    controller: Any = ray.get_actor("flexray:controller", namespace="flexray")
    ray.get(controller.__ray_call__.remote(_set, at))


def _set(controller: Any, at: float | None) -> None:
    controller.behind.clock = time.time if at is None else lambda: at


def wait_for(function: str, min_containers: int) -> None:
    """Until the function, as APP/FUNCTION, keeps so many warm, and as many are ready."""
    found = flexray.Function.from_name(*function.split("/"))

    def keeps() -> bool:
        stats = found.get_current_stats()
        return stats.settings.min_containers == min_containers <= stats.containers["ready"]

    wait_until(keeps, timeout_s=30)


def follow(lines: Iterable[str]) -> None:
    try:
        for line in lines:
            at, *function = line.split()
            move(datetime.fromisoformat(at).timestamp())
            if function:
                wait_for(function[0], int(function[1]))
            print("done", flush=True)
    finally:
        move(None)


if __name__ == "__main__":
    follow(sys.stdin)
