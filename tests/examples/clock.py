"""The clock of the schedules of the cluster that RAY_ADDRESS names, moved as a test likes.

python clock.py 2026-07-01T06:00:01-04:00 [APP/FUNCTION MIN_CONTAINERS]

moves it there, where it stands, and then waits until that function keeps so many warm.
"""

from __future__ import annotations

import sys
import time
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
    controller.clock = time.time if at is None else lambda: at


def wait_for(function: str, min_containers: int) -> None:
    """Until the function, as APP/FUNCTION, keeps so many warm, and they are ready."""
    found = flexray.Function.from_name(*function.split("/"))

    def keeps() -> bool:
        stats = found.get_current_stats()
        return (stats.settings.min_containers, stats.containers["ready"]) == (min_containers, min_containers)

    wait_until(keeps, timeout_s=30)


if __name__ == "__main__":
    move(datetime.fromisoformat(sys.argv[1]).timestamp() if sys.argv[1] != "now" else None)
    if sys.argv[2:]:
        wait_for(sys.argv[2], int(sys.argv[3]))
