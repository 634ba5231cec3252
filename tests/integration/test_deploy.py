"""Deployed apps: they outlive their process, are found by name, and are replaced while they run."""

# mypy takes a decorated class for the class itself.
# mypy: disable-error-code="attr-defined, call-arg"

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import ray

import flexray
from flexray import backend
from flexray.errors import ContainerStartError, ExecutionError, InvalidError, NotFoundError
from tests import living
from tests.integration.conftest import NAMESPACE, Cluster
from tests.integration.gates import Gate, calls, in_background, results
from tests.waiting import wait_until


@pytest.fixture
def name(cluster: Cluster) -> Iterator[str]:
    """Of an app that is gone after the test."""
    name = f"shop-{secrets.token_hex(4)}"
    yield name
    stop(name)


def stop(name: str) -> None:
    connected = backend.connect()
    if any(one.name == name for one in connected.deployments()):
        connected.stop_app(name)


@pytest.fixture(scope="module")
def deployed(cluster: Cluster) -> Iterator[str]:
    """The name of an app that is there already."""
    name = f"shop-{secrets.token_hex(4)}"
    shop(name, 1).deploy()
    yield name
    stop(name)


def shop(name: str, version: int, **options: Any) -> flexray.App:
    """An app whose functions say which version of it they are."""
    app = flexray.App(name)

    @app.function(cpu=0, **options)
    def price(x: int = 1) -> tuple[int, int]:
        return version, 2 * x

    @app.cls(cpu=0)
    class Model:
        factor: int = flexray.parameter(default=3)

        @flexray.method()
        def times(self, x: int) -> tuple[int, int]:
            return version, self.factor * x

        @flexray.method()
        def count(self, to: int) -> Iterator[int]:
            yield from range(to)

    return app


def price_of(name: str, **which: Any) -> flexray.Function[..., Any]:
    return flexray.Function.from_name(name, "price", **which)


def controller() -> Any:
    return ray.get_actor("flexray:controller", namespace=NAMESPACE)


def test_functions_and_classes_are_found_by_name_and_have_every_form(name: str) -> None:
    assert shop(name, 1).deploy().version == 1
    price, model = price_of(name), flexray.Cls.from_name(name, "Model")
    assert price.remote(2) == (1, 4)
    assert list(price.map([1, 2])) == [(1, 2), (1, 4)]
    assert price.spawn(3).get() == (1, 6)
    assert price.with_options(timeout=7).remote(1) == (1, 2)
    assert model(factor=5).times.remote(2) == (1, 10)
    assert list(model().count.remote_gen(3)) == [0, 1, 2]
    assert repr(price) == f"<flexray.Function.from_name({name!r}, 'price')>"


def test_a_deployed_app_outlives_its_process_and_its_functions_find_each_other(
    cluster: Cluster, name: str
) -> None:
    code = f"""
import flexray
app = flexray.App({name!r})
@app.function(cpu=0)
def inner(x): return x + 1
@app.function(cpu=0)
def outer(x): return inner.remote(x) + flexray.Function.from_name({name!r}, "inner").remote(x)
app.deploy()
print("deployed", flush=True)
"""
    driver = cluster.start_driver(code)
    assert driver.wait(60) == 0
    assert flexray.Function.from_name(name, "outer").remote(1) == 4


def test_another_version_takes_the_place_of_the_one_before(name: str) -> None:
    shop(name, 1, min_containers=2).deploy()
    price, model = price_of(name), flexray.Cls.from_name(name, "Model")(factor=4)
    assert (price.remote(1), model.times.remote(1)) == ((1, 2), (1, 4))
    price.update_autoscaler(max_containers=7)
    shop(name, 2, min_containers=1).deploy()
    wait_until(lambda: price.remote(1) == (2, 2))
    wait_until(lambda: model.times.remote(1) == (2, 4))
    settings = price.get_current_stats().settings
    assert (settings.min_containers, settings.max_containers) == (1, None)
    wait_until(lambda: price.get_current_stats().num_total_runners == 1)


def test_under_a_steady_load_no_call_fails_and_none_runs_the_old_version_in_the_end(name: str) -> None:
    shop(name, 1).deploy()
    price = price_of(name)
    over = threading.Event()

    def call() -> list[int]:
        found = []
        while not over.is_set():
            found.append(price.remote(1)[0])
        return found

    with ThreadPoolExecutor(4) as threads:
        calling = [threads.submit(call) for _ in range(4)]
        wait_until(lambda: price.get_current_stats().num_running_inputs)
        shop(name, 2).deploy(strategy="rolling")
        wait_until(lambda: price.remote(1)[0] == 2)
        shop(name, 3).deploy(strategy="recreate")
        wait_until(lambda: price.remote(1)[0] == 3)
        over.set()
        versions = [each.result(30) for each in calling]
    for found in versions:
        assert set(found) >= {1}
        assert set(found) <= {1, 2, 3}
        assert found[-1] in (2, 3)


