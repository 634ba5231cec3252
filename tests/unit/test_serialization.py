from __future__ import annotations

import array
import dataclasses
import pickle
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar, copy_context
from pathlib import Path
from typing import Any, Generic, TypeVar

import cloudpickle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexray.errors import DeserializationError, ExecutionError, InvalidError, SerializationError
from flexray.serialization import (
    LARGE_BYTES,
    Parts,
    pack,
    pack_call,
    pack_exception,
    pack_function,
    pack_result,
    packed_size,
    register_reference_type,
    unpack,
    unpack_call,
    unpack_exception,
    unpack_function,
    unpack_result,
    users_files,
    values,
)

T = TypeVar("T")

# ---------------------------------------------------------------------------------------------- values

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
)


@given(PLAIN)
def test_plain_values_come_back_equal_as_bytes(value: object) -> None:
    packed = pack(value)
    assert isinstance(packed, bytes)
    assert unpack(packed) == value


def test_values_packed_one_after_another_share_nothing() -> None:
    shared = ["x"]
    first, second = pack([shared, shared]), pack([shared])
    assert unpack(first) == [["x"], ["x"]]
    assert unpack(second) == [["x"]]


def test_nothing_packed_is_kept_alive() -> None:
    class Big:
        pass

    big = Big()
    references = sys.getrefcount(big)
    pack([big])
    assert sys.getrefcount(big) == references


