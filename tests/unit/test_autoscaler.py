import ast
import inspect
import math
import pickle
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexray.config import AutoscalerSettings
from flexray.core import autoscaler, estimates, facts, idling, prewarm, sharing
from flexray.core.autoscaler import (
    AGES_MAX,
    GIVE_UP_AFTER,
    STAFFING,
    Facts,
    Rule,
    decide,
    early_idle_s,
    hold_containers,
    idle_limit_s,
    sample,
    staffing,
    start_backoff_s,
    starts_now,
)

ANY = AutoscalerSettings()


def given_facts(settings: AutoscalerSettings = ANY, **values: object) -> Facts:
    values = {"slots": 1, "cold_start_s": 1.5, "service_cv2": 0.0, "active": True} | values
    return Facts(settings, **values)  # type: ignore[arg-type]


@st.composite
def settings_of_any_kind(draw: st.DrawFn) -> AutoscalerSettings:
    least = draw(st.integers(0, 5))
    most = draw(st.none() | st.integers(max(1, least), 50))
    return AutoscalerSettings(
        min_containers=least,
        max_containers=most,
        buffer_containers=draw(st.integers(0, 5)),
        scaledown_window=draw(st.sampled_from([2.0, 60.0, 3600.0])),
    )


@st.composite
def facts_of_any_kind(draw: st.DrawFn) -> Facts:
    starting = draw(st.integers(0, 100))
    ages = sorted(draw(st.lists(st.floats(0, 300), max_size=min(starting, 64))), reverse=True)
    seconds = st.floats(0, 1e5)
    return Facts(
        settings=draw(settings_of_any_kind()),
        slots=draw(st.integers(1, 32)),
        demand=draw(st.integers(0, 1_000_000)),
        assigned=draw(st.integers(0, 1_000)),
        ready=draw(st.integers(0, 100)),
        starting=starting,
        starting_ages=tuple(ages),
        unplaced=draw(st.integers(0, 8)),
        service_s=draw(st.none() | seconds),
        stalled_s=draw(st.sampled_from([0.0, 3.0, 1000.0])),
        service_cv2=draw(st.none() | st.floats(0, 1)),
        cold_start_s=draw(st.floats(0, 300)),
        stale_after_s=draw(st.none() | st.floats(1, 300)),
        arrival_rate=draw(st.floats(0, 1e4)),
        occupancy=draw(st.floats(0, 1e4)),
        active=draw(st.booleans()),
        waited_s=draw(seconds),
        failed_starts=draw(st.integers(0, 20)),
        idle_tail_s=draw(st.floats(0, 3600)),
        last_tail_s=draw(st.none() | st.floats(0, 3600)),
    )


# ------------------------------------------------------------------------------------- for all facts


@given(facts_of_any_kind(), st.integers(0, 10))
def test_the_target_is_within_the_users_bounds(known: Facts, replacing: int) -> None:
    known = replace(known, replacing=replacing)
    decision = decide(known)
    assert decision.target >= known.settings.min_containers
    if known.settings.max_containers is not None:
        assert decision.target <= known.settings.max_containers
    assert 0 <= decision.stale_withdrawn <= known.starting // 2
    assert 0 <= starts_now(known, decision.target) <= decision.target
    assert decision.reason.target == decision.target
    assert str(decision.reason)


@given(facts_of_any_kind(), st.integers(0, 100_000))
def test_more_demand_never_asks_for_fewer_containers(known: Facts, more: int) -> None:
    assert decide(replace(known, demand=known.demand + more)).target >= decide(known).target


@given(facts_of_any_kind(), st.integers(1, 10))
def test_what_is_replaced_comes_on_top_of_what_is_ready(known: Facts, replacing: int) -> None:
    known = replace(known, replacing=replacing, settings=ANY)
    assert decide(known).target >= known.ready + replacing


@given(facts_of_any_kind())
def test_an_inactive_pool_without_minimum_wants_nothing(known: Facts) -> None:
    quiet = replace(
        known,
        settings=AutoscalerSettings(buffer_containers=known.settings.buffer_containers),
        demand=0,
        assigned=0,
        active=False,
    )
    decision = decide(quiet)
    assert decision.target == 0
    assert decision.reason.rule is Rule.INACTIVE