def test_a_version_that_cannot_be_loaded_is_refused_and_the_old_one_serves_on(name: str) -> None:
    shop(name, 1).deploy()
    broken = flexray.App(name)

    class Absent:
        def __reduce__(self) -> tuple[Any, ...]:
            return __import__, ("no_such_module",)

    absent = Absent()

    @broken.function(cpu=0)
    def price(x: int) -> Any:
        return absent

    with pytest.raises(ContainerStartError, match="no_such_module"):
        broken.deploy()
    assert price_of(name).remote(1) == (1, 2)
    assert [one.version for one in backend.connect().deployments(name)] == [1]


def test_earlier_versions_can_be_called_and_come_back(name: str) -> None:
    for version in (1, 2):
        shop(name, version).deploy()
    assert price_of(name, version=1).remote(1) == (1, 2)
    assert price_of(name).remote(1) == (2, 2)
    connected = backend.connect()
    assert connected.rollback(name, None) == 3
    wait_until(lambda: price_of(name).remote(1) == (1, 2))
    history = connected.deployments(name)
    assert [(one.version, one.is_current, one.rolled_back_to) for one in history] == [
        (3, True, 1),
        (2, False, None),
        (1, False, None),
    ]
    with pytest.raises(NotFoundError, match="no version 9"):
        connected.rollback(name, 9)


def test_a_function_that_was_removed_is_not_found_and_its_containers_go(name: str) -> None:
    shop(name, 1, min_containers=1, scaledown_window=2).deploy()
    wait_until(lambda: containers_of_app(name, "price"))
    other = flexray.App(name)
    other.function(cpu=0, name="other")(os.getpid)
    other.deploy()
    with pytest.raises(NotFoundError, match="no function 'price'"):
        price_of(name).remote(1)
    wait_until(lambda: not containers_of_app(name, "price"), timeout_s=20)


def containers_of_app(app: str, function: str) -> list[str]:
    return [one for one in living.containers() if one.startswith(f"{app}/{function}#")]


def test_apps_versions_and_settings_survive_the_controller(name: str) -> None:
    shop(name, 1).deploy()
    price = price_of(name)
    price.update_autoscaler(min_containers=2)
    wait_until(lambda: len(containers_of_app(name, "price")) == 2)
    before = containers_of_app(name, "price")
    process = ray.get(controller().__ray_call__.remote(lambda _: os.getpid()))
    os.kill(process, signal.SIGKILL)
    assert price.remote(1) == (1, 2)
    assert price.get_current_stats().settings.min_containers == 2
    assert containers_of_app(name, "price") == before
    assert shop(name, 2).deploy().version == 2
    wait_until(lambda: price.remote(1) == (2, 2))
    wait_until(lambda: not set(before) & set(containers_of_app(name, "price")))


def test_a_stopped_app_is_gone_and_a_handle_finds_the_next_one(name: str) -> None:
    shop(name, 1).deploy()
    price, model = price_of(name), flexray.Cls.from_name(name, "Model")()
    assert (price.remote(1), model.times.remote(1)) == ((1, 2), (1, 3))
    flexray.App.lookup(name).stop()
    wait_until(lambda: not containers_of_app(name, "price"))
    with pytest.raises(NotFoundError, match="is deployed on this cluster"):
        price.remote(1)
    with pytest.raises(NotFoundError):
        flexray.App.lookup(name)
    assert shop(name, 5).deploy().version == 2
    assert (price.remote(1), model.times.remote(1)) == ((5, 2), (5, 3))


def test_spawn_works_again_after_an_app_was_stopped_and_deployed(name: str) -> None:
    for version in (1, 2):
        shop(name, version).deploy()
        price = price_of(name)
        assert price.spawn(1).get(timeout=30) == (version, 2)
        flexray.App.lookup(name).stop()
    with pytest.raises(NotFoundError):
        price_of(name).spawn(1)


