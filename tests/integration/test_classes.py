"""Classes: one instance per container, one pool per set of parameters, and their hooks."""

# mypy takes a decorated class for the class itself, and so its methods for the user's own.
# mypy: disable-error-code="attr-defined, call-arg, arg-type"

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest
import ray

import flexray
from flexray.errors import ContainerStartError, InputCancelledError, InvalidError
from tests.integration.conftest import NAMESPACE, Cluster
from tests.integration.gates import Gate, calls, in_background, results
from tests.living import containers_of
from tests.waiting import wait_until

app = flexray.App("classes")


def note(diary: str, line: str) -> None:
    """Called in containers: leave a line for the test to read."""
    with Path(diary).open("a") as file:
        file.write(f"{line}\n")


def notes(diary: str) -> list[str]:
    path = Path(diary)
    return path.read_text().splitlines() if path.exists() else []


class Base:
    """Not decorated itself: what it declares is inherited."""

    size: int = flexray.parameter(default=3)
    version: str = flexray.parameter(default="base")

    @flexray.enter()
    def load_base(self) -> None:
        self.steps = ["base"]

    @flexray.enter()
    async def warm_base(self) -> None:
        await asyncio.sleep(0)
        self.steps.append("base, async")

    @flexray.method()
    def inherited(self) -> list[str]:
        return self.steps

    @flexray.method()
    def overridden(self) -> str:
        return "base"


@app.cls(cpu=0, max_containers=1)
class Model(Base):
    version: str = flexray.parameter(default="1")

    @flexray.enter()
    def load(self) -> None:
        self.steps.append("model")

    @flexray.method()
    def process(self) -> int:
        return os.getpid()

    @flexray.method()
    def described(self, x: int = 0, *, y: int = 0) -> tuple[str, int, int]:
        return self.version, self.size, x + y

    @flexray.method()
    async def described_async(self, x: int) -> tuple[str, int, int]:
        return self.version, self.size, x

    @flexray.method()
    def through_others(self, x: int) -> Any:
        other: Any = self.described
        return other.local(x), other(x), self.plain(x)

    @flexray.method()
    def overridden(self) -> str:
        return f"model, over {super().overridden()}"

    def plain(self, x: int) -> int:
        return -x


@app.cls(cpu=0)
class Typed:
    text: str = flexray.parameter()
    number: int = flexray.parameter(default=0)
    raw: bytes = flexray.parameter(default=b"")
    flag: bool = flexray.parameter(default=False)

    @flexray.method()
    def values(self) -> tuple[str, int, bytes, bool]:
        return self.text, self.number, self.raw, self.flag


@app.function(cpu=0)
def through_a_function(model: Any, x: int) -> Any:
    return model.described.remote(x), Model(version="9").described.remote(x), list(model.described.map([x]))


@pytest.fixture(scope="module")
def running(cluster: Cluster) -> Iterator[None]:
    with app.run():
        yield


@pytest.fixture
def diary(cluster: Cluster, tmp_path: Path) -> str:
    return str(tmp_path / "diary")


@pytest.fixture
def quick_to_give_up(cluster: Cluster) -> Iterator[None]:
    """Three failed starts, one right after the other, stand for the ten of minutes."""

    def hasten(controller: object) -> None:
        from flexray.core import scaling

        scaling.start_backoff_s = lambda _: 0.0  # type: ignore[assignment]
        scaling.GIVE_UP_AFTER = 3

    def restore(controller: object) -> None:
        from flexray.core import autoscaler, scaling

        scaling.start_backoff_s = autoscaler.start_backoff_s
        scaling.GIVE_UP_AFTER = autoscaler.GIVE_UP_AFTER

    with flexray.App("first").run():  # The controller starts with the first app.
        controller: Any = ray.get_actor("flexray:controller", namespace=NAMESPACE)
    ray.get(controller.__ray_call__.remote(hasten))
    yield
    ray.get(controller.__ray_call__.remote(restore))


# Enter and exit.


def test_enter_hooks_run_once_before_any_input_bases_first_sync_and_async(running: None) -> None:
    steps = ["base", "base, async", "model"]
    assert Model().inherited.remote() == steps
    assert list(Model().inherited.starmap([()] * 3)) == [steps] * 3