class _Blob:
    """Bytes that offer themselves out of band, as numpy's arrays do."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _Blob, (pickle.PickleBuffer(self.data),)


def test_a_buffer_over_the_bound_travels_out_of_band() -> None:
    blob = _Blob(b"x" * (LARGE_BYTES + 1))
    packed = pack([blob, blob])
    assert isinstance(packed, Parts)
    assert len(packed.data) < 1000
    assert len(packed.buffers) == 1
    assert packed_size(packed) == len(packed.data) + LARGE_BYTES + 1
    assert bytes(unpack(packed)[0].data) == blob.data


def test_a_buffer_up_to_the_bound_travels_in_band() -> None:
    packed = pack(_Blob(b"x" * LARGE_BYTES))
    assert isinstance(packed, bytes)
    assert packed_size(packed) == len(packed) > LARGE_BYTES


def test_parts_survive_pickling() -> None:
    packed = pack(_Blob(array.array("d", range(50_000))))
    back = pickle.loads(pickle.dumps(packed, protocol=5))
    assert isinstance(back, Parts)
    assert bytes(unpack(back).data) == array.array("d", range(50_000)).tobytes()


class _Reference:
    def __init__(self, name: str) -> None:
        self.name = name

    def __reduce__(self) -> Any:
        message = "a reference was packed as a value"
        raise TypeError(message)


register_reference_type(_Reference)


def test_references_are_taken_out_in_order_and_put_back() -> None:
    one, two = _Reference("one"), _Reference("two")
    packed = pack({"a": one, "b": [two, one]})
    assert isinstance(packed, Parts)
    assert packed.references == [one, two]
    assert unpack(packed) == {"a": one, "b": [two, one]}


def test_what_a_reference_stands_for_may_be_put_in_its_place() -> None:
    packed = pack([_Reference("one"), 5])
    assert unpack(packed, references=["value"]) == ["value", 5]


class _UnpacksInside:
    def __reduce__(self) -> Any:
        return unpack, (pack([_Reference("inner")]),)


def test_a_value_that_unpacks_another_leaves_the_references_as_they_were() -> None:
    packed = pack([_Reference("one"), _UnpacksInside(), _Reference("two")])
    one, inner, two = unpack(packed)
    assert (one.name, inner[0].name, two.name) == ("one", "inner", "two")


class _PacksInside:
    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __reduce__(self) -> Any:
        return _unpack_inside, (pack(self.inner),)


def _unpack_inside(packed: Any) -> _PacksInside:
    return _PacksInside(unpack(packed))


def test_a_value_may_pack_another_while_it_is_packed() -> None:
    first, second = _Reference("first"), _Reference("second")

    class Resolved(_PacksInside):
        def __reduce__(self) -> Any:
            pack([second, self.inner])
            return super().__reduce__()

    back = unpack(pack([first, Resolved([1, 2]), second]))
    assert (back[0], back[1].inner, back[2]) == (first, [1, 2], second)


def test_a_failure_leaves_nothing_behind() -> None:
    with pytest.raises(TypeError):
        pack([_Blob(b"x" * (LARGE_BYTES + 1)), _Reference("lost"), threading.Lock()])
    assert unpack(pack([1, 2])) == [1, 2]
    assert isinstance(pack([1, 2]), bytes)


def test_threads_pack_at_the_same_time() -> None:
    results: list[bool] = []

    def work(seed: int) -> None:
        results.append(all(unpack(pack([seed, i, _local])) == [seed, i, _local] for i in range(300)))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 4


# ------------------------------------------------------------------------------------ calls and results


def test_a_call_comes_back_as_args_and_kwargs() -> None:
    assert unpack_call(pack_call((1, "a"), {"x": [2]})) == ((1, "a"), {"x": [2]}, "")


def test_a_call_takes_the_values_of_its_references() -> None:
    packed = pack_call((_Reference("r"),), {"x": _Reference("s")})
    assert unpack_call(packed, ["one", "two"]) == (("one",), {"x": "two"}, "")


@pytest.mark.parametrize(
    ("args", "kwargs", "named"),
    [
        ((1, threading.Lock()), {}, "argument 2, of type _thread.lock, cannot be packed"),
        ((1,), {"lock": [threading.Lock()]}, "argument 'lock', of type list, cannot be packed"),
    ],
)
def test_an_argument_that_cannot_be_packed_is_named_with_its_type(args: Any, kwargs: Any, named: str) -> None:
    with pytest.raises(SerializationError) as caught:
        pack_call(args, kwargs)
    assert str(caught.value).startswith(named)
    assert "hint: " in str(caught.value)


def test_an_argument_nested_too_deeply_is_named() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(SerializationError, match="argument 1, of type list"):
        pack_call((deep,), {})
    while deep:  # Taken apart from outside: the interpreter would do it recursively.
        deep = deep.pop()


def test_a_result_that_cannot_be_packed_names_its_type() -> None:
    with pytest.raises(SerializationError, match="the result, of type generator, cannot be packed"):
        pack_result(i for i in range(3))


def test_a_result_of_a_missing_module_names_the_module() -> None:
    packed = b"cabsent_module\nThing\n."
    with pytest.raises(
        DeserializationError, match="the result cannot be unpacked: no module named 'absent_module'"
    ):
        unpack_result(packed)


def test_arguments_of_a_missing_module_name_the_module() -> None:
    with pytest.raises(DeserializationError, match="no module named 'absent_module' here"):
        unpack_call(b"cabsent_module\nThing\n.")


def test_a_result_comes_back() -> None:
    assert unpack_result(pack_result({"a": 1})) == {"a": 1}
    assert unpack_result(pack_result(None)) is None


# ------------------------------------------------------------------------------------------- functions


def _run_elsewhere(script: str, folder: Path) -> str:
    """What the script prints in a fresh interpreter that cannot import this file's modules."""
    command = [sys.executable, "-c", textwrap.dedent(script)]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


_APPLY = """
    import sys
    from flexray.serialization import pack_result, unpack_call, unpack_function
    function = unpack_function(open("function", "rb").read())
    args, kwargs, _ = unpack_call(open("call", "rb").read())
    open("result", "wb").write(pack_result(function(*args, **kwargs)))
"""


def _apply_elsewhere(folder: Path, function: Callable[..., Any], *args: Any) -> Any:
    call = pack_call(args, {})
    assert isinstance(call, bytes)
    (folder / "function").write_bytes(pack_function(function))
    (folder / "call").write_bytes(call)
    _run_elsewhere(_APPLY, folder)
    return unpack_result((folder / "result").read_bytes())


_local = object


@dataclasses.dataclass
class Point(Generic[T]):
    x: T


def _mirror(point: Point[int]) -> Point[int]:
    assert isinstance(point, Point)
    return Point(-point.x)


