"""What a failed call of Ray becomes for the inputs that it was about."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from ray.exceptions import (
    ActorUnavailableError,
    ObjectLostError,
    ObjectStoreFullError,
    OutOfMemoryError,
    RayError,
)

from flexray.config import Concurrency, check_options
from flexray.core.dispatch import LINGER_S, RESEND_S
from flexray.core.events import Lease, Reply, Report
from flexray.core.status import FAILED, OK
from flexray.runtime import poolclient
from flexray.runtime.dispatcher import Dispatcher
from flexray.runtime.poolclient import BUNDLE_BYTES, BUNDLE_MIN, BUNDLE_SLOTS, PoolClient
from flexray.runtime.wire import (
    AnswerMessage,
    BatchMessage,
    StoredCall,
    decode,
    decode_batch,
    encode,
    encode_answer,
)

ONE, TWO, THREE = Lease(1, "f#1"), Lease(2, "f#2"), Lease(3, "f#3")


class Method:
    """A method of an actor: each call is recorded and gives an object to follow."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.refs: list[object] = []
        self.raises: list[RayError] = []
        """What the next calls raise at once, in order."""

    def remote(self, *args: Any) -> object:
        if self.raises:
            raise self.raises.pop(0)
        self.calls.append(args)
        self.refs.append(object())
        return self.refs[-1]


class Handle:
    """A container or the controller, as far as it is called here."""

    def __init__(self) -> None:
        self.run, self.report, self.output = Method(), Method(), Method()
        self.run_bundle, self.rest = Method(), Method()

    @property
    def batches(self) -> list[BatchMessage]:
        return [decode_batch(args[0]) for args in self.run.calls]

    @property
    def bundles(self) -> list[list[BatchMessage]]:
        return [[decode_batch(data) for data in args[0]] for args in self.run_bundle.calls]

    @property
    def reports(self) -> list[Report]:
        return [decode(args[1]) for args in self.report.calls]


class Inbox:
    """Stands for the dispatcher: what is followed comes to something when the test says so."""

    process = "d"

    def __init__(self) -> None:
        self.controller = Handle()
        self.followed: dict[object, Callable[[Any], None]] = {}

    def follow(self, ref: object, take: Callable[[Any], None]) -> None:
        self.followed[ref] = take

    def wake(self, client: PoolClient) -> None:
        pass

    def send_soon(self, client: PoolClient) -> bool:
        return False  # What is to be sent is sent at once.


class Settled:
    """A sink that remembers how inputs ended."""

    def __init__(self) -> None:
        self.outcomes: dict[int, tuple[int, Any]] = {}

    def settle(self, input_ids: Sequence[int], statuses: bytes, payloads: Sequence[Any]) -> None:
        outcomes = zip(statuses, payloads, strict=True)
        self.outcomes.update(zip(input_ids, outcomes, strict=True))


class Hand:
    """A pool client driven by hand, with containers f#1, f#2 and f#3."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, slots: int = 1, **options: Any) -> None:
        self.now = 0.0
        monkeypatch.setattr(poolclient, "time", SimpleNamespace(monotonic=lambda: self.now))
        self.inbox = Inbox()
        self.containers = {lease.container_id: Handle() for lease in (ONE, TWO, THREE)}
        self.sink = Settled()
        self.replies = 0
        config = check_options("f", options).model_copy(update={"concurrency": Concurrency(max_inputs=slots)})
        self.client = PoolClient("a/f", config, cast(Dispatcher, self.inbox))

    def submit(self, *prepared: Any) -> list[int]:
        return self.client.submit(prepared, self.sink, patient=False)

    def come(self, method: Method, result: Any) -> None:
        """The last call of this method comes to this, value or error."""
        self.inbox.followed.pop(method.refs[-1])(result)

    def reply(self, *leases: Lease) -> None:
        """The controller answers a report: it admits all that was asked for, and lists these leases."""
        self.replies += 1
        asked = self.inbox.controller.reports[-1].asked
        reply = Reply(self.replies, leases, decided=asked, admitted=asked, room=True)
        handles = {lease.container_id: self.of(lease) for lease in leases}
        self.come(self.inbox.controller.report, (encode(reply), handles))

    def of(self, lease: Lease) -> Handle:
        return self.containers[lease.container_id]

    def fails(self, error: RayError, *prepared: Any) -> list[int]:
        """These inputs are sent to f#1, and the call of `run` comes to the error."""
        input_ids = self.submit(*prepared)
        self.reply(ONE)
        self.come(self.of(ONE).run, error)
        return input_ids

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.client.tick(self.now)


@pytest.fixture
def hand(monkeypatch: pytest.MonkeyPatch) -> Hand:
    return Hand(monkeypatch)


def answer(*payloads: Any) -> Any:
    count = len(payloads)
    message = AnswerMessage(bytes([OK]) * count, list(payloads), (), 0.001, count, bounced=False, output=[])
    return encode_answer(message)


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> Hand:
    """One whose containers have many slots."""
    return Hand(monkeypatch, BUNDLE_SLOTS)


