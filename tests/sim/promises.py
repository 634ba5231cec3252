"""Single promises, each in a world made for it; a promise that is broken raises `Violation`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import chain, pairwise

from flexray.config import AutoscalerSettings, Limits
from flexray.core.dispatch import Dispatch
from flexray.core.events import (
    AnswerReport,
    BatchReturned,
    ContainerLost,
    ContainerPlaced,
    ContainerReady,
    DispatcherLost,
    InputsSubmitted,
    Lease,
    PoolEffect,
    ReclaimBatch,
    Redeployed,
    ReleaseLease,
    Reply,
    ReplyReceived,
    Report,
    ReportReceived,
    SendBatch,
    SettingsChanged,
    Settle,
    StartContainer,
    Ticked,
)
from flexray.core.occupancy import HELLO_S, KEEP_ANSWER_S, Arrival, Occupancy
from flexray.core.pool import EPOCH, Pool, PoolConfig
from flexray.core.recovery import Recovery
from flexray.core.reporting import ASK_TIMEOUT_S
from flexray.core.status import LOST, OK, REFUSED, UNSTARTED
from tests.sim.invariants import Checks
from tests.sim.scenarios import Faults, Scenario
from tests.sim.thrift import THRIFT
from tests.sim.truth import Violation
from tests.sim.world import World


def _played(world: World, until_s: float) -> World:
    checks = Checks(world)
    while world.now < until_s and world.step():
        checks.check_event()
    return world


def _promise(condition: bool, what: str) -> None:
    if not condition:
        raise Violation(what)


def admission_is_exact() -> None:
    """Of 400 inputs that 50 callers submit within 10 ms, exactly those beyond the limit are refused."""
    for seed in range(3):
        world = World(Scenario(seed, callers=50, limits=Limits(pending=200), cold_start_s=3.0))
        for number, caller in enumerate(world.callers.values()):
            for step in range(8):
                when = world.random.uniform(0.0, 0.01)
                world.at(when, lambda c=caller, i=8 * number + step: c.submit([i], patient=False))
        _played(world, 1.0)
        refused = sum(REFUSED in truth.settled for truth in world.truth.values())
        _promise(refused == 200, f"4: {refused} of 400 refused, the limit is 200")


def a_map_waits_quietly_for_room() -> None:
    """A map beyond the limit is neither refused nor asks again and again."""
    limits, settings = Limits(pending=20), AutoscalerSettings(max_containers=1)
    world = World(Scenario(1, callers=2, limits=limits, settings=settings, service_s=1.0, service_spread=0.0))
    filling, mapping = world.callers.values()
    world.at(0.0, lambda: filling.submit(list(range(20)), patient=False))
    world.at(0.5, lambda: mapping.submit(list(range(20, 80)), patient=True))
    _played(world, 5.0)
    statuses = [truth.settled for truth in world.truth.values() if REFUSED in truth.settled]
    _promise(not statuses, f"4: {len(statuses)} inputs refused")
    _promise(mapping.reports_sent < 30, f"4: {mapping.reports_sent} reports within 5 s")


def a_map_leaves_room_for_calls() -> None:
    """A map far beyond the limit waits; the calls of others are admitted beside it."""
    limits, settings = Limits(pending=20), AutoscalerSettings(max_containers=1)
    world = World(Scenario(2, callers=2, limits=limits, settings=settings, service_s=1.0, service_spread=0.0))
    mapping, calling = world.callers.values()
    world.at(0.0, lambda: mapping.submit(list(range(100)), patient=True))
    world.at(0.5, lambda: calling.submit([100], patient=False))
    world.at(5.0, lambda: calling.submit([101], patient=False))
    _played(world, 6.0)
    refused = [truth.input_id for truth in world.truth.values() if REFUSED in truth.settled]
    _promise(not refused, f"4: calls {refused} were refused beside a map")


def callers_share_a_container_evenly() -> None:
    """One container, three callers that come one after the other: near-equal shares, and few moves."""
    settings, limits = AutoscalerSettings(max_containers=1), Limits(pending=10_000)
    world = World(
        Scenario(3, callers=3, service_s=0.02, service_spread=0.2, settings=settings, limits=limits)
    )
    for number, caller in enumerate(world.callers.values()):
        inputs = list(range(2000 * number, 2000 * (number + 1)))
        world.at(0.4 * number, lambda c=caller, i=inputs: c.submit(i, patient=True))
    _played(world, 21.0)
    ran = Counter(truth.caller_id for truth in world.truth.values() if OK in truth.settled)
    _promise(max(ran.values()) <= 1.25 * min(ran[name] for name in world.callers), f"11: {dict(ran)}")
    assert world.pool is not None
    moves = world.pool._next_lease - (world.epoch << 40)
    _promise(moves <= 21.0 / 0.1, f"11: {moves} grants in 21 s: a holder keeps a slot for 100 ms at least")


def an_unused_slot_goes_to_who_waits() -> None:
    """Two callers call one container by turns: each waits for a few messages, and not for 100 ms."""
    settings = AutoscalerSettings(min_containers=1, max_containers=1)
    world = World(Scenario(3, callers=2, service_s=0.001, service_spread=0.0, settings=settings))
    callers = list(world.callers.values())
    for number in range(40):
        caller = callers[number % 2]
        world.at(5.0 + 0.06 * number, lambda c=caller, n=number: c.submit([n], patient=False))
    _played(world, 10.0)
    took = [(truth.settled_at or world.now) - (5.0 + 0.06 * truth.input_id) for truth in world.truth.values()]
    _promise(max(took) < 0.05, f"11: a call of 1 ms took {max(took):.3f} s")


def a_dead_callers_slots_come_back() -> None:
    """A caller dies with inputs under way: its slots go to the other caller, and no input of it runs on."""
    settings = AutoscalerSettings(max_containers=1, scaledown_window=2.0)
    world = World(Scenario(4, callers=2, service_s=0.5, slots=2, service_spread=0.0, settings=settings))
    dying, living = world.callers.values()
    world.at(0.0, lambda: dying.submit(list(range(40)), patient=True))
    world.at(1.8, lambda: living.submit(list(range(40, 50)), patient=False))
    world.at(2.5, lambda: world.kill_caller(dying))
    _played(world, 20.0)
    settled = sum(OK in world.truth[i].settled for i in range(40, 50))
    _promise(settled == 10, f"5: {settled} of 10 inputs of the living caller have settled")
    _promise(not world.live, f"8: {world.live} containers are left")


def a_dead_callers_input_keeps_its_slot() -> None:
    """What a dead caller left running is over before its slot is given to anybody."""
    settings = AutoscalerSettings(max_containers=1, scaledown_window=2.0)
    world = World(Scenario(8, callers=2, service_s=9.0, service_spread=0.0, settings=settings))
    dying, living = world.callers.values()
    world.at(0.0, lambda: dying.submit([0], patient=False))
    world.at(2.0, lambda: living.submit([1], patient=False))
    world.at(2.5, lambda: world.kill_caller(dying))
    _played(world, 30.0)
    _promise(world.bounces == 0, f"5: {world.bounces} batches bounced")
    _promise(OK in world.truth[1].settled, "5: the input of the living caller has not settled")


def a_dead_callers_leases_come_back_while_others_are_awaited() -> None:
    """A restarted controller that does not know all callers yet asks for a dead one's leases at once."""
    config = PoolConfig("f", 2, found=("f#1",), expected_dispatchers=("dead", "silent"))
    pool, lease = Pool(config, 0.0), Lease(EPOCH + 1, "f#1")
    pool.handle(ContainerReady("f#1", busy=(lease.number,)), 0.1)
    pool.handle(ReportReceived(Report("dead", 5, EPOCH + 3, held=(lease,), assigned=1)), 0.2)
    effects = pool.handle(DispatcherLost("dead"), 0.3)
    _promise(pool.recovering, "5: the controller does not wait for the silent caller")
    _promise(ReleaseLease("f#1", lease.number) in effects, f"5: on a caller's death it does {effects}")