@pytest.mark.long
def test_a_deploy_beside_a_stop_is_there_or_refused(name: str) -> None:
    app = shop(name, 1, min_containers=1)
    app.deploy()
    for _ in range(4):
        stopping = in_background(lambda: backend.connect().stop_app(name))
        with contextlib.suppress(ExecutionError):  # It was stopped in the middle.
            app.deploy()
        with contextlib.suppress(NotFoundError):
            stopping.result(30)
        if not any(one.name == name for one in backend.connect().deployments()):
            app.deploy()
        assert price_of(name).remote(1) == (1, 2)


def test_a_function_that_was_removed_and_came_back_stays(name: str) -> None:
    shop(name, 1).deploy()
    assert price_of(name).remote(1) == (1, 2)
    other = flexray.App(name)
    other.function(cpu=0, name="other")(os.getpid)
    other.deploy()
    assert backend.connect().rollback(name, 1) == 3
    assert price_of(name).remote(1) == (1, 2)
    variants = ray.get(controller().__ray_call__.remote(lambda own: list(own.behind._apps._added)))
    assert f"{name}/price" not in variants  # Or it would be forgotten when it is idle.


def test_an_earlier_version_is_not_run_by_its_schedule_after_a_restart(name: str) -> None:
    shop(name, 1, schedule=flexray.Period(hours=1), startup_timeout=60).deploy()
    shop(name, 2).deploy()
    assert price_of(name, version=1).remote(1) == (1, 2)
    process = ray.get(controller().__ray_call__.remote(lambda _: os.getpid()))
    os.kill(process, signal.SIGKILL)
    assert price_of(name, version=1).remote(2) == (1, 4)
    assert price_of(name, version=2).remote(2) == (2, 4)
    assert ray.get(controller().__ray_call__.remote(lambda own: len(own.behind._clockwork.schedules))) == 0


def kill_controller() -> None:
    os.kill(ray.get(controller().__ray_call__.remote(lambda _: os.getpid())), signal.SIGKILL)


def test_what_waits_for_a_function_that_was_removed_runs_though_the_controller_dies(
    name: str, tmp_path: Path
) -> None:
    gate = Gate(tmp_path)
    app = flexray.App(name)
    app.function(cpu=0, max_containers=1, name="slow")(gate.enter)
    app.deploy()
    slow = flexray.Function.from_name(name, "slow")
    waiting = calls(slow, ("first", "second"))
    wait_until(lambda: gate.entered and slow.get_current_stats().backlog == 1)
    shop(name, 2).deploy()
    kill_controller()
    assert price_of(name).remote(1) == (2, 2)
    gate.open()
    assert len(results(waiting)) == 2
    with pytest.raises(NotFoundError, match="no function 'slow'"):
        flexray.Function.from_name(name, "slow").remote("third")


def test_a_variant_follows_its_function_though_the_handle_is_old(name: str) -> None:
    shop(name, 1, scaledown_window=20).deploy()
    old = price_of(name)
    assert old.remote(1) == (1, 2)
    shop(name, 2, scaledown_window=30, env={"A": "2"}).deploy()
    varied = old.with_options(max_containers=3)
    assert varied.remote(1) == (2, 2)
    settings = varied.get_current_stats().settings
    assert (settings.max_containers, settings.scaledown_window) == (3, 30)


def test_a_handle_sees_what_a_newer_version_has(name: str) -> None:
    shop(name, 1).deploy()
    model = flexray.Cls.from_name(name, "Model")
    one = model()
    assert one.times.remote(2) == (1, 6)
    with pytest.raises(AttributeError, match="has no method 'plus'"):
        _ = one.plus
    with pytest.raises(InvalidError, match="has no parameter 'offset'"):
        model(offset=1)
    newer = flexray.App(name)

    class Model:
        factor: int = flexray.parameter(default=3)
        offset: int = flexray.parameter(default=0)

        @flexray.method()
        def plus(self, x: int) -> int:
            return x + self.offset

    newer.cls(cpu=0)(Model)
    newer.deploy()
    assert one.plus.remote(1) == 1  # Though the container of the version before is there, and held.
    assert model(offset=4).plus.remote(1) == 5


def test_options_that_contradict_a_new_version_end_with_it_and_harm_nobody_else(name: str) -> None:
    shop(name, 1).deploy()
    varied = price_of(name).with_options(min_containers=2)
    assert varied.remote(1) == (1, 2)
    shop(name, 2, max_containers=1).deploy()
    assert price_of(name).remote(1) == (2, 2)
    with pytest.raises(InvalidError, match="min_containers"):
        price_of(name).with_options(min_containers=2).remote(1)
    kill_controller()
    assert price_of(name).remote(2) == (2, 4)
    assert price_of(name).with_options(timeout=9).remote(1) == (2, 2)