def leases_of(container_id: str, first: int, count: int) -> list[Lease]:
    return [Lease(number, container_id) for number in range(first, first + count)]


def lost_object() -> ObjectLostError:
    return ObjectLostError("00" * 28, b"", "")


def test_a_container_that_the_memory_monitor_killed_is_dead_and_its_input_runs_elsewhere(hand: Hand) -> None:
    killed = OutOfMemoryError("the node was low on memory")  # type: ignore[no-untyped-call]
    (input_id,) = hand.fails(killed, b"x")
    assert not hand.sink.outcomes
    assert hand.inbox.controller.reports[-1].held == ()
    hand.reply(TWO)
    (again,) = hand.of(TWO).batches
    assert (again.input_ids, again.calls, again.again) == ((input_id,), [b"x"], False)
    hand.come(hand.of(TWO).run, answer(b"y"))
    assert hand.sink.outcomes == {input_id: (OK, b"y")}


@pytest.mark.parametrize("error", [lost_object(), ActorUnavailableError("gone for a moment", None)])
def test_a_batch_whose_answer_was_lost_is_sent_again_with_its_id_to_its_container(
    hand: Hand, error: RayError
) -> None:
    (input_id,) = hand.fails(error, b"x")
    hand.wait(RESEND_S)
    first, again = hand.of(ONE).batches
    assert (first.again, again.again) == (False, True)
    assert (again.batch_id, again.lease_number, again.calls) == (first.batch_id, 1, [b"x"])
    assert not hand.sink.outcomes
    hand.come(hand.of(ONE).run, answer(b"y"))
    assert hand.sink.outcomes == {input_id: (OK, b"y")}


def test_an_argument_that_is_lost_fails_the_input_that_refers_to_it_and_no_other(hand: Hand) -> None:
    error = lost_object()
    referring = StoredCall(None, ["in the object store"], resolved=0)
    first, second = hand.fails(error, referring, b"x")
    assert hand.sink.outcomes == {first: (FAILED, error)}
    assert [batch.input_ids for batch in hand.of(ONE).batches] == [(first,), (second,)]
    hand.wait(RESEND_S)
    assert len(hand.of(ONE).batches) == 2


def test_a_batch_that_cannot_be_sent_fails_and_what_else_was_to_be_done_is_done(hand: Hand) -> None:
    full = ObjectStoreFullError("no room")
    hand.of(ONE).run.raises.append(full)
    hand.of(TWO).run.raises.append(full)
    input_ids = hand.submit(b"w", b"x", b"y")
    hand.reply(ONE, TWO, THREE)
    failed = [i for i, outcome in hand.sink.outcomes.items() if outcome == (FAILED, full)]
    sent = [i for handle in hand.containers.values() for batch in handle.batches for i in batch.input_ids]
    assert len(failed) == 2
    assert sorted(failed + sent) == input_ids
    assert {lease.number for lease in hand.inbox.controller.reports[-1].held} == {1, 2, 3}


def test_a_batch_that_could_not_be_sent_for_a_moment_is_sent_again(hand: Hand) -> None:
    hand.of(ONE).run.raises.append(ActorUnavailableError("not reached", None))
    (input_id,) = hand.submit(b"x")
    hand.reply(ONE)
    assert not hand.of(ONE).batches
    hand.wait(RESEND_S)
    (again,) = hand.of(ONE).batches
    assert (again.input_ids, again.again) == ((input_id,), True)


def test_a_blocking_call_that_cannot_be_sent_fails_at_once_and_the_next_finds_the_slot(hand: Hand) -> None:
    full = ObjectStoreFullError("no room")
    (input_id,) = hand.submit(b"w")
    hand.reply(ONE)
    hand.come(hand.of(ONE).run, answer(b"v"))
    assert hand.sink.outcomes == {input_id: (OK, b"v")}
    hand.of(ONE).run.raises += [full, full]
    assert hand.client.call(b"x") == (FAILED, full)
    assert hand.client.call(b"y") == (FAILED, full)
    hand.submit(b"z")
    assert [batch.calls for batch in hand.of(ONE).batches] == [[b"w"], [b"z"]]


def test_nothing_is_under_way_after_a_batch_that_could_not_be_sent(hand: Hand) -> None:
    hand.of(ONE).run.raises.append(ObjectStoreFullError("no room"))
    hand.submit(b"x")
    hand.reply(ONE)
    hand.wait(2 * LINGER_S)
    assert not hand.client._under_way
    assert not hand.of(ONE).output.calls


def test_batches_for_one_container_travel_in_one_call_where_they_are_enough(wide: Hand) -> None:
    few, many = leases_of("f#1", 1, BUNDLE_MIN - 1), leases_of("f#2", BUNDLE_MIN, BUNDLE_MIN)
    input_ids = wide.submit(*[b"x"] * (len(few) + len(many)))
    wide.reply(*few, *many)
    assert (len(wide.of(ONE).batches), wide.of(ONE).bundles) == (len(few), [])
    assert wide.of(TWO).batches == []
    ((*bundle,),) = wide.of(TWO).bundles
    assert len(bundle) == len(many)
    sent = [*wide.of(ONE).batches, *bundle]
    assert sorted(i for batch in sent for i in batch.input_ids) == input_ids