@given(facts_of_any_kind())
def test_while_nothing_waits_only_minimum_buffer_and_the_one_start_anything(known: Facts) -> None:
    quiet = replace(known, demand=0, starting=0, starting_ages=(), unplaced=0)
    occupied = math.ceil(quiet.assigned / quiet.slots)
    settings = quiet.settings
    buffer = occupied + settings.buffer_containers if settings.buffer_containers else 0
    assert decide(quiet).target <= max(quiet.ready, settings.min_containers, buffer, 1)


@given(facts_of_any_kind())
def test_what_was_started_is_never_more_than_one_container_per_input(known: Facts) -> None:
    known = replace(
        known,
        settings=ANY,
        arrival_rate=0.0,
        occupancy=0.0,
        starting=0,
        starting_ages=(),
    )
    extra = decide(known).target - known.ready
    assert extra <= max(1, math.ceil(known.demand / known.slots))


@given(facts_of_any_kind(), st.integers(0, 100))
def test_an_idle_container_never_stays_beyond_the_window_unless_a_setting_says_so(
    known: Facts, idle: int
) -> None:
    limit = idle_limit_s(known, idle)
    settings = known.settings
    if limit is None:
        kept = known.ready <= max(1, settings.min_containers)  # The last one waits for the end of activity.
        assert kept or idle <= settings.buffer_containers
    else:
        assert 0.0 <= limit <= settings.scaledown_window


# ------------------------------------------------------------------------------------------- growing


def test_a_waiting_input_starts_a_container_at_once() -> None:
    assert decide(given_facts(demand=1)).target == 1
    assert decide(given_facts(demand=1, service_s=0.001)).target == 1


def test_nothing_starts_when_the_backlog_is_gone_before_it_could_help() -> None:
    decision = decide(given_facts(demand=40, assigned=3, ready=3, service_s=0.03))
    assert decision.target == 3
    assert decision.reason.rule is Rule.SOON
    assert str(decision.reason) == "kept 3: backlog gone in 0.4 s"


def test_starting_containers_count_by_the_time_that_they_will_have_left() -> None:
    known = given_facts(demand=10, starting=10, service_s=10.0)
    assert decide(replace(known, starting_ages=(0.5,) * 10)).target == 10
    short = given_facts(demand=100, starting=1, service_s=0.01)
    assert decide(replace(short, starting_ages=(1.4,))).target < decide(short).target


def test_a_sample_of_ages_stands_for_all_of_them() -> None:
    ages = [age * 0.01 for age in range(127, -1, -1)]
    known = given_facts(demand=20_000, starting=128, starting_ages=ages, service_s=0.05)
    sampled = replace(known, starting_ages=sample(ages))
    assert len(sampled.starting_ages) == AGES_MAX
    assert decide(sampled).reason.rule is Rule.BACKLOG
    assert decide(sampled).target == pytest.approx(decide(known).target, rel=0.02)


def test_the_backlog_rule_is_its_closed_form() -> None:
    known = given_facts(
        slots=2,
        demand=500,
        assigned=10,
        ready=5,
        starting=2,
        starting_ages=(1.45, 0.5),
        service_s=0.2,
        service_cv2=0.5,
        arrival_rate=3.0,
    )
    tau = max(0.02, math.sqrt(2 * 1.5 * 0.2 / 30) - 0.2)
    until = 1.5 + tau
    supply = 10 * until / 0.2
    for wait in (0.15, 1.0):
        supply += 2 * (1 + max(0.0, (until - wait) / 0.2 - 0.25))
    excess = 500 + 3.0 * until - supply
    extra = math.ceil(excess / (2 * (1 + tau / 0.2)))
    assert extra > 0
    decision = decide(known)
    assert decision.target == 5 + 2 + extra
    assert decision.reason.rule is Rule.BACKLOG


def test_slots_that_have_ended_nothing_for_long_are_as_far_from_it_as_that() -> None:
    known = given_facts(demand=1, assigned=8, ready=8, service_s=0.01)
    assert decide(known).reason.rule is Rule.SOON
    assert decide(replace(known, stalled_s=1.5)).reason.rule is Rule.SOON
    stalled = decide(replace(known, stalled_s=1.8))
    assert stalled.target == 9
    assert str(stalled.reason) == "8 -> 9: 1 waiting would take 1.8 s, a new container is ready in 1.5 s"
    many = replace(known, demand=10_000, service_s=2.0, stalled_s=1.8)
    assert decide(many).target == 8 + int(128 * 2**1.8), "no more than where nothing is known"
    slow = replace(known, service_s=100.0, demand=4)
    assert decide(replace(slow, stalled_s=3.0)).target == decide(slow).target, "they end no sooner for that"


