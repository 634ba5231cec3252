"""Inside of a container: many inputs at once, batches, results one by one, and ends of all kinds."""

# mypy takes a decorated class for the class itself, and so its methods for the user's own.
# mypy: disable-error-code="attr-defined, call-arg, union-attr"

from __future__ import annotations

import asyncio
import functools
import itertools
import os
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
import ray

import flexray
from flexray.errors import ExecutionError, FunctionTimeoutError, InputLostError, InvalidError
from flexray.runtime import roster
from tests.integration.conftest import Cluster
from tests.integration.gates import Gate, at, calls, in_background, results
from tests.living import containers_of
from tests.waiting import wait_until

AHEAD = 16
"""Results that a generator may be ahead of its reader."""


@pytest.fixture
def gate(cluster: Cluster, tmp_path: Path) -> Gate:
    return Gate(tmp_path)


@pytest.fixture
def app(cluster: Cluster) -> flexray.App:
    return flexray.App("inside")


async def passed(gate: Gate, name: object) -> int:
    """As `Gate.enter`, for an async input that lets others run meanwhile."""
    (gate.folder / f"in-{name}").touch()
    while not (gate.folder / "open").exists():  # noqa: ASYNC110  # Another process opens it.
        await asyncio.sleep(0.01)
    return os.getpid()


def cancelled_when(function: flexray.Function[..., Any], ready: Callable[[], object], *args: Any) -> float:
    """Seconds until a `.remote.aio`, cancelled as soon as `ready` says so, has ended."""

    async def main() -> float:
        call = asyncio.ensure_future(function.remote.aio(*args))
        await asyncio.to_thread(wait_until, ready)
        began = time.monotonic()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        return time.monotonic() - began

    return asyncio.run(main())


# Several inputs at once.


def test_sync_inputs_of_a_concurrent_function_run_at_once_on_threads(app: flexray.App, gate: Gate) -> None:
    @app.function(cpu=0, max_containers=1)
    @flexray.concurrent(max_inputs=4)
    def hold(name: object) -> tuple[int, int, str | None, str | None]:
        before = flexray.current_input_id()
        process = gate.enter(name)
        return process, threading.get_ident(), before, flexray.current_input_id()

    with app.run():
        under_way = calls(hold, range(4))
        wait_until(lambda: len(gate.entered) == 4)
        gate.open()
        outputs = results(under_way)
    assert len({process for process, *_ in outputs}) == 1
    assert len({thread for _, thread, *_ in outputs}) == 4
    assert all(before and before == after for *_, before, after in outputs)
    assert len({before for *_, before, _ in outputs}) == 4


def test_async_inputs_of_a_concurrent_function_run_at_once_on_one_loop(app: flexray.App, gate: Gate) -> None:
    @app.function(cpu=0, max_containers=1)
    @flexray.concurrent(max_inputs=50)
    async def hold(name: object) -> tuple[int, int, str | None, str | None]:
        before = flexray.current_input_id()
        process = await passed(gate, name)
        return process, threading.get_ident(), before, flexray.current_input_id()

    with app.run():
        outputs_to_come = in_background(lambda: list(hold.map(range(50))))
        wait_until(lambda: len(gate.entered) == 50)
        gate.open()
        outputs = outputs_to_come.result(30)
    assert len({(process, thread) for process, thread, *_ in outputs}) == 1
    assert all(before and before == after for *_, before, after in outputs)
    assert len({before for *_, before, _ in outputs}) == 50


def test_inputs_that_began_together_are_answered_as_they_end(app: flexray.App, gate: Gate) -> None:
    @app.function(cpu=0, max_containers=1)
    @flexray.concurrent(max_inputs=20)
    async def hold(name: int) -> int:
        if name % 2:
            await passed(gate, name)
        return name

    with app.run():
        names = iter(hold.map(range(20), order_outputs=False))
        assert {next(names) for _ in range(10)} == set(range(0, 20, 2))
        wait_until(lambda: len(gate.entered) == 10)
        gate.open()
        assert set(names) == set(range(1, 20, 2))


def test_large_results_of_inputs_that_end_together_all_arrive(app: flexray.App, gate: Gate) -> None:
    @app.function(cpu=0, max_containers=1)
    @flexray.concurrent(max_inputs=12)
    async def hold(name: int) -> tuple[int, bytes]:
        await passed(gate, name)
        return name, bytes([name]) * 400_000

    with app.run():
        outputs = in_background(lambda: list(hold.map(range(12))))
        wait_until(lambda: len(gate.entered) == 12)
        gate.open()
        assert outputs.result(30) == [(name, bytes([name]) * 400_000) for name in range(12)]


def test_a_container_never_runs_more_than_max_inputs(app: flexray.App, gate: Gate) -> None:
    @app.function(cpu=0, max_containers=1)
    @flexray.concurrent(max_inputs=2)
    async def hold(name: object) -> int:
        return await passed(gate, name)

    with app.run():
        under_way = calls(hold, range(3))
        wait_until(lambda: at(hold, num_running_inputs=2, backlog=1) and len(gate.entered) == 2)
        gate.open()
        assert len(set(results(under_way))) == 1


