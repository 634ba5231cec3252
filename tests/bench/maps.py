"""Many inputs: tiny ones, equal ones, a few long ones among short ones, and a pool that starts from zero."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

import ray
from ray.util import ActorPool
from ray.util.multiprocessing import Pool

from tests.bench.measure import Plan, Row, in_turns, seconds
from tests.bench.peers import Echo, Sleeper, actors
from tests.bench.pools import echo, nap, pool, warm

SETTLE_S = 1.0
"""Between two starts from zero: Ray refills its stock of idle workers."""


def tiny_inputs(plan: Plan) -> list[Row]:
    """100,000 inputs that do nothing; the slow peer gets a twentieth of them, and rates are compared."""
    count, few = plan.count(100_000), plan.count(5_000)
    with (
        warm(echo, 2) as function,
        actors(Echo, 2) as plain,
        Pool(2, ray_remote_args={"num_cpus": 0}) as processes,
    ):
        actor_pool = ActorPool(plain)
        subjects = [
            lambda: count / seconds(lambda: _drain(function.map(range(count)))),
            lambda: few / seconds(lambda: _drain(actor_pool.map(_echo_at, list(range(few))))),
            lambda: count / seconds(lambda: processes.map(echo, range(count))),
        ]
        in_turns(subjects, 1)
        ours, slow, fast = in_turns(subjects, plan.repeat)
    work = f"map over {count:,} tiny inputs, 2 containers"
    return [
        Row(work, "inputs/s", ours, "ActorPool.map", slow, 40, True),
        Row(work, "inputs/s", ours, "multiprocessing.Pool.map", fast, 0.4, True),
    ]


def equal_inputs(plan: Plan) -> list[Row]:
    """Inputs of 20 ms: what is lost between one and the next."""
    count, length_s, containers = plan.count(400, 20), 0.020, 4
    with warm(nap, containers) as function:
        inputs = [length_s] * count
        in_turns([lambda: _drain(function.map(inputs))], 1)
        (times_s,) = in_turns([lambda: seconds(lambda: _drain(function.map(inputs)))], plan.repeat)
    ideal = containers / length_s
    rates = [count / time_s for time_s in times_s]
    work = f"{count} inputs of 20 ms on 4 warm containers"
    return [Row(work, "inputs/s", rates, "ideal", [ideal] * len(rates), 0.95, True)]


def long_among_short(plan: Plan) -> list[Row]:
    """300 inputs of 5 ms with 3 of 3 s among the first hundred: nothing may wait behind a long one.

    The lower bound is that of any schedule: the longest input, or an even share of all.
    """
    short_s, long_s, containers = 0.005, 3.0 * plan.share, 4
    inputs = [short_s] * 300
    for position in (20, 50, 80):
        inputs[position] = long_s
    bound_s = max(long_s, sum(inputs) / containers)

    with warm(nap, containers) as function:

        def run() -> float:
            _drain(function.map([short_s] * 200))  # So that a short input is what is expected.
            return seconds(lambda: _drain(function.map(inputs)))

        (times_s,) = in_turns([run], plan.repeat)
    work = "300 inputs of 5 ms, 3 of 3 s among the first 100, on 4"
    return [Row(work, "s", times_s, "lower bound", [bound_s] * len(times_s), 1.1)]


def from_zero(plan: Plan) -> list[Row]:
    """60 inputs of 0.5 s where nothing runs yet; every turn is the first work of a new pool."""
    inputs = [0.5 * plan.share] * 60
    ours, theirs = in_turns([lambda: _ours_from_zero(inputs), lambda: _actors_from_zero(inputs)], plan.repeat)
    work = "60 inputs of 0.5 s from zero, max 4"
    return [Row(work, "s", ours, "four actors made on the spot", theirs, 1.2)]


def _ours_from_zero(inputs: Sequence[float]) -> float:
    time.sleep(SETTLE_S)
    with pool(nap, max_containers=4) as function:
        return seconds(lambda: _drain(function.map(inputs)))


def _actors_from_zero(inputs: Sequence[float]) -> float:
    time.sleep(SETTLE_S)
    handles: list[Any] = []
    try:
        return seconds(lambda: _feed(handles, inputs))
    finally:
        for handle in handles:
            ray.kill(handle)


def _feed(handles: list[Any], inputs: Sequence[float]) -> None:
    """Makes four actors and gives the next input to whichever is done first."""
    handles += [Sleeper.remote() for _ in range(4)]
    left = list(inputs)
    busy = {handle.nap.remote(left.pop()): handle for handle in handles}
    while busy:
        (done,), _ = ray.wait(list(busy), num_returns=1)
        handle = busy.pop(done)
        if left:
            busy[handle.nap.remote(left.pop())] = handle


def _drain(outputs: Iterable[Any]) -> None:
    for _ in outputs:
        pass


def _echo_at(actor: Any, value: Any) -> Any:
    return actor.echo.remote(value)
