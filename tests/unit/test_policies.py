"""The simulated pool in which scaling policies are compared."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from flexray.core.ledger import LeaseOut
from tests.bench.policies.comparison import PEERS, better_in_both, figures, mean_regret
from tests.bench.policies.ours import Ours
from tests.bench.policies.page import page
from tests.bench.policies.peers.averages import Concurrency
from tests.bench.policies.peers.one_per_input import OnePerInput
from tests.bench.policies.reach import crash_loop
from tests.bench.policies.report import goals
from tests.bench.policies.simulator import PLACES_PER_S, Input, Outcome, Policy, Simulation, Trace
from tests.bench.policies.traces import ALL, traces

SMALL = Trace("small", [Input(at, 0.3) for at in (1.0, 1.0, 1.1, 5.0, 40.0, 40.0, 100.0)], 130.0, slots=2)


class Fixed(Policy):
    """Always the same number of containers; keeps books of its own."""

    def __init__(self, containers: int) -> None:
        self.containers = containers
        self.arrivals = self.begun = self.over = self.most = 0

    def arrived(self, inputs: int) -> None:
        self.arrivals += inputs

    def began(self, lease: LeaseOut) -> None:
        self.begun += 1
        self.most = max(self.most, self.begun - self.over)

    def finished(self, lease: LeaseOut, service_s: float) -> None:
        self.over += 1

    def act(self, pool: Simulation, *, ticked: bool) -> None:
        assert pool.in_flight == self.arrivals - self.over
        pool.start(self.containers - pool.live)


def poisson(rate: float, service_s: float, inputs: int, seed: int) -> Trace:
    rng, at, made = random.Random(seed), 10.0, []
    for _ in range(inputs):
        at += rng.expovariate(rate)
        made.append(Input(at, rng.expovariate(1 / service_s)))
    return Trace("poisson", made, at, cold_start_s=1.0)


def erlang_c(servers: int, load: float) -> float:
    """The chance that an input waits in M/M/c."""
    terms = [load**n / math.factorial(n) for n in range(servers)]
    last = load**servers / math.factorial(servers) * servers / (servers - load)
    return last / (sum(terms) + last)


@pytest.mark.parametrize(("servers", "load"), [(1, 0.5), (4, 2.5)])
def test_waits_are_those_of_the_queue_m_m_c(servers: int, load: float) -> None:
    waits = [
        Simulation(poisson(load, 1.0, 15_000, seed), Fixed(servers), seed).run().mean_wait_s
        for seed in range(4)
    ]
    assert sum(waits) / 4 == pytest.approx(erlang_c(servers, load) / (servers - load), rel=0.1)


def test_every_input_is_served_once_and_no_slot_twice_at_a_time() -> None:
    policy = Fixed(3)
    outcome = Simulation(poisson(5.0, 1.0, 2_000, 1), policy, 1).run()
    assert policy.arrivals == policy.begun == policy.over == len(outcome.waits_s) == 2_000
    assert policy.most == 3
    assert min(outcome.waits_s) >= 0.0


def test_a_container_costs_from_its_launch_to_its_end() -> None:
    trace = Trace("one", [Input(10.0, 5.0)], 100.0)
    assert Simulation(trace, Fixed(2), 1).run().container_s == pytest.approx(2 * 90.0)
    outcome = Simulation(trace, OnePerInput(20.0), 1).run()
    (wait_s,) = outcome.waits_s
    assert 1.2 <= wait_s <= 1.8 + 2 / PLACES_PER_S
    assert outcome.container_s == pytest.approx(wait_s + 5.0 + 20.0)


def test_the_cluster_places_so_many_launches_a_second() -> None:
    trace = Trace("many", [Input(1.0, 100.0)] * 1000, 10.0, cold_start_s=1e-6)
    assert max(Simulation(trace, OnePerInput(60.0), 1).run().waits_s) == pytest.approx(
        1000 / PLACES_PER_S, abs=0.01
    )


def test_prices_and_quantiles() -> None:
    outcome = Outcome([0.0, 1.0, 2.0, 3.0], 10.0, 2)
    assert outcome.price(30.0) == 190.0
    assert outcome.wait_s(0.5) == 2.0
    assert outcome.wait_s(0.99) == 3.0


def test_a_mean_over_a_window_that_has_just_begun_is_over_what_it_has() -> None:
    levels = Concurrency(60.0)
    pool = Simulation(Trace("x", [], 1.0), Fixed(0), 1)
    for now, waiting in ((0.0, 0), (100.0, 4), (101.0, 8), (102.0, 0)):
        pool.now = now
        pool.queue.extend([Input(now, 1.0)] * (waiting - pool.waiting))
        while pool.waiting > waiting:
            pool.queue.pop()
        levels.note(pool)
    assert levels.mean(60.0) == pytest.approx(6.0)
    assert levels.mean(1.0) == pytest.approx(8.0)


@pytest.mark.parametrize("make", [lambda: Ours(SMALL), *PEERS])
def test_every_policy_serves_all_and_keeps_to_the_clusters_size(make: Callable[[], Policy]) -> None:
    outcome = Simulation(SMALL, make(), 1).run()
    assert len(outcome.waits_s) == len(SMALL.inputs)
    assert 1 <= outcome.launches <= 20
    assert 0.0 < outcome.container_s < 6 * 130.0


def test_the_same_seed_gives_the_same_figures() -> None:
    trace = poisson(1.0, 0.3, 100, 7)
    first, second = (Simulation(trace, Ours(trace), 7).run() for _ in range(2))
    assert first == second


def test_there_are_fourteen_traces_in_order_of_time() -> None:
    drawn = traces(1)
    assert len({trace.name for trace in drawn}) == len(ALL) == 14
    for trace in drawn:
        assert [one.at for one in trace.inputs] == sorted(one.at for one in trace.inputs)
        assert trace.inputs[-1].at < trace.horizon_s


def test_the_comparison_makes_its_page(tmp_path: Path) -> None:
    rows = [figures(Ours, [SMALL]), *(figures(make, [SMALL]) for make in PEERS)]
    table = {"small": {row.policy: row for row in rows}}
    assert min(mean_regret(table, row.policy, 30.0) for row in rows) == 1.0
    found = goals(table, [])
    assert {one.what for one in found} >= {"mean regret at v = 30"}
    text = page(table, found, 1)
    assert "| FlexRay" in text
    assert isinstance(better_in_both(table), list)


def test_a_crash_loop_starts_few_containers() -> None:
    assert crash_loop(1).reached
