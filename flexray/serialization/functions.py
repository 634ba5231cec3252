"""Functions and classes.

One rule: they travel by value with everything they use from the user's own files, so that a container needs
none of these files.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable
from types import CellType, CodeType, FunctionType
from typing import Any

from flexray.errors import SerializationError
from flexray.serialization.failures import first_line, packing_failure, type_name, unpacking_error
from flexray.serialization.values import PROTOCOL, Parts, pack, unpack


def pack_function(function: Callable[..., Any]) -> bytes:
    """A function or class with everything it uses from the user's own files.

    Raises:
        SerializationError: It cannot be packed; the message names it and, where found, the variable at fault.
    """
    name = getattr(function, "__qualname__", repr(function))
    try:
        packed = pack(function, users_files_by_value=True)
    except Exception as error:
        raise _function_error(name, function, error) from error
    if isinstance(packed, bytes):
        return packed
    if packed.references:
        kind = type_name(type(packed.references[0]))
        raise SerializationError(
            f"{name} cannot be packed: it uses a variable of type {kind}", "pass it as an argument"
        )
    return pickle.dumps(packed, protocol=PROTOCOL)


def unpack_function(data: bytes) -> Any:
    """The function or class again.

    Raises:
        DeserializationError: It cannot be unpacked here; the message names the missing module or the cause.
    """
    try:
        value = pickle.loads(data)
        return unpack(value) if isinstance(value, Parts) else value
    except Exception as error:
        hint = 'containers get packages with runtime_env={"pip": [...]}'
        raise unpacking_error("the function", error, hint) from error


def _function_error(name: str, function: Callable[..., Any], error: Exception) -> SerializationError:
    culprit = _variable_at_fault(function, seen=set())
    if culprit is None:
        return SerializationError(
            f"{name} cannot be packed: {first_line(error)}", "create inside the function what it needs there"
        )
    variable, value = culprit
    kind = type_name(type(value))
    message = f"{name} cannot be packed: it uses {variable}, of type {kind}: {first_line(error)}"
    return SerializationError(message, f"create {variable} inside the function, or pass it as an argument")


def _variable_at_fault(function: object, seen: set[int]) -> tuple[str, object] | None:
    """The innermost closure variable or global that cannot be packed, by name, or None."""
    if id(function) in seen:
        return None
    seen.add(id(function))
    for name, value in _variables_used(function):
        if packing_failure(value) is not None:
            return _variable_at_fault(value, seen) or (name, value)
    return None


def _variables_used(function: object) -> Iterable[tuple[str, object]]:
    """The closure variables, globals and defaults of a function, or of every function of a class."""
    if isinstance(function, type):
        for member in vars(function).values():
            yield from _variables_used(getattr(member, "__func__", member))
    if isinstance(function, FunctionType):
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        yield from ((name, value) for name, cell in cells for value in _contents(cell))
        known = function.__globals__
        yield from ((name, known[name]) for name in _names_in(function.__code__) if name in known)
        yield from (("a default value", value) for value in function.__defaults__ or ())


def _contents(cell: CellType) -> Iterable[object]:
    try:
        return (cell.cell_contents,)
    except ValueError:  # Not assigned yet.
        return ()


def _names_in(code: CodeType) -> Iterable[str]:
    """The globals and attributes that a function's code names, those of its inner functions included."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_in(constant)
