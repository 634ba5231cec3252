from __future__ import annotations

from dataclasses import replace
from typing import Any

from flexray.core.callers import SETTLED_S, Caller, Callers
from flexray.core.events import Report
from flexray.core.ledger import Container, LeaseOut, State


class Pool:
    """Callers, with leases that come out of nowhere."""

    def __init__(self, **leases_and_needs: tuple[int, int]) -> None:
        self.callers = Callers()
        self.container = Container("f#1", State.READY, 0.0, 0.0)
        self.count = 0
        for number, (name, (leases, need)) in enumerate(leases_and_needs.items()):
            self.callers.add(Report(name, 1, 0), float(number))
            for _ in range(leases):
                self.grant(name, -10.0)
            self.report(name, waiting=need + leases)
            self[name].unseen_leases = 0
            self.report(name, waiting=need, assigned=leases)

    def __getitem__(self, name: str) -> Caller:
        caller = self.callers.get(name)
        assert caller is not None
        return caller

    def grant(self, name: str, now: float) -> None:
        self.count += 1
        lease = LeaseOut(self.count, self.container, name, now)
        self.callers.take_grant(name, self[name], lease, now)

    def report(self, name: str, **changes: Any) -> None:
        caller = self[name]
        caller.report = replace(caller.report, **changes)
        self.callers.recount(name, caller)

    def keeps(self) -> dict[str, int]:
        return {name: caller.keeps for name, caller in self.callers}


def test_whoever_has_fewest_slots_is_neediest_and_among_equals_who_has_been_without_longest() -> None:
    pool = Pool(a=(2, 5), b=(0, 5), c=(0, 5), d=(0, 0))
    needy = pool.callers.neediest()
    assert needy is not None
    assert needy[0] == "b"
    pool.grant("b", 0.0)
    needy = pool.callers.neediest()
    assert needy is not None
    assert needy[0] == "c"


def test_demand_is_what_waits_and_was_admitted_less_what_rests_and_unseen_leases() -> None:
    pool = Pool(a=(0, 0))
    pool["a"].admitted = 3
    pool.report("a", waiting=10, resting=4, admitted=1)
    assert pool.callers.demand == 10 - 4 + 2
    pool.grant("a", 0.0)
    assert pool.callers.demand == 7
    assert pool.callers.unseen_leases == 1


def test_slots_of_leases_that_are_gone_are_not_assigned() -> None:
    pool = Pool(a=(2, 0))
    assert pool.callers.assigned == 2
    pool["a"].leases.clear()
    pool.callers.recount("a", pool["a"])
    assert pool.callers.assigned == 0


def test_one_who_is_cut_off_demands_nothing_and_still_counts_in_the_limits() -> None:
    pool = Pool(a=(0, 5))
    pool["a"].cut_off = True
    pool.callers.recount("a", pool["a"])
    assert pool.callers.demand == 0
    assert pool.callers.used.pending == 5


def test_removing_a_caller_takes_it_out_of_every_sum() -> None:
    pool = Pool(a=(2, 5), b=(1, 1))
    pool.callers.remove("a")
    pool.callers.remove("b")
    callers = pool.callers
    sums = (callers.demand, callers.assigned, callers.unseen_leases, callers.used.pending, callers.used.total)
    assert sums == (0, 0, 0, 0, 0)
    assert callers.neediest() is None


def test_a_slot_moves_where_its_holder_has_two_more_or_the_neediest_has_none() -> None:
    for before, after in (
        ({"a": (4, 9), "b": (2, 9)}, {"a": 3, "b": 2}),
        ({"a": (3, 9), "b": (2, 9)}, {"a": 3, "b": 2}),
        ({"a": (1, 9), "b": (0, 9)}, {"a": 0, "b": 0}),
        ({"a": (6, 9), "b": (0, 9)}, {"a": 3, "b": 0}),
        ({"a": (6, 9), "b": (0, 1)}, {"a": 5, "b": 0}),
        ({"a": (6, 9)}, {"a": 6}),
    ):
        pool = Pool(**before)
        pool.callers.share(0.0)
        assert pool.keeps() == after, before


def test_whoever_has_just_got_a_slot_is_asked_for_it_where_it_is_not_used() -> None:
    pool = Pool(a=(1, 9), b=(0, 9))
    pool["a"].granted_at = 0.0
    assert list(pool.callers.share(SETTLED_S / 2)) == ["a"]
    assert pool["a"].keep_busy
    assert not list(pool.callers.share(SETTLED_S / 2))
    assert list(pool.callers.share(SETTLED_S)) == ["a"]
    assert (pool["a"].keep, pool["a"].keep_busy) == (0, False)


def test_what_is_in_use_and_may_be_kept_is_no_slot_on_its_way() -> None:
    pool = Pool(a=(2, 2), c=(2, 2), n=(0, 1))
    pool.report("a", assigned=2)
    pool.report("c", assigned=0)
    pool["a"].granted_at, pool["c"].granted_at = 1.0, 0.95
    assert list(pool.callers.share(1.0)) == ["c"]  # It uses nothing.
    pool = Pool(a=(2, 2), c=(2, 2), n=(0, 1))
    pool.report("a", assigned=2)
    pool.report("c", assigned=2)
    pool["a"].granted_at, pool["c"].granted_at = 1.0, 0.95
    assert list(pool.callers.share(1.0)) == ["a"]
    assert not [name for name in pool.callers.share(1.01) if name == "a"]
    assert "c" in pool.callers.share(0.95 + SETTLED_S)  # That it is asked does not wait for the other.
    assert not pool["c"].keep_busy


def test_whoever_has_had_its_slots_for_a_while_is_asked_first() -> None:
    pool = Pool(a=(2, 9), b=(3, 9), c=(0, 1))
    pool["b"].granted_at = 1.0
    assert list(pool.callers.share(1.0)) == ["a"]
    assert not pool["a"].keep_busy


def test_slots_that_are_on_their_way_back_are_not_asked_for_again() -> None:
    pool = Pool(a=(1, 9), b=(1, 9), c=(0, 1))
    assert len(list(pool.callers.share(0.0))) == 1
    assert not list(pool.callers.share(0.1))


def test_when_nobody_wants_a_slot_everybody_keeps_theirs() -> None:
    pool = Pool(a=(2, 9), b=(0, 1))
    pool.callers.share(0.0)
    pool.report("a", waiting=0)
    pool.report("b", waiting=0)
    assert not pool.callers.any_wanting
    assert list(pool.callers.end_sharing()) == ["a"]
    assert pool.keeps() == {"a": 2, "b": 0}


def test_homes_counts_the_containers_in_which_inputs_are_waited_for() -> None:
    pool = Pool(a=(0, 0), b=(0, 0), c=(0, 0))
    pool.report("a", waiting=3, home="app/f")
    pool.report("b", waiting=1, home="app/f")
    pool.report("c", waiting=1, home="app/g")
    assert pool.callers.homes == {"app/f": 2, "app/g": 1}
    pool.report("a", waiting=0)
    pool.callers.remove("c")
    assert pool.callers.homes == {"app/f": 1}
    pool["b"].cut_off = True
    pool.report("b")
    assert pool.callers.homes == {}