def test_exit_hooks_run_when_the_app_ends_derived_first_sync_and_async(diary: str) -> None:
    ending = flexray.App("ending")

    class Above:
        @flexray.exit()
        async def leave_above(self) -> None:
            await asyncio.sleep(0)
            note(diary, "above")

    @ending.cls(cpu=0)
    class Below(Above):
        @flexray.method()
        def work(self) -> None:
            note(diary, "work")

        @flexray.exit()
        def leave(self) -> None:
            note(diary, "below")

    with ending.run():
        Below().work.remote()
        assert notes(diary) == ["work"]
    assert notes(diary) == ["work", "below", "above"]


def test_exit_hooks_run_when_an_idle_container_goes(diary: str) -> None:
    shrinking = flexray.App("shrinking")

    @shrinking.cls(cpu=0, scaledown_window=2)
    class Leaving:
        @flexray.method()
        def work(self) -> None: ...

        @flexray.exit()
        def leave(self) -> None:
            note(diary, "bye")

    with shrinking.run():
        Leaving().work.remote()
        wait_until(lambda: notes(diary) == ["bye"], timeout_s=8)
    assert notes(diary) == ["bye"]


def test_exit_hooks_run_at_sigterm(diary: str) -> None:
    terminated = flexray.App("terminated")

    @terminated.cls(cpu=0)
    class Leaving:
        @flexray.method()
        def work(self) -> int:
            return os.getpid()

        @flexray.exit()
        def leave(self) -> None:
            note(diary, "bye")

    with terminated.run():
        process = Leaving().work.remote()
        os.kill(process, signal.SIGTERM)
        try:
            wait_until(lambda: notes(diary) == ["bye"], timeout_s=2)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


def test_an_exit_hook_that_fails_or_hangs_ends_with_its_grace(diary: str) -> None:
    stubborn = flexray.App("stubborn")

    class Stubborn:
        @flexray.enter()
        def shorten_grace(self) -> None:
            from flexray.runtime import container

            container.EXIT_GRACE_S = 0.5

        @flexray.method()
        def work(self) -> None: ...

    @stubborn.cls(cpu=0)
    class Hanging(Stubborn):
        @flexray.exit()
        def leave(self) -> None:
            note(diary, "hangs")
            wait_until(lambda: False, timeout_s=60)

    @stubborn.cls(cpu=0)
    class Failing(Stubborn):
        @flexray.exit()
        def leave(self) -> None:
            note(diary, "fails")
            raise ValueError("no way out")

    with stubborn.run():
        Hanging().work.remote()
        Failing().work.remote()
    wait_until(lambda: not containers_of("stubborn"), timeout_s=5)
    assert sorted(notes(diary)) == ["fails", "hangs"]


def test_an_enter_that_always_fails_tells_its_own_traceback_to_what_waits(quick_to_give_up: None) -> None:
    broken = flexray.App("broken")

    @broken.cls(cpu=0, max_containers=1)
    class Broken:
        @flexray.enter()
        def load(self) -> None:
            raise LookupError("no weights")

        @flexray.method()
        def work(self, x: int) -> int:
            return x

    with broken.run():
        outputs = list(Broken().work.map(range(3), return_exceptions=True))
    for error in outputs:
        assert isinstance(error, ContainerStartError)
        assert error.reason == "LookupError: no weights"
        assert "in load" in (error.remote_traceback or "")
        assert error.hint


def test_an_enter_that_fails_is_told_to_what_waits_while_it_is_tried_again() -> None:
    broken = flexray.App("broken")

    @broken.cls(cpu=0, max_containers=1)
    class Broken:
        @flexray.enter()
        def load(self) -> None:
            raise LookupError("no weights")

        @flexray.method()
        def work(self) -> None: ...

    with broken.run():
        under_way = in_background(Broken().work.remote)
        client = Broken().work._client()
        notice = wait_until(lambda: client.notice or "")
        assert re.fullmatch("has had [12] of 10 failed starts, the last by LookupError: no weights", notice)
    with pytest.raises(InputCancelledError):
        under_way.result(5)


def test_an_enter_that_fails_at_times_fails_no_input(diary: str) -> None:
    moody = flexray.App("moody")

    @moody.cls(cpu=0, max_containers=1)
    class Moody:
        @flexray.enter()
        async def load(self) -> None:
            note(diary, "tried")
            if len(notes(diary)) == 1:
                raise ConnectionError("not this time")

        @flexray.method()
        def work(self, x: int) -> int:
            return x

    with moody.run():
        assert list(Moody().work.map(range(3))) == [0, 1, 2]
    assert notes(diary) == ["tried", "tried"]


