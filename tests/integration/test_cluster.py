"""The cluster as a whole: its containers, what they printed, the controller's version, and the end of all."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

import flexray
from tests import living
from tests.integration.conftest import NAMESPACE, Cluster, Run
from tests.integration.gates import Gate, calls, in_background, results
from tests.waiting import wait_until

SHOP = """
import os
import sys
import flexray

app = flexray.App({name!r})

@app.function(cpu=0, scaledown_window=60)
def price(x):
    print("pricing", x)
    print("warned", x, file=sys.stderr)
    if x == 13:
        raise ValueError("unlucky")
    if x == 66:
        os._exit(1)
    return 2 * x

@app.cls(cpu=0, scaledown_window=2)
class Model:
    @flexray.enter()
    def load(self):
        print("loading")
    @flexray.method()
    def f(self, x):
        return x
    @flexray.exit()
    def close(self):
        print("closing")
"""


@pytest.fixture
def name(run: Run, tmp_path: Path) -> Iterator[str]:
    """Of an app that is deployed."""
    name = f"seen-{secrets.token_hex(4)}"
    file = tmp_path / f"seen_{secrets.token_hex(4)}.py"
    file.write_text(SHOP.format(name=name))
    assert run("deploy", file)[0] == 0
    yield name
    run("app", "stop", name)


def rows(run: Run, *words: object) -> list[dict[str, Any]]:
    return parsed(run(*words, "--json")[1], "[")  # type: ignore[no-any-return]


def parsed(printed: str, first: str = "{") -> Any:
    """What was printed after lines of containers, which are relayed here, too."""
    return json.loads(printed[printed.index(first) :])


def logged(run: Run, *words: object) -> list[tuple[str, str, str]]:
    """(function, stream, text) of what is kept."""
    lines = [json.loads(line) for line in run(*words, "--json")[1].splitlines() if line[0] == "{"]
    return [(line["function"], line["stream"], line["text"]) for line in lines]


def test_what_containers_print_is_kept_with_failures_and_hooks(run: Run, name: str) -> None:
    price = flexray.Function.from_name(name, "price")
    assert price.remote(1) == 2
    with pytest.raises(ValueError, match="unlucky"):
        price.spawn(13).get()
    assert flexray.Cls.from_name(name, "Model")().f.remote(3) == 3
    wait_until(lambda: ("Model", "stdout", "closing") in logged(run, "app", "logs", name), timeout_s=20)
    lines = logged(run, "app", "logs", name)
    for line in (
        ("price", "stdout", "pricing 1"),
        ("price", "stderr", "warned 1"),
        ("Model", "stdout", "loading"),
    ):
        assert lines.count(line) == 1
    (failure,) = [text for function, stream, text in lines if stream == "failure"]
    assert failure.startswith("Traceback")
    assert failure.endswith("ValueError: unlucky")
    only = logged(run, "app", "logs", name, "--function", "Model")
    assert [text for _, _, text in only] == ["loading", "closing"]
    assert logged(run, "app", "logs", name, "-n", 1) == lines[-1:]
    assert logged(run, "app", "logs", name, "--since", "1h") == lines
    assert "price#1 | pricing 1\n" in run("container", "logs", f"{name}/price#1")[1]
    assert "Model#1 | closing\n" in run("container", "logs", f"{name}/Model#1")[1]
    with pytest.raises(flexray.InputLostError):
        price.with_options(at_most_once=True).remote(66)
    wait_until(lambda: "the container died" in run("app", "logs", name)[1], timeout_s=20)


def test_logs_are_followed(run: Run, cluster: Cluster, name: str) -> None:
    code = f"from flexray import cli\ncli.main(['app', 'logs', {name!r}, '--follow', '-n', '0'])"
    follower = cluster.start_driver(code)
    assert follower.stdout is not None
    read = in_background(follower.stdout.readline)
    price = flexray.Function.from_name(name, "price")

    def is_told() -> bool:
        price.remote(7)  # Again and again, for it may begin to follow after the first.
        return read.done()

    wait_until(is_told, timeout_s=60)
    assert read.result().rstrip().endswith(("price#1 | pricing 7", "price#1 | warned 7"))


def test_what_is_not_there_has_no_logs(run: Run, name: str) -> None:
    assert "nothing of" in run("app", "logs", name)[2]
    assert "no app 'nobody' is deployed" in run("app", "logs", "nobody")[2]
    assert "has no function 'prize'" in run("app", "logs", name, "--function", "prize")[2]
    assert "there is no container" in run("container", "logs", f"{name}/price#77")[2]
    assert "--since got '5x'" in run("app", "logs", name, "--since", "5x")[2]


def test_containers_are_listed_and_stopped(run: Run, name: str, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    app = flexray.App("held")
    hold = app.function(cpu=0, max_containers=1)(gate.enter)
    with app.run():
        held = calls(hold, ("first", "second"))
        wait_until(lambda: gate.entered)
        (row,) = [row for row in rows(run, "container", "list") if row["function"] == "enter"]
        assert (row["state"], row["busy"], row["slots"]) == ("ready", 1, 1)
        assert row["node"] == ray.get_runtime_context().get_node_id()
        container = row["container"]
        assert container in run("container", "list")[1]
        assert rows(run, "container", "list", name) == []
        assert "takes nothing new" in run("container", "stop", container)[1]
        (row,) = [row for row in rows(run, "container", "list") if row["container"] == container]
        assert row["state"] == "draining"
        gate.open()
        assert len(set(results(held))) == 2  # The second ran in another container.
    assert "there is no container" in run("container", "stop", container)[2]
    assert "names no container" in run("container", "stop", "held")[2]


def test_a_container_that_is_killed_loses_nothing(run: Run, cluster: Cluster, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    app = flexray.App("killed")
    hold = app.function(cpu=0)(gate.enter)
    with app.run():
        held = calls(hold, ("only",))
        wait_until(lambda: gate.entered)
        (before,) = [row for row in rows(run, "container", "list") if row["function"] == "enter"]
        assert "is being killed" in run("container", "stop", before["container"], "--now")[1]
        gate.open()
        assert len(results(held)) == 1


def test_the_cluster_shows_its_nodes_and_what_runs(run: Run, name: str) -> None:
    assert flexray.Function.from_name(name, "price").remote(1) == 2
    status = parsed(run("cluster", "status", "--json")[1])
    assert status["controller"]["apps_deployed"] >= 1
    assert status["containers"]["ready"] >= 1
    (node,) = status["nodes"]
    assert node["head"]
    assert node["total"]["CPU"] == 4
    printed = run("cluster", "status")[1]
    assert printed.startswith(f"FlexRay {status['controller']['version']} on Ray {ray.__version__}")
    assert f"{node['node'][:12]} (head)" in printed


@pytest.fixture
def other_protocol(cluster: Cluster, name: str) -> Iterator[None]:
    controller: Any = ray.get_actor("flexray:controller", namespace=NAMESPACE)
    ray.get(controller.__ray_call__.remote(_speak, 99))
    yield
    ray.get(controller.__ray_call__.remote(_speak, None))


def _speak(_: object, protocol: int | None) -> None:
    from flexray.runtime import controller, wire

    controller.PROTOCOL = wire.PROTOCOL if protocol is None else protocol  # type: ignore[attr-defined]


def test_a_controller_of_another_version_is_told(cluster: Cluster, name: str, other_protocol: None) -> None:
    code = f"""
