import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexray.core.estimates import Arrivals, ColdStarts, Occupancy, ServiceTimes, Stall, _Counted

SECONDS = st.floats(0, 1e4)


# ------------------------------------------------------------------------------------- service times


def test_service_times_are_unknown_before_the_first() -> None:
    times = ServiceTimes()
    assert times.mean is None
    assert times.cv2 is None
    assert list(times.sample) == []


def test_one_service_time_says_nothing_of_their_spread() -> None:
    times = ServiceTimes()
    times.add(2.0)
    assert times.mean == 2.0
    assert times.cv2 == 1.0


@given(st.lists(SECONDS, min_size=2, max_size=700))
def test_mean_spread_and_sample_are_those_of_the_last_256(seconds: list[float]) -> None:
    times = ServiceTimes()
    for one in seconds:
        times.add(one)
    last = seconds[-256:]
    mean = statistics.fmean(last)
    assert times.mean == pytest.approx(mean, abs=1e-6)
    assert list(times.sample) == sorted(last)
    if mean > 0.01:
        assert times.cv2 == pytest.approx(min(1.0, statistics.pvariance(last) / mean**2), abs=1e-3)


def test_equal_service_times_have_no_spread() -> None:
    times = ServiceTimes()
    for _ in range(1000):
        times.add(0.1)
    assert times.cv2 == pytest.approx(0.0, abs=1e-9)


def test_what_runs_and_has_not_ended_makes_the_mean_longer() -> None:
    times = ServiceTimes()
    assert times.mean_with(5.0) is None
    for _ in range(4):
        times.add(0.5)
    assert times.mean_with(0.0) == times.mean
    assert times.mean_with(10.0) == pytest.approx(3.0)


def confirmed(stall: Stall) -> tuple[float, float]:
    """Seconds, and those of all slots, once whoever is asked has seen no end."""
    stall.ask()
    stall.confirm()
    return stall.seconds, stall.slot_s


def test_a_stall_is_the_time_in_which_slots_run_and_end_nothing_while_something_waits() -> None:
    stall = Stall()
    stall.observe(2, 0.0, waiting=True)
    stall.observe(4, 1.0, waiting=True)
    stall.observe(4, 3.0, waiting=True)
    assert confirmed(stall) == (3.0, 2.0 + 8.0)
    stall.observe(1, 4.0, waiting=True)  # Three are gone, with what ran there.
    stall.observe(0, 5.0, waiting=True)
    stall.observe(1, 9.0, waiting=True)
    assert confirmed(stall) == (5.0, 11.0)
    stall.observe(1, 10.0, waiting=False)
    assert confirmed(stall) == (0.0, 0.0)
    stall.observe(1, 19.0, waiting=True)  # Nothing waited until now.
    assert confirmed(stall) == (0.0, 0.0)


def test_what_nobody_was_asked_or_has_confirmed_is_no_stall() -> None:
    stall = Stall()
    stall.observe(1, 0.0, waiting=True)
    stall.observe(1, 4.0, waiting=True)
    stall.confirm()
    assert (stall.seconds, stall.unconfirmed_s) == (0.0, 4.0)
    stall.ask()
    stall.observe(1, 7.0, waiting=True)  # The controller may have been paused, with the answer on its way.
    stall.confirm()
    assert (stall.seconds, stall.unconfirmed_s) == (4.0, 3.0)
    stall.ask()
    stall.ended()
    stall.observe(1, 9.0, waiting=True)  # The end was just before this look.
    stall.confirm()
    assert (stall.seconds, stall.unconfirmed_s) == (0.0, 0.0)


def test_rounding_errors_do_not_add_up() -> None:
    times = ServiceTimes()
    for _ in range(300):
        times.add(1e9)
    for _ in range(1000):
        times.add(1e-3)
    assert times.mean == pytest.approx(1e-3)
    assert times.cv2 == pytest.approx(0.0, abs=1e-6)


def test_a_summary_weighs_as_much_as_its_inputs() -> None:
    times = ServiceTimes()
    times.add_summary(30, 30.0, [1.0] * 30)
    times.add_summary(90, 270.0, [3.0] * 32)
    assert times.mean == pytest.approx(300 / 120)
    assert len(times.sample) == 62