def test_the_answers_of_a_bundle_are_taken_in_as_they_come_and_the_rest_is_asked_for(wide: Hand) -> None:
    wide.submit(*[b"x"] * BUNDLE_MIN)
    wide.reply(*leases_of("f#1", 1, BUNDLE_MIN))
    (bundle,) = wide.of(ONE).bundles
    first, *others = bundle
    wide.come(wide.of(ONE).run_bundle, [(first.batch_id, answer(b"first"))])
    assert wide.sink.outcomes == {first.input_ids[0]: (OK, b"first")}
    assert wide.of(ONE).rest.calls == [("d", [batch.batch_id for batch in others])]
    wide.come(wide.of(ONE).rest, [(batch.batch_id, answer(b"later")) for batch in reversed(others)])
    assert [wide.sink.outcomes[batch.input_ids[0]] for batch in others] == [(OK, b"later")] * len(others)
    assert len(wide.of(ONE).rest.calls) == 1
    assert not wide.inbox.followed.keys() & {*wide.of(ONE).rest.refs, *wide.of(ONE).run_bundle.refs}


def test_a_batch_of_a_bundle_that_its_container_does_not_know_is_sent_again_by_itself(wide: Hand) -> None:
    wide.submit(*[b"x"] * BUNDLE_MIN)
    wide.reply(*leases_of("f#1", 1, BUNDLE_MIN))
    (bundle,) = wide.of(ONE).bundles
    unknown, *others = bundle
    answers = [(batch.batch_id, answer(b"y")) for batch in others]
    wide.come(wide.of(ONE).run_bundle, [(unknown.batch_id, None), *answers])
    assert len(wide.sink.outcomes) == len(others)
    wide.wait(RESEND_S)
    (again,) = wide.of(ONE).batches
    assert (again.batch_id, again.again) == (unknown.batch_id, True)


@pytest.mark.parametrize("asked", ["run_bundle", "rest"])
def test_a_bundle_whose_answers_were_lost_is_sent_again_batch_by_batch(wide: Hand, asked: str) -> None:
    wide.submit(*[b"x"] * BUNDLE_MIN)
    wide.reply(*leases_of("f#1", 1, BUNDLE_MIN))
    (bundle,) = wide.of(ONE).bundles
    if asked == "rest":
        wide.come(wide.of(ONE).run_bundle, [(bundle[0].batch_id, answer(b"y"))])
    left = [batch for batch in bundle if batch.input_ids[0] not in wide.sink.outcomes]
    wide.come(getattr(wide.of(ONE), asked), ActorUnavailableError("gone for a moment", None))
    wide.wait(RESEND_S)
    assert {batch.batch_id for batch in wide.of(ONE).batches} == {batch.batch_id for batch in left}
    assert all(batch.again for batch in wide.of(ONE).batches)


def test_a_bundle_whose_container_died_runs_elsewhere(wide: Hand) -> None:
    input_ids = wide.submit(*[b"x"] * BUNDLE_MIN)
    wide.reply(*leases_of("f#1", 1, BUNDLE_MIN))
    killed = OutOfMemoryError("the node was low on memory")  # type: ignore[no-untyped-call]
    wide.come(wide.of(ONE).run_bundle, killed)
    wide.reply(*leases_of("f#2", BUNDLE_MIN + 1, BUNDLE_MIN))
    assert sorted(i for batch in wide.of(TWO).bundles[0] for i in batch.input_ids) == input_ids


def test_what_is_large_together_travels_in_several_bundles(wide: Hand) -> None:
    input_ids = wide.submit(*[b"x" * (BUNDLE_BYTES // 3)] * 2 * BUNDLE_MIN)
    wide.reply(*leases_of("f#1", 1, 2 * BUNDLE_MIN))
    assert [len(bundle) for bundle in wide.of(ONE).bundles] == [3, 3, 2]
    sent = [i for bundle in wide.of(ONE).bundles for batch in bundle for i in batch.input_ids]
    assert sorted(sent) == input_ids


def test_what_may_run_only_once_is_in_no_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    hand = Hand(monkeypatch, BUNDLE_SLOTS, at_most_once=True)
    hand.submit(*[b"x"] * BUNDLE_MIN)
    hand.reply(*leases_of("f#1", 1, BUNDLE_MIN))
    assert (len(hand.of(ONE).batches), hand.of(ONE).bundles) == (BUNDLE_MIN, [])


def test_what_travels_beside_messages_is_in_no_bundle(wide: Hand) -> None:
    large = StoredCall(None, ["in the object store"], resolved=0)
    input_ids = wide.submit(*[b"x"] * BUNDLE_MIN, large)
    wide.reply(*leases_of("f#1", 1, BUNDLE_MIN + 1))
    assert [batch.input_ids for batch in wide.of(ONE).batches] == [(input_ids[-1],)]
    assert len(wide.of(ONE).bundles[0]) == BUNDLE_MIN
