"""Every benchmark by its name, in the order in which they run.

Those without Ray come first and those with Ray Serve last, so that no peer's processes disturb another row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec

from tests.bench import calls, core_rows, deployed, durable, imports, inside, maps, nodes, scale_up
from tests.bench.measure import Plan, Row

Benchmark = Callable[[Plan], list[Row]]

WITHOUT_RAY: Mapping[str, Benchmark] = {
    "import": imports.import_time,
    "core": core_rows.core_event,
}
WITH_RAY: Mapping[str, Benchmark] = {
    "call": calls.call_against_actor,
    "array": calls.large_array,
    "map": maps.tiny_inputs,
    "equal": maps.equal_inputs,
    "long": maps.long_among_short,
    "zero": maps.from_zero,
    "scale-up": scale_up.decision,
    "awaits": inside.awaits,
    "batches": inside.batches,
    "stream": inside.stream,
    "spawn": durable.spawn,
    "drain": durable.drain,
    "million": durable.million,
    "by-name": deployed.first_call,
    "retune": deployed.retune,
    "redeploy": deployed.redeploy,
    "idle": deployed.idle,
    "restart": deployed.restart,
}
TAKES_MINUTES: Mapping[str, Benchmark] = {
    "parameter-sets": inside.parameter_sets,
    "gpu-node": nodes.gpu_node,
}
WITH_SERVE: Mapping[str, Benchmark] = {
    "serve-call": calls.call_against_serve,
    "serve-threads": calls.threads_against_serve,
}
BENCHMARKS: Mapping[str, Benchmark] = {**WITHOUT_RAY, **WITH_RAY, **TAKES_MINUTES, **WITH_SERVE}


def serve_is_installed() -> bool:
    """Whether the peer `ray[serve]`, which only the bench extra has, is there."""
    return find_spec("starlette") is not None and find_spec("fastapi") is not None
