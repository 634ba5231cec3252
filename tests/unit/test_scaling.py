from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from flexray.config import AutoscalerSettings
from flexray.core.autoscaler import GIVE_UP_AFTER, UNPLACED_MAX
from flexray.core.callers import Callers
from flexray.core.estimates import Learned
from flexray.core.events import PoolEffect, Report, StartContainer, StopContainer
from flexray.core.ledger import Container, LeaseOut, Ledger, State
from flexray.core.prewarm import NextTick
from flexray.core.scaling import Scaling


class Hand:
    """A Scaling driven by hand: `demand` inputs wait at one caller."""

    def __init__(self, slots: int = 1, startup_timeout_s: float = 60.0, **settings: Any) -> None:
        self.ledger, self.callers, numbers = Ledger(slots), Callers(), count(1)
        self.scaling = Scaling(
            self.ledger,
            self.callers,
            AutoscalerSettings(**settings),
            startup_timeout_s,
            lambda: f"f#{next(numbers)}",
        )
        self.callers.add(Report("d", 1, 0), 0.0)

    def demand(self, inputs: int) -> None:
        caller = self.callers.get("d")
        assert caller is not None
        caller.report = Report("d", caller.report.number + 1, 0, waiting=inputs)
        self.callers.recount("d", caller)

    def take(self, container: Container, waiting: int) -> None:
        """An input runs on this container, and so many wait."""
        caller = self.callers.get("d")
        assert caller is not None
        caller.leases[1] = LeaseOut(1, container, "d", granted_at=0.0, listed_at=0)
        report = caller.report
        caller.report = replace(report, number=report.number + 1, assigned=1, waiting=waiting)
        self.callers.recount("d", caller)

    def run(self, now: float, *, ticked: bool = True, may_shrink: bool = True) -> list[PoolEffect]:
        return self.scaling.run(now, ticked=ticked, may_shrink=may_shrink)

    def container(self, number: int) -> Container:
        return self.ledger.containers[f"f#{number}"]

    def make_ready(self, now: float) -> None:
        for container in list(self.ledger.by_state[State.LAUNCHED].values()):
            self.scaling.placed(container)
        for container in list(self.ledger.by_state[State.LOADING].values()):
            self.scaling.became_ready(container, now)


def starts(effects: list[PoolEffect]) -> int:
    return sum(isinstance(effect, StartContainer) for effect in effects)


def stops(effects: list[PoolEffect]) -> list[str]:
    return [effect.container_id for effect in effects if isinstance(effect, StopContainer)]


def launched_at(now: float) -> Container:
    return Container("f#0", State.LOADING, launched_at=now, idle_since=now)


def test_starts_that_fail_together_count_once() -> None:
    hand = Hand()
    for _ in range(GIVE_UP_AFTER):
        hand.scaling.start_failed(launched_at(0.0), "the node died", 1.0)
    assert hand.scaling.failed_starts == 1
    assert not hand.scaling.take_give_up()


def test_a_waiting_input_starts_a_container_at_once() -> None:
    hand = Hand()
    hand.demand(1)
    assert starts(hand.run(0.0, ticked=False)) == 1
    assert starts(hand.run(0.1)) == 0


def test_no_more_containers_than_the_maximum_are_started_those_on_their_way_out_included() -> None:
    hand = Hand(max_containers=3)
    hand.demand(10)
    assert starts(hand.run(0.0)) == 3
    hand.make_ready(1.0)
    hand.scaling.stop(hand.container(1))
    hand.demand(11)
    assert starts(hand.run(2.0)) == 0
    hand.ledger.remove(hand.container(1))
    hand.demand(12)
    assert starts(hand.run(3.0)) == 1


def test_eight_launches_wait_for_a_place_and_more_follow_as_places_are_found() -> None:
    hand = Hand()
    hand.demand(100)
    assert starts(hand.run(0.0)) == UNPLACED_MAX
    hand.scaling.placed(hand.container(1))
    assert starts(hand.run(0.1)) > UNPLACED_MAX


def test_launches_without_a_place_are_withdrawn_when_nothing_waits_the_newest_first() -> None:
    hand = Hand(scaledown_window=2.0)
    hand.demand(3)
    hand.run(0.0)
    hand.demand(0)
    assert stops(hand.run(0.3)) == ["f#2", "f#3"]  # An active pool keeps one.
    assert stops(hand.run(2.6)) == ["f#1"]


def test_the_minimum_is_kept_without_any_input() -> None:
    hand = Hand(min_containers=2)
    assert starts(hand.run(0.0)) == 2
    hand.make_ready(1.0)
    assert not stops(hand.run(10_000.0))


