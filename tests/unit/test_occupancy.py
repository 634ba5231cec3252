from __future__ import annotations

from typing import Any

import pytest

from flexray.core.occupancy import KEEP_ANSWER_S, LEASES_KEPT, Arrival, Occupancy, Work
from flexray.core.status import CANCELLED, LOST, OK, UNSTARTED


def arrive(
    occupancy: Occupancy, batch_id: int, lease: int, count: int = 1, now: float = 0.0, **options: Any
) -> tuple[Arrival, Work]:
    given = {"oldest_open": 0, "again": False, "at_most_once": False, **options}
    return occupancy.arrive(("d", batch_id), lease, count, now, **given)


def run_all(occupancy: Occupancy, work: Work, now: float = 0.0) -> Work | None:
    while (position := work.take()) is not None:
        work.settle(position, OK, position)
    return occupancy.end(work, now)


def test_a_batch_begins_where_a_slot_is_free_follows_its_lease_and_bounces_where_none_is() -> None:
    occupancy = Occupancy(slots=1)
    assert arrive(occupancy, 1, lease=7)[0] is Arrival.BEGINS
    assert arrive(occupancy, 2, lease=7)[0] is Arrival.FOLLOWS
    arrival, work = arrive(occupancy, 3, lease=8)
    assert arrival is Arrival.BOUNCES
    assert (work.bounced, work.statuses) == (True, [UNSTARTED])
    assert occupancy.busy == (7,)
    assert occupancy.unfinished == 2


def test_the_batch_behind_is_next_when_the_one_before_is_over() -> None:
    occupancy = Occupancy(slots=1)
    _, first = arrive(occupancy, 1, lease=7)
    _, second = arrive(occupancy, 2, lease=7)
    assert run_all(occupancy, first) is second
    assert run_all(occupancy, second) is None
    assert occupancy.busy == ()


def test_a_known_batch_is_joined_while_it_runs_and_after() -> None:
    occupancy = Occupancy(slots=1)
    _, work = arrive(occupancy, 1, lease=7)
    assert arrive(occupancy, 1, lease=7, again=True) == (Arrival.KNOWN, work)
    run_all(occupancy, work)
    assert arrive(occupancy, 1, lease=7, again=True) == (Arrival.KNOWN, work)


@pytest.mark.parametrize("status", ["released", "retiring"])
def test_a_batch_bounces_whose_lease_was_released_or_whose_container_retires(status: str) -> None:
    occupancy = Occupancy(slots=2)
    if status == "released":
        assert occupancy.release(7)
    else:
        occupancy.retiring = True
    assert arrive(occupancy, 1, lease=7)[0] is Arrival.BOUNCES


def test_a_repeated_at_most_once_batch_that_is_not_known_is_lost() -> None:
    arrival, work = arrive(Occupancy(slots=1), 1, lease=7, again=True, at_most_once=True)
    assert (arrival, work.statuses) == (Arrival.BOUNCES, [LOST])


def test_a_late_repeat_of_a_batch_whose_answer_has_arrived_does_not_run() -> None:
    occupancy = Occupancy(slots=1)
    _, work = arrive(occupancy, 1, lease=7, oldest_open=1)
    run_all(occupancy, work)
    _, work = arrive(occupancy, 2, lease=7, oldest_open=2)
    run_all(occupancy, work)
    assert occupancy.get(("d", 1)) is None
    assert arrive(occupancy, 1, lease=7, oldest_open=1, again=True)[0] is Arrival.BOUNCES


def test_an_answer_is_kept_until_its_caller_says_that_it_has_arrived() -> None:
    occupancy = Occupancy(slots=1)
    _, first = arrive(occupancy, 1, lease=7, oldest_open=1)
    _, second = arrive(occupancy, 2, lease=7, oldest_open=1)
    run_all(occupancy, first)
    run_all(occupancy, second)
    arrive(occupancy, 3, lease=7, oldest_open=1)  # The answer to 1 was lost with its call.
    assert arrive(occupancy, 1, lease=7, oldest_open=1, again=True) == (Arrival.KNOWN, first)


def test_answers_are_forgotten_after_ten_minutes() -> None:
    occupancy = Occupancy(slots=2)
    _, work = arrive(occupancy, 1, lease=7)
    run_all(occupancy, work, now=1.0)
    arrive(occupancy, 2, lease=8, now=1.0 + KEEP_ANSWER_S)
    assert occupancy.get(("d", 1)) is work
    arrive(occupancy, 3, lease=9, now=2.0 + KEEP_ANSWER_S)
    assert occupancy.get(("d", 1)) is None


def test_reclaim_takes_out_what_has_not_begun_and_accounts_for_all_but_the_running() -> None:
    occupancy = Occupancy(slots=1)
    _, work = arrive(occupancy, 1, lease=7, count=4)
    work.settle(work.take() or 0, OK, "first")
    running = work.take()
    assert running == 1
    assert occupancy.reclaim(("d", 1)) is work
    assert work.account() == ((0, 2, 3), bytes([OK, UNSTARTED, UNSTARTED]), ["first", None, None])
    assert work.take() is None


def test_a_batch_that_is_not_known_can_neither_be_reclaimed_nor_cancelled() -> None:
    occupancy = Occupancy(slots=1)
    assert occupancy.reclaim(("d", 1)) is None
    assert occupancy.cancel(("d", 1), (0,)) is None


def test_a_cancelled_input_is_dropped_when_its_turn_comes() -> None:
    occupancy = Occupancy(slots=1)
    _, work = arrive(occupancy, 1, lease=7, count=3)
    assert occupancy.cancel(("d", 1), (0, 2)) is work
    assert work.take() == 1
    work.settle(1, OK)
    assert work.take() is None
    assert work.statuses == [CANCELLED, OK, CANCELLED]


def test_a_released_lease_drops_its_unstarted_inputs_and_is_free_when_the_running_one_is_over() -> None:
    occupancy = Occupancy(slots=1)
    _, work = arrive(occupancy, 1, lease=7, count=2)
    running = work.take()
    assert running == 0
    assert not occupancy.release(7)
    work.settle(running, OK)
    assert work.take() is None
    occupancy.end(work, 0.0)
    assert occupancy.release(7)
    assert work.statuses == [OK, UNSTARTED]


def test_what_is_remembered_of_leases_is_bounded() -> None:
    occupancy = Occupancy(slots=1)
    for lease in range(LEASES_KEPT + 10):
        occupancy.release(lease)
        arrive(occupancy, lease, lease, now=float(lease))
    assert len(occupancy._released) <= LEASES_KEPT
    assert len(occupancy._oldest_open) <= LEASES_KEPT
    assert len(occupancy._works) <= KEEP_ANSWER_S + 2