def a_lost_verdict_comes_again() -> None:
    """The first answer to an ask is lost; the input is under way when the ask is repeated, 2 s later."""
    settings = AutoscalerSettings(min_containers=1)
    world = World(Scenario(9, callers=1, service_s=0.01, settings=settings))
    (caller,) = world.callers.values()
    obey = world.obey
    lost: list[AnswerReport] = []

    def lose_the_first(effect: object) -> None:
        if isinstance(effect, AnswerReport) and not lost:
            lost.append(effect)
        else:
            obey(effect)

    world.obey = lose_the_first  # type: ignore[method-assign]
    world.at(4.0, lambda: caller.submit([0], patient=False))
    _played(world, 4.0 + ASK_TIMEOUT_S + 0.2)
    _promise(OK in world.truth[0].settled, "1: no verdict 0.2 s after the ask was repeated")


def one_input_starts_one_container() -> None:
    """In calm worlds of single calls no more containers start than needed: a lease given is demand met."""
    starts = 0
    for seed in range(40):
        settings = AutoscalerSettings(scaledown_window=2.0)
        world = World(Scenario(seed, callers=3, service_s=0.4, cold_start_s=0.5, settings=settings))
        for number, caller in enumerate(world.callers.values()):
            for step in range(3):
                when = 0.8 * step + world.random.uniform(0.0, 0.3)
                world.at(when, lambda c=caller, i=3 * number + step: c.submit([i], patient=False))
        starts += _played(world, 6.0).starts
    _promise(starts <= STARTS_OF_40_WORLDS, f"10: {starts} starts")


STARTS_OF_40_WORLDS = 250


def no_input_waits_behind_a_long_one() -> None:
    """A batch whose first input takes long gives the others back, though messages overtake each other."""
    for seed in range(40):
        world = World(Scenario(seed, callers=1, service_s=0.001, service_spread=0.0, slots=1))
        (caller,) = world.callers.values()
        world.at(0.0, lambda c=caller: c.submit(list(range(40)), patient=True))
        world.at(3.0, lambda w=world: _make_slow(w))
        world.at(3.0, lambda c=caller: c.submit(list(range(40, 70)), patient=True))
        _played(world, 8.0)
        late = sum(not truth.settled for truth in world.truth.values())
        _promise(late <= 1, f"8: {late} inputs wait behind one that takes a minute")


def _make_slow(world: World) -> None:
    """The next input takes a minute, those after it a millisecond."""
    times = iter((60.0,))
    world.service_time = lambda: next(times, 0.001)  # type: ignore[method-assign]


