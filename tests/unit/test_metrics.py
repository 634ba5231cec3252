"""What is shown and counted of pools, and the dashboard that shows it to people."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flexray.core.facts import Rule
from flexray.core.ledger import State
from flexray.runtime import metrics
from flexray.runtime.metrics import COUNTERS, GAUGES, Metrics
from flexray.runtime.wire import PINNED

DASHBOARD = Path(__file__).parents[2] / "cluster-configs" / "grafana-dashboard.json"
EXPORTED = {f"ray_{name}" for name in (*GAUGES, *COUNTERS)}
VARIABLES = {"datasource", "app", "function"}

Exported = dict[tuple[str, ...], float]
"""Name and values of the tags to value: what the last set was, or what all incs come to."""


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> Exported:
    values: Exported = {}

    class Exporter:
        def __init__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> None:
            self.name, self.tag_keys = name, tag_keys

        def _key(self, tags: dict[str, str]) -> tuple[str, ...]:
            assert tuple(tags) == self.tag_keys
            return self.name, *tags.values()

        def set(self, value: float, tags: dict[str, str]) -> None:
            values[self._key(tags)] = value

        def inc(self, value: float, tags: dict[str, str]) -> None:
            assert value > 0  # Ray refuses others.
            values[self._key(tags)] = values.get(self._key(tags), 0) + value

    monkeypatch.setattr(metrics, "Gauge", Exporter)
    monkeypatch.setattr(metrics, "Counter", Exporter)
    return values


class Host:
    """As much of a pool's host as metrics look at."""

    def __init__(
        self, app_id: str = "shop.c0ffee", function: str = "price", *, is_logged: bool = False
    ) -> None:
        self.spec = SimpleNamespace(app_id=app_id, function_name=function, is_logged=is_logged)
        self.waited_s, self.cold_start_s = 0.0, 1.0
        self.states: Counter[State] = Counter()
        self.pool: Any = SimpleNamespace(
            callers=SimpleNamespace(backlog=0, assigned=0),
            ledger=SimpleNamespace(count=lambda state: self.states[state]),
            scaling=SimpleNamespace(
                started=0,
                cold_started=0,
                decided=Counter[Rule](),
                lessons=SimpleNamespace(cold_starts=SimpleNamespace(quantile=lambda: self.cold_start_s)),
            ),
            arrived=0,
            refused=0,
            wait_s=0.0,
        )


def observe(shown: Metrics, *hosts: Host) -> None:
    shown.observe(hosts)  # type: ignore[arg-type]


def test_every_metric_of_a_busy_pool_is_shown(exported: Exported) -> None:
    host = Host()
    host.states.update({State.READY: 2, State.LOADING: 1})
    host.pool.callers.backlog, host.pool.callers.assigned, host.waited_s = 5, 2, 1.5
    host.pool.scaling.started, host.pool.scaling.cold_started, host.pool.refused = 3, 2, 7
    host.pool.arrived, host.pool.wait_s = 11, 4.5
    host.pool.scaling.decided[Rule.BACKLOG] = 2
    observe(Metrics(), host)
    assert exported == {
        ("flexray_inputs_waiting", "shop", "price"): 5,
        ("flexray_inputs_assigned", "shop", "price"): 2,
        ("flexray_oldest_wait_seconds", "shop", "price"): 1.5,
        ("flexray_cold_start_seconds", "shop", "price"): 1.0,
        ("flexray_containers", "shop", "price", "launched"): 0,
        ("flexray_containers", "shop", "price", "loading"): 1,
        ("flexray_containers", "shop", "price", "ready"): 2,
        ("flexray_containers", "shop", "price", "stopping"): 0,
        ("flexray_containers_started_total", "shop", "price"): 3,
        ("flexray_cold_starts_total", "shop", "price"): 2,
        ("flexray_inputs_total", "shop", "price"): 11,
        ("flexray_inputs_refused_total", "shop", "price"): 7,
        ("flexray_wait_seconds_total", "shop", "price"): 4.5,
        ("flexray_decisions_total", "shop", "price", "backlog"): 2,
    }