def test_target_inputs_size_the_pool_and_max_inputs_what_runs_until_then(
    app: flexray.App, gate: Gate
) -> None:
    @app.function(cpu=0, max_containers=2)
    @flexray.concurrent(max_inputs=4, target_inputs=2)
    def hold(name: object) -> int:
        return gate.enter(name)

    with app.run():
        at_target = calls(hold, [0, 1])
        wait_until(lambda: len(gate.entered) == 2)
        assert at(hold, num_total_runners=1)
        above = calls(hold, [2, 3])
        wait_until(lambda: len(gate.entered) == 4)
        wait_until(lambda: at(hold, num_total_runners=2))
        gate.open()
        results(at_target + above)


def test_where_no_container_can_be_added_all_of_max_inputs_run(app: flexray.App, gate: Gate) -> None:
    @app.function(cpu=0, max_containers=1)
    @flexray.concurrent(max_inputs=4, target_inputs=1)
    def hold(name: object) -> int:
        return gate.enter(name)

    with app.run():
        under_way = calls(hold, range(4))
        wait_until(lambda: len(gate.entered) == 4)
        gate.open()
        assert len(set(results(under_way))) == 1


def test_a_handle_with_concurrency_has_a_pool_of_its_own(app: flexray.App, gate: Gate) -> None:
    @app.function(cpu=0, max_containers=1)
    def hold(name: object) -> int:
        return gate.enter(name)

    with app.run():
        several = hold.with_concurrency(max_inputs=2)
        under_way = calls(several, range(2))
        wait_until(lambda: gate.entered == ["0", "1"])
        gate.open()
        assert len(set(results(under_way))) == 1
        assert hold.remote("alone") not in results(under_way)


def test_a_failure_among_concurrent_inputs_is_its_own_input_s(app: flexray.App) -> None:
    @app.function(cpu=0, max_containers=1)
    @flexray.concurrent(max_inputs=10)
    async def inverse(x: int) -> float:
        await asyncio.sleep(0)
        return 1 / x

    with app.run():
        outputs: list[Any] = list(inverse.map([2, 0, 4], return_exceptions=True))
    assert (outputs[0], outputs[2]) == (0.5, 0.25)
    assert isinstance(outputs[1], ZeroDivisionError)


def test_a_blocking_call_in_an_async_input_leaves_the_container_answering(
    cluster: Cluster, gate: Gate
) -> None:
    app = flexray.App("blocking")

    @app.function(cpu=0, max_containers=1)
    @flexray.concurrent(max_inputs=4)
    async def block(name: object) -> int:
        return gate.enter(name)

    with app.run():
        under_way = calls(block, ["x"])
        wait_until(lambda: gate.entered)
        [container_id] = containers_of("blocking")
        made = roster.find(container_id)
        assert made is not None
        container = made.handle
        assert ray.get(container.output.remote("nobody"), timeout=1) == []
        assert ray.get(container.reclaim.remote("nobody", 1), timeout=1) is None
        gate.open()
        results(under_way)


# Batches.


@pytest.fixture(scope="module")
def batching(cluster: Cluster) -> Iterator[None]:
    with batching_app.run():
        yield


batching_app = flexray.App("batching")


@batching_app.function(cpu=0, max_containers=1)
@flexray.batched(max_batch_size=4, wait_ms=60_000)
def sized(xs: list[int], ys: list[int] | int = 10, *, scale: list[int] | int = 1) -> list[Any]:
    """Waits for long: only full batches come back soon."""
    assert isinstance(ys, list)
    assert isinstance(scale, list)
    return [(len(xs), x, y, z) for x, y, z in zip(xs, ys, scale, strict=True)]


@batching_app.function(cpu=0, max_containers=1)
@flexray.batched(max_batch_size=4, wait_ms=300)
def odd(xs: list[Any]) -> Any:
    """What goes wrong is said by one of the inputs."""
    match next((x for x in xs if isinstance(x, str)), None):
        case "raises":
            raise LookupError(len(xs))
        case "short":
            return xs[:-1]
        case "none":
            return None
        case "tuple":
            return tuple(xs)
        case "generator":
            return (x for x in xs)
        case "lock":
            return [threading.Lock() if x == "lock" else x for x in xs]
        case _:
            return [(len(xs), x) for x in xs]


def test_a_full_batch_runs_at_once_with_scalars_in_and_out(batching: None) -> None:
    assert list[Any](sized.map(range(8))) == [(4, x, 10, 1) for x in range(8)]


def test_inputs_of_one_batch_may_give_their_arguments_differently(batching: None) -> None:
    outputs: list[Any] = results(
        [
            in_background(lambda: sized.remote(1)),  # type: ignore[arg-type]
            in_background(lambda: sized.remote(2, 20)),  # type: ignore[arg-type]
            in_background(lambda: sized.remote(xs=3, ys=30)),  # type: ignore[arg-type]
            in_background(lambda: sized.remote(4, scale=2)),  # type: ignore[arg-type]
        ]
    )
    assert outputs == [(4, 1, 10, 1), (4, 2, 20, 1), (4, 3, 30, 1), (4, 4, 10, 2)]


def test_a_batch_that_is_not_full_runs_after_its_wait(batching: None) -> None:
    assert odd.remote(1) == (1, 1)  # type: ignore[arg-type]
    assert list(odd.map([1, 2, 3])) == [(3, 1), (3, 2), (3, 3)]