def a_long_input_after_short_ones_holds_up_no_call() -> None:
    """The pool asks whoever has slots whether anything has ended, and starts another container then."""
    for seed in range(10):
        settings = AutoscalerSettings(min_containers=1, max_containers=2)
        world = World(Scenario(seed, callers=1, service_s=0.001, service_spread=0.0, settings=settings))
        (caller,) = world.callers.values()
        world.at(4.0, lambda c=caller: c.submit([0], patient=False))
        world.at(7.0, lambda w=world: _make_slow(w))
        world.at(7.1, lambda c=caller: c.submit([1], patient=False))
        world.at(8.0, lambda c=caller: c.submit([2], patient=False))
        _played(world, 14.0)
        waited_s = (world.truth[2].settled_at or world.now) - 8.0
        _promise(waited_s < 4.0, f"a call has waited {waited_s:.1f} s for a slot that ends nothing")


def whoever_is_paused_or_late_is_no_stall() -> None:
    """A caller, or the controller, that stands still for seconds with a short backlog starts nothing."""
    for seed in range(60):
        settings = AutoscalerSettings(min_containers=2)
        world = World(Scenario(seed, callers=1, service_s=0.01, service_spread=0.0, settings=settings))
        (caller,) = world.callers.values()
        for number in range(20):
            world.at(4.0 + number / 50, lambda c=caller, i=number: c.submit([i], patient=False))
        world.at(4.5, lambda c=caller: c.submit(list(range(100, 200)), patient=True))
        paused, until = (caller if seed % 2 else world), 5.0 + seed / 10
        world.at(4.6, lambda p=paused, until=until: setattr(p, "paused_until", until))
        _played(world, 20.0)
        _promise(world.starts == 2, f"{world.starts} containers for what two do in half a second")


def a_call_in_advance_beside_a_long_one_takes_a_few_hops() -> None:
    """A call that is admitted in advance and needs a slot more is told of at once."""
    settings = AutoscalerSettings(min_containers=3)
    world = World(Scenario(10, callers=1, service_s=5.0, service_spread=0.0, settings=settings))
    (caller,) = world.callers.values()
    world.at(4.0, lambda: caller.submit([0], patient=False))
    world.at(4.2, lambda: caller.submit([1], patient=False))
    world.at(4.24, lambda: setattr(world, "service_time", lambda: 0.001))
    world.at(4.25, lambda: caller.submit([2], patient=False))
    _played(world, 6.0)
    tally, over_at = caller.dispatch._tally, world.truth[2].settled_at or 99.0
    _promise(tally.decided > 3, "4: nothing was admitted in advance")
    _promise(over_at < 4.28, f"16: the call was over at {over_at}")


def an_advance_comes_back_when_others_need_the_room() -> None:
    """One caller may let 40 inputs in without asking; another asks for more than the whole limit."""
    for seed in range(5):
        settings, limits = AutoscalerSettings(min_containers=1, max_containers=1), Limits(pending=100)
        world = World(
            Scenario(seed, callers=2, service_s=9.0, service_spread=0.0, settings=settings, limits=limits)
        )
        first, second = world.callers.values()
        for number in range(4):
            world.at(4.0 + 0.1 * number, lambda c=first, i=number: c.submit([i], patient=False))
        world.at(5.0, lambda c=second: c.submit(list(range(4, 124)), patient=False))
        world.at(5.0, lambda c=first: c.submit(list(range(200, 220)), patient=False))
        _played(world, 4.9)
        tally = first.dispatch._tally
        _promise(tally.decided - tally.asked >= 20, f"4: {tally.decided - tally.asked} in advance")
        _played(world, 5.1)
        waiting = sum(caller.dispatch.waiting for caller in world.callers.values())
        _promise(waiting == 100, f"4: {waiting} wait where 100 may")
        _promise(tally.decided == tally.asked, f"4: {tally.decided - tally.asked} in advance are kept")


def a_call_on_a_warm_pool_takes_a_few_hops() -> None:
    """A single call that finds an idle container is over within a few messages."""
    settings = AutoscalerSettings(min_containers=1, max_containers=1)
    world = World(Scenario(5, callers=1, service_s=0.001, service_spread=0.0, settings=settings))
    (caller,) = world.callers.values()
    for number in range(12):
        world.at(4.0 + 1.7 * number, lambda i=number: caller.submit([i], patient=False))
    _played(world, 30.0)
    longest_s = max((t.settled_at or 99.0) - 4.0 - 1.7 * t.input_id for t in world.truth.values())
    _promise(longest_s < 0.03, f"16: a call took {longest_s:.3f} s")


def a_call_beside_a_long_one_takes_a_few_hops() -> None:
    """A call that needs a slot more asks at once, though a report is parked."""
    settings = AutoscalerSettings(min_containers=2)
    world = World(Scenario(10, callers=1, service_s=5.0, service_spread=0.0, settings=settings))
    (caller,) = world.callers.values()
    world.at(4.0, lambda: caller.submit([0], patient=False))
    world.at(4.1, lambda: setattr(world, "service_time", lambda: 0.001))
    world.at(4.2, lambda: caller.submit([1], patient=False))
    _played(world, 6.0)
    _promise(
        (world.truth[1].settled_at or 99.0) < 4.23, f"16: the call was over at {world.truth[1].settled_at}"
    )


def a_returned_lease_is_not_taken_again() -> None:
    """A reply that was on its way when the lease was given back still lists it."""
    dispatch, lease = _with_a_slot()
    dispatch.handle(Ticked(), 5.0)
    dispatch.handle(ReplyReceived(Reply(2, (lease,), decided=1, admitted=1, room=True), 2), 5.001)
    _promise(not dispatch._slots, "1: a lease that was given back is held again")


