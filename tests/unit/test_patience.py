from __future__ import annotations

from itertools import pairwise

from flexray.core.patience import Patience


def waits_of(patience: Patience, asked: int, *, in_vain: bool) -> int:
    made = 0
    for _ in range(asked):
        if patience.is_worth():
            made += 1
            patience.waited(in_vain=in_vain)
    return made


def test_what_comes_in_time_is_always_waited_for() -> None:
    assert waits_of(Patience(), 100, in_vain=False) == 100


def test_what_does_not_come_is_waited_for_less_and_less_often() -> None:
    patience = Patience()
    turns = [position for position in range(300) if waits_of(patience, 1, in_vain=True)]
    gaps = [after - before for before, after in pairwise(turns)]
    assert turns[0] == 0
    assert gaps == [2, 4, 8, 16, 32, 64, 64, 64]


def test_one_that_comes_in_time_makes_up_for_all_that_did_not() -> None:
    patience = Patience()
    waits_of(patience, 100, in_vain=True)
    assert waits_of(patience, 64, in_vain=False) > 0
    assert waits_of(patience, 10, in_vain=False) == 10
