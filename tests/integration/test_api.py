"""Every way to call a function, as a caller sees it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

import flexray
from flexray.errors import ExecutionError, InputCancelledError, InvalidError
from tests.integration.conftest import Cluster
from tests.integration.gates import Gate
from tests.living import containers_of
from tests.waiting import wait_until

app = flexray.App("api")


@app.function(cpu=0, max_containers=4)
def square(x: int) -> int:
    return x * x


@app.function(cpu=0, max_containers=4)
def add(a: int, b: int = 0, *, c: int = 0) -> int:
    return a + b + c


async def _slowly_doubled(x: int) -> int:
    await asyncio.sleep(0)
    return 2 * x


slowly_doubled: flexray.Function[[int], Any] = app.function(cpu=0, name="slowly_doubled")(_slowly_doubled)


@app.function(cpu=0, max_containers=4)
def nothing(x: int) -> None:
    return None


@app.function(cpu=0, max_containers=4)
def anything(*args: Any, **kwargs: Any) -> Any:
    return args, kwargs


@app.function(cpu=0, max_containers=4)
def process(_: object = None) -> int:
    return os.getpid()


@app.function(cpu=0, max_containers=4)
def total_of_squares(n: int) -> int:
    return sum(square.map(range(n)))


async def _total_of_squares_async(n: int) -> int:
    return sum([x async for x in square.map.aio(range(n))])


total_of_squares_async: flexray.Function[[int], Any] = app.function(cpu=0, name="total_async")(
    _total_of_squares_async
)


@app.function(cpu=0, max_containers=8)
def factorial(n: int) -> int:
    return 1 if n == 0 else n * factorial.remote(n - 1)


@app.function(cpu=0, max_containers=4)
def hold(folder: Path, name: object) -> int:
    return Gate(folder).enter(name)


triple = app.function(cpu=0, name="triple")(lambda x: 3 * x)


@pytest.fixture(scope="module", autouse=True)
def running(cluster: Cluster) -> Iterator[None]:
    with app.run():
        yield


# One input.


def test_remote_gives_the_result_of_one_input() -> None:
    assert square.remote(3) == 9
    assert add.remote(1, b=2, c=3) == 6
    assert nothing.remote(1) is None


def test_remote_runs_elsewhere_and_local_runs_here() -> None:
    assert process.remote() != os.getpid()
    assert process.local() == os.getpid()


def test_remote_aio_can_be_awaited_many_at_once() -> None:
    async def main() -> list[int]:
        return await asyncio.gather(*(square.remote.aio(x) for x in range(20)))

    assert asyncio.run(main()) == [x * x for x in range(20)]


def test_async_functions_run_as_others_do() -> None:
    assert slowly_doubled.remote(4) == 8
    assert list(slowly_doubled.map(range(5))) == [0, 2, 4, 6, 8]
    assert asyncio.run(slowly_doubled.local(4)) == 8


def test_a_cancelled_remote_aio_leaves_the_others_alone() -> None:
    async def main() -> list[int]:
        calls = [asyncio.ensure_future(square.remote.aio(x)) for x in range(10)]
        await asyncio.sleep(0)
        calls[3].cancel()
        done = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(done[3], asyncio.CancelledError)
        return [value for value in done if isinstance(value, int)]

    assert asyncio.run(main()) == [x * x for x in range(10) if x != 3]


def test_calling_a_generator_directly_names_its_own_form() -> None:
    def numbers() -> Iterator[int]:
        yield 1

    with pytest.raises(TypeError, match=r"numbers\.remote_gen\(\.\.\.\)"):
        flexray.App("direct").function()(numbers)()


def test_calling_a_function_directly_names_remote_and_local() -> None:
    with pytest.raises(TypeError, match=r"square\.remote.*square\.local"):
        square(3)


# Many inputs.


def test_map_gives_results_in_the_order_of_the_inputs() -> None:
    assert list(square.map(range(500))) == [x * x for x in range(500)]


def test_map_zips_iterators_and_the_shortest_wins() -> None:
    assert list(add.map([1, 2, 3], iter([10, 20]))) == [11, 22]
    assert list(add.map([1, 2], [10, 20], kwargs={"c": 100})) == [111, 122]


def test_map_without_order_gives_all_results() -> None:
    assert sorted(square.map(range(100), order_outputs=False)) == [x * x for x in range(100)]


def test_map_without_order_gives_early_results_early(tmp_path: Path) -> None:
    gate = Gate(tmp_path)

    def either(x: int) -> int:
        return gate.enter(x) if x == 0 else x

    mixed = flexray.App("early")
    function = mixed.function(cpu=0, min_containers=2)(either)
    with mixed.run():
        outputs = iter(function.map(range(4), order_outputs=False))
        assert sorted(next(outputs) for _ in range(3)) == [1, 2, 3]
        gate.open()
        assert next(outputs) > 0


def test_an_empty_input_gives_an_empty_result_at_once() -> None:
    assert list(square.map([])) == []
    assert list(add.starmap([])) == []
    square.for_each([])


def test_none_is_a_result_like_any_other() -> None:
    assert list(nothing.map(range(3))) == [None, None, None]


def test_starmap_spreads_tuples() -> None:
    assert list(add.starmap([(1, 2), (3, 4)], kwargs={"c": 1})) == [4, 8]


def test_for_each_runs_every_input_and_returns_none(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    gate.open()
    assert hold.for_each([tmp_path] * 5, range(5)) is None
    assert gate.entered == ["0", "1", "2", "3", "4"]


def test_every_form_has_an_asynchronous_one(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    gate.open()

    async def numbers() -> AsyncIterator[int]:
        for x in range(4):
            yield x

    async def pairs() -> AsyncIterator[tuple[int, int]]:
        yield 1, 2

    async def main() -> None:
        assert [x async for x in square.map.aio(range(4))] == [0, 1, 4, 9]
        assert [x async for x in square.map(range(4))] == [0, 1, 4, 9]
        assert [x async for x in square.map.aio(numbers())] == [0, 1, 4, 9]
        assert sorted([x async for x in square.map.aio(numbers(), order_outputs=False)]) == [0, 1, 4, 9]
        assert [x async for x in add.map.aio(numbers(), [10, 10])] == [10, 11]
        assert [x async for x in add.starmap.aio([(1, 2)])] == [3]
        assert [x async for x in add.starmap.aio(pairs())] == [3]
        await hold.for_each.aio([tmp_path], ["x"])
        assert (await square.get_current_stats.aio()).num_total_runners == 1

    asyncio.run(main())
    assert gate.entered == ["x"]


def test_a_thousand_inputs_and_several_maps_at_once() -> None:
    outputs = [square.map(range(1500)), add.map(range(1500), range(1500))]
    both = list(zip(*outputs, strict=True))
    assert both == [(x * x, 2 * x) for x in range(1500)]


def test_leaving_a_map_early_cancels_what_has_not_started(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    held = flexray.App("leaving")

    @held.function(cpu=0, max_containers=1)
    def first_passes(x: int) -> int:
        return x if x == 0 else gate.enter(x)

    with held.run():
        outputs = first_passes.map(range(50))
        for _ in outputs:
            wait_until(lambda: gate.entered, timeout_s=20)
            break
        outputs.close()
        wait_until(lambda: first_passes.get_current_stats().backlog == 0)
        gate.open()
        assert first_passes.remote(0) == 0
        assert len(gate.entered) == 1


def test_a_map_that_is_never_read_warns(caplog: pytest.LogCaptureFixture) -> None:
    square.map(range(3))
    assert "square.map were never read" in caplog.text


def test_blocking_maps_in_a_running_loop_are_refused_and_aio_is_named() -> None:
    async def main() -> None:
        for use, name in (
            (lambda: list(square.map([1])), r"square\.map\.aio"),
            (lambda: list(add.starmap([(1, 2)])), r"add\.starmap\.aio"),
            (lambda: square.for_each([1]), r"square\.for_each\.aio"),
        ):
            with pytest.raises(InvalidError, match=name):
                use()

    asyncio.run(main())


def test_remote_in_a_running_loop_works_and_warns(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> int:
        return square.remote(3)

    assert asyncio.run(main()) == 9
    assert "await square.remote.aio(...)" in caplog.text


def test_progress_shows_a_line_that_counts(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(square.map(range(3), progress=True)) == [0, 1, 4]
    assert "square: 3 done in" in capsys.readouterr().err


# Functions that call functions.


def test_a_function_can_map_over_another() -> None:
    assert total_of_squares.remote(50) == sum(x * x for x in range(50))
    assert total_of_squares_async.remote(50) == sum(x * x for x in range(50))


def test_a_map_over_a_function_that_maps() -> None:
    assert list(total_of_squares.map(range(10))) == [sum(x * x for x in range(n)) for n in range(10)]


def test_a_function_can_call_itself() -> None:
    assert factorial.remote(4) == 24


# What functions may be.


def test_lambdas_closures_and_nested_functions_are_functions() -> None:
    assert triple.remote(2) == 6
    offset = 5
    nested = flexray.App("nested")

    @nested.function(cpu=0)
    def shift(x: int) -> int:
        def plus(y: int) -> int:
            return y + offset

        return plus(x)

    shifted_twice = nested.function(cpu=0, name="twice")(lambda x: x + 2 * offset)
    with nested.run():
        assert list(shift.map([1, 2])) == [6, 7]
        assert shifted_twice.remote(1) == 11


SHAPES = """
class Point:
    def __init__(self, x, y):
        self.x, self.y = x, y

