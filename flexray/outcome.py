"""An outcome as the caller sees it: the value, or the exception.

One rule: the user's own exception comes back as itself; everything else is one of `flexray.errors`.
"""

from __future__ import annotations

import copy
from typing import Any

from flexray.backend import Client
from flexray.core.retry import LOSSES_MAX
from flexray.core.status import CANCELLED, FAILED, LOST, OK, REFUSED, PoolView
from flexray.errors import ContainerStartError, InputCancelledError, InputLostError, ResourceExhaustedError
from flexray.serialization import unpack_exception, unpack_result


def value_of(function: str, at_most_once: bool, client: Client | None, status: int, payload: Any) -> Any:
    """The value; raises where there is none."""
    if status == OK:
        return unpack_result(payload)
    raise exception_of(function, at_most_once, client, status, payload)


def exception_of(
    function: str, at_most_once: bool, client: Client | None, status: int, payload: Any
) -> BaseException:
    """The exception of an input that has no value.

    | status | exception |
    |---|---|
    | FAILED | the user's own, or one of Ray's or ours that stood for the arguments |
    | CANCELLED | InputCancelledError |
    | LOST | InputLostError |
    | REFUSED | ResourceExhaustedError |
    | START_FAILED | ContainerStartError |
    """
    if status == FAILED and isinstance(payload, bytes):
        return unpack_exception(payload)
    if status == CANCELLED:
        return InputCancelledError()
    if status == LOST:
        return InputLostError(
            function, 1 if at_most_once else LOSSES_MAX, payload or "it does not know the input"
        )
    if status == REFUSED and client is not None:  # Spawned inputs are refused when they are spawned.
        return _refusal(function, client.view)
    if isinstance(payload, BaseException):
        return copy.copy(payload)  # Raised in several places, each with a traceback of its own.
    return ContainerStartError(function, str(payload))


def _refusal(function: str, view: PoolView) -> ResourceExhaustedError:
    """Which limit it was; the view may be newer than the verdict, which was given at the limit."""
    if view.waiting < view.pending_limit and view.total >= view.total_limit:
        return ResourceExhaustedError(function, view.total, view.total_limit, "total")
    return ResourceExhaustedError(function, max(view.waiting, view.pending_limit), view.pending_limit)
