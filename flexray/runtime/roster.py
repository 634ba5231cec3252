"""Which containers there are: the handles of their actors by their ids, in the key-value store of Ray's head.

One rule: whoever makes a container writes its handle here, and whoever looks for one reads it: a controller
after a restart, the call queue. What is here lives as long as the cluster does, as actors do; an entry may
outlive its actor, and then says nothing.

Ray could find actors by name, but a process that makes named ones grows by 50 KB with each, for ever, and by
10 KB without (seen).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ray import cloudpickle
from ray.exceptions import RayError
from ray.experimental.internal_kv import (
    _internal_kv_del,
    _internal_kv_get,
    _internal_kv_list,
    _internal_kv_put,
)

from flexray.config import Gpu

KEYS = "container:"
SPACE = "flexray"


class Listed(NamedTuple):
    """A container that was made."""

    handle: Any
    gpu: Gpu | None = None
    """What it asks for."""


def add(container_id: str, made: Listed) -> None:
    """From now on it can be found."""
    data: bytes = cloudpickle.dumps(tuple(made))  # type: ignore[no-untyped-call]
    _internal_kv_put(_key(container_id), data, namespace=SPACE)


def drop(container_id: str) -> None:
    """It is dead."""
    _internal_kv_del(_key(container_id), namespace=SPACE)


def find(container_id: str) -> Listed | None:
    """What was added; None where it is dead and that is known.

    Raises:
        RayError: Ray's head cannot be asked.
    """
    data: bytes | None = _internal_kv_get(_key(container_id), namespace=SPACE)
    if data is None:
        return None
    try:
        return Listed(*cloudpickle.loads(data))
    except RayError:
        raise
    except Exception:  # noqa: BLE001  # Ray forgets the class of an actor together with the last of its job.
        return None


def container_ids() -> list[str]:
    """All that may be alive."""
    keys = _internal_kv_list(KEYS, namespace=SPACE)
    return sorted(key.decode().removeprefix(KEYS) for key in keys)


def _key(container_id: str) -> bytes:
    return (KEYS + container_id).encode()
