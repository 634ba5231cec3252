"""Every metric that FlexRay exports, named once; Prometheus sees each as `ray_` and its name.

One rule: they come from the controller alone, for Ray tags each with its process, and goes on exporting the
counters of a process that is dead. A gauge that is not set any more is dropped after two of Ray's report
intervals, of 10 s. All pools of a function (its variants, its parameter sets) are one series.
"""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from ray.util.metrics import Counter, Gauge

from flexray.core.ledger import State
from flexray.runtime.poolhost import PoolHost
from flexray.runtime.wire import PINNED

TAGS = ("app", "function")

GAUGES = {
    "flexray_inputs_waiting": "Inputs that wait for a slot, spawned ones included.",
    "flexray_inputs_assigned": "Inputs that run, or have a slot.",
    "flexray_oldest_wait_seconds": "How long some input has waited without a pause.",
    "flexray_containers": "Containers by state: launched, loading, ready, stopping.",
    "flexray_cold_start_seconds": "What a start takes, as the autoscaler reckons it.",
}
COUNTERS = {
    "flexray_containers_started_total": "Containers that Ray was asked for.",
    "flexray_cold_starts_total": "Containers that became ready.",
    "flexray_inputs_total": "Inputs that arrived, refused ones included.",
    "flexray_inputs_refused_total": "Inputs that found no room within the limits.",
    "flexray_wait_seconds_total": "What all inputs have waited; over inputs_total, what one waits.",
    "flexray_decisions_total": "Decisions that changed something, by the rule that made them.",
}
_EXTRA = {"flexray_containers": ("state",), "flexray_decisions_total": ("rule",)}

Series = tuple[str, ...]
"""Values of a metric's tags, in their order."""


def _counts(host: PoolHost) -> dict[str, float]:
    """What each counter has come to in this pool, decisions apart."""
    pool, scaling = host.pool, host.pool.scaling
    return {
        "flexray_containers_started_total": scaling.started,
        "flexray_cold_starts_total": scaling.cold_started,
        "flexray_inputs_total": pool.arrived,
        "flexray_inputs_refused_total": pool.refused,
        "flexray_wait_seconds_total": pool.wait_s,
    }


@dataclass(slots=True)
class _Totals:
    """What was counted of one pool so far, so that only the difference is added."""

    counts: dict[str, float] = field(default_factory=dict)
    rules: Counts[str] = field(default_factory=Counts)


class Metrics:
    """Tells Ray's exporter what the pools are at; asked for once a second."""

    def __init__(self) -> None:
        self._gauges = {
            name: Gauge(name, description=told, tag_keys=TAGS + _EXTRA.get(name, ()))
            for name, told in GAUGES.items()
        }
        self._counters = {
            name: Counter(name, description=told, tag_keys=TAGS + _EXTRA.get(name, ()))
            for name, told in COUNTERS.items()
        }
        self._shown: dict[str, set[Series]] = {name: set() for name in GAUGES}
        self._hosts: tuple[PoolHost, ...] = ()
        """Those that were shown last."""
        self._totals: WeakKeyDictionary[PoolHost, _Totals] = WeakKeyDictionary()

    def observe(self, hosts: Iterable[PoolHost]) -> None:
        """Show these pools; those that were shown and are not among them any more have nothing now."""
        values: dict[str, dict[Series, float]] = {name: {} for name in GAUGES}
        before, self._hosts = self._hosts, tuple(hosts)
        for host in before:  # Also what one that ended did since.
            self._count(host)
        for host in self._hosts:
            for name, series, value, combine in _values(host):
                known = values[name].get(series)
                values[name][series] = value if known is None else combine(known, value)
            self._count(host)
        for name, found in values.items():
            for series in self._shown[name] - found.keys():
                self._set(name, series, 0.0)
            for series, value in found.items():
                self._set(name, series, value)
            self._shown[name] = set(found)

    def _set(self, name: str, series: Series, value: float) -> None:
        tags = dict(zip(TAGS + _EXTRA.get(name, ()), series, strict=True))
        self._gauges[name].set(value, tags=tags)

    def _count(self, host: PoolHost) -> None:
        series = _series(host)
        known = self._totals.setdefault(host, _Totals())
        for name, count in _counts(host).items():
            self._add(name, series, count - known.counts.get(name, 0))
            known.counts[name] = count
        for rule, count in host.pool.scaling.decided.items():
            self._add("flexray_decisions_total", (*series, rule.value), count - known.rules[rule.value])
            known.rules[rule.value] = count

    def _add(self, name: str, series: Series, count: float) -> None:
        if count > 0:
            tags = dict(zip(TAGS + _EXTRA.get(name, ()), series, strict=True))
            self._counters[name].inc(count, tags=tags)


def _series(host: PoolHost) -> Series:
    """By the app's name: an ephemeral app has another id each time it runs, and so has an earlier version."""
    app_id = host.spec.app_id
    name = app_id.partition(PINNED)[0] if host.spec.is_logged else app_id.rpartition(".")[0]
    return name, host.spec.function_name


def _plus(one: float, other: float) -> float:
    return one + other


def _values(host: PoolHost) -> Iterable[tuple[str, Series, float, Any]]:
    """(gauge, series, value, what two pools of one function come to) of one pool."""
    pool, series = host.pool, _series(host)
    yield "flexray_inputs_waiting", series, pool.callers.backlog, _plus
    yield "flexray_inputs_assigned", series, pool.callers.assigned, _plus
    yield "flexray_oldest_wait_seconds", series, host.waited_s, max
    yield "flexray_cold_start_seconds", series, pool.scaling.lessons.cold_starts.quantile(), max
    for state in State:
        yield "flexray_containers", (*series, state.value), pool.ledger.count(state), _plus
