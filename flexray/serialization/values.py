"""Values to bytes and back.

One rule: what the caller packs, the other side unpacks with the same cloudpickle, never Ray's own copy of it.
A value is plain `bytes`; only what does not fit in bytes makes it `Parts`: buffers over 100 KB, taken out of
band (PEP 574), and references such as Ray's ObjectRef, each replaced by its index.
"""

from __future__ import annotations

import pickle
import sys
import threading
from collections.abc import Callable, Sequence
from contextvars import Context, ContextVar
from types import CodeType, ModuleType
from typing import Any, TypeAlias, cast

import cloudpickle
from cloudpickle.cloudpickle import list_registry_pickle_by_value

from flexray.serialization.users_files import is_defined_by_user

LARGE_BYTES = 100 * 1024
"""Buffers above this travel out of band; Ray's own bound between inline and stored values."""

PROTOCOL = 5
"""Of pickle: the first with out-of-band buffers."""


class Parts:
    """A packed value that does not fit in bytes. Buffers share memory with the value until it is sent."""

    __slots__ = ("buffers", "data", "references")

    def __init__(self, data: bytes, buffers: list[Any], references: list[Any]) -> None:
        self.data = data
        self.buffers = buffers
        """Bytes-like, each over 100 KB, in the order in which `data` asks for them."""
        self.references = references
        """Objects of registered types; their index stands in `data`."""

    def __reduce__(self) -> tuple[Any, ...]:
        # What came out of Ray's store does not pickle by itself, and a client of Ray is sent it in one piece.
        return Parts, (self.data, [pickle.PickleBuffer(buffer) for buffer in self.buffers], self.references)


Packed: TypeAlias = bytes | Parts

PLAIN = frozenset({int, float, complex, bool, str, bytes, type(None)})
"""Types whose values pickle packs by itself: the same bytes, in a quarter of the time."""

_reference_types: set[type] = set()


def register_reference_type(reference_type: type) -> None:
    """Packs objects of exactly this type as references from now on."""
    _reference_types.add(reference_type)


class _Chunks:
    """The file that a pickler writes to: a list of what it wrote."""

    def __init__(self) -> None:
        self.written: list[Any] = []
        self.write = self.written.append


class _Packer(cloudpickle.CloudPickler):  # type: ignore[misc]  # cloudpickle is untyped.
    """A pickler that is used again and again; making a new one costs more than packing a small input."""

    def __init__(self) -> None:
        self._chunks = _Chunks()
        self._buffers: list[Any] = []
        self._references: list[Any] = []
        self._users_files_by_value = False
        super().__init__(self._chunks, protocol=PROTOCOL, buffer_callback=self._keep_in_band)

    def pack(self, value: object, *, users_files_by_value: bool) -> Packed:
        self._users_files_by_value = users_files_by_value
        self.dump(value)
        written = self._chunks.written
        data = written[0] if len(written) == 1 else b"".join(written)
        written.clear()
        self.clear_memo()
        if self.globals_ref:
            self.globals_ref.clear()
        if not self._buffers and not self._references:
            return cast(bytes, data)
        parts = Parts(data, self._buffers.copy(), self._references.copy())
        self._buffers.clear()
        self._references.clear()
        return parts

    def _keep_in_band(self, buffer: pickle.PickleBuffer) -> bool:
        if memoryview(buffer).nbytes <= LARGE_BYTES:
            return True
        self._buffers.append(buffer)
        return False

    def reducer_override(self, obj: Any) -> Any:
        """How to rebuild an object that is not a plain int, str, list and so on."""
        if type(obj) in _reference_types:
            self._references.append(obj)
            return _reference_at, (len(self._references) - 1,)
        if type(obj) is CodeType:
            rebuild, args = self.dispatch_table[CodeType](obj)
            return _code_of_file, (obj.co_filename, rebuild, args)
        if self._users_files_by_value:
            if is_defined_by_user(obj):
                return self._reduce_by_value(obj)
            if type(obj) is ContextVar:  # Of a module of the user's, which is made anew, too.
                return _context_variable, (obj.name, *_default_of(obj))
        return super().reducer_override(obj)

    def _reduce_by_value(self, obj: Any) -> Any:
        module = obj if isinstance(obj, ModuleType) else sys.modules[obj.__module__]
        # Modules and type variables have a reducer of their own, which asks the registry too.
        reduce = self.dispatch_table.get(type(obj), super().reducer_override)
        with _by_value_lock:
            if module.__name__ in list_registry_pickle_by_value():
                return reduce(obj)
            cloudpickle.register_pickle_by_value(module)
            try:
                return reduce(obj)
            finally:
                cloudpickle.unregister_pickle_by_value(module)


_by_value_lock = threading.RLock()
"""Held while cloudpickle's registry, which is one for the process, names a module of the user's."""


class _ThreadState(threading.local):
    packer: _Packer | None = None
    """Between uses; None while in use, so that a `__reduce__` which packs gets a packer of its own."""
    references: Sequence[Any] = ()
    """Of the value that is being unpacked."""


_thread = _ThreadState()


def pack(value: object, *, users_files_by_value: bool = False) -> Packed:
    """The value as bytes, or as `Parts` where it holds large buffers or references.

    Args:
        value: Anything that cloudpickle takes.
        users_files_by_value: Whether functions and classes of the user's own modules travel with it.

    Raises:
        Exception: Whatever cloudpickle or the value's own `__reduce__` raises.
    """
    if type(value) in PLAIN:
        return pickle.dumps(value, PROTOCOL)
    packer = _thread.packer or _Packer()
    _thread.packer = None
    packed = packer.pack(value, users_files_by_value=users_files_by_value)
    _thread.packer = packer  # Not after a failure: that packer holds half a value.
    return packed


def packed_size(packed: Packed) -> int:
    """Bytes in all, out-of-band buffers included; what references point to is not counted."""
    if isinstance(packed, bytes):
        return len(packed)
    return len(packed.data) + sum(memoryview(buffer).nbytes for buffer in packed.buffers)


def unpack(packed: Packed, references: Sequence[Any] | None = None) -> Any:
    """The value again.

    Args:
        packed: What `pack` returned.
        references: What to put where references were, in their order; by default the references themselves.

    Raises:
        Exception: Whatever unpickling raises.
    """
    if isinstance(packed, bytes):
        return pickle.loads(packed)
    outer = _thread.references
    _thread.references = packed.references if references is None else references
    try:
        return pickle.loads(packed.data, buffers=packed.buffers)
    finally:
        _thread.references = outer


def _code_of_file(filename: str, rebuild: Callable[..., CodeType], args: tuple[Any, ...]) -> CodeType:
    """Code with the name of its file, which cloudpickle leaves out and a remote traceback needs."""
    return rebuild(*args).replace(co_filename=filename)


def _default_of(variable: ContextVar[Any]) -> tuple[Any, ...]:
    """Its default, if it has one."""
    try:
        return (Context().run(variable.get),)
    except LookupError:
        return ()


def _context_variable(name: str, *default: Any) -> ContextVar[Any]:
    return ContextVar(name, default=default[0]) if default else ContextVar(name)


def _reference_at(index: int) -> Any:
    return _thread.references[index]
