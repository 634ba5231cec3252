"""What a seed stands for: one scenario of one of a few kinds."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace

from flexray.config import AutoscalerSettings, Limits, Retries


@dataclass(frozen=True)
class Faults:
    """How often things go wrong; rates per second of virtual time, chances per message."""

    lose: float = 0.0
    repeat: float = 0.0
    unreached: float = 0.0
    slow: float = 0.0
    kill_container: float = 0.0
    kill_caller: float = 0.0
    pause_caller: float = 0.0
    restart_controller: float = 0.0
    pause_controller: float = 0.0
    fail_start: float = 0.0
    kill_queue: float = 0.0


@dataclass(frozen=True)
class Scenario:
    """One run: everything that a seed decides."""

    seed: int
    callers: int = 2
    inputs: int = 60
    """Of each caller."""
    service_s: float = 0.05
    service_spread: float = 0.5
    slots: int = 1
    target_slots: int | None = None
    single_use: bool = False
    spawned: bool = False
    """The first caller is the call queue: its inputs outlive its process."""
    once_share: float = 0.0
    """Of the submissions, those whose inputs are sent at most once."""
    settings: AutoscalerSettings = field(default_factory=AutoscalerSettings)
    limits: Limits = field(default_factory=Limits)
    retries: Retries | None = None
    at_most_once: bool = False
    fail_chance: float = 0.0
    cancel_chance: float = 0.0
    cold_start_s: float = 0.8
    cluster_containers: int = 16
    """How many containers Ray can place at once."""
    spread_s: float = 3.0
    """Inputs are submitted within this time."""
    patient_share: float = 0.5
    poison: int = 0
    """Inputs of the first caller that kill the container which runs them."""
    stubborn: bool = False
    """A running input that is given up is answered, and its container retires (rule 13)."""
    stuck: Collection[int] = ()
    """Numbers of the containers that never finish loading."""
    never_starts: bool = False
    """No container can load the user's code."""
    permanent: bool = False
    """A failed start says that another try cannot do better."""
    faults: Faults = Faults()
    faults_until_s: float = 8.0
    settings_changes: tuple[tuple[float, AutoscalerSettings], ...] = ()
    redeploys: tuple[tuple[float, int, bool], ...] = ()
    """(when, slots of the new version, whether its strategy is "recreate")"""
    ends_s: float = 3000.0
    """Nobody waits longer than this for the last input to settle."""

    @property
    def is_calm(self) -> bool:
        return self.faults == Faults() and not (self.poison or self.never_starts or self.stubborn)

    @property
    def kills_containers(self) -> bool:
        return bool(self.faults.kill_container or self.poison)

    @property
    def fails_starts(self) -> bool:
        return bool(self.faults.fail_start or self.faults.kill_container or self.never_starts)


_FAULTS = {
    "losses": Faults(lose=0.1, repeat=0.1, unreached=0.05, slow=0.03),
    "partitions": Faults(pause_caller=0.4, pause_controller=0.2, slow=0.05, lose=0.05),
    "deaths": Faults(kill_container=1.0, kill_caller=0.2, fail_start=0.2),
    "restarts": Faults(restart_controller=0.3, kill_container=0.2, kill_caller=0.1),
    "everything": Faults(0.05, 0.05, 0.03, 0.03, 0.5, 0.1, 0.2, 0.15, 0.1, 0.1),
}


def scenario(seed: int, kind: str | None = None) -> Scenario:
    """The scenario of this seed; its kind is the seed's remainder unless named."""
    rng = random.Random(seed)
    kind = kind or KINDS[seed % len(KINDS)]
    base = Scenario(
        seed=seed,
        callers=rng.choice((1, 2, 3, 5)),
        inputs=rng.choice((5, 30, 80)),
        service_s=rng.choice((0.0005, 0.005, 0.03, 0.2)),
        service_spread=rng.choice((0.0, 0.5, 1.0)),
        slots=rng.choice((1, 1, 2, 4)),
        settings=_settings(rng),
        retries=rng.choice((None, None, Retries(max_retries=2, initial_delay=0.3))),
        at_most_once=rng.random() < 0.15,
        fail_chance=rng.choice((0.0, 0.0, 0.2)),
        cancel_chance=rng.choice((0.0, 0.0, 0.3)),
        cold_start_s=rng.choice((0.2, 0.8, 3.0)),
        cluster_containers=rng.choice((3, 16)),
        faults=_FAULTS.get(kind, Faults()),
    )
    change = _CHANGES.get(kind)
    return base if change is None else change(base, rng)


def _settings(rng: random.Random) -> AutoscalerSettings:
    minimum = rng.choice((0, 0, 0, 1, 2))
    return AutoscalerSettings(
        min_containers=minimum,
        max_containers=rng.choice((None, 1, 2, 4, 10)) if minimum == 0 else rng.choice((None, 2, 4)),
        buffer_containers=rng.choice((0, 0, 1, 2)),
        scaledown_window=rng.choice((2.0, 5.0)),
    )