def an_old_reply_changes_nothing() -> None:
    """It was overtaken by a newer one, which lists the lease."""
    dispatch, lease = _with_a_slot()
    dispatch.handle(ReplyReceived(Reply(3, (lease,), decided=1, admitted=1, room=True), 3), 0.1)
    dispatch.handle(ReplyReceived(Reply(2, (), decided=1, admitted=1, room=True), 2), 0.2)
    _promise(lease.number in dispatch._slots, "1: an old reply took a lease away")


def a_free_slot_beside_an_open_ask_belongs_to_it() -> None:
    """Two slots are free and one ask is open: of two more calls one is sent and one asks."""
    dispatch, lease = _with_a_slot()
    leases = (lease, Lease(8, "f#2"))
    dispatch.handle(ReplyReceived(Reply(2, leases, decided=1, admitted=1, room=True), 2), 0.1)
    dispatch.handle(InputsSubmitted([1, 2]), 0.2)
    dispatch.handle(InputsSubmitted([3]), 0.3)
    for batch_id in (2, 3):
        dispatch.handle(BatchReturned(batch_id, bytes([OK]), [None], ran=1, busy_s=0.1), 0.4)
    effects = dispatch.handle(InputsSubmitted([4, 5]), 0.5)
    sent = sum(len(effect.input_ids) for effect in effects if isinstance(effect, SendBatch))
    _promise(sent == 1, f"4: {sent} of 2 calls were sent without asking")


def an_overtaken_reclaim_comes_again() -> None:
    """One input was sent ahead of a batch that is late, and the first try to have it back came to nothing."""
    dispatch, lease = _with_a_slot()
    dispatch.handle(InputsSubmitted([1]), 0.1)
    dispatch.handle(InputsSubmitted([2]), 0.1)
    dispatch.handle(ReplyReceived(Reply(2, (lease,), decided=2, admitted=2, room=True), 2), 0.1)
    leases = (lease, Lease(8, "f#2"))
    effects = dispatch.handle(ReplyReceived(Reply(3, leases, decided=2, admitted=2, room=True), 3), 0.4)
    effects += dispatch.handle(Ticked(), 1.6)
    tries = [effect.batch_id for effect in effects if isinstance(effect, ReclaimBatch)]
    _promise(tries.count(3) == 2, f"8: asked back were {tries}")


def only_deaths_alone_count_against_an_input() -> None:
    """Two inputs of a batch die with their container; each has three deaths of its own before it is lost."""
    dispatch, lease = _with_a_slot()
    dispatch.handle(InputsSubmitted([1]), 0.1)
    dispatch.handle(InputsSubmitted([2, 3]), 0.1)
    effects = dispatch.handle(ReplyReceived(Reply(2, (lease,), decided=3, admitted=3, room=True), 2), 0.1)
    dispatch.handle(BatchReturned(2, bytes([OK]), [None], ran=1, busy_s=0.001), 0.2)
    deaths = 0
    for number in range(2, 12):
        effects += dispatch.handle(ContainerLost(f"f#{number - 1}"), 0.1 * number)
        deaths += 1
        leases = (Lease(6 + number, f"f#{number}"),)
        reply = Reply(1 + number, leases, decided=3, admitted=3, room=True)
        effects += dispatch.handle(ReplyReceived(reply, number), 0.1 * number)
        lost = [effect.input_ids for effect in effects if isinstance(effect, Settle)]
        if lost:
            break
    _promise(deaths == 1 + 5, f"14: {lost} lost after {deaths} deaths")


def deaths_beside_others_do_not_count() -> None:
    """An input dies alone in its batch, but not on its container; then three times with one to itself."""
    dispatch = Dispatch("d", slots=2)
    dispatch.handle(InputsSubmitted([1]), 0.0)
    deaths, lost = 0, False
    for number in range(1, 10):
        lease = Lease(number, f"f#{number}", whole=deaths >= 2)
        reply = Reply(number, (lease,), decided=1, admitted=1, room=True)
        effects = dispatch.handle(ReplyReceived(reply, number), 0.1 * number)
        (sent,) = (effect for effect in effects if isinstance(effect, SendBatch))
        _promise(sent.lease.whole == (deaths >= 2), f"14: sent under {sent.lease} after {deaths} deaths")
        effects = dispatch.handle(ContainerLost(sent.lease.container_id), 0.1 * number + 0.05)
        deaths += 1
        lost = any(isinstance(effect, Settle) for effect in effects)
        if lost:
            break
    _promise(deaths == 2 + 3, f"14: lost after {deaths} deaths")


def an_input_that_needs_a_container_gets_one() -> None:
    """The only container is busy with the inputs of another caller: it is emptied, and granted as a whole."""
    pool = Pool(PoolConfig("f", epoch=1, slots=2, settings=AutoscalerSettings(max_containers=1)), 0.0)
    (reply,) = _replies(pool.handle(ReportReceived(Report("busy", number=1, seen=0, asked=2)), 0.0))
    waits = Report("busy", 2, reply.number, asked=2, decided=2, admitted=2, waiting=2)
    pool.handle(ReportReceived(waits), 0.1)
    pool.handle(ContainerPlaced("f#1"), 0.1)
    (reply,) = _replies(pool.handle(ContainerReady("f#1"), 0.2))
    has = replace(waits, number=3, seen=reply.number, held=reply.leases, waiting=0, assigned=2)
    pool.handle(ReportReceived(has), 0.3)
    needs = Report("d", number=1, seen=0, decided=1, asked=1, admitted=1, waiting=1, suspects=1)
    first, told = _replies(pool.handle(ReportReceived(needs), 0.4))
    pool.handle(ReportReceived(replace(needs, number=2, seen=first.number)), 0.4)
    _promise(not told.leases, f"14: {told.leases} are still to be used")
    gave = replace(has, number=4, seen=told.number, held=(), assigned=0)
    granted = _replies(pool.handle(ReportReceived(gave), 0.5))[0]
    _promise([lease.whole for lease in granted.leases] == [True], f"14: granted {granted.leases}")


