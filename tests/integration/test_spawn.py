"""Spawned calls: how they are made, who can ask for them, what becomes of them, and what is refused."""

# mypy takes a decorated class for the class itself, and so its methods for the user's own.
# mypy: disable-error-code="attr-defined, call-arg, union-attr"

from __future__ import annotations

import asyncio
import os
import pickle
import sys
import threading
import time
import types
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

import flexray
from flexray.errors import (
    ContainerStartError,
    DeserializationError,
    ExecutionError,
    FunctionTimeoutError,
    InputCancelledError,
    InputLostError,
    InvalidError,
    NotFoundError,
    OutputExpiredError,
    SerializationError,
)
from flexray.runtime import callqueue, spawned
from flexray.runtime.faces import PARKED_THREADS
from tests.fault.drivers import wait_for_line
from tests.integration.conftest import NAMESPACE, Cluster
from tests.integration.gates import Gate, in_background, results
from tests.waiting import wait_until

CALL_QUEUE = "flexray:call-queue"
UNKNOWN = "fc-000000000000000000000000"
MANY_S = 60.0
"""For so long a test waits for many inputs or for new containers on a loaded machine."""

app = flexray.App("spawned")


@app.function(cpu=0, max_containers=2)
def square(x: int) -> int:
    return x * x


async def _slowly_doubled(x: int) -> int:
    await asyncio.sleep(0)
    return 2 * x


slowly_doubled: flexray.Function[[int], Any] = app.function(cpu=0, name="slowly_doubled")(_slowly_doubled)


@app.function(cpu=0, max_containers=2)
def anything(*args: Any, **kwargs: Any) -> Any:
    return args, kwargs


@app.function(cpu=0, max_containers=4)
def hold(folder: Path, name: object) -> int:
    return Gate(folder).enter(name)


@app.function(cpu=0, max_containers=4)
def where(_: object = None) -> tuple[str | None, str | None, int | None]:
    return flexray.current_function_call_id(), flexray.current_input_id(), flexray.current_attempt()


@app.function(cpu=0, max_containers=2)
def counted(folder: Path, name: object) -> object:
    """Leaves a trace of each of its runs."""
    with (folder / f"ran-{name}").open("a") as file:
        file.write("x")
    return name


