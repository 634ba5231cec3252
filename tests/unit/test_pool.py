from __future__ import annotations

from typing import Any

import pytest

from flexray.config import AutoscalerSettings, Limits
from flexray.core.admission import ADVANCE_MAX
from flexray.core.dispatch import LINGER_S
from flexray.core.estimates import Learned
from flexray.core.events import (
    AnswerReport,
    ContainerLost,
    ContainerPlaced,
    ContainerReady,
    ContainerRetired,
    DispatcherLost,
    GiveUp,
    Lease,
    LeaseReleased,
    NodeLeaving,
    NoticeChanged,
    Redeployed,
    ReleaseLease,
    Reply,
    Report,
    ReportReceived,
    SettingsChanged,
    StartContainer,
    StartFailed,
    StopContainer,
    Ticked,
    TickExpected,
)
from flexray.core.pool import (
    ANSWER_AFTER_S,
    EPOCH,
    FORGET_S,
    RECOVERY_S,
    SILENT_S,
    TICK_S,
    UNLIST_PATIENCE_S,
    Pool,
    PoolConfig,
)
from flexray.core.sharing import Shape


class Hand:
    """A pool driven by hand; reports are written out, except for what a caller only repeats."""

    def __init__(self, **config: Any) -> None:
        settings = AutoscalerSettings(**config.pop("settings", {}))
        self.pool = Pool(PoolConfig("f", settings=settings, **{"epoch": 1, **config}), 0.0)
        self.now = 0.0
        self.numbers: dict[str, int] = {}
        self.newest: dict[str, Reply] = {}
        self.effects: list[Any] = []

    def tell(self, event: Any) -> None:
        self.effects = self.pool.handle(event, self.now)
        for effect in self.effects:
            if isinstance(effect, AnswerReport) and effect.reply is not None:
                self.newest[effect.dispatcher_id] = effect.reply

    def report(self, name: str = "d", **changes: Any) -> None:
        """The next report of a caller that holds and has seen what its newest reply says."""
        self.numbers[name] = self.numbers.get(name, 0) + 1
        reply = self.newest.get(name)
        told: dict[str, Any] = {}
        if reply is not None:
            told = {"seen": reply.number, "held": reply.leases}
            told |= {"decided": reply.decided, "admitted": reply.admitted}
            told |= {"asked": reply.decided}
        self.tell(ReportReceived(Report(name, self.numbers[name], **{"seen": 0, **told, **changes})))

    def park(self, name: str = "d", **state: Any) -> None:
        """Report until it is known that everything was seen: the last report is not answered."""
        self.report(name, **state)
        while any(answer.reply is not None for answer in self.of(AnswerReport)):
            self.report(name, **state)

    def tick(self, seconds: float = TICK_S) -> None:
        ends_at = self.now + seconds
        effects = []
        while self.now < ends_at - 1e-9:
            self.now += TICK_S
            self.tell(Ticked())
            effects += self.effects
        self.effects = effects

    def ready(self, *container_ids: str) -> None:
        for container_id in container_ids:
            self.tell(ContainerPlaced(container_id))
            self.tell(ContainerReady(container_id))

    def of(self, kind: type) -> list[Any]:
        return [effect for effect in self.effects if isinstance(effect, kind)]

    def leases(self, name: str = "d") -> tuple[Lease, ...]:
        return self.newest[name].leases


def hand_with_a_lease(**config: Any) -> Hand:
    """One container, ready, one slot of it leased to `d`, whose report says so and is parked."""
    hand = Hand(**config)
    hand.report(asked=1)
    hand.ready("f#1")
    hand.park(assigned=1)
    assert len(hand.leases()) == 1
    return hand


def test_the_verdict_and_the_start_of_a_container_come_in_the_event_that_takes_the_report() -> None:
    hand = Hand()
    hand.report(asked=1)
    assert hand.of(StartContainer) == [StartContainer("f#1")]
    (answer,) = hand.of(AnswerReport)
    assert (answer.reply.decided, answer.reply.admitted, answer.reply.leases) == (1, 1, ())


