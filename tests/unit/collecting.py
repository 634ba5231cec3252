"""Runs work on threads while the collector comes at any moment, and finalizers with it."""

from __future__ import annotations

import gc
import random
import threading
from collections.abc import Callable


def collect_at_any_moment(work: Callable[[int, Callable[[], None]], None], threads: int) -> None:
    """Calls `work(number of the thread, change)` on each; `change` moves the moments. None may hang."""
    thresholds = gc.get_threshold()

    def run(of: int) -> None:
        rng = random.Random(of)
        work(of, lambda: gc.set_threshold(rng.randint(1, 14)))

    running = [threading.Thread(target=run, args=(of,), daemon=True) for of in range(threads)]
    try:
        for thread in running:
            thread.start()
        for thread in running:
            thread.join(50)
        assert not any(thread.is_alive() for thread in running), "a thread hangs"
    finally:
        gc.set_threshold(*thresholds)
    gc.collect()