class Unreadable:
    """Packs well and fails to unpack."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _refuse_to_unpack, ()


def _refuse_to_unpack() -> None:
    raise RuntimeError("made of smoke")


def _of_a_module_that_only_containers_have() -> Any:
    module = types.ModuleType("only_there")
    exec("class Thing: pass", module.__dict__)
    sys.modules["only_there"] = module
    return module.Thing()


def _raises() -> None:
    raise ValueError("effect", 7) from KeyError("cause")


BAD_INPUTS: dict[str, Callable[[], Any]] = {
    "raises": _raises,
    "exits": lambda: sys.exit("early"),
    "vanishes": lambda: os._exit(3),
    "returns a lock": threading.Lock,
    "returns smoke": Unreadable,
    "returns a thing": _of_a_module_that_only_containers_have,
    "returns a reference": lambda: [ray.put(1)],
}


@app.function(cpu=0, max_containers=2)
def run(kind: Any) -> Any:
    return BAD_INPUTS[kind]() if isinstance(kind, str) else kind * 10


@app.function(cpu=0, max_containers=1, at_most_once=True)
def run_once(kind: Any) -> Any:
    return BAD_INPUTS[kind]()


@app.function(cpu=0)
def counter(n: int) -> Iterator[int]:
    yield from range(n)


@pytest.fixture(scope="module", autouse=True)
def running(cluster: Cluster) -> Iterator[None]:
    with app.run():
        yield


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    gate = Gate(tmp_path)
    yield gate
    gate.open()  # Where a test has failed, its inputs hold no container of the others.


def in_the_queue(look: Callable[[Any], Any]) -> Any:
    """What `look` finds in the call queue itself."""
    queue: Any = ray.get_actor(CALL_QUEUE, namespace=NAMESPACE)
    return ray.get(queue.__ray_call__.remote(lambda own: look(own.behind)), timeout=20)


def newest_call() -> flexray.FunctionCall[Any]:
    """The one that was spawned last, for where its spawning failed and returned none."""
    return flexray.FunctionCall.from_id(in_the_queue(lambda queue: queue._store.newest_calls(1)[0].id))


def statuses(call: flexray.FunctionCall[Any]) -> list[str]:
    return [one.status for one in call.get_call_graph()]


def runs(folder: Path) -> dict[str, int]:
    """Input to how often `counted` ran."""
    return {p.name.removeprefix("ran-"): len(p.read_text()) for p in folder.glob("ran-*")}


# One input.


def test_spawn_returns_at_once_and_get_waits_for_the_result(gate: Gate) -> None:
    call = hold.spawn(gate.folder, "x")
    wait_until(lambda: gate.entered)
    with pytest.raises(TimeoutError) as caught:
        call.get(timeout=0)
    assert call.object_id in str(caught.value)
    assert not isinstance(caught.value, flexray.Error)
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=r"0\.3 s"):
        call.get(0.3)
    assert time.monotonic() - began >= 0.3
    result = in_background(call.get)
    gate.open()
    assert result.result(30) != os.getpid()


def test_a_result_can_be_read_many_times_and_by_many_at_once() -> None:
    call = square.spawn(7)
    assert [call.get() for _ in range(3)] == [49] * 3
    assert results([in_background(call.get) for _ in range(20)]) == [49] * 20
    assert call.get(timeout=0) == 49
    assert (list(call.iter()), list(call.iter()), call.num_inputs()) == ([49], [49], 1)


def wait_for_outcomes(soon_s: float, short_s: float) -> None:
    """How long the queue waits for an outcome to acknowledge with, and of how long inputs."""

    def change(_: Any) -> None:
        sys.modules["flexray.runtime.callqueue"].SOON_S = soon_s  # type: ignore[attr-defined]
        sys.modules["flexray.runtime.spawned"].SHORT_S = short_s  # type: ignore[attr-defined]

    in_the_queue(change)


def test_what_was_over_before_spawn_returned_need_not_be_asked_for() -> None:
    def brought() -> flexray.FunctionCall[Any] | None:
        call = anything.spawn([1])
        return call if call._over is not None else call.get() and None

    anything.spawn().get()
    wait_for_outcomes(10.0, 1.0)  # However busy this machine is.
    try:
        call = wait_until(brought)
    finally:
        wait_for_outcomes(callqueue.SOON_S, spawned.SHORT_S)
    assert call is not None
    first = call.get()
    assert first == (([1],), {})
    assert call.get() is not first
    with pytest.raises(InvalidError, match="index is 1"):
        call.get(index=1)
    copied = pickle.loads(pickle.dumps(call))
    assert copied._over is None
    assert (copied, copied.get()) == (call, first)


def test_a_call_is_its_id() -> None:
    call = square.spawn(3)
    same = flexray.FunctionCall.from_id(call.object_id)
    assert call.object_id.startswith("fc-")
    assert same == call
    assert len({same, call}) == 1
    assert call != square.spawn(3)
    assert same.get() == 9
    assert call.object_id in repr(same)


def test_arguments_of_all_kinds_and_async_functions() -> None:
    assert anything.spawn(1, [2], named={"three": None}).get() == ((1, [2]), {"named": {"three": None}})
    assert slowly_doubled.spawn(4).get() == 8


def test_none_is_a_result_like_any_other() -> None:
    nothing = flexray.App("nothing")
    function = nothing.function(cpu=0, name="nothing")(lambda: None)
    with nothing.run():
        assert function.spawn().get() is None


def test_every_form_has_an_asynchronous_one(gate: Gate) -> None:
    async def numbers() -> AsyncIterator[int]:
        for x in range(5):
            yield x

    async def main() -> None:
        call = await square.spawn.aio(6)
        assert await call.get.aio() == 36
        assert await call.get.aio(timeout=0, index=0) == 36
        assert await call.num_inputs.aio() == 1
        assert [one.status for one in await call.get_call_graph.aio()] == ["done"]
        several = await square.spawn_map.aio(numbers())
        assert [x async for x in several.iter.aio()] == [0, 1, 4, 9, 16]
        assert [x async for x in several.iter()] == [0, 1, 4, 9, 16]
        mixed = await anything.spawn_map.aio(numbers(), [5, 6, 7], kwargs={"k": 1})
        assert await mixed.get.aio(index=2) == ((2, 7), {"k": 1})
        assert await mixed.num_inputs.aio() == 3
        plain = await square.spawn_map.aio(range(3))
        gathered = await flexray.FunctionCall.gather.aio(call, plain, several)
        assert gathered == [36, 0, 0]
        held = await hold.spawn.aio(gate.folder, "x")
        with pytest.raises(TimeoutError):
            await held.get.aio(timeout=0)
        await held.cancel.aio()
        with pytest.raises(InputCancelledError):
            await held.get.aio()
        with pytest.raises(NotFoundError):
            await flexray.FunctionCall.from_id(UNKNOWN).get.aio()

    asyncio.run(main())


def test_many_coroutines_spawn_and_get_at_once() -> None:
    async def main() -> list[int]:
        calls = await asyncio.gather(*[square.spawn.aio(x) for x in range(100)])
        return await asyncio.gather(*[call.get.aio() for call in calls])

    assert asyncio.run(main()) == [x * x for x in range(100)]


def test_more_than_the_queue_has_threads_for_can_wait_in_one_process(gate: Gate) -> None:
    """All of them are one request."""

    def parked(queue: Any) -> int:
        return sum(not request.done() for request in queue._parked.values())

    async def main() -> list[int]:
        call = await hold.spawn.aio(gate.folder, "x")
        gets = [asyncio.ensure_future(call.get.aio()) for _ in range(2 * PARKED_THREADS)]
        await asyncio.to_thread(wait_until, lambda: gate.entered)
        assert await asyncio.to_thread(wait_until, lambda: in_the_queue(parked)) == 1
        gate.open()
        return await asyncio.gather(*gets)

    assert len(set(asyncio.run(main()))) == 1


def test_other_options_have_a_pool_of_their_own() -> None:
    assert square.with_options(max_containers=1).spawn(5).get() == 25
    assert list(square.with_concurrency(max_inputs=4).spawn_map(range(3)).iter()) == [0, 1, 4]


def test_lambdas_and_closures_can_be_spawned(cluster: Cluster) -> None:
    nested = flexray.App("spawned-closures")
    offset = 5
    shift = nested.function(cpu=0, name="shift")(lambda x: x + offset)
    with nested.run():
        assert shift.spawn(1).get() == 6


# Many inputs.


def test_spawn_map_keeps_the_order_of_the_inputs() -> None:
    call = square.spawn_map(range(20))
    assert list(call.iter()) == [x * x for x in range(20)]
    assert list(call.iter()) == [x * x for x in range(20)]
    assert call.num_inputs() == 20
    assert [call.get(index=i) for i in (19, 0, 7)] == [361, 0, 49]
    assert call.get() == 0


def test_spawn_map_zips_iterators_and_the_shortest_wins() -> None:
    call = anything.spawn_map([1, 2, 3], iter("ab"), kwargs={"k": 4})
    assert list(call.iter()) == [((1, "a"), {"k": 4}), ((2, "b"), {"k": 4})]


def test_an_empty_spawn_map_is_over_at_once() -> None:
    call = square.spawn_map([])
    assert call.num_inputs() == 0
    assert list(call.iter()) == []
    assert call.get_call_graph() == []
    with pytest.raises(InvalidError, match="has 0 inputs"):
        call.get()
    call.cancel()


def test_more_inputs_than_are_in_memory_at_once_all_run_once() -> None:
    call = square.spawn_map(range(10_001))
    assert call.num_inputs() == 10_001
    assert list(call.iter()) == [x * x for x in range(10_001)]
    assert square.spawn(3).get() == 9


def test_iter_gives_each_result_as_soon_as_it_is_there(gate: Gate) -> None:
    def after_the_first(x: int) -> int:
        return gate.enter(x) and x if x else x

    early = flexray.App("early")
    function = early.function(cpu=0, max_containers=1, name="after_the_first")(after_the_first)
    with early.run():
        outputs = iter(function.spawn_map(range(3)).iter())
        assert next(outputs) == 0
        gate.open()
        assert list(outputs) == [1, 2]


def test_a_failure_takes_its_own_place_among_the_results() -> None:
    call = run.spawn_map([1, "raises", 3])
    outputs = iter(call.iter())
    assert next(outputs) == 10
    with pytest.raises(ValueError, match="effect"):
        next(outputs)
    assert (call.get(index=0), call.get(index=2)) == (10, 30)
    with pytest.raises(ValueError, match="effect"):
        call.get(index=1)


def test_calls_of_one_function_run_beside_each_other_and_beside_others() -> None:
    calls = [square.spawn_map(range(i, i + 300)) for i in range(5)]
    assert list(square.map(range(50))) == [x * x for x in range(50)]
    for i, call in enumerate(calls):
        assert list(call.iter()) == [x * x for x in range(i, i + 300)]


def test_an_asynchronous_iterator_of_large_inputs_loses_none_of_them() -> None:
    async def large() -> AsyncIterator[bytes]:
        for x in range(12):
            yield bytes([x]) * 300_000

    async def main() -> list[int]:
        call = await anything.spawn_map.aio(large())
        assert await call.num_inputs.aio() == 12
        return [args[0][0] async for args, _ in call.iter.aio()]

    assert asyncio.run(main()) == list(range(12))


# Gathering.


def test_gather_gives_results_in_the_order_of_its_arguments(gate: Gate) -> None:
    late = hold.spawn(gate.folder, "late")
    gathered = in_background(lambda: flexray.FunctionCall.gather(late, square.spawn(2), square.spawn(3)))
    wait_until(lambda: gate.entered)
    assert not gathered.done()
    gate.open()
    assert gathered.result(30)[1:] == [4, 9]
    assert flexray.FunctionCall.gather() == []


def test_gather_raises_the_first_failure_as_soon_as_it_arrives(gate: Gate) -> None:
    late = hold.spawn(gate.folder, "late")
    with pytest.raises(ValueError, match="effect"):
        flexray.FunctionCall.gather(late, run.spawn("raises"))
    gate.open()
    assert late.get()


def test_gather_blocks_inside_of_a_running_loop_too() -> None:
    async def main() -> list[Any]:
        return flexray.FunctionCall.gather(square.spawn(2), square.spawn(3))

    assert asyncio.run(main()) == [4, 9]


# From containers, from other processes, and after the one that spawned has gone.


@app.function(cpu=0, max_containers=4)
def spawns(n: int) -> list[flexray.FunctionCall[int]]:
    return [square.spawn(x) for x in range(n)]


@app.function(cpu=0, max_containers=4)
def reads(call_id: str) -> Any:
    return flexray.FunctionCall.from_id(call_id).get()


@app.function(cpu=0, max_containers=4)
def tree(depth: int) -> list[flexray.FunctionCall[Any]]:
    if not depth:
        return []
    calls: list[flexray.FunctionCall[Any]] = [tree.spawn(depth - 1), square.spawn_map(range(2))]
    flexray.FunctionCall.gather(*calls)
    return calls


def test_a_container_spawns_and_others_read_what_it_spawned() -> None:
    calls = spawns.remote(3)
    assert [call.get() for call in calls] == [0, 1, 4]
    assert reads.remote(calls[2].object_id) == 4
    assert reads.spawn(calls[2].object_id).get() == 4
    assert [call.get() for call in spawns.spawn(2).get()] == [0, 1]


def test_the_call_graph_shows_what_inputs_have_spawned() -> None:
    call = tree.spawn(2)
    call.get()
    wait_until(lambda: statuses(call) == ["done"])
    [root] = call.get_call_graph()
    assert (root.function_call_id, root.function_name, root.status) == (call.object_id, "tree", "done")
    assert root.input_id.startswith("in-")
    assert [child.function_name for child in root.children] == ["tree", "square", "square"]
    [below, *leaves] = root.children
    assert [child.function_name for child in below.children] == ["tree", "square", "square"]
    assert not any(leaf.children for leaf in leaves)
    assert leaves[0].function_call_id == leaves[1].function_call_id
    assert leaves[0].input_id != leaves[1].input_id


def test_the_call_graph_says_what_each_input_is_at(gate: Gate) -> None:
    held = flexray.App("graph")
    function = held.function(cpu=0, max_containers=1, name="f")(
        lambda x: gate.enter(x) if x == "hold" else BAD_INPUTS[x]() if x else x
    )
    with held.run():
        call = function.spawn_map([0, "raises", "hold", 0])
        wait_until(lambda: statuses(call)[:3] == ["done", "failed", "running"])
        other = function.spawn(0)
        wait_until(lambda: statuses(other) == ["waiting"])
        other.cancel()
        assert statuses(other) == ["cancelled"]
        gate.open()
        call.get(index=3)
        assert statuses(call) == ["done", "failed", "done", "done"]


def test_an_input_knows_its_call_and_its_own_id() -> None:
    call = where.spawn_map(range(3))
    told = list(call.iter())
    assert {call_id for call_id, *_ in told} == {call.object_id}
    assert [input_id for _, input_id, _ in told] == [one.input_id for one in call.get_call_graph()]
    assert {attempt for *_, attempt in told} == {1}
    call_id, input_id, _ = where.remote()
    assert call_id is None
    assert input_id
    assert flexray.current_function_call_id() is None


READING_DRIVER = """
import sys
import flexray
call = flexray.FunctionCall.from_id({call_id!r})
assert call.get() == 49, call.get()
assert list(call.iter()) == [49]
assert call.num_inputs() == 1
assert call.get_call_graph()[0].function_name == "square"
flexray.FunctionCall.from_id({foreign!r}).cancel()
try:
    flexray.FunctionCall.from_id({thing!r}).get()
