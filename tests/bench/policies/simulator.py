"""One pool in simulated time: inputs arrive, containers start, slots serve, a policy says how many there are.

One rule: every policy meets the same inputs, the same cold starts (the n-th launch takes as long whoever
makes it) and the same dispatch, which is ours and the kindest: the fullest container that has room, ties to
the most recently used, and no time between a free slot and the input that takes it.
"""

from __future__ import annotations

import random
from abc import abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from typing import NamedTuple

from flexray.core.ledger import Container, LeaseOut, Ledger, State

PLACES_PER_S = 500.0
"""Launches that the cluster places, one after the other: about what Ray reaches with many nodes."""
SPREAD = 0.2
"""A cold start takes from this share less to this share more than the trace says."""


class Input(NamedTuple):
    """One input of a trace: when it arrives, and for how long it runs. Seconds."""

    at: float
    service_s: float


@dataclass(frozen=True)
class Trace:
    """What one pool is asked to do."""

    name: str
    inputs: Sequence[Input]
    """By arrival."""
    horizon_s: float
    """Cost is counted until then, or until the last input is over."""
    cold_start_s: float = 1.5
    slots: int = 1
    """Per container."""
    containers_max: int = 1000
    """What the cluster holds."""
    starts_fail: bool = False
    """Every start ends, after its time, with an error."""


@dataclass(frozen=True)
class Outcome:
    """What one policy made of one trace."""

    waits_s: Sequence[float]
    """By input, in the order in which they began."""
    container_s: float
    """From each launch to the container's end."""
    launches: int

    @property
    def mean_wait_s(self) -> float:
        return self.waited_s / max(1, len(self.waits_s))

    @property
    def waited_s(self) -> float:
        return sum(self.waits_s)

    def wait_s(self, share: float) -> float:
        """The wait that so large a share of the inputs did not exceed."""
        ordered = sorted(self.waits_s)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0

    def price(self, value_of_waiting: float) -> float:
        """J: container-seconds and what the waiting is worth in them."""
        return self.container_s + value_of_waiting * self.waited_s


class Policy:
    """Starts and stops containers of a simulation; the base of all of them."""

    name = ""
    interval_s: float | None = None
    """Between two ticks; None: it acts on events alone."""

    def arrived(self, inputs: int) -> None:
        """So many inputs have just arrived."""

    def began(self, lease: LeaseOut) -> None:
        """An input took a slot."""

    def finished(self, lease: LeaseOut, service_s: float) -> None:
        """An input is over, and so is its lease."""

    def placed(self, container: Container) -> None:
        """A launch has found its place; until then it was LAUNCHED, now it is LOADING."""

    def became_ready(self, container: Container) -> None:
        """It has been made ready, and nothing runs on it yet."""

    @abstractmethod
    def act(self, pool: Simulation, *, ticked: bool) -> None:
        """Start and stop: a tick is due, or something happened and whatever could begin has begun."""


