"""How values, calls, functions and exceptions become bytes, and come back."""

from flexray.serialization.calls import (
    pack_call,
    pack_lasting_call,
    pack_result,
    unpack_call,
    unpack_result,
)
from flexray.serialization.exceptions import format_traceback, pack_exception, unpack_exception
from flexray.serialization.functions import pack_function, unpack_function
from flexray.serialization.values import (
    LARGE_BYTES,
    Packed,
    Parts,
    pack,
    packed_size,
    register_reference_type,
    unpack,
)

__all__ = [
    "LARGE_BYTES",
    "Packed",
    "Parts",
    "format_traceback",
    "pack",
    "pack_call",
    "pack_exception",
    "pack_function",
    "pack_lasting_call",
    "pack_result",
    "packed_size",
    "register_reference_type",
    "unpack",
    "unpack_call",
    "unpack_exception",
    "unpack_function",
    "unpack_result",
]