@given(st.integers(1, 5_000), st.floats(0.2, 10), st.floats(0.5, 1e5))
def test_long_inputs_get_one_container_each(demand: int, cold_start_s: float, excess_s: float) -> None:
    k_s = math.sqrt(2 * cold_start_s * 1000 / 30)  # For S = 1,000 s and more k S stays under S.
    known = given_facts(demand=demand, cold_start_s=cold_start_s, service_s=1000 + excess_s)
    assert k_s < 1000
    assert decide(known).target == demand


@given(st.integers(1, 5_000), st.integers(1, 64))
def test_long_inputs_share_the_slots_of_a_container(demand: int, slots: int) -> None:
    assert decide(given_facts(slots=slots, demand=demand, service_s=1000.0)).target == math.ceil(
        demand / slots
    )


@pytest.mark.parametrize(("idle_tail_s", "at_most"), [(0.0, 3_163), (3.0, 1_826), (60.0, 494)])
def test_many_short_inputs_get_far_fewer_containers_than_one_each(idle_tail_s: float, at_most: int) -> None:
    burst = given_facts(demand=10_000, service_s=0.01, idle_tail_s=idle_tail_s)
    assert decide(burst).target == at_most
    assert decide(replace(burst, service_cv2=1.0)).target == at_most


@pytest.mark.parametrize(("known_s", "launches_per_s"), [(None, math.inf), (0.01, 200.0)])
def test_a_burst_of_ten_thousand_short_inputs_begins_a_few_hundred_containers(
    known_s: float | None, launches_per_s: float
) -> None:
    """In steps of 20 ms, until the backlog is gone; launches that have not begun are `unplaced`."""
    begun: list[float] = []
    service_s, waiting, step = known_s, 10_000.0, 0
    while waiting > 0:
        now = step * 0.02
        ready = sum(now - at >= 1.5 for at in begun)
        ages = tuple(now - at for at in begun[ready:])
        known = given_facts(
            demand=math.ceil(waiting),
            assigned=ready,
            ready=ready,
            starting=len(ages),
            starting_ages=[now - at for at in sample(begun[ready:])],
            service_s=service_s,
            waited_s=now,
        )
        allowed = min(launches_per_s * (now + 0.02), 1e9) - len(begun)
        begun += [now] * min(int(allowed), starts_now(known, decide(known).target))
        waiting -= ready * 0.02 / 0.01
        service_s = service_s or (0.01 if ready else None)
        step += 1
    assert step * 0.02 < 2 * 1.5
    assert 64 <= len(begun) <= 600


def test_arrivals_on_their_way_add_to_a_backlog_and_start_nothing_alone() -> None:
    known = given_facts(assigned=2, ready=2, service_s=1.0, arrival_rate=50.0)
    assert decide(known).target == 2
    assert decide(replace(known, demand=1)).target > 50


def test_launches_that_have_not_begun_are_wanted_only_while_the_backlog_wants_them() -> None:
    known = given_facts(demand=20, assigned=4, ready=4, unplaced=6, service_s=1000.0)
    assert decide(known).target == 4 + 20
    gone = replace(known, demand=0)
    assert decide(gone).target == 4
    assert starts_now(gone, 4) == 0
    assert str(decide(gone).reason) == "10 -> 4: nothing waits"


# ---------------------------------------------------------------------------- unknown service times


@given(st.integers(0, 100_000), st.floats(0, 20), st.integers(1, 8), st.integers(0, 100))
def test_an_unknown_service_time_gives_one_container_per_input_within_the_ramp(
    demand: int, waited_s: float, slots: int, starting: int
) -> None:
    known = given_facts(
        slots=slots,
        demand=demand,
        waited_s=waited_s,
        starting=starting,
        starting_ages=(0.1,) * min(starting, 64),
    )
    ramp = int(128 * 2**waited_s)
    expected = min(math.ceil(demand / slots), ramp)
    assert decide(known).target == max(starting, expected)


def test_the_ramp_does_not_overflow() -> None:
    assert decide(given_facts(demand=10**6, waited_s=1e9)).target == 10**6


