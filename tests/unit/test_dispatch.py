from __future__ import annotations

from typing import Any

import pytest

from flexray.config import Retries
from flexray.core.dispatch import LINGER_S, REPEAT_S, RESEND_S, UNUSED_S, Dispatch
from flexray.core.events import (
    BatchReclaimed,
    BatchReturned,
    BatchUnreached,
    CancelInputs,
    ContainerLost,
    ForgetContainer,
    InputsCancelled,
    InputsSubmitted,
    Lease,
    ReclaimBatch,
    Reply,
    ReplyReceived,
    SendBatch,
    SendReport,
    Settle,
    Ticked,
)
from flexray.core.status import CANCELLED, FAILED, LOST, OK, REFUSED, START_FAILED, UNSTARTED


class Hand:
    """A dispatch driven by hand: the controller's replies and the containers' answers are written out."""

    def __init__(self, **options: Any) -> None:
        self.dispatch = Dispatch("d", **options)
        self.now = 0.0
        self.replies = 0
        self.decided = self.admitted = 0
        self.leases: tuple[Lease, ...] = ()
        self.reports: list[Any] = []
        self.batches: list[SendBatch] = []
        self.settled: dict[int, int] = {}
        self.payloads: dict[int, object] = {}
        self.others: list[Any] = []

    def tell(self, event: Any) -> None:
        for effect in self.dispatch.handle(event, self.now):
            match effect:
                case SendReport(report):
                    self.reports.append(report)
                case SendBatch():
                    self.batches.append(effect)
                case Settle(input_ids, statuses, payloads):
                    assert not self.settled.keys() & set(input_ids)
                    self.settled.update(zip(input_ids, statuses, strict=True))
                    self.payloads.update(zip(input_ids, payloads, strict=True))
                case _:
                    self.others.append(effect)

    def submit(self, *input_ids: int, patient: bool = False) -> None:
        self.tell(InputsSubmitted(input_ids, patient=patient))

    def reply(self, *leases: Lease, admit: int = 0, refuse: int = 0, **changes: Any) -> None:
        self.replies += 1
        self.leases = leases
        self.admitted += admit
        self.decided += admit + refuse
        given = {"room": True, **changes}
        reply = Reply(self.replies, leases, self.decided, self.admitted, **given)
        self.tell(ReplyReceived(reply, len(self.reports)))

    def answer(
        self, batch: SendBatch, *statuses: int, ran: int = 1, busy_s: float = 0.001, **changes: Any
    ) -> None:
        given = statuses or (OK,) * len(batch.input_ids)
        self.tell(
            BatchReturned(batch.batch_id, bytes(given), [None] * len(given), (), busy_s, ran, **changes)
        )

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.tell(Ticked())

    def taken(self, kind: type) -> list[Any]:
        taken = [effect for effect in self.others if isinstance(effect, kind)]
        self.others = [effect for effect in self.others if not isinstance(effect, kind)]
        return taken


ONE, TWO, THREE = Lease(1, "f#1"), Lease(2, "f#2"), Lease(3, "f#3")


def hand_with(*leases: Lease, service_s: float = 0.001, **options: Any) -> Hand:
    """Holds these leases, all free, and knows the service time."""
    hand = Hand(**options)
    hand.submit(*range(1000, 1000 + len(leases)))
    hand.reply(*leases, admit=len(leases))
    for batch in list(hand.batches):
        hand.answer(batch, busy_s=service_s)
    hand.batches.clear()
    hand.settled.clear()
    hand.others.clear()
    return hand


# ------------------------------------------------------------------------------- asking and queueing


def test_an_input_without_a_free_slot_asks_at_once_and_runs_when_a_lease_comes() -> None:
    hand = Hand()
    hand.submit(7)
    assert [(r.asked, r.waiting) for r in hand.reports] == [(1, 0)]
    assert not hand.batches
    hand.reply(ONE, admit=1)
    assert [(b.input_ids, b.lease) for b in hand.batches] == [((7,), ONE)]
    hand.answer(hand.batches[0])
    assert hand.settled == {7: OK}


def test_an_input_with_a_free_slot_is_sent_without_asking() -> None:
    hand = hand_with(ONE)
    asked = hand.reports[-1].asked
    hand.submit(7)
    assert [b.input_ids for b in hand.batches] == [(7,)]
    hand.wait(0.3)
    assert hand.reports[-1].asked == asked