def test_a_start_that_takes_too_long_is_ended_and_another_one_made(diary: str) -> None:
    slow = flexray.App("slow")

    @slow.cls(cpu=0, max_containers=1, startup_timeout=3)
    class Slow:
        @flexray.enter()
        def load(self) -> None:
            note(diary, "tried")
            wait_until(lambda: len(notes(diary)) > 1, timeout_s=60)

        @flexray.method()
        def work(self, x: int) -> int:
            return x

    with slow.run():
        assert Slow().work.remote(1) == 1
    assert notes(diary) == ["tried", "tried"]


# Sets of parameters.


def test_every_set_of_parameters_is_a_pool_after_defaults_shared_by_all_methods(running: None) -> None:
    first = Model().process.remote()
    assert Model(version="1").process.remote() == first
    assert Model(size=3, version="1").process.remote() == first
    assert Model(version="2").process.remote() != first
    model = Model(version="2")
    assert model.described.remote(1) == ("2", 3, 1)
    assert model.get_current_stats().num_total_runners == 1


def test_parameters_of_every_type_arrive_as_they_were_given(running: None) -> None:
    assert Typed(text="a", number=7, raw=b"\x00", flag=True).values.remote() == ("a", 7, b"\x00", True)
    assert Typed(text="a", number=7, raw=b"\x00", flag=True).text == "a"


def test_an_update_of_an_instance_retunes_its_set_of_parameters_alone(running: None) -> None:
    """The guide: `obj = MyClass(model_version="3.5"); obj.update_autoscaler(buffer_containers=2)`."""
    obj = Model(version="3.5")
    assert obj.update_autoscaler(buffer_containers=2).buffer_containers == 2
    assert asyncio.run(obj.update_autoscaler.aio(scaledown_window=30)).scaledown_window == 30
    assert Model(version="3.5").get_current_stats().settings.buffer_containers == 2
    assert Model(version="3.6").get_current_stats().settings.buffer_containers == 0
    assert Model().get_current_stats().settings.scaledown_window == 60


def test_an_update_of_an_instance_starts_containers_of_its_set_alone(running: None) -> None:
    obj, other = Model(version="warm"), Model(version="cold")
    obj.update_autoscaler(min_containers=1)
    wait_until(lambda: obj.get_current_stats().input_headroom == 1)
    assert other.get_current_stats().num_total_runners == 0


def test_other_options_of_a_class_have_pools_of_their_own(running: None) -> None:
    variant = Model.with_options(max_containers=2, scaledown_window=30)
    assert variant().described.remote(1) == ("1", 3, 1)
    assert variant().get_current_stats().settings.max_containers == 2
    assert variant().process.remote() != Model().process.remote()
    again = Model.with_options(max_containers=2, scaledown_window=30)
    assert again(version="1").process.remote() == variant().process.remote()


def test_a_class_can_run_several_inputs_at_once(cluster: Cluster, tmp_path: Path) -> None:
    crowded = flexray.App("crowded")
    gate = Gate(tmp_path)

    @crowded.cls(cpu=0, max_containers=1)
    @flexray.concurrent(max_inputs=2)
    class Crowded:
        @flexray.method()
        def hold(self, name: str) -> int:
            return gate.enter(name)

        @flexray.method()
        async def other(self, name: str) -> int:
            return gate.enter(name)

    with crowded.run():
        obj = Crowded()
        methods: tuple[Any, Any] = obj.hold, obj.other
        under_way = calls(methods[0], ["a"]) + calls(methods[1], ["b"])
        wait_until(lambda: gate.entered == ["a", "b"])
        gate.open()
        assert len(set(results(under_way))) == 1


# Methods.


def test_methods_have_every_form_of_a_call(running: None) -> None:
    model = Model(version="2")
    assert model.described.remote(1, y=2) == ("2", 3, 3)
    assert list(model.described.map(range(3))) == [("2", 3, x) for x in range(3)]
    assert list(model.described.starmap([(1,), (2,)], kwargs={"y": 1})) == [("2", 3, 2), ("2", 3, 3)]
    assert model.described.for_each([1, 2]) is None
    assert model.described_async.remote(5) == ("2", 3, 5)
    assert asyncio.run(model.described.remote.aio(4)) == ("2", 3, 4)


