"""What to say of a value that cannot be packed or unpacked.

One rule: nothing here fails, whatever the user's values and exceptions do when they are looked at.
"""

from __future__ import annotations

from flexray.errors import DeserializationError
from flexray.serialization.values import pack


def packing_failure(value: object) -> Exception | None:
    """What packing the value raises, or None."""
    try:
        pack(value, users_files_by_value=True)
    except Exception as failure:  # noqa: BLE001  # A value's own __reduce__ may raise anything.
        return failure
    return None


def unpacking_error(what: str, error: Exception, hint: str) -> DeserializationError:
    """The error to raise when unpacking `what` raised another; it names the missing module, if one is."""
    module = missing_module(error)
    reason = f"{type_name(type(error))}: {first_line(error)}" if module is None else missing_here(module)
    return DeserializationError(f"{what} cannot be unpacked: {reason}", hint)


def missing_here(module: str) -> str:
    """The words for a module that is not installed in this process."""
    return f"no module named {module!r} here"


def missing_module(error: BaseException) -> str | None:
    """The name of the module whose absence the error is about, or None."""
    return error.name if isinstance(error, ModuleNotFoundError) else None


def message_of(error: BaseException) -> str:
    """The error as a str, empty where its `__str__` fails."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001  # A user's __str__ may raise anything.
        return ""


def first_line(error: BaseException) -> str:
    """The first line of the error's message, or the name of its type."""
    lines = message_of(error).splitlines()
    return lines[0] if lines else type(error).__name__


def type_name(of: type) -> str:
    """The type's name as the user would write it: with its module, unless that is builtins or __main__."""
    if of.__module__ in {"builtins", "__main__"}:
        return of.__qualname__
    return f"{of.__module__}.{of.__qualname__}"
