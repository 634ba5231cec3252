"""Ray accepts the options and places by them."""

from __future__ import annotations

import os

import ray

from flexray.config import Resources
from flexray.runtime.placement import actor_options, infeasible
from tests.integration.conftest import Cluster


@ray.remote
class Placed:
    def assigned(self) -> tuple[dict[str, float], str | None]:
        return ray.get_runtime_context().get_assigned_resources(), os.environ.get("CUDA_VISIBLE_DEVICES")


def test_a_gpu_by_kind_is_found_on_the_node_that_declares_it(cluster: Cluster) -> None:
    options = actor_options(Resources(cpu=0.5, memory=64, gpu=["B200", "H100"]), ray.nodes())
    actor = Placed.options(**options).remote()
    assigned, devices = ray.get(actor.assigned.remote(), timeout=30)
    assert assigned["GPU"] == 1
    assert assigned["CPU"] == 0.5
    assert assigned["memory"] == 64 * 1024 * 1024
    assert devices in ("0", "1")
    ray.kill(actor)


def test_a_share_of_any_gpu_and_no_cpu_can_be_placed(cluster: Cluster) -> None:
    options = actor_options(Resources(cpu=0, num_gpus=0.5), ray.nodes())
    actor = Placed.options(**options).remote()
    assigned, _ = ray.get(actor.assigned.remote(), timeout=30)
    assert assigned == {"GPU": 0.5}
    ray.kill(actor)


def test_real_nodes_are_compared_with_what_is_asked(cluster: Cluster) -> None:
    nodes = ray.nodes()
    assert infeasible(actor_options(Resources(cpu=4, gpu="H100:2"), nodes), nodes) is None
    assert infeasible(actor_options(Resources(label_selector={"zone": "!b"}), nodes), nodes) is None
    reason = infeasible(actor_options(Resources(cpu=64), nodes), nodes)
    assert reason
    assert reason.startswith("no node can hold {CPU: 64}: the only node has {CPU: 4, GPU: 2,")