def test_methods_hooks_and_parameters_are_inherited(running: None) -> None:
    model = Model(size=8)
    assert model.inherited.remote() == ["base", "base, async", "model"]
    assert model.overridden.remote() == "model, over base"
    assert model.described.remote() == ("1", 8, 0)


def test_methods_of_one_container_call_each_other(running: None) -> None:
    assert Model().through_others.remote(2) == (("1", 3, 2), ("1", 3, 2), -2)


def test_instances_are_used_inside_of_containers_and_travel_there(running: None) -> None:
    assert through_a_function.remote(Model(version="2"), 5) == (("2", 3, 5), ("9", 3, 5), [("2", 3, 5)])


def test_local_runs_enter_once_in_this_process() -> None:
    model = Model(version="here")
    assert model.described.local(1) == ("here", 3, 1)
    assert model.process.local() == os.getpid()
    assert model.inherited.local() is model.inherited.local()
    assert model.inherited.local() == ["base", "base, async", "model"]
    assert model.through_others.local(2) == (("here", 3, 2), ("here", 3, 2), -2)
    assert asyncio.run(model.described_async.local(1)) == ("here", 3, 1)
    assert Model().inherited.local() is not model.inherited.local()


def test_a_method_that_fails_runs_again_as_its_class_says(cluster: Cluster) -> None:
    again = flexray.App("again")

    @again.cls(cpu=0, retries=flexray.Retries(max_retries=2, initial_delay=0))
    class Flaky:
        @flexray.method()
        def work(self, good: int) -> int | None:
            attempt = flexray.current_attempt()
            if attempt != good:
                raise ValueError(attempt)
            return attempt

    with again.run():
        assert Flaky().work.remote(3) == 3
        assert list(Flaky().work.map([1, 2, 3])) == [1, 2, 3]
        with pytest.raises(ValueError, match="3"):
            Flaky().work.remote(4)


def test_a_class_may_name_itself_and_be_named_by_what_it_calls() -> None:
    family = flexray.App("family")

    @family.cls(cpu=0)
    class Tree:
        LIMIT = 2

        @staticmethod
        def bounded(n: int) -> int:
            return min(n, Tree.LIMIT)

        @flexray.method()
        def total(self, n: int) -> int:
            assert isinstance(self, Tree)
            n = Tree.bounded(n)
            return n + (sum(Tree().total.map([n - 1])) if n else 0)

        @flexray.method()
        def of_other(self, n: int) -> int:
            return relayed.remote(n)

    @family.function(cpu=0)
    def relayed(n: int) -> int:
        return Tree().total.remote(n)

    assert (Tree.LIMIT, Tree.bounded(5)) == (2, 2)
    with family.run():
        assert Tree().total.remote(7) == 3
        assert Tree().of_other.remote(1) == 1


def test_a_method_runs_others_of_its_instance_elsewhere() -> None:
    spread = flexray.App("spread")

    @spread.cls(cpu=0)
    class Worker:
        by: int = flexray.parameter(default=1)

        @flexray.method()
        def once(self, x: int) -> int:
            return self.by * x

        @flexray.method()
        def all(self, xs: list[int]) -> list[int]:
            return [self.once.remote(xs[0]), *self.once.map(xs[1:]), self.once(7), self.once.spawn(8).get()]

    with spread.run():
        assert Worker(by=3).all.remote([1, 2, 3]) == [3, 6, 9, 21, 24]


def test_hooks_and_inputs_of_a_plain_class_share_their_thread() -> None:
    threads = flexray.App("threads")

    @threads.cls(cpu=0)
    class Database:
        @flexray.enter()
        def open(self) -> None:
            self.connection = sqlite3.connect(":memory:")  # Which only its own thread may use.

        @flexray.method()
        def one(self) -> int:
            return int(self.connection.execute("SELECT 1").fetchone()[0])

        @flexray.exit()
        def close(self) -> None:
            self.connection.close()

    with threads.run():
        assert [Database().one.remote() for _ in range(3)] == [1, 1, 1]


def test_a_derived_class_may_fix_a_parameter() -> None:
    fixing = flexray.App("fixing")

    @fixing.cls(cpu=0)
    class Fixed(Base):
        size: int = 7

        @flexray.method()
        def sizes(self) -> int:
            return self.size

    with pytest.raises(InvalidError, match="no parameter 'size'"):
        Fixed(size=3)
    assert Fixed().sizes.local() == 7