def test_a_function_that_was_removed_keeps_its_maximum(name: str, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    app = flexray.App(name)
    app.function(cpu=0, max_containers=1, name="alone")(gate.enter)
    app.deploy()
    alone = flexray.Function.from_name(name, "alone")
    waiting = calls(alone, range(4))
    wait_until(lambda: gate.entered and alone.get_current_stats().backlog == 3)
    shop(name, 2).deploy()
    gate.open()
    assert len(set(results(waiting))) == 1


@pytest.mark.long
def test_handles_to_an_earlier_version_work_after_it_was_forgotten(name: str) -> None:
    shop(name, 1, scaledown_window=2).deploy()
    shop(name, 2).deploy()
    model = flexray.Cls.from_name(name, "Model", version=1).with_options(scaledown_window=2)
    price = price_of(name, version=1)
    assert model(factor=2).times.remote(1) == (1, 2)
    assert price.remote(1) == (1, 2)
    forget(name)
    assert model(factor=5).times.remote(1) == (1, 5)
    assert price.update_autoscaler(max_containers=3).max_containers == 3


@pytest.mark.long
def test_an_earlier_version_that_nobody_uses_is_forgotten_and_comes_again(name: str) -> None:
    for version in (1, 2):
        shop(name, version, scaledown_window=2).deploy()
    first = price_of(name, version=1)
    assert first.remote(1) == (1, 2)
    forget(name)
    assert first.remote(2) == (1, 4)
    assert f"{name}@1" in ray.get(controller().__ray_call__.remote(_apps))


def forget(name: str) -> None:
    """Wait until the first version is forgotten, which takes seconds here and not a minute."""
    ray.get(controller().__ray_call__.remote(_forget_soon, 0.0))
    try:
        wait_until(lambda: f"{name}@1" not in ray.get(controller().__ray_call__.remote(_apps)), timeout_s=60)
    finally:
        ray.get(controller().__ray_call__.remote(_forget_soon, 60.0))


def _apps(own: Any) -> list[str]:
    return list(own.behind._apps.apps)


def _forget_soon(own: Any, seconds: float) -> None:
    from flexray.core import pool
    from flexray.runtime import apps

    pool.FORGET_S = apps.FORGET_S = seconds


def test_two_deploys_at_once_become_two_versions(name: str) -> None:
    deploys = [in_background(lambda number=n: shop(name, number).deploy().version) for n in (1, 2)]
    assert sorted(each.result(60) for each in deploys) == [1, 2]
    assert price_of(name).remote(1)[1] == 2


WRONG_USES: list[tuple[Callable[[str], Any], type[Exception], str]] = [
    (lambda name: price_of(f"{name[:-1]}x").remote(1), NotFoundError, "did you mean"),
    (lambda name: flexray.Function.from_name(name, "prize").remote(1), NotFoundError, "did you mean price"),
    (lambda name: flexray.Function.from_name(name, "Model").remote(1), InvalidError, "Cls.from_name"),
    (lambda name: flexray.Cls.from_name(name, "price")(), InvalidError, "use flexray.Function.from_name"),
    (lambda name: flexray.Function.from_name(f"{name} x", "f"), InvalidError, "name of the app is"),
    (lambda name: price_of(name, version=0), InvalidError, "version is 0"),
    (lambda name: price_of(name, version=77).remote(1), NotFoundError, "no version 77.*kept are 1"),
    (lambda name: price_of(name).local(1), ExecutionError, "code of price is not here"),
    (lambda name: flexray.Cls.from_name(name, "Model")(size=1), InvalidError, "no parameter 'size'"),
    (lambda _: flexray.App().deploy(), InvalidError, "deployed by its name, and this one has none"),
    (lambda name: flexray.App(name).deploy(), InvalidError, "has no functions"),
    (lambda name: shop(name, 2).deploy(strategy="slow"), InvalidError, "one of rolling, recreate"),
    (lambda name: shop(name, 2).deploy(name="a b"), InvalidError, "name of the app is 'a b'"),
    (lambda _: flexray.App("nobody").stop(), NotFoundError, "'nobody' is deployed"),
]


@pytest.mark.parametrize(("use", "kind", "words"), WRONG_USES)
def test_a_wrong_use_is_refused_by_name(
    deployed: str, use: Callable[[str], Any], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=f"(?s){words}") as caught:
        use(deployed)
    assert caught.value.hint  # type: ignore[attr-defined]
