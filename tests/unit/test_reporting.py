from __future__ import annotations

from typing import Any

import pytest

from flexray.core.events import Lease
from flexray.core.reporting import (
    ACKNOWLEDGE_S,
    ASK_TIMEOUT_S,
    NEXT_IN_S,
    PARKED_TIMEOUT_S,
    RETRY_S,
    SAMPLES_MAX,
    Reporting,
    Standing,
    Tally,
)

IDLE = Standing(0, 0, 0, 0, 0, 0, holds_any=False)
BUSY = Standing(4, 1, 0, 0, 0, 0, holds_any=True)


def parked(tally: Tally, standing: Standing = BUSY) -> Reporting:
    """A report of this was sent at 0 s and not answered."""
    reporting = Reporting("d")
    reporting.make(tally, standing, (), 0.0)
    return reporting


def due(reporting: Reporting, tally: Tally, standing: Standing = BUSY, now: float = 0.001) -> bool:
    is_due = reporting.is_due(tally, standing, NEXT_IN_S, now)
    assert not (is_due and reporting.is_settled(tally, standing.waiting, now)), "the cheap answer differs"
    return is_due


def test_one_that_uses_nothing_is_quiet() -> None:
    assert not due(Reporting("d"), Tally(), IDLE)
    assert Reporting("d").is_quiet


@pytest.mark.parametrize(
    ("tally", "standing", "expected"),
    [
        (Tally(asked=1, arrived=1), BUSY, True),
        (Tally(), Standing(7, 1, 0, 0, 0, 0, holds_any=True), True),
        (Tally(), Standing(6, 1, 0, 0, 0, 0, holds_any=True), False),
        (Tally(arrived=1), BUSY, False),
        (Tally(), Standing(4, 0, 0, 0, 0, 0, holds_any=True), False),
    ],
)
def test_what_must_be_acted_on_is_reported_at_once(tally: Tally, standing: Standing, expected: bool) -> None:
    assert due(parked(Tally()), tally, standing) is expected


@pytest.mark.parametrize("change", ["taken", "returned"])
def test_a_lease_taken_or_given_back_is_reported_at_once(change: str) -> None:
    reporting = parked(Tally())
    if change == "taken":
        reporting.held_changed = True
    else:
        reporting.returned(7, 0.5)
    assert due(reporting, Tally())


def test_one_report_with_new_asks_is_under_way_at_a_time() -> None:
    reporting = parked(Tally(asked=1))
    assert not due(reporting, Tally(asked=3))
    assert due(reporting, Tally(asked=3, decided=1, admitted=1))


def test_other_news_rides_along_or_waits_its_time() -> None:
    reporting = parked(Tally())
    assert not due(reporting, Tally(arrived=5), now=NEXT_IN_S / 2)
    assert due(reporting, Tally(arrived=5), now=NEXT_IN_S)
    assert not due(reporting, Tally(), now=NEXT_IN_S)


def test_a_report_is_parked_while_anything_is_held_or_waits() -> None:
    reporting = parked(Tally())
    reporting.answered(0, 0.0)  # Of an older report: nothing is known of the parked one.
    assert not due(reporting, Tally(), now=0.1)
    reporting.answered(1, 0.2)
    assert due(reporting, Tally(), now=0.2 + ACKNOWLEDGE_S)


def test_an_answer_is_acknowledged_at_once_where_nothing_is_held_and_soon_where_slots_are() -> None:
    answered = Tally(asked=1, decided=1, admitted=1, seen=1)
    for standing, delay_s in ((Standing(4, 0, 0, 0, 0, 0, holds_any=False), 0.0), (BUSY, ACKNOWLEDGE_S)):
        reporting = parked(Tally(asked=1), standing)
        reporting.answered(1, 0.5)
        assert not delay_s or not due(reporting, answered, standing, now=0.5 + delay_s / 2)
        assert due(reporting, answered, standing, now=0.5 + delay_s)


def test_an_answer_is_acknowledged_by_who_has_nothing_to_do_too() -> None:
    reporting = parked(Tally(), IDLE)
    reporting.answered(1, 0.5)
    assert due(reporting, Tally(seen=1), IDLE, now=0.5)


def test_waiting_that_verdicts_explain_is_no_news() -> None:
    reporting = parked(Tally(asked=6, decided=2))
    admitted = Tally(asked=6, decided=6, admitted=6)
    assert not due(reporting, admitted, Standing(12, 1, 0, 0, 0, 0, holds_any=True))
    assert due(reporting, admitted, Standing(13, 1, 0, 0, 0, 0, holds_any=True))


def test_asks_without_a_verdict_and_parked_reports_without_an_answer_are_repeated() -> None:
    assert not due(parked(Tally(asked=1)), Tally(asked=1), now=ASK_TIMEOUT_S - 0.1)
    assert due(parked(Tally(asked=1)), Tally(asked=1), now=ASK_TIMEOUT_S)
    assert not due(parked(Tally()), Tally(), now=PARKED_TIMEOUT_S - 0.1)
    assert due(parked(Tally()), Tally(), now=PARKED_TIMEOUT_S)


def test_the_last_report_says_that_nothing_is_held() -> None:
    reporting = parked(Tally())
    reporting.answered(1, 0.5)
    assert due(reporting, Tally(), IDLE)
    reporting.make(Tally(), IDLE, (), 1.0)
    reporting.answered(2, 1.0)
    assert not due(reporting, Tally(), IDLE, now=100.0)
    assert reporting.is_quiet


def test_a_failed_report_is_repeated_after_a_pause() -> None:
    reporting = parked(Tally())
    reporting.failed(1, 1.0)
    assert not due(reporting, Tally(), now=1.0 + RETRY_S / 2)
    assert due(reporting, Tally(), now=1.0 + RETRY_S)


def test_one_that_has_reported_before_reports_to_a_new_controller() -> None:
    reporting = parked(Tally(), IDLE)
    reporting.controller_lost(1.0)
    assert due(reporting, Tally(), IDLE, now=1.0 + RETRY_S)
    stranger = Reporting("d")
    stranger.controller_lost(1.0)
    assert not due(stranger, Tally(), IDLE, now=2.0)


def test_a_report_carries_the_state_and_what_came_up_since_the_last() -> None:
    reporting = Reporting("d")
    reporting.returned(7, 0.5)
    reporting.add_service(100, 3.0, tuple(float(n) for n in range(100)))
    held = (Lease(8, "f#1"),)
    told: Any = reporting.make(Tally(9, 5, 4, 3, 2), Standing(6, 1, 2, 0, 0, 3, holds_any=True), held, 0.0)
    assert (told.dispatcher_id, told.number, told.seen, told.held) == ("d", 1, 2, held)
    assert (told.arrived, told.asked, told.decided, told.admitted) == (9, 5, 4, 3)
    assert (told.waiting, told.assigned, told.resting, told.held_back) == (6, 1, 2, 3)
    assert told.returned == ((7, 0.5),)
    assert (told.service.count, told.service.total_s, len(told.service.sample_s)) == (100, 3.0, SAMPLES_MAX)
    following = reporting.make(Tally(), IDLE, (), 1.0)
    assert (following.number, following.returned, following.service.count) == (2, (), 0)
