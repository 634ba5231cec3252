from __future__ import annotations

from typing import Any

import pytest

from flexray.config import Gpu, Resources
from flexray.runtime.placement import (
    actor_options,
    gpu_choice,
    hidden_gpus,
    infeasible,
    shape,
    sold_out,
    superseded,
)

GIB = 1024**3


def node(labels: dict[str, str] | None = None, *, alive: bool = True, **resources: float) -> dict[str, Any]:
    """As `ray.nodes()` lists one; `H100=1` declares that kind of GPU."""
    totals = {
        name if name in ("CPU", "GPU", "memory", "disk") else f"accelerator_type:{name}": amount
        for name, amount in resources.items()
    }
    return {"Alive": alive, "Resources": totals, "Labels": labels or {}}


def reason(resources: Resources, *nodes: dict[str, Any]) -> str:
    found = infeasible(actor_options(resources, nodes), nodes)
    assert found is not None
    return found


def test_the_default_is_one_cpu_and_nothing_else() -> None:
    assert actor_options(Resources()) == {"num_cpus": 1.0}


def test_no_cpu_is_said_because_ray_would_ask_for_one() -> None:
    assert actor_options(Resources(cpu=0)) == {"num_cpus": 0}


def test_everything_asked_for_is_passed_on_in_rays_words() -> None:
    resources = Resources(
        cpu=4, memory=2048, gpu="A100:2", resources={"disk": 1}, label_selector={"zone": "a"}
    )
    assert actor_options(resources) == {
        "num_cpus": 4,
        "num_gpus": 2,
        "accelerator_type": "A100",
        "memory": 2 * GIB,
        "resources": {"disk": 1},
        "label_selector": {"zone": "a"},
    }


@pytest.mark.parametrize("resources", [Resources(gpu="any"), Resources(num_gpus=1)])
def test_any_gpu_names_no_kind(resources: Resources) -> None:
    assert actor_options(resources) == {"num_cpus": 1, "num_gpus": 1}


def addable(name: str, refused: str | None = None, **resources: float) -> dict[str, Any]:
    return {**node(**resources), "NodeType": name, "SoldOut": refused}


def test_a_kind_that_is_sold_out_comes_after_all_that_may_be_had() -> None:
    resources = Resources(gpu=["H100", "A100"])
    h100, a100 = addable("h100", "none is left", GPU=1, H100=1), addable("a100", GPU=1, A100=1)
    assert gpu_choice(resources, [h100, a100]) == Gpu(kind="A100")
    assert gpu_choice(resources, [{**h100, "SoldOut": None}, a100]) == Gpu(kind="H100")
    assert gpu_choice(resources, [h100, {**a100, "SoldOut": ""}]) == Gpu(kind="H100")
    assert gpu_choice(resources, [h100, a100, node(GPU=1, H100=1)]) == Gpu(kind="H100")


def test_a_launch_is_superseded_where_its_kind_alone_is_sold_out() -> None:
    asked, resources = Gpu(kind="H100"), Resources(gpu=["H100", "A100"])
    h100, a100 = addable("h100", "none is left", GPU=1, H100=1), addable("a100", GPU=1, A100=1)
    assert superseded(asked, resources, [h100, a100])
    assert not superseded(asked, resources, [{**h100, "SoldOut": None}, a100, node(GPU=1, A100=1)])
    assert not superseded(asked, resources, [h100, {**a100, "SoldOut": ""}])
    assert not superseded(Gpu(kind="A100"), resources, [h100, {**a100, "SoldOut": ""}])
    assert not superseded(asked, resources, [h100, a100, node(GPU=1, H100=1)])


def test_what_the_cloud_said_is_told_where_nothing_else_can_hold_it() -> None:
    options = actor_options(Resources(cpu=0, gpu="any"))
    refused = [addable("h100", "none is left", GPU=1), addable("cpu", CPU=4)]
    assert sold_out(options, refused) == "no h100 node can be had now: none is left"
    assert sold_out(options, [addable("h100", "", GPU=1)]) == "no h100 node can be had now"
    assert sold_out(options, [*refused, addable("a100", GPU=1)]) is None
    assert sold_out(options, [*refused, node(GPU=1)]) is None
    assert sold_out(options, [node(CPU=1)]) is None


def test_the_first_kind_that_a_node_has_enough_of_is_chosen() -> None:
    resources = Resources(gpu=["H100:2", "A100:2", "any"])
    nodes = [node(CPU=8, GPU=1, H100=1), node(CPU=8, GPU=4, A100=1)]
    assert gpu_choice(resources, nodes) == Gpu(kind="A100", count=2)


def test_the_first_kind_is_awaited_when_no_living_node_has_any() -> None:
    resources = Resources(gpu=["H100", "A100"])
    assert gpu_choice(resources, [node(GPU=1, A100=1, alive=False)]) == Gpu(kind="H100")
    assert gpu_choice(Resources(), [node(GPU=1)]) is None