def test_a_lease_is_listed_when_its_container_is_ready() -> None:
    hand = Hand()
    hand.report(asked=1)
    hand.report(waiting=1)
    assert not hand.of(AnswerReport)  # Parked: nothing is new.
    hand.ready("f#1")
    assert hand.leases() == (Lease(EPOCH + 1, "f#1"),)


def test_inputs_beyond_the_limit_are_decided_and_not_admitted() -> None:
    hand = Hand(limits=Limits(pending=3, total=100))
    hand.report("a", asked=2)
    hand.report("b", asked=2)
    assert (hand.newest["a"].admitted, hand.newest["b"].admitted, hand.newest["b"].decided) == (2, 1, 2)
    assert not hand.newest["b"].room


def test_what_arrived_and_what_all_of_it_waited_is_counted() -> None:
    hand = Hand()
    hand.report(asked=3, decided=3, admitted=3, arrived=3, waiting=3)
    hand.tick(2.0)
    hand.report(asked=5, decided=5, admitted=5, arrived=5, waiting=1, assigned=4)
    hand.tick(1.0)
    assert (hand.pool.arrived, hand.pool.wait_s) == (5, pytest.approx(3 * 2.0 + 1.0))
    hand.report(asked=5, decided=5, admitted=5, arrived=5, waiting=0, assigned=1)
    hand.tick(9.0)
    assert hand.pool.wait_s == pytest.approx(7.0)


def test_what_a_caller_told_before_it_was_forgotten_is_not_counted_again() -> None:
    hand = Hand()
    hand.report(asked=3, decided=3, admitted=3, arrived=3)
    hand.park(asked=3, decided=3, admitted=3, arrived=3)
    hand.tick(FORGET_S + 1.0)
    assert len(hand.pool.callers) == 0
    hand.report(asked=4, decided=3, admitted=3, arrived=4)
    assert hand.pool.arrived == 4


def test_what_arrived_before_a_restart_is_not_counted_by_the_next_controller() -> None:
    hand = Hand(expected_dispatchers=("d",))
    hand.numbers["d"] = 7
    hand.report(asked=1000, decided=1000, admitted=1000, arrived=1000)
    hand.report(asked=1002, decided=1000, admitted=1000, arrived=1002)
    assert hand.pool.arrived == 2


def test_a_report_that_is_overtaken_by_a_newer_one_is_released() -> None:
    hand = hand_with_a_lease()
    hand.report(assigned=1)
    assert hand.of(AnswerReport) == [AnswerReport("d", hand.numbers["d"] - 1, None)]
    hand.tell(ReportReceived(Report("d", 1, 0, asked=9)))
    assert hand.of(AnswerReport) == [AnswerReport("d", 1, None)]
    assert hand.newest["d"].decided == 1


def test_a_reply_that_a_report_has_not_seen_is_repeated_at_once() -> None:
    hand = hand_with_a_lease()
    newest = hand.newest["d"]
    hand.report(seen=0, held=(), asked=1, decided=0, admitted=0)
    assert [answer.reply for answer in hand.of(AnswerReport) if answer.reply] == [newest]


def test_a_parked_report_is_answered_after_ten_seconds() -> None:
    hand = hand_with_a_lease()
    hand.tick(ANSWER_AFTER_S - 2 * TICK_S)
    assert not hand.of(AnswerReport)
    hand.tick(2 * TICK_S)
    assert len(hand.of(AnswerReport)) == 1


def test_a_lease_that_is_not_held_by_a_report_which_has_seen_it_is_free() -> None:
    hand = hand_with_a_lease(settings={"max_containers": 1})
    first = hand.leases()[0]
    hand.report("e", asked=1)
    assert not hand.leases("e")
    hand.report(held=(), returned=((first.number, LINGER_S),))
    hand.report("e", waiting=1)
    assert [lease.container_id for lease in hand.leases("e")] == ["f#1"]
    assert hand.leases("e")[0].number > first.number


