"""A driver with a cluster of three nodes, one of which Ray drains under a map. Run by `test_nodes`.

In a process of its own, for a process is connected to one cluster at a time.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import time
from pathlib import Path

from tests.fault.runs import Runs
from tests.waiting import wait_until

DEADLINE_S = 120


def main(folder: Path) -> None:
    import ray
    from ray.cluster_utils import Cluster

    import flexray

    tempfile.tempdir = str(folder)
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "gcs_server_port": 0, "include_dashboard": False},
    )
    for _ in range(2):
        cluster.add_node(num_cpus=2)
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    runs = Runs(folder)
    app = flexray.App("leaving")

    @app.function(cpu=1, max_containers=2)
    def work(x: int) -> tuple[int, str]:
        with runs.of(x, lasting_s=0.1):
            return x, ray.get_runtime_context().get_node_id()

    with app.run():
        outputs = iter(work.map(range(400)))
        results: list[tuple[int, str]] = [next(outputs) for _ in range(20)]
        leaving = results[-1][1]
        drain(leaving)
        results += outputs
        told = {node for _, node in results[-40:]}
        wait_until(lambda: work.get_current_stats().num_total_runners > 0)
    assert [x for x, _ in results] == list(range(400))
    assert leaving not in told, "inputs are still given to the node that will go"
    assert told, results[-1:]
    assert not runs.repeated(), runs.repeated()
    ray.shutdown()
    cluster.shutdown()  # type: ignore[no-untyped-call]
    print("passed", flush=True)  # noqa: T201


def drain(node: str) -> None:
    """Tell Ray that this node will be preempted, as a cloud does."""
    from ray._private.worker import global_worker
    from ray.core.generated import autoscaler_pb2

    accepted, reason = global_worker.gcs_client.drain_node(
        node,
        autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION"),
        "preempted",
        int((time.time() + DEADLINE_S) * 1000),
    )
    assert accepted, reason


if __name__ == "__main__":
    os.environ.pop("RAY_ADDRESS", None)
    main(Path(sys.argv[1]))
