"""The nodes that a cluster has, and the types of node that its autoscaler may add.

One rule: a type that may be added counts as a node, for whatever it can hold can be held; that none of it has
been started yet makes no difference to where a container may run. A type of which the cloud has just refused
a node says so under SoldOut.

Ray tells nobody which types there are, so they are read where its autoscaler reads them: in the file that the
head node was started with. Where there is none (KubeRay keeps the types in Kubernetes, and a Ray without an
autoscaler has none) only the nodes that live are known.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray

from flexray.runtime.placement import Node

MONITOR_FILE = "--autoscaling-config="
"""How the autoscaler's process is told its file."""
STATUS_TIMEOUT_S = 2
SOLD_OUT_S = 300.0
"""For so long after the cloud has refused a node, others of its type are not counted on."""

_refused: dict[str, str] = {}
"""Types of node, with what the cloud said; of the one cluster that this process is connected to."""


def known_nodes() -> list[Node]:
    """What `ray.nodes()` lists, and an entry for each type that may be added. Asked for on the head node."""
    nodes: list[Node] = ray.nodes()  # type: ignore[no-untyped-call]
    types = _types_of(ray.get_runtime_context().gcs_address)
    return [*nodes, *({**each, "SoldOut": _refused.get(each["NodeType"])} for each in types)]


def look_for_refusals() -> None:
    """Ask the autoscaler which launches of nodes have failed lately; `known_nodes` tells it from then on.

    It may take seconds. An autoscaler v1 tells nothing, and where no types are known nothing is asked.
    """
    address = ray.get_runtime_context().gcs_address
    if not _types_of(address):
        return
    from ray.autoscaler.v2.sdk import get_cluster_status  # noqa: PLC0415  # Only where there are types.

    with contextlib.suppress(Exception):  # Ray raises many kinds of them here; the next look is soon.
        found = refusals(get_cluster_status(address, timeout=STATUS_TIMEOUT_S), time.time())
        _refused.clear()
        _refused.update(found)


def refusals(status: Any, now: float) -> dict[str, str]:
    """Types of node of which a launch has failed lately and none is on its way, with what the cloud said."""
    coming = {node.ray_node_type_name for node in status.pending_nodes}
    return {
        launch.ray_node_type_name: launch.details or ""
        for launch in status.failed_launches
        if launch.ray_node_type_name not in coming and (launch.failed_ts_s or 0) > now - SOLD_OUT_S
    }


def types_in(config: Mapping[str, Any]) -> list[Node]:
    """The types of a cluster's file of which there may be workers, each as if it were a living node.

    A type whose resources are known only on the machine (an on-premises host) says nothing, and is left out.
    """
    types: Mapping[str, Mapping[str, Any]] = config.get("available_node_types") or {}
    most = config.get("max_workers", 0)
    return [
        {
            "Alive": True,
            "NodeType": name,
            "Resources": dict(node_type["resources"]),
            "Labels": dict(node_type.get("labels") or {}),
        }
        for name, node_type in types.items()
        if node_type.get("resources") and node_type.get("max_workers", most) > 0
        if name != config.get("head_node_type")
    ]


def _types_of(gcs_address: str) -> list[Node]:
    path = _config_file(gcs_address)
    try:
        return [] if path is None else _read(path, path.stat().st_mtime_ns)
    except (OSError, ValueError, TypeError, AttributeError):
        return []  # It is the autoscaler's to complain about.


@functools.lru_cache(maxsize=1)
def _read(path: Path, _changed_at: int) -> list[Node]:
    import yaml  # type: ignore[import-untyped]  # noqa: PLC0415  # Ray brings it along; only heads need it.

    try:
        return types_in(yaml.safe_load(path.read_text()))
    except yaml.YAMLError as error:
        raise ValueError(path) from error


@functools.cache
def _config_file(gcs_address: str) -> Path | None:
    """The file of this cluster's autoscaler, as its command line on this machine has it."""
    import psutil  # type: ignore[import-untyped]  # noqa: PLC0415  # As above.

    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or ()
        if f"--gcs-address={gcs_address}" in words:
            for word in words:
                if word.startswith(MONITOR_FILE):
                    return Path(word.removeprefix(MONITOR_FILE)).expanduser()
    return None