# ------------------------------------------------------------------------------- floors and ceilings


def test_the_minimum_is_started_without_any_input() -> None:
    decision = decide(given_facts(AutoscalerSettings(min_containers=2), active=False))
    assert decision.target == 2
    assert str(decision.reason).endswith(": min_containers=2")


def test_the_maximum_bounds_everything_and_says_so() -> None:
    decision = decide(given_facts(AutoscalerSettings(max_containers=4), demand=61, ready=4, assigned=4))
    assert decision.target == 4
    assert str(decision.reason).endswith(": max_containers=4 with 61 waiting")


def test_the_buffer_is_kept_beyond_what_is_busy_while_active() -> None:
    settings = AutoscalerSettings(buffer_containers=2)
    busy = given_facts(settings, slots=4, assigned=9, ready=3)
    assert decide(busy).target == 3 + 2
    assert decide(replace(busy, assigned=0, ready=0)).target == 2
    assert decide(replace(busy, assigned=0, ready=5, active=False)).target == 0


def test_a_buffer_does_not_turn_short_inputs_into_one_container_each() -> None:
    settings = AutoscalerSettings(buffer_containers=2)
    burst = given_facts(settings, demand=10_000, service_s=0.01)
    assert decide(burst).target <= decide(replace(burst, settings=ANY)).target + 2 + 1
    assert decide(replace(burst, service_s=None)).target == 128 + 2


def test_a_backlog_starts_at_least_what_the_sustained_load_needs() -> None:
    known = given_facts(demand=1, assigned=4, ready=4, service_s=0.01, occupancy=4.0, arrival_rate=1.0)
    assert hold_containers(known) == math.ceil(4 + STAFFING * 2)
    decision = decide(known)
    assert decision.target == 8
    assert str(decision.reason) == "4 -> 8: the sustained load needs 8"
    assert decide(replace(known, demand=0)).target == 4


def test_the_staffing_factor_meets_its_table_and_rises_between() -> None:
    assert [staffing(v) for v in (0.1, 1, 10, 30, 100, 1000)] == pytest.approx(
        [0.89, 0.89, 1.68, 1.84, 2.32, 2.32]
    )
    assert 1.68 < staffing(20) < 1.84
    assert pytest.approx(1.84) == STAFFING


def test_an_active_pool_keeps_one_container() -> None:
    decision = decide(given_facts(ready=1))
    assert decision.target == 1
    assert decide(given_facts(unplaced=3)).target == 1


def test_none_is_started_that_nothing_waits_for() -> None:
    decision = decide(given_facts())
    assert decision.target == 0
    assert str(decision.reason) == "kept 0: nothing waits"


# ------------------------------------------------------------------------- starts that go wrong


def test_a_stale_start_is_replaced() -> None:
    known = given_facts(demand=4, starting=4, starting_ages=(4.6, 1.0, 1.0, 1.0), service_s=100.0)
    assert decide(known).target == 5
    assert decide(replace(known, stale_after_s=10.0)).target == 4


def test_a_stale_start_is_withdrawn_where_the_maximum_leaves_no_room() -> None:
    settings = AutoscalerSettings(max_containers=4)
    known = given_facts(settings, demand=4, starting=4, starting_ages=(4.6, 1.0, 1.0, 1.0), service_s=100.0)
    decision = decide(known)
    assert decision.target == 4
    assert decision.stale_withdrawn == 1
    assert decide(replace(known, starting_ages=(4.4, 1.0, 1.0, 1.0))).stale_withdrawn == 0


def test_a_lone_slow_start_is_never_withdrawn_for_a_replacement() -> None:
    settings = AutoscalerSettings(max_containers=1)
    assert decide(given_facts(settings, demand=4, starting=1, starting_ages=(99.0,))).stale_withdrawn == 0


@pytest.mark.parametrize("wanted", [1, 2, 7, 40])
def test_where_every_start_is_slow_the_starts_at_most_double(wanted: int) -> None:
    starting = wanted
    for _ in range(20):
        known = given_facts(
            demand=wanted, starting=starting, starting_ages=(99.0,) * min(starting, 64), service_s=100.0
        )
        starting = decide(known).target
    assert starting == 2 * wanted


def test_the_minimum_is_replaced_when_its_start_is_stale() -> None:
    settings = AutoscalerSettings(min_containers=1)
    known = given_facts(settings, starting=1, starting_ages=(99.0,), active=False)
    assert decide(known).target == 2


