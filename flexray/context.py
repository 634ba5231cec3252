"""What user code may ask about where it runs.

One rule: outside a container everything here answers None, and `is_local()` is True.
"""

from __future__ import annotations

from contextvars import ContextVar

RunningInput = tuple[str, int, int]
"""(dispatcher id, number of the input there, attempt)"""

current_input: ContextVar[RunningInput | None] = ContextVar("flexray_input", default=None)

_in_container = False


def enter_container() -> None:
    """This process is a container from now on."""
    global _in_container  # noqa: PLW0603  # A fact about the process.
    _in_container = True


def is_local() -> bool:
    """Whether this code runs outside of any container."""
    return not _in_container


def current_input_id() -> str | None:
    """The id of the input that is running, `in-...`; None outside of one, and in threads that it started."""
    running = current_input.get()
    return None if running is None else f"in-{running[0][:12]}-{running[1]}"


def current_attempt() -> int | None:
    """The number of the attempt that is running, from 1; None outside of one."""
    running = current_input.get()
    return None if running is None else running[2]