def test_an_error_reaches_every_input_of_its_batch_and_no_other(batching: None) -> None:
    outputs: list[Any] = list(odd.map(["raises", 2, 3, 4, 5, 6, 7, 8], return_exceptions=True))
    errors = [output for output in outputs if isinstance(output, LookupError)]
    assert [error.args for error in errors] == [(4,)] * 4
    assert errors[0] is outputs[0]
    assert [size for size, _ in (output for output in outputs if isinstance(output, tuple))] == [4] * 4


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("short", "odd is batched and returned 3 results for 4 inputs"),
        ("none", "returned NoneType for 4 inputs"),
        ("tuple", "returned tuple for 4 inputs"),
        ("generator", "returned generator for 4 inputs"),
    ],
)
def test_a_batch_that_gives_no_list_of_its_length_fails_every_input(
    batching: None, kind: str, words: str
) -> None:
    outputs: list[Any] = list(odd.map([kind, 2, 3, 4], return_exceptions=True))
    assert len(outputs) == 4
    for error in outputs:
        assert isinstance(error, ExecutionError)
        assert words in str(error)
        assert error.hint


def test_a_result_that_does_not_pickle_fails_its_own_input_of_the_batch(batching: None) -> None:
    outputs: list[Any] = list(odd.map(["lock", 2, 3, 4], return_exceptions=True))
    assert isinstance(outputs[0], flexray.SerializationError)
    assert outputs[1:] == [2, 3, 4]


def test_arguments_that_do_not_fit_fail_their_own_input_of_the_batch(batching: None) -> None:
    outputs: list[Any] = list(odd.starmap([(1,), (1, 2), (3,), (4,)], return_exceptions=True))
    assert isinstance(outputs[1], TypeError)
    assert [x for _, x in (outputs[0], *outputs[2:])] == [1, 3, 4]


def test_async_functions_methods_and_handles_can_be_batched(app: flexray.App) -> None:
    @app.function(cpu=0, max_containers=1)
    @flexray.batched(max_batch_size=3, wait_ms=60_000)
    async def doubled(xs: list[int]) -> list[Any]:
        await asyncio.sleep(0)
        return [(len(xs), 2 * x) for x in xs]

    @app.cls(cpu=0, max_containers=1)
    class Doubler:
        factor: int = flexray.parameter(default=2)

        @flexray.batched(max_batch_size=3, wait_ms=60_000)
        @flexray.method()
        def times(self, xs: list[int]) -> list[Any]:
            return [(len(xs), self.factor * x) for x in xs]

    @app.function(cpu=0, max_containers=1)
    def lengths(xs: list[int]) -> list[int]:
        return [len(xs)] * len(xs)

    with app.run():
        expected = [(3, 0), (3, 2), (3, 4)]
        together = lengths.with_batching(max_batch_size=3, wait_ms=60_000)
        maps = [function.map(range(3)) for function in (doubled, Doubler().times, together)]
        outputs = results([in_background(lambda m=m: list(m)) for m in maps])  # type: ignore[misc]
        assert outputs == [expected, expected, [3, 3, 3]]


def test_a_concurrent_batched_function_runs_batches_at_once(app: flexray.App, gate: Gate) -> None:
    @app.function(cpu=0, max_containers=1)
    @flexray.concurrent(max_inputs=2)
    @flexray.batched(max_batch_size=2, wait_ms=60_000)
    def hold(names: list[int]) -> list[int]:
        return [gate.enter(min(names))] * len(names)

    with app.run():
        outputs = in_background(lambda: list(hold.map(range(4))))
        wait_until(lambda: len(gate.entered) == 2)
        gate.open()
        assert len(set(outputs.result(30))) == 1


# Results one by one.


@pytest.fixture(scope="module")
def streaming(cluster: Cluster) -> Iterator[None]:
    with streaming_app.run():
        yield


streaming_app = flexray.App("streaming")


@streaming_app.function(cpu=0)
def count(n: int) -> Iterator[int]:
    yield from range(n)


@streaming_app.function(cpu=0)
async def count_async(n: int) -> AsyncIterator[int]:
    for x in range(n):
        await asyncio.sleep(0)
        yield x


@streaming_app.cls(cpu=0)
class Counter:
    step: int = flexray.parameter(default=1)

    @flexray.method()
    def count(self, n: int) -> Iterator[int]:
        yield from range(0, n * self.step, self.step)

    @flexray.method()
    async def count_async(self, n: int) -> AsyncIterator[int]:
        for x in range(n):
            yield x * self.step

    @flexray.method()
    def one(self) -> int:
        return self.step


@streaming_app.function(cpu=0)
def produce(folder: Path, n: int) -> Iterator[int]:
    """Leaves the number of the newest result, and a mark when it is closed."""
    try:
        for x in range(n):
            (folder / "newest").write_text(str(x))
            yield x
    finally:
        (folder / "closed").touch()


@streaming_app.function(cpu=0)
async def produce_async(folder: Path, n: int) -> AsyncIterator[int]:
    try:
        for x in range(n):
            (folder / "newest").write_text(str(x))
            yield x
    finally:
        (folder / "closed").touch()


