"""Which containers a pool has, and which leases are out on them.

One rule: a slot is free only when nobody can still believe to hold it; a container counts from the decision
to start it until Ray says that it is dead (protocol rules 1, 2, 6, 15).

```
launched -> loading -> ready -> stopping -> (gone)
   `-----------'---------'---------^   a crash: straight to gone
```
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from itertools import islice, takewhile

EQUALLY_IDLE_S = 1.0
EQUALS_MAX = 64
ANSWER_S = 15.0
"""A container found by a restarted controller is left alone for this long, unless it answers before."""


class State(Enum):
    LAUNCHED = "launched"
    """Ray has been asked for it and has not placed it."""
    LOADING = "loading"
    """Placed; the user's code is being loaded."""
    READY = "ready"
    STOPPING = "stopping"


@dataclass(slots=True)
class Container:
    container_id: str
    state: State
    launched_at: float
    idle_since: float
    slots: int = 1
    outdated: bool = False
    """It runs an earlier version, or its node goes soon: it is granted only until it is replaced."""
    leaves_node: bool = False
    """Its node goes soon."""
    node: str | None = None
    """Where it is, once that is known."""
    draining: bool = False
    """Nothing is granted on it any more; it stops when its last lease is back."""
    found: bool = False
    """Found by a restarted controller: its leases may be of an earlier epoch."""
    leases: dict[int, LeaseOut] = field(default_factory=dict)

    @property
    def is_starting(self) -> bool:
        return self.state in (State.LAUNCHED, State.LOADING)

    def may_be_stopped(self, now: float) -> bool:
        """Nothing can be running on it: no lease is out, and if it was found, it has had time to answer."""
        answered = not (self.found and self.is_starting) or now - self.launched_at > ANSWER_S
        return answered and not self.leases


@dataclass(slots=True)
class LeaseOut:
    number: int
    container: Container
    holder: str | None
    """Dispatcher id; None: the holder is dead, or unknown since the controller restarted."""
    granted_at: float
    whole: bool = False
    """It has all slots of the container."""
    listed_at: int | None = None
    """Number of the first reply that listed it; None: no reply has."""
    revoked_at: float | None = None
    """When it stopped being listed."""
    release_at: float | None = None
    """When the container is asked (again) to drop it."""