class OffTheMap(Exception):
    pass

def moved(point, by):
    if by > 100:
        raise OffTheMap(by)
    return Point(point.x + by, point.y + by)
"""

SHAPES_DRIVER = """
import sys
sys.path.insert(0, {folder!r})
import shapes
if not {importable}:
    sys.path.pop(0)
import flexray
app = flexray.App("shapes")
move = app.function(cpu=0)(shapes.moved)
make = app.function(cpu=0, name="make")(lambda x: shapes.Point(x, x))
with app.run():
    result = move.remote(shapes.Point(1, 2), 5)
    assert type(result) is shapes.Point, type(result)
    assert (result.x, result.y) == (6, 7)
    assert all(type(p) is shapes.Point for p in make.map(range(3)))
    try:
        move.remote(shapes.Point(1, 2), 101)
    except shapes.OffTheMap as error:
        assert error.args == (101,)
        assert "in moved" in error.__notes__[0], error.__notes__
    else:
        raise AssertionError
    [mine] = list(move.map([shapes.Point(0, 0)], [500], return_exceptions=True))
    assert type(mine) is shapes.OffTheMap
print("passed")
"""


@pytest.mark.parametrize("importable", [True, False])
def test_functions_and_classes_of_a_local_module_keep_their_identity(
    cluster: Cluster, tmp_path: Path, importable: bool
) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "shapes.py").write_text(SHAPES)
    driver = cluster.start_driver(SHAPES_DRIVER.format(folder=str(folder), importable=importable), tmp_path)
    output, _ = driver.communicate(timeout=60)
    assert output.splitlines()[-1:] == ["passed"]


# Arguments and results.


@ray.remote(num_cpus=0)
def _slow_seven(folder: Path) -> int:
    Gate(folder).enter("seven")
    return 7


@ray.remote(num_cpus=0, max_retries=0)
def _failing() -> int:
    raise KeyError("upstream")


def test_references_as_arguments_are_resolved() -> None:
    args, kwargs = anything.remote(ray.put(1), 2, named=ray.put([3]))
    assert args == (1, 2)
    assert kwargs == {"named": [3]}


def test_a_reference_that_is_not_ready_delays_its_own_input_only(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    refs = [ray.put(1), _slow_seven.remote(tmp_path), ray.put(3)]
    outputs = iter(square.map(refs, order_outputs=False))
    assert sorted([next(outputs), next(outputs)]) == [1, 9]
    gate.open()
    assert next(outputs) == 49


def test_a_reference_that_fails_fails_its_own_input_only() -> None:
    refs = [ray.put(1), _failing.remote(), ray.put(3)]
    outputs: list[Any] = list(square.map(refs, return_exceptions=True))
    assert outputs[0] == 1
    assert outputs[2] == 9
    assert isinstance(outputs[1], KeyError)
    with pytest.raises(KeyError):
        square.remote(_failing.remote())  # type: ignore[arg-type]


def test_references_inside_of_arguments_are_passed_on() -> None:
    (box,), _ = anything.remote({"ref": ray.put(5)})
    assert isinstance(box["ref"], ray.ObjectRef)
    assert ray.get(box["ref"]) == 5

    reading = flexray.App("reading")

    @reading.function(cpu=0)
    def read(refs: list[Any], top: Any) -> Any:
        return sum(ray.get(refs)) + top

    with reading.run():
        assert read.remote([ray.put(1), ray.put(2)], ray.put(4)) == 7


def test_ten_megabytes_go_in_and_come_out() -> None:
    array = np.arange(10 * 1024 * 1024 // 8, dtype=np.float64)
    (same,), _ = anything.remote(array)
    assert np.array_equal(same, array)
    outputs = list(anything.map([array, array], kwargs={"scale": 2}))
    assert all(np.array_equal(args[0], array) and kwargs == {"scale": 2} for args, kwargs in outputs)


# Handles.


def test_other_options_have_a_pool_of_their_own_and_the_same_options_the_same() -> None:
    variant = process.with_options(max_containers=1)
    again = process.with_options(max_containers=1)
    first = variant.remote()
    assert again.remote() == first
    assert process.remote() != first
    assert variant.get_current_stats().settings.max_containers == 1
    stacked = variant.with_options(scaledown_window=30)
    assert stacked.remote() != first
    assert stacked.get_current_stats().settings.max_containers == 1


def test_variables_reach_the_container() -> None:
    configured = flexray.App(
        "configured", env={"LEVEL": "1", "SCOPE": "app"}, runtime_env={"env_vars": {"FROM_RAY": "app"}}
    )
    names = ("LEVEL", "SCOPE", "FROM_RAY", "OF_FUNCTION")

    @configured.function(cpu=0, env={"LEVEL": "2"}, runtime_env={"env_vars": {"OF_FUNCTION": "yes"}})
    def variables() -> list[str | None]:
        return [os.environ.get(name) for name in names]

    with configured.run():
        assert variables.remote() == ["2", "app", "app", "yes"]
        assert variables.with_options(env={"LEVEL": "3"}).remote() == ["3", "app", "app", "yes"]


def test_context_tells_where_code_runs() -> None:
    situated = flexray.App("situated")

    @situated.function(cpu=0)
    def where() -> tuple[bool, str | None, int | None]:
        return flexray.is_local(), flexray.current_input_id(), flexray.current_attempt()

    with situated.run():
        local, input_id, attempt = where.remote()
    assert not local
    assert input_id
    assert input_id.startswith("in-")
    assert attempt == 1
    assert where.local() == (True, None, None)


# Apps.


def test_an_app_can_run_again_and_not_twice_at_once() -> None:
    again = flexray.App("again")
    function = again.function(cpu=0, name="f")(os.getpid)
    with again.run():
        first = function.remote()
        with pytest.raises(ExecutionError, match="running already"):
            again.run().start()
    with again.run():
        assert function.remote() != first


def test_two_apps_run_at_once_and_end_apart() -> None:
    one, two = flexray.App("one"), flexray.App("two")
    first = one.function(cpu=0, name="f")(lambda: 1)
    second = two.function(cpu=0, name="f")(lambda: 2)
    with one.run():
        with two.run():
            assert (first.remote(), second.remote()) == (1, 2)
        assert first.remote() == 1
        with pytest.raises(ExecutionError, match="app two is not running"):
            second.remote()


def test_start_and_stop_do_what_the_block_does(cluster: Cluster) -> None:
    started = flexray.App("started")
    function = started.function(cpu=0, name="f")(lambda: 1)
    running = started.run().start()
    assert function.remote() == 1
    assert containers_of("started")
    running.stop()
    running.stop()
    wait_until(lambda: not containers_of("started"))


def test_an_app_runs_in_an_asynchronous_block() -> None:
    asynchronous = flexray.App("asynchronous")
    function = asynchronous.function(cpu=0, name="f")(lambda: 1)

    async def main() -> int:
        async with asynchronous.run():
            return await function.remote.aio()

    assert asyncio.run(main()) == 1


def test_the_end_of_the_block_ends_running_inputs_and_containers(tmp_path: Path) -> None:
    ending = flexray.App("ending")
    gate = Gate(tmp_path)
    function = ending.function(cpu=0, name="f")(gate.enter)

    async def main() -> BaseException:
        async with ending.run():
            call = asyncio.ensure_future(function.remote.aio("x"))
            await asyncio.to_thread(wait_until, lambda: gate.entered)
        with pytest.raises(InputCancelledError) as caught:
            await call
        return caught.value

    assert "app has ended" in str(asyncio.run(main()))
    wait_until(lambda: not containers_of("ending"))


HELD_DRIVER = """
import flexray
from pathlib import Path
from tests.integration.gates import Gate
app = flexray.App("{name}")
gate = Gate(Path({folder!r}))
hold = app.function(cpu=0, name="hold")(gate.enter)
with app.run():
    print("inside", flush=True)
    {use}
