"""What a pool knows of the dispatchers that use it, and how slots are shared between them.

One rule: a dispatcher's newest report and newest reply are its whole state; needs, limits and fairness are
sums over them (protocol rules 4, 5, 10, 11).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from heapq import heapify, heappop, heapreplace

from flexray.core.admission import Occupied, occupied
from flexray.core.events import Lease, Reply, Report
from flexray.core.ledger import LeaseOut
from flexray.core.reporting import NEXT_IN_S

SETTLED_S = 0.100
"""No holder loses a slot that it uses within this time of getting one."""


@dataclass(slots=True)
class Caller:
    """One dispatcher, as the pool knows it."""

    report: Report
    decided: int
    admitted: int
    parked_at: float | None = None
    """Since when its newest report waits for an answer; None: it was answered."""
    newest: Reply | None = None
    leases: dict[int, LeaseOut] = field(default_factory=dict)
    """Listed, or about to be."""
    listing: tuple[Lease, ...] | None = None
    """`leases` as a reply lists them; None: they have changed since."""
    revoked: dict[int, LeaseOut] = field(default_factory=dict)
    """Not listed any more, and not known to be given back."""
    unseen_leases: int = 0
    """Of the listed, those that no report has seen."""
    counted_unseen: int = 0
    """`unseen_leases` as it stands in the pool's sum."""
    counted_assigned: int = 0
    """Assigned slots as they stand in the pool's sum: those of leases that are out, so none on the dead."""
    keep: int | None = None
    keep_busy: bool = False
    """As in `Reply`."""
    without_since: float = 0.0
    """When it last had no slot; ties go to whoever has been without longest."""
    granted_at: float = 0.0
    failure: object = None
    failure_in: int | None = None
    """Number of the reply that carried the failure."""
    silent_s: float = 0.0
    """How long nothing of it has been parked, as far as the controller was awake."""
    cut_off: bool = False
    empty_since: float | None = None
    shown: bool = True
    """The newest reply has the containers as they are, as far as this one waits for them."""
    used: Occupied = field(default_factory=Occupied)
    counted_held_back: int = 0
    """Inputs held back as they stand in the pool's sum."""
    counted_spawned: int = 0
    """Spawned inputs as they stand in the pool's sum."""
    advance: int = 0
    """Verdicts given in advance and not used up, as far as the pool knows; they count as waiting."""
    need: int = 0
    """Slots that its inputs could use beside those it has."""
    suspects: int = 0
    """Of the need, inputs that want a whole container each."""
    counted_home: str | None = None
    """The pool in a container of which it lives, while it has inputs here."""

    def has_not_seen(self, lease: LeaseOut) -> bool:
        """Whether no report of this dispatcher can know of the lease yet."""
        return lease.listed_at is None or lease.listed_at > self.report.seen

    @property
    def slots_need(self) -> int:
        """Of the need, what single slots can serve."""
        return self.need - self.suspects

    @property
    def unused(self) -> int:
        """Slots that it does not use, as it last reported."""
        return max(0, len(self.leases) - self.counted_assigned)

    @property
    def keeps(self) -> int:
        """Slots it will have when it has given back what it was asked for."""
        return len(self.leases) if self.keep is None else min(self.keep, len(self.leases))


FORGOTTEN_MAX = 1000
"""Forgotten dispatchers of which anything is kept; most of them are dead."""


