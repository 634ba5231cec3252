from __future__ import annotations

from collections.abc import Callable

from flexray.runtime.inbox import Inbox
from tests.unit.collecting import collect_at_any_moment


def test_items_are_taken_in_the_order_in_which_they_came() -> None:
    taken: list[int] = []
    inbox = Inbox(taken.append)
    inbox.put(1)
    with inbox.held():
        inbox.put(2)
        assert taken == [1], "nothing is taken in while it is held"
    assert taken == [1, 2]


def test_what_comes_while_one_is_taken_in_follows_it() -> None:
    taken: list[int] = []

    def take(item: int) -> None:
        if item < 5:
            inbox.put(item + 1)
        taken.append(item)

    inbox = Inbox(take)
    inbox.put(1)
    assert taken == [1, 2, 3, 4, 5]


def test_an_item_that_cannot_be_taken_in_is_its_givers_failure_and_holds_up_no_other() -> None:
    taken: list[int] = []
    inbox: Inbox[int] = Inbox(lambda item: taken.append(1 // item))
    try:
        inbox.put(0)
    except ZeroDivisionError:
        inbox.put(1)
    assert taken == [1]


def test_nothing_is_lost_or_taken_twice_however_many_give_finalizers_among_them() -> None:
    taken: list[object] = []
    inbox: Inbox[object] = Inbox(taken.append)

    class Loud:
        def __init__(self, number: int) -> None:
            self.itself = self  # Only the collector ends it, wherever that comes.
            self.number = number

        def __del__(self) -> None:
            inbox.put(("gone", self.number))

    def work(of: int, change: Callable[[], None]) -> None:
        for number in range(2000):
            change()
            Loud(of * 10_000 + number)
            inbox.put((of, number))
            if number % 50 == 0:
                with inbox.held():
                    Loud(of * 10_000 + 5_000 + number)

    collect_at_any_moment(work, threads=3)
    assert len(taken) == len(set(taken)) == 3 * (2000 + 2000 + 40)
    for of in range(3):
        assert [item for item in taken if item[0] == of] == [(of, number) for number in range(2000)]  # type: ignore[index]
