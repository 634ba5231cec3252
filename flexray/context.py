"""What user code may ask about where it runs.

One rule: outside a container everything here answers None, and `is_local()` is True.
"""

from __future__ import annotations

from contextvars import ContextVar

RunningInput = tuple[str, int, int, str | None]
"""(dispatcher id, number of the input there, attempt, id of the call that spawned it)"""

POSITIONS = 1 << 32
"""The number of a spawned input is that of its call times this, plus its position in the call."""

current_input: ContextVar[RunningInput | None] = ContextVar("flexray_input", default=None)

_home_pool: str | None = None


def enter_container(pool_id: str) -> None:
    """This process is a container of that pool from now on."""
    global _home_pool  # noqa: PLW0603  # A fact about the process.
    _home_pool = pool_id


def home_pool() -> str | None:
    """The pool of which this process is a container."""
    return _home_pool


def is_local() -> bool:
    """Whether this code runs outside of any container."""
    return _home_pool is None


def current_input_id() -> str | None:
    """The id of the input that is running, `in-...`; None outside of one, and in threads that it started."""
    running = current_input.get()
    if running is None:
        return None
    dispatcher_id, number, _, call_id = running
    return input_id_of(call_id, number) if call_id else f"in-{dispatcher_id[:12]}-{number}"


def input_id_of(call_id: str, number: int) -> str:
    """The id of an input that was spawned, from that of its call and its number or position there."""
    return f"in-{call_id.removeprefix('fc-')}-{number % POSITIONS}"


def current_function_call_id() -> str | None:
    """The id of the call that spawned the input that is running, `fc-...`; None where none did."""
    running = current_input.get()
    return None if running is None else running[3]


def current_attempt() -> int | None:
    """The number of the attempt that is running, from 1; None outside of one."""
    running = current_input.get()
    return None if running is None else running[2]
