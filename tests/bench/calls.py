"""One input at a time: `.remote` in a loop, from many threads, and with large arrays."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import ray

from tests.bench.measure import Plan, Row, in_turns, median_ms
from tests.bench.peers import AsyncEcho, Echo, actors, serve_echo
from tests.bench.pools import echo, warm

BLOCKS = 10
"""Blocks of calls in one turn: the shorter a block, the more alike the machine for both sides."""
BLOCK_CALLS = 100
WARM_UP_CALLS = 300
ARRAY_BYTES = 10_000_000
THREADS = 50
THREADS_S = 2.0


def call_against_actor(plan: Plan) -> list[Row]:
    """Warm `f.remote(x)` beside the call of a plain async actor."""
    with warm(echo, 1) as function, actors(AsyncEcho, 1) as (actor,):
        ours, theirs = _blocks(plan, function.remote, lambda value: ray.get(actor.echo.remote(value)))
    return [Row("warm f.remote(x) in a loop, p50", "ms", ours, "plain async actor", theirs, 1.15)]


def call_against_serve(plan: Plan) -> list[Row]:
    """Warm `f.remote(x)` beside a Serve handle."""
    with warm(echo, 1) as function, serve_echo(1) as serve:
        ours, theirs = _blocks(plan, function.remote, serve)
    return [Row("warm f.remote(x) in a loop, p50", "ms", ours, "Ray Serve handle", theirs, 0.5)]


def large_array(plan: Plan) -> list[Row]:
    """10 MB there and back."""
    array = np.arange(ARRAY_BYTES // 8, dtype=np.float64)
    calls = plan.count(10)
    with warm(echo, 1) as function, actors(Echo, 1) as (actor,):
        ours, theirs = _medians(
            plan.repeat, calls, lambda _: function.remote(array), lambda _: ray.get(actor.echo.remote(array))
        )
    return [Row("10 MB numpy argument and result, p50", "ms", ours, "plain actor", theirs, 1.3)]


def threads_against_serve(plan: Plan) -> list[Row]:
    """50 threads that call as fast as they are answered."""
    length_s = THREADS_S * plan.share
    with warm(echo, 4) as function, serve_echo(4) as serve:
        subjects = [lambda call=call: _rate(call, length_s) for call in (function.remote, serve)]
        in_turns(subjects, 1)
        ours, theirs = in_turns(subjects, plan.repeat)
    return [
        Row(f"{THREADS} threads calling 4 containers", "calls/s", ours, "Ray Serve handle", theirs, 8, True)
    ]


def _blocks(plan: Plan, *calls: Callable[[int], Any]) -> list[list[float]]:
    for call in calls:
        median_ms(call, plan.count(WARM_UP_CALLS))
    return _medians(plan.repeat * BLOCKS, plan.count(BLOCK_CALLS), *calls)


def _medians(turns: int, count: int, *calls: Callable[[int], Any]) -> list[list[float]]:
    subjects = [lambda call=call: median_ms(call, count) for call in calls]
    in_turns(subjects, 1)
    return in_turns(subjects, turns)


def _rate(call: Callable[[int], Any], length_s: float) -> float:
    """Calls per second of all threads together."""
    counts = [0] * THREADS
    start = threading.Barrier(THREADS + 1)
    until = 0.0

    def work(number: int) -> None:
        start.wait()
        while time.perf_counter() < until:
            call(number)
            counts[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    until = time.perf_counter() + length_s
    start.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - began)