def test_a_report_that_crossed_with_a_lease_does_not_give_it_back() -> None:
    hand = Hand()
    hand.report(asked=1)
    old = hand.newest["d"]
    hand.report(waiting=1)
    hand.ready("f#1")
    lease = hand.leases()[0]
    hand.report(seen=old.number, held=(), waiting=1)
    assert hand.leases() == (lease,)


def test_a_silent_caller_loses_its_leases_and_keeps_its_place_in_the_limits() -> None:
    hand = hand_with_a_lease()
    lease = hand.leases()[0]
    hand.tell(NoticeChanged("new"))  # Answers the parked report; no other comes.
    hand.tick(SILENT_S)
    assert not hand.of(ReleaseLease)
    hand.tick(UNLIST_PATIENCE_S + TICK_S)
    assert hand.of(ReleaseLease) == [ReleaseLease("f#1", lease.number)]
    assert hand.pool.callers.used.total == 1
    hand.tell(LeaseReleased("f#1", lease.number))
    assert not hand.pool.ledger.leases
    hand.report(assigned=1)
    assert hand.newest["d"].leases == ()


def test_a_dead_callers_lease_is_released_before_its_slot_is_free() -> None:
    hand = hand_with_a_lease(settings={"max_containers": 1})
    lease = hand.leases()[0]
    hand.report("e", asked=1)
    hand.report("e", waiting=1)
    hand.tell(DispatcherLost("d"))
    assert hand.of(ReleaseLease) == [ReleaseLease("f#1", lease.number)]
    assert not hand.leases("e")
    hand.tell(LeaseReleased("f#1", lease.number))
    assert [held.container_id for held in hand.leases("e")] == ["f#1"]


def test_leases_of_a_dead_container_are_gone_and_an_input_that_waits_again_starts_another() -> None:
    hand = hand_with_a_lease()
    hand.tell(ContainerLost("f#1"))
    assert hand.leases() == ()
    assert hand.pool.callers.assigned == 0
    hand.report(waiting=1)
    assert hand.of(StartContainer) == [StartContainer("f#2")]


def test_one_waiting_caller_makes_the_holder_of_all_slots_give_some_back() -> None:
    hand = Hand(settings={"max_containers": 4})
    hand.report("a", asked=9)
    hand.ready("f#1", "f#2", "f#3", "f#4")
    hand.park("a", assigned=4, waiting=5)
    hand.now = 1.0
    hand.report("b", asked=2)
    assert hand.newest["a"].keep == 2


def test_a_lowered_maximum_empties_a_busy_container_before_it_stops() -> None:
    hand = Hand()
    hand.report(asked=2)
    hand.ready("f#1", "f#2")
    hand.park(assigned=2)
    hand.now = 1.0
    hand.tell(SettingsChanged(AutoscalerSettings(max_containers=1)))
    assert not hand.of(StopContainer)
    assert len(hand.leases()) == 1
    hand.report(assigned=1)
    (stop,) = hand.of(StopContainer)
    assert stop.placed


def test_a_notice_reaches_every_caller_at_once() -> None:
    hand = hand_with_a_lease()
    hand.tell(NoticeChanged("waits for {GPU: 1}"))
    assert hand.newest["d"].notice == "waits for {GPU: 1}"


@pytest.mark.parametrize("held_back", [0, 3])
def test_code_that_cannot_be_loaded_fails_whatever_waits(held_back: int) -> None:
    hand = Hand(limits=Limits(pending=1))
    hand.report(asked=1)
    hand.park(waiting=0 if held_back else 1, held_back=held_back)
    hand.tell(StartFailed("f#1", "no such module", permanent=True))
    assert hand.newest["d"].failure == "no such module"
    hand.report()
    caller = hand.pool.callers.get("d")
    assert caller is not None
    assert caller.failure is None