except flexray.DeserializationError as error:
    assert "only_there" in str(error), error
else:
    raise AssertionError
print("passed")
"""


def test_another_process_of_the_cluster_reads_and_cancels_by_id(cluster: Cluster, gate: Gate) -> None:
    foreign = hold.spawn(gate.folder, "foreign")
    code = READING_DRIVER.format(
        call_id=square.spawn(7).object_id,
        foreign=foreign.object_id,
        thing=run.spawn("returns a thing").object_id,
    )
    output, _ = cluster.start_driver(code).communicate(timeout=60)
    assert output.splitlines()[-1:] == ["passed"]
    with pytest.raises(InputCancelledError):
        foreign.get()


LEAVING_DRIVER = """
import sys
from pathlib import Path
import flexray
from tests.integration.gates import Gate
app = flexray.App("leaving")
gate = Gate(Path({folder!r}))
hold = app.function(cpu=0, max_containers=1, name="hold")(lambda x: (gate.enter(x), x)[1])
run = app.run(detach={detach})
with run:
    call = hold.spawn_map(range(3))
    print("\\n" + call.object_id, run.app_id, flush=True)
    print("spawned", flush=True)
    if not {detach}:
        sys.stdin.read()
"""


def start_leaving(cluster: Cluster, gate: Gate, *, detach: bool) -> tuple[Any, Any, str]:
    """A driver that spawns, what it spawned, and its app."""
    driver = cluster.start_driver(LEAVING_DRIVER.format(folder=str(gate.folder), detach=detach))
    assert driver.stdout
    line = next(line for line in driver.stdout if line.startswith("fc-"))
    call_id, app_id = line.split()
    return driver, flexray.FunctionCall.from_id(call_id), app_id


def test_what_a_detached_app_was_given_runs_after_its_process_has_gone(cluster: Cluster, gate: Gate) -> None:
    driver, call, app_id = start_leaving(cluster, gate, detach=True)
    wait_for_line(driver, "spawned")
    assert driver.wait(20) == 0
    gate.open()
    assert list(call.iter()) == [0, 1, 2]
    flexray.backend.connect().close_app(app_id)
    assert list(call.iter()) == [0, 1, 2]


def test_what_an_ephemeral_app_was_given_ends_with_its_process(cluster: Cluster, gate: Gate) -> None:
    driver, call, _ = start_leaving(cluster, gate, detach=False)
    wait_for_line(driver, "spawned")
    wait_until(lambda: gate.entered, timeout_s=MANY_S)
    driver.kill()
    driver.wait(10)
    with pytest.raises(InputCancelledError):
        call.get(timeout=MANY_S, index=2)
    with pytest.raises(InputCancelledError):
        call.get(timeout=5, index=0)


def test_the_end_of_an_ephemeral_app_cancels_its_calls_and_keeps_its_results(gate: Gate) -> None:
    ending = flexray.App("spawn-ending")
    function = ending.function(cpu=0, max_containers=1, name="f")(lambda x: x and gate.enter(x))
    with ending.run():
        before = function.spawn(0)
        assert before.get() == 0
        running, waiting = function.spawn(1), function.spawn_map([2] * 5000)
        wait_until(lambda: gate.entered)
        result = in_background(running.get)
    with pytest.raises(InputCancelledError):
        result.result(20)
    for index in (0, 4999):
        with pytest.raises(InputCancelledError):
            waiting.get(timeout=20, index=index)
    assert before.get() == 0
    assert gate.entered == ["1"]
    with pytest.raises(ExecutionError, match="is not running"):
        function.spawn(1)


# Failures.


def test_an_exception_comes_back_as_itself_each_time() -> None:
    call = run.spawn("raises")
    for _ in range(2):
        with pytest.raises(ValueError, match="effect") as caught:
            call.get()
        assert caught.value.args == ("effect", 7)
        assert isinstance(caught.value.__cause__, KeyError)
        assert "in _raises" in caught.value.__notes__[0]
    with pytest.raises(ExecutionError, match=r"sys\.exit\(early\)"):
        run.spawn("exits").get()


def test_a_failed_input_runs_again_as_its_retries_say(tmp_path: Path) -> None:
    def flaky(name: str, good: int) -> int:
        with (tmp_path / name).open("a") as file:
            file.write("x")
        attempt = flexray.current_attempt()
        assert attempt == len((tmp_path / name).read_text())
        if attempt < good:
            raise LookupError(attempt)
        return attempt

    retried = flexray.App("spawn-retried")
    retries = flexray.Retries(max_retries=2, initial_delay=0.0)
    function = retried.function(cpu=0, max_containers=1, retries=retries, name="flaky")(flaky)
    with retried.run():
        assert function.spawn("third", 3).get() == 3
        with pytest.raises(LookupError) as caught:
            function.spawn("never", 9).get()
    assert caught.value.args == (3,)
    assert len((tmp_path / "never").read_text()) == 3


def test_an_input_over_its_time_is_answered_so(gate: Gate) -> None:
    async def sleep(name: str) -> None:
        await asyncio.sleep(600)

    timed = flexray.App("spawn-timed")
    sync = timed.function(cpu=0, timeout=1, name="sync")(gate.enter)
    coroutine = timed.function(cpu=0, timeout=1, name="coroutine")(sleep)
    with timed.run():
        for call in (sync.spawn("x"), coroutine.spawn("x")):
            for _ in range(2):
                with pytest.raises(FunctionTimeoutError, match="1 s"):
                    call.get(timeout=MANY_S)


def test_an_input_that_ends_its_containers_is_lost_alone() -> None:
    call = run.spawn_map([1, "vanishes", 3])
    with pytest.raises(InputLostError, match="3 containers died") as caught:
        call.get(timeout=MANY_S, index=1)
    assert caught.value.function == "run"
    assert (call.get(index=0), call.get(index=2)) == (10, 30)
    assert [one.status for one in call.get_call_graph()] == ["done", "lost", "done"]


def test_an_input_that_runs_at_most_once_is_lost_with_its_container() -> None:
    with pytest.raises(InputLostError, match="the container died") as caught:
        run_once.spawn("vanishes").get(timeout=MANY_S)
    assert (caught.value.function, caught.value.losses) == ("run_once", 1)


def test_a_lost_input_runs_again_elsewhere(tmp_path: Path) -> None:
    def once(x: int) -> int:
        try:
            (tmp_path / "died").touch(exist_ok=False)
        except FileExistsError:
            return x
        os._exit(3)

    lossy = flexray.App("spawn-lossy")
    function = lossy.function(cpu=0, max_containers=1, name="once")(once)
    with lossy.run():
        assert function.spawn(5).get(timeout=MANY_S) == 5


def test_where_no_container_can_start_every_input_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "site-packages"
    installed.mkdir()
    (installed / "spawned_here.py").write_text("def value(x):\n    return x\n")
    monkeypatch.syspath_prepend(str(installed))
    import spawned_here  # type: ignore[import-not-found]

    unstartable = flexray.App("spawn-unstartable")
    value = unstartable.function(cpu=0, max_containers=1)(spawned_here.value)
    with unstartable.run():
        call = value.spawn_map(range(6000))  # More than are in memory at once.
        for index in (0, 5999):
            with pytest.raises(ContainerStartError, match="spawned_here"):
                call.get(timeout=MANY_S, index=index)
        assert set(statuses(call)) == {"failed"}


def test_a_result_that_cannot_be_kept_says_why() -> None:
    with pytest.raises(SerializationError, match=r"_thread\.lock"):
        run.spawn("returns a lock").get()
    with pytest.raises(SerializationError, match="holds an ObjectRef") as caught:
        run.spawn("returns a reference").get()
    assert caught.value.hint


def test_a_result_that_does_not_unpickle_fails_its_own_input_each_time() -> None:
    call = run.spawn_map([1, "returns smoke", "returns a thing"])
    outputs = iter(call.iter())
    assert next(outputs) == 10
    for index, words in ((1, "made of smoke"), (2, "only_there")):
        for _ in range(2):
            with pytest.raises(DeserializationError, match=words):
                call.get(index=index)
    assert statuses(call)[:1] == ["done"]


def test_arguments_that_do_not_fit_or_do_not_unpickle_fail_their_own_input() -> None:
    with pytest.raises(TypeError, match="positional argument"):
        square.spawn(1, 2).get()
    call = anything.spawn_map([1, Unreadable(), 3])
    with pytest.raises(DeserializationError, match="made of smoke"):
        call.get(index=1)
    assert call.get(index=2) == ((3,), {})


# Classes, concurrency and batches.


def test_methods_are_spawned_with_the_parameters_of_their_object() -> None:
    classes = flexray.App("spawn-classes")

    @classes.cls(cpu=0, max_containers=1)
    class Scaled:
        by: int = flexray.parameter(default=2)

        @flexray.enter()
        def load(self) -> None:
            self.process = os.getpid()

        @flexray.method()
        def times(self, x: int) -> tuple[int, int]:
            return self.process, x * self.by

        @flexray.method()
        async def plus(self, x: int) -> tuple[int, int]:
            return self.process, x + self.by

        @flexray.method()
        def count(self, n: int) -> Iterator[int]:
            yield from range(n)

    with classes.run():
        two, three = Scaled(), Scaled(by=3)
        process, value = two.times.spawn(5).get()
        assert value == 10
        assert two.plus.spawn(5).get() == (process, 7)
        assert [x for _, x in three.times.spawn_map(range(4)).iter()] == [0, 3, 6, 9]
        assert three.plus.spawn(1).get()[0] != process
        with pytest.raises(InvalidError, match="remote_gen"):
            two.count.spawn(3)
        with pytest.raises(InvalidError, match="instantiate it first"):
            Scaled.times.spawn(1)


def test_spawned_inputs_run_at_once_and_in_batches_as_others_do(gate: Gate) -> None:
    several = flexray.App("spawn-several")

    @several.function(cpu=0, max_containers=1)
    @flexray.concurrent(max_inputs=3)
    def together(name: object) -> tuple[int, str | None]:
        return gate.enter(name), flexray.current_function_call_id()

    @several.function(cpu=0, max_containers=1)
    @flexray.batched(max_batch_size=4, wait_ms=60_000)
    def sized(xs: list[int]) -> list[tuple[int, int]]:
        return [(len(xs), x) for x in xs]

    with several.run():
        calls = [together.spawn(name) for name in "abc"]
        wait_until(lambda: gate.entered == ["a", "b", "c"])
        gate.open()
        told = [call.get() for call in calls]
        assert len({process for process, _ in told}) == 1
        assert [call_id for _, call_id in told] == [call.object_id for call in calls]
        assert list[Any](sized.spawn_map(range(8)).iter()) == [(4, x) for x in range(8)]


# Large values and references.


def test_large_arguments_and_results_go_in_and_come_out() -> None:
    array = np.arange(2 * 1024 * 1024 // 8, dtype=np.float64)
    blob = b"x" * (2 << 20)
    call = anything.spawn(array, blob=blob)
    for _ in range(2):
        (same,), kwargs = call.get()
        assert np.array_equal(same, array)
        assert kwargs == {"blob": blob}
    several = anything.spawn_map([np.full(600_000, x, dtype=np.float64) for x in range(8)])
    assert [args[0][0] for args, _ in several.iter()] == list(range(8))
    assert several.get(index=7)[0][0][-1] == 7


@ray.remote(num_cpus=0)
def _seven() -> int:
    return 7


@ray.remote(num_cpus=0, max_retries=0)
def _failing() -> int:
    raise KeyError("upstream")


def test_references_as_arguments_are_resolved() -> None:
    assert anything.spawn(_seven.remote(), named=ray.put([3])).get() == ((7,), {"named": [3]})
    assert list(square.spawn_map([ray.put(2), 3, _seven.remote()]).iter()) == [4, 9, 49]
    assert asyncio.run(anything.spawn.aio(ray.put(1))).get() == ((1,), {})
    with pytest.raises(KeyError):
        square.spawn(_failing.remote())


def test_references_inside_of_arguments_are_refused() -> None:
    spawns: list[Callable[[], Any]] = [
        lambda: anything.spawn({"ref": ray.put(1)}),
        lambda: anything.spawn_map([[ray.put(1)]]),
        lambda: asyncio.run(anything.spawn.aio([ray.put(1)])),
    ]
    for spawn in spawns:
        with pytest.raises(SerializationError, match="holds an ObjectRef") as caught:
            spawn()
        assert caught.value.hint


# Calls that do not exist, and results that are gone.


@pytest.mark.parametrize(
    "ask",
    [
        lambda call: call.get(),
        lambda call: call.get(timeout=0),
        lambda call: list(call.iter()),
        lambda call: call.num_inputs(),
        lambda call: call.cancel(),
        lambda call: call.cancel(terminate_containers=True),
        lambda call: call.get_call_graph(),
        flexray.FunctionCall.gather,
        lambda call: asyncio.run(call.num_inputs.aio()),
    ],
    ids=["get", "poll", "iter", "num_inputs", "cancel", "terminate", "graph", "gather", "aio"],
)
@pytest.mark.parametrize("call_id", [UNKNOWN, "fc-", "fc-é'; DROP TABLE calls"])
def test_a_call_that_nobody_spawned_is_not_found(ask: Callable[[Any], Any], call_id: str) -> None:
    with pytest.raises(NotFoundError, match="there is no call") as caught:
        ask(flexray.FunctionCall.from_id(call_id))
    assert call_id in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize("given", ["", "in-1", "0123", None, 7, b"fc-1"])
def test_what_cannot_be_an_id_is_refused_without_asking(given: Any) -> None:
    with pytest.raises(InvalidError, match="is not the id of a call") as caught:
        flexray.FunctionCall.from_id(given)
    assert repr(given) in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize("index", [-1, 3, 1 << 40, True, 1.0, "0", None])
def test_an_index_out_of_range_is_refused(index: Any) -> None:
    call = square.spawn_map(range(3))
    with pytest.raises(InvalidError, match=f"index is {index!r}") as caught:
        call.get(index=index, timeout=20)
    assert caught.value.hint
    assert call.get(index=2) == 4


@pytest.mark.parametrize("timeout", [-1, "1", float("nan")])
def test_a_timeout_that_is_none_is_refused(timeout: Any) -> None:
    with pytest.raises(InvalidError, match="timeout is"):
        square.spawn(1).get(timeout=timeout)


def test_results_that_are_no_longer_kept_say_so() -> None:
    call, large = square.spawn_map(range(3)), anything.spawn(b"x" * (2 << 20))
    assert list(call.iter()) == [0, 1, 4]
    large.get()
    ids = (call.object_id, large.object_id)

    def eight_days_later(queue: Any) -> None:
        def age() -> int:
            for call_id in ids:
                queue._store._run("UPDATE calls SET over_at = over_at - 691200 WHERE id = ?", call_id)
            return queue._store.expire(time.time() - queue._kept_s)  # type: ignore[no-any-return]

        queue._writer.run(age)

    in_the_queue(eight_days_later)
    for ask in (call.get, lambda: list(call.iter()), lambda: call.get(index=2, timeout=0), large.get):
        with pytest.raises(OutputExpiredError, match="kept for 7 days") as caught:
            ask()
        assert caught.value.call_id in ids
    call.cancel()
    assert call.num_inputs() == 3
    assert square.spawn(2).get() == 4


KEPT_DRIVER = """
import os, signal, time
import ray, flexray
from tests.fault.actors import Actors, kill
from tests.waiting import wait_until
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
         object_store_memory=100 << 20, _temp_dir={temp!r})
