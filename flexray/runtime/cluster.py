"""FlexRay on a cluster as a whole: what is there, and the end of all of it.

One rule: nothing is started here, and nothing here needs a controller that understands this process.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayError
from ray.util.client import ray as client

from flexray.errors import Error
from flexray.runtime import roster
from flexray.runtime.session import connect, join_ray
from flexray.runtime.wire import (
    CALL_QUEUE_NAME,
    CONTROLLER_NAME,
    EXIT_GRACE_S,
    LOGS_NAME,
    NAMESPACE,
    ContainerInfo,
    ControllerInfo,
)

END_TIMEOUT_S = 10.0 + EXIT_GRACE_S
AGAIN_S = 0.2
OF_THE_HEAD = (CONTROLLER_NAME, CALL_QUEUE_NAME, LOGS_NAME)


class NodeView(NamedTuple):
    """A node that lives."""

    node_id: str
    address: str
    is_head: bool
    total: dict[str, float]
    """Ray's resources: `CPU`, `GPU`, `memory` in bytes, and others."""
    free: dict[str, float] | None
    """None: that cannot be asked from here."""


class ClusterView(NamedTuple):
    """A look at a cluster."""

    ray_version: str
    nodes: list[NodeView]
    controller: ControllerInfo | None
    """None: none runs, and nothing is deployed or running therefore."""
    containers: list[ContainerInfo]
    call_queue: bool
    """Whether it runs: it is started at the first spawn."""
    logs: bool
    """Whether their actor runs: it is started when a container of a deployed app prints."""


def view() -> ClusterView:
    """Look at the cluster.

    Raises:
        ExecutionError: There is none, or its controller speaks another protocol.
    """
    join_ray()
    running = {name for name in OF_THE_HEAD if _actor(name) is not None}
    controller, containers = None, []
    if CONTROLLER_NAME in running:
        session = connect(join=True)
        controller, containers = session.info(), session.containers()
    return ClusterView(
        ray_version=ray.__version__,
        nodes=_nodes(),
        controller=controller,
        containers=containers,
        call_queue=CALL_QUEUE_NAME in running,
        logs=LOGS_NAME in running,
    )


def _nodes() -> list[NodeView]:
    free = _free_by_node()
    return [
        NodeView(
            node_id=node["NodeID"],
            address=node["NodeManagerAddress"],
            is_head="node:__internal_head__" in node["Resources"],
            total=_own(node["Resources"]),
            free=_own(free[node["NodeID"]]) if node["NodeID"] in free else None,
        )
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"]
    ]


def _own(resources: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in sorted(resources.items()) if not name.startswith("node:")}


def _free_by_node() -> dict[str, dict[str, float]]:
    """What nobody has taken, by node; Ray's public call gives only the sum."""
    from ray._private.state import available_resources_per_node  # noqa: PLC0415  # May move in a later Ray.

    free: dict[str, dict[str, float]] = {}
    with contextlib.suppress(RayError):  # A client (`ray://`) cannot ask.
        free = available_resources_per_node()  # type: ignore[no-untyped-call]
    return free


def shutdown(*, stop_apps: bool) -> int:
    """End the controller, the call queue, the logs and all containers; returns how many actors that were.

    Exit hooks run. What is deployed and spawned is kept on the head node and is taken up by the next
    controller; with `stop_apps` deployed apps are stopped first, so that they do not come back.
    """
    join_ray()
    controller = _actor(CONTROLLER_NAME)
    if controller is not None and stop_apps:
        session = connect(join=True)
        for deployment in session.deployments():
            session.stop_app(deployment.name)
    ended = dict.fromkeys([*_of_the_head(), *roster.container_ids()])
    if controller is not None:
        with contextlib.suppress(RayError, AttributeError, Error):  # It may be dead, or of another version.
            ray.get(controller.end.remote(), timeout=END_TIMEOUT_S)
    until = time.monotonic() + END_TIMEOUT_S
    while time.monotonic() < until:
        head, containers = _of_the_head(), roster.container_ids()
        if not head and not containers:
            break
        ended.update(dict.fromkeys([*head, *containers]))
        # Ray forgets the class of containers with the last actor of the job that made the controller.
        handles = _handles(containers)
        for name in head:
            _kill(_actor(name))
        for container_id in containers:  # They may still print, which starts the logs again.
            _kill(handles.get(container_id))
            roster.drop(container_id)
        time.sleep(AGAIN_S)
    return len(ended)


def _of_the_head() -> list[str]:
    """Those that run, what makes others first."""
    return [name for name in OF_THE_HEAD if _actor(name) is not None]


def _handles(container_ids: list[str]) -> dict[str, Any]:
    """Of containers that are not known to be dead."""
    if not client.is_connected():  # type: ignore[no-untyped-call]
        return _handles_here(container_ids)
    handles: dict[str, Any] = ray.get(ray.remote(num_cpus=0)(_handles_here).remote(container_ids))
    return handles


def _handles_here(container_ids: list[str]) -> dict[str, Any]:
    """In a process of the cluster: Ray Client can hold handles, and cannot read them."""
    found = {container_id: roster.find(container_id) for container_id in container_ids}
    return {container_id: listed.handle for container_id, listed in found.items() if listed is not None}


def _kill(handle: Any) -> None:
    if handle is not None:
        ray.kill(handle)


def _actor(name: str) -> Any:
    try:
        return ray.get_actor(name, namespace=NAMESPACE)
    except ValueError:
        return None