def test_an_idle_callers_last_report_is_answered_with_nothing_and_it_is_forgotten() -> None:
    hand = hand_with_a_lease()
    hand.report(held=(), returned=((hand.leases()[0].number, 1.0),))
    hand.report(held=())
    assert hand.of(AnswerReport)[-1].reply is None
    hand.tick(FORGET_S + 2 * TICK_S)
    assert len(hand.pool.callers) == 0


# ------------------------------------------------------------------------------- after a restart


def recovering(**config: Any) -> Hand:
    return Hand(epoch=2, found=("f#1", "f#7"), expected_dispatchers=("d",), **config)


def test_new_containers_are_numbered_above_those_that_were_found() -> None:
    hand = recovering()
    hand.tick(RECOVERY_S)
    hand.report("e", asked=9)
    assert StartContainer("f#8") in hand.of(StartContainer)


def test_a_found_container_is_not_granted_until_it_has_answered_and_then_without_its_busy_slots() -> None:
    hand = recovering(settings={"max_containers": 2})
    hand.tick(RECOVERY_S)
    hand.report("e", asked=9)
    assert not hand.leases("e")
    hand.report("e", waiting=9)
    hand.tell(ContainerReady("f#1", busy=(EPOCH + 5,)))
    assert not hand.leases("e")
    hand.tell(ContainerReady("f#7"))
    assert [lease.container_id for lease in hand.leases("e")] == ["f#7"]


def test_a_lease_of_the_last_epoch_is_listed_again() -> None:
    hand = recovering()
    lease = Lease(EPOCH + 5, "f#1")
    hand.tell(ContainerReady("f#1", busy=(lease.number,)))
    hand.report("d", seen=EPOCH + 9, held=(lease,), assigned=1)
    assert hand.leases("d") == (lease,)
    assert not hand.pool.ledger.orphans
    assert hand.newest["d"].number > 2 * EPOCH


def test_nothing_new_is_admitted_until_every_caller_of_the_store_has_reported_or_is_dead() -> None:
    hand = recovering()
    hand.report("e", asked=1)
    assert hand.newest["e"].decided == 0
    hand.tell(DispatcherLost("d"))
    assert not hand.pool.recovering
    hand.tick()
    hand.report("e", asked=1, decided=0)
    assert hand.newest["e"].decided == 1


def test_a_caller_that_never_reports_holds_up_nobody_for_more_than_fifteen_seconds() -> None:
    hand = recovering()
    hand.park("e", asked=1)
    hand.tick(RECOVERY_S + TICK_S)
    caller = hand.pool.callers.get("e")
    assert caller is not None
    assert caller.admitted == 1


def test_a_busy_caller_gets_verdicts_in_advance_and_an_idle_one_none() -> None:
    hand = Hand()
    hand.report(asked=1, arrived=1)
    assert hand.newest["d"].decided == 1
    hand.report(asked=2, arrived=2, waiting=1)
    advance = hand.newest["d"].decided - 2
    assert advance == ADVANCE_MAX
    assert hand.newest["d"].admitted == hand.newest["d"].decided
    view = hand.pool.view()
    assert (view.waiting, view.total) == (2, 2)
    assert hand.pool.callers.used.pending == 2 + advance


def test_a_container_that_says_again_and_again_that_it_retires_takes_nothing_new_and_stops_once() -> None:
    hand = hand_with_a_lease()
    held = hand.leases()
    hand.tell(ContainerRetired("f#1"))
    assert hand.leases() == ()
    hand.park(held=held, assigned=1)
    for _ in range(3):
        hand.tell(ContainerRetired("f#1"))
        assert not hand.effects
        assert hand.pool.ledger.ready == 0
    hand.report(held=(), assigned=0)
    assert hand.of(StopContainer) == [StopContainer("f#1", placed=True)]
    hand.tell(ContainerRetired("f#1"))
    assert not hand.effects
    hand.tell(ContainerLost("f#1"))
    hand.tell(ContainerRetired("f#1"))
    assert not hand.effects
    assert len(hand.pool.ledger) == 0