PRODUCERS = pytest.mark.parametrize("producer", [produce, produce_async], ids=["sync", "async"])


@streaming_app.function(cpu=0)
def fail_after(n: int) -> Iterator[int]:
    yield from range(n)
    raise LookupError("no more")


@streaming_app.function(cpu=0)
async def fail_after_async(n: int) -> AsyncIterator[int]:
    for x in range(n):
        yield x
    raise LookupError("no more")


@streaming_app.function(cpu=0)
def vanish_after(n: int, folder: Path) -> Iterator[int]:
    yield from range(n)
    Gate(folder).enter("end")
    os._exit(3)


@streaming_app.function(cpu=0)
def relayed(n: int) -> list[int]:
    return list(count.remote_gen(n)) + list(Counter(step=2).count.remote_gen(n))


@streaming_app.function(cpu=0)
async def squares(n: int) -> AsyncIterator[int]:
    async for x in count_async.remote_gen.aio(n):
        yield x * x


@pytest.mark.parametrize("counter", [count, count_async], ids=["sync", "async"])
def test_generators_give_all_their_results_in_order(streaming: None, counter: Any) -> None:
    assert list(counter.remote_gen(1000)) == list(range(1000))
    assert list(counter.remote_gen(0)) == []


def test_generators_have_asynchronous_forms(streaming: None) -> None:
    async def main() -> None:
        assert [x async for x in count.remote_gen.aio(100)] == list(range(100))
        assert [x async for x in count_async.remote_gen.aio(100)] == list(range(100))
        assert [x async for x in count.remote_gen(100)] == list(range(100))

    asyncio.run(main())


def test_methods_can_be_generators_beside_others_that_are_not(streaming: None) -> None:
    counter = Counter(step=3)
    assert list(counter.count.remote_gen(3)) == [0, 3, 6]
    assert list(counter.count_async.remote_gen(3)) == [0, 3, 6]
    assert counter.one.remote() == 3
    assert list(counter.count.local(3)) == [0, 3, 6]


@pytest.mark.parametrize("failing", [fail_after, fail_after_async], ids=["sync", "async"])
@pytest.mark.parametrize("n", [0, 3, 100])
def test_an_exception_in_the_middle_comes_after_the_results_before_it(
    streaming: None, failing: Any, n: int
) -> None:
    seen: list[int] = []
    with pytest.raises(LookupError, match="no more") as caught:
        read_into(seen, failing.remote_gen(n))
    assert seen == list(range(n))
    assert "in fail_after" in caught.value.__notes__[0]


def read_into(seen: list[int], outputs: Any) -> None:
    """Keep what was read before an exception."""
    for output in outputs:
        seen.append(output)  # noqa: PERF402  # `extend` would keep nothing.


@PRODUCERS
def test_leaving_the_loop_closes_the_generator_in_its_container(
    streaming: None, producer: Any, tmp_path: Path
) -> None:
    for x in producer.remote_gen(tmp_path, 1_000_000):
        if x == 3:
            break
    wait_until((tmp_path / "closed").exists, timeout_s=5)
    assert int((tmp_path / "newest").read_text()) <= 3 + AHEAD + 1


def test_leaving_an_asynchronous_loop_closes_the_generator_too(streaming: None, tmp_path: Path) -> None:
    async def main() -> None:
        outputs = produce.remote_gen.aio(tmp_path, 1_000_000)
        async for x in outputs:
            if x == 3:
                break
        await outputs.aclose()

    asyncio.run(main())
    wait_until((tmp_path / "closed").exists, timeout_s=5)


@PRODUCERS
def test_a_slow_reader_holds_the_generator_within_sixteen_results(
    streaming: None, producer: Any, tmp_path: Path
) -> None:
    def newest() -> int:
        return int((tmp_path / "newest").read_text() or -1)

    read = iter(producer.remote_gen(tmp_path, 200))
    assert next(read) == 0
    wait_until(lambda: newest() >= AHEAD - 1)
    for x in itertools.islice(read, 100):
        assert newest() <= x + 1 + AHEAD  # The last of them waits for room.
    assert list(read) == list(range(101, 200))


@pytest.mark.long
def test_waiting_for_a_slow_reader_counts_in_no_timeout(app: flexray.App) -> None:
    @app.function(cpu=0, timeout=1)
    def numbers(count: int) -> Iterator[int]:
        yield from range(count)

    @app.function(cpu=0, timeout=1)
    async def numbers_async(count: int) -> AsyncIterator[int]:
        for number in range(count):
            yield number

    with app.run():
        for function in (numbers, numbers_async):
            found = []
            for number in function.remote_gen(30):
                found.append(number)
                time.sleep(0.08)
            assert found == list(range(30))


def test_is_generator_says_that_a_wrapped_function_is_one(app: flexray.App) -> None:
    def passing_on(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any) -> Any:
            return function(*args)

        return wrapper

    @app.function(cpu=0, is_generator=True)
    @passing_on
    def numbers(count: int) -> Iterator[int]:
        yield from range(count)

    with app.run():
        assert list(numbers.remote_gen(3)) == [0, 1, 2]