# Wrong uses.


def undecorated() -> None: ...


class Hollow:
    def plain(self) -> None: ...


class Initialised:
    def __init__(self) -> None:
        self.x = 1

    @flexray.method()
    def work(self) -> None: ...


class Fractional:
    share: float = flexray.parameter(default=0.5)

    @flexray.method()
    def work(self) -> None: ...


class Unannotated:
    share = flexray.parameter(default=1)

    @flexray.method()
    def work(self) -> None: ...


class Mistaken:
    size: int = flexray.parameter(default="3")

    @flexray.method()
    def work(self) -> None: ...


class HalfBatched:
    @flexray.method()
    @flexray.batched(max_batch_size=2, wait_ms=0)
    def work(self, xs: list[int]) -> list[int]:
        return xs

    @flexray.method()
    def other(self) -> None: ...


class Constructed:
    def __new__(cls) -> Self:
        return super().__new__(cls)

    @flexray.method()
    def work(self) -> None: ...


class Abstract(ABC):
    @flexray.method()
    def work(self) -> None:
        self.missing()

    @abstractmethod
    def missing(self) -> None: ...


class Demanding:
    @flexray.enter()
    def load(self, path: str) -> None: ...

    @flexray.method()
    def work(self) -> None: ...


class Yielding:
    @flexray.exit()
    def close(self) -> Iterator[None]:
        yield

    @flexray.method()
    def work(self) -> None: ...


class BatchedGenerator:
    @flexray.batched(max_batch_size=2, wait_ms=0)
    def work(self, xs: list[int]) -> Iterator[int]:
        yield from xs


class Static:
    @staticmethod
    @flexray.method()
    def work(x: int) -> int:
        return x


class ByPosition:
    @flexray.batched(max_batch_size=2, wait_ms=0)
    def work(self, xs: list[int], /) -> list[int]:
        return xs


class Greedy:
    @flexray.batched(max_batch_size=2, wait_ms=0)
    def work(self, *xs: list[int]) -> list[int]:
        return xs[0]


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda: Model(versoin="2"), "no parameter 'versoin'.*did you mean version"),
        (lambda: Model(colour="red"), "no parameter 'colour'.*its parameters are size: int, version: str"),
        (lambda: Model("2"), "by keyword and got '2'"),
        (lambda: Model(version=2), "'version' of Model is 2, of type int.*must be of type str"),
        (lambda: Model(size=True), "'size' of Model is True, of type bool.*must be of type int"),
        (lambda: Model(size=None), "'size' of Model is None"),
        (Typed, "Typed needs its parameter 'text'"),
        (lambda: Typed(text="x" * 16 * 1024), "bytes, over 16,384"),
        (lambda: Typed(text="\N{SNOWMAN}" * 6 * 1024), "bytes, over 16,384"),
        (lambda: Model.described.remote(1), r"on the class itself.*instantiate it first: Model\(\)"),
        (lambda: Model.described.map([1]), "instantiate it first"),
        (lambda: Model.described(1), "instantiate it first"),
        (lambda: Model().described.update_autoscaler, r"use Model\(\.\.\.\)\.update_autoscaler"),
        (lambda: Model().described.with_options(max_containers=1), r"use Model\.with_options"),
        (lambda: Model().described.remote_gen(1), r"use Model\.described\.remote"),
        (lambda: Model.with_options(name="other"), "keeps its name"),
        (lambda: Model.with_options(max_containers=0), "max_containers is 0"),
    ],
)
def test_a_wrong_use_of_a_class_is_refused_by_name(running: None, use: Callable[[], Any], words: str) -> None:
    with pytest.raises(InvalidError, match=f"(?s){words}") as caught:
        use()
    assert caught.value.hint