def test_a_refused_call_settles_and_a_refused_map_waits_and_asks_again() -> None:
    hand = Hand()
    hand.submit(1, 2)
    hand.submit(3, 4, patient=True)
    hand.reply(refuse=2, room=False)
    assert not hand.settled  # Refusals go to maps first.
    hand.reply(refuse=2, room=False)
    assert hand.settled == {1: REFUSED, 2: REFUSED}
    assert hand.reports[-1].held_back == 2
    asked = hand.reports[-1].asked
    hand.reply(room=True)
    assert hand.reports[-1].asked == asked + 2


def test_admissions_go_to_calls_first() -> None:
    hand = Hand()
    hand.submit(1, patient=True)
    hand.submit(2)
    hand.reply(ONE, admit=1, refuse=1, room=False)
    assert [b.input_ids for b in hand.batches] == [(2,)]


def test_a_cancelled_ask_takes_its_verdict_along() -> None:
    hand = Hand()
    hand.submit(1, 2)
    hand.tell(InputsCancelled([1]))
    assert hand.settled == {1: CANCELLED}
    hand.reply(ONE, admit=2)
    assert [b.input_ids for b in hand.batches] == [(2,)]
    assert hand.dispatch.waiting == 0


def test_waiting_counts_sent_but_unstarted_inputs_and_assigned_counts_slots() -> None:
    hand = hand_with(ONE)
    hand.submit(1)
    hand.submit(*range(2, 12))
    hand.reply(ONE, admit=10)
    assert hand.dispatch.assigned == 1
    assert hand.dispatch.waiting == 10


# ------------------------------------------------------------------------------------------- leases


def test_a_lease_that_is_not_listed_any_more_is_given_back_after_its_batch() -> None:
    hand = hand_with(ONE, TWO)
    hand.submit(1)
    busy, idle = hand.batches[0].lease, ({ONE, TWO} - {hand.batches[0].lease}).pop()
    hand.reply()
    assert hand.taken(ForgetContainer) == [ForgetContainer(idle.container_id)]
    assert hand.reports[-1].held == (busy,)
    hand.answer(hand.batches[0])
    assert hand.reports[-1].held == ()
    assert hand.dispatch.is_idle or hand.dispatch._reporting._parked


def test_an_idle_lease_is_given_back_after_a_second_with_its_idle_time() -> None:
    hand = hand_with(ONE)
    hand.wait(LINGER_S - 0.01)
    assert not hand.taken(ForgetContainer)
    hand.wait(0.02)
    assert hand.taken(ForgetContainer)
    assert hand.reports[-1].returned == ((1, pytest.approx(LINGER_S + 0.01)),)


def test_an_older_reply_is_ignored_and_its_handles_are_dropped() -> None:
    hand = hand_with(ONE)
    old = Reply(1, (ONE, Lease(0, "f#9")), 1, 1, room=True)
    hand.tell(ReplyReceived(old, 1))
    assert hand.taken(ForgetContainer) == [ForgetContainer("f#9")]
    assert list(hand.dispatch._slots) == [1]


def test_slots_beyond_what_may_be_kept_are_given_back_idle_ones_first() -> None:
    hand = hand_with(ONE, TWO, THREE)
    hand.submit(1)
    busy = hand.batches[0].lease
    hand.reply(ONE, TWO, THREE, keep=1)
    assert hand.reports[-1].held == (busy,)


def test_a_slot_that_may_be_kept_while_it_is_busy_is_given_back_when_it_is_unused_for_a_moment() -> None:
    hand = hand_with(ONE)
    hand.submit(1)
    hand.reply(ONE, keep=0, keep_busy=True)
    hand.wait(1.0)
    assert hand.reports[-1].held == (ONE,)
    hand.answer(hand.batches[-1])
    hand.submit(2)
    hand.answer(hand.batches[-1])
    hand.wait(UNUSED_S / 2)
    assert hand.reports[-1].held == (ONE,)
    hand.wait(UNUSED_S)
    assert hand.reports[-1].held == ()
    assert not hand.dispatch.has_free_slot