def _replies(effects: list[PoolEffect]) -> list[Reply]:
    return [e.reply for e in effects if isinstance(e, AnswerReport) and e.reply is not None]


def a_lease_of_an_earlier_controller_without_room_is_taken_back() -> None:
    """The only slot of a container is granted anew before the one who holds it has reported."""
    pool = Pool(PoolConfig("f", epoch=2, found=("f#1",)), 0.0)
    pool.handle(ContainerReady("f#1"), 0.1)
    pool.handle(ReportReceived(Report("new", number=1, seen=0, asked=1)), 0.2)
    pool.handle(ReportReceived(Report("old", number=9, seen=0, held=(Lease(5, "f#1"),))), 0.3)
    ticks = [pool.handle(Ticked(), 0.5 + 0.25 * tick) for tick in range(12)]
    _promise(ReleaseLease("f#1", 5) in chain(*ticks), "9: the container was not asked to release it")


def slots_of_a_dead_container_are_not_busy() -> None:
    """A caller may say for a while that it uses a slot which died; nothing runs there."""
    pool = Pool(PoolConfig("f", epoch=1), 0.0)
    pool.handle(ReportReceived(Report("d", number=1, seen=0, asked=1)), 0.1)
    pool.handle(ContainerReady("f#1"), 1.0)
    held = tuple(Lease(number, "f#1") for number in pool.ledger.leases)
    busy = Report("d", number=2, seen=0, held=held, asked=1, decided=1, admitted=1, assigned=1)
    pool.handle(ReportReceived(busy), 1.1)
    _promise(pool.callers.assigned == 1, f"3: {pool.callers.assigned} slots are busy, one is")
    pool.handle(ContainerLost("f#1"), 1.2)
    _promise(pool.callers.assigned == 0, f"3: {pool.callers.assigned} slots of the dead are busy")


def a_container_counts_its_own_slots() -> None:
    """Whatever leases say, what does not fit goes back."""
    occupancy = Occupancy(slots=1)
    occupancy.arrive(("d", 1), 7, 1, 0.0, oldest_open=1, again=False, at_most_once=False)
    arrival, _ = occupancy.arrive(("e", 1), 8, 1, 0.0, oldest_open=1, again=False, at_most_once=False)
    _promise(arrival is Arrival.BOUNCES, "3: two batches run in one slot")


def an_at_most_once_batch_that_nobody_remembers_is_lost() -> None:
    """A caller that stood still for longer than answers are kept sends its batch again: it may have run."""
    occupancy = Occupancy(slots=1)
    _, work = occupancy.arrive(("d", 1), 7, 1, 0.0, oldest_open=1, again=False, at_most_once=True)
    work.settle(0, OK)
    occupancy.end(work, 1.0)
    occupancy.arrive(("e", 1), 8, 1, 2.0 + KEEP_ANSWER_S, oldest_open=1, again=False, at_most_once=True)
    later = 3.0 + KEEP_ANSWER_S
    _, again = occupancy.arrive(("d", 1), 7, 1, later, oldest_open=1, again=True, at_most_once=True)
    _promise(again.statuses == [LOST], f"7: its input is {again.statuses}")


def _with_a_slot() -> tuple[Dispatch, Lease]:
    """A dispatch that has run one input and holds its lease."""
    dispatch, lease = Dispatch("d"), Lease(7, "f#1")
    dispatch.handle(InputsSubmitted([0]), 0.0)
    dispatch.handle(ReplyReceived(Reply(1, (lease,), decided=1, admitted=1, room=True), 1), 0.0)
    dispatch.handle(BatchReturned(1, bytes([OK]), [None], ran=1, busy_s=0.01), 0.0)
    return dispatch, lease


def idle_slots_count_in_the_total() -> None:
    """One caller uses its idle slots while another asks for the whole limit: together they keep it."""
    settings = AutoscalerSettings(min_containers=2, max_containers=2)
    limits = Limits(total=4)
    world = World(
        Scenario(11, callers=2, service_s=1.0, service_spread=0.0, settings=settings, limits=limits)
    )
    holding, asking = world.callers.values()
    world.at(4.0, lambda: holding.submit([0, 1], patient=False))
    world.at(5.5, lambda: asking.submit([2, 3, 4, 5], patient=False))
    world.at(5.5001, lambda: holding.submit([6, 7], patient=False))
    _played(world, 5.51)
    total = sum(c.dispatch.waiting + c.dispatch.assigned for c in world.callers.values())
    _promise(holding.dispatch.assigned == 2, "the holder's slots were gone")
    _promise(total <= 4, f"5: {total} inputs in all, the limit is 4")


def a_cancelled_input_is_interrupted() -> None:
    """Also where the cancellation overtakes the batch."""
    for seed in range(10):
        settings = AutoscalerSettings(min_containers=1)
        world = World(Scenario(seed, callers=1, service_s=5.0, service_spread=0.0, settings=settings))
        (caller,) = world.callers.values()
        world.at(4.0, lambda c=caller: c.submit([0], patient=False))
        world.at(4.5, lambda c=caller: c.cancel([0]))
        world.at(4.6, lambda c=caller: c.submit([1], patient=False))
        world.at(4.6001, lambda c=caller: c.cancel([1]))
        _played(world, 12.0)