def test_the_pools_of_a_function_and_the_versions_of_an_app_are_one_series(exported: Exported) -> None:
    one, other = Host("shop", is_logged=True), Host(f"shop{PINNED}3", is_logged=True)
    one.pool.callers.backlog, other.pool.callers.backlog = 2, 3
    one.waited_s, other.waited_s = 4.0, 1.0
    one.pool.refused = other.pool.refused = 1
    observe(Metrics(), one, other)
    assert exported["flexray_inputs_waiting", "shop", "price"] == 5
    assert exported["flexray_oldest_wait_seconds", "shop", "price"] == 4.0
    assert exported["flexray_inputs_refused_total", "shop", "price"] == 2


def test_a_pool_that_is_there_no_more_has_nothing_and_its_counts_stay(exported: Exported) -> None:
    shown, host, other = Metrics(), Host(), Host(function="pay")
    host.states[State.READY], host.pool.callers.backlog, host.pool.scaling.started = 1, 4, 1
    other.pool.callers.backlog = 9
    observe(shown, host, other)
    observe(shown, other)
    of_it = {key: value for key, value in exported.items() if key[2] == "price"}
    assert {value for key, value in of_it.items() if key[0] in GAUGES} == {0}
    assert of_it["flexray_containers_started_total", "shop", "price"] == 1
    assert exported["flexray_inputs_waiting", "shop", "pay"] == 9


def test_only_what_is_new_is_counted(exported: Exported) -> None:
    shown, host = Metrics(), Host()
    for refused in (1, 1, 4):
        host.pool.refused = refused
        observe(shown, host)
    assert exported["flexray_inputs_refused_total", "shop", "price"] == 4


def test_what_a_pool_did_between_the_last_look_and_its_end_is_counted_once(exported: Exported) -> None:
    shown, host = Metrics(), Host()
    observe(shown, host)
    host.pool.refused = 3
    for _ in range(3):
        observe(shown)
    assert exported["flexray_inputs_refused_total", "shop", "price"] == 3
    assert exported["flexray_inputs_waiting", "shop", "price"] == 0


# The dashboard.


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return content


def expressions(dashboard: dict[str, Any]) -> Iterator[str]:
    """Of all panels."""
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield target["expr"]


def queries(dashboard: dict[str, Any]) -> Iterator[str]:
    """Of all variables that ask Prometheus."""
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]["query"]


def named(text: str) -> set[str]:
    """The metrics in an expression."""
    return set(re.findall(r"\b(?:ray|flexray)_\w+", text))


def test_each_expression_of_the_dashboard_asks_for_metrics_that_are_exported(
    dashboard: dict[str, Any],
) -> None:
    for expression in (*expressions(dashboard), *queries(dashboard)):
        assert named(expression), expression
        assert named(expression) <= EXPORTED, expression


def test_the_dashboard_shows_every_metric(dashboard: dict[str, Any]) -> None:
    assert set().union(*map(named, expressions(dashboard))) == EXPORTED


def test_only_counters_are_asked_for_a_rate(dashboard: dict[str, Any]) -> None:
    rates = {name for text in expressions(dashboard) if "rate(" in text for name in named(text)}
    assert rates <= {f"ray_{name}" for name in COUNTERS}


def test_the_dashboard_uses_the_variables_that_it_has(dashboard: dict[str, Any]) -> None:
    assert {variable["name"] for variable in dashboard["templating"]["list"]} == VARIABLES
    for expression in expressions(dashboard):
        assert 'app=~"$app", function=~"$function"' in expression
    for panel in dashboard["panels"]:
        for source in (panel["datasource"], *(target["datasource"] for target in panel["targets"])):
            assert source == {"type": "prometheus", "uid": "${datasource}"}


def test_no_two_panels_are_in_one_place(dashboard: dict[str, Any]) -> None:
    panels = dashboard["panels"]
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len(places) == len({panel["id"] for panel in panels}) == len(panels)
