"""Inside a container: inputs that await together, inputs in one call, results one by one; and many pools."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from math import ceil

import ray

import flexray
from flexray import App, backend
from tests.bench.cluster import CPUS
from tests.bench.measure import Plan, Row, in_turns, seconds
from tests.bench.peers import actors
from tests.bench.pools import warm
from tests.fault.actors import Actors
from tests.waiting import wait_until

TOGETHER = 100
AWAIT_S = 0.1
FULL = 64
GATHER_MS = 100
COST_S = 0.02
"""Of one call, however many inputs it has."""
ALIVE_MAX = 4
GROWTH = "MB more"
"""The unit of what may as well be nothing, or less."""
FORGOTTEN_S = 180.0
"""A pool is forgotten when nobody has used it for a minute; after so long something is wrong."""


@flexray.concurrent(max_inputs=TOGETHER)
async def pause(length_s: float) -> None:
    await asyncio.sleep(length_s)


@flexray.batched(max_batch_size=FULL, wait_ms=GATHER_MS)
def batch_size(number: list[int]) -> list[int]:
    time.sleep(COST_S)
    return [len(number)] * len(number)


def alone(_: int) -> int:
    time.sleep(COST_S)
    return 1


def numbers(count: int) -> Iterator[int]:
    for number in range(count):
        yield number + 1


@ray.remote(num_cpus=0)
class Numbers:
    """A plain actor that gives its results one by one."""

    @ray.method(num_returns="streaming")
    def numbers(self, count: int) -> Iterator[int]:
        for number in range(count):
            yield number + 1


class Model:
    """A class with a parameter, and so with a pool for each of its values."""

    number: int = flexray.parameter()

    @flexray.method()
    def doubled(self) -> int:
        return 2 * self.number


def awaits(plan: Plan) -> list[Row]:
    """Inputs that only await, a hundred at once in one container."""
    count = plan.count(1_000, TOGETHER)
    inputs = [AWAIT_S] * count
    with warm(pause, 1) as function:
        subjects = [lambda: count / seconds(lambda: list(function.map(inputs)))]
        in_turns(subjects, 1)
        (rates,) = in_turns(subjects, plan.repeat)
    ideal = count / (ceil(count / TOGETHER) * AWAIT_S)
    work = f"{count:,} awaits of 100 ms on one container, max_inputs={TOGETHER}"
    return [Row(work, "inputs/s", rates, "ideal", [ideal] * len(rates), 0.9, True)]


def batches(plan: Plan) -> list[Row]:
    """Inputs of which up to 64 share a call, beside inputs that have one each; rates are compared."""
    count, few = plan.count(10_000, 2 * FULL), plan.count(100)
    sizes: list[list[int]] = []
    with warm(batch_size, 1) as gathered, warm(alone, 1) as single:
        subjects = [
            lambda: count / seconds(lambda: sizes.append(list(gathered.map(range(count))))),
            lambda: few / seconds(lambda: list(single.map(range(few)))),
        ]
        in_turns(subjects, 1)
        sizes.clear()
        ours, theirs = in_turns(subjects, plan.repeat)
    means = [_mean_batch(turn[:-FULL]) for turn in sizes]
    work = f"{count:,} inputs, max_batch_size={FULL}, 20 ms a batch"
    return [
        Row(f"{work}: mean batch", "inputs", means, "full", [FULL] * len(means), 0.9, True),
        Row(work, "inputs/s", ours, "unbatched, 20 ms an input", theirs, 20, True),
    ]


def _mean_batch(sizes: Sequence[int]) -> float:
    """The mean over batches, from the size of its batch for each input.

    Where the last inputs are left out, there were always enough that waited for a full one.
    """
    return len(sizes) / sum(1 / size for size in sizes)


def stream(plan: Plan) -> list[Row]:
    """Small results one by one, beside the plain actor's streaming generator."""
    count = plan.count(10_000)
    with warm(numbers, 1) as function, actors(Numbers, 1) as (actor,):
        subjects = [
            lambda: count / seconds(lambda: list(function.remote_gen(count))),
            lambda: count / seconds(lambda: [ray.get(ref) for ref in actor.numbers.remote(count)]),
        ]
        in_turns(subjects, 1)
        ours, theirs = in_turns(subjects, plan.repeat)
    work = f"remote_gen of {count:,} ints"
    return [Row(work, "results/s", ours, "streaming generator of an actor", theirs, 1, True)]


def parameter_sets(plan: Plan) -> list[Row]:
    """Pools by the thousand, each used once: what is left of them in the controller.

    Ray has room for four containers at once. One turn, for it takes minutes; what the controller needs for
    the first pool of all is not counted.
    """
    count = plan.count(1_000, ALIVE_MAX)
    app = App("bench")
    model = app.cls(cpu=CPUS / ALIVE_MAX, scaledown_window=2)(Model)

    def use(number: int) -> None:
        assert model(number=number).doubled.remote() == 2 * number

    with app.run() as running, ThreadPoolExecutor(ALIVE_MAX) as threads:
        use(-1)
        controller = Actors().controller
        before_mb = _memory_mb(controller)
        took_s = seconds(lambda: list(threads.map(use, range(count))))
        used_mb = _memory_mb(controller)
        assert running.app_id is not None
        for number in range(count)[-2 * ALIVE_MAX :]:  # Those used last are forgotten last.
            pool_id, _ = model.pool_of(running.app_id, {"number": number})
            wait_until(partial(_is_forgotten, pool_id), FORGOTTEN_S, every_s=0.25)
        assert Actors().controller == controller, "the controller died, and its memory with it"
        growth_mb = _memory_mb(controller) - before_mb
    note = (
        f"from {before_mb:.0f} MB; {used_mb - before_mb:+.1f} MB when the last was used, after {took_s:.0f} s"
    )
    work = f"controller's memory after {count:,} parameter sets"
    return [Row(work, GROWTH, [growth_mb], "-", (), 20, note=note)]


def _is_forgotten(pool_id: str) -> bool:
    return backend.connect().stats(pool_id)["settings"] is None


def _memory_mb(process: int) -> float:
    """Of the resident set."""
    import psutil  # type: ignore[import-untyped]  # Ray brings it along; it is found once Ray is imported.

    resident: int = psutil.Process(process).memory_info().rss
    return resident / 1e6