def test_a_lease_whose_batch_came_back_unstarted_is_never_used_again() -> None:
    hand = hand_with(ONE)
    hand.submit(1)
    hand.answer(hand.batches[0], UNSTARTED, ran=0, bounced=True)
    assert len(hand.batches) == 1
    assert hand.reports[-1].held == ()
    hand.reply(TWO)
    assert [b.lease for b in hand.batches] == [ONE, TWO]


# --------------------------------------------------------------------------------- batches and time


def test_a_batch_is_sent_ahead_when_the_one_under_way_is_nearly_over() -> None:
    hand = hand_with(ONE, service_s=0.02)
    hand.submit(1)
    hand.submit(2, 3, 4)
    hand.reply(ONE, admit=3)
    assert [b.input_ids for b in hand.batches] == [(1,), (2,)]
    assert hand.batches[1].oldest_open == hand.batches[0].batch_id


@pytest.mark.parametrize(("service_s", "options"), [(10.0, {}), (0.02, {"at_most_once": True})])
def test_nothing_is_sent_behind_a_long_input_nor_ahead_at_most_once(service_s: float, options: Any) -> None:
    hand = hand_with(ONE, service_s=service_s, **options)
    hand.submit(1)
    hand.submit(2, 3)
    hand.reply(ONE, admit=2)
    assert [b.input_ids for b in hand.batches] == [(1,)]


def test_an_overdue_batch_gives_back_its_unstarted_inputs_and_what_is_behind_it() -> None:
    hand = hand_with(ONE)
    hand.submit(*range(40))
    hand.reply(ONE, admit=39)
    ids = [batch.batch_id for batch in hand.batches]
    assert len(ids) == 2
    hand.wait(0.2)
    assert [r.batch_id for r in hand.taken(ReclaimBatch)] == ids
    ahead = hand.batches[1]
    count = len(ahead.input_ids)
    hand.tell(BatchReclaimed(ahead.batch_id, tuple(range(count)), bytes([UNSTARTED]) * count, [None] * count))
    hand.reply(ONE, TWO)
    assert hand.batches[2].lease == TWO
    assert hand.batches[2].input_ids[0] == ahead.input_ids[0]
    hand.wait(REPEAT_S)
    assert hand.taken(ReclaimBatch)


def test_two_single_inputs_are_both_asked_back_since_either_may_be_the_one_that_runs() -> None:
    hand = hand_with(ONE, service_s=0.03)
    hand.submit(1)
    hand.submit(2)
    hand.reply(ONE, admit=1)
    hand.wait(1.0)
    assert {r.batch_id for r in hand.taken(ReclaimBatch)} == {b.batch_id for b in hand.batches}


def test_an_answer_moves_only_inputs_that_have_not_moved_on() -> None:
    hand = hand_with(ONE)
    hand.submit(*range(40))
    hand.reply(ONE, admit=39)
    first = hand.batches[0]
    hand.tell(BatchReclaimed(first.batch_id, (0,), bytes([OK]), ["early"]))
    assert hand.payloads[first.input_ids[0]] == "early"
    hand.answer(first, ran=len(first.input_ids))
    assert set(first.input_ids) <= hand.settled.keys()
    hand.answer(first)  # A late repeat.


def test_a_batch_whose_call_failed_is_sent_again_with_the_same_id_to_the_same_container() -> None:
    hand = hand_with(ONE)
    hand.submit(1)
    sent = hand.batches[0]
    hand.tell(BatchUnreached(sent.batch_id))
    hand.wait(RESEND_S)
    again = hand.batches[1]
    assert (again.batch_id, again.lease, again.input_ids, again.again) == (sent.batch_id, ONE, (1,), True)


def test_every_batch_names_the_oldest_open_one_of_its_caller_on_whatever_container_that_is() -> None:
    hand = hand_with(ONE, TWO)
    hand.submit(1)
    hand.submit(2)
    long, short = hand.batches
    assert long.lease != short.lease
    hand.answer(short)
    hand.submit(3)
    assert hand.batches[-1].lease == short.lease
    assert hand.batches[-1].oldest_open == long.batch_id
    hand.answer(long)
    last = hand.batches[-1]
    hand.submit(4)
    assert hand.batches[-1].oldest_open == last.batch_id
    hand.answer(last)
    sent = hand.batches[-1]
    hand.tell(BatchUnreached(sent.batch_id))
    hand.wait(RESEND_S)
    assert (hand.batches[-1].again, hand.batches[-1].oldest_open) == (True, sent.batch_id)