def test_a_large_summary_replaces_what_was_known() -> None:
    times = ServiceTimes()
    for _ in range(100):
        times.add(9.0)
    times.add_summary(100_000, 1_000.0, [0.01] * 32)
    assert times.mean == pytest.approx(0.01)
    times.add_summary(0, 0.0, [])
    assert times.mean == pytest.approx(0.01)
    for _ in range(255):
        times.add(1.0)
    assert times.mean == pytest.approx((256 * 0.01 + 255) / 511)


@given(st.lists(st.tuples(st.integers(1, 500), SECONDS), min_size=1, max_size=50))
def test_the_mean_of_summaries_stays_between_their_extremes(parts: list[tuple[int, float]]) -> None:
    times = ServiceTimes()
    for count, mean in parts:
        times.add_summary(count, count * mean, [mean])
    means = [mean for _, mean in parts]
    assert times.mean is not None
    assert min(means) - 1e-6 <= times.mean <= max(means) + 1e-6


# --------------------------------------------------------------------------------------- cold starts


def test_before_the_first_cold_start_the_default_counts() -> None:
    assert ColdStarts().quantile() == 2.0
    assert ColdStarts(default_s=0.4).quantile() == 0.4
    assert ColdStarts().slowest is None
    assert ColdStarts().stale_after == 60.0


@given(st.lists(SECONDS, min_size=1, max_size=100))
def test_the_quantile_is_reached_by_its_share_of_the_last_32(seconds: list[float]) -> None:
    starts = ColdStarts()
    for one in seconds:
        starts.add(one)
    last = seconds[-32:]
    assert sum(one <= starts.quantile() for one in last) >= 0.6 * len(last)
    assert sum(one < starts.quantile() for one in last) <= 0.6 * len(last)
    assert starts.slowest == max(last)
    assert starts.quantile(0.0) == min(last)
    assert starts.quantile(1.0) == max(last)


def test_a_start_is_stale_after_three_cold_starts_or_the_slowest_one() -> None:
    starts = ColdStarts()
    for _ in range(10):
        starts.add(1.0)
    assert starts.stale_after == 3.0
    starts.add(7.0)
    assert starts.stale_after == 7.0


# ------------------------------------------------------------------------------------------ arrivals


def test_without_arrivals_the_rate_is_zero() -> None:
    assert Arrivals().rate(5.0) == 0.0


@pytest.mark.parametrize("per_second", [0.5, 2.0, 40.0, 700.0])
def test_a_steady_stream_has_its_rate(per_second: float) -> None:
    arrivals = Arrivals()
    count = int(80 * per_second)
    for number in range(count):
        arrivals.add(1, number / per_second)
    assert arrivals.rate((count - 1) / per_second) == pytest.approx(per_second, rel=0.35)


def test_a_lone_burst_counts_nothing() -> None:
    arrivals = Arrivals()
    arrivals.add(10_000, 100.0)
    assert arrivals.rate(100.0) == 0.0
    assert arrivals.rate(101.0) == 0.0
    assert arrivals.rate(150.0) == 0.0


def test_a_burst_on_top_of_a_stream_does_not_move_its_rate() -> None:
    arrivals = Arrivals()
    for number in range(1000):
        arrivals.add(1, number * 0.01)
    before = arrivals.rate(10.0)
    arrivals.add(5_000, 10.0)
    assert arrivals.rate(10.0) == pytest.approx(before, rel=0.1)


def test_a_stream_that_ends_is_forgotten_within_a_second() -> None:
    arrivals = Arrivals()
    for number in range(1000):
        arrivals.add(1, number * 0.01)
    assert arrivals.rate(10.7) == 0.0


@given(st.lists(st.tuples(st.integers(0, 50), st.floats(0, 20)), max_size=200))
def test_a_rate_is_never_negative_and_never_above_all_arrivals_in_one_part(
    parts: list[tuple[int, float]],
) -> None:
    arrivals, now = Arrivals(), 1000.0
    for count, gap in parts:
        now += gap
        arrivals.add(count, now)
        assert 0.0 <= arrivals.rate(now) <= 8 * sum(count for count, _ in parts)


