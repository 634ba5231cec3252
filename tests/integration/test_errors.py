"""What is wrong is said in FlexRay's words, fails its own input, and loses nothing else."""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import flexray
from flexray.errors import (
    ContainerStartError,
    DeserializationError,
    Error,
    ExecutionError,
    InputLostError,
    InvalidError,
    SerializationError,
)
from tests.integration.conftest import Cluster

app = flexray.App("errors")


class Odd(Exception):
    """Its constructor takes other arguments than it passes on."""

    def __init__(self, code: int, *, detail: str) -> None:
        super().__init__(f"code {code}")
        self.code = code
        self.detail = detail


class Locked(Exception):
    """Holds what cannot be pickled."""

    def __init__(self) -> None:
        super().__init__("locked")
        self.lock = threading.Lock()


class Unreadable:
    """Packs well and fails to unpack."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _refuse_to_unpack, ()


def _refuse_to_unpack() -> None:
    raise RuntimeError("made of smoke")


def recurse(depth: int) -> int:
    return recurse(depth + 1)


BAD_INPUTS: dict[str, Callable[[], Any]] = {}


def bad(function: Callable[[], Any]) -> Callable[[], Any]:
    BAD_INPUTS[function.__name__] = function
    return function


@bad
def raises() -> None:
    try:
        dict[str, int]()["cause"]
    except KeyError as error:
        raise ValueError("effect", 7) from error


@bad
def raises_oddly() -> None:
    raise Odd(3, detail="more")


@bad
def raises_what_does_not_pickle() -> None:
    raise Locked


@bad
def exits() -> None:
    sys.exit("early")


@bad
def interrupts() -> None:
    raise KeyboardInterrupt


@bad
def recurses() -> None:
    recurse(0)


@bad
def returns_a_lock() -> Any:
    return threading.Lock()


@bad
def returns_smoke() -> Any:
    return Unreadable()


@bad
def vanishes() -> None:
    os._exit(3)


@bad
def crashes() -> None:
    ctypes.string_at(0)


@app.function(cpu=0, max_containers=2)
def run(kind: Any) -> Any:
    return BAD_INPUTS[kind]() if isinstance(kind, str) else kind * 10


@app.function(cpu=0, max_containers=4)
def identity(x: Any) -> Any:
    return x


async def _stray(kind: str) -> int:
    async def leave() -> None:
        sys.exit("stray")

    if kind != "none":
        task = asyncio.create_task(leave())
        await asyncio.sleep(0)  # The task leaves the loop here.
        if kind == "awaited":
            await task
    return os.getpid()


stray: flexray.Function[[str], Any] = app.function(cpu=0, name="stray", max_containers=1)(_stray)


@pytest.fixture(scope="module")
def running(cluster: Cluster) -> Iterator[None]:
    with app.run():
        yield


# Options and decoration.


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_containers": 0}, ["resize", "max_containers is 0", "1 or more", "hint:"]),
        ({"min_containers": -1}, ["min_containers is -1", "0 or more"]),
        ({"min_containers": 3, "max_containers": 2}, ["min_containers is 3", "max_containers, which is 2"]),
        ({"scaledown_window": 1}, ["scaledown_window is 1", "2 to 3600"]),
        ({"buffer_containers": 1.5}, ["buffer_containers is 1.5", "whole number"]),
        ({"timeout": 0}, ["timeout is 0", "1 to 86400"]),
        ({"gpu": "A100:x"}, ["gpu is 'A100:x'", "hint:"]),
        ({"gpu": "A100", "num_gpus": 1}, ["num_gpus", "gpu is given too"]),
        ({"max_container": 2}, ["max_container is not an option", "did you mean max_containers?"]),
        ({"shoe_size": 2}, ["shoe_size is not an option", "the options are"]),
        ({"keep_warm": 2}, ["keep_warm is not an option", "now called min_containers"]),
        ({"concurrency_limit": 2}, ["now called max_containers"]),
        ({"container_idle_timeout": 2}, ["now called scaledown_window"]),
        ({"allow_concurrent_inputs": 2}, ["now called @flexray.concurrent"]),
        ({"name": "no spaces"}, ["'no spaces'", "1 to 64"]),
    ],
)
def test_a_wrong_option_is_refused_at_decoration(options: dict[str, Any], words: list[str]) -> None:
    def resize() -> None: ...

    with pytest.raises(InvalidError) as caught:
        flexray.App("options").function(**options)(resize)
    for word in words:
        assert word in str(caught.value)


def test_what_cannot_be_a_function_is_refused_at_decoration() -> None:
    decorate = flexray.App("decorating").function()

    class Model: ...

    for thing, words in (
        (Model, "which is a class"),
        (3, "not a function but int"),
        (identity, "decorated already"),
    ):
        with pytest.raises(InvalidError, match=words):
            decorate(thing)  # type: ignore[arg-type]
    with pytest.raises(InvalidError, match="with parentheses"):
        flexray.App("decorating").function(Model)


def test_a_name_of_an_app_is_checked() -> None:
    with pytest.raises(InvalidError, match="the name of the app"):
        flexray.App("my app")


def test_a_function_that_does_not_pickle_names_the_variable_when_the_app_starts(cluster: Cluster) -> None:
    lock = threading.Lock()
    locking = flexray.App("locking")

    @locking.function(cpu=0)
    def guarded() -> None:
        with lock:
            pass

    with pytest.raises(SerializationError) as caught, locking.run():
        pass
    assert "guarded" in str(caught.value)
    assert "lock" in str(caught.value)
    assert caught.value.hint


def test_a_function_whose_module_containers_lack_cannot_start(
    running: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "site-packages"
    installed.mkdir()
    (installed / "only_here.py").write_text("def value(x):\n    return x\n")
    monkeypatch.syspath_prepend(str(installed))
    import only_here  # type: ignore[import-not-found]

    lacking = flexray.App("lacking")
    function = lacking.function(cpu=0)(only_here.value)
    fine = lacking.function(cpu=0, name="fine")(lambda x: x)
    with lacking.run():
        with pytest.raises(ContainerStartError) as caught:
            function.remote(1)
        assert "only_here" in str(caught.value)
        assert caught.value.hint
        outputs = list(function.map(range(3), return_exceptions=True))
        assert [type(output) for output in outputs] == [ContainerStartError] * 3
        assert fine.remote(1) == 1


def test_an_argument_whose_module_containers_lack_fails_its_own_input(
    running: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "site-packages"
    installed.mkdir()
    (installed / "only_mine.py").write_text("class Thing: pass\n")
    monkeypatch.syspath_prepend(str(installed))
    import only_mine  # type: ignore[import-not-found]

    outputs = list(identity.map([1, only_mine.Thing(), 3], return_exceptions=True))
    assert (outputs[0], outputs[2]) == (1, 3)
    assert isinstance(outputs[1], DeserializationError)
    assert "only_mine" in str(outputs[1])
    assert outputs[1].hint


# Inputs that go wrong, among others that do not.


def outcome_among_neighbours(kind: str) -> BaseException:
    """Runs the bad input in the middle of good ones; all of these must come out right."""
    inputs: list[Any] = [1, 2, 3, kind, 4, 5, 6]
    outputs = list(run.map(inputs, return_exceptions=True))
    failed = outputs.pop(3)
    assert outputs == [10, 20, 30, 40, 50, 60]
    assert isinstance(failed, BaseException)
    return failed


def test_an_exception_comes_back_as_itself_with_cause_and_remote_traceback(running: None) -> None:
    error = outcome_among_neighbours("raises")
    assert type(error) is ValueError
    assert error.args == ("effect", 7)
    assert isinstance(error.__cause__, KeyError)
    assert "in raises" in error.__notes__[0]
    with pytest.raises(ValueError, match="effect"):
        run.remote("raises")


def test_an_exception_with_an_odd_constructor_comes_back_as_itself(running: None) -> None:
    error = outcome_among_neighbours("raises_oddly")
    assert type(error) is Odd
    assert (str(error), error.code, error.detail) == ("code 3", 3, "more")


def test_an_exception_that_does_not_pickle_is_told_in_words(running: None) -> None:
    error = outcome_among_neighbours("raises_what_does_not_pickle")
    assert isinstance(error, ExecutionError)
    assert "Locked: locked" in str(error)
    assert "in raises_what_does_not_pickle" in str(error)


def test_sys_exit_is_the_failure_of_its_input(running: None) -> None:
    error = outcome_among_neighbours("exits")
    assert isinstance(error, ExecutionError)
    assert "sys.exit(early)" in str(error)


def test_sys_exit_in_a_task_that_an_async_input_started_disturbs_no_other_input(running: None) -> None:
    assert stray.remote("ignored") == stray.remote("none")
    error = next(iter(stray.map(["awaited"], return_exceptions=True)))
    assert isinstance(error, ExecutionError)
    assert "sys.exit(stray)" in str(error)
    kinds = ["none", "ignored"] * 20
    assert set(stray.map(kinds)) == {stray.remote("none")}  # One container, which outlived them all.


def test_keyboard_interrupt_in_a_container_is_the_failure_of_its_input(running: None) -> None:
    error = outcome_among_neighbours("interrupts")
    assert isinstance(error, ExecutionError)
    assert "KeyboardInterrupt" in str(error)


def test_endless_recursion_is_the_failure_of_its_input(running: None) -> None:
    assert isinstance(outcome_among_neighbours("recurses"), RecursionError)


def test_a_result_that_does_not_pickle_names_its_type(running: None) -> None:
    error = outcome_among_neighbours("returns_a_lock")
    assert isinstance(error, SerializationError)
    assert "the result, of type _thread.lock" in str(error)
    assert error.hint


def test_a_result_that_does_not_unpickle_fails_its_own_input(running: None) -> None:
    error = outcome_among_neighbours("returns_smoke")
    assert isinstance(error, DeserializationError)
    assert "made of smoke" in str(error)
    assert error.hint


@pytest.mark.parametrize(("kind", "words"), [("vanishes", "exit"), ("crashes", "")])
def test_an_input_that_ends_its_container_is_lost_alone(running: None, kind: str, words: str) -> None:
    error = outcome_among_neighbours(kind)
    assert isinstance(error, InputLostError)
    assert "3 containers died one after another" in str(error)
    assert words in error.cause
    assert error.hint


def test_an_argument_that_does_not_pickle_names_itself_and_its_type(running: None) -> None:
    with pytest.raises(SerializationError, match=r"argument 1, of type _thread\.lock"):
        identity.remote(threading.Lock())
    with pytest.raises(SerializationError, match="argument 'x'"):
        identity.remote(x=threading.Lock())
    outputs = list(identity.map([1, threading.Lock(), 3], return_exceptions=True))
    assert (outputs[0], outputs[2]) == (1, 3)
    assert isinstance(outputs[1], SerializationError)
    assert outputs[1].hint
    with pytest.raises(SerializationError):
        list(identity.map([1, threading.Lock(), 3]))


def test_an_argument_that_does_not_unpickle_fails_its_own_input(running: None) -> None:
    outputs = list(identity.map([1, Unreadable(), 3], return_exceptions=True))
    assert (outputs[0], outputs[2]) == (1, 3)
    assert isinstance(outputs[1], DeserializationError)
    assert "made of smoke" in str(outputs[1])


def test_wrong_arguments_are_the_functions_own_type_error(running: None) -> None:
    with pytest.raises(TypeError, match="positional argument"):
        identity.remote(1, 2)  # type: ignore[call-arg]
    outputs = list(identity.starmap([(1,), (1, 2), (3,)], return_exceptions=True))
    assert (outputs[0], outputs[2]) == (1, 3)
    assert isinstance(outputs[1], TypeError)


def test_the_first_failure_ends_a_map_at_once_and_the_function_still_works(running: None) -> None:
    began = time.monotonic()
    with pytest.raises(ValueError, match="effect"):
        list(run.map(itertools.chain(["raises"], itertools.count())))
    assert time.monotonic() - began < 10
    assert run.remote(1) == 10


def test_for_each_can_ignore_exceptions(running: None) -> None:
    run.for_each([1, "raises", 2], ignore_exceptions=True)
    with pytest.raises(ValueError, match="effect"):
        run.for_each([1, "raises", 2])


# Iterators.


def test_an_iterator_that_fails_says_so_itself(running: None) -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise LookupError("no more")

    seen: list[int] = []
    with pytest.raises(LookupError, match="no more"):
        seen.extend(identity.map(failing()))
    assert identity.remote(1) == 1


def test_an_iterator_that_blocks_delays_no_result_that_is_there(running: None) -> None:
    """Here the second input is made only when the first result was seen."""

    async def main() -> list[int]:
        seen = asyncio.Event()

        async def inputs() -> AsyncIterator[int]:
            yield 1
            await seen.wait()
            yield 2

        outputs = []
        async for output in identity.map.aio(inputs()):
            outputs.append(output)
            seen.set()
        return outputs

    assert asyncio.run(main()) == [1, 2]


def test_an_endless_iterator_is_read_only_as_far_as_needed(running: None) -> None:
    read = 0

    def endless() -> Iterator[int]:
        nonlocal read
        while True:
            read += 1
            yield read

    outputs = identity.map(endless())
    assert [next(outputs) for _ in range(5)] == [1, 2, 3, 4, 5]
    outputs.close()
    assert read <= 2000
    before = read
    assert identity.remote(1) == 1
    assert read == before


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (identity.map, "one iterator per argument"),
        (lambda: identity.map(3), "number 1 is 3, of type int"),
        (lambda: identity.map([1], None), "number 2 is None"),
        (lambda: identity.starmap(3), "iterator of tuples"),
        (lambda: list(identity.starmap([3])), "got 3, of type int"),
        (lambda: identity.map([1], order=False), "unknown keyword 'order'"),
        (identity.for_each, "one iterator per argument"),
        (lambda: identity.with_options(name="other"), "keeps its name"),
        (lambda: identity.with_options(max_containers=0), "max_containers is 0"),
    ],
)
def test_a_wrong_use_is_refused_at_the_call(running: None, use: Callable[[], Any], words: str) -> None:
    with pytest.raises(InvalidError, match=words) as caught:
        use()
    assert caught.value.hint


# Apps and clusters.


def test_a_call_without_a_running_app_says_what_to_do(cluster: Cluster) -> None:
    idle = flexray.App("idle")
    function = idle.function()(lambda x: x)
    for use in (
        lambda: function.remote(1),
        lambda: list(function.map([1])),
        function.get_current_stats,
        lambda: function.update_autoscaler(min_containers=1),
    ):
        with pytest.raises(ExecutionError) as caught:
            use()
        assert "app idle is not running" in str(caught.value)
        assert "with app.run():" in str(caught.value.hint)


def test_calls_into_an_app_that_has_ended_say_so(cluster: Cluster) -> None:
    ended = flexray.App("ended")
    function = ended.function(cpu=0, name="f")(lambda x: x)
    with ended.run():
        assert function.remote(1) == 1
        outputs = function.map(itertools.count())
        assert next(outputs) == 0
    with pytest.raises(Error) as caught:
        list(outputs)
    assert "ended" in str(caught.value) or "not running" in str(caught.value)


STRANGER = """
import os
{before}
import flexray
app = flexray.App("stranger")
f = app.function(cpu=0, name="f")(lambda: 1)
try:
    with app.run():
        print("in", f.remote())
