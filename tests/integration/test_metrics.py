"""What Ray's exporter, which Prometheus scrapes, has of a pool that works, is idle, and has ended."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from prometheus_client.parser import text_string_to_metric_families  # Ray's exporter brings it along.

import flexray
from flexray.core.facts import Rule
from flexray.core.ledger import State
from flexray.errors import ResourceExhaustedError
from flexray.runtime.metrics import COUNTERS, GAUGES
from tests.integration.conftest import Cluster
from tests.integration.gates import Gate, at, calls, results
from tests.waiting import wait_until

APP = "metered"
TAGS = {
    "flexray_containers": {"app", "function", "state"},
    "flexray_decisions_total": {"app", "function", "rule"},
}
SHOWN_S = 15.0
"""The controller tells once a second, and Ray every `METRICS_EVERY_MS` of the cluster."""
EVERY_S = 0.2

Values = dict[tuple[str, ...], float]
"""Name without `ray_`, function, and state or rule where it has one, to value, of all series of one app."""


def exported() -> Iterator[tuple[str, str, dict[str, str], float]]:
    """(name, type, tags, value) of all that the exporters of the cluster's nodes have from FlexRay."""
    for node in ray.nodes():
        address = f"http://127.0.0.1:{node['MetricsExportPort']}/metrics"
        with urllib.request.urlopen(address, timeout=5) as answer:
            text = answer.read().decode()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name.startswith("ray_flexray_"):
                    yield sample.name.removeprefix("ray_"), family.type, sample.labels, sample.value


def values_of(app_name: str) -> Values:
    """No series is there twice, and each has the type and the tags that it should have."""
    values: Values = {}
    for name, kind, tags, value in exported():
        if tags["app"] != app_name:
            continue
        assert kind == ("gauge" if name in GAUGES else "counter")
        own = TAGS.get(name, {"app", "function"})
        assert own == tags.keys() & {"app", "function", "state", "rule"}
        key = (name, tags["function"], *(tags[tag] for tag in sorted(own - {"app", "function"})))
        assert key not in values
        values[key] = value
    return values


def wait_for(expected: Values) -> Values:
    """All values of the app, once those that are expected are among them."""
    values: Values = {}

    def are_exported() -> bool:
        values.clear()
        values.update(values_of(APP))
        return expected.items() <= values.items()

    try:
        wait_until(are_exported, SHOWN_S, every_s=EVERY_S)
    except AssertionError:
        assert {key: values.get(key) for key in expected} == expected  # Shows which.
        raise
    return values


def containers(**counts: int) -> Values:
    return {("flexray_containers", "enter", state.value): counts.get(state.value, 0) for state in State}


def inputs(waiting: int, assigned: int) -> Values:
    return {
        ("flexray_inputs_waiting", "enter"): waiting,
        ("flexray_inputs_assigned", "enter"): assigned,
    }


def counted(started: int, refused: int) -> Values:
    """Of five inputs that ran and those that were refused."""
    return {
        ("flexray_inputs_total", "enter"): 5 + refused,
        ("flexray_containers_started_total", "enter"): started,
        ("flexray_cold_starts_total", "enter"): started,
        ("flexray_inputs_refused_total", "enter"): refused,
    }


def decisions(values: Values) -> dict[str, float]:
    """Rule to count."""
    return {key[2]: value for key, value in values.items() if key[0] == "flexray_decisions_total"}


def gauges(values: Values) -> Values:
    return {key: value for key, value in values.items() if key[0] in GAUGES}


def test_the_exporter_shows_a_pool_at_work_idle_and_gone(cluster: Cluster, tmp_path: Path) -> None:
    app, gate = flexray.App(APP), Gate(tmp_path)
    enter = app.function(
        cpu=0, name="enter", max_containers=2, scaledown_window=2, limits=flexray.Limits(pending=3)
    )(gate.enter)
    wait, cold_start = ("flexray_oldest_wait_seconds", "enter"), ("flexray_cold_start_seconds", "enter")
    with app.run():
        under_way = calls(enter, range(2))
        wait_until(lambda: len(gate.entered) == 2, timeout_s=30)
        under_way += calls(enter, range(2, 5))
        wait_until(lambda: at(enter, backlog=3, num_running_inputs=2))
        for _ in range(4):
            with pytest.raises(ResourceExhaustedError):
                enter.remote("surplus")

        at_work = wait_for({**inputs(3, 2), **containers(ready=2), **counted(2, refused=4)})
        assert {key[0] for key in at_work} == {*GAUGES, *COUNTERS}
        assert 0 < at_work[cold_start] < 30
        assert decisions(at_work).keys() <= set(Rule)
        assert 1 <= decisions(at_work)[Rule.FIRST] <= 2
        wait_until(lambda: values_of(APP)[wait] > max(0.5, at_work[wait]), SHOWN_S, every_s=EVERY_S)

        gate.open()
        results(under_way)
        idle = wait_for({**inputs(0, 0), **containers(), wait: 0.0, **counted(2, refused=4)})
        assert (
            idle["flexray_wait_seconds_total", "enter"] > 3 * 0.5
        )  # Three waited for the oldest's half second.
        assert idle[cold_start] > 0  # Not an amount of anything: it still holds.
        known = sum(decisions(at_work).values())  # Ray may export the counters of one look after its gauges.
        wait_until(lambda: sum(decisions(values_of(APP)).values()) > known, SHOWN_S, every_s=EVERY_S)

    gone = wait_for({**inputs(0, 0), **containers(), wait: 0.0, cold_start: 0.0})
    assert not any(gauges(gone).values())
    assert counted(2, refused=4).items() <= gone.items()
