"""Nodes that come and go: a call that needs one, beside a bare Ray actor that needs the same.

On a Ray of their own, whose autoscaler v2 looks once a second. Nodes are processes of this machine, so what
is measured is how all these wait for each other, and no machine's start.
"""

from __future__ import annotations

from statistics import median

from tests.bench.measure import Plan, Row
from tests.integration.node_scaling import IDLE_TIMEOUT_S, NodeType, gpu_node_visit, running_nodes

GPU = NodeType({"CPU": 2, "GPU": 2, "accelerator_type:A100": 1})
WINDOW_S = 2.0


def gpu_node(plan: Plan) -> list[Row]:
    """From no node to a result, and from the last result to no node."""
    with running_nodes({"gpu": GPU}) as cluster:
        visits = [cluster.run(gpu_node_visit, "A100", WINDOW_S) for _ in range(plan.repeat)]
    bare = [visit.bare_s for visit in visits]
    results = [visit.result_s for visit in visits]
    gone = [visit.gone_s for visit in visits]
    most = WINDOW_S + IDLE_TIMEOUT_S + 5.0
    note = f"scaledown window {WINDOW_S:g} s, idle timeout {IDLE_TIMEOUT_S:g} s, and 5 s"
    return [
        Row(
            "GPU node from zero: call to result", "s", results, "a bare actor", bare, 1.0 + 1.0 / median(bare)
        ),
        Row("GPU node: last result to node gone", "s", gone, "-", (), most, note=note),
    ]