def a_restart_disturbs_nothing_that_runs() -> None:
    """A caller runs inputs, another waits: it keeps its lease, the other gets the slot when free."""
    settings = AutoscalerSettings(max_containers=1)
    for seed in range(4):
        faults = Faults(restart_controller=1.0)
        world = World(
            Scenario(seed, callers=2, service_s=4.5, service_spread=0.0, settings=settings, faults=faults)
        )
        running, waiting = world.callers.values()
        world.at(0.0, lambda c=running: c.submit([0], patient=False))
        world.at(2.4, lambda c=waiting: c.submit([1], patient=False))
        world.at(2.5, world.restart_controller)
        _played(world, 5.0)
        _promise(world.epoch == 2, "the controller did not restart")
        held = list(running.dispatch._slots)
        _promise(held == [(1 << 40) + 1], f"9: the caller whose input runs holds {held}")
        listed = running.dispatch.last_reply
        _promise(listed is not None and len(listed.leases) == 1, "9: its lease is not listed any more")
        _played(world, 20.0)
        _promise(world.bounces == 0, f"9: {world.bounces} batches bounced")
        _promise(all(t.settled == [OK] for t in world.truth.values()), "9: an input has not settled")


def a_restarted_controller_stops_nothing_that_is_held() -> None:
    """A caller holds an idle slot and stands still while the controller restarts and the window passes."""
    settings, faults = AutoscalerSettings(scaledown_window=2.0), Faults(restart_controller=1.0)
    world = World(Scenario(12, callers=2, service_s=0.01, settings=settings, faults=faults))
    caller = next(iter(world.callers.values()))
    world.at(0.0, lambda: caller.submit([0, 1], patient=False))
    world.at(3.0, lambda: caller.submit([2], patient=False))
    world.at(3.1, lambda: setattr(caller, "paused_until", 11.0))
    world.at(3.2, world.restart_controller)
    _played(world, 12.0)
    _promise(world.epoch == 2, "the controller did not restart")


def long_inputs_get_one_container_each_in_the_same_event() -> None:
    """The report that brings eight inputs starts eight containers before its handling ends."""
    world = World(Scenario(6, callers=1, cold_start_s=1.0))
    (caller,) = world.callers.values()
    started: list[float] = []
    obey = world.obey

    def watch(effect: object) -> None:
        if isinstance(effect, StartContainer):
            started.append(world.now)
        obey(effect)

    world.obey = watch  # type: ignore[method-assign]
    world.at(0.1, lambda: caller.submit(list(range(8)), patient=False))
    _played(world, 0.5)
    _promise(len(started) == 8 and len(set(started)) == 1, f"6: starts at {started}")
    _promise(started[0] - 0.1 < 0.01, f"6: the starts came {started[0] - 0.1:.3f} s after the inputs")


def starts_that_fail_are_spaced_out() -> None:
    """1, 2, 4, 8, 16, 30 s between starts that fail; after ten of them the inputs fail with the error."""
    settings = AutoscalerSettings(max_containers=1, scaledown_window=2.0)
    world = World(Scenario(7, callers=1, never_starts=True, cold_start_s=0.2, settings=settings))
    (caller,) = world.callers.values()
    started: list[float] = []
    obey = world.obey

    def watch(effect: object) -> None:
        if isinstance(effect, StartContainer):
            started.append(world.now)
        obey(effect)

    world.obey = watch  # type: ignore[method-assign]
    world.at(0.0, lambda: caller.submit([0], patient=False))
    _played(world, 300.0)
    gaps = [later - earlier for earlier, later in pairwise(started)]
    least = [1, 2, 4, 8, 16, 30, 30, 30, 30]
    _promise(len(started) == 10, f"{len(started)} starts")
    _promise(all(gap >= pause for gap, pause in zip(gaps, least, strict=True)), f"starts came after {gaps}")
    _promise(world.truth[0].settled == [5], f"settled as {world.truth[0].settled}")


def spawned_inputs_count_in_no_limit_but_their_own() -> None:
    """Far more spawned inputs than the limits wait; the calls of others are admitted beside them."""
    limits, settings = Limits(pending=5, total=10), AutoscalerSettings(max_containers=1)
    scenario = Scenario(11, limits=limits, settings=settings, service_s=1.0, service_spread=0.0, spawned=True)
    world = World(scenario)
    queue, calling = world.queue, world.callers["d1"]
    assert queue is not None
    world.at(0.0, lambda: queue.submit(list(range(100))))
    world.at(1.5, lambda: calling.submit(list(range(100, 105)), patient=False))
    _played(world, 3.0)
    refused = [truth.input_id for truth in world.truth.values() if REFUSED in truth.settled]
    _promise(not refused, f"4: {refused} were refused beside spawned inputs")


def the_newest_batch_speaks_for_an_input() -> None:
    """An input that came back from one batch and was sent in another waits for the other's answer."""
    recovery = Recovery()
    recovery.add(("d", 1), [1, 2])
    recovery.add(("d", 2), [2])
    outcomes, again = recovery.take(("d", 1), (1, 2), {}, bytes([OK, UNSTARTED]), ["one", None])
    _promise((outcomes, again) == ([(1, OK, "one")], []), f"7: {outcomes}, {again} after the older batch")
    outcomes, again = recovery.take(("d", 2), (2,), {}, bytes([OK]), ["two"])
    _promise((outcomes, again, len(recovery)) == ([(2, OK, "two")], [], 0), f"7: {outcomes}, {again} at last")