def test_a_generator_can_be_read_inside_of_another_container(streaming: None) -> None:
    assert relayed.remote(20) == [*range(20), *range(0, 40, 2)]
    assert list(squares.remote_gen(20)) == [x * x for x in range(20)]


def test_a_generator_method_runs_once_whatever_the_retries_of_its_class(
    app: flexray.App, tmp_path: Path
) -> None:
    @app.cls(cpu=0, retries=flexray.Retries(max_retries=2, initial_delay=0))
    class Flaky:
        @flexray.method()
        def fail_after(self, n: int) -> Iterator[int]:
            (tmp_path / f"attempt-{flexray.current_attempt()}").touch()
            yield from range(n)
            raise LookupError("no more")

    seen: list[int] = []

    def read() -> None:
        for x in Flaky().fail_after.remote_gen(40):
            seen.append(x)
            time.sleep(0.01)

    with app.run():
        outcome = in_background(read)
        with pytest.raises(LookupError, match="no more"):
            outcome.result(3)
    assert seen == list(range(40))
    assert [path.name for path in tmp_path.iterdir()] == ["attempt-1"]


def test_a_generator_whose_container_dies_is_lost_after_what_was_read(
    streaming: None, tmp_path: Path
) -> None:
    seen: list[int] = []

    def read() -> None:
        read_into(seen, vanish_after.remote_gen(5, tmp_path))

    outcome = in_background(read)
    wait_until(lambda: len(seen) == 5)
    Gate(tmp_path).open()
    with pytest.raises(InputLostError):
        outcome.result(10)
    assert seen == list(range(5))


def test_forms_of_calls_that_do_not_fit_name_the_one_that_does(streaming: None) -> None:
    for use, words in (
        (lambda: count.remote(3), r"count\.remote_gen"),
        (lambda: list(count.map([3])), r"count\.remote_gen"),
        (lambda: list(relayed.remote_gen(3)), r"relayed\.remote\("),
        (lambda: Counter().count.remote(3), r"Counter\.count\.remote_gen"),
    ):
        with pytest.raises(InvalidError, match=words):
            use()


# Retries.


def test_a_failed_input_runs_again_by_itself_also_inside_of_maps(app: flexray.App) -> None:
    @app.function(cpu=0, max_containers=2, retries=flexray.Retries(max_retries=2, initial_delay=0))
    def succeed_at(attempt: int) -> int:
        if flexray.current_attempt() != attempt:
            raise LookupError(flexray.current_attempt())
        return attempt

    with app.run():
        assert succeed_at.remote(3) == 3
        assert list(succeed_at.map([1, 2, 3] * 10)) == [1, 2, 3] * 10
        outputs: list[Any] = list(succeed_at.map([1, 4, 2], return_exceptions=True))
    assert (outputs[0], outputs[2]) == (1, 2)
    assert isinstance(outputs[1], LookupError)
    assert outputs[1].args == (3,)


def test_retries_wait_longer_each_time_as_they_say(app: flexray.App, gate: Gate) -> None:
    @app.function(cpu=0, retries=flexray.Retries(max_retries=2, initial_delay=0.3, backoff_coefficient=2))
    async def fail() -> None:
        (gate.folder / f"{flexray.current_attempt()}").write_text(str(time.monotonic()))
        raise LookupError

    with app.run(), pytest.raises(LookupError):
        fail.remote()
    first, second, third = (float((gate.folder / name).read_text()) for name in "123")
    assert 0.3 <= second - first < 0.6
    assert 0.6 <= third - second < 1.2


def test_a_number_of_retries_waits_one_second(app: flexray.App, gate: Gate) -> None:
    @app.function(cpu=0, retries=1)
    def fail() -> None:
        (gate.folder / f"{flexray.current_attempt()}").write_text(str(time.monotonic()))
        raise LookupError

    with app.run(), pytest.raises(LookupError):
        fail.remote()
    first, second = (float((gate.folder / name).read_text()) for name in "12")
    assert 1 <= second - first < 1.5


def test_a_lost_input_runs_again_at_once_and_uncounted(app: flexray.App, gate: Gate) -> None:
    @app.function(cpu=0, max_containers=1)
    def vanish_once() -> int | None:
        mark = gate.folder / "vanished"
        if not mark.exists():
            mark.touch()
            os._exit(3)
        return os.getpid()

    with app.run():
        assert vanish_once.remote()


def test_an_input_that_runs_at_most_once_is_lost_with_its_container(app: flexray.App, gate: Gate) -> None:
    @app.function(cpu=0, at_most_once=True)
    def vanish(name: str) -> None:
        with (gate.folder / "runs").open("a") as file:
            file.write(f"{name}\n")
        os._exit(3)

    with app.run(), pytest.raises(InputLostError, match="the container died"):
        vanish.remote("x")
    assert (gate.folder / "runs").read_text() == "x\n"


# Timeouts.


def test_an_async_input_over_its_time_is_cancelled_and_its_container_goes_on(
    app: flexray.App, gate: Gate
) -> None:
    @app.function(cpu=0, max_containers=1, timeout=1)
    async def hold(name: str) -> int:
        if name == "late":
            try:
                await passed(gate, name)
            except asyncio.CancelledError:
                (gate.folder / "cancelled").touch()
                raise
        return os.getpid()

    with app.run():
        process = hold.remote("first")
        with pytest.raises(FunctionTimeoutError, match="hold ran longer than its timeout of 1 s"):
            hold.remote("late")
        assert (gate.folder / "cancelled").exists()
        assert hold.remote("next") == process


