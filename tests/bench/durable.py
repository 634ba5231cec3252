"""Spawned calls: how fast they are kept and run, what a million of them needs, and a restart with them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from statistics import median

import psutil  # type: ignore[import-untyped]  # Ray brings it along.

from flexray import FunctionCall, backend
from tests.bench.measure import Plan, Row, in_turns, median_ms, seconds
from tests.bench.pools import echo, nap, pool, warm
from tests.waiting import wait_until

MILLION = 1_000_000
DRAINED = 200_000
NAP_S = 0.05
NAPS = 100
DRAIN_TIMEOUT_S = 300.0


def spawn(plan: Plan) -> list[Row]:
    """One spawn after the other, and with its result, beside `remote`."""
    calls = plan.count(200)
    with warm(echo, 1) as function:
        subjects = [
            lambda: median_ms(function.spawn, calls),
            lambda: median_ms(lambda value: function.spawn(value).get(), calls),
            lambda: median_ms(function.remote, calls),
        ]
        in_turns(subjects, 1)
        spawned, fetched, called = in_turns(subjects, plan.repeat)
    return [
        Row("f.spawn(x), p50", "ms", spawned, "-", (), 5),
        Row("f.spawn(x).get(), p50", "ms", fetched, "f.remote(x)", called, 4),
    ]


def drain(plan: Plan) -> list[Row]:
    """Trivial inputs on two containers, from the first that is spawned to the last outcome on the disk."""
    count = plan.count(DRAINED)

    def run() -> float:
        return count / seconds(lambda: _wait_for(function.spawn_map(range(count)), count))

    with warm(echo, 2) as function:
        function.spawn(0).get()
        rates = [run() for _ in range(plan.repeat)]
    return [Row(f"{count:,} spawned inputs on 2 containers", "inputs/s", rates, "-", (), 5000, True)]


def million(plan: Plan) -> list[Row]:
    """A million inputs for a pool that no node has room for; then the call queue is killed. One turn."""
    count = plan.count(MILLION)
    with pool(echo, resources={"held": 1}, startup_timeout=3600) as held, warm(nap, 1) as runs:
        runs.spawn(0).get()
        controller_mb = _memory_mb("Controller")
        rate = count / seconds(lambda: held.spawn_map(range(count)))
        queue_mb = _memory_mb("CallQueue")
        growth_mb = _memory_mb("Controller") - controller_mb
        naps = runs.spawn_map([NAP_S] * NAPS)  # However little is measured, some must be left after the kill.
        wait_until(lambda: _done(naps) > 0, 30)
        back_s = _killed_until_next(naps)
    what = f"{count:,} spawned inputs"
    return [
        Row(f"spawn_map of {what}, nothing runs", "inputs/s", [rate], "-", (), 30_000, True),
        Row(f"call queue's memory with {what} waiting", "MB", [queue_mb], "-", (), 200),
        Row(f"controller's memory with {what} waiting", "MB more", [growth_mb], "-", (), 5),
        Row(f"call queue killed with {what} waiting, to the next outcome", "s", [back_s], "-", (), 5),
    ]


def _killed_until_next(call: FunctionCall[None]) -> float:
    """Seconds from the first answer of the new process until an input that it runs is over."""
    _process("CallQueue").kill()
    before = _done(call)  # Answered by the new one.
    began = time.perf_counter()
    wait_until(lambda: _done(call) > before, 60, every_s=0.01)
    return time.perf_counter() - began


def _wait_for(call: FunctionCall[object], count: int) -> None:
    wait_until(partial(_is_over, call, count), DRAIN_TIMEOUT_S, every_s=0.02)


def _is_over(call: FunctionCall[object], count: int) -> bool:
    return _done(call) == count


def _done(call: FunctionCall[object]) -> int:
    done: int = backend.connect().ask_queue("info", call.object_id).done
    return done


def _process(name: str) -> psutil.Process:
    """The actor of this class among the descendants of this process's Ray."""
    mine: Sequence[psutil.Process] = psutil.Process().children(recursive=True)
    found = [process for process in mine if process.name().startswith(f"ray::{name}")]
    assert len(found) == 1, f"{len(found)} processes are called ray::{name}"
    return found[0]


def _memory_mb(name: str) -> float:
    """Of the resident set."""
    return median(_process(name).memory_info().rss / 1e6 for _ in range(3))