def the_pool_is_scaled_for_what_is_only_stored() -> None:
    """A hundred spawned inputs of a second each, of which eight are in memory: more containers start."""
    scenario = Scenario(12, callers=1, service_s=1.0, service_spread=0.0, spawned=True, cluster_containers=50)
    world = World(scenario)
    queue = world.queue
    assert queue is not None
    world.at(0.0, lambda: queue.submit(list(range(100))))
    _played(world, 3.0)
    _promise(world.live > 12, f"6: {world.live} containers for 100 inputs of a second")


def a_container_that_nobody_asks_after_ends_itself() -> None:
    """The controller is gone for good: idle containers end, and a busy one does when its input is over."""
    settings = AutoscalerSettings(min_containers=2)
    world = World(Scenario(13, callers=1, service_s=200.0, service_spread=0.0, settings=settings))
    (caller,) = world.callers.values()
    world.at(5.0, lambda: caller.submit([0], patient=False))
    world.at(6.0, lambda: setattr(world, "pool", None))
    _played(world, 6.0 + 3 * HELLO_S)
    _promise(world.live == 1, f"12: {world.live} containers are left, and one is busy")
    _played(world, 210.0 + 3 * HELLO_S)
    _promise(world.truth[0].settled == [OK], f"12: settled as {world.truth[0].settled}")
    _promise(not world.live, f"12: {world.live} containers are left that nobody knows")


def a_warm_container_stays_for_it_is_known() -> None:
    """Nothing runs for ten minutes, in which the controller restarts: the warm container is the same."""
    world = World(Scenario(14, callers=1, settings=AutoscalerSettings(min_containers=1)))
    world.at(4.5 * HELLO_S, world.restart_controller)
    _played(world, 10 * HELLO_S)
    _promise((world.starts, world.live) == (1, 1), f"12: {world.starts} starts, {world.live} containers left")


def a_stuck_start_is_replaced_within_the_maximum() -> None:
    """Starts that hang count under max_containers: one is withdrawn before another takes its place."""
    settings = AutoscalerSettings(max_containers=2, scaledown_window=2.0)
    scenario = Scenario(15, callers=1, service_s=1.0, cold_start_s=0.5, settings=settings, stuck={2, 3})
    world = World(scenario)
    (caller,) = world.callers.values()
    world.at(0.0, lambda: caller.submit([0], patient=False))
    world.at(10.0, lambda: caller.submit([1, 2], patient=False))
    _played(world, 25.0)
    settled = [status for truth in world.truth.values() for status in truth.settled]
    _promise(settled == [OK] * 3, f"15: settled as {settled} behind two stuck starts")


def _deployed_again(*, recreate: bool, settings: AutoscalerSettings, cluster: int = 16) -> World:
    """A world under a steady load, with another version from 6 s on."""
    world = World(
        Scenario(
            7,
            callers=2,
            service_s=0.2,
            service_spread=0.0,
            settings=settings,
            cold_start_s=0.8,
            cluster_containers=cluster,
            redeploys=((6.0, 1, recreate),),  # Played below; here it says that this world is not steady.
        )
    )
    callers = list(world.callers.values())
    for number in range(1200):
        caller = callers[number % 2]
        world.at(number * 0.01, lambda c=caller, n=number: c.submit([n], patient=False))
    world.at(6.0, lambda: world.redeploy(1, recreate=recreate))
    return world


def a_rolling_deploy_keeps_its_capacity() -> None:
    """While the old containers are replaced, there are never fewer than worked when the new version came."""
    world = _deployed_again(recreate=False, settings=AutoscalerSettings(min_containers=24), cluster=64)
    _played(world, 5.9)
    assert world.pool is not None
    fewest = before = world.pool.ledger.ready
    checks = Checks(world)
    while world.now < 12.0 and world.step():
        checks.check_event()
        fewest = min(fewest, world.pool.ledger.ready)
    _promise(before == 24, f"18: {before} containers before the deploy")
    _promise(fewest >= before, f"18: {fewest} of {before} containers in the middle of a rolling deploy")
    old = [c.container_id for c in world.containers.values() if c.alive and c.version == 1]
    _promise(not old, f"18: {old} run the old version 6 s after the deploy")
    took = [
        (truth.settled_at or world.now) - truth.input_id / 100
        for truth in world.truth.values()
        if truth.input_id > 500
    ]
    _promise(max(took) < 0.5, f"18: an input of 0.2 s took {max(took):.2f} s in the middle of a deploy")


def _ready_pool(count: int) -> Pool:
    """So many containers that are ready, and that the minimum keeps."""
    pool = Pool(PoolConfig("f", 1, AutoscalerSettings(min_containers=count)), 0.0)
    pool.handle(Ticked(), 0.0)
    for number in range(1, count + 1):
        pool.handle(ContainerReady(f"f#{number}"), 0.1)
    return pool


def _started(effects: Iterable[PoolEffect]) -> list[str]:
    return [effect.container_id for effect in effects if isinstance(effect, StartContainer)]


