"""A driver with a cluster of three nodes, one of which is killed under a map. Run by `test_nodes`.

In a process of its own, for a process is connected to one cluster at a time.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from pathlib import Path

from tests.fault.runs import Runs


def main(folder: Path) -> None:
    import ray
    from ray.cluster_utils import Cluster

    import flexray

    tempfile.tempdir = str(folder)
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "gcs_server_port": 0, "include_dashboard": False},
    )
    nodes = [cluster.add_node(num_cpus=2) for _ in range(2)]
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    runs = Runs(folder)
    app = flexray.App("nodes")

    @app.function(cpu=1, max_containers=4)
    def work(x: int) -> tuple[int, str]:
        with runs.of(x, lasting_s=0.1):
            return x, ray.get_runtime_context().get_node_id()

    with app.run():
        outputs = iter(work.map(range(800)))
        results: list[tuple[int, str]] = []
        while len({node for _, node in results}) < 2:
            results.append(next(outputs))
        cluster.remove_node(nodes[0], allow_graceful=False)
        results += outputs
    assert [x for x, _ in results] == list(range(800))
    assert not runs.overlapping(), runs.overlapping()
    assert len(runs.repeated()) <= 4, runs.repeated()
    ray.shutdown()
    cluster.shutdown()  # type: ignore[no-untyped-call]
    print("passed", flush=True)  # noqa: T201


if __name__ == "__main__":
    os.environ.pop("RAY_ADDRESS", None)
    main(Path(sys.argv[1]))