def test_a_sync_input_over_its_time_is_answered_and_its_container_replaced(
    app: flexray.App, gate: Gate
) -> None:
    @app.function(cpu=0, max_containers=1, timeout=1)
    def hold(name: str) -> int:
        return gate.enter(name) if name == "late" else os.getpid()

    with app.run():
        process = hold.remote("first")
        outputs: list[Any] = list(hold.map(["late", "next", "last"], return_exceptions=True))
        assert isinstance(outputs[0], FunctionTimeoutError)
        assert outputs[1] == outputs[2] != process


def test_waiting_in_the_queue_counts_in_no_timeout(app: flexray.App) -> None:
    @app.function(cpu=0, max_containers=1, timeout=1)
    def work(x: int) -> int:
        time.sleep(0.4)
        return x

    with app.run():
        assert list(work.map(range(3))) == [0, 1, 2]


def test_every_attempt_has_its_own_time(app: flexray.App, gate: Gate) -> None:
    @app.function(cpu=0, timeout=1, retries=flexray.Retries(max_retries=1, initial_delay=0))
    async def late_once() -> int | None:
        attempt = flexray.current_attempt()
        return attempt if attempt == 2 else await passed(gate, "first")

    with app.run():
        assert late_once.remote() == 2


def test_a_timeout_error_of_the_users_own_is_no_function_timeout(app: flexray.App) -> None:
    @app.function(cpu=0)
    async def work() -> None:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()

    with app.run(), pytest.raises(TimeoutError):
        work.remote()


def test_a_timeout_error_of_an_async_batch_is_no_function_timeout(app: flexray.App) -> None:
    @app.function(cpu=0)
    @flexray.batched(max_batch_size=2, wait_ms=0)
    async def work(xs: list[int]) -> list[int]:
        raise TimeoutError(xs)

    with app.run(), pytest.raises(TimeoutError):
        work.remote(1)  # type: ignore[arg-type]


def test_generators_over_their_time_end_after_what_they_gave(app: flexray.App, gate: Gate) -> None:
    @app.function(cpu=0, timeout=1)
    async def stuck_async() -> AsyncIterator[int]:
        yield 1
        yield await passed(gate, "async")

    @app.function(cpu=0, timeout=1)
    def stuck() -> Iterator[int]:
        yield 1
        yield gate.enter("sync")

    def read(function: Any) -> list[int]:
        seen: list[int] = []
        with pytest.raises(FunctionTimeoutError):
            read_into(seen, function.remote_gen())
        return seen

    with app.run():
        reads = [in_background(lambda f=f: read(f)) for f in (stuck_async, stuck)]  # type: ignore[misc]
        assert results(reads, timeout_s=15) == [[1], [1]]


def test_a_batch_over_its_time_fails_all_its_inputs(app: flexray.App, gate: Gate) -> None:
    @app.function(cpu=0, max_containers=1, timeout=1)
    @flexray.batched(max_batch_size=2, wait_ms=60_000)
    def hold(names: list[str]) -> list[int]:
        return [gate.enter("x") if "late" in names else os.getpid()] * 2

    with app.run():
        outputs: list[Any] = list(hold.map(["late", "too"], return_exceptions=True))
        assert [type(output) for output in outputs] == [FunctionTimeoutError] * 2
        assert len(set(hold.map(["a", "b"]))) == 1


# Cancellation.


def test_a_waiting_input_that_is_cancelled_never_runs(app: flexray.App, gate: Gate) -> None:
    @app.function(cpu=0, max_containers=1)
    def hold(name: str) -> int:
        return gate.enter(name)

    with app.run():
        under_way = calls(hold, ["runs"])
        wait_until(lambda: gate.entered)
        assert cancelled_when(hold, lambda: at(hold, backlog=1), "waits") < 0.1
        wait_until(lambda: at(hold, backlog=0))
        gate.open()
        results(under_way)
        assert hold.remote("next")
    assert gate.entered == ["next", "runs"]


def test_a_running_async_input_that_is_cancelled_sees_it_and_its_container_goes_on(
    app: flexray.App, gate: Gate
) -> None:
    @app.function(cpu=0, max_containers=1)
    @flexray.concurrent(max_inputs=2)
    async def hold(name: str) -> int:
        try:
            return await passed(gate, name)
        except asyncio.CancelledError:
            (gate.folder / f"cancelled-{name}").touch()
            raise

    with app.run():
        neighbour = calls(hold, ["neighbour"])
        assert cancelled_when(hold, lambda: "x" in gate.entered, "x") < 1
        wait_until((gate.folder / "cancelled-x").exists, timeout_s=1)
        gate.open()
        [process] = results(neighbour)
        assert hold.remote("next") == process
    assert not (gate.folder / "cancelled-neighbour").exists()


