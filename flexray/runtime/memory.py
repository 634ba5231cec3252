"""Free memory goes back to the machine.

One rule: Ray keeps some of every actor that it ever made, between blocks that are free again. Malloc holds on
to those, and a controller that starts containers for weeks would grow several times as fast.
"""

from __future__ import annotations

import ctypes


def give_back_free_memory() -> None:
    """Takes milliseconds. Does nothing where the C library is not glibc, which alone needs to be told."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
