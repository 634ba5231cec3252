"""To be told before Ray is shut down in this process.

One rule: nothing of Ray is touched once it goes down. Any call would start another Ray, and letting go of an
ObjectRef while Ray's core worker ends makes it end the whole process (seen on Ray 2.60).

Ray tells nobody, so this is the one place that wraps a function of its own: the one by which every shutdown
passes, the interpreter's exit included. Where a later Ray has none of that name, nobody is told.
"""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Callable
from typing import Any

from ray._private import worker


def before_shutdown(connection: Any, act: Callable[[], None]) -> None:
    """Call `act` once, on the thread that ends this connection of Ray, just before it does."""
    is_client = not worker.global_worker.connected
    owner, name = (connection, "close") if is_client else (worker, "disconnect")
    original: Any = getattr(owner, name, None)
    if original is None:
        return

    @functools.wraps(original)
    def ending(*args: Any, **kwargs: Any) -> Any:
        setattr(owner, name, original)
        try:
            act()
        finally:
            original(*args, **kwargs)

    setattr(owner, name, ending)


def before_sigterm_ends(action: Callable[[], None]) -> None:
    """Call `action` on SIGTERM, and end this worker process after it.

    Ray's own handler lets a worker wait for its calls under way first; a container always has some, so it
    would neither die nor answer. Only Ray's handler runs on the main thread, as Python wants it of handlers.
    Forks of it inherit the handler, and just end: `action` is not theirs.
    """
    mine = os.getpid()

    def end(*_: Any, **__: Any) -> None:
        if os.getpid() != mine:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
            return
        try:
            action()
        finally:
            os._exit(1)

    setattr(worker, "raise_sys_exit_with_custom_error_message", end)  # noqa: B010  # Not exported by name.