def test_the_last_container_stops_when_the_pool_is_inactive_and_not_before() -> None:
    hand = Hand(scaledown_window=2.0, max_containers=1)
    hand.demand(1)
    hand.run(0.0)
    hand.make_ready(0.5)
    hand.run(1.0)
    hand.demand(0)
    assert not stops(hand.run(2.9))
    assert stops(hand.run(3.1)) == ["f#1"]


def test_a_container_with_a_lease_out_is_not_stopped() -> None:
    hand = Hand(scaledown_window=2.0)
    hand.demand(1)
    hand.run(0.0)
    hand.make_ready(0.5)
    hand.ledger.grant(1, hand.container(1), "d", 0.5)
    hand.demand(0)
    assert not stops(hand.run(100.0))


def test_above_a_lowered_maximum_the_idle_go_first_and_busy_ones_drain() -> None:
    hand = Hand()
    hand.demand(3)
    hand.run(0.0)
    hand.make_ready(1.0)
    for number in (1, 2):
        hand.ledger.grant(number, hand.container(number), "d", 1.0)
    hand.scaling.settings = AutoscalerSettings(max_containers=1)
    assert stops(hand.run(1.1)) == ["f#3"]
    assert list(hand.ledger.draining) == ["f#1"]


def test_nothing_is_stopped_while_callers_are_expected_after_a_restart() -> None:
    hand = Hand(scaledown_window=2.0)
    hand.demand(2)
    hand.run(0.0)
    hand.make_ready(1.0)
    hand.demand(0)
    assert not stops(hand.run(100.0, may_shrink=False))
    assert stops(hand.run(100.0))


def test_after_failed_starts_one_is_tried_at_a_time_with_growing_pauses() -> None:
    hand = Hand()
    hand.demand(5)
    now, pauses = 0.0, []
    hand.run(now)
    for container in list(hand.ledger.containers.values())[1:]:
        hand.ledger.remove(container)
    for _ in range(GIVE_UP_AFTER):
        container = next(iter(hand.ledger.containers.values()))
        hand.ledger.remove(container)
        hand.scaling.start_failed(container, "broken", now)
        failed_at = now
        while not (started := starts(hand.run(now))):
            now += 0.25
        assert started == 1
        pauses.append(now - failed_at)
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30, 30, 30]
    assert hand.scaling.take_give_up()
    assert not hand.scaling.take_give_up()


def test_a_container_that_becomes_ready_ends_the_pause_and_the_row_of_failures() -> None:
    hand = Hand()
    hand.demand(2)
    hand.run(0.0)
    hand.ledger.remove(hand.container(1))
    hand.scaling.start_failed(launched_at(0.0), "broken", 0.1)
    hand.make_ready(0.2)
    assert (hand.scaling.failed_starts, hand.scaling.failure) == (0, None)
    hand.demand(4)
    assert starts(hand.run(0.3)) > 1


def test_failed_starts_are_not_given_up_where_a_container_was_ever_ready() -> None:
    hand = Hand()
    hand.demand(1)
    hand.run(0.0)
    hand.make_ready(0.1)
    for number in range(GIVE_UP_AFTER):
        hand.scaling.start_failed(launched_at(float(number)), "broken", float(number))
    assert hand.scaling.failed_starts == GIVE_UP_AFTER
    assert not hand.scaling.take_give_up()


def test_code_that_can_never_be_loaded_is_given_up_at_once_and_starts_nothing() -> None:
    hand = Hand()
    hand.scaling.start_failed(launched_at(0.0), "does not unpickle", 0.0, permanent=True)
    assert hand.scaling.take_give_up()
    hand.demand(5)
    assert not hand.run(100.0)


def test_a_start_ends_at_the_startup_timeout_and_one_without_a_place_is_given_up() -> None:
    hand = Hand(startup_timeout_s=10.0)
    hand.demand(1)
    hand.run(0.0)
    assert not stops(hand.run(9.9))
    assert stops(hand.run(10.1)) == ["f#1"]
    assert hand.scaling.take_give_up()
    assert "Ray found no place" in str(hand.scaling.failure)


def test_decisions_that_changed_something_are_kept_with_their_reasons() -> None:
    hand = Hand()
    hand.demand(1)
    hand.run(0.0)
    hand.run(0.3)
    assert [str(logged.decision.reason) for logged in hand.scaling.decisions] == [
        "0 -> 1: 1 waiting and no input has finished yet"
    ]