def test_after_a_failed_start_one_is_in_flight_at_a_time() -> None:
    known = given_facts(demand=9, failed_starts=3)
    decision = decide(known)
    assert decision.target == 9
    assert str(decision.reason).endswith("; one at a time after 3 failed starts")
    assert starts_now(known, 9) == 1
    assert starts_now(replace(known, starting=1), 9) == 0
    assert starts_now(replace(known, failed_starts=0), 9) == 9


def test_the_back_off_doubles_to_thirty_seconds() -> None:
    assert [start_backoff_s(n) for n in range(8)] == [0, 1, 2, 4, 8, 16, 30, 30]
    assert start_backoff_s(10**6) == 30
    assert GIVE_UP_AFTER == 10


@given(st.lists(st.floats(0, 100), max_size=500))
def test_a_sample_is_small_and_ordered_and_begins_with_the_first(values: list[float]) -> None:
    few = sample(sorted(values))
    assert len(few) <= AGES_MAX
    assert few == sorted(few)
    assert bool(few) == bool(values)
    if values:
        assert few[0] == min(values)


# ----------------------------------------------------------------------------------------- shrinking


def test_the_last_container_stays_while_the_pool_is_active_and_keeps_the_window() -> None:
    assert idle_limit_s(given_facts(ready=1), idle=1) is None
    assert idle_limit_s(given_facts(ready=1, active=False), idle=1) == 60.0


def test_the_last_container_goes_earlier_where_that_was_learned_and_does_not_come_back() -> None:
    known = given_facts(ready=1, last_tail_s=7.0)
    assert idle_limit_s(known, idle=1) == 7.0
    assert decide(replace(known, ready=0)).target == 0
    assert idle_limit_s(replace(known, last_tail_s=99.0), idle=1) == 60.0
    assert idle_limit_s(replace(known, last_tail_s=0.1), idle=1) == 2.0
    assert decide(replace(known, ready=0, demand=1)).target == 1


def test_an_overprovisioned_pool_lets_a_container_go_after_the_learned_time() -> None:
    known = given_facts(ready=5, idle_tail_s=3.0)
    assert idle_limit_s(known, idle=3) == 3.0
    assert idle_limit_s(replace(known, idle_tail_s=0.3), idle=3) == 2.0
    assert idle_limit_s(replace(known, idle_tail_s=80.0), idle=3) == 60.0


def test_containers_that_the_sustained_load_needs_keep_the_window() -> None:
    known = given_facts(ready=8, occupancy=4.0, arrival_rate=2.0, idle_tail_s=3.0)
    assert idle_limit_s(known, idle=4) == 60.0
    assert idle_limit_s(replace(known, ready=9), idle=5) == 3.0


def test_a_backlog_that_is_worked_off_while_nothing_arrives_is_no_sustained_load() -> None:
    known = given_facts(ready=8, occupancy=8.0, idle_tail_s=3.0)
    assert idle_limit_s(known, idle=4) == 3.0


def test_the_minimum_stays() -> None:
    settings = AutoscalerSettings(min_containers=2)
    assert idle_limit_s(given_facts(settings, ready=2, active=False), idle=2) is None
    assert idle_limit_s(given_facts(settings, ready=3, active=False, idle_tail_s=3.0), idle=3) == 3.0


def test_the_buffer_stays_while_active() -> None:
    settings = AutoscalerSettings(buffer_containers=2)
    known = given_facts(settings, ready=5, assigned=3, idle_tail_s=3.0)
    assert idle_limit_s(known, idle=2) is None
    assert idle_limit_s(known, idle=3) == 3.0
    assert idle_limit_s(replace(known, assigned=0, active=False), idle=2) == 3.0


def test_what_a_near_tick_needs_is_started_and_stays() -> None:
    known = given_facts(active=False, prewarmed=2)
    assert decide(known).target == 2
    assert str(decide(known).reason) == "0 -> 2: its schedule fires within 1.5 s"
    assert idle_limit_s(replace(known, ready=2), idle=2) is None
    assert idle_limit_s(replace(known, ready=3, idle_tail_s=3.0), idle=3) == 3.0
    assert decide(replace(known, prewarmed=0)).target == 0
    assert decide(replace(known, ready=1, starting=1)).target == 2


