"""The nodes that a cluster has, and the types of node that its autoscaler may add.

One rule: a type that may be added counts as a node, for whatever it can hold can be held; that none of it has
been started yet makes no difference to where a container may run. A type of which the cloud has just refused
a node says so under SoldOut.

Ray tells nobody which types there are, so they are read where its autoscaler reads them: in the file that the
head node was started with. Where there is none (KubeRay keeps the types in Kubernetes, and a Ray without an
autoscaler has none) only the nodes that live are known.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RpcError

from flexray.runtime.placement import Node

MONITOR_FILE = "--autoscaling-config="
"""How the autoscaler's process is told its file."""
STATUS_TIMEOUT_S = 2
SOLD_OUT_S = 300.0
"""For so long after the cloud has refused a node, others of its type are not counted on."""


def known_nodes() -> list[Node]:
    """What `ray.nodes()` lists, and an entry for each type that may be added. Asked for on the head node."""
    nodes: list[Node] = ray.nodes()  # type: ignore[no-untyped-call]
    address = ray.get_runtime_context().gcs_address
    types = _types_of(address)
    refused = _refused(address) if types else {}
    return [*nodes, *({**each, "SoldOut": refused.get(each["NodeType"])} for each in types)]


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


def _refused(gcs_address: str) -> dict[str, str]:
    """Types of node of which the autoscaler could not launch one lately, with what the cloud said."""
    from ray.autoscaler.v2.sdk import get_cluster_status  # noqa: PLC0415  # Only where there are types.

    try:
        failed = get_cluster_status(gcs_address, timeout=STATUS_TIMEOUT_S).failed_launches
    except (RpcError, RuntimeError, ValueError):  # An autoscaler v1 tells nothing.
        return {}
    since = time.time() - SOLD_OUT_S
    return {each.ray_node_type_name: each.details or "" for each in failed if (each.failed_ts_s or 0) > since}


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
