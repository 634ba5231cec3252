"""GPU acceleration, on two pretended H100s."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import flexray
from flexray.errors import ContainerStartError
from tests.integration.conftest import Cluster
from tests.integration.gates import Gate, at, calls, in_background, results
from tests.waiting import wait_until


@pytest.fixture
def app(cluster: Cluster) -> flexray.App:
    return flexray.App("gpu")


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


def devices(_: object = None) -> str | None:
    return os.environ.get("CUDA_VISIBLE_DEVICES")


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"gpu": "H100"}, 1),
        ({"gpu": "h100"}, 1),
        ({"gpu": "any"}, 1),
        ({"gpu": "H100:2"}, 2),
        ({"gpu": ["B200", "H100"]}, 1),
        ({"num_gpus": 0.5}, 1),
        ({"num_gpus": 2}, 2),
    ],
    ids=str,
)
def test_a_container_sees_the_gpus_that_it_asked_for(
    app: flexray.App, options: dict[str, Any], count: int
) -> None:
    function = app.function(cpu=0, **options)(devices)
    with app.run():
        seen = function.remote()
    assert seen is not None
    assert set(seen.split(",")) <= {"0", "1"}
    assert len(seen.split(",")) == count


@pytest.mark.parametrize("options", [{}, {"cpu": 1}, {"num_gpus": 0}], ids=str)
def test_a_cpu_function_sees_no_gpu(app: flexray.App, options: dict[str, Any]) -> None:
    function = app.function(**{"cpu": 0, **options})(devices)
    with app.run():
        assert function.remote() == ""


def test_containers_have_a_gpu_each_and_no_more_than_there_are(app: flexray.App, gate: Gate) -> None:
    def device(name: object) -> str | None:
        gate.enter(name)
        return devices()

    function = app.function(cpu=0, gpu="H100")(device)
    with app.run():
        under_way = calls(function, range(3))
        wait_until(lambda: len(gate.entered) == 2)
        wait_until(lambda: at(function, backlog=1))
        assert function.get_current_stats().containers["ready"] == 2
        gate.open()
        assert set(results(under_way)) == {"0", "1"}


def test_two_halves_share_a_gpu(app: flexray.App, gate: Gate) -> None:
    half = app.function(cpu=0, num_gpus=0.5, name="half")(gate.enter)
    with app.run():
        under_way = calls(half, range(4))
        wait_until(lambda: len(gate.entered) == 4)
        gate.open()
        assert len(set(results(under_way))) == 4


@pytest.mark.long
def test_a_gpu_that_no_node_has_is_named_after_ten_seconds_and_ends_at_the_startup_timeout(
    app: flexray.App,
) -> None:
    unknown = app.function(cpu=0, gpu="B200", startup_timeout=13)(devices)

    @app.function(cpu=0)
    def caller() -> str:
        return str(unknown.remote(2))

    with app.run():
        nested = in_background(caller.remote)
        outputs = in_background(lambda: list(unknown.map([0, 1], return_exceptions=True)))
        client = unknown._client()
        notice = wait_until(lambda: client.notice or "", timeout_s=14)
        assert "no node can hold {GPU: 1, accelerator_type:B200" in notice
        assert "the only node has {CPU: 4, GPU: 2, accelerator_type:H100" in notice
        assert "hint:" in notice
        assert "1 container of caller waits for devices, but no node can hold" in notice
        assert caller._client().notice == notice
        errors: list[Any] = outputs.result(20)
        assert [type(error) for error in errors] == [ContainerStartError] * 2
        assert "startup_timeout=13 s" in str(errors[0])
        assert "B200" in str(errors[0])
        with pytest.raises(ContainerStartError, match="devices can start"):
            nested.result(20)