class Ledger:
    """The containers of one pool by state, and the leases out, with the free slots in dispatch order.

    Every change is O(1) in the number of containers.
    """

    def __init__(self, slots: int, target_slots: int | None = None) -> None:
        self.slots = slots
        """Slots of each container that is added."""
        self.target_slots = target_slots or slots
        """How many of them the pool is sized for; the others are used where no container has one of these."""
        self.outdated: dict[str, Container] = {}
        """Containers of an earlier version, whatever their state."""
        self.containers: dict[str, Container] = {}
        self.leases: dict[int, LeaseOut] = {}
        self.by_state: dict[State, dict[str, Container]] = {state: {} for state in State}
        self.draining: dict[str, Container] = {}
        """Ready containers that take nothing new and stop when their last lease is back."""
        self.reserved: dict[str, Container] = {}
        """Ready containers for one input alone: a whole lease is out there, or is to be when all are back."""
        self._on_node: dict[str, int] = {}
        """How many of the pool's containers are on each node."""
        self.orphans: dict[int, LeaseOut] = {}
        """Leases whose holder is dead, or has not reported since the controller restarted."""
        self.moves = 0
        """How often a container has changed its state, or gone."""
        self._room: list[dict[str, Container]] = []
        """At index n: containers that may be granted, with n leases out, the most recently used last."""
        self._outdated_room: dict[str, Container] = {}
        """Outdated ones that may be granted where none of these is."""
        self.resize(slots, target_slots)

    def resize(self, slots: int, target_slots: int | None) -> None:
        """Slots of the containers that are added from now on; those that are there must be outdated."""
        self.slots, self.target_slots = slots, target_slots or slots
        self._room = [{} for _ in range(slots)]
        self._grant_order = (*reversed(range(self.target_slots)), *range(self.target_slots, slots))

    def __len__(self) -> int:
        return len(self.containers)

    def count(self, state: State) -> int:
        return len(self.by_state[state])

    @property
    def ready(self) -> int:
        """Ready containers that may be granted."""
        return len(self.by_state[State.READY]) - len(self.draining)

    @property
    def serving_outdated(self) -> list[Container]:
        """Of those, the outdated ones: those whose node goes first, then those with the fewest leases."""
        serving = [c for c in self.outdated.values() if c.state is State.READY and not c.draining]
        return sorted(serving, key=lambda container: (not container.leaves_node, len(container.leases)))

    @property
    def current(self) -> int:
        """Of the ready ones, those that are not outdated."""
        return self.ready - (len(self.serving_outdated) if self.outdated else 0)

    @property
    def idle(self) -> int:
        """Ready containers that are not outdated, with no lease out."""
        return len(self._room[0])

    # Containers.

    def add(self, container_id: str, state: State, now: float, *, found: bool = False) -> Container:
        container = Container(container_id, state, now, now, self.slots, found=found)
        self.containers[container_id] = container
        self.by_state[state][container_id] = container
        return container

    def set_state(self, container: Container, state: State) -> None:
        self.moves += 1
        self._leave_room(container)
        del self.by_state[container.state][container.container_id]
        self.by_state[state][container.container_id] = container
        container.draining = False
        self.draining.pop(container.container_id, None)
        self.reserved.pop(container.container_id, None)
        container.state = state
        self._enter_room(container)

    def set_node(self, container: Container, node: str | None) -> None:
        """Ray has placed it there."""
        self._count_node(container, -1)
        container.node = node
        self._count_node(container, 1)

    def _count_node(self, container: Container, change: int) -> None:
        if container.node is not None:
            count = self._on_node[container.node] = self._on_node.get(container.node, 0) + change
            if not count:
                del self._on_node[container.node]

    def outdate(self, container: Container) -> None:
        """It is to be replaced; grant on it only where no other has room."""
        self._leave_room(container)
        container.outdated = True
        self.outdated[container.container_id] = container
        self._enter_room(container)

    def drain(self, container: Container) -> None:
        """Grant nothing on this ready container any more."""
        self._leave_room(container)
        container.draining = True
        self.draining[container.container_id] = container
        self.reserved.pop(container.container_id, None)

    def reserve(self, container: Container) -> None:
        """Grant nothing on this ready container but a whole lease."""
        self._leave_room(container)
        self.reserved[container.container_id] = container

    def unreserve(self, container: Container) -> None:
        """Grant on it as on any other again."""
        del self.reserved[container.container_id]
        self._enter_room(container)

    def remove(self, container: Container) -> list[LeaseOut]:
        """Forget a dead container; returns the leases that died with it."""
        self.moves += 1
        self._count_node(container, -1)
        self._leave_room(container)
        del self.containers[container.container_id]
        del self.by_state[container.state][container.container_id]
        self.draining.pop(container.container_id, None)
        self.reserved.pop(container.container_id, None)
        self.outdated.pop(container.container_id, None)
        for number in container.leases:
            del self.leases[number]
            self.orphans.pop(number, None)
        return list(container.leases.values())

    def least_recently_used(self) -> Container | None:
        """The idle container that has been idle longest."""
        return next(iter(self._room[0].values()), None)

    def least_wanted(self) -> Container | None:
        """The idle container that should go first: of those idle longest the one on the emptiest node.

        So whole nodes become empty, and can go. Those that became idle within a second are taken for equals.
        """
        oldest = self.least_recently_used()
        if oldest is None:
            return None
        equals = takewhile(
            lambda container: container.idle_since <= oldest.idle_since + EQUALLY_IDLE_S,
            islice(self._room[0].values(), EQUALS_MAX),
        )
        return min(equals, key=lambda container: self._on_node.get(container.node or "", 0))

    def emptiest(self) -> Container | None:
        """The ready container that is empty first: the one with the fewest leases."""
        for containers in self._room:
            for container in containers.values():
                return container
        full = self.by_state[State.READY].values()
        return next(
            (c for c in full if not (c.draining or c.outdated or c.container_id in self.reserved)), None
        )

    # Leases.

    def fullest_with_room(self) -> Container | None:
        """Where the next lease goes: the fullest below its target, ties to the most recently used."""
        for count in self._grant_order:
            containers = self._room[count]
            if containers:
                newest: Container = next(reversed(containers.values()))
                return newest
        return next(reversed(self._outdated_room.values()), None)

    def grant(
        self, number: int, container: Container, holder: str | None, now: float, *, whole: bool = False
    ) -> LeaseOut:
        self._leave_room(container)
        lease = LeaseOut(number, container, holder, now, whole)
        container.leases[number] = lease
        self.leases[number] = lease
        if holder is None:
            self.orphans[number] = lease
        self._enter_room(container)
        return lease

    def orphan(self, lease: LeaseOut) -> None:
        """Its holder is dead."""
        lease.holder = None
        self.orphans[lease.number] = lease

    def claim(self, lease: LeaseOut, holder: str) -> None:
        """An orphan's holder has reported."""
        lease.holder, lease.listed_at, lease.revoked_at, lease.release_at = holder, 0, None, None
        del self.orphans[lease.number]

    def free(self, lease: LeaseOut, idle_since: float) -> None:
        """Take back a lease that nobody can use any more; its slot has been idle since then."""
        container = lease.container
        self._leave_room(container)
        del container.leases[lease.number]
        del self.leases[lease.number]
        self.orphans.pop(lease.number, None)
        container.idle_since = max(container.idle_since, idle_since)
        self._enter_room(container)

    def _leave_room(self, container: Container) -> None:
        if container.outdated:
            self._outdated_room.pop(container.container_id, None)
        elif len(container.leases) < self.slots:
            self._room[len(container.leases)].pop(container.container_id, None)

    def _enter_room(self, container: Container) -> None:
        closed = container.draining or container.container_id in self.reserved
        grantable = container.state is State.READY and not closed
        if grantable and len(container.leases) < container.slots:
            room = self._outdated_room if container.outdated else self._room[len(container.leases)]
            room[container.container_id] = container
