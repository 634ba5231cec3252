"""Scaling limits: exact over all callers, and maps wait where single calls are refused."""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path
from typing import Any

import pytest

import flexray
from flexray.errors import ResourceExhaustedError
from flexray.function import Function
from tests.integration.conftest import Cluster
from tests.integration.gates import Gate, at, calls, in_background, results
from tests.waiting import wait_until

PROCESSES = 3
THREADS = 10


@pytest.fixture
def gate(cluster: Cluster, tmp_path: Path) -> Gate:
    return Gate(tmp_path)


def gated(gate: Gate, **options: Any) -> tuple[flexray.App, Function[[object], int]]:
    """An app with one function whose inputs wait at the gate."""
    app = flexray.App("limited")
    return app, app.function(cpu=0, name="enter", **options)(gate.enter)


RACER = """
import pickle, sys
import ray
ray.init(namespace="flexray", log_to_driver=False, logging_level="ERROR")
import flexray
from tests.integration.gates import calls
enter = pickle.loads(bytes.fromhex({function!r}))
enter.get_current_stats()
print("ready", flush=True)
sys.stdin.readline()
{race}
"""

RACE_OF_CALLS = f"""
outcomes = []
for call in calls(enter, [f"{{sys.argv}}-{{n}}" for n in range({THREADS})]):
    try:
        call.result(90)
        outcomes.append("ran")
    except flexray.ResourceExhaustedError as error:
        outcomes.append(error.kind)
print(*outcomes, flush=True)
"""

RACE_OF_MAPS = """
print(len(list(enter.map(range(40)))), flush=True)
"""


def start_racers(cluster: Cluster, function: Function[..., Any], race: str) -> list[subprocess.Popen[str]]:
    """Processes that use the function of this one; each begins at a line of input."""
    import cloudpickle

    packed = cloudpickle.dumps(function).hex()
    racers = [cluster.start_driver(RACER.format(function=packed, race=race)) for _ in range(PROCESSES)]
    for racer in racers:
        assert racer.stdout
        assert racer.stdout.readline() == "ready\n"
    return racers


def start_race(racers: list[subprocess.Popen[str]]) -> None:
    for racer in racers:
        assert racer.stdin
        racer.stdin.write("go\n")
        racer.stdin.flush()


def finish(racers: list[subprocess.Popen[str]]) -> list[str]:
    """All words that the racers printed."""
    return [word for racer in racers for word in racer.communicate(timeout=60)[0].split()]


@pytest.mark.parametrize(
    ("limits", "admitted", "kind"),
    [
        (flexray.Limits(pending=7), 7, "pending"),
        (flexray.Limits(pending=100, total=7), 6, "total"),
    ],
    ids=["pending", "total"],
)
def test_exactly_the_surplus_is_refused_when_processes_race(
    cluster: Cluster, gate: Gate, limits: flexray.Limits, admitted: int, kind: str
) -> None:
    app, enter = gated(gate, max_containers=1, limits=limits)
    with app.run():
        [first] = calls(enter, ["first"])
        wait_until(lambda: gate.entered == ["first"])
        racers = start_racers(cluster, enter, RACE_OF_CALLS)
        start_race(racers)
        wait_until(lambda: at(enter, backlog=admitted), timeout_s=30)
        own = [in_background(lambda n=n: enter.remote(n)) for n in range(THREADS)]  # type: ignore[misc]
        refusals = [call.exception(30) for call in own]
        assert all(isinstance(refusal, ResourceExhaustedError) for refusal in refusals)
        assert enter.get_current_stats().backlog == admitted
        gate.open()
        outcomes = finish(racers)
        assert outcomes.count("ran") == admitted
        assert outcomes.count(kind) == PROCESSES * THREADS - admitted
        assert results([first])
        assert enter.remote("later")


def test_a_refusal_names_the_function_the_count_and_the_limit(gate: Gate) -> None:
    app, enter = gated(gate, max_containers=1, limits=flexray.Limits(pending=2))
    with app.run():
        under_way = calls(enter, range(2))
        wait_until(lambda: len(gate.entered) == 1)
        under_way += calls(enter, range(2, 3))
        wait_until(lambda: at(enter, backlog=2))
        with pytest.raises(ResourceExhaustedError) as caught:
            enter.remote("surplus")
        assert str(caught.value).startswith(
            "enter is full: 2 inputs are waiting and the pending limit is 2\n\nhint:"
        )
        gate.open()
        results(under_way)
        assert "surplus" not in gate.entered
        assert enter.remote("retried") > 0


@pytest.mark.long
def test_maps_of_several_processes_wait_at_the_limit_and_finish(cluster: Cluster, gate: Gate) -> None:
    app, enter = gated(gate, max_containers=1, limits=flexray.Limits(pending=10))
    with app.run():
        racers = start_racers(cluster, enter, RACE_OF_MAPS)
        start_race(racers)
        own = in_background(lambda: list(enter.map(range(40))))
        highest = 0

        def seen_for_a_while() -> bool:
            nonlocal highest
            highest = max(highest, enter.get_current_stats().backlog)
            return next(looks) > 30 and highest >= 8

        looks = itertools.count()
        wait_until(seen_for_a_while, timeout_s=30)
        gate.open()
        assert finish(racers) == ["40"] * PROCESSES
        assert len(own.result(60)) == 40
        assert highest <= 10


def test_a_map_at_the_limit_says_so(gate: Gate, capsys: pytest.CaptureFixture[str]) -> None:
    app, enter = gated(gate, max_containers=1, limits=flexray.Limits(pending=10))
    with app.run():
        own = in_background(lambda: list(enter.map(range(40), progress=True)))
        said: list[str] = []

        def waits_for_room() -> bool:
            said.append(capsys.readouterr().err)
            return "of 10 waiting" in "".join(said)

        wait_until(waits_for_room, timeout_s=15)
        gate.open()
        assert len(own.result(60)) == 40


def test_a_map_has_at_most_a_thousand_inputs_outstanding(gate: Gate) -> None:
    app, enter = gated(gate, max_containers=1)
    with app.run():
        read = seen = most = 0

        def inputs() -> Any:
            nonlocal read, most
            for read in range(1, 3001):
                most = max(most, read - seen)
                yield "same"

        def consume() -> None:
            nonlocal seen
            for _ in enter.map(inputs()):
                seen += 1

        consumer = in_background(consume)
        wait_until(lambda: read >= 1000, timeout_s=20)
        wait_until(lambda: enter.get_current_stats().backlog == 999)
        assert read == 1000
        gate.open()
        consumer.result(60)
        assert (read, seen) == (3000, 3000)
        assert most <= 1000 + 512  # Outputs that are ready here are not outstanding.