def a_rolling_deploy_replaces_a_quarter_at_a_time() -> None:
    """Of eight containers two start at the same time, and all have been replaced after eight starts."""
    pool = _ready_pool(8)
    starting = _started(pool.handle(Redeployed(2, AutoscalerSettings(min_containers=8), Limits()), 0.2))
    ready = 0
    while starting:
        _promise(len(starting) <= 2, f"18: {len(starting)} of 8 are replaced at the same time")
        now = 1.0 + ready
        effects = pool.handle(ContainerReady(starting.pop(0)), now)
        effects += pool.handle(Ticked(), now + 0.5)
        ready += 1
        starting += _started(effects)
    _promise(ready == 8 and not pool.ledger.serving_outdated, f"18: {ready} of 8 are replaced")


def a_deploy_holds_up_no_growth() -> None:
    """Beside what replaces the old containers, whatever is asked for starts at once."""
    pool = _ready_pool(4)
    pool.handle(Redeployed(2, AutoscalerSettings(min_containers=4), Limits()), 0.2)
    started = _started(pool.handle(SettingsChanged(AutoscalerSettings(min_containers=10)), 0.3))
    _promise(len(started) == 6, f"18: {len(started)} of 6 containers more start in the middle of a deploy")


def a_recreated_pool_begins_nothing_on_old_containers() -> None:
    """With "recreate", an old container begins nothing but what had been sent to it."""
    world = _deployed_again(recreate=True, settings=AutoscalerSettings(min_containers=24), cluster=64)
    _played(world, 6.5)
    begun = {c.container_id: c.begun for c in world.containers.values() if c.version == 1}
    _played(world, 12.0)
    late = [i for i, count in begun.items() if world.containers[i].begun > count]
    _promise(not late, f"18: {late} of the old version begin inputs half a second after the new one came")
    _promise(not any(c.alive for c in world.containers.values() if c.version == 1), "18: old ones live on")


def a_full_cluster_makes_room_for_the_new_version() -> None:
    """Where Ray has no room for more containers, old ones make way one by one."""
    world = _deployed_again(recreate=False, settings=AutoscalerSettings(min_containers=3), cluster=3)
    _played(world, 40.0)
    old = [c.container_id for c in world.containers.values() if c.alive and c.version == 1]
    _promise(not old, f"18: {old} still run the old version")


def new_inputs_go_to_the_new_version() -> None:
    """A free container of the new version is used before a free one of the old."""
    pool = Pool(PoolConfig("f", 1, AutoscalerSettings(min_containers=2)), 0.0)
    pool.handle(Ticked(), 0.0)
    for name in ("f#1", "f#2"):
        pool.handle(ContainerReady(name), 0.1)
    deployed = Redeployed(2, AutoscalerSettings(min_containers=2), Limits())
    started = [e.container_id for e in pool.handle(deployed, 0.2) if isinstance(e, StartContainer)]
    _promise(len(started) == 1, f"18: {started} are started at once to replace two")
    pool.handle(ContainerReady(started[0]), 0.3)
    effects = pool.handle(ReportReceived(Report("d", 1, 0, asked=1, arrived=1)), 0.4)
    (reply,) = _replies(effects)
    used = [lease.container_id for lease in reply.leases]
    _promise(used == [started[0]], f"18: an input goes to {used}")


PROMISES: dict[str, Callable[[], None]] = {
    promise.__name__: promise
    for promise in (
        admission_is_exact,
        a_map_waits_quietly_for_room,
        a_map_leaves_room_for_calls,
        callers_share_a_container_evenly,
        an_unused_slot_goes_to_who_waits,
        a_dead_callers_slots_come_back,
        a_dead_callers_input_keeps_its_slot,
        a_dead_callers_leases_come_back_while_others_are_awaited,
        a_lost_verdict_comes_again,
        one_input_starts_one_container,
        no_input_waits_behind_a_long_one,
        a_long_input_after_short_ones_holds_up_no_call,
        whoever_is_paused_or_late_is_no_stall,
        a_call_on_a_warm_pool_takes_a_few_hops,
        a_call_beside_a_long_one_takes_a_few_hops,
        a_call_in_advance_beside_a_long_one_takes_a_few_hops,
        an_advance_comes_back_when_others_need_the_room,
        a_returned_lease_is_not_taken_again,
        an_old_reply_changes_nothing,
        a_free_slot_beside_an_open_ask_belongs_to_it,
        an_overtaken_reclaim_comes_again,
        only_deaths_alone_count_against_an_input,
        deaths_beside_others_do_not_count,
        an_input_that_needs_a_container_gets_one,
        a_lease_of_an_earlier_controller_without_room_is_taken_back,
        slots_of_a_dead_container_are_not_busy,
        a_container_counts_its_own_slots,
        an_at_most_once_batch_that_nobody_remembers_is_lost,
        idle_slots_count_in_the_total,
        a_cancelled_input_is_interrupted,
        a_restart_disturbs_nothing_that_runs,
        a_restarted_controller_stops_nothing_that_is_held,
        long_inputs_get_one_container_each_in_the_same_event,
        starts_that_fail_are_spaced_out,
        spawned_inputs_count_in_no_limit_but_their_own,
        the_newest_batch_speaks_for_an_input,
        the_pool_is_scaled_for_what_is_only_stored,
        a_container_that_nobody_asks_after_ends_itself,
        a_warm_container_stays_for_it_is_known,
        a_stuck_start_is_replaced_within_the_maximum,
        a_rolling_deploy_keeps_its_capacity,
        a_rolling_deploy_replaces_a_quarter_at_a_time,
        a_deploy_holds_up_no_growth,
        a_recreated_pool_begins_nothing_on_old_containers,
        a_full_cluster_makes_room_for_the_new_version,
        new_inputs_go_to_the_new_version,
        *THRIFT,
    )
}
