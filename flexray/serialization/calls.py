"""Arguments and results.

One rule: an error names the argument or the result, its type, and what to pass or return instead. Arguments
take along what they use from the user's own files, since those may be missing where they arrive. Results name
modules that are really imported there, so that a class stays the same class.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from typing import Any

from flexray.errors import SerializationError
from flexray.serialization.failures import first_line, packing_failure, type_name, unpacking_error
from flexray.serialization.values import PLAIN, PROTOCOL, Packed, Parts, pack, unpack


def pack_call(args: tuple[Any, ...], kwargs: Mapping[str, Any], method: str = "") -> Packed:
    """The arguments of one input, and which method of a class they are for.

    Raises:
        SerializationError: An argument cannot be packed; the message names it and its type.
    """
    if not kwargs and PLAIN.issuperset(map(type, args)):
        return pickle.dumps((args, kwargs, method), PROTOCOL)
    try:
        return pack((args, kwargs, method), users_files_by_value=True)
    except Exception as error:
        raise _argument_error(args, kwargs, error) from error


def pack_lasting_call(args: tuple[Any, ...], kwargs: Mapping[str, Any], method: str = "") -> bytes:
    """The same as bytes that hold everything, for an input that may outlive this process.

    Raises:
        SerializationError: An argument cannot be packed, or holds a reference, which ends with its owner.
    """
    packed = pack_call(args, kwargs, method)
    if isinstance(packed, bytes):
        return packed
    if packed.references:
        raise SerializationError(
            "an argument holds an ObjectRef inside, which ends with its owner, and a spawned input does not",
            "pass the ObjectRef itself as an argument, or the value",
        )
    return pickle.dumps(_LastingCall(packed), PROTOCOL)


class _LastingCall:
    """Unpickles as the call itself."""

    def __init__(self, packed: Parts) -> None:
        self._packed = packed

    def __reduce__(self) -> tuple[Any, ...]:
        buffers = [bytes(buffer) for buffer in self._packed.buffers]
        return unpack, (Parts(self._packed.data, buffers, []),)


def unpack_call(
    packed: Packed, references: Sequence[Any] | None = None
) -> tuple[tuple[Any, ...], dict[str, Any], str]:
    """The arguments again, by position and by keyword, and the method.

    Raises:
        DeserializationError: They cannot be unpacked here; the message names the missing module or the cause.
    """
    try:
        call: tuple[tuple[Any, ...], dict[str, Any], str] = unpack(packed, references)
    except Exception as error:
        hint = 'containers get packages with runtime_env={"pip": [...]}'
        raise unpacking_error("the arguments", error, hint) from error
    return call


def pack_result(value: object) -> Packed:
    """The result of one input.

    Raises:
        SerializationError: It cannot be packed; the message names its type.
    """
    try:
        return pack(value)
    except Exception as error:
        message = f"the result, of type {type_name(type(value))}, cannot be packed: {first_line(error)}"
        raise SerializationError(
            message, "return plain data, or write it to storage and return its path"
        ) from error


def unpack_result(packed: Packed) -> Any:
    """The result again.

    Raises:
        DeserializationError: It cannot be unpacked here; the message names the missing module or the cause.
    """
    try:
        return unpack(packed)
    except Exception as error:
        hint = "install in the caller what the function uses, or return plain data"
        raise unpacking_error("the result", error, hint) from error


def _argument_error(args: tuple[Any, ...], kwargs: Mapping[str, Any], error: Exception) -> SerializationError:
    named = [(f"argument {position}", value) for position, value in enumerate(args, start=1)]
    named += [(f"argument {name!r}", value) for name, value in kwargs.items()]
    for name, value in named:
        failure = packing_failure(value)
        if failure is not None:
            message = f"{name}, of type {type_name(type(value))}, cannot be packed: {first_line(failure)}"
            break
    else:
        message = f"the arguments cannot be packed together: {first_line(error)}"
    hint = "pass what describes it, as a path or an address, and open it inside the function"
    return SerializationError(message, hint)
