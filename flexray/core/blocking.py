"""Why inputs wait that time alone does not help: no room in the cluster, or containers that block each other.

One rule: a pool whose inputs wait for containers in which its own callers sit is named with those callers,
there and wherever they are waited for (protocol rule 17).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from flexray.core.autoscaler import GIVE_UP_AFTER
from flexray.core.ledger import State
from flexray.core.pool import Pool
from flexray.core.scaling import Scaling
from flexray.errors import ContainerStartError

NOTICE_AFTER_S = 10.0
"""A pool in which nothing was placed, or to which nothing may be added, for so long stands still."""


class Place(NamedTuple):
    """Where a container of a pool could run."""

    shape: str
    """What it asks for, in words."""
    impossible: str | None = None
    """Why no node can ever hold it."""
    sold_out: str | None = None
    """Why no node that can hold it comes now."""


@dataclass(frozen=True, slots=True)
class Standstill:
    """One pool whose inputs wait and which has not grown for a while."""

    name: str
    """The function's."""
    reason: str
    """What it waits for, as "waits for {CPU: 1} since 20 s"; or the bound that it has reached."""
    ready: int
    """Containers that it has."""
    link: str = "which"
    """What connects the reason to the pool's name in a sentence."""
    bounded: bool = False
    """It has as many as it may have, which is a standstill only if all of them wait."""
    homes: Mapping[str, int] = field(default_factory=dict)
    """Of each pool, its containers in which somebody waits for an input of this one, running or not."""


class Watch:
    """Whether the inputs of one pool are held up, and since when."""

    def __init__(self, name: str, pool: Pool) -> None:
        self._name = name
        self._pool = pool
        self._bounded_since: float | None = None
        self._steps = 0
        self._found: Standstill | None = None

    def look(self, now: float, place: Callable[[], Place]) -> Standstill | None:
        """What holds inputs up: starts fail; or nothing was placed, or nothing may be added, for a while.

        `place` is asked once per `NOTICE_AFTER_S`, and only where something waits for a place.
        """
        pool = self._pool
        if pool.scaling.failed_starts and pool.callers.demand:
            return self._standstill(_failed_starts(pool.scaling))
        unplaced = next(iter(pool.ledger.by_state[State.LAUNCHED].values()), None)
        self._bounded_since = (self._bounded_since or now) if pool.is_bounded else None
        since = self._bounded_since if unplaced is None else unplaced.launched_at
        steps = 0 if since is None else int((now - since) // NOTICE_AFTER_S)
        if steps != self._steps:
            self._steps = steps
            self._found = self._describe(steps * NOTICE_AFTER_S, None if unplaced is None else place)
        return self._found

    def _describe(self, waited_s: float, place: Callable[[], Place] | None) -> Standstill | None:
        if not waited_s:
            return None
        if place is None:
            most = f"may have no more containers (max_containers={self._pool.ledger.ready})"
            return self._standstill(most, bounded=True)
        shape, impossible, sold_out = place()
        if impossible is not None:
            return self._standstill(impossible, link="but")
        why = "" if sold_out is None else f": {sold_out}"
        return self._standstill(f"waits for {shape} since {waited_s:.0f} s{why}")

    def _standstill(self, reason: str, link: str = "which", *, bounded: bool = False) -> Standstill:
        ready, homes = self._pool.ledger.ready, self._pool.callers.homes
        return Standstill(self._name, reason, ready, link, bounded, homes)


def _failed_starts(scaling: Scaling) -> str:
    of_all = "" if scaling.ever_ready else f" of {GIVE_UP_AFTER}"
    failure = scaling.failure
    why = failure.reason if isinstance(failure, ContainerStartError) else failure
    return f"has had {scaling.failed_starts}{of_all} failed starts, the last by {why}"


def notices(pools: Mapping[str, Standstill], names: Mapping[str, str]) -> dict[str, str]:
    """Of each pool, why its inputs wait: what it says itself, or what its containers wait for."""
    stuck = {pool_id for pool_id, pool in pools.items() if not pool.bounded}
    stuck |= _deadlocked(pools, stuck)
    said = {pool_id: _sentence(pools[pool_id], names) for pool_id in pools if pool_id in stuck}
    reached = list(said)
    for pool_id in reached:  # It grows: whoever waits for a container that waits is told the same.
        for home in pools[pool_id].homes if pool_id in pools else ():
            if home not in said and home in names:
                said[home] = said[pool_id]
                reached.append(home)
    return said


def held_up(pools: Mapping[str, Pool]) -> set[str]:
    """Pools whose inputs wait for a pool that has no container, or for one that is held up itself.

    They end nothing for a while, and more containers of them would only wait, too.
    """
    reached = [pool for pool in pools.values() if pool.callers.demand and not pool.ledger.ready]
    held: set[str] = set()
    for pool in reached:  # It grows.
        for home in pool.callers.homes:
            if home not in held:
                held.add(home)
                reached += [pools[home]] if home in pools else []
    return held


def _deadlocked(pools: Mapping[str, Standstill], stuck: Iterable[str]) -> set[str]:
    """Of the pools at their bound, those whose containers all wait for a pool that is stuck, too."""
    rest = {pool_id for pool_id, pool in pools.items() if pool.bounded}
    while True:
        waits: dict[str, int] = {}
        for pool_id in rest.union(stuck):
            for home, count in pools[pool_id].homes.items():
                waits[home] = waits.get(home, 0) + count
        moving = {pool_id for pool_id in rest if waits.get(pool_id, 0) < pools[pool_id].ready}
        if not moving:
            return rest
        rest -= moving


def _sentence(pool: Standstill, names: Mapping[str, str]) -> str:
    callers = [(count, names[home]) for home, count in pool.homes.items() if home in names]
    if not callers:
        return pool.reason
    said = [f"{count:,} of {name}" for count, name in callers]
    count, name = callers[0]
    said[0] = f"{count:,} container{'s' if count > 1 else ''} of {name}"
    verb = "waits" if len(callers) == count == 1 else "wait"
    return f"{' and '.join(said)} {verb} for {pool.name}, {pool.link} {pool.reason}"
