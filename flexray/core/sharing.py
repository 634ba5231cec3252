"""Which pools give up idle containers, for others that Ray has no room for.

One rule: a container in use is never taken, and only what would help is given up: idle containers beyond what
their pool needs, each of which holds at least what one of the other pool asks for. Those with the most to
spare give first. What is free is Ray's to give, to launches that take turns (`runtime/launcher.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heapreplace

from flexray.config import Resources

AGAIN_S = 30.0
"""What was given up for a shape and has not helped by then did not help: others give up more. Until then its
process may be starting, and its environment be made."""
NO_ROOM_S = 1.0
"""Ray has not placed a launch for so long: there is no room for it."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What one container asks of its node."""

    amounts: frozenset[tuple[str, float]]
    """Resources with how much of each, above 0."""
    kinds: frozenset[str] = frozenset()
    """Of GPU, any of which will do; none: it does not matter."""
    labels: frozenset[tuple[str, str]] = frozenset()

    @classmethod
    def of(cls, resources: Resources) -> Shape:
        gpus = float(resources.gpu[0].count if resources.gpu else resources.num_gpus or 0.0)
        own = {"CPU": resources.cpu, "GPU": gpus, "memory": float(resources.memory or 0)}
        amounts = {**resources.resources, **own}
        return cls(
            frozenset((name, amount) for name, amount in amounts.items() if amount),
            frozenset(gpu.kind for gpu in resources.gpu if gpu.kind != "any"),
            frozenset(resources.label_selector.items()),
        )

    def holds(self, other: Shape) -> bool:
        """Whether a container of this shape makes room for one of the other."""
        has = dict(self.amounts)
        enough = bool(other.amounts) and all(has.get(name, 0.0) >= amount for name, amount in other.amounts)
        right_kind = not other.kinds or not self.kinds.isdisjoint(other.kinds)
        return enough and right_kind and other.labels <= self.labels


@dataclass(frozen=True, slots=True)
class PoolNeed:
    """What one pool has and wants."""

    pool_id: str
    shape: Shape
    missing: int = 0
    """Containers that its decision asks for and that have no place yet."""
    spare: int = 0
    """Idle ones above what the pool needs: above its minimum, its buffer and its sustained load."""
    lacks_room: bool = False
    """Inputs wait, and Ray does not place what was launched for them."""


@dataclass(slots=True)
class _Made:
    """Room that was made for containers of one shape."""

    count: int
    """Of those that have no place yet, how many it should be enough for."""
    at: float


class Sharing:
    """Remembers for which shapes of containers room was made."""

    def __init__(self) -> None:
        self._made: dict[Shape, _Made] = {}

    def give_ups(self, needs: Sequence[PoolNeed], now: float) -> dict[str, int]:
        """Idle containers to stop now, by pool."""
        missing: dict[Shape, int] = {}
        for need in needs:
            if need.lacks_room:
                missing[need.shape] = missing.get(need.shape, 0) + need.missing
        self._made = {
            shape: _Made(min(made.count, missing[shape]), made.at)
            for shape, made in self._made.items()
            if shape in missing and now - made.at < AGAIN_S
        }
        spare = {need.pool_id: need.spare for need in needs if not need.missing}
        found: dict[str, int] = {}
        for shape, count in missing.items():
            donors = [n.pool_id for n in needs if n.pool_id in spare and n.shape.holds(shape)]
            made = self._made.get(shape)
            wanted = count - (made.count if made else 0)
            given = _most_first({pool_id: spare[pool_id] for pool_id in donors}, wanted)
            for pool_id, stopped in given.items():
                spare[pool_id] -= stopped
                found[pool_id] = found.get(pool_id, 0) + stopped
            if given:
                self._made[shape] = _Made(sum(given.values()) + (made.count if made else 0), now)
        return found


def spare_containers(*, ready: int, idle: int, needed: int) -> int:
    """Return how many idle ones a pool holds above `needed` ready ones."""
    return max(0, min(idle, ready - needed))


def _most_first(spare: dict[str, int], wanted: int) -> dict[str, int]:
    """Take so many one by one, each from the pool with the most left."""
    given: dict[str, int] = {}
    queue = [(-count, pool_id) for pool_id, count in spare.items() if count]
    heapify(queue)
    while wanted and queue:
        left, pool_id = queue[0]
        given[pool_id] = given.get(pool_id, 0) + 1
        wanted -= 1
        if left == -1:
            heappop(queue)
        else:
            heapreplace(queue, (left + 1, pool_id))
    return given