"""


def start_held(cluster: Cluster, name: str, use: str, folder: Path) -> subprocess.Popen[str]:
    driver = cluster.start_driver(HELD_DRIVER.format(name=name, folder=str(folder), use=use))
    wait_until(lambda: Gate(folder).entered, timeout_s=30)
    assert containers_of(name)
    return driver


@pytest.mark.parametrize(
    "use",
    ["list(hold.map(range(5)))", "hold.remote(1)", "__import__('asyncio').run(hold.remote.aio(1))"],
    ids=["map", "remote", "aio"],
)
def test_ctrl_c_ends_the_block_and_its_containers_within_five_seconds(
    cluster: Cluster, tmp_path: Path, use: str
) -> None:
    driver = start_held(cluster, "interrupted", use, tmp_path)
    driver.send_signal(signal.SIGINT)
    assert driver.wait(timeout=5) != 0
    wait_until(lambda: not containers_of("interrupted"), timeout_s=2)


def test_killing_the_process_ends_its_app_within_twenty_seconds(cluster: Cluster, tmp_path: Path) -> None:
    driver = start_held(cluster, "killed", "list(hold.map(range(5)))", tmp_path)
    driver.kill()
    driver.wait(timeout=5)
    wait_until(lambda: not containers_of("killed"), timeout_s=20)


def test_a_function_added_after_its_app_started_says_so() -> None:
    app = flexray.App("late")

    @app.function()
    def early() -> int:
        return 1

    with app.run():

        @app.function()
        def late() -> int:
            return 2

        with pytest.raises(ExecutionError, match="after that had started") as caught:
            late.remote()
        assert caught.value.hint is not None
        assert early.remote() == 1
        other = flexray.App("other")
        with pytest.raises(ExecutionError, match="late is running"):
            app.include(other)
    with app.run():
        assert late.remote() == 2