@pytest.mark.parametrize(
    ("decorated", "words"),
    [
        (Hollow, r"Hollow has no method.*@flexray\.method\(\)"),
        (Initialised, r"Initialised has an __init__ of its own.*parameter\(\).*enter\(\)"),
        (Fractional, "'share' of Fractional has the annotation float.*one of str, int, bytes, bool"),
        (Unannotated, "'share' of Unannotated has no annotation"),
        (Mistaken, "default of parameter 'size' of Mistaken is '3', of type str"),
        (HalfBatched, "HalfBatched has 2 methods, and work is batched"),
        (Constructed, r"Constructed has a __new__ of its own.*enter\(\)"),
        (Abstract, "Abstract is abstract: it lacks missing"),
        (Demanding, r"enter hook load of class Demanding takes arguments.*parameter\(\)"),
        (Yielding, "exit hook close of class Yielding is a generator"),
        (BatchedGenerator, r"BatchedGenerator\.work is batched and a generator"),
        (Static, "Static.work is a staticmethod above its @flexray decorator"),
        (ByPosition, r"ByPosition\.work is batched and takes xs: .* by position only"),
        (Greedy, r"Greedy\.work is batched and takes \*xs"),
        (undecorated, r"undecorated, which is not a class.*@app\.function"),
    ],
)
def test_what_cannot_be_a_class_is_refused_at_decoration(decorated: Any, words: str) -> None:
    with pytest.raises(InvalidError, match=f"(?s){words}") as caught:
        flexray.App("wrong").cls()(decorated)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("decorate", "words"),
    [
        (lambda: flexray.App("wrong").cls(Hollow), r"@app\.cls\(\) with parentheses"),
        (lambda: flexray.App("wrong").cls(max_container=2)(Base), "did you mean max_containers"),
        (lambda: flexray.App("wrong").function()(Hollow), r"which is a class.*@app\.cls\(\)"),
        (lambda: flexray.method(undecorated), r"@flexray\.method\(\.\.\.\) with parentheses"),
        (lambda: flexray.enter(undecorated), r"@flexray\.enter\(\.\.\.\) with parentheses"),
        (lambda: flexray.exit(undecorated), r"@flexray\.exit\(\.\.\.\) with parentheses"),
        (lambda: flexray.concurrent(max_inputs=2)(Model), r"swap the decorators.*below"),
        (lambda: flexray.batched(max_batch_size=2, wait_ms=0)(Model), r"swap the decorators.*below"),
    ],
)
def test_a_wrong_decorator_is_refused_by_name(decorate: Callable[[], Any], words: str) -> None:
    with pytest.raises(InvalidError, match=f"(?s){words}") as caught:
        decorate()
    assert caught.value.hint


def test_calling_a_method_of_a_handle_directly_names_remote_and_local() -> None:
    with pytest.raises(TypeError, match=r"Model\.described\.remote.*Model\.described\.local"):
        Model().described(1)


def test_an_unknown_method_is_an_attribute_error_that_names_the_similar_one() -> None:
    with pytest.raises(AttributeError, match=r"'describe'.*did you mean described"):
        Model().describe  # noqa: B018
    with pytest.raises(AttributeError, match=r"one instance's pool: use Model\(\.\.\.\)\.update_autoscaler"):
        Model.update_autoscaler  # noqa: B018
    with pytest.raises(AttributeError, match="no method 'plain'"):
        Model().plain  # noqa: B018


def test_a_decorated_class_may_be_the_base_of_another(running: None) -> None:
    class Later(Model):  # type: ignore[misc, valid-type]  # The decorated class is no class any more.
        @flexray.method()
        def own(self) -> str:
            return f"own {self.version}"

    later = flexray.App("later")
    decorated = later.cls(cpu=0)(Later)
    with later.run():
        assert decorated(version="7").own.remote() == "own 7"
        assert decorated().inherited.remote() == ["base", "base, async", "model"]


@pytest.mark.parametrize("name", ["update_autoscaler", "get_current_stats"])
def test_methods_with_names_that_handles_have_are_refused(name: str) -> None:
    taken = type("Taken", (), {name: flexray.method()(identity_of)})
    with pytest.raises(InvalidError, match=f"class Taken has a method '{name}'"):
        flexray.App("taken").cls()(taken)


def identity_of(self: object) -> int:
    return id(self)


def test_a_look_at_a_parameter_set_creates_nothing(running: None) -> None:
    stats = Model(version="only looked at").get_current_stats()
    assert (stats.backlog, stats.num_total_runners, stats.settings) == (0, 0, Model.config.autoscaler)
    controller: Any = ray.get_actor("flexray:controller", namespace=NAMESPACE)
    before = ray.get(controller.__ray_call__.remote(pools_of))
    Model(version="looked at, too").get_current_stats()
    assert ray.get(controller.__ray_call__.remote(pools_of)) == before


def pools_of(controller: Any) -> list[str]:
    return sorted(controller.behind._pools)
