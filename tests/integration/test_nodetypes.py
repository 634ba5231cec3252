from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from flexray.config import Resources
from flexray.runtime import nodetypes
from flexray.runtime.nodetypes import SOLD_OUT_S, refusals, types_in
from flexray.runtime.placement import actor_options, gpu_choice, infeasible

CONFIG = {
    "max_workers": 8,
    "head_node_type": "head",
    "available_node_types": {
        "head": {"resources": {"CPU": 2}, "max_workers": 0},
        "cpu": {"resources": {"CPU": 16}, "max_workers": 4},
        "gpu": {"resources": {"CPU": 8, "GPU": 1, "accelerator_type:A100": 1}, "labels": {"zone": "b"}},
        "retired": {"resources": {"CPU": 64}, "max_workers": 0},
        "hosts": {"resources": {}, "max_workers": 4},
    },
}
HEAD = {"Alive": True, "Resources": {"node:__internal_head__": 1}, "Labels": {}}


def test_the_types_of_which_there_may_be_workers_count_as_nodes() -> None:
    assert types_in(CONFIG) == [
        {"Alive": True, "NodeType": "cpu", "Resources": {"CPU": 16}, "Labels": {}},
        {
            "Alive": True,
            "NodeType": "gpu",
            "Resources": {"CPU": 8, "GPU": 1, "accelerator_type:A100": 1},
            "Labels": {"zone": "b"},
        },
    ]
    assert types_in({"cluster_name": "none"}) == []


def test_a_kind_of_gpu_that_may_be_added_is_chosen_and_spelled_as_it_is_declared() -> None:
    nodes = [HEAD, *types_in(CONFIG)]
    asked = Resources(gpu=["H100", "a100"])
    assert gpu_choice(asked, nodes) == asked.gpu[1]
    assert actor_options(asked, nodes)["accelerator_type"] == "A100"


def test_a_kind_that_runs_goes_before_one_that_may_be_added() -> None:
    running = {"Alive": True, "Resources": {"GPU": 1, "accelerator_type:L4": 1}, "Labels": {}}
    asked = Resources(gpu=["A100", "L4"])
    assert gpu_choice(asked, [HEAD, running, *types_in(CONFIG)]) == asked.gpu[1]
    assert gpu_choice(asked, [HEAD, {**running, "Alive": False}, *types_in(CONFIG)]) == asked.gpu[0]


def test_what_may_be_added_is_feasible_and_what_may_not_names_the_nearest_type() -> None:
    nodes = [HEAD, *types_in(CONFIG)]
    assert infeasible(actor_options(Resources(cpu=16)), nodes) is None
    assert infeasible(actor_options(Resources(label_selector={"zone": "b"})), nodes) is None
    assert infeasible(actor_options(Resources(cpu=32)), nodes) == (
        "no node can hold {CPU: 32}: the nearest of 1 node and 2 types of node that may be added, cpu, "
        "has {CPU: 16, GPU: 0}\n\nhint: ask for cpu= up to 16, or add a type of node that has it"
    )


@pytest.mark.parametrize("content", ["", "{", "[]", "available_node_types: 3", "head_node_type: x"])
def test_a_file_that_cannot_be_read_tells_of_no_types(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(content)
    monkeypatch.setattr(nodetypes, "_config_file", lambda _: file)
    assert nodetypes._types_of("10.0.0.1:6379") == []
    file.unlink()
    assert nodetypes._types_of("10.0.0.1:6379") == []


def test_a_cluster_without_an_autoscaler_has_no_file() -> None:
    assert nodetypes._types_of("192.0.2.1:1") == []


def launch(node_type: str, *, failed_s: float, details: str | None = "none is left") -> SimpleNamespace:
    return SimpleNamespace(ray_node_type_name=node_type, failed_ts_s=failed_s, details=details)


def test_a_type_is_refused_while_a_launch_of_it_has_failed_lately_and_none_is_on_its_way() -> None:
    status = SimpleNamespace(
        failed_launches=[
            launch("gpu", failed_s=1000.0),
            launch("cpu", failed_s=1000.0),
            launch("old", failed_s=1100.0 - SOLD_OUT_S - 1),
            launch("silent", failed_s=1000.0, details=None),
        ],
        pending_nodes=[SimpleNamespace(ray_node_type_name="cpu")],
    )
    assert refusals(status, 1100.0) == {"gpu": "none is left", "silent": ""}