def test_a_running_sync_input_that_is_cancelled_is_answered_and_its_container_replaced(
    app: flexray.App, gate: Gate
) -> None:
    """Its other inputs finish, and it takes nothing new."""

    @app.function(cpu=0, max_containers=2)
    @flexray.concurrent(max_inputs=2)
    def hold(name: str) -> int:
        return os.getpid() if name == "next" else Gate(gate.folder).enter(name)

    with app.run():
        neighbour = calls(hold, ["neighbour"])
        wait_until(lambda: gate.entered)
        hold.update_autoscaler(max_containers=1)
        assert cancelled_when(hold, lambda: "x" in gate.entered, "x") < 1
        hold.update_autoscaler(max_containers=2)
        following = hold.remote("next")
        gate.open()
        assert results(neighbour) != [following]
        assert hold.remote("next") == following


def test_an_async_method_that_is_cancelled_sees_it_beside_sync_methods_too(
    app: flexray.App, gate: Gate
) -> None:
    @app.cls(cpu=0, max_containers=1)
    class Mixed:
        @flexray.method()
        def process(self) -> int:
            return os.getpid()

        @flexray.method()
        async def hold(self, name: str) -> int:
            try:
                return await passed(gate, name)
            except asyncio.CancelledError:
                (gate.folder / "cancelled").touch()
                raise

    with app.run():
        mixed: Any = Mixed()
        process = mixed.process.remote()
        assert cancelled_when(mixed.hold, lambda: gate.entered, "x") < 1
        wait_until((gate.folder / "cancelled").exists, timeout_s=1)
        assert mixed.process.remote() == process


def test_an_input_that_ignores_its_cancellation_is_answered_and_ended_by_its_time(
    app: flexray.App, gate: Gate
) -> None:
    @app.function(cpu=0, max_containers=2, timeout=1)
    @flexray.concurrent(max_inputs=2)
    async def ignore(name: str) -> int:
        (gate.folder / f"in-{name}").touch()
        while name != "next":
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                (gate.folder / f"ignored-{name}").touch()
        return os.getpid()

    with app.run():
        [late] = calls(ignore, ["late"])
        assert cancelled_when(ignore, lambda: "x" in gate.entered, "x") < 1
        wait_until((gate.folder / "ignored-x").exists, timeout_s=1)
        with pytest.raises(FunctionTimeoutError):
            late.result(10)
        assert (gate.folder / "ignored-late").exists()
        assert ignore.remote("next")


def test_a_cancelled_input_leaves_its_batch_alone(app: flexray.App, gate: Gate) -> None:
    @app.function(cpu=0, max_containers=1)
    @flexray.batched(max_batch_size=2, wait_ms=60_000)
    def hold(names: list[str]) -> list[int]:
        return [gate.enter("batch")] * len(names)

    with app.run():
        neighbour = calls(hold, ["neighbour"])
        assert cancelled_when(hold, lambda: gate.entered, "x") < 1
        gate.open()
        results(neighbour)


# Containers for one input.


def test_a_container_for_one_input_serves_no_second(app: flexray.App, gate: Gate) -> None:
    @app.cls(cpu=0, single_use_containers=True, max_containers=2)
    class Once:
        @flexray.method()
        def work(self, _: object = None) -> int:
            return os.getpid()

        @flexray.exit()
        def leave(self) -> None:
            (gate.folder / f"left-{os.getpid()}").touch()

    with app.run():
        processes = {Once().work.remote(), *Once().work.map(range(2))}
        assert len(processes) == 3
        wait_until(lambda: all((gate.folder / f"left-{process}").exists() for process in processes))


# Options of all these.


def nothing(x: int) -> int:
    return x


def numbers(n: int) -> Iterator[int]:
    yield n


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda _: flexray.concurrent(max_inputs=0), "max_inputs is 0.*1 to 1000"),
        (lambda _: flexray.concurrent(max_inputs=1001), "max_inputs is 1001"),
        (lambda _: flexray.concurrent(max_inputs=2, target_inputs=3), "target_inputs is 3.*max_inputs"),
        (lambda _: flexray.concurrent(nothing, max_inputs=2), "with parentheses"),
        (lambda _: flexray.batched(max_batch_size=0, wait_ms=1), "max_batch_size is 0.*1 to 1000"),
        (lambda _: flexray.batched(max_batch_size=1, wait_ms=600_001), "wait_ms is 600001.*0 to 600000"),
        (lambda app: flexray.concurrent(max_inputs=2)(app.function()(nothing)), "swap the decorators"),
        (lambda app: flexray.batched(max_batch_size=2, wait_ms=1)(app.function()(nothing)), "swap the"),
        (lambda app: app.function(retries=-1)(nothing), "nothing.*retries is -1.*0 or more"),
        (lambda app: app.function(retries=1.5)(nothing), "retries is 1.5"),
        (lambda _: flexray.Retries(max_retries=-1), "max_retries is -1"),
        (lambda _: flexray.Retries(max_retries=1, backoff_coefficient=0.5), "backoff_coefficient is 0.5"),
        (lambda _: flexray.Retries(max_retries=1, initial_delay=-1), "initial_delay is -1"),
        (lambda _: flexray.Retries(max_retries=1, max_delay=86_401), "max_delay is 86401"),
        (lambda app: app.function(retries=1)(numbers), "numbers.*retries.*a generator runs once"),
        (
            lambda app: app.function()(flexray.batched(max_batch_size=2, wait_ms=1)(numbers)),
            "numbers is batched and a generator",
        ),
        (
            lambda app: app.function()(flexray.batched(max_batch_size=2, wait_ms=1)(greedy)),
            r"greedy is batched and takes \*\*options.*one list for each",
        ),
        (lambda app: app.function(retries=1, at_most_once=True)(nothing), "retries.*at_most_once forbids"),
        (
            lambda app: app.function(single_use_containers=True)(flexray.concurrent(max_inputs=2)(several)),
            "several.*single_use_containers.*2 inputs at once",
        ),
        (lambda app: app.function()(nothing).with_concurrency(max_inputs=0), "max_inputs is 0"),
        (lambda app: app.function()(nothing).with_batching(max_batch_size=0, wait_ms=1), "max_batch_size"),
    ],
)
def test_an_option_out_of_bounds_or_place_is_refused_by_name(
    app: flexray.App, use: Callable[[flexray.App], Any], words: str
) -> None:
    with pytest.raises(InvalidError, match=f"(?s){words}") as caught:
        use(app)
    assert caught.value.hint


