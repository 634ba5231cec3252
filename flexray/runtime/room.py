"""Which pools give up idle containers, for others that Ray has no room for.

One rule: only what would help is given up: a container that holds at least what one of the other pool asks
for. How many, and from whom, is decided by `core.sharing`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from flexray.config import Resources
from flexray.core.ledger import State
from flexray.core.sharing import PoolNeed, share
from flexray.runtime.nodetypes import known_nodes
from flexray.runtime.placement import actor_options, infeasible
from flexray.runtime.poolhost import PoolHost

AGAIN_S = 5.0
"""Containers end, Ray places others and their processes start before more is given up for the same shape."""
NO_ROOM_S = 1.0
"""Ray has not placed a launch for so long: there is no room for it."""

Shape = tuple[tuple[tuple[str, float], ...], tuple[str, ...]]
"""(resource and amount, sorted; kinds of GPU, if they matter) of one container."""


class Room:
    """Remembers for which shapes of containers room was made a moment ago."""

    def __init__(self) -> None:
        self._made_at: dict[Shape, float] = {}

    def give_ups(self, hosts: Sequence[PoolHost]) -> dict[str, int]:
        """Idle containers to stop now, by pool."""
        now = time.monotonic()
        waiting: dict[Shape, list[PoolHost]] = {}
        for host in hosts:
            if _lacks_room(host, now):
                waiting.setdefault(_shape(host.spec.config.resources), []).append(host)
        self._made_at = {shape: at for shape, at in self._made_at.items() if now - at < AGAIN_S}
        open_shapes = [shape for shape in waiting if shape not in self._made_at]
        if not open_shapes:
            return {}
        nodes = known_nodes()
        needs = {host: _need(host, now) for host in hosts}
        found: dict[str, int] = {}
        for shape in open_shapes:
            lacking = waiting[shape]
            if infeasible(actor_options(lacking[0].spec.config.resources, nodes), nodes) is not None:
                continue  # No node can ever hold it, whatever is given up.
            donors = [
                host
                for host in hosts
                if host not in lacking and _holds(_shape(host.spec.config.resources), shape)
            ]
            shares = share([needs[host] for host in (*lacking, *donors)], room=0)
            for pool_id, count in shares.give_ups.items():
                found[pool_id] = max(found.get(pool_id, 0), count)
            if shares.give_ups:
                self._made_at[shape] = now
        return found


def _lacks_room(host: PoolHost, now: float) -> bool:
    oldest = next(iter(host.pool.ledger.by_state[State.LAUNCHED].values()), None)
    waits = oldest is not None and now - oldest.launched_at > NO_ROOM_S
    return waits and bool(host.pool.callers.demand)


def _need(host: PoolHost, now: float) -> PoolNeed:
    """Its launches without a place are what it misses."""
    need = host.pool.scaling.need(host.spec.pool_id, now)
    return replace(need, live=need.live - host.pool.ledger.count(State.LAUNCHED))


def _shape(resources: Resources) -> Shape:
    gpus = float(resources.gpu[0].count if resources.gpu else resources.num_gpus or 0.0)
    amounts = {**resources.resources, "CPU": resources.cpu, "GPU": gpus}
    kinds = tuple(sorted({gpu.kind for gpu in resources.gpu if gpu.kind != "any"}))
    return tuple(sorted((name, amount) for name, amount in amounts.items() if amount)), kinds


def _holds(one: Shape, other: Shape) -> bool:
    """Whether a container of the one holds what one of the other asks for."""
    has: Mapping[str, float] = dict(one[0])
    enough = bool(other[0]) and all(has.get(name, 0.0) >= amount for name, amount in other[0])
    return enough and (not other[1] or not set(one[1]).isdisjoint(other[1]))
