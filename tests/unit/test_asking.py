from __future__ import annotations

from flexray.core.asking import Asking
from flexray.core.reporting import Tally


def asking_after(asked: int = 0, decided: int = 0) -> tuple[Asking, Tally]:
    tally = Tally(asked=asked, decided=decided, admitted=decided)
    return Asking(tally), tally


def test_an_ask_waits_for_its_verdict() -> None:
    asking, tally = asking_after()
    assert not asking.ask([1, 2, 3], patient=False)
    assert (asking.open_asks, tally.asked) == (3, 3)
    assert asking.take_verdicts(2, 1) == ([1], [2])
    assert asking.open_asks == 1


def test_admissions_go_to_calls_first_and_refusals_to_maps_which_ask_again() -> None:
    asking, tally = asking_after()
    asking.ask([1, 2], patient=True)
    asking.ask([3], patient=False)
    assert (asking.open_asks, asking.patient) == (3, 2)
    assert asking.take_verdicts(3, 1) == ([3], [])
    assert (asking.held_back, asking.open_asks) == (2, 0)
    assert not asking.set_room(room=True)
    assert (asking.held_back, tally.asked) == (0, 5)


def test_what_is_decided_ahead_admits_the_next_asks_at_once() -> None:
    asking, tally = asking_after(asked=5, decided=5)
    asking.take_verdicts(8, 8)
    assert list(asking.ask([1, 2], patient=False)) == [1, 2]
    assert list(asking.ask([3, 4], patient=True)) == [3]
    assert (asking.open_asks, asking.patient, tally.asked) == (1, 1, 9)
    assert asking.take_verdicts(9, 9) == ([4], [])


def test_an_advance_serves_open_asks_first() -> None:
    asking, tally = asking_after()
    asking.ask([1, 2], patient=False)
    assert asking.take_verdicts(10, 10) == ([1, 2], [])
    assert tally.decided - tally.asked == 8


def test_an_advance_ends_where_there_is_no_room_and_maps_are_held_back() -> None:
    asking, tally = asking_after(asked=2, decided=9)
    assert not asking.set_room(room=False)
    assert tally.asked == 9
    assert not asking.ask([1], patient=True)
    assert (asking.held_back, asking.open_asks, tally.asked) == (1, 0, 9)


def test_verdicts_on_what_was_cancelled_still_come() -> None:
    asking, _ = asking_after()
    asking.ask([1, 2], patient=False)
    assert asking.drop({1}) == [1]
    assert asking.open_asks == 2
    assert asking.take_verdicts(2, 2) == ([2], [])
    assert asking.is_empty
