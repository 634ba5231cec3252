"""Spawned calls that wait or run: their limit, what counts them, their cancelling, and deaths meanwhile."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

import flexray
from flexray.errors import InputCancelledError, ResourceExhaustedError
from tests.fault.actors import CONTROLLER, Actors, kill
from tests.integration.conftest import NAMESPACE, Cluster
from tests.integration.gates import Gate, at, in_background, results
from tests.waiting import wait_until

CALL_QUEUE = "flexray:call-queue"
MANY_S = 60.0
"""For so long a test waits for new containers and restarts on a loaded machine."""


@pytest.fixture
def gate(cluster: Cluster, tmp_path: Path) -> Gate:
    return Gate(tmp_path)


@pytest.fixture
def app(cluster: Cluster, gate: Gate) -> Iterator[flexray.App]:
    yield flexray.App("many")
    gate.open()


@pytest.fixture
def actors(cluster: Cluster) -> Actors:
    return Actors()


def holding(app: flexray.App, gate: Gate, **options: Any) -> flexray.Function[..., Any]:
    """A function whose inputs wait for the gate, and leave a trace of each of their runs."""

    def hold(name: object) -> object:
        with (gate.folder / "runs").open("a") as file:
            file.write(f"{name}\n")
        gate.enter(name)
        return name

    return app.function(cpu=0, **{"max_containers": 1, **options})(hold)


def runs(gate: Gate) -> Counter[str]:
    """Input to how often it ran."""
    return Counter((gate.folder / "runs").read_text().split())


def in_the_queue(look: Callable[[Any], Any]) -> Any:
    """What `look` finds in the call queue itself."""
    queue: Any = ray.get_actor(CALL_QUEUE, namespace=NAMESPACE)
    return ray.get(queue.__ray_call__.remote(lambda own: look(own.behind)), timeout=20)


def stored() -> tuple[int, int]:
    """How many calls and inputs there are on the disk."""

    def count(queue: Any) -> tuple[int, int]:
        calls, inputs = (queue._store._run(f"SELECT count(*) FROM {t}")[0][0] for t in ("calls", "inputs"))
        return calls, inputs

    found: tuple[int, int] = in_the_queue(count)
    return found


def statuses(call: flexray.FunctionCall[Any]) -> list[str]:
    return [one.status for one in call.get_call_graph()]


def queue_process(actors: Actors) -> int:
    return wait_until(lambda: actors.alive().get(CALL_QUEUE, 0), timeout_s=30)


# Limits.


def test_a_spawn_past_the_limit_is_refused_and_nothing_of_it_is_kept(app: flexray.App, gate: Gate) -> None:
    hold = holding(app, gate, limits=flexray.Limits(spawn_pending=3))
    with app.run():
        first = hold.spawn("first")
        wait_until(lambda: gate.entered)
        wait_until(lambda: at(hold, num_running_inputs=1, backlog=0))
        kept = [hold.spawn(x) for x in range(3)]
        before = stored()
        spawns: list[Callable[[], Any]] = [
            lambda: hold.spawn("over"),
            lambda: asyncio.run(hold.spawn.aio("over")),
        ]
        for spawn in spawns:
            with pytest.raises(ResourceExhaustedError) as caught:
                spawn()
            error = caught.value
            assert (error.function, error.waiting, error.limit, error.kind) == ("hold", 3, 3, "spawn_pending")
            assert "3 inputs are spawned and waiting and the spawn_pending limit is 3" in str(error)
            assert error.hint
        assert stored() == before
        gate.open()
        assert [call.get() for call in (first, *kept)] == ["first", 0, 1, 2]
        assert hold.spawn("again").get() == "again"
    assert set(runs(gate)) == {"first", "0", "1", "2", "again"}


def test_of_spawns_that_race_for_the_last_room_exactly_the_surplus_is_refused(
    app: flexray.App, gate: Gate
) -> None:
    hold = holding(app, gate, limits=flexray.Limits(spawn_pending=10))

    def spawn(x: int) -> flexray.FunctionCall[Any] | None:
        try:
            return hold.spawn(x)
        except ResourceExhaustedError:
            return None

    with app.run():
        first = hold.spawn("first")
        wait_until(lambda: at(hold, num_running_inputs=1, backlog=0) and gate.entered)
        spawned = results([in_background(lambda x=x: spawn(x)) for x in range(40)])  # type: ignore[misc]
        kept = {x: call for x, call in enumerate(spawned) if call is not None}
        assert len(kept) == 10
        gate.open()
        assert {x: call.get() for x, call in kept.items()} == {x: x for x in kept}
        assert first.get() == "first"


def test_a_limit_is_exact_right_after_the_call_queue_was_killed(
    app: flexray.App, gate: Gate, actors: Actors
) -> None:
    hold = holding(app, gate, limits=flexray.Limits(spawn_pending=3))
    with app.run():
        first = hold.spawn("first")
        wait_until(lambda: at(hold, num_running_inputs=1, backlog=0) and gate.entered)
        kept = [hold.spawn(x) for x in range(3)]
        kill(queue_process(actors))
        with pytest.raises(ResourceExhaustedError):
            hold.spawn("over")
        gate.open()
        assert [call.get(timeout=MANY_S) for call in (first, *kept)] == ["first", 0, 1, 2]
    assert set(runs(gate).values()) == {1}


@pytest.mark.parametrize("form", ["blocking", "aio"])
def test_spawn_map_waits_at_the_limit_says_why_and_goes_on(
    app: flexray.App, gate: Gate, caplog: pytest.LogCaptureFixture, form: str
) -> None:
    hold = holding(app, gate, limits=flexray.Limits(spawn_pending=10))
    with app.run(), caplog.at_level(logging.WARNING, "flexray"):
        spawned = in_background(
            lambda: (
                hold.spawn_map(range(25))
                if form == "blocking"
                else asyncio.run(hold.spawn_map.aio(range(25)))
            )
        )
        wait_until(lambda: gate.entered)
        wait_until(lambda: any("spawn_map of hold waits: 10 of 10" in m for m in caplog.messages))
        wait_until(lambda: at(hold, num_running_inputs=1, backlog=10))
        assert not spawned.done()
        with pytest.raises(ResourceExhaustedError):
            hold.spawn("over")
        gate.open()
        call = spawned.result(MANY_S)
        assert list(call.iter()) == list(range(25))
        assert call.num_inputs() == 25
    assert set(runs(gate).values()) == {1}


def test_spawned_inputs_count_in_no_other_limit_nor_others_in_theirs(app: flexray.App, gate: Gate) -> None:
    hold = holding(app, gate, limits=flexray.Limits(pending=2, total=3, spawn_pending=5))
    with app.run():
        spawned = [hold.spawn("first")]
        wait_until(lambda: at(hold, num_running_inputs=1, backlog=0) and gate.entered)
        spawned += [hold.spawn(x) for x in range(4)]
        called = [in_background(lambda x=x: hold.remote(x)) for x in ("a", "b")]  # type: ignore[misc]
        wait_until(lambda: at(hold, num_running_inputs=1, backlog=6))
        with pytest.raises(ResourceExhaustedError) as caught:
            hold.remote("over")
        assert caught.value.kind == "pending"
        spawned.append(hold.spawn("fifth"))
        with pytest.raises(ResourceExhaustedError) as caught:
            hold.spawn("over")
        assert caught.value.kind == "spawn_pending"
        gate.open()
        assert results(called) == ["a", "b"]
        assert [call.get() for call in spawned] == ["first", 0, 1, 2, 3, "fifth"]


def test_the_backlog_counts_what_was_spawned_and_the_pool_grows_for_it(app: flexray.App, gate: Gate) -> None:
    hold = holding(app, gate, max_containers=3)
    with app.run():
        call = hold.spawn_map(range(6000))
        wait_until(
            lambda: at(hold, num_running_inputs=3, backlog=5997, num_total_runners=3), timeout_s=MANY_S
        )
        assert len(gate.entered) == 3
        call.cancel()
        wait_until(lambda: at(hold, num_running_inputs=0, backlog=0))


# Cancelling.


def test_a_waiting_call_that_is_cancelled_never_runs(app: flexray.App, gate: Gate) -> None:
    hold = holding(app, gate)
    with app.run():
        first, waiting, last = hold.spawn("first"), hold.spawn("waiting"), hold.spawn("last")
        wait_until(lambda: "first" in gate.entered)
        result = in_background(waiting.get)
        waiting.cancel()
        with pytest.raises(InputCancelledError):
            result.result(10)
        gate.open()
        assert (first.get(), last.get()) == ("first", "last")
        waiting.cancel()
        with pytest.raises(InputCancelledError):
            waiting.get()
    assert set(runs(gate)) == {"first", "last"}


def test_inputs_that_are_not_in_memory_are_cancelled_too(app: flexray.App, gate: Gate) -> None:
    hold = holding(app, gate)
    with app.run():
        call = hold.spawn_map(range(6000))
        following = hold.spawn("following")
        wait_until(lambda: gate.entered == ["0"])
        call.cancel()
        for index in (0, 3000, 5999):
            with pytest.raises(InputCancelledError):
                call.get(index=index, timeout=0)
        gate.open()
        assert following.get(timeout=MANY_S) == "following"
    assert set(runs(gate)) == {"0", "following"}


def test_what_was_over_before_keeps_its_results(app: flexray.App, gate: Gate) -> None:
    done_or_held = app.function(cpu=0, max_containers=1, name="f")(lambda x: x if x < 2 else gate.enter(x))
    with app.run():
        call = done_or_held.spawn_map(range(5))
        assert call.get(index=1) == 1
        wait_until(lambda: gate.entered == ["2"])
        call.cancel()
        assert (call.get(index=0), call.get(index=1)) == (0, 1)
        for index in (2, 3, 4):
            with pytest.raises(InputCancelledError):
                call.get(index=index)
        assert statuses(call) == ["done"] * 2 + ["cancelled"] * 3
        finished = done_or_held.spawn(1)
        assert finished.get() == 1
        for terminate in (False, True):
            finished.cancel(terminate_containers=terminate)
            assert (finished.get(), finished.num_inputs()) == (1, 1)


def test_a_running_async_input_sees_its_cancellation_and_its_container_goes_on(
    app: flexray.App, gate: Gate
) -> None:
    async def hold(name: str) -> int:
        if name == "next":
            return os.getpid()
        (gate.folder / f"in-{name}").write_text(str(os.getpid()))
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            (gate.folder / "cancelled").touch()
            raise
        return 0

    function = app.function(cpu=0, max_containers=1)(hold)
    with app.run():
        call = function.spawn("x")
        wait_until(lambda: gate.entered)
        call.cancel()
        with pytest.raises(InputCancelledError):
            call.get(timeout=5)
        wait_until((gate.folder / "cancelled").exists)
        assert function.spawn("next").get() == int((gate.folder / "in-x").read_text())


def test_a_running_sync_input_is_answered_and_its_container_replaced(app: flexray.App, gate: Gate) -> None:
    def hold(name: str) -> int:
        return os.getpid() if name == "next" else gate.enter(name)

    function = app.function(cpu=0, max_containers=1)(hold)
    with app.run():
        process = function.spawn("next").get()
        call = function.spawn("x")
        wait_until(lambda: gate.entered)
        call.cancel()
        with pytest.raises(InputCancelledError):
            call.get(timeout=5)
        gate.open()
        assert function.spawn("next").get(timeout=MANY_S) != process


def test_terminating_the_containers_of_a_call_runs_its_neighbours_elsewhere(
    app: flexray.App, gate: Gate
) -> None:
    @app.function(cpu=0, max_containers=1)
    @flexray.concurrent(max_inputs=2)
    def hold(name: str) -> int:
        with (gate.folder / "runs").open("a") as file:
            file.write(f"{name}\n")
        (gate.folder / f"process-{name}").write_text(str(os.getpid()))
        return gate.enter(name)

    with app.run():
        neighbour, call = hold.spawn("neighbour"), hold.spawn("x")
        wait_until(lambda: len(gate.entered) == 2)
        process = int((gate.folder / "process-x").read_text())
        call.cancel(terminate_containers=True)
        with pytest.raises(InputCancelledError):
            call.get(timeout=5)
        wait_until(lambda: not Path(f"/proc/{process}/cmdline").exists(), timeout_s=MANY_S)
        gate.open()
        assert neighbour.get(timeout=MANY_S) != process
    assert runs(gate) == {"neighbour": 2, "x": 1}


def test_a_call_that_is_cancelled_while_it_is_spawned_ends_its_spawning(app: flexray.App, gate: Gate) -> None:
    hold = holding(app, gate, limits=flexray.Limits(spawn_pending=5))
    with app.run():
        spawning = in_background(lambda: hold.spawn_map(range(50)))
        wait_until(lambda: at(hold, num_running_inputs=1, backlog=5))
        call = flexray.FunctionCall.from_id(in_the_queue(lambda queue: queue._store.newest_calls(1)[0].id))
        call.cancel()
        with pytest.raises(InputCancelledError, match="takes no more inputs: it was cancelled"):
            spawning.result(20)
        assert set(statuses(call)) == {"cancelled"}


# Deaths.


@pytest.mark.parametrize("how", ["killed", "ended for good"])
def test_the_call_queue_dies_while_inputs_run_and_wait_and_each_runs_once(
    app: flexray.App, gate: Gate, actors: Actors, how: str
) -> None:
    hold = holding(app, gate, max_containers=2)
    with app.run():
        call = hold.spawn_map(range(10))
        results_to_come = in_background(lambda: list(call.iter()))
        one_to_come = in_background(lambda: asyncio.run(call.get.aio(index=9)))
        wait_until(lambda: len(gate.entered) == 2)
        process = queue_process(actors)
        if how == "killed":
            kill(process)
        else:
            ray.kill(ray.get_actor(CALL_QUEUE, namespace=NAMESPACE), no_restart=True)
        wait_until(lambda: actors.alive().get(CALL_QUEUE, process) != process, timeout_s=MANY_S)
        gate.open()
        assert results_to_come.result(MANY_S) == list(range(10))
        assert one_to_come.result(MANY_S) == 9
        assert set(runs(gate).values()) == {1}
        assert hold.spawn("after").get() == "after"


def test_the_call_queue_dies_in_the_middle_of_a_spawn_map_and_every_input_is_kept_once(
    app: flexray.App, gate: Gate, actors: Actors
) -> None:
    gate.open()
    hold = holding(app, gate, max_containers=2)

    def inputs() -> Iterator[int]:
        for x in range(3000):
            if x in (1500, 2500):
                kill(queue_process(actors))
            yield x

    with app.run():
        assert hold.spawn("first").get() == "first"
        call = hold.spawn_map(inputs())
        assert call.num_inputs() == 3000
        assert list(call.iter()) == list(range(3000))
    assert set(runs(gate).values()) == {1}


def test_the_controller_dies_while_inputs_run_and_wait_and_each_runs_once(
    app: flexray.App, gate: Gate, actors: Actors
) -> None:
    hold = holding(app, gate, max_containers=2)
    with app.run():
        call = hold.spawn_map(range(10))
        wait_until(lambda: len(gate.entered) == 2)
        process = actors.kill_controller()
        later = hold.spawn("later")
        gate.open()
        assert list(call.iter()) == list(range(10))
        assert later.get(timeout=MANY_S) == "later"
        assert actors.wait_for_restart(process) != process
        wait_until(lambda: at(hold, backlog=0, num_running_inputs=0))
    assert set(runs(gate).values()) == {1}


def test_controller_and_call_queue_die_together(app: flexray.App, gate: Gate, actors: Actors) -> None:
    hold = holding(app, gate, max_containers=2)
    with app.run():
        call = hold.spawn_map(range(10))
        wait_until(lambda: len(gate.entered) == 2)
        alive = actors.alive()
        for name in (CONTROLLER, CALL_QUEUE):
            kill(alive[name])
        gate.open()
        assert list(call.iter()) == list(range(10))
    assert set(runs(gate).values()) == {1}
