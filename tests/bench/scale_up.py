"""How soon a container exists for an input that finds none.

The clock runs from the call of `.remote` in the caller to the moment when Ray's head knows the new actor by
its name. Who looks for the name is the caller's process itself, which adds up to one look (about a
millisecond) to every figure and takes part of the machine; nothing in the system is instrumented. The
containers ask for a resource that no node has, so that Ray never places them: starting a process is not what
is measured here, and it would disturb the next sample.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

from flexray import App, Function
from flexray.errors import Error
from tests import living
from tests.bench.measure import Plan, Row, percentile
from tests.bench.pools import echo

SAMPLES = 40
"""In one turn; each is the first call of a function of its own."""
TIMEOUT_S = 30.0


def decision(plan: Plan) -> list[Row]:
    """From the submission to the actor, p99."""
    _turn(plan.count(SAMPLES))  # What a first call brings along, in every process, is over then.
    samples_ms = [sample for _ in range(plan.repeat) for sample in _turn(plan.count(SAMPLES))]
    median_ms = percentile(samples_ms, 0.5)
    worst_ms = percentile(samples_ms, 0.99)
    note = f"p50 {median_ms:.1f} ms, highest {max(samples_ms):.1f} ms, {len(samples_ms)} samples"
    return [
        Row("scale-up, from submit to the actor's creation, p99", "ms", [worst_ms], "-", (), 20, note=note)
    ]


def _turn(samples: int) -> list[float]:
    app = App("bench")
    functions = [
        app.function(name=f"probe-{number}", max_containers=1, resources={"nowhere": 1})(echo)
        for number in range(samples)
    ]
    # The end of the app ends the calls, and so the threads.
    with ThreadPoolExecutor(samples) as threads, app.run() as running:
        assert running.app_id is not None
        return [_sample(threads, function, running.app_id) for function in functions]


def _sample(threads: ThreadPoolExecutor, function: Function[..., object], app_id: str) -> float:
    name = f"{app_id}/{function.name}#1"
    began: Future[float] = Future()

    def call() -> None:
        began.set_result(time.perf_counter())
        with suppress(Error):  # Its app ends.
            function.remote(0)

    threads.submit(call)
    began_at = began.result()
    while time.perf_counter() - began_at < TIMEOUT_S:
        if living.exists(name):
            return (time.perf_counter() - began_at) * 1e3
    raise TimeoutError(f"{name} did not come into being within {TIMEOUT_S:g} s")