def test_counts_survive_the_forgetting_of_old_steps() -> None:
    counted = _Counted(resolution_s=0.1, horizon_s=60.0)
    for number in range(1000):
        counted.add(1, number * 3.5)
        assert counted.until(number * 3.5 - 60.0) == max(0, number - 17)
        assert counted.until(number * 3.5) == number + 1


def test_the_memory_of_arrivals_is_bounded() -> None:
    arrivals = Arrivals()
    for number in range(100_000):
        arrivals.add(1, number * 0.05)
    assert len(arrivals._counted._times) < 4_000


# ----------------------------------------------------------------------------------------- occupancy


def test_before_anything_was_seen_no_slot_is_busy() -> None:
    assert Occupancy().level(3.0) == 0.0


def test_a_level_that_lasts_is_seen() -> None:
    occupancy = Occupancy()
    occupancy.observe(5, 0.0, arrived=5)
    assert occupancy.level(100.0) == pytest.approx(5.0)


def test_occupancy_is_weighted_by_time() -> None:
    occupancy = Occupancy()
    for second in range(100):
        occupancy.observe(4, float(second))
        occupancy.observe(0, second + 0.25)
    assert occupancy.level(99.25) == pytest.approx(1.0, rel=0.2)


def test_a_short_peak_is_no_sustained_load() -> None:
    occupancy = Occupancy()
    occupancy.observe(1, 0.0)
    occupancy.observe(500, 60.0)
    occupancy.observe(1, 61.0)
    assert occupancy.level(80.0) == pytest.approx(1.0)


def test_the_window_shrinks_to_eight_seconds_under_many_arrivals() -> None:
    occupancy = Occupancy()
    occupancy.observe(0, 0.0)
    for step in range(1000):
        occupancy.observe(7, 100 + step * 0.01, arrived=1)
    assert occupancy.level(110.0) == pytest.approx(7.0)
    slow = Occupancy()
    slow.observe(0, 0.0, arrived=1)
    for step in range(10):
        slow.observe(7, float(100 + step), arrived=1)
    assert slow.level(110.0) == 0.0


@given(st.lists(st.tuples(st.integers(0, 100), st.floats(0, 10), st.integers(0, 100)), max_size=200))
def test_a_level_lies_within_what_was_observed(parts: list[tuple[int, float, int]]) -> None:
    occupancy, now = Occupancy(), 50.0
    for assigned, gap, arrived in parts:
        now += gap
        occupancy.observe(assigned, now, arrived)
        assert 0.0 <= occupancy.level(now) <= max(assigned for assigned, _, _ in parts) + 1e-6


@given(st.lists(st.tuples(st.integers(0, 9), st.floats(0.2, 5)), min_size=1, max_size=150), st.floats(0, 30))
def test_a_level_is_the_median_of_eight_exact_means(parts: list[tuple[int, float]], after: float) -> None:
    occupancy, curve, now = Occupancy(), [], 0.0
    for assigned, gap in parts:
        occupancy.observe(assigned, now)
        curve.append((now, assigned))
        now += gap
    now += after
    ends = [*(start for start, _ in curve[1:]), now]
    means = []
    for part in range(8):
        low, high = now - 7.5 * (part + 1), now - 7.5 * part
        overlap = (
            level * max(0.0, min(high, end) - max(low, start))
            for (start, level), end in zip(curve, ends, strict=True)
        )
        means.append(math.fsum(overlap) / 7.5)
    assert occupancy.level(now) == pytest.approx(statistics.median(means), abs=1e-6)


def test_the_memory_of_occupancy_is_bounded() -> None:
    occupancy = Occupancy()
    for number in range(100_000):
        occupancy.observe(number % 7, number * 0.05, arrived=1)
    assert len(occupancy._times) < 2_000
    assert occupancy.level(5_000.0) == pytest.approx(3.0, rel=0.1)