app = flexray.App("kept")
square = app.function(cpu=0, name="square")(lambda x: x * x)
queue = "flexray:call-queue"
with app.run():
    call = square.spawn(3)
    assert call.get() == 9
    old = Actors().alive()[queue]
    kill(old)
    def expired():
        try:
            call.get()
        except flexray.OutputExpiredError as error:
            return error
    error = wait_until(expired, timeout_s=40)
    assert error.kept_days == 1e-6, error
    assert square.spawn(4).get() == 16
ray.shutdown()
print("passed")
"""


def on_a_cluster_of_its_own(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, code: str, days: str) -> str:
    """What a driver prints that starts Ray where results are kept for that long."""
    monkeypatch.setenv("FLEXRAY_RESULTS_KEPT_DAYS", days)
    monkeypatch.setenv("FLEXRAY_STATE_DIR", str(cluster.directory / f"kept-{days}"))
    driver = cluster.start_driver(code.format(temp=str(cluster.directory / "r2")))
    output, _ = driver.communicate(timeout=100)
    return "".join(output.splitlines()[-1:])


@pytest.mark.long
def test_how_long_results_are_kept_is_a_setting(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    assert on_a_cluster_of_its_own(cluster, monkeypatch, KEPT_DRIVER, "0.000001") == "passed"


# What cannot be spawned.


def test_generators_are_refused_and_remote_gen_is_named() -> None:
    spawns: list[Callable[[], Any]] = [
        lambda: counter.spawn(3),
        lambda: counter.spawn_map([3]),
        lambda: asyncio.run(counter.spawn.aio(3)),
        lambda: asyncio.run(counter.spawn_map.aio([3])),
    ]
    for spawn in spawns:
        with pytest.raises(InvalidError, match="generator function") as caught:
            spawn()
        assert "remote_gen" in str(caught.value.hint)


@pytest.mark.parametrize("iterators", [(), (5,), ([1], None)])
def test_a_spawn_map_without_iterators_is_refused(iterators: tuple[Any, ...]) -> None:
    with pytest.raises(InvalidError, match="map") as caught:
        square.spawn_map(*iterators)
    assert caught.value.hint
    with pytest.raises(InvalidError):
        asyncio.run(square.spawn_map.aio(*iterators))


@pytest.mark.parametrize("kwargs", [5, [1], "k"])
def test_kwargs_that_are_no_dict_are_refused(kwargs: Any) -> None:
    with pytest.raises(InvalidError, match="kwargs="):
        square.spawn_map([1], kwargs=kwargs)


def test_a_function_whose_app_does_not_run_is_not_spawned() -> None:
    idle = flexray.App("spawn-idle")
    function = idle.function(name="f")(lambda x: x)
    spawns: list[Callable[[], Any]] = [lambda: function.spawn(1), lambda: function.spawn_map([1])]
    for spawn in spawns:
        with pytest.raises(ExecutionError, match="is not running"):
            spawn()


def test_an_argument_that_does_not_pickle_is_named() -> None:
    with pytest.raises(SerializationError, match=r"argument 1, of type _thread\.lock"):
        anything.spawn(threading.Lock())
    with pytest.raises(SerializationError, match="argument 'x'"):
        asyncio.run(anything.spawn.aio(x=threading.Lock()))


@pytest.mark.parametrize("position", [0, 2, 1500])
def test_an_argument_that_does_not_pickle_in_the_middle_is_named_by_position(position: int) -> None:
    inputs: list[Any] = list(range(2000))
    inputs[position] = threading.Lock()
    with pytest.raises(SerializationError, match=f"input {position} of the spawn_map of anything") as caught:
        anything.spawn_map(inputs)
    assert "_thread.lock" in str(caught.value)
    with pytest.raises(SerializationError, match=f"input {position} of the spawn_map of anything"):
        asyncio.run(anything.spawn_map.aio(_each(inputs)))
    wait_until(lambda: set(statuses(newest_call())) <= {"done", "cancelled"})


async def _each(inputs: list[Any]) -> AsyncIterator[Any]:
    for each in inputs:
        yield each


@pytest.mark.parametrize("after", [0, 5, 1500])
def test_an_iterator_that_fails_says_so_itself_and_its_call_is_cancelled(after: int) -> None:
    def failing() -> Iterator[int]:
        yield from range(after)
        raise LookupError("no more")

    async def failing_async() -> AsyncIterator[int]:
        for x in failing():
            yield x

    spawns: list[Callable[[], Any]] = [
        lambda: square.spawn_map(failing()),
        lambda: asyncio.run(square.spawn_map.aio(failing_async())),
    ]
    for spawn in spawns:
        with pytest.raises(LookupError, match="no more"):
            spawn()
        call = newest_call()
        wait_until(lambda call=call: set(statuses(call)) <= {"done", "cancelled"})  # type: ignore[misc]
    assert square.spawn(3).get() == 9
