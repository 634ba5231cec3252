"""Nodes come for what waits and go when it is done, by Ray's autoscaler; what no node can hold is named.

Every node is a process of this machine, and so is the cloud that it comes from (`node_scaling.py`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

import flexray
from tests.integration.conftest import Cluster
from tests.integration.gates import Gate, calls, in_background, results
from tests.integration.node_scaling import (
    IDLE_TIMEOUT_S,
    NodeType,
    ScalingCluster,
    gpu_node_visit,
    here,
    in_driver,
    running,
    running_nodes,
    seconds_until_gone,
    workers,
)
from tests.integration.stubborn_provider import SOLD_OUT
from tests.waiting import wait_until

WINDOW_S = 2.0
GONE_S = WINDOW_S + IDLE_TIMEOUT_S + 15.0
"""When a node is gone after the last input on it, on a machine that is busy with other things, too."""
MB = 1_000_000

NODE_TYPES = {
    "cpu": NodeType({"CPU": 4}),
    "a100": NodeType({"CPU": 2, "GPU": 2, "accelerator_type:A100": 1}),
    "zone-b": NodeType({"CPU": 2}, {"zone": "b"}, max_workers=1),
    SOLD_OUT: NodeType({"CPU": 1, "GPU": 1, "accelerator_type:L4": 1}, max_workers=1),
}


@pytest.fixture(scope="module")
def scaling_cluster() -> Iterator[ScalingCluster]:
    with running_nodes(NODE_TYPES) as cluster:
        yield cluster


def new_gate() -> Gate:
    return Gate(Path(mkdtemp(dir=os.environ["RAY_TMPDIR"])))


def devices(_: object = None) -> tuple[str, str | None]:
    return here(), os.environ.get("CUDA_VISIBLE_DEVICES")


@pytest.mark.long
@in_driver
def test_cpu_nodes_come_for_what_waits_and_all_of_them_go() -> None:
    app, gate = flexray.App("cpus"), new_gate()

    def enter(name: object) -> str:
        gate.enter(name)
        return here()

    function = app.function(cpu=3, scaledown_window=WINDOW_S)(enter)  # One for each node of that type.
    with app.run():
        assert not running("cpu")
        under_way = calls(function, range(2))
        wait_until(lambda: len(gate.entered) == 2, 40)
        assert running("cpu") == 2
        gate.open()
        assert len(set(results(under_way))) == 2
        seconds_until_gone("cpu", GONE_S)


@pytest.mark.long
@in_driver
def test_gpu_nodes_come_for_what_waits_and_go() -> None:
    app = flexray.App("gpus")
    function = app.function(cpu=0, gpu="a100", scaledown_window=WINDOW_S)(devices)
    with app.run():
        node, seen = function.remote()
        assert workers()[node] == "a100"
        assert seen in ("0", "1")
        seconds_until_gone("a100", GONE_S)


@pytest.mark.long
@pytest.mark.timeout(400)
def test_a_gpu_node_serves_a_call_about_as_soon_as_a_bare_actor(scaling_cluster: ScalingCluster) -> None:
    for _ in range(5):
        visit = scaling_cluster.run(gpu_node_visit, "A100", WINDOW_S)
        print(visit)  # noqa: T201  # Figures are for people; the bounds here only tell that nothing hangs.
        assert visit.result_s < visit.bare_s + 10
        assert visit.gone_s < GONE_S


@pytest.mark.long
@in_driver
def test_a_node_with_the_label_comes_for_a_function_that_selects_it() -> None:
    app = flexray.App("labels")
    function = app.function(cpu=1, label_selector={"zone": "b"}, scaledown_window=WINDOW_S)(devices)
    with app.run():
        node, _ = function.remote()
        assert workers()[node] == "zone-b"


@pytest.mark.long
@in_driver
def test_of_a_list_of_gpus_the_first_that_the_cluster_could_offer_is_taken() -> None:
    app = flexray.App("lists")
    function = app.function(cpu=0, gpu=["H100", "A100:2", "any"], scaledown_window=WINDOW_S)(devices)
    with app.run():
        assert not running("a100")
        node, seen = function.remote()
        assert workers()[node] == "a100"
        assert set(str(seen).split(",")) == {"0", "1"}


@pytest.mark.long
@in_driver
def test_where_the_first_gpu_of_a_list_is_sold_out_the_next_is_taken() -> None:
    app = flexray.App("sold-out")
    function = app.function(cpu=0, gpu=["L4", "A100"], scaledown_window=WINDOW_S)(devices)
    with app.run():
        node, _ = function.remote()
        assert workers()[node] == "a100"


class Sized:
    """Keeps something in its container and gives large values."""

    @flexray.enter()
    def load(self) -> None:
        self.kept = bytes(MB)

    @flexray.exit()
    def unload(self) -> None:
        self.kept = b""

    @flexray.method()
    def give(self, argument: bytes) -> bytes:
        return argument + self.kept


def stream(count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield bytes(MB)


@pytest.mark.long
@in_driver
def test_nothing_of_flexrays_keeps_a_node_once_its_containers_are_gone() -> None:
    app = flexray.App("leftovers")
    options: dict[str, Any] = {"cpu": 1, "scaledown_window": WINDOW_S}
    app.cls(**options)(Sized)
    app.function(**options)(stream)
    # A deploy is tried out by an actor without CPUs, which Ray also places on a node that is about to go.
    wait_until(lambda: not workers(), GONE_S, every_s=0.1)
    app.deploy()
    sized, streaming = (
        flexray.Cls.from_name("leftovers", "Sized")(),
        flexray.Function.from_name("leftovers", "stream"),
    )
    try:
        spawned = sized.give.spawn(bytes(MB))
        kept = [sized.give.remote(bytes(MB)), *sized.give.map([bytes(MB)] * 4)]
        left_early = streaming.remote_gen(20)
        kept.append(next(left_early))
        left_early.close()
        assert workers()
        wait_until(lambda: not workers(), GONE_S, every_s=0.1)
        kept.append(spawned.get(timeout=10))
        assert [len(value) // MB for value in kept] == [2, 2, 2, 2, 2, 1, 2]
        assert not workers()
    finally:
        app.stop()


def test_where_no_node_is_ever_added_the_nodes_there_are_tell_what_is_too_large(cluster: Cluster) -> None:
    app = flexray.App("alone")
    large = app.function(cpu=64, startup_timeout=11)(devices)
    with app.run():
        call = in_background(large.remote)
        error = call.exception(20)
    assert "no node can hold {CPU: 64}: the only node has {CPU: 4, GPU: 2" in str(error)


@pytest.mark.long
@in_driver
def test_what_no_node_can_hold_is_named_with_what_the_cluster_could_offer() -> None:
    app = flexray.App("impossible")
    large = app.function(cpu=64, startup_timeout=20)(devices)
    unknown = app.function(cpu=0, gpu="B200", startup_timeout=20, name="unknown")(devices)
    to_come = app.function(cpu=0, gpu="l4", startup_timeout=20, name="to_come")(devices)
    with app.run():
        functions = (large, unknown, to_come)
        under_way = [in_background(function.remote) for function in functions]
        said = [wait_until(lambda f=f: f._client().notice, 14) for f in functions]  # type: ignore[misc]
        assert "no node can hold {CPU: 64}: the nearest of " in said[0], said[0]
        assert " that may be added, cpu, has {CPU: 4, GPU: 0}" in said[0], said[0]
        assert "no node can hold {GPU: 1, accelerator_type:B200: 0.001}" in said[1], said[1]
        assert "the cluster's kinds of GPU are A100, L4;" in said[1], said[1]
        # Which may be over in a moment; Ray does not pass on what the cloud said.
        waits = "waits for {GPU: 1, accelerator_type:L4: 0.001} since 10 s"
        assert said[2] == f"{waits}: no sold-out node can be had now", said[2]
        assert not any(call.done() for call in under_way)
        assert not running(SOLD_OUT)
