"""Is the process that reported still alive.

One rule: Ray's word counts and silence does not. A caller whose C code holds
the interpreter for 15 s, or that is stopped by a debugger, is silent and alive.

Ray has no public call for this, so `is_alive` is the one place that asks its worker table. What it answered
on Ray 2.60, about 1 ms a question: False 0.03 s after SIGKILL of a driver, an actor or a task's worker; False
after `ray.shutdown()`, `exit_actor()` and `ray.kill`; True through seconds of SIGSTOP.
"""

from __future__ import annotations

import logging
import re
from typing import Any

import ray

logger = logging.getLogger(__name__)

IDENTITY = re.compile(r"([0-9a-f]{56})@([0-9a-f]{56})")
"""What `process_id` gives: Ray's ids have 28 bytes."""

NODE_CHECK_TIMEOUT_S = 2.0
"""How long the question about the node may take: while the head is away, it comes back as "not known"."""


def process_id() -> str:
    """The identity of this process in the cluster: its worker id, `@`, and its node id, both hexadecimal.

    Ray gives every driver and every worker process an id of its own, and never gives one twice in a cluster.
    """
    context = ray.get_runtime_context()
    return f"{context.get_worker_id()}@{context.get_node_id()}"


def is_alive(process: str) -> bool | None:
    """Whether the process with that `process_id` lives, or None where that cannot be known now.

    A process that Ray no longer lists is dead: the table forgets dead processes only. None means that the
    head did not answer, that `process` is no identity, or that this Ray cannot be asked: then the caller
    falls back on silence. Works in any process connected to the cluster. While the head is away it blocks
    for seconds, so an event loop asks from a thread.
    """
    identity = IDENTITY.fullmatch(process)
    if identity is None:
        return None  # Ray would take it for the id of nobody, who is dead.
    try:
        return _ask_ray(*identity.groups())
    except Exception as error:  # noqa: BLE001  (A private interface may fail in any way; all mean "not known".)
        logger.debug("cannot tell whether %s is alive: %r", process, error)
        return None


def _ask_ray(worker_id: str, node_id: str) -> bool:
    # Imported here, for they are private: if a later Ray moves them, that means "not known" and no more.
    from ray._private.state import state  # noqa: PLC0415
    from ray._private.worker import global_worker  # noqa: PLC0415
    from ray.core.generated import gcs_pb2  # noqa: PLC0415

    node = ray.NodeID.from_hex(node_id)
    worker = ray.WorkerID.from_hex(worker_id)
    # First the node: this question has a timeout, and the other would wait for the head for a minute.
    head: Any = global_worker.gcs_client  # type: ignore[attr-defined]  # Set while connected.
    if not head.check_alive([node], timeout=NODE_CHECK_TIMEOUT_S)[0]:
        return False
    entry = state._connect_and_get_accessor().get_worker_info(worker)  # noqa: SLF001
    table: Any = gcs_pb2  # Generated, and without types.
    return entry is not None and bool(table.WorkerTableData.FromString(entry).is_alive)


def leaving_nodes() -> frozenset[str]:
    """The ids of nodes that Ray drains: they will go, idle or preempted; none where that cannot be known.

    Ray Serve asks in the same way, for Ray has no public call for it.
    """
    from ray._private.worker import global_worker  # noqa: PLC0415  # May move in a later Ray.

    try:
        head: Any = global_worker.gcs_client  # type: ignore[attr-defined]  # Set while connected.
        return frozenset(head.get_draining_nodes(timeout=NODE_CHECK_TIMEOUT_S))
    except Exception as error:  # noqa: BLE001  (A private interface may fail in any way.)
        logger.debug("cannot tell which nodes will go: %r", error)
        return frozenset()
