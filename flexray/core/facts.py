"""What the autoscaler is told about a pool, and what it answers: facts in, a decision with its reason out.

One rule: a reason is a value. It is counted by its rule, compared in tests, and read as a sentence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from flexray.config import AutoscalerSettings


@dataclass(frozen=True, slots=True)
class Facts:
    """One pool at one moment. Containers that are being emptied or stopped are in none of the counts."""

    settings: AutoscalerSettings
    slots: int
    """Slots per container that the pool is sized by (`target_inputs`; with batching 1: count batches)."""
    demand: int = 0
    """Inputs waiting that no free slot has been promised to."""
    held_back: int = 0
    """Inputs of running maps that are to come: they wait for room before they are asked for."""
    assigned: int = 0
    """Slots that run an input, or are promised to one by a lease that its dispatcher has not seen yet."""
    ready: int = 0
    starting: int = 0
    """Launches that are under way. Those in `unplaced` are not among them."""
    starting_ages: Sequence[float] = ()
    """Seconds since launch, oldest first: of all, or an even sample of at most 32."""
    unplaced: int = 0
    """Launches not begun, or not placed by Ray: no supply, withdrawn for nothing as soon as want drops."""
    service_s: float | None = None
    """Mean service time, that of a stall included; None while nothing has finished."""
    stalled_s: float = 0.0
    """How long the slots that are taken have ended nothing though something waited; 0 while that is usual."""
    service_cv2: float | None = None
    """Squared coefficient of variation, at most 1; None counts as 1."""
    cold_start_s: float = 2.0
    stale_after_s: float | None = None
    """Age at which a start no longer counts as supply; None is three cold starts."""
    arrival_rate: float = 0.0
    """Inputs per second, a lone burst not counted."""
    occupancy: float = 0.0
    """Busy slots of the sustained load."""
    single_use: bool = False
    """A container takes one input and ends, so none is kept for the next."""
    active: bool = False
    """An input is waiting or assigned, or was within the scaledown window."""
    waited_s: float = 0.0
    """How long the oldest waiting input has waited: bounds the ramp while service_s is unknown."""
    failed_starts: int = 0
    """Failed starts in a row; a container that becomes ready resets it."""
    replacing: int = 0
    """Containers of an earlier version, not among `ready`, each of which serves until a new one is ready."""
    idle_tail_s: float = 0.0
    """T: how long a container idles in a pool with too many before it is stopped; part of a start's price."""
    prewarmed: int = 0
    """Containers for the next tick of a declared schedule, which is near."""
    last_tail_s: float | None = None
    """How long the last container idles, where it has been learned that the window is too long; else None."""


class Rule(StrEnum):
    """Which rule set the target. The values are labels of metrics."""

    BACKLOG = "backlog"
    """The backlog would outlive a cold start."""
    FIRST = "first"
    """No service time is known yet: one container per waiting input, within the ramp."""
    SOON = "soon"
    """The backlog will be gone before a new container could help."""
    QUIET = "quiet"
    """Nothing waits."""
    ONE = "one"
    """An active pool has at least one container."""
    HOLD = "hold"
    """The sustained load needs them."""
    PREWARM = "prewarm"
    """A declared schedule fires soon."""
    REPLACE = "replace"
    """As many as there were of an earlier version."""
    BUFFER = "buffer"
    MINIMUM = "minimum"
    MAXIMUM = "maximum"
    INACTIVE = "inactive"
    """No input for a whole scaledown window."""


_PLAIN = {
    Rule.FIRST: "{waiting:,} waiting and no input has finished yet",
    Rule.QUIET: "nothing waits",
    Rule.ONE: "one container while the function is active",
    Rule.HOLD: "the sustained load needs {level:,}",
    Rule.PREWARM: "its schedule fires within {ready_in_s:.1f} s",
    Rule.REPLACE: "a new version takes the place of the old one",
    Rule.BUFFER: "buffer_containers={level}",
    Rule.INACTIVE: "no input for longer than a container is kept",
}


@dataclass(frozen=True, slots=True)
class Reason:
    """Why the target is what it is; `str()` of it is a sentence."""

    rule: Rule
    before: int
    """Ready, starting and unplaced containers when it was decided."""
    target: int
    waiting: int = 0
    level: int = 0
    """The setting behind minimum, maximum and buffer; the containers that hold asks for."""
    gone_in_s: float | None = None
    """When today's containers will have emptied the backlog; None if unknown or never."""
    ready_in_s: float = 0.0
    """How long a new container takes to be ready."""
    failed_starts: int = 0
    short_window_s: float | None = None
    """The scaledown window, where it is shorter than a cold start."""

    def __str__(self) -> str:
        sentence = self._sentence()
        if self.short_window_s is not None and self.target > self.before:
            window = f"scaledown_window={self.short_window_s:g} s"
            sentence += f"; {window} is shorter than a cold start, so most pauses are followed by one"
        if self.failed_starts and self.target > self.before:
            failures = "1 failed start" if self.failed_starts == 1 else f"{self.failed_starts} failed starts"
            return f"{sentence}; one at a time after {failures}"
        return sentence

    def _sentence(self) -> str:
        change = f"kept {self.target}" if self.target == self.before else f"{self.before} -> {self.target}"
        match self.rule:
            case Rule.BACKLOG:
                return f"{change}: {self._outlook()}, a new container is ready in {self.ready_in_s:.1f} s"
            case Rule.SOON:
                return f"{change}: {self._relief()}"
            case Rule.MAXIMUM:
                waiting = f" with {self.waiting:,} waiting" if self.waiting else ""
                return f"{change}: max_containers={self.level}{waiting}"
            case Rule.MINIMUM:
                return f"{change}: min_containers={self.level}"
            case _:
                return f"{change}: " + _PLAIN[self.rule].format(
                    waiting=self.waiting, level=self.level, ready_in_s=self.ready_in_s
                )

    def _outlook(self) -> str:
        if self.gone_in_s is None:
            return f"{self.waiting:,} waiting and no container is running or starting"
        return f"{self.waiting:,} waiting would take {self.gone_in_s:.1f} s"

    def _relief(self) -> str:
        if self.gone_in_s is None:
            return f"enough are starting for the {self.waiting:,} waiting"
        return f"backlog gone in {self.gone_in_s:.1f} s"


@dataclass(frozen=True, slots=True)
class Decision:
    """How many containers the pool should have now."""

    target: int
    """Ready, starting and unplaced together. Ready ones above it end by `idle_limit_s` alone."""
    reason: Reason
    stale_withdrawn: int = 0
    """Starts past their time to withdraw first, as the maximum leaves no other room for replacements.

    The youngest of the stale ones, and at most half of all starts: the oldest always gets its chance, so that
    a pool whose containers have become slow to start still starts.
    """
