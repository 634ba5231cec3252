"""One pool at the controller: who may use which container, how many containers there are.

One rule: every event is taken in whole, then slots are shared, containers started or stopped, and parked
reports answered, in that order and in the same event (protocol rule 4). An input that needs a container has
one decided upon before its report's handling ends.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from flexray.config import AutoscalerSettings, Limits
from flexray.core.admission import admissible, advance, has_room
from flexray.core.callers import Caller, Callers
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
    PoolEffect,
    PoolEvent,
    Redeployed,
    ReleaseLease,
    Reply,
    Report,
    ReportReceived,
    SettingsChanged,
    StartFailed,
    Ticked,
    TickExpected,
)
from flexray.core.ledger import Container, LeaseOut, Ledger, State
from flexray.core.prewarm import NextTick
from flexray.core.scaling import Scaling
from flexray.core.status import PoolView

EPOCH = 1 << 40
"""Lease and reply numbers are epoch * EPOCH + count, so that they rise over controller restarts."""
TICK_S = 0.250
ANSWER_AFTER_S = 10.0
"""A parked report is answered after this long, whatever has changed."""
UNLIST_PATIENCE_S = 1.0
"""A revoked lease that no report has seen gone by then is released at the container (rule 2)."""
RELEASE_REPEAT_S = 2.0
SILENT_S = 5.0
"""Time without a parked report after which a dispatcher is cut off, while the controller was awake."""
DOUBTED_S = 1.25
"""The same, after which Ray is asked whether the dispatcher lives."""
RECOVERY_S = 15.0
MAKE_ROOM_S = 2.0
"""Ray has had no room so long for a container of a new version: one of the old version makes way."""
FORGET_S = 60.0
"""An empty dispatcher's numbers are kept this long, so that a late report is known to be late."""
SHARE_EVERY_S = 0.020
"""How often holders are asked for slots, at most..."""
SHARE_PAUSE_S = 0.0002
"""...and this long for each caller, all of which are looked at: few may ask each other at any time."""
SHARING_TICK_S = 0.050

ContainerEvent = (
    ContainerPlaced | ContainerReady | ContainerLost | StartFailed | ContainerRetired | NodeLeaving
)


@dataclass(frozen=True, slots=True)
class PoolConfig:
    """What a pool is born with."""

    name: str
    """Containers are called `name#1`, `name#2`, ..."""
    epoch: int
    settings: AutoscalerSettings = field(default_factory=AutoscalerSettings)
    limits: Limits = field(default_factory=Limits)
    slots: int = 1
    target_slots: int | None = None
    """Slots per container that the pool is sized for; None: all."""
    single_use: bool = False
    """A container serves one lease, which is one input."""
    startup_timeout_s: float = 300.0
    version: int = 1
    """Of the function."""
    first_container: int = 1
    """Number of the first container, above all that were ever used: callers remember dead ones by name."""
    outdated_below: int = 0
    """Found containers with lower numbers run an earlier version."""
    found: tuple[str, ...] = ()
    """After a restart: the containers that Ray lists, none of which has answered yet."""
    learned: Learned = field(default_factory=Learned)
    """Of this version of the function, before a restart."""
    expected_dispatchers: tuple[str, ...] = ()
    """After a restart: those in the store. Until each has seen a reply of this controller or is dead, nothing
    new is admitted and nothing is stopped."""


