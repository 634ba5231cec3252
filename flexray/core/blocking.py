"""Why inputs wait that time alone does not help: no room in the cluster, or containers that block each other.

One rule: a pool whose inputs wait for containers in which its own callers sit is named with those callers,
there and wherever they are waited for (protocol rule 17).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


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