def test_functions_and_arguments_of_the_users_file_run_where_it_is_missing(tmp_path: Path) -> None:
    result = _apply_elsewhere(tmp_path, _mirror, Point(3))
    assert result == Point(-3)
    assert type(result) is Point


@pytest.fixture
def helpers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    (tmp_path / "lib").mkdir()
    source = "FACTOR = 7\ndef scale(x):\n    return FACTOR * x\n"
    (tmp_path / "lib" / "flexray_test_helpers.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path / "lib")
    import flexray_test_helpers  # type: ignore[import-not-found]

    yield flexray_test_helpers
    del sys.modules["flexray_test_helpers"]


def test_a_module_of_the_users_travels_with_the_function(tmp_path: Path, helpers: Any) -> None:
    def work(x: int) -> int:
        return helpers.scale(x) + 1  # type: ignore[no-any-return]

    assert _apply_elsewhere(tmp_path, work, 2) == 15
    assert _apply_elsewhere(tmp_path, helpers.scale, 3) == 21


def test_context_variables_of_the_users_are_made_anew_with_their_defaults() -> None:
    with_default: ContextVar[int] = ContextVar("with_default", default=7)
    without: ContextVar[int] = ContextVar("without")

    def work() -> tuple[int, bool, str]:
        return with_default.get(), without in copy_context(), without.name

    without.set(1)
    assert unpack_function(pack_function(work))() == (7, False, "without")


def test_cloudpickle_itself_is_left_as_it_was(helpers: Any) -> None:
    before = cloudpickle.cloudpickle.list_registry_pickle_by_value()
    pack_function(helpers.scale)
    assert cloudpickle.cloudpickle.list_registry_pickle_by_value() == before
    assert b"FACTOR" not in cloudpickle.dumps(helpers.scale)


def test_installed_functions_travel_by_name() -> None:
    assert len(pack_function(textwrap.dedent)) < 100
    assert len(pack_function(pytest.approx)) < 100


@pytest.mark.parametrize(
    ("file", "users"),
    [
        ("/home/me/shop/prices.py", True),
        ("/home/me/.local/lib/python3/site-packages/lib/part.py", False),
        ("/usr/lib/python3/dist-packages/lib.py", False),
        (textwrap.__file__, False),
        (values.__file__, False),
    ],
)
def test_a_file_is_the_users_unless_installed_or_flexrays(file: str, users: bool) -> None:
    assert users_files._is_users_file(file) is users


def test_a_result_of_an_imported_module_travels_by_name(helpers: Any) -> None:
    assert len(pack_result(helpers.scale)) < 100  # type: ignore[arg-type]


def test_lambdas_and_closures_travel() -> None:
    factor = 3
    assert unpack_function(pack_function(lambda x: x * factor))(5) == 15


def test_a_large_constant_of_a_closure_travels_inside_the_function() -> None:
    blob = _Blob(b"x" * (LARGE_BYTES + 1))
    assert unpack_function(pack_function(lambda: len(bytes(blob.data))))() == LARGE_BYTES + 1


GLOBAL_LOCK = threading.Lock()


def _uses_a_global() -> None:
    GLOBAL_LOCK.acquire()


def _uses_it_through_another() -> None:
    _uses_a_global()


def _uses_it_in_an_inner_function() -> Callable[[], bool]:
    return lambda: GLOBAL_LOCK.acquire(timeout=1)


class _UsesItInAMethod:
    def work(self) -> None:
        GLOBAL_LOCK.acquire()


@pytest.mark.parametrize(
    "function",
    [_uses_a_global, _uses_it_through_another, _uses_it_in_an_inner_function, _UsesItInAMethod],
)
def test_a_global_that_cannot_be_packed_is_named(function: Any) -> None:
    with pytest.raises(SerializationError) as caught:
        pack_function(function)
    assert f"{function.__name__} cannot be packed: it uses GLOBAL_LOCK, of type _thread.lock" in str(
        caught.value
    )
    assert "hint: create GLOBAL_LOCK inside the function" in str(caught.value)


def test_a_closure_variable_that_cannot_be_packed_is_named() -> None:
    lock = threading.Lock()

    def work() -> None:
        lock.acquire()

    with pytest.raises(
        SerializationError, match=r"work cannot be packed: it uses lock, of type _thread\.lock"
    ):
        pack_function(work)


def test_a_reference_in_a_closure_is_refused() -> None:
    reference = _Reference("r")
    with pytest.raises(SerializationError, match="it uses a variable of type") as caught:
        pack_function(lambda: reference)
    assert "hint: pass it as an argument" in str(caught.value)


def test_a_function_of_a_missing_module_names_the_module() -> None:
    with pytest.raises(
        DeserializationError, match="the function cannot be unpacked: no module named 'absent_module'"
    ):
        unpack_function(b"cabsent_module\nthing\n.")


# ------------------------------------------------------------------------------------------ exceptions


def raised(action: Callable[[], Any]) -> BaseException:
    """The exception that the action raises, as a container would catch it."""
    try:
        action()
    except BaseException as error:  # noqa: BLE001
        return error
    message = "nothing was raised"
    raise AssertionError(message)


def sent(error: BaseException) -> BaseException:
    return unpack_exception(pack_exception(error))


def printed(error: BaseException) -> str:
    import traceback

    return "".join(traceback.format_exception(error))


def _fail() -> None:
    {}["absent"]  # type: ignore[index]


def _fail_with_a_cause() -> None:
    try:
        _fail()
    except KeyError as error:
        message = "no such item"
        raise ValueError(message, 7) from error


def test_an_exception_comes_back_as_its_own_type_with_its_args() -> None:
    back = sent(raised(_fail_with_a_cause))
    assert type(back) is ValueError
    assert back.args == ("no such item", 7)


def test_the_cause_comes_back_too() -> None:
    back = sent(raised(_fail_with_a_cause))
    assert type(back.__cause__) is KeyError
    assert back.__cause__.args == ("absent",)


def test_the_context_comes_back_and_from_none_hides_it() -> None:
    def in_a_handler() -> None:
        try:
            _fail()
        except KeyError:
            int("x")

    def from_none() -> None:
        try:
            _fail()
        except KeyError:
            raise ValueError from None

    assert type(sent(raised(in_a_handler)).__context__) is KeyError
    assert "KeyError" not in printed(sent(raised(from_none)))
    assert sent(raised(from_none)).__context__ is None


def test_the_remote_traceback_of_each_is_printed_once() -> None:
    text = printed(sent(raised(_fail_with_a_cause)))
    assert text.count("Remote traceback:") == 2
    assert text.count("in _fail\n") == 1
    assert text.count("raise ValueError(message, 7) from error") == 1


def test_a_second_journey_adds_only_its_own_traceback() -> None:
    def again() -> None:
        raise sent(raised(_fail))

    text = printed(sent(raised(again)))
    assert text.count("in _fail\n") == 1
    assert text.count("in again\n") == 1


def test_notes_of_the_user_stay() -> None:
    error = raised(_fail)
    error.add_note("look at the index")
    assert printed(sent(error)).count("look at the index") == 1


def test_leading_frames_of_flexray_are_left_out() -> None:
    class Fails:
        def __reduce__(self) -> Any:
            _fail()

    error = raised(lambda: pack(Fails()))
    assert error.__traceback__ is not None
    # From the frame of the library on, as a container would catch it.
    error.__traceback__ = error.__traceback__.tb_next.tb_next  # type: ignore[union-attr]
    notes = "\n".join(sent(error).__notes__)
    assert "in _fail" in notes
    assert "values.py" not in notes.partition("cloudpickle.py")[0]


class OddConstructor(Exception):
    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code


class Prefixed(Exception):
    def __init__(self, reason: str) -> None:
        super().__init__(f"failed: {reason}")


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    code: int


class HoldsALock(Exception):
    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.lock = threading.Lock()


class RaisesWhenLooked(Exception):
    def __str__(self) -> str:
        raise RuntimeError

    def __reduce__(self) -> Any:
        raise RuntimeError


def _raise(error: BaseException) -> Callable[[], Any]:
    def action() -> None:
        raise error

    return action


def test_an_exception_with_an_odd_constructor_comes_back_as_itself() -> None:
    back = sent(raised(_raise(OddConstructor(404, "gone"))))
    assert isinstance(back, OddConstructor)
    assert (back.args, back.code) == (("404: gone",), 404)


def test_a_constructor_that_changes_its_args_is_not_run_twice() -> None:
    assert sent(Prefixed("x")).args == ("failed: x",)


def test_a_frozen_exception_comes_back_with_its_cause_and_traceback() -> None:
    def action() -> None:
        raise Frozen(3) from KeyError("k")

    back = sent(raised(action))
    assert isinstance(back, Frozen)
    assert back.code == 3
    assert isinstance(back.__cause__, KeyError)
    assert "Remote traceback" in printed(back)


def test_an_exception_of_the_interpreter_with_state_of_its_own_comes_back() -> None:
    back = sent(raised(b"\xff".decode))
    assert isinstance(back, UnicodeDecodeError)
    assert back.start == 0


def test_flexrays_own_errors_come_back_with_their_hint() -> None:
    back = sent(InvalidError("wrong", "right it"))
    assert isinstance(back, InvalidError)
    assert back.hint == "right it"


@pytest.mark.parametrize("error", [HoldsALock("held"), RaisesWhenLooked("x")])
def test_an_exception_that_cannot_be_pickled_is_told_in_words(error: Exception) -> None:
    back = sent(raised(_raise(error)))
    assert isinstance(back, ExecutionError)
    assert type(error).__name__ in str(back)
    assert back.remote_traceback is not None
    assert "in action" in back.remote_traceback


def test_an_unpicklable_cause_does_not_spoil_the_exception() -> None:
    def action() -> None:
        message = "outer"
        raise ValueError(message) from HoldsALock("held")

    back = sent(raised(action))
    assert type(back) is ValueError
    assert isinstance(back.__cause__, ExecutionError)
    assert "HoldsALock: held" in str(back.__cause__)


def test_an_exception_of_a_module_missing_here_names_the_module(tmp_path: Path) -> None:
    (tmp_path / "flexray_test_absent.py").write_text("class Gone(Exception): pass")
    script = """
        import flexray_test_absent
        from flexray.serialization import pack_exception
        try:
            raise flexray_test_absent.Gone("bye")
        except Exception as error:
            open("error", "wb").write(pack_exception(error))
    """
    _run_elsewhere(script, tmp_path)
    back = unpack_exception((tmp_path / "error").read_bytes())
    assert isinstance(back, ExecutionError)
    assert "user code raised flexray_test_absent.Gone: bye" in str(back)
    assert "no module named 'flexray_test_absent' here" in str(back)
    assert "Traceback (most recent call last)" in str(back)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (SystemExit(3), "user code called sys.exit(3)"),
        (KeyboardInterrupt(), "user code raised KeyboardInterrupt"),
        (GeneratorExit(), "user code raised GeneratorExit"),
    ],
)
def test_exceptions_that_would_act_on_the_caller_are_told_in_words(
    error: BaseException, sentence: str
) -> None:
    back = sent(error)
    assert isinstance(back, ExecutionError)
    assert str(back).startswith(sentence)


def test_endless_recursion_comes_back_as_itself_and_its_traceback_is_cut() -> None:
    def even(n: int) -> None:
        odd(n)

    def odd(n: int) -> None:
        even(n)

    back = sent(raised(lambda: even(1)))
    assert isinstance(back, RecursionError)
    assert len(printed(back)) < 40_000
    assert "characters left out" in printed(back)


def test_a_ring_of_causes_ends() -> None:
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    back = sent(one)
    assert back.__cause__ is not None
    assert back.__cause__.__cause__ is back


def test_a_group_of_exceptions_comes_back() -> None:
    back = sent(ExceptionGroup("both", [ValueError("a"), KeyError("b")]))
    assert isinstance(back, ExceptionGroup)
    assert [type(error) for error in back.exceptions] == [ValueError, KeyError]
