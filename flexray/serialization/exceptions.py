"""A user's exceptions.

One rule: an exception comes back as its own type with its args, its causes and, as a note, the remote
traceback of each; what cannot be unpickled is told in words by an `ExecutionError` in its place.
"""

from __future__ import annotations

import os
import pickle
import traceback
from types import TracebackType
from typing import Any, NamedTuple, cast

import cloudpickle

from flexray.errors import ExecutionError
from flexray.serialization.failures import first_line, message_of, missing_here, missing_module, type_name
from flexray.serialization.users_files import OWN_FOLDER
from flexray.serialization.values import PROTOCOL

_MAX_TRACEBACK_CHARS = 32_000
_MAX_CHAIN = 32


class _Link(NamedTuple):
    """One exception of a chain, with all that is left of it where it cannot be unpickled."""

    data: bytes | None
    """Pickled; None where it did not survive a trial."""
    type_name: str
    message: str
    remote_traceback: str
    cause: int | None
    """Index in the chain, as `context`."""
    context: int | None
    suppress_context: bool


def pack_exception(error: BaseException) -> bytes:
    """A user's exception with its causes and tracebacks. Never fails.

    SystemExit and the other exceptions that would act on the caller's process arrive as `ExecutionError`.
    """
    chain = _chain_of(error)
    index = {id(link): position for position, link in enumerate(chain)}
    links = [
        _Link(
            data=_pickle_exception(link),
            type_name=type_name(type(link)),
            message=message_of(link),
            remote_traceback=format_traceback(link),
            cause=index.get(id(link.__cause__)),
            context=index.get(id(link.__context__)),
            suppress_context=link.__suppress_context__,
        )
        for link in chain
    ]
    return pickle.dumps([tuple(link) for link in links], protocol=PROTOCOL)


def unpack_exception(packed: bytes) -> BaseException:
    """The exception as its own type, with args, causes and, as a note, the remote traceback. Never fails.

    One that cannot be unpickled here is an `ExecutionError` with its type, message and remote traceback, and
    with the missing module's name.
    """
    links = [_Link(*link) for link in pickle.loads(packed)]
    errors = [_unpack_link(link) for link in links]
    for error, link in zip(errors, links, strict=True):
        # Past the class's own __setattr__: a frozen dataclass may be an exception.
        if link.cause is not None:
            BaseException.__setattr__(error, "__cause__", errors[link.cause])
        if link.context is not None:
            BaseException.__setattr__(error, "__context__", errors[link.context])
        BaseException.__setattr__(error, "__suppress_context__", link.suppress_context)
    return errors[0]


def _chain_of(error: BaseException) -> list[BaseException]:
    """The exception, then its causes and contexts, each once."""
    chain = [error]
    for link in chain:
        context = None if link.__suppress_context__ else link.__context__
        for other in (link.__cause__, context):
            if other is not None and len(chain) < _MAX_CHAIN and not any(other is known for known in chain):
                chain.append(other)
    return chain


def _pickle_exception(error: BaseException) -> bytes | None:
    """The exception pickled so that it unpickles to the same type and args, or None if it does not."""
    if not isinstance(error, Exception):
        return None
    plain = _try_pickle(error)
    if plain is not None and _same_args(pickle.loads(plain), error):
        return plain
    if type(error).__reduce__ is BaseException.__reduce__:
        # Its constructor takes something else than its args; they and its attributes are all there is.
        return _try_pickle(_Rebuilt(error)) or plain
    return plain


def _try_pickle(value: object) -> bytes | None:
    try:
        data = cast(bytes, cloudpickle.dumps(value, protocol=PROTOCOL))
        return data if isinstance(pickle.loads(data), BaseException) else None
    except Exception:  # noqa: BLE001  # An exception's own methods may raise anything.
        return None


def _same_args(one: BaseException, other: BaseException) -> bool:
    try:
        return type(one) is type(other) and bool(one.args == other.args)
    except Exception:  # noqa: BLE001  # Comparing a user's values may raise anything.
        return False


class _Rebuilt:
    """Pickles an exception without its constructor."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self.error), self.error.args, vars(self.error))


def _rebuild(error_type: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]) -> BaseException:
    error = error_type.__new__(error_type, *args)
    vars(error).update(state)
    return error


def _unpack_link(link: _Link) -> BaseException:
    if link.data is None:
        return ExecutionError(_sentence_for(link), None, link.remote_traceback)
    try:
        error = cast(BaseException, pickle.loads(link.data))
    except Exception as failure:  # noqa: BLE001  # Unpickling a user's exception may raise anything.
        module = missing_module(failure)
        hint = f"install {module} in the caller to get the exception itself" if module else None
        why = missing_here(module) if module else first_line(failure)
        return ExecutionError(f"{_sentence_for(link)} (not unpacked: {why})", hint, link.remote_traceback)
    notes = [*getattr(error, "__notes__", ()), f"Remote traceback:\n{link.remote_traceback}"]
    BaseException.__setattr__(error, "__notes__", notes)
    return error


def _sentence_for(link: _Link) -> str:
    if link.type_name == "SystemExit":
        return f"user code called sys.exit({link.message})"
    return (
        f"user code raised {link.type_name}: {link.message}"
        if link.message
        else f"user code raised {link.type_name}"
    )


def format_traceback(error: BaseException) -> str:
    """Its own traceback, without causes, notes and FlexRay's leading frames; cut in the middle if long."""
    report = traceback.TracebackException(type(error), error, _skip_own_frames(error.__traceback__))
    report.__notes__ = []
    text = "".join(report.format(chain=False)).rstrip()
    if len(text) <= _MAX_TRACEBACK_CHARS:
        return text
    half = _MAX_TRACEBACK_CHARS // 2
    return f"{text[:half]}\n  [{len(text) - 2 * half:,} characters left out]\n{text[-half:]}"


def _skip_own_frames(frames: TracebackType | None) -> TracebackType | None:
    rest = frames
    while rest is not None and os.path.realpath(rest.tb_frame.f_code.co_filename).startswith(OWN_FOLDER):
        rest = rest.tb_next
    return rest or frames
