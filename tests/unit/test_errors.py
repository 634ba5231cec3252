from __future__ import annotations

import pickle

import pytest

import flexray.errors
import flexray.exception
from flexray.errors import (
    ContainerStartError,
    DeserializationError,
    Error,
    ExecutionError,
    FunctionTimeoutError,
    InputCancelledError,
    InputLostError,
    InvalidError,
    NotFoundError,
    OutputExpiredError,
    ResourceExhaustedError,
    SerializationError,
)

EXAMPLES = [
    Error("it failed", "try again"),
    InvalidError("min_containers is -1, but must be 0 or more", "use 0"),
    NotFoundError("no app is called 'shop'"),
    ExecutionError("user code raised Odd", None, "Traceback ...\nOdd"),
    ResourceExhaustedError("resize", 2000, 2000),
    ResourceExhaustedError("resize", 25000, 25000, "total"),
    ResourceExhaustedError("resize", 10, 10, "spawn_pending"),
    FunctionTimeoutError("resize", 300.0),
    InputCancelledError(),
    InputLostError("resize", 3, "SIGKILL"),
    ContainerStartError("resize", "importing shop failed", "Traceback ..."),
    SerializationError("argument 1 cannot be packed", "pass a path"),
    DeserializationError("the result cannot be unpacked"),
    OutputExpiredError("fc-1"),
]


def _all_errors() -> set[type[Error]]:
    found = {Error}
    for error_type in found.copy():
        pending = [error_type]
        while pending:
            children = pending.pop().__subclasses__()
            found.update(children)
            pending.extend(children)
    return found


def test_every_error_has_an_example_here() -> None:
    assert {type(example) for example in EXAMPLES} == _all_errors()


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_survives_pickling(error: Error) -> None:
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error)
    assert back.args == error.args
    assert vars(back) == vars(error)
    assert str(back) == str(error)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_the_args_of_an_error_are_those_of_its_constructor(error: Error) -> None:
    assert str(type(error)(*error.args)) == str(error)


def test_keywords_of_the_constructor_become_args_too() -> None:
    error = InvalidError("it is wrong", hint="right it")
    assert pickle.loads(pickle.dumps(error)).args == ("it is wrong", "right it")


def test_the_hint_comes_after_a_blank_line() -> None:
    assert str(InvalidError("it is wrong", "right it")) == "it is wrong\n\nhint: right it"


def test_without_a_hint_there_is_the_sentence_alone() -> None:
    assert str(NotFoundError("no app is called 'shop'")) == "no app is called 'shop'"


def test_a_full_function_names_its_inputs_and_its_limit() -> None:
    assert str(ResourceExhaustedError("resize", 2000, 2000)).splitlines() == [
        "resize is full: 2,000 inputs are waiting and the pending limit is 2,000",
        "",
        "hint: call it again later, use .spawn() for work that can wait, or raise max_containers",
    ]


def test_the_remote_traceback_stands_between_sentence_and_hint() -> None:
    error = ExecutionError("user code raised Odd", "install odd", "Traceback:\nOdd\n")
    assert str(error) == ("user code raised Odd\n\nRemote traceback:\nTraceback:\nOdd\n\nhint: install odd")


def test_one_loss_is_told_in_the_singular() -> None:
    assert "the container died while running it (SIGKILL)" in str(InputLostError("resize", 1, "SIGKILL"))


def test_every_error_is_drawn_in_the_tree_and_reachable_as_exception() -> None:
    for error_type in _all_errors() - {Error}:
        assert f"── {error_type.__name__} " in (flexray.errors.__doc__ or "")
    for error_type in _all_errors():
        assert getattr(flexray.exception, error_type.__name__) is error_type
