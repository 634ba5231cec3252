"""The containers that live, by what Ray says of their actors."""

from __future__ import annotations

from ray._private.state import actors

from flexray.runtime import roster


def containers() -> dict[str, int]:
    """Id to process of every container that is not dead; 0 while it has none."""
    found = {}
    listed = actors()
    for container_id in roster.container_ids():
        handle = roster.find(container_id)
        actor = None if handle is None else listed.get(handle._actor_id.hex())
        if actor is not None and actor["State"] != "DEAD":
            found[container_id] = int(actor["Pid"])
    return found


def exists(container_id: str) -> bool:
    """Whether Ray's head knows its actor."""
    handle = roster.find(container_id)
    return handle is not None and bool(actors(handle._actor_id.hex()))


def containers_of(app_name: str) -> list[str]:
    """The ids of those of an app that runs for its caller, earlier runs of it included."""
    return [container_id for container_id in containers() if container_id.startswith(f"{app_name}.")]