class Pool:
    """The state machine of one pool. `handle(event, now)` returns effects; `now` is monotonic seconds."""

    def __init__(self, config: PoolConfig, now: float) -> None:
        self.config = config
        self.ledger = Ledger(config.slots, config.target_slots)
        self.callers = Callers(config.slots)
        self.next_container = config.first_container
        """Number of the container that is started next."""
        self.scaling = Scaling(
            self.ledger,
            self.callers,
            config.settings,
            config.startup_timeout_s,
            self._name_container,
            single_use=config.single_use,
        )
        self.scaling.lessons.recall(config.learned)
        self._next_lease = config.epoch * EPOCH
        self._next_reply = config.epoch * EPOCH
        self._asked_from: int | None = None
        """Number of the first reply that asked whether anything has ended, where none of them is answered."""
        self.notice: str | None = None
        """Why inputs wait, where time alone does not help."""
        self._expected = dict.fromkeys(config.expected_dispatchers)
        self._recovers_until = now + RECOVERY_S
        self._changed: dict[str, None] = {}
        """Dispatchers whose answer may have changed in this event."""
        self._shared_at = float("-inf")
        self._ticked_at = now
        self._had_room = True
        self.refused = 0
        """Inputs that found no room, since the controller began."""
        self.arrived = 0
        self.wait_s = 0.0
        """What all inputs together have waited: by Little's law, their number times the mean wait of one."""
        self._waited_at = now
        self._short: dict[str, None] = {}
        """Dispatchers with calls that find no room beside what others were given in advance."""
        self._effects: list[PoolEffect] = []
        for container_id in config.found:
            self._adopt(container_id, now)

    @property
    def recovering(self) -> bool:
        return bool(self._expected)

    @property
    def is_sharing(self) -> bool:
        """Somebody waits for a slot that another holds: tick every SHARING_TICK_S."""
        return self.callers.any_wanting and len(self.callers) > 1 and bool(self.ledger.leases)

    @property
    def is_bounded(self) -> bool:
        """Inputs wait, every container is ready, and the maximum allows no more."""
        maximum = self.scaling.settings.max_containers
        return bool(self.callers.demand) and maximum is not None and self.ledger.ready >= maximum > 0

    def handle(self, event: PoolEvent, now: float) -> list[PoolEffect]:
        """Take in one event; return the effects, in the order in which to perform them."""
        self.wait_s += self.callers.backlog * (now - self._waited_at)
        self._waited_at = now
        match event:
            case ReportReceived(report):
                self._take_report(report, now)
            case Ticked():
                self._tick(now)
            case (
                ContainerPlaced()
                | ContainerReady()
                | ContainerLost()
                | StartFailed()
                | ContainerRetired()
                | NodeLeaving()
            ):
                if (container := self.ledger.containers.get(event.container_id)) is not None:
                    self._take_word_of(container, event, now)
            case LeaseReleased(_, lease_number):
                if (lease := self.ledger.leases.get(lease_number)) is not None:
                    self._take_released(lease, now)
            case DispatcherLost(dispatcher_id):
                self._lose_dispatcher(dispatcher_id, now)
            case SettingsChanged(settings):
                self.scaling.settings = settings
            case Redeployed():
                self._redeploy(event, now)
            case TickExpected(in_s, inputs):
                self.scaling.lessons.next_tick = None if in_s is None else NextTick(now + in_s, inputs)
            case GiveUp(count):
                if not self.recovering:
                    self._effects += self.scaling.give_up(count, now)
            case NoticeChanged(notice):
                self.notice = notice
                self._changed.update((i, None) for i, _ in self.callers)
        if self.ledger.outdated or self.scaling.replacing:
            self._replace(now)
        self._share(now)
        ticked = isinstance(event, Ticked | SettingsChanged | Redeployed | NodeLeaving)
        self._effects += self.scaling.run(now, ticked=ticked, may_shrink=not self.recovering)
        self._stop_drained(now)
        if ticked and self.scaling.lessons.wants_report:
            self._ask_whether_anything_ended()
        self._answer(now)
        effects, self._effects = self._effects, []
        return effects

    # Reports.

    def _take_report(self, report: Report, now: float) -> None:
        dispatcher_id = report.dispatcher_id
        caller = self.callers.get(dispatcher_id) or self.callers.add(report, now)
        if report.number <= caller.report.number:
            self._effects.append(AnswerReport(dispatcher_id, report.number, None))
            return
        if caller.parked_at is not None:
            self._effects.append(AnswerReport(dispatcher_id, caller.report.number, None))
        if report.seen >= self.config.epoch * EPOCH:
            # From now on it ignores what an earlier controller may still have on its way to it.
            self._expected.pop(dispatcher_id, None)
        arrived = max(0, report.arrived - caller.report.arrived)
        asks = report.asked > caller.report.asked
        caller.decided = max(caller.decided, report.decided)
        caller.admitted = max(caller.admitted, report.admitted)
        self.arrived += arrived
        self.scaling.lessons.arrivals.add(arrived, now)
        if report.service.count:
            service = report.service
            self.scaling.lessons.ended(service.count, service.total_s, service.sample_s)
        elif report.assigned and self._asked_from is not None and report.seen >= self._asked_from:
            self._asked_from = None
            self.scaling.lessons.nothing_ended()
        caller.report = report
        caller.parked_at, caller.silent_s, caller.cut_off = now, 0.0, False
        caller.empty_since = now if report.is_empty else None
        if caller.failure_in is not None and report.seen >= caller.failure_in:
            caller.failure = caller.failure_in = None
        self._take_held(caller, report, now)
        self._admit(dispatcher_id, caller)
        for short_id in list(self._short):
            if (short := self.callers.get(short_id)) is not None:
                self._admit(short_id, short)
        if asks:
            self._advance(dispatcher_id, caller)
        self.scaling.lessons.occupancy.observe(self.callers.assigned, now, arrived)
        self._changed[dispatcher_id] = None

    def _take_held(self, caller: Caller, report: Report, now: float) -> None:
        """A lease that the report must have seen and does not hold is free (rule 1)."""
        if report.held == caller.listing and not (caller.unseen_leases or caller.revoked):
            return  # Exactly what it was told: so it is for most reports.
        held = {lease.number for lease in report.held}
        idle_s = dict(report.returned)
        for leases in (caller.leases, caller.revoked):
            for lease in list(leases.values()):
                shown = lease.listed_at is not None and lease.listed_at <= report.seen
                if shown and lease.number not in held:
                    self._free(lease, now, idle_s.get(lease.number, 0.0))
        for held_lease in report.held:
            if held_lease.number < self.config.epoch * EPOCH:
                self._claim(caller, report, held_lease, now)
        caller.unseen_leases = sum(caller.has_not_seen(lease) for lease in caller.leases.values())
        if not caller.leases and held:
            caller.without_since = now

    def _claim(self, caller: Caller, report: Report, held: Lease, now: float) -> None:
        """List a lease of an earlier epoch again; take it back where its container has no room (rule 9)."""
        lease = self.ledger.leases.get(held.number)
        if lease is None:
            container = self.ledger.containers.get(held.container_id)
            if container is None or not container.found or container.state is State.STOPPING:
                return
            has_room = len(container.leases) < container.slots
            lease = self.ledger.grant(held.number, container, None, now)
        else:
            has_room = True
        if held.whole:
            lease.whole = True
            if lease.container.state is State.READY and not lease.container.draining:
                self.ledger.reserve(lease.container)
        if lease.holder is None:
            self.ledger.claim(lease, report.dispatcher_id)
            caller.leases[lease.number] = lease
            caller.listing = None
            if not has_room:
                self._revoke(lease, now)

    def _admit(self, dispatcher_id: str, caller: Caller) -> None:
        self.callers.recount(dispatcher_id, caller)
        self._short.pop(dispatcher_id, None)
        open_asks = caller.report.asked - caller.decided
        if open_asks <= 0 or self.recovering:
            return
        patient = min(caller.report.patient, open_asks)
        calls = open_asks - patient
        admitted = admissible(calls, patient, self.callers.used, self.config.limits)
        if admitted < calls and any(other.advance and not other.cut_off for _, other in self.callers):
            self._short[dispatcher_id] = None  # They are asked for what they have not used up.
            open_asks = admitted
        caller.admitted += admitted
        caller.decided += open_asks
        self.refused += open_asks - admitted
        self.callers.recount(dispatcher_id, caller)
        self._changed[dispatcher_id] = None

    def _advance(self, dispatcher_id: str, caller: Caller) -> None:
        """Admit inputs that will come, where there is plenty of room: a busy caller need not ask for each."""
        report = caller.report
        uses = report.held or report.waiting or report.assigned
        if self._short or self.recovering or not uses or report.asked > caller.decided:
            return
        more = advance(self.callers.used, caller.advance, self.config.limits) - caller.advance
        if more >= caller.advance:
            caller.decided += more
            caller.admitted += more
            self.callers.recount(dispatcher_id, caller)

    # Leases.

    def _share(self, now: float) -> None:
        """Give free slots to the neediest; where none is free, ask holders to give some back."""
        if self.callers.suspects or self.ledger.reserved:
            self._reserve(now)
        while (container := self.ledger.fullest_with_room()) is not None:
            needy = self.callers.neediest()
            if needy is None:
                break
            self._grant(container, *needy, now)
        if not self.callers.any_wanting:
            self._changed.update(dict.fromkeys(self.callers.end_sharing()))
        elif now - self._shared_at >= min(SHARE_EVERY_S, SHARE_PAUSE_S * len(self.callers)):
            self._shared_at = now
            self._changed.update(dict.fromkeys(self.callers.share(now)))

    def _grant(
        self, container: Container, dispatcher_id: str, caller: Caller, now: float, *, whole: bool = False
    ) -> None:
        self._next_lease += 1
        lease = self.ledger.grant(self._next_lease, container, dispatcher_id, now, whole=whole)
        self.callers.take_grant(dispatcher_id, caller, lease, now)
        self._changed[dispatcher_id] = None

    def _reserve(self, now: float) -> None:
        """Give whole containers to inputs that were lost on shared ones; empty some where none is idle.

        Of all containers half at most, so that the others' inputs go on (rule 14).
        """
        emptying = 0
        for container in list(self.ledger.reserved.values()):
            if container.leases:
                emptying += not any(lease.whole for lease in container.leases.values())
            elif (needy := self.callers.suspecting()) is not None:
                self._grant(container, *needy, now, whole=True)
            else:
                self.ledger.unreserve(container)
        most = (self.ledger.ready + 1) // 2
        while self.callers.suspects > emptying and len(self.ledger.reserved) < most:
            emptiest, needy = self.ledger.emptiest(), self.callers.suspecting()
            if emptiest is None or needy is None:
                break
            self.ledger.reserve(emptiest)
            for lease in list(emptiest.leases.values()):
                self._revoke(lease, now)
            if emptiest.leases:
                emptying += 1
            else:
                self._grant(emptiest, *needy, now, whole=True)

    def _free(self, lease: LeaseOut, now: float, idle_s: float = 0.0) -> None:
        self.ledger.free(lease, now - idle_s)
        if self.config.single_use and lease.listed_at is not None:
            self._retire(lease.container)
        caller = None if lease.holder is None else self.callers.get(lease.holder)
        if caller is None or lease.holder is None:
            return
        caller.leases.pop(lease.number, None)
        caller.listing = None
        caller.revoked.pop(lease.number, None)
        if not caller.leases:
            caller.without_since = now
        self._changed[lease.holder] = None
        self.callers.recount(lease.holder, caller)

    def _revoke(self, lease: LeaseOut, now: float) -> None:
        """Stop listing it; free at once where no reply has listed it (rule 2)."""
        if lease.revoked_at is not None:
            return
        lease.revoked_at = now
        lease.release_at = now + UNLIST_PATIENCE_S
        caller = None if lease.holder is None else self.callers.get(lease.holder)
        if caller is None or lease.holder is None:
            return
        caller.leases.pop(lease.number, None)
        caller.listing = None
        caller.revoked[lease.number] = lease
        caller.unseen_leases -= caller.has_not_seen(lease)
        self._changed[lease.holder] = None
        if lease.listed_at is None:
            self._free(lease, now)
        self.callers.recount(lease.holder, caller)

    def _release_overdue(self, now: float) -> None:
        revoked = [lease for _, caller in self.callers for lease in caller.revoked.values()]
        for lease in revoked + list(self.ledger.orphans.values()):
            if lease.release_at is not None and now >= lease.release_at:
                self._release(lease, now)

    def _release(self, lease: LeaseOut, now: float) -> None:
        """Ask the container to drop the lease, again and again until it has answered."""
        lease.release_at = now + RELEASE_REPEAT_S
        self._effects.append(ReleaseLease(lease.container.container_id, lease.number))

    def _take_released(self, lease: LeaseOut, now: float) -> None:
        """The container dropped the lease; where it is to stop, its last answer must have arrived first."""
        holder = None if lease.holder is None else self.callers.get(lease.holder)
        if lease.container.draining and holder is not None and not holder.cut_off:
            lease.release_at = None  # Its holder says so by not holding it any more.
        else:
            self._free(lease, now)

    # Containers.

    def _name_container(self) -> str:
        number = self.next_container
        self.next_container += 1
        return f"{self.config.name}#{number}"

    def _adopt(self, container_id: str, now: float) -> None:
        container = self.ledger.add(container_id, State.LAUNCHED, now, found=True)
        number = int(container_id.rpartition("#")[2])
        self.next_container = max(self.next_container, number + 1)
        if number < self.config.outdated_below:
            self.ledger.outdate(container)

    def _retire(self, container: Container) -> None:
        """It takes nothing new and is stopped when its last lease is back."""
        if container.state is State.READY and not container.draining:
            self.ledger.drain(container)

    def _redeploy(self, event: Redeployed, now: float) -> None:
        """What starts is of the old version and is stopped; what is ready serves until it is replaced."""
        ledger, scaling, old = self.ledger, self.scaling, self.config
        if event.version <= old.version:
            return  # Told again.
        wanted = self._wanted(event.settings)
        at_once = event.recreate or event.single_use or old.single_use
        scaling.replacing = 0 if at_once else min(ledger.ready, wanted)
        for container in list(ledger.containers.values()):
            ledger.outdate(container)
        ledger.resize(event.slots, event.target_slots)
        self.callers.slots = event.slots
        scaling.redeployed(event)
        self.config = replace(
            old,
            version=event.version,
            limits=event.limits,
            slots=event.slots,
            target_slots=event.target_slots,
            single_use=event.single_use,
            startup_timeout_s=event.startup_timeout_s,
        )
        for dispatcher_id, caller in self.callers:
            self.callers.recount(dispatcher_id, caller)
            self._changed[dispatcher_id] = None

    def _leave_node(self, container: Container) -> None:
        """Like one of an earlier version: it serves until it is replaced, if it is needed at all."""
        if container.leaves_node or container.draining or container.state is State.STOPPING:
            return
        container.leaves_node = True
        if container.outdated:
            return  # It is being replaced already, and now without a wait.
        was_ready = container.state is State.READY
        self.ledger.outdate(container)
        if was_ready:
            self.scaling.replacing = min(self.scaling.replacing + 1, self._wanted(self.scaling.settings))

    def _wanted(self, settings: AutoscalerSettings) -> int:
        """Ready containers that are in use, with the buffer beyond them; the minimum at least."""
        busy = sum(bool(container.leases) for container in self.ledger.by_state[State.READY].values())
        return max(busy + settings.buffer_containers, settings.min_containers)

    def _replace(self, now: float) -> None:
        """Stop what starts in vain; empty what need not wait for a new container, or makes way for one."""
        ledger, scaling = self.ledger, self.scaling
        for container in list(ledger.outdated.values()):
            if container.is_starting and container.may_be_stopped(now):
                self._effects.append(scaling.stop(container))
        serving = ledger.serving_outdated
        scaling.replacing = min(scaling.replacing, len(serving))
        if scaling.settings.max_containers is not None:
            room = scaling.settings.max_containers - (ledger.ready - len(serving))
            scaling.replacing = max(0, min(scaling.replacing, room))
        surplus = len(serving) - scaling.replacing
        launched = ledger.by_state[State.LAUNCHED]
        oldest = next(iter(launched.values()), None)
        if oldest is not None and now - oldest.launched_at > MAKE_ROOM_S:
            leaving = len(ledger.outdated) - len(serving)
            surplus = max(surplus, min(scaling.replacing, len(launched)) - leaving)
        for container in serving[: max(0, surplus)]:
            ledger.drain(container)

    def _take_word_of(self, container: Container, event: ContainerEvent, now: float) -> None:
        match event:
            case ContainerPlaced():
                self.scaling.placed(container)
                self.ledger.set_node(container, event.node)
            case NodeLeaving():
                self._leave_node(container)
            case ContainerReady():
                self._take_ready(container, event, now)
            case ContainerLost(_, cause):
                self._lose_container(container, cause, now)
            case StartFailed():
                self._take_failed_start(container, event, now)
            case ContainerRetired():
                self._retire(container)
                if container.is_starting and container.may_be_stopped(now):
                    self._effects.append(self.scaling.stop(container))

    def _take_ready(self, container: Container, event: ContainerReady, now: float) -> None:
        if not container.is_starting:
            return
        container.slots = event.slots or container.slots
        for number in event.busy:
            if number not in self.ledger.leases:
                self.ledger.grant(number, container, None, now)
        self.scaling.became_ready(container, now)
        if container.outdated:
            self.scaling.replacing += 1
        else:
            self.scaling.replacing = max(0, self.scaling.replacing - 1)
        if any(lease.whole for lease in container.leases.values()):
            self.ledger.reserve(container)

    def _take_failed_start(self, container: Container, event: StartFailed, now: float) -> None:
        if not container.is_starting:
            return
        self.ledger.set_state(container, State.STOPPING)
        self.scaling.start_failed(container, event.failure, now, permanent=event.permanent)

    def _lose_container(self, container: Container, cause: str, now: float) -> None:
        if container.is_starting and not container.found:
            self.scaling.start_failed(container, f"it died while it was starting: {cause}", now)
        for lease in self.ledger.remove(container):
            caller = None if lease.holder is None else self.callers.get(lease.holder)
            if caller is not None and lease.holder is not None:
                caller.listing = None
                if caller.leases.pop(lease.number, None) is not None:
                    caller.unseen_leases -= caller.has_not_seen(lease)
                caller.revoked.pop(lease.number, None)
                self._changed[lease.holder] = None
                self.callers.recount(lease.holder, caller)

    def _stop_drained(self, now: float) -> None:
        for container in list(self.ledger.draining.values()):
            if container.found and self.recovering:
                continue  # Whoever has not reported yet may hold a lease there.
            for lease in list(container.leases.values()):
                self._revoke(lease, now)
            if not container.leases:
                self._effects.append(self.scaling.stop(container))

    # Dispatchers.

    def _lose_dispatcher(self, dispatcher_id: str, now: float) -> None:
        self._expected.pop(dispatcher_id, None)
        self._short.pop(dispatcher_id, None)
        caller = self.callers.remove(dispatcher_id)
        if caller is None:
            return
        for lease in [*caller.leases.values(), *caller.revoked.values()]:
            if lease.listed_at is None:
                self.ledger.free(lease, now)
            else:
                self.ledger.orphan(lease)
                self._release(lease, now)

    def _tick(self, now: float) -> None:
        if self._expected and now >= self._recovers_until:
            self._expected.clear()
        if not self.recovering:
            for lease in self.ledger.orphans.values():
                if lease.release_at is None:
                    lease.release_at = now
        passed_s, self._ticked_at = min(now - self._ticked_at, TICK_S), now
        for dispatcher_id, caller in list(self.callers):
            self._tick_caller(dispatcher_id, caller, now, passed_s)
        self._release_overdue(now)
        self._show_containers()

    def _show_containers(self) -> None:
        """Tell whoever waits of containers that came or went, four times a second at most."""
        view = self.view()
        for dispatcher_id, caller in self.callers:
            if caller.need and caller.newest is not None:
                told = caller.newest.view
                caller.shown = (told.ready, told.starting) == (view.ready, view.starting)
                if not caller.shown:
                    self._changed[dispatcher_id] = None

    def _tick_caller(self, dispatcher_id: str, caller: Caller, now: float, passed_s: float) -> None:
        if caller.empty_since is not None and not (caller.leases or caller.revoked):
            if now - caller.empty_since > FORGET_S:
                self.callers.forget(dispatcher_id)
            return
        if caller.parked_at is None:
            caller.silent_s += passed_s
            if caller.silent_s >= SILENT_S and not caller.cut_off:
                caller.cut_off = True
                for lease in list(caller.leases.values()):
                    self._revoke(lease, now)
                for lease in caller.revoked.values():
                    lease.release_at = lease.release_at or now
                self.callers.recount(dispatcher_id, caller)
        elif now - caller.parked_at >= ANSWER_AFTER_S:
            self._changed[dispatcher_id] = None
        if caller.report.asked > caller.decided:
            self._admit(dispatcher_id, caller)

    def silent(self) -> list[str]:
        """Dispatchers that have not reported for a while: ask Ray whether they live."""
        return [i for i, caller in self.callers if caller.silent_s >= DOUBTED_S]

    # Answers.

    def _ask_whether_anything_ended(self) -> None:
        """Answer whoever has busy slots, so that it reports again (see `Stall`)."""
        if self._asked_from is None:
            self._asked_from = self._next_reply + 1
            self.scaling.lessons.ask()
        for dispatcher_id, caller in self.callers:
            if caller.counted_assigned:
                caller.shown = False
                self._changed[dispatcher_id] = None

    def _answer(self, now: float) -> None:
        if self.scaling.take_give_up():
            for dispatcher_id, caller in self.callers:
                if (caller.need or caller.report.held_back) and caller.failure is None:
                    caller.failure = self.scaling.failure
                    self._changed[dispatcher_id] = None
        room = has_room(self.callers.used, self.config.limits)
        changed, self._changed = self._changed, {}
        if room and not self._had_room:
            changed.update((i, None) for i, caller in self.callers if caller.report.held_back)
        elif self._had_room and not room:
            changed.update((i, None) for i, caller in self.callers if caller.advance)
        self._had_room = room
        for dispatcher_id in changed:
            parked = self.callers.get(dispatcher_id)
            if parked is not None and parked.parked_at is not None:
                self._answer_caller(dispatcher_id, parked, room, now)

    def _answer_caller(self, dispatcher_id: str, caller: Caller, room: bool, now: float) -> None:
        report, newest = caller.report, caller.newest
        leases = caller.listing
        if leases is None:
            leases = tuple([_told(lease) for lease in caller.leases.values()])
            caller.listing = leases
        version = self.config.version
        content = (
            leases,
            caller.decided,
            caller.admitted,
            caller.keep,
            caller.keep_busy,
            self.notice,
            caller.failure,
            room,
            version,
        )
        same = newest is not None and content == _content(newest) and caller.shown
        if same and newest is not None and report.seen >= newest.number:
            if report.is_empty:
                caller.parked_at = None
                self._effects.append(AnswerReport(dispatcher_id, report.number, None))
                return
            if caller.parked_at is not None and now - caller.parked_at < ANSWER_AFTER_S:
                return
        if same and newest is not None and report.seen < newest.number:
            reply = newest
        else:
            reply = self._make_reply(caller, leases, room)
        caller.newest, caller.parked_at, caller.shown = reply, None, True
        self._effects.append(AnswerReport(dispatcher_id, report.number, reply))

    def _make_reply(self, caller: Caller, leases: tuple[Lease, ...], room: bool) -> Reply:
        self._next_reply += 1
        number = self._next_reply
        for lease in caller.leases.values():
            if lease.listed_at is None:
                lease.listed_at = number
        if caller.failure is not None:
            caller.failure_in = number
        return Reply(
            number=number,
            leases=leases,
            decided=caller.decided,
            admitted=caller.admitted,
            room=room,
            keep=caller.keep,
            keep_busy=caller.keep_busy,
            notice=self.notice,
            failure=caller.failure,
            next_in_s=self.callers.report_every_s,
            view=self.view(),
            version=self.config.version,
        )

    def view(self) -> PoolView:
        """What callers may be told about the pool."""
        return PoolView(
            ready=self.ledger.ready,
            starting=self.ledger.count(State.LAUNCHED) + self.ledger.count(State.LOADING),
            waiting=self.callers.waiting,
            pending_limit=self.config.limits.pending,
            total=self.callers.used.total - self.callers.advance,
            total_limit=self.config.limits.total,
            max_containers=self.scaling.settings.max_containers,
        )


def _told(lease: LeaseOut) -> Lease:
    return Lease(lease.number, lease.container.container_id, lease.whole)


def _content(reply: Reply) -> tuple[object, ...]:
    return (
        reply.leases,
        reply.decided,
        reply.admitted,
        reply.keep,
        reply.keep_busy,
        reply.notice,
        reply.failure,
        reply.room,
        reply.version,
    )
