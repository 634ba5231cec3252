from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexray.core.idling import BINS, GAPS_LAST, LEVELS, Gaps, IdlePeriods, Idling

COLD_S = 1.5
VALUE = 30.0


def loss_s(low: int) -> float:
    return COLD_S + VALUE * (COLD_S if low == 0 else 0.0)


def after(gaps_s: list[float], level: int = 1, low: int = 0) -> Idling:
    """A load that reached `level` before and after each gap, and `low` during it."""
    idling, now = Idling(), 0.0
    idling.observe(level, now, loss_s)
    for gap_s in gaps_s:
        now += 0.1
        idling.observe(low, now, loss_s)
        now += gap_s
        idling.observe(level, now, loss_s)
    return idling


def test_where_nothing_is_known_an_idle_container_is_worth_one_cold_start() -> None:
    assert Idling().threshold_s(1, 60.0, 5.0) == 5.0
    assert Idling().threshold_s(1, 60.0, 0.3) == 2.0
    assert Idling().threshold_s(1, 60.0, 90.0) == 60.0


def test_gaps_that_are_cheaper_than_a_cold_start_are_bridged() -> None:
    assert 30.0 < after([30.0] * 5).threshold_s(1, 60.0, COLD_S) < 40.0


def test_gaps_that_cost_more_than_a_cold_start_are_not() -> None:
    assert after([50.0] * 5).threshold_s(1, 60.0, COLD_S) == 2.0  # 46.5 container-seconds, waiting included.


def test_gaps_that_outlive_the_window_can_not_be_bridged_whatever_a_cold_start_costs() -> None:
    assert after([61.0] * 5).threshold_s(1, 50.0, 1.5) == 2.0
    slow = Idling()
    for load, now in ((1, 0.0), (0, 1.0), (1, 401.0)):
        slow.observe(load, now, lambda _: 1240.0)
    assert slow.threshold_s(1, 60.0, 40.0) == 2.0


def test_of_mixed_gaps_those_that_pay_are_bridged() -> None:
    assert 5.0 < after([5.0, 300.0] * 20).threshold_s(1, 60.0, COLD_S) < 8.0


def test_gaps_under_two_seconds_say_nothing() -> None:
    assert after([1.9] * 50).threshold_s(1, 60.0, 7.0) == 7.0


def test_each_level_has_its_own_gaps() -> None:
    idling = Idling()
    for turn in range(8):
        idling.observe(4, 30.0 * turn, loss_s)
        idling.observe(0, 30.0 * turn + 1.0, loss_s)
    idling.observe(64, 250.0, loss_s)
    idling.observe(0, 251.0, loss_s)
    idling.observe(64, 900.0, loss_s)
    assert idling.threshold_s(4, 60.0, COLD_S) > 29.0
    assert idling.threshold_s(64, 60.0, COLD_S) == 2.0


def test_a_miss_while_others_are_busy_costs_little_so_the_gap_is_not_bridged() -> None:
    assert after([20.0] * 5, level=6, low=5).threshold_s(6, 60.0, COLD_S) == 2.0
    assert after([20.0] * 5, level=6, low=0).threshold_s(6, 60.0, COLD_S) > 20.0


def test_the_lowest_load_of_a_gap_counts_however_it_was_left() -> None:
    idling = Idling()
    for load, now in ((8, 0.0), (5, 1.0), (0, 2.0), (3, 3.0), (7, 10.0), (8, 20.0)):
        idling.observe(load, now, loss_s)
    assert idling.threshold_s(8, 60.0, COLD_S) > 19.0


def test_old_gaps_are_forgotten_by_half_every_quarter_of_an_hour() -> None:
    gaps = Gaps()
    for _ in range(16):
        gaps.add(300.0, 46.5, 0.0)
    for _ in range(4):
        gaps.add(10.0, 46.5, 4 * 900.0)
    assert gaps.best_s(60.0) > 10.0
    fresh = Gaps()
    for _ in range(16):
        fresh.add(300.0, 46.5, 0.0)
    for _ in range(4):
        fresh.add(10.0, 46.5, 0.0)
    assert fresh.best_s(60.0) == 0.0


def test_weights_never_overflow() -> None:
    gaps = Gaps()
    for day in range(400):
        gaps.add(10.0, 46.5, day * 86_400.0)
    assert math.isfinite(gaps.best_s(60.0))
    assert gaps.best_s(60.0) > 10.0


@given(st.lists(st.floats(2.0, 10_000.0), min_size=1, max_size=60), st.floats(2.0, 3600.0))
def test_the_threshold_costs_no_more_than_any_other_edge(gaps_s: list[float], window_s: float) -> None:
    gaps = Gaps()
    for gap_s in gaps_s:
        gaps.add(gap_s, 46.5, 0.0)
    best_s = gaps.best_s(window_s)

    def cost(threshold_s: float) -> float:
        return sum(gap if gap < threshold_s else threshold_s + 46.5 for gap in gaps_s)

    edges = [2.0 * 2.0 ** ((number + 1) / 4) for number in range(BINS - 1)]
    assert cost(best_s) <= min([cost(0.0), *(cost(edge) for edge in edges if edge <= window_s)]) * (1 + 1e-9)


@given(st.lists(st.tuples(st.integers(0, 5_000), st.floats(0.0, 100.0)), max_size=60))
def test_a_threshold_is_within_two_seconds_and_the_window(steps: list[tuple[int, float]]) -> None:
    idling, now = Idling(), 0.0
    for load, pause_s in steps:
        now += pause_s
        idling.observe(load, now, loss_s)
    for level in (0, 1, 7, 100, 10**7):
        assert 2.0 <= idling.threshold_s(level, 45.0, COLD_S) <= 45.0


def test_levels_rise() -> None:
    assert list(LEVELS) == sorted(set(LEVELS))
    assert LEVELS[:10] == (1, 2, 3, 4, 5, 6, 7, 8, 12, 16)


def test_the_last_container_keeps_the_window_until_there_is_much_to_go_by() -> None:
    assert after([300.0] * (GAPS_LAST - 1)).last_threshold_s(60.0, COLD_S) is None
    assert after([300.0] * GAPS_LAST).last_threshold_s(60.0, COLD_S) == 2.0
    assert after([10.0] * GAPS_LAST).last_threshold_s(60.0, COLD_S) == pytest.approx(12.0, abs=2.0)


def test_three_idle_periods_in_a_row_must_outlive_the_window() -> None:
    periods, now = IdlePeriods(), 0.0
    outlived = []
    for idle_s in (90.0, 90.0, 90.0, 30.0, 90.0):
        periods.observe(60.0, now, busy=True)
        periods.observe(60.0, now + 1.0, busy=False)
        now += 1.0 + idle_s
        periods.observe(60.0, now, busy=True)
        outlived.append(periods.outlive_the_window)
    assert outlived == [False, False, True, False, False]