def test_above_a_lowered_maximum_an_idle_container_goes_at_once() -> None:
    settings = AutoscalerSettings(min_containers=2, max_containers=2, buffer_containers=3)
    assert idle_limit_s(given_facts(settings, ready=3), idle=1) == 0.0


@given(facts_of_any_kind(), st.integers(0, 100))
def test_a_container_that_is_let_go_is_not_started_again(known: Facts, busy: int) -> None:
    """Inputs are on `busy` containers, the others are idle, and nothing waits."""
    busy = min(busy, known.ready)
    known = replace(
        known,
        demand=0,
        assigned=min(known.assigned, busy * known.slots),
        starting=0,
        starting_ages=(),
        unplaced=0,
    )
    idle = known.ready - math.ceil(known.assigned / known.slots)
    limit = idle_limit_s(known, idle)
    last_of_an_active_pool = known.ready == 1  # It keeps the window, after which the pool is not active.
    if idle > 0 and limit is not None and not last_of_an_active_pool:
        assert decide(replace(known, ready=known.ready - 1)).target <= known.ready - 1


def test_a_window_shorter_than_the_cold_start_is_named() -> None:
    settings = AutoscalerSettings(scaledown_window=2.0)
    assert str(decide(given_facts(settings, demand=1, cold_start_s=40.0)).reason) == (
        "0 -> 1: 1 waiting and no input has finished yet; scaledown_window=2 s is shorter than a cold start, "
        "so most pauses are followed by one"
    )
    assert "window" not in str(decide(given_facts(settings, demand=1)).reason)


def test_inputs_of_a_running_map_that_are_to_come_count() -> None:
    known = given_facts(demand=2_000, service_s=0.01)
    more = decide(replace(known, held_back=8_000))
    assert more.target == decide(given_facts(demand=10_000, service_s=0.01)).target
    assert more.target > decide(known).target


def test_the_early_limit_is_within_two_seconds_and_the_window() -> None:
    assert early_idle_s(AutoscalerSettings(scaledown_window=2.0), 40.0) == 2.0


# ------------------------------------------------------------------------------------------- reasons


def test_the_reason_for_growing_reads_as_a_sentence() -> None:
    known = given_facts(demand=61, assigned=4, ready=4, service_s=0.6, cold_start_s=1.4)
    decision = decide(known)
    assert str(decision.reason) == (
        f"4 -> {decision.target}: 61 waiting would take 9.2 s, a new container is ready in 1.4 s"
    )


def test_the_first_start_says_that_nothing_runs() -> None:
    assert str(decide(given_facts(demand=3, service_s=5.0)).reason) == (
        "0 -> 3: 3 waiting and no container is running or starting, a new container is ready in 1.5 s"
    )
    assert str(decide(given_facts(demand=3)).reason) == "0 -> 3: 3 waiting and no input has finished yet"


def test_starts_that_suffice_say_so() -> None:
    known = given_facts(demand=3, starting=3, starting_ages=(0.1,) * 3)
    assert str(decide(known).reason) == "kept 3: enough are starting for the 3 waiting"


def test_buffer_and_inactivity_are_named() -> None:
    settings = AutoscalerSettings(buffer_containers=2)
    assert str(decide(given_facts(settings)).reason) == "0 -> 2: buffer_containers=2"
    assert (
        str(decide(given_facts(ready=1, active=False)).reason)
        == "1 -> 0: no input for longer than a container is kept"
    )
    above = given_facts(AutoscalerSettings(max_containers=2), ready=5)
    assert str(decide(above).reason).endswith(": max_containers=2")


def test_decisions_are_values() -> None:
    decision = decide(given_facts(demand=3))
    assert decision == decide(given_facts(demand=3))
    assert pickle.loads(pickle.dumps(decision)) == decision
    assert decision.reason.rule == "first"


@pytest.mark.parametrize("module", [autoscaler, estimates, facts, idling, prewarm, sharing])
def test_the_policy_knows_no_clock_and_no_machine(module: object) -> None:
    tree = ast.parse(inspect.getsource(module))  # type: ignore[arg-type]
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    allowed = {
        "__future__",
        "math",
        "bisect",
        "collections",
        "collections.abc",
        "dataclasses",
        "enum",
        "heapq",
        "itertools",
        "typing",
    }
    assert {name for name in names if not name.startswith("flexray.")} <= allowed