def test_what_ray_places_makes_room_for_further_launches_before_the_next_tick() -> None:
    hand = Hand()
    hand.demand(100)
    assert starts(hand.run(0.0)) == UNPLACED_MAX
    for container in list(hand.ledger.by_state[State.LAUNCHED].values())[: UNPLACED_MAX // 2]:
        hand.scaling.placed(container)
    assert starts(hand.run(0.004, ticked=False)) > UNPLACED_MAX


def burst(hand: Hand, inputs: int, now: float) -> None:
    """So many inputs wait until as many containers are ready, and are over at once."""
    hand.demand(inputs)
    hand.run(now)
    for step in range(20):
        hand.make_ready(now + 1.5)
        hand.run(now + 1.5 + step / 1000, ticked=False)
    hand.demand(0)
    hand.run(now + 2.0)


def test_idle_containers_are_kept_for_as_long_as_it_was_worth_it_before() -> None:
    hand = Hand()
    burst(hand, 4, 0.0)
    hand.run(9.0)
    assert hand.ledger.ready == 1  # Nothing is known: a cold start's time, in 2 s..window.
    burst(hand, 4, 22.0)
    hand.run(41.0)
    assert hand.ledger.ready == 4  # They came back after 20 s before.
    hand.run(51.0)
    assert hand.ledger.ready == 1
    assert str(hand.scaling.decisions[-1]) == "4 -> 1: 3 containers ended, idle for 27.5 s"


def test_the_last_container_is_let_go_early_after_three_idle_periods_beyond_the_window() -> None:
    hand = Hand(scaledown_window=10.0)
    for turn in range(4):
        burst(hand, 1, 100.0 * turn)
        hand.run(100.0 * turn + 7.0)
        assert hand.ledger.ready == (1 if turn < 3 else 0)
        hand.run(100.0 * turn + 20.0)
        assert hand.ledger.ready == 0


def test_containers_are_ready_before_a_tick_and_leave_soon_after_it() -> None:
    hand = Hand()
    burst(hand, 1, 0.0)
    hand.run(70.0)
    assert hand.ledger.ready == 0
    hand.scaling.lessons.next_tick = NextTick(at=200.0)
    assert starts(hand.run(198.0)) == 0
    assert starts(hand.run(198.4)) == 1
    hand.make_ready(199.9)
    assert stops(hand.run(203.0)) == []
    hand.scaling.lessons.next_tick = NextTick(at=500.0)
    assert len(stops(hand.run(203.25))) == 1


def test_a_stall_is_one_that_chance_and_late_reports_do_not_explain() -> None:
    hand = Hand(max_containers=1)
    burst(hand, 1, 0.0)  # Its cold start takes 1.5 s.
    (container,) = hand.ledger.containers.values()

    def stalled_s(service_s: float, waited_s: float) -> float:
        hand.scaling.lessons.ended(256, 256 * service_s, [service_s])
        hand.demand(0)
        hand.scaling.facts(10.0)
        hand.take(container, waiting=1)
        hand.scaling.facts(10.0)
        assert hand.scaling.facts(10.0 + waited_s).stalled_s == 0.0
        wanted = hand.scaling.lessons.wants_report
        hand.scaling.lessons.ask()
        hand.scaling.lessons.nothing_ended()
        stalled_s = hand.scaling.facts(10.0 + waited_s).stalled_s
        assert wanted == (stalled_s > 0)
        return stalled_s

    assert stalled_s(0.1, 1.4) == 0.0
    assert stalled_s(0.1, 1.6) == pytest.approx(1.6)
    assert stalled_s(1.0, 1.9) == 0.0
    assert stalled_s(1.0, 2.1) == pytest.approx(2.1)
    hand.scaling.facts(12.56)
    hand.scaling.lessons.ask()
    hand.scaling.lessons.nothing_ended()
    assert hand.scaling.facts(12.56).service_s == pytest.approx(1.01)
    hand.scaling.held_up = True
    assert hand.scaling.facts(12.57).stalled_s == 0.0, "what it waits for has no container"
    hand.scaling.held_up = False
    hand.scaling.lessons.ended(1, 2.56, [2.56])
    assert hand.scaling.facts(12.57).stalled_s == 0.0


def test_what_was_learned_is_known_after_a_restart() -> None:
    hand, other = Hand(), Hand()
    for number in range(200):
        hand.scaling.lessons.service.add(1.0 + number % 10 / 10)
    for number in range(5):
        hand.scaling.lessons.cold_starts.add(float(number))
    learned = hand.scaling.lessons.learned
    assert len(learned.service_s) == 32
    other.scaling.lessons.recall(learned)
    assert other.scaling.lessons.service.mean == pytest.approx(hand.scaling.lessons.service.mean, rel=0.02)
    assert other.scaling.lessons.cold_starts.quantile() == hand.scaling.lessons.cold_starts.quantile()
    other.demand(10_000)
    assert other.scaling.facts(0.0).service_s is not None
    other.scaling.lessons.recall(Learned())