def test_verdicts_that_an_earlier_controller_gave_are_taken_as_told() -> None:
    hand = Hand(epoch=2)
    hand.report(asked=12, decided=2, admitted=2)
    hand.report(asked=12, decided=60, admitted=60, waiting=10)
    assert hand.pool.callers.waiting == 10
    assert hand.pool.callers.used.pending == 10 + 60 - 12


def test_a_lease_of_an_earlier_controller_without_room_is_taken_back_before_its_container_stops() -> None:
    hand = Hand(epoch=2, found=("f#1",), settings={"scaledown_window": 2})
    hand.tell(ContainerReady("f#1"))
    hand.report("new", asked=1)
    assert len(hand.newest["new"].leases) == 1
    held = Lease(5, "f#1")
    hand.report("old", held=(held,))
    hand.report("new", held=())
    hand.tick(30.0)
    assert ReleaseLease("f#1", 5) in hand.effects
    assert not hand.of(StopContainer)
    hand.tell(LeaseReleased("f#1", 5))
    hand.tick(30.0)
    assert hand.of(StopContainer)


def test_calls_of_a_caller_that_died_while_they_were_short_of_room_keep_no_advance_from_others() -> None:
    hand = Hand(limits=Limits(pending=100))
    hand.report("busy", asked=1, arrived=1)
    hand.report("busy", asked=2, arrived=2, waiting=1)
    assert hand.newest["busy"].decided > 2
    hand.report("dying", asked=200)
    assert hand.newest["dying"].decided < 200
    hand.tell(DispatcherLost("dying"))
    used_up = hand.newest["busy"].decided
    hand.report("busy", asked=used_up, arrived=used_up, waiting=1)
    hand.report("busy", asked=used_up + 1, arrived=used_up + 1, waiting=2)
    assert hand.newest["busy"].decided > used_up + 1


def test_inputs_that_a_map_holds_back_are_known_to_the_autoscaler_until_their_caller_is_gone() -> None:
    hand = Hand()
    hand.report("a", asked=10, arrived=10, held_back=500)
    hand.report("b", asked=1, arrived=1, held_back=7)
    assert hand.pool.scaling.facts(hand.now).held_back == 507
    hand.tell(DispatcherLost("a"))
    assert hand.pool.scaling.facts(hand.now).held_back == 7


def test_a_pool_begins_with_what_was_learned_of_its_version() -> None:
    hand = Hand(learned=Learned(service_s=(0.5, 1.5), cold_start_s=(3.0, 4.0)))
    facts = hand.pool.scaling.facts(hand.now)
    assert facts.service_s == 1.0
    assert facts.cold_start_s == 4.0
    assert hand.pool.scaling.lessons.learned == Learned((0.5, 1.5), (3.0, 4.0))


@pytest.mark.parametrize(("told", "starts"), [([100.0], 1), ([100.0, None], 0), ([100.0, 900.0], 0)])
def test_a_pool_is_told_when_its_schedule_fires(told: list[float | None], starts: int) -> None:
    hand = Hand()
    for in_s in told:
        hand.tell(TickExpected(in_s))
    hand.now = 99.0
    hand.tell(Ticked())
    assert len(hand.of(StartContainer)) == starts


def idle_hand(count: int, **config: Any) -> Hand:
    """So many containers that are ready and idle, which nothing keeps."""
    hand = Hand(settings={"min_containers": count}, **config)
    hand.tick()
    for number in range(1, count + 1):
        hand.tell(ContainerPlaced(f"f#{number}", f"node{number % 2}"))
        hand.tell(ContainerReady(f"f#{number}"))
    hand.tell(SettingsChanged(AutoscalerSettings()))
    return hand


def test_idle_containers_are_given_up_for_others_down_to_what_is_needed() -> None:
    hand = idle_hand(4)
    hand.tell(GiveUp(3))
    assert len(hand.of(StopContainer)) == 3
    assert str(hand.pool.scaling.decisions[-1]).startswith("4 -> 1: 3 containers ended, idle for")
    hand.tell(GiveUp(3))
    assert len(hand.of(StopContainer)) == 1
    assert not hand.of(StartContainer)  # It would come back at once.
    kept = idle_hand(4)
    kept.tell(SettingsChanged(AutoscalerSettings(min_containers=3)))
    kept.tell(GiveUp(3))
    assert len(kept.of(StopContainer)) == 1