class Simulation:
    """One policy on one trace."""

    def __init__(self, trace: Trace, policy: Policy, seed: int) -> None:
        self.trace = trace
        self.now = 0.0
        self.ledger = Ledger(trace.slots)
        self.queue: deque[Input] = deque()
        self.launches = 0
        self.failures: list[float] = []
        """When starts failed."""
        self._policy = policy
        self._unplaced: deque[Container] = deque()
        self._cold = random.Random(f"cold {trace.name} {seed}")
        self._events: list[tuple[float, int, str, object]] = []
        self._order = count()
        self._leases = count(1)
        self._services: dict[int, float] = {}
        self._waits: list[float] = []
        self._container_s = 0.0
        self._acts_at: float | None = None

    # What a policy sees.

    @property
    def waiting(self) -> int:
        return len(self.queue)

    @property
    def running(self) -> int:
        return len(self.ledger.leases)

    @property
    def in_flight(self) -> int:
        return self.waiting + self.running

    @property
    def starting(self) -> int:
        return self.ledger.count(State.LAUNCHED) + self.ledger.count(State.LOADING)

    @property
    def live(self) -> int:
        """Starting and ready containers, those left out that take nothing new."""
        return self.starting + self.ledger.ready

    # What a policy does.

    def start(self, number: int) -> None:
        """Launch so many containers, as far as the cluster holds them."""
        for _ in range(min(number, self.trace.containers_max - len(self.ledger))):
            self.launch(self.ledger.add(f"c{self.launches}", State.LAUNCHED, self.now))

    def launch(self, container: Container) -> None:
        """What has just been added to the ledger begins to start."""
        self.launches += 1
        self._unplaced.append(container)
        if len(self._unplaced) == 1:
            self._at(self.now + 1 / PLACES_PER_S, "place", None)

    def end(self, container: Container) -> None:
        """It is gone, and costs nothing any more."""
        self.ledger.remove(container)
        self._container_s += self.now - container.launched_at

    def shrink(self, excess: int) -> None:
        """Take so many away as Kubernetes does: what is not ready first, then idle, then by emptying."""
        for _ in range(excess):
            for state in (State.LAUNCHED, State.LOADING):
                if self.ledger.count(state):
                    self.end(next(reversed(self.ledger.by_state[state].values())))
                    break
            else:
                container = self.ledger.emptiest()
                if container is None:
                    return
                if container.leases:
                    self.ledger.drain(container)
                else:
                    self.end(container)

    def stop_idle(self, idle_s: float) -> None:
        """Stop whatever has been idle for so long; events later than that bring the policy back here."""
        while (container := self.ledger.least_recently_used()) is not None:
            if self.now < container.idle_since + idle_s:
                return
            self.end(container)

    def act_at(self, at: float) -> None:
        """Let the policy act again then, if nothing else happens before."""
        if self._acts_at is None or at < self._acts_at:
            self._acts_at = at
            self._at(at, "act", None)

    # How time passes.

    def run(self) -> Outcome:
        """Play the trace to its end."""
        for one in self.trace.inputs:
            self._at(one.at, "arrival", one)
        self._at(self.trace.horizon_s, "horizon", None)
        if self._policy.interval_s is not None:
            self._at(0.0, "tick", None)
        open_inputs, horizon_seen = len(self.trace.inputs), False
        while open_inputs or not horizon_seen:
            self.now = self._events[0][0]
            arrived, ticked = 0, False
            while self._events and self._events[0][0] <= self.now:
                _, _, kind, subject = heappop(self._events)
                if kind == "arrival":
                    assert isinstance(subject, Input)
                    self.queue.append(subject)
                    arrived += 1
                elif kind == "over":
                    assert isinstance(subject, LeaseOut)
                    self._finish(subject)
                    open_inputs -= 1
                elif kind == "tick":
                    assert self._policy.interval_s is not None
                    self._at(self.now + self._policy.interval_s, "tick", None)
                    ticked = True
                elif kind == "horizon":
                    horizon_seen = True
                    open_inputs = 0 if self.trace.starts_fail else open_inputs
                elif kind == "place":
                    self._place()
                elif kind == "ready":
                    assert isinstance(subject, Container)
                    self._make_ready(subject)
                else:
                    self._acts_at = None
            if arrived:
                self._policy.arrived(arrived)
            self._serve()
            self._policy.act(self, ticked=ticked)
        for container in list(self.ledger.containers.values()):
            self.end(container)
        return Outcome(self._waits, self._container_s, self.launches)

    def _at(self, at: float, kind: str, subject: object) -> None:
        heappush(self._events, (at, next(self._order), kind, subject))

    def _place(self) -> None:
        """The oldest launch that is still wanted gets its place."""
        while self._unplaced:
            container = self._unplaced.popleft()
            if container.container_id in self.ledger.containers:
                cold_s = self.trace.cold_start_s * self._cold.uniform(1 - SPREAD, 1 + SPREAD)
                self._at(self.now + cold_s, "ready", container)
                self.ledger.set_state(container, State.LOADING)
                self._policy.placed(container)
                break
        if self._unplaced:
            self._at(self.now + 1 / PLACES_PER_S, "place", None)

    def _make_ready(self, container: Container) -> None:
        """It is ready, unless it was stopped before."""
        if container.container_id not in self.ledger.containers:
            return
        if self.trace.starts_fail:
            self.failures.append(self.now)
        else:
            container.idle_since = self.now
            self.ledger.set_state(container, State.READY)
        self._policy.became_ready(container)

    def _serve(self) -> None:
        """Whatever waits and finds a slot begins."""
        while self.queue and (container := self.ledger.fullest_with_room()) is not None:
            one = self.queue.popleft()
            lease = self.ledger.grant(next(self._leases), container, "inputs", self.now)
            self._waits.append(self.now - one.at)
            self._services[lease.number] = one.service_s
            self._at(self.now + one.service_s, "over", lease)
            self._policy.began(lease)

    def _finish(self, lease: LeaseOut) -> None:
        self.ledger.free(lease, self.now)
        self._policy.finished(lease, self._services.pop(lease.number))
        container = lease.container
        if container.draining and not container.leases:
            self.end(container)