except flexray.ExecutionError as error:
    print(str(error).replace("\\n", " "))
"""


@pytest.fixture(scope="module", autouse=True)
def driver_with_another_token(cluster: Cluster) -> subprocess.Popen[str]:
    """Ray tries for 20 s, so it begins before the first test and is asked in the last."""
    return cluster.start_driver(STRANGER.format(before="os.environ['RAY_AUTH_TOKEN'] = '0' * 64"))


@pytest.mark.parametrize("what", ["ray", "python"])
def test_a_cluster_of_another_version_names_both_versions(cluster: Cluster, what: str) -> None:
    patches = {
        "ray": "import ray; ray.__version__ = '2.1.0'",
        "python": "import ray; ray._private.utils.compute_version_info = lambda: (ray.__version__, '3.8.1')",
    }
    driver = cluster.start_driver(STRANGER.format(before=patches[what]))
    said, _ = driver.communicate(timeout=60)
    assert said.startswith("the Ray cluster has another version")
    assert {"ray": "2.1.0", "python": "3.8.1"}[what] in said
    assert "hint:" in said


@pytest.mark.long
def test_a_cluster_with_another_token_names_the_variables_of_the_token(
    driver_with_another_token: subprocess.Popen[str],
) -> None:
    said, _ = driver_with_another_token.communicate(timeout=90)
    assert said.startswith("the Ray cluster cannot be joined")
    assert "hint:" in said
    assert "RAY_AUTH_TOKEN" in said