def test_what_is_in_use_is_never_given_up() -> None:
    hand = hand_with_a_lease()
    hand.tell(GiveUp(1))
    assert not hand.of(StopContainer)


def test_what_is_in_use_on_a_node_that_will_go_serves_until_it_is_replaced() -> None:
    hand = hand_with_a_lease()
    hand.tell(NodeLeaving("f#1"))
    assert hand.of(StartContainer) == [StartContainer("f#2")]
    hand.tell(NodeLeaving("f#1"))  # Told again and again.
    assert not hand.effects
    hand.ready("f#2")
    hand.park(assigned=0, held=())
    assert hand.of(StopContainer) == [StopContainer("f#1", placed=True)]


def test_what_is_idle_on_a_node_that_will_go_ends_without_another() -> None:
    hand = idle_hand(1)
    hand.tell(NodeLeaving("f#1"))
    assert hand.of(StopContainer) == [StopContainer("f#1", placed=True)]
    assert not hand.of(StartContainer)


def test_what_is_kept_warm_on_a_node_that_will_go_is_replaced_first() -> None:
    hand = idle_hand(1)
    hand.tell(SettingsChanged(AutoscalerSettings(min_containers=1)))
    hand.tell(NodeLeaving("f#1"))
    assert (hand.of(StartContainer), hand.of(StopContainer)) == ([StartContainer("f#2")], [])
    hand.ready("f#2")
    assert hand.of(StopContainer) == [StopContainer("f#1", placed=True)]


def busy_hand(count: int) -> Hand:
    """So many containers that are ready and that one caller uses."""
    hand = Hand(settings={"min_containers": count})
    hand.tick()
    hand.ready(*(f"f#{number}" for number in range(1, count + 1)))
    hand.report(asked=count, arrived=count)
    hand.park(arrived=count, assigned=count)
    assert len(hand.leases()) == count
    return hand


def test_what_comes_in_the_middle_of_a_deploy_starts_containers_beside_those_that_replace() -> None:
    hand = busy_hand(8)
    hand.tell(Redeployed(2, AutoscalerSettings(min_containers=8), Limits()))
    assert len(hand.of(StartContainer)) == 2
    hand.report(asked=20, arrived=20, assigned=8)
    assert len(hand.of(StartContainer)) == 12


def test_what_is_on_a_node_that_will_go_in_the_middle_of_a_deploy_is_replaced_at_once() -> None:
    hand = busy_hand(8)
    hand.tell(Redeployed(2, AutoscalerSettings(min_containers=8), Limits()))
    started = hand.of(StartContainer)
    for number in range(5, 9):
        hand.tell(NodeLeaving(f"f#{number}"))
        started += hand.of(StartContainer)
    assert 4 <= len(started) <= 5
    hand.ready(started[0].container_id)
    assert [c.container_id for c in hand.pool.ledger.draining.values()] == ["f#5"]


def test_other_pools_make_room_for_what_starts_now_and_not_for_all_that_a_deploy_replaces() -> None:
    hand = busy_hand(8)
    hand.tell(Redeployed(2, AutoscalerSettings(min_containers=8), Limits()))
    assert hand.pool.scaling.need("f", Shape(frozenset()), hand.now).missing == 2


def test_of_containers_that_are_idle_for_as_long_the_one_on_the_emptiest_node_goes_first() -> None:
    hand = idle_hand(5)  # Three on node1, two on node0.
    stopped = []
    for _ in range(4):
        hand.tell(GiveUp(1))
        stopped += [effect.container_id for effect in hand.of(StopContainer)]
        hand.tell(ContainerLost(stopped[-1], "stopped"))
    assert set(stopped[:2]) == {"f#2", "f#4"}