import flexray
try:
    flexray.Function.from_name({name!r}, "price").remote(1)
except flexray.ExecutionError as error:
    print(error)
"""
    told, _ = cluster.start_driver(code).communicate(timeout=60)
    assert "they speak protocols 99 and" in told
    assert "flexray shutdown" in told


def test_the_end_of_everything_keeps_what_is_deployed_and_spawned(run: Run, name: str) -> None:
    price = flexray.Function.from_name(name, "price")
    call = price.spawn(4)
    assert call.get() == 8
    assert "nobody can answer" in run("shutdown")[2]
    assert parsed(run("shutdown", "--yes", "--json")[1])["ended"] >= 3
    wait_until(lambda: not actors())
    assert run("shutdown", "-y")[1] == "nothing of FlexRay runs on this cluster\n"
    assert run("cluster", "status")[1].startswith("No controller runs on this cluster")
    assert actors() == []
    assert flexray.FunctionCall.from_id(call.object_id).get() == 8
    assert price.remote(5) == 10
    assert run("shutdown", "--yes", "--stop-apps")[0] == 0
    assert "no app" in run("app", "history", name)[2]


def actors() -> list[str]:
    listed = ray.util.list_named_actors(all_namespaces=True)
    return [*living.containers(), *(one["name"] for one in listed if one["name"].startswith("flexray:"))]