class Callers:
    """All dispatchers of a pool, with the sums over them kept up to date in O(1) per change."""

    def __init__(self, slots: int = 1) -> None:
        self.slots = slots
        """Of each container."""
        self._callers: dict[str, Caller] = {}
        self._arrived: dict[str, int] = {}
        """Inputs that had arrived at forgotten ones."""
        self._wanting: dict[str, Caller] = {}
        self._sharing: dict[str, Caller] = {}
        self._suspecting: dict[str, Caller] = {}
        self.used = Occupied()
        self.spawned = 0
        self.advance = 0
        self.demand = 0
        self.held_back = 0
        """Inputs of maps that wait for room before they are asked for."""
        self.suspects = 0
        self.assigned = 0
        self.unseen_leases = 0
        self.homes: dict[str, int] = {}
        """Of each pool, its containers in which somebody waits for an input of this one, running or not."""

    def __iter__(self) -> Iterator[tuple[str, Caller]]:
        return iter(self._callers.items())

    def __len__(self) -> int:
        return len(self._callers)

    def get(self, dispatcher_id: str) -> Caller | None:
        return self._callers.get(dispatcher_id)

    def add(self, report: Report, now: float) -> Caller:
        """A dispatcher seen for the first time: what it says it was told is taken as told.

        So is what had arrived there before, where it has reported to an earlier controller.
        """
        dispatcher_id = report.dispatcher_id
        arrived = self._arrived.pop(dispatcher_id, 0 if report.number == 1 else report.arrived)
        before = Report(dispatcher_id, number=0, seen=0, arrived=arrived)
        caller = Caller(before, report.decided, report.admitted, without_since=now)
        self._callers[dispatcher_id] = caller
        return caller

    def forget(self, dispatcher_id: str) -> None:
        """It has had nothing for long; if it comes back, what arrived there before is not counted again."""
        caller = self.remove(dispatcher_id)
        if caller is not None:
            self._arrived[dispatcher_id] = caller.report.arrived
            if len(self._arrived) > FORGOTTEN_MAX:
                del self._arrived[next(iter(self._arrived))]

    def remove(self, dispatcher_id: str) -> Caller | None:
        caller = self._callers.pop(dispatcher_id, None)
        if caller is not None:
            self._wanting.pop(dispatcher_id, None)
            self._sharing.pop(dispatcher_id, None)
            self._suspecting.pop(dispatcher_id, None)
            self.suspects -= caller.suspects
            self.assigned -= caller.counted_assigned
            self.demand -= caller.need
            self.advance -= caller.advance
            self.held_back -= caller.counted_held_back
            self.unseen_leases -= caller.counted_unseen
            self.used.pending -= caller.used.pending
            self.used.total -= caller.used.total
            self.spawned -= caller.counted_spawned
            self._recount_home(caller, None)
        return caller

    def take_grant(self, dispatcher_id: str, caller: Caller, lease: LeaseOut, now: float) -> None:
        """It has a lease more, which it may keep: a slot was free, so nobody needed it more."""
        caller.leases[lease.number] = lease
        caller.listing = None
        caller.unseen_leases += 1
        caller.granted_at = now
        caller.keep, caller.keep_busy = None, False
        self._sharing.pop(dispatcher_id, None)
        if lease.whole:
            self._suspecting.pop(dispatcher_id, None)  # Behind the others, if it wants another.
        self.recount(dispatcher_id, caller)

    def recount(self, dispatcher_id: str, caller: Caller) -> None:
        """Bring the caller's need, its part of the limits and the pool's sums up to date."""
        if caller.keep is not None and len(caller.leases) <= caller.keep:
            caller.keep, caller.keep_busy = None, False  # It gave back what it was asked for.
            self._sharing.pop(dispatcher_id, None)
        report = caller.report
        unseen = caller.admitted - report.admitted
        advance = max(0, caller.decided - report.asked)
        advance_seen = max(0, report.decided - report.asked)
        self.advance += advance - caller.advance
        caller.advance = advance
        out = len(caller.leases) + len(caller.revoked)
        assigned = min(report.assigned, out)
        self.assigned += assigned - caller.counted_assigned
        caller.counted_assigned = assigned
        spawned = report.waiting if report.spawned else 0
        self.spawned += spawned - caller.counted_spawned
        caller.counted_spawned = spawned
        held_back = 0 if caller.cut_off else report.held_back
        self.held_back += held_back - caller.counted_held_back
        caller.counted_held_back = held_back
        used = Occupied()
        if not report.spawned:
            used = occupied(
                waiting=report.waiting,
                unseen=unseen + advance_seen,
                assigned=report.assigned,
                idle_slots=out - assigned,
            )
        self.used.pending += used.pending - caller.used.pending
        self.used.total += used.total - caller.used.total
        caller.used = used
        self.unseen_leases += caller.unseen_leases - caller.counted_unseen
        caller.counted_unseen = caller.unseen_leases
        demand = report.waiting - report.resting + unseen - (advance - advance_seen) - caller.unseen_leases
        need = 0 if caller.cut_off else max(0, demand)
        self.demand += need - caller.need
        caller.need = need
        if report.suspects or caller.suspects:
            self._recount_suspects(dispatcher_id, caller)
        if report.home is not None:
            self._recount_home(caller, report.home if need or assigned else None)
        if caller.slots_need:
            self._wanting[dispatcher_id] = caller
        else:
            self._wanting.pop(dispatcher_id, None)

    def _recount_suspects(self, dispatcher_id: str, caller: Caller) -> None:
        """Inputs that want a whole container, where containers have several slots."""
        unseen = sum(lease.whole and caller.has_not_seen(lease) for lease in caller.leases.values())
        suspects = 0 if self.slots == 1 else min(caller.need, max(0, caller.report.suspects - unseen))
        self.suspects += suspects - caller.suspects
        caller.suspects = suspects
        if suspects:
            self._suspecting.setdefault(dispatcher_id, caller)
        else:
            self._suspecting.pop(dispatcher_id, None)

    def _recount_home(self, caller: Caller, home: str | None) -> None:
        for counted, change in ((caller.counted_home, -1), (home, 1)):
            if counted is not None:
                self.homes[counted] = self.homes.get(counted, 0) + change
                if not self.homes[counted]:
                    del self.homes[counted]
        caller.counted_home = home

    @property
    def waiting(self) -> int:
        """Inputs that wait and count in the limits, those that no report has told of included."""
        return self.used.pending - self.advance

    @property
    def backlog(self) -> int:
        """All inputs that wait, spawned ones included."""
        return self.waiting + self.spawned

    # Sharing.

    @property
    def report_every_s(self) -> float:
        """How long each may wait to tell what nobody must act on: a thousand reports a second are enough."""
        return max(NEXT_IN_S, len(self._callers) / 1000)

    @property
    def any_wanting(self) -> bool:
        return bool(self._wanting)

    def neediest(self) -> tuple[str, Caller] | None:
        """Whoever wants a slot and has fewest; ties to whoever has been without longest."""
        if not self._wanting:
            return None
        if len(self._wanting) == 1:
            return next(iter(self._wanting.items()))
        return min(self._wanting.items(), key=lambda item: (len(item[1].leases), item[1].without_since))

    def suspecting(self) -> tuple[str, Caller] | None:
        """Whoever has wanted a whole container for longest, since it got one or began to want one."""
        return next(iter(self._suspecting.items()), None)

    def end_sharing(self) -> Iterable[str]:
        """Nobody waits for a slot: whoever was asked to give some back may keep them."""
        released = list(self._sharing)
        for caller in self._sharing.values():
            caller.keep, caller.keep_busy = None, False
        self._sharing.clear()
        return released

    def share(self, now: float) -> Iterable[str]:
        """Ask holders to give slots back to the neediest; returns the holders asked.

        A slot moves when its holder has two more than the neediest, or the neediest has none (rule 11). From
        those that have just got theirs only what they do not use is asked for.
        """
        asked: dict[str, None] = {}
        for dispatcher_id, caller in list(self._sharing.items()):
            if caller.keep_busy and now - caller.granted_at >= SETTLED_S:  # It is asked like others now.
                caller.keep, caller.keep_busy = None, False
                del self._sharing[dispatcher_id]
                asked[dispatcher_id] = None
        needy = [(len(c.leases), c.without_since, c.slots_need, i) for i, c in self._wanting.items()]
        heapify(needy)
        for _ in range(self._under_way()):
            _give(needy)
        settled: list[str] = []
        unused: list[str] = []
        used: list[str] = []
        for dispatcher_id, caller in self._callers.items():
            if not caller.keeps or caller.cut_off:
                continue
            if now - caller.granted_at >= SETTLED_S:
                settled.append(dispatcher_id)
            elif not caller.keep_busy:
                (unused if caller.unused else used).append(dispatcher_id)
        asked |= self._ask_for_slots(needy, settled, keep_busy=False)
        for holders in (unused, used):  # As reported, which may be a moment ago.
            asked |= self._ask_for_slots(needy, holders, keep_busy=True)
        return asked

    def _ask_for_slots(
        self, needy: list[tuple[int, float, int, str]], holder_ids: Iterable[str], *, keep_busy: bool
    ) -> dict[str, None]:
        asked: dict[str, None] = {}
        holders: list[tuple[int, str, Caller]] = [
            (-self._callers[i].keeps, i, self._callers[i]) for i in holder_ids
        ]
        heapify(holders)
        while needy and holders:
            has, holder_has = needy[0][0], -holders[0][0]
            holder_id, caller = holders[0][1], holders[0][2]
            if holder_has - has < 2 and (has or not holder_has or holder_id == needy[0][3]):
                break
            caller.keep, caller.keep_busy = holder_has - 1, keep_busy
            self._sharing[holder_id] = caller
            asked[holder_id] = None
            _give(needy)
            heapreplace(holders, (-caller.keep, holder_id, caller))
        return asked

    def _under_way(self) -> int:
        """Slots that holders were asked for and will give back; who may keep what it uses gives no more."""
        return sum(
            min(len(c.leases) - c.keeps, c.unused if c.keep_busy else len(c.leases))
            for c in self._sharing.values()
        )


def _give(needy: list[tuple[int, float, int, str]]) -> None:
    """Promise one slot to the neediest."""
    if not needy:
        return
    has, since, need, dispatcher_id = needy[0]
    if need <= 1:
        heappop(needy)
    else:
        heapreplace(needy, (has + 1, since, need - 1, dispatcher_id))