def several(x: int) -> int:
    return x


def greedy(xs: list[int], **options: list[int]) -> list[int]:
    return xs


LANGUAGE: ContextVar[str] = ContextVar("language", default="none")


def test_what_an_input_sets_in_its_context_ends_with_it(app: flexray.App) -> None:
    @app.function(cpu=0, max_containers=1)
    def speak(language: str) -> str:
        before = LANGUAGE.get()
        LANGUAGE.set(language)
        return before

    @app.function(cpu=0, max_containers=1)
    @flexray.batched(max_batch_size=2, wait_ms=0)
    def speak_together(languages: list[str]) -> list[str]:
        before = LANGUAGE.get()
        LANGUAGE.set(languages[0])
        return [before] * len(languages)

    with app.run():
        assert set(speak.map(["german", "dutch", "frisian"])) == {"none"}
        assert set(speak_together.map(["german", "dutch", "frisian"])) == {"none"}


def test_the_timeout_of_a_method_names_it(app: flexray.App) -> None:
    @app.cls(cpu=0, timeout=1)
    class Slow:
        @flexray.method()
        def sync(self) -> None:
            time.sleep(5)

        @flexray.method()
        async def later(self) -> None:
            await asyncio.sleep(5)

    with app.run():
        for method in (Slow().sync, Slow().later):
            with pytest.raises(FunctionTimeoutError, match=f"^{re.escape(method.name)} ran longer"):
                method.remote()


def test_inputs_of_a_container_for_one_at_a_time_run_on_one_thread(app: flexray.App) -> None:
    @app.function(cpu=0, max_containers=1)
    def threads(x: int) -> int:
        time.sleep(0.005)  # Long enough for a batch to be sent ahead of its turn.
        return sum(thread.name == "flexray-slot" for thread in threading.enumerate())

    with app.run():
        assert set(threads.map(range(100))) == {1}


@pytest.mark.parametrize(
    "single_use", [False, pytest.param(True, marks=pytest.mark.long)], ids=["shared", "single-use"]
)
def test_a_container_stays_until_the_last_result_is_read(app: flexray.App, single_use: bool) -> None:
    @app.function(cpu=0, scaledown_window=2, single_use_containers=single_use)
    def numbers(count: int) -> Iterator[int]:
        yield from range(count)

    with app.run():
        stream = iter(numbers.remote_gen(6))
        first = next(stream)
        read_at = time.monotonic() + 4  # Longer than the window.
        wait_until(lambda: time.monotonic() > read_at, timeout_s=10)
        assert [first, *stream] == list(range(6))


def test_leaving_the_loop_cancels_an_async_generator_where_it_waits(app: flexray.App, tmp_path: Path) -> None:
    closed = tmp_path / "closed"

    @app.function(cpu=0)
    async def waits() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.sleep(60)
        finally:
            closed.touch()

    with app.run():
        stream = iter(waits.remote_gen())
        assert next(stream) == 1
        stream.close()
        wait_until(closed.exists, timeout_s=5)


def test_a_decorator_of_the_users_decides_how_its_function_runs(app: flexray.App) -> None:
    def passing_on(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any) -> Any:
            return function(*args)

        return wrapper

    def listing(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any) -> Any:
            return list(function(*args))

        return wrapper

    @app.function(cpu=0)
    @passing_on
    async def later(value: int) -> int:
        await asyncio.sleep(0)
        return value + 1

    @app.function(cpu=0)
    @listing
    def numbers(count: int) -> Iterator[int]:
        yield from range(count)

    with app.run():
        assert later.remote(1) == 2
        assert numbers.remote(3) == [0, 1, 2]


def test_a_class_of_several_methods_is_not_batched() -> None:
    app = flexray.App("batched")

    @app.cls()
    class Two:
        @flexray.method()
        def one(self, value: int) -> int:
            return value

        @flexray.method()
        def other(self, value: int) -> int:
            return value

    with pytest.raises(InvalidError, match="class Two has 2 methods and is batched"):
        Two.with_batching(max_batch_size=2, wait_ms=10)