def _small_limits(rng: random.Random) -> Limits:
    return Limits(pending=rng.choice((3, 10, 40)), total=rng.choice((4, 20, 60)))


def _with_burst(base: Scenario, rng: random.Random) -> Scenario:
    return replace(
        base,
        inputs=rng.choice((60, 100, 300)),
        callers=min(base.callers, 3),
        spread_s=0.01,
        service_spread=rng.choice((0.0, 1.0)),
    )


def _with_limits(base: Scenario, rng: random.Random) -> Scenario:
    return replace(base, limits=_small_limits(rng), spread_s=1.0)


def _with_settings(base: Scenario, rng: random.Random) -> Scenario:
    changes = tuple((rng.uniform(0.5, 9.0), _settings(rng)) for _ in range(rng.randint(1, 4)))
    return replace(base, settings_changes=changes)


def _with_restarts(base: Scenario, rng: random.Random) -> Scenario:
    return replace(base, limits=rng.choice((Limits(), _small_limits(rng))), spread_s=rng.choice((3.0, 8.0)))


def _with_poison(base: Scenario, rng: random.Random) -> Scenario:
    return replace(base, poison=1)


def _with_single_use(base: Scenario, rng: random.Random) -> Scenario:
    return replace(
        base,
        single_use=True,
        slots=1,
        inputs=min(base.inputs, 30),
        settings=base.settings.model_copy(update={"buffer_containers": 0}),
        faults=rng.choice((Faults(), Faults(), _FAULTS["deaths"])),
        cold_start_s=0.2,
    )


def _with_crowds(base: Scenario, rng: random.Random) -> Scenario:
    slots = rng.choice((2, 4, 8))
    faults = rng.choice((Faults(), Faults(), _FAULTS["losses"], _FAULTS["deaths"]))
    return replace(base, slots=slots, target_slots=rng.randint(1, slots - 1), faults=faults)


def _with_streams(base: Scenario, rng: random.Random) -> Scenario:
    faults = rng.choice((Faults(), _FAULTS["losses"], _FAULTS["deaths"], _FAULTS["restarts"]))
    return replace(base, once_share=rng.choice((0.2, 0.8)), retries=None, fail_chance=0.0, faults=faults)


def _with_stubborn(base: Scenario, rng: random.Random) -> Scenario:
    faults = rng.choice((Faults(), Faults(), _FAULTS["losses"], _FAULTS["restarts"]))
    return replace(base, stubborn=True, cancel_chance=0.5, slots=rng.choice((1, 2, 4)), faults=faults)


def _with_queue(base: Scenario, rng: random.Random) -> Scenario:
    faults = rng.choice((Faults(), Faults(), _FAULTS["losses"], _FAULTS["deaths"], _FAULTS["restarts"]))
    limits = rng.choice((Limits(), _small_limits(rng)))
    faults = replace(faults, kill_queue=rng.choice((0.0, 0.3, 1.0)))
    once = rng.random() < 0.3
    retries, fail_chance = rng.choice(((None, 0.0), (Retries(max_retries=2, initial_delay=3.0), 0.3)))
    return replace(
        base,
        spawned=True,
        limits=limits,
        faults=faults,
        at_most_once=once,
        retries=retries,
        fail_chance=fail_chance,
    )


def _with_redeploys(base: Scenario, rng: random.Random) -> Scenario:
    faults = rng.choice((Faults(), Faults(), *_FAULTS.values()))
    redeploys = [
        (rng.uniform(0.2, 8.0), rng.choice((base.slots, base.slots, 1, 3)), rng.random() < 0.3)
        for _ in range(rng.randint(1, 3))
    ]
    spread_s = rng.choice((1.0, 4.0, 8.0))
    return replace(base, redeploys=tuple(sorted(redeploys)), faults=faults, spread_s=spread_s)


def _with_broken_code(base: Scenario, rng: random.Random) -> Scenario:
    permanent = rng.random() < 0.5
    settings = AutoscalerSettings(scaledown_window=2.0)
    return replace(
        base,
        never_starts=True,
        permanent=permanent,
        settings=settings,
        inputs=min(base.inputs, 30),
    )


_CHANGES: dict[str, Callable[[Scenario, random.Random], Scenario]] = {
    "burst": _with_burst,
    "limits": _with_limits,
    "settings": _with_settings,
    "restarts": _with_restarts,
    "everything": _with_settings,
    "poison": _with_poison,
    "broken": _with_broken_code,
    "single": _with_single_use,
    "crowds": _with_crowds,
    "streams": _with_streams,
    "queue": _with_queue,
    "stubborn": _with_stubborn,
    "redeploys": _with_redeploys,
}

KINDS = (
    "calm",
    "burst",
    "limits",
    "settings",
    "losses",
    "partitions",
    "deaths",
    "restarts",
    "everything",
    "poison",
    "broken",
    "single",
    "crowds",
    "streams",
    "queue",
    "stubborn",
    "redeploys",
)