def test_a_kind_is_spelled_as_its_node_declares_it() -> None:
    nodes = [{"Alive": True, "Resources": {"GPU": 1, "accelerator_type:A100-80G": 1}, "Labels": {}}]
    assert actor_options(Resources(gpu="a100-80gb"), nodes)["accelerator_type"] == "A100-80G"


def test_gpus_are_hidden_from_those_who_asked_for_none() -> None:
    assert hidden_gpus(Resources())
    assert hidden_gpus(Resources(num_gpus=0))
    assert not hidden_gpus(Resources(num_gpus=0.5))
    assert not hidden_gpus(Resources(gpu="any"))


def test_a_shape_reads_as_ray_names_its_resources() -> None:
    asked = Resources(cpu=4, memory=2048, gpu="H100", label_selector={"zone": "a"})
    expected = "{CPU: 4, GPU: 1, accelerator_type:H100: 0.001, memory: 2,048 MiB, zone=a}"
    assert shape(actor_options(asked)) == expected
    assert shape(actor_options(Resources(cpu=0.25, num_gpus=0.5))) == "{CPU: 0.25, GPU: 0.5}"
    assert shape(actor_options(Resources(cpu=0))) == "{CPU: 0}"


@pytest.mark.parametrize(
    "resources",
    [
        Resources(cpu=16),
        Resources(cpu=0),
        Resources(gpu="H100:2"),
        Resources(gpu=["B200", "H100"]),
        Resources(num_gpus=0.5),
        Resources(memory=64 * 1024),
        Resources(resources={"disk": 2}),
        Resources(label_selector={"zone": "a"}),
        Resources(label_selector={"zone": "in(b, a)", "spot": "!true"}),
        Resources(label_selector={"zone": "!in(b,c)"}),
    ],
)
def test_what_some_node_has_is_feasible(resources: Resources) -> None:
    nodes = [node(CPU=2), node({"zone": "a"}, CPU=16, GPU=2, H100=1, disk=2, memory=64 * GIB)]
    assert infeasible(actor_options(resources, nodes), nodes) is None


def test_too_many_cpus_name_the_nearest_node_and_what_it_would_take() -> None:
    assert reason(Resources(cpu=64), node(CPU=4), node(CPU=16)) == (
        "no node can hold {CPU: 64}: the nearest of 2 nodes has {CPU: 16, GPU: 0}\n\n"
        "hint: ask for cpu= up to 16, or add a type of node that has it"
    )


def test_what_only_two_nodes_together_have_is_infeasible() -> None:
    text = reason(Resources(cpu=8, gpu="H100:2"), node(CPU=4, GPU=2, H100=1), node(CPU=32))
    assert "the nearest of 2 nodes has {CPU: 4, GPU: 2, accelerator_type:H100: 1}" in text
    assert "ask for cpu= up to 4" in text


def test_a_kind_that_no_node_has_names_the_kinds_there_are() -> None:
    text = reason(Resources(gpu="H100"), node(CPU=8, GPU=2, A100=1), node(CPU=8, GPU=1, T4=1))
    assert text.startswith("no node can hold {CPU: 1, GPU: 1, accelerator_type:H100: 0.001}: ")
    assert "the cluster's kinds of GPU are A100, T4" in text


def test_gpus_of_no_declared_kind_can_be_had_as_any() -> None:
    text = reason(Resources(gpu="H100"), node(CPU=8, GPU=2))
    assert 'no node names its kind of GPU; ask for one that it has, or for gpu="any"' in text


def test_too_little_memory_is_counted_in_mib() -> None:
    text = reason(Resources(memory=4096), node(CPU=8, memory=2 * GIB))
    assert "{CPU: 1, memory: 4,096 MiB}: the only node has {CPU: 8, GPU: 0, memory: 2,048 MiB}" in text
    assert "ask for memory= up to 2,048 MiB" in text


def test_a_resource_that_is_nowhere_is_left_out_or_added() -> None:
    assert "leave out 'disk', or add" in reason(Resources(resources={"disk": 1}), node(CPU=8))


@pytest.mark.parametrize("condition", ["a", "in(a,c)", "!b", "!in(b, c)"])
def test_a_label_that_no_node_matches_is_shown_as_it_is(condition: str) -> None:
    text = reason(Resources(label_selector={"zone": condition}), node({"zone": "b"}, CPU=8))
    assert f"{{CPU: 1, zone={condition}}}: the only node has {{CPU: 8, GPU: 0, zone=b}}" in text


def test_dead_nodes_hold_nothing() -> None:
    assert reason(Resources(), node(CPU=8, alive=False)).startswith("no node is alive to hold {CPU: 1}")
