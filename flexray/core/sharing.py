"""Who may start containers when the cluster has too little room for all pools, and who gives some up.

One rule: room goes, one container at a time, to the pool that has fewest of those that miss any, ties to the
pool whose oldest input has waited longest. So a pool that wants little gets all of it, and those that want
more than there is end up with equally many (max-min fairness). `runtime/room.py` asks with no room, for what
is to be given up: free room is Ray's to give, to launches that take turns (`runtime/launcher.py`).

What is free is shared first. Where that is not enough, pools give up idle containers that they hold above
their need, those with the most of them first; a container in use is never taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heapreplace


@dataclass(frozen=True, slots=True)
class PoolNeed:
    """What one pool has and wants."""

    pool_id: str
    want: int
    """Containers that its decision asks for."""
    live: int
    """Ready, starting and unplaced."""
    waited_s: float = 0.0
    """How long its oldest waiting input has waited; 0 while none waits."""
    spare: int = 0
    """Idle ones above what the pool needs: above its minimum, its buffer and its sustained load."""

    @property
    def missing(self) -> int:
        return max(0, self.want - self.live)


@dataclass(frozen=True, slots=True)
class Shares:
    """What follows for the pools named; all others neither start nor give up anything."""

    grants: dict[str, int] = field(default_factory=dict)
    """Launches that may begin now, by pool."""
    give_ups: dict[str, int] = field(default_factory=dict)
    """Idle containers to stop now, by pool, for others that wait."""


def share(needs: Sequence[PoolNeed], room: int, unplaced: int = 0) -> Shares:
    """Divide `room`, the launches that the cluster takes now, among pools that want more.

    `unplaced` launches of these pools have no place yet: they come first for whatever is given up, so only
    what goes beyond them is asked for. Only pools in which an input waits make others give up anything.
    """
    grants = _fill([need for need in needs if need.missing], max(0, room))
    waiting = sum(n.missing - grants.get(n.pool_id, 0) for n in needs if n.waited_s > 0.0)
    return Shares(grants, _give_ups(needs, max(0, waiting - unplaced)))


def spare_containers(*, ready: int, idle: int, needed: int) -> int:
    """Return how many idle ones a pool holds above `needed` ready ones."""
    return max(0, min(idle, ready - needed))


def _fill(wanting: Sequence[PoolNeed], room: int) -> dict[str, int]:
    """Max-min over the containers of each pool, up to what it wants."""
    grants: dict[str, int] = {}
    queue = [(n.live, -n.waited_s, n.pool_id, n.missing) for n in wanting]
    heapify(queue)
    while room and queue:
        live, waited_s, pool_id, missing = queue[0]
        grants[pool_id] = grants.get(pool_id, 0) + 1
        room -= 1
        if missing == 1:
            heappop(queue)
        else:
            heapreplace(queue, (live + 1, waited_s, pool_id, missing - 1))
    return grants


def _give_ups(needs: Sequence[PoolNeed], wanted: int) -> dict[str, int]:
    """So many idle ones, from the pools with the most to spare; none from one that wants more itself."""
    given: dict[str, int] = {}
    queue = [(-n.spare, n.waited_s, n.pool_id) for n in needs if n.spare and not n.missing]
    heapify(queue)
    while wanted and queue:
        left, waited_s, pool_id = queue[0]
        given[pool_id] = given.get(pool_id, 0) + 1
        wanted -= 1
        if left == -1:
            heappop(queue)
        else:
            heapreplace(queue, (left + 1, waited_s, pool_id))
    return given
