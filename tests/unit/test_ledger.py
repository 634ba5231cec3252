from __future__ import annotations

from flexray.core.ledger import ANSWER_S, Container, Ledger, State


def ledger_with(containers: int, slots: int = 1) -> Ledger:
    ledger = Ledger(slots)
    for number in range(containers):
        ledger.add(f"f#{number}", State.READY, 0.0)
        ledger._enter_room(ledger.containers[f"f#{number}"])
    return ledger


def container(ledger: Ledger, number: int) -> Container:
    return ledger.containers[f"f#{number}"]


def test_the_next_lease_goes_to_the_fullest_container_that_has_room() -> None:
    ledger = ledger_with(3, slots=2)
    ledger.grant(1, container(ledger, 1), "d", 0.0)
    assert ledger.fullest_with_room() is container(ledger, 1)
    ledger.grant(2, container(ledger, 1), "d", 0.0)
    assert ledger.fullest_with_room() is container(ledger, 2)


def test_among_equals_the_most_recently_used_is_next_and_the_least_recently_used_stops_first() -> None:
    ledger = ledger_with(3)
    lease = ledger.grant(1, container(ledger, 0), "d", 0.0)
    ledger.free(lease, 1.0)
    assert ledger.fullest_with_room() is container(ledger, 0)
    assert ledger.least_recently_used() is container(ledger, 1)


def test_a_full_pool_has_no_room_and_a_freed_lease_makes_some() -> None:
    ledger = ledger_with(1)
    lease = ledger.grant(1, container(ledger, 0), "d", 0.0)
    assert ledger.fullest_with_room() is None
    assert ledger.idle == 0
    ledger.free(lease, 3.0)
    assert ledger.fullest_with_room() is container(ledger, 0)
    assert container(ledger, 0).idle_since == 3.0


def test_a_draining_container_takes_nothing_new_and_is_not_counted_ready() -> None:
    ledger = ledger_with(2)
    ledger.drain(container(ledger, 1))
    assert ledger.ready == 1
    assert ledger.fullest_with_room() is container(ledger, 0)
    ledger.set_state(container(ledger, 1), State.STOPPING)
    assert not ledger.draining
    assert (ledger.ready, ledger.count(State.STOPPING), len(ledger)) == (1, 1, 2)


def test_the_container_with_the_fewest_leases_is_drained_first() -> None:
    ledger = ledger_with(3, slots=2)
    for number, holder in ((1, 0), (2, 0), (3, 1), (4, 2), (5, 2)):
        ledger.grant(number, container(ledger, holder), "d", 0.0)
    assert ledger.emptiest() is container(ledger, 1)


def test_a_dead_container_takes_its_leases_along() -> None:
    ledger = ledger_with(1, slots=2)
    lease = ledger.grant(1, container(ledger, 0), "d", 0.0)
    orphan = ledger.grant(2, container(ledger, 0), None, 0.0)
    assert ledger.remove(container(ledger, 0)) == [lease, orphan]
    assert (ledger.leases, ledger.orphans, ledger.containers) == ({}, {}, {})
    assert ledger.fullest_with_room() is None


def test_an_orphan_is_claimed_by_its_holder() -> None:
    ledger = ledger_with(1)
    lease = ledger.grant(1, container(ledger, 0), None, 0.0)
    ledger.claim(lease, "d")
    assert (lease.holder, lease.listed_at, ledger.orphans) == ("d", 0, {})


def test_a_found_container_is_left_alone_until_it_answers_or_has_had_time_to() -> None:
    ledger = Ledger(1)
    found = ledger.add("f#1", State.LAUNCHED, 0.0, found=True)
    assert not found.may_be_stopped(ANSWER_S)
    assert found.may_be_stopped(ANSWER_S + 1.0)
    ledger.set_state(found, State.READY)
    assert found.may_be_stopped(0.1)
    ledger.grant(1, found, None, 0.0)
    assert not found.may_be_stopped(100.0)