# ------------------------------------------------------------------------ retries, losses, giving up


def test_a_failed_input_rests_and_runs_again_until_its_retries_are_spent() -> None:
    hand = hand_with(ONE, retries=Retries(max_retries=1, initial_delay=0.5))
    hand.submit(1)
    hand.answer(hand.batches[0], FAILED)
    assert not hand.settled
    assert (hand.dispatch.attempt(1), hand.dispatch.waiting) == (2, 1)
    hand.wait(0.4)
    assert len(hand.batches) == 1
    hand.wait(0.2)
    assert len(hand.batches) == 2
    hand.answer(hand.batches[1], FAILED)
    assert hand.settled == {1: FAILED}
    assert not hand.dispatch._attempts


def test_inputs_of_a_dead_container_run_again_each_alone_and_the_third_such_loss_is_the_last() -> None:
    hand = hand_with(ONE)
    hand.submit(*range(20))
    hand.reply(ONE, admit=19)
    lost = [i for batch in hand.batches for i in batch.input_ids]
    hand.tell(ContainerLost("f#1"))
    for number in range(3):
        hand.batches.clear()
        lease = Lease(10 + number, f"f#{10 + number}")
        hand.reply(lease)
        assert [b.input_ids for b in hand.batches] == [(lost[number],)]
        hand.tell(ContainerLost(lease.container_id, "died"))
    assert not hand.settled


def test_an_input_that_is_alone_in_three_deaths_is_lost() -> None:
    hand = hand_with(ONE)
    hand.submit(1)
    for number in range(4):
        assert not hand.settled
        hand.tell(ContainerLost(hand.batches[-1].lease.container_id, "died"))
        hand.reply(Lease(10 + number, f"f#{10 + number}"))
    assert hand.settled == {1: LOST}
    assert hand.payloads[1] == "died"
    assert not hand.dispatch._losses


def test_an_at_most_once_input_is_lost_with_its_container() -> None:
    hand = hand_with(ONE, at_most_once=True)
    hand.submit(1)
    hand.tell(ContainerLost("f#1"))
    assert hand.settled == {1: LOST}


def test_a_cancelled_input_that_was_sent_settles_at_once_and_its_container_is_told_until_it_answers() -> None:
    hand = hand_with(ONE, service_s=5.0)
    hand.submit(1)
    hand.tell(InputsCancelled([1]))
    assert hand.settled == {1: CANCELLED}
    assert hand.taken(CancelInputs) == [CancelInputs(hand.batches[0].batch_id, "f#1", (0,), (0,))]
    hand.wait(REPEAT_S)
    assert len(hand.taken(CancelInputs)) == 1
    hand.answer(hand.batches[0], CANCELLED, ran=0)
    hand.wait(REPEAT_S)
    assert not hand.taken(CancelInputs)


def test_when_no_container_can_start_everything_that_waits_fails_and_what_runs_goes_on() -> None:
    hand = hand_with(ONE, service_s=5.0)
    hand.submit(1)
    hand.submit(2)
    hand.submit(3, patient=True)
    hand.reply(ONE, failure="no place")
    assert hand.settled == {2: START_FAILED, 3: START_FAILED}
    assert hand.payloads[2] == "no place"
    hand.answer(hand.batches[0])
    assert hand.settled[1] == OK


def test_nothing_is_remembered_when_everything_is_over() -> None:
    hand = hand_with(ONE, TWO, retries=Retries(max_retries=1, initial_delay=0.0))
    hand.dispatch.set_size(1, 1 << 19)
    hand.submit(*range(30))
    hand.reply(ONE, TWO, admit=28)
    for batch in hand.batches:
        hand.answer(batch, *([FAILED] * len(batch.input_ids)), ran=len(batch.input_ids))
    hand.wait(2 * LINGER_S)
    hand.reply()
    dispatch = hand.dispatch
    remembered = (dispatch._attempts, dispatch._losses, dispatch._batches, dispatch._slots, dispatch._held_of)
    assert all(not memory for memory in remembered)
    assert not dispatch._sizing._large
    assert dispatch.waiting == dispatch.assigned == 0
