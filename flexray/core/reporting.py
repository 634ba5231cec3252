"""When a dispatcher reports to the controller.

One rule: one report is always parked at the controller while anything is held, waits or is asked for; what
the controller must act on is reported at once, everything else rides along (protocol rule 16).
"""

from __future__ import annotations

from dataclasses import dataclass

from flexray.core.events import Lease, Report, ServiceSummary

SAMPLES_MAX = 32
NEXT_IN_S = 0.25
"""News that nobody must act on waits this long, where no reply has said otherwise."""
ASK_TIMEOUT_S = 2.0
"""Asks without a verdict for this long are reported again: a message was lost."""
PARKED_TIMEOUT_S = 12.0
"""The controller answers a parked report after 10 s at the latest; past this one, it was lost."""
RETRY_S = 0.2
"""Pause after a report whose call failed: the controller is restarting."""
ACKNOWLEDGE_S = 0.020
"""Where slots are held, an answer is acknowledged so much later; whoever is busy has other news by then."""


@dataclass(slots=True)
class Tally:
    """What a dispatcher counts since birth; all of it only grows, so loss and repeats need nothing more."""

    arrived: int = 0
    asked: int = 0
    decided: int = 0
    admitted: int = 0
    seen: int = 0
    """Number of the newest reply."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What a dispatcher has at the moment of a report."""

    waiting: int
    assigned: int
    resting: int
    suspects: int
    patient: int
    held_back: int
    holds_any: bool

    @property
    def is_empty(self) -> bool:
        return not (self.waiting or self.assigned or self.held_back or self.holds_any)


class Reporting:
    """Remembers what was last told to the controller and decides when to tell it again."""

    def __init__(self, dispatcher_id: str, *, spawned: bool = False, home: str | None = None) -> None:
        self._spawned = spawned
        self._home = home
        self.held_changed = False
        """A lease was taken or is no longer held, and no report says so yet."""
        self._dispatcher_id = dispatcher_id
        self._number = 0
        self._parked = False
        self._sent_at = 0.0
        self._answered_at = 0.0
        self._not_before = 0.0
        self._told = Tally()
        self._told_standing = Standing(0, 0, 0, 0, 0, 0, holds_any=False)
        self._returned: list[tuple[int, float]] = []
        self._service_count = 0
        self._service_total_s = 0.0
        self._service_sample: list[float] = []
        self._any_service_told = False

    @property
    def is_quiet(self) -> bool:
        """The controller knows that nothing is held and nothing waits, and no report is under way."""
        return not self._parked and not self.held_changed and self._told_standing.is_empty

    def returned(self, lease_number: int, idle_s: float) -> None:
        self.held_changed = True
        self._returned.append((lease_number, idle_s))

    def add_service(self, count: int, total_s: float, sample_s: tuple[float, ...]) -> None:
        self._service_count += count
        self._service_total_s += total_s
        self._service_sample += sample_s[: SAMPLES_MAX - len(self._service_sample)]

    def answered(self, report_number: int, now: float) -> None:
        if report_number == self._number:
            self._parked = False
            self._answered_at = now

    def failed(self, report_number: int, now: float) -> None:
        if report_number == self._number:
            self._parked = False
            self._not_before = now + RETRY_S

    def controller_lost(self, now: float) -> None:
        self._parked = False
        self._not_before = now + RETRY_S
        self.held_changed = self._number > 0  # Known to a controller before, so its successor asks after it.

    def is_settled(self, tally: Tally, waiting: int, now: float) -> bool:
        """Whether `is_due` need not be asked: the cheap answer for a call that finds a free slot."""
        told = self._told
        return (
            self._parked
            and self._any_service_told
            and not self.held_changed
            and now < self._sent_at + NEXT_IN_S
            and tally.asked == told.asked
            and tally.seen == told.seen
            and waiting <= self._told_standing.waiting
        )

    def is_due(self, tally: Tally, standing: Standing, next_in_s: float, now: float) -> bool:
        """Whether to report now.

        | what | when |
        |---|---|
        | an ask, none other being open | at once |
        | a lease taken or no longer held | at once |
        | waiting grown from 0 or by half, verdicts apart | at once |
        | the first service times | at once |
        | an answer taken in, or nothing parked and anything to do | at once; with slots held, 20 ms later |
        | anything else new | `next_in_s` after the last report |
        | no answer in time | again |
        """
        if now < self._not_before:
            return False
        told, open_asks = self._told, tally.asked > tally.decided
        if self.held_changed or tally.asked > tally.decided >= told.asked:
            return True
        if self._service_count and not self._any_service_told:
            return True
        if standing.waiting > 1.5 * (self._told_standing.waiting + self._verdicts(tally)):
            return True
        answered = tally.seen != told.seen
        if answered or not self._parked:
            quiet = standing.is_empty and self._told_standing.is_empty and not (open_asks or answered)
            return not quiet and (not standing.holds_any or now >= self._answered_at + ACKNOWLEDGE_S)
        silent_s = now - self._sent_at
        if silent_s >= (ASK_TIMEOUT_S if open_asks else PARKED_TIMEOUT_S):
            return True
        return silent_s >= next_in_s and (self._told_standing != standing or tally.arrived != told.arrived)

    def _verdicts(self, tally: Tally) -> int:
        """Inputs that the last report asked for and that may wait by now, as the controller knows."""
        told = self._told
        return max(0, min(told.asked, tally.decided) - told.decided)

    def make(self, tally: Tally, standing: Standing, held: tuple[Lease, ...], now: float) -> Report:
        """The next report; whatever it says counts as told."""
        self._number += 1
        report = Report(
            dispatcher_id=self._dispatcher_id,
            number=self._number,
            seen=tally.seen,
            held=held,
            asked=tally.asked,
            decided=tally.decided,
            admitted=tally.admitted,
            waiting=standing.waiting,
            assigned=standing.assigned,
            resting=standing.resting,
            suspects=standing.suspects,
            patient=standing.patient,
            held_back=standing.held_back,
            arrived=tally.arrived,
            returned=tuple(self._returned),
            service=ServiceSummary(self._service_count, self._service_total_s, tuple(self._service_sample)),
            spawned=self._spawned,
            home=self._home,
        )
        self._told = Tally(tally.arrived, tally.asked, tally.decided, tally.admitted, tally.seen)
        self._told_standing = standing
        self._parked, self._sent_at, self.held_changed = True, now, False
        self._any_service_told = self._any_service_told or self._service_count > 0
        self._returned, self._service_sample = [], []
        self._service_count, self._service_total_s = 0, 0.0
        return report
