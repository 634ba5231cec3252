"""Which containers there are: the handles of their actors by their ids, in the key-value store of Ray's head.

One rule: whoever makes a container writes its handle here, and whoever looks for one reads it: a controller
after a restart, the call queue. What is here lives as long as the cluster does, as actors do.

Ray could find actors by name, but a process that makes named ones grows by 50 KB with each, for ever, and by
10 KB without (seen). A container whose maker dies before it has written this is known to nobody: it asks
after itself, and ends (`container.py`).
"""

from __future__ import annotations

from typing import Any

from ray import cloudpickle
from ray.experimental.internal_kv import (
    _internal_kv_del,
    _internal_kv_get,
    _internal_kv_list,
    _internal_kv_put,
)

KEYS = "container:"
SPACE = "flexray"


def add(container_id: str, handle: Any) -> None:
    """From now on it can be found."""
    data: bytes = cloudpickle.dumps(handle)  # type: ignore[no-untyped-call]
    _internal_kv_put(_key(container_id), data, namespace=SPACE)


def drop(container_id: str) -> None:
    """It is dead."""
    _internal_kv_del(_key(container_id), namespace=SPACE)


def find(container_id: str) -> Any:
    """Its handle; None where it is dead, and known to be."""
    data: bytes | None = _internal_kv_get(_key(container_id), namespace=SPACE)
    return None if data is None else cloudpickle.loads(data)


def container_ids() -> list[str]:
    """All that may be alive; of the newest dead ones nobody may know yet."""
    keys = _internal_kv_list(KEYS, namespace=SPACE)
    return sorted(key.decode().removeprefix(KEYS) for key in keys)


def _key(container_id: str) -> bytes:
    return (KEYS + container_id).encode()
