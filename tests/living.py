"""The containers that live, by what Ray says of their actors."""

from __future__ import annotations

from ray._private.state import actors

from flexray.runtime import roster
from flexray.runtime.actors import Container, LoopContainer


def containers() -> dict[str, int]:
    """Id to process of every container that is not dead; 0 while it has none."""
    found = {}
    listed = actors()
    for container_id in roster.container_ids():
        made = roster.find(container_id)
        actor = None if made is None else listed.get(made.handle._actor_id.hex())
        if actor is not None and actor["State"] != "DEAD":
            found[container_id] = int(actor["Pid"])
    return found


def strays() -> list[str]:
    """Actors of containers that live and that nobody can find."""
    found = [roster.find(container_id) for container_id in roster.container_ids()]
    known = {made.handle._actor_id.hex() for made in found if made is not None}
    kinds = {Container.__name__, LoopContainer.__name__}
    alive = {key: one for key, one in actors().items() if one["State"] != "DEAD"}
    return [key for key, one in alive.items() if one["ActorClassName"] in kinds and key not in known]


def exists(container_id: str) -> bool:
    """Whether Ray's head knows its actor."""
    made = roster.find(container_id)
    return made is not None and bool(actors(made.handle._actor_id.hex()))


def containers_of(app_name: str) -> list[str]:
    """The ids of those of an app that runs for its caller, earlier runs of it included."""
    return [container_id for container_id in containers() if container_id.startswith(f"{app_name}.")]
