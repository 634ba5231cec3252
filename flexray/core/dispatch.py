r"""What one caller does with its inputs of one pool: queue, leases, batches, attempts, losses.

One rule: an input is in exactly one place (held back, asking, queued, alone, suspect, resting, or in one
batch), and every message about a batch counts only while that batch is the input's place (protocol rule 8).

```
submitted -> [held back ->] asking -> queued -> in a batch -> settled
          \______ a leased slot is free ____/        |
                        ^-- unstarted ---------------|
                        ^-- resting (a retry) -------|
                        ^-- alone (a loss) ----------|
                        ^-- suspect (another loss) --'
```
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from heapq import heapify, heappop, heappush

from flexray.config import Retries
from flexray.core.asking import Asking
from flexray.core.batch import Batch, Slot
from flexray.core.events import (
    BatchReclaimed,
    BatchReturned,
    BatchUnreached,
    ContainerLost,
    ControllerLost,
    DispatchEffect,
    DispatchEvent,
    ForgetContainer,
    InputsCancelled,
    InputsSubmitted,
    Lease,
    ReclaimBatch,
    Reply,
    ReplyReceived,
    ReportFailed,
    ReportReleased,
    SendBatch,
    SendReport,
    Settle,
    StoredChanged,
    Ticked,
)
from flexray.core.reporting import NEXT_IN_S, Reporting, Standing, Tally
from flexray.core.retry import retry_delay_s, runs_again_after_loss
from flexray.core.sizing import AHEAD_S, BatchSizing
from flexray.core.status import CANCELLED, FAILED, LOST, REFUSED, START_FAILED, UNSTARTED

LINGER_S = 1.0
"""An idle lease is kept this long, so that calls in a loop cost one hop; under the shortest window (2 s)."""
UNUSED_S = 0.002
"""Between two calls in a loop a slot is idle for less."""
REPEAT_S = 1.0
"""`reclaim` and `cancel` may overtake `run`, so they are repeated until the batch has answered (rule 8)."""
DEAD_KEPT = 64
"""Containers that are remembered as dead; the controller hears of a death at about the same time."""
RESEND_S = 0.2
"""Pause before a batch whose call failed is sent again, same id, same container (rule 7)."""


class Dispatch:
    """One caller's side of one pool.

    `handle(event, now)` takes in one event and returns what to do. `retries`, `at_most_once`, `single_use` (a
    container serves one input) and `slots` (of each container) are those of the function. `spawned` inputs
    need nobody's word to queue. `home` is the pool in a container of which this caller lives. Nothing here
    knows arguments or results: payloads pass through.
    """

    def __init__(
        self,
        dispatcher_id: str,
        *,
        retries: Retries | None = None,
        at_most_once: bool = False,
        single_use: bool = False,
        slots: int = 1,
        spawned: bool = False,
        home: str | None = None,
    ) -> None:
        self._spawned = spawned
        self._stored = 0
        self._once: set[int] = set()
        """Inputs that are sent at most once though the others are not."""
        self._tally = Tally()
        self._asking = Asking(self._tally)
        self._queue: deque[int] = deque()
        self._alone: deque[int] = deque()
        """Lost once: each travels by itself."""
        self._suspects: deque[int] = deque()
        """Lost again, beside others: each needs a container to itself."""
        self.configure(retries=retries, at_most_once=at_most_once, single_use=single_use, slots=slots)
        self._resting: list[tuple[float, int]] = []
        self._batches: dict[int, Batch] = {}
        self._batch_count = 0
        self._sent_open = 0
        self._slots: dict[int, Slot] = {}
        self._free: dict[int, None] = {}  # The most recently used last.
        self._whole: dict[int, None] = {}  # Whole containers, just granted or just free.
        self._doubled: dict[int, Slot] = {}  # Those with a batch ahead.
        self._held_of: dict[str, int] = {}
        self._dead: deque[str] = deque(maxlen=DEAD_KEPT)
        """Containers of whose death this one was told: the controller may still grant them for a moment."""
        self._busy = 0
        self._newest_lease = 0
        self._attempts: dict[int, int] = {}
        self._losses: dict[int, int] = {}
        self._endings: list[tuple[float, int]] = []
        self._overdue: list[tuple[float, int]] = []
        self._repeats: list[tuple[float, int]] = []
        self._keep: int | None = None
        self._keep_busy = False
        self._effects: list[DispatchEffect] = []
        self._sizing = BatchSizing()
        self._reporting = Reporting(dispatcher_id, spawned=spawned, home=home)
        self.last_reply: Reply | None = None
        """The newest reply, for whoever wants to tell the user why inputs wait."""

    def configure(self, *, retries: Retries | None, at_most_once: bool, single_use: bool, slots: int) -> None:
        """The function's options are these from now on: another version of it was deployed."""
        self._retries = retries
        self._at_most_once = at_most_once
        self._one_by_one = at_most_once or single_use
        self._shares = slots > 1
        if not self._shares:  # Every container is to itself.
            self._alone.extend(self._suspects)
            self._suspects.clear()

    # What can be asked.

    @property
    def waiting(self) -> int:
        """Admitted inputs that no slot is busy with; sent but unstarted and stored ones included (rule 3)."""
        lost = len(self._alone) + len(self._suspects)
        placed = len(self._queue) + lost + len(self._resting) + self._sent_open
        return max(0, placed - self._busy) + self._stored

    @property
    def assigned(self) -> int:
        """Slots with anything sent and not returned."""
        return self._busy

    @property
    def mean_s(self) -> float | None:
        """Mean service time; None while nothing has finished."""
        return self._sizing.mean_s

    @property
    def is_idle(self) -> bool:
        """Nothing to do and nothing held: no event but a new input can change anything."""
        nothing = self._asking.is_empty and not (self._slots or self.waiting)
        return nothing and self._reporting.is_quiet

    @property
    def has_free_slot(self) -> bool:
        """Whether the next call would be sent at once.

        A free slot beside an open ask belongs to the ask: the controller counts the larger of the two.
        """
        if self._queue or self._alone:
            return False
        return len(self._free) > self._asking.open_asks

    @property
    def sent(self) -> list[int]:
        """Inputs that were sent and not accounted for."""
        return [b.input_ids[p] for b in list(self._batches.values()) for p in b.open_positions()]

    def inputs_of(self, batch_id: int) -> Sequence[int]:
        """The inputs of a batch that is not over."""
        batch = self._batches.get(batch_id)
        return () if batch is None else batch.input_ids

    def containers_of(self, input_ids: set[int]) -> list[str]:
        """The containers that were sent any of these inputs and have not accounted for them."""
        found: dict[str, None] = {}
        for batch in self._batches.values():
            if any(batch.input_ids[p] in input_ids for p in batch.open_positions()):
                found[batch.slot.lease.container_id] = None
        return list(found)

    def attempt(self, input_id: int) -> int:
        """Number of the attempt under way, from 1."""
        return self._attempts.get(input_id, 1)

    def later_attempts(self, input_ids: Sequence[int]) -> dict[int, int]:
        """Input id to attempt, of those that are not on their first."""
        if not self._attempts:
            return {}
        return {i: self._attempts[i] for i in input_ids if i in self._attempts}

    @property
    def held_back(self) -> int:
        """Inputs of maps that wait for room before they are asked for."""
        return self._asking.held_back

    def set_size(self, input_id: int, size_bytes: int) -> None:
        """Tell the packed size of an input before it is submitted; small ones need not be told."""
        self._sizing.set_size(input_id, size_bytes)

    # What can happen.

    def handle(self, event: DispatchEvent, now: float) -> list[DispatchEffect]:
        """Take in one event; return the effects, in the order in which to perform them."""
        match event:
            case InputsSubmitted():
                self._submit(event, now)
            case StoredChanged(stored, arrived):
                self._stored = stored
                self._tally.arrived += arrived
            case BatchReturned():
                self._take_answer(event, now)
            case ReplyReceived():
                self._take_reply(event, now)
            case Ticked():
                pass
            case ReportReleased(number):
                self._reporting.answered(number, now)
            case ReportFailed(number):
                self._reporting.failed(number, now)
            case ControllerLost():
                self._reporting.controller_lost(now)
            case BatchReclaimed():
                self._take_reclaimed(event, now)
            case BatchUnreached(batch_id):
                if batch_id in self._batches:
                    heappush(self._repeats, (now + RESEND_S, -batch_id))
            case ContainerLost():
                self._lose_container(event, now)
            case InputsCancelled(input_ids, interrupt):
                self._cancel(set(input_ids), now, interrupt=interrupt)
        if self._resting or self._overdue or self._repeats or self._free:
            self._run_timers(now)
        if self._queue or self._alone or self._whole:
            self._pump(now)
        self._report(now)
        effects, self._effects = self._effects, []
        return effects

    # Submission and admission.

    def _submit(self, event: InputsSubmitted, now: float) -> None:
        input_ids = event.input_ids
        if event.once:
            self._once.update(input_ids)
        if self._spawned:
            self._submit_spawned(event, now)
            return
        self._tally.arrived += len(input_ids)
        if self.has_free_slot:
            direct = min(len(self._free) - self._asking.open_asks, len(input_ids))
            self._queue.extend(input_ids[:direct])
            self._pump(now)
            input_ids = input_ids[direct:]
        self._queue.extend(self._asking.ask(input_ids, patient=event.patient))

    def _submit_spawned(self, event: InputsSubmitted, now: float) -> None:
        self._attempts.update(event.attempts)
        for input_id, attempt in event.attempts:  # When the last attempt ended, nobody knows any more.
            delay_s = retry_delay_s(self._retries, attempt - 1) or 0.0
            heappush(self._resting, (now + delay_s, input_id))
        self._queue.extend([i for i in event.input_ids if i not in self._attempts])

    def _take_reply(self, event: ReplyReceived, now: float) -> None:
        reply = event.reply
        self._reporting.answered(event.report_number, now)
        if reply.number <= self._tally.seen:
            self._forget_unheld(reply.leases)
            return  # Late or repeated.
        self._tally.seen = reply.number
        self.last_reply = reply
        admitted, refused = self._asking.take_verdicts(reply.decided, reply.admitted)
        self._queue.extend(admitted)
        self._settle(refused, REFUSED, None)
        self._take_leases(reply.leases, now)
        self._keep, self._keep_busy = reply.keep, reply.keep_busy
        self._share(now)
        if reply.failure is not None:
            self._fail_waiting(reply.failure)
        self._queue.extend(self._asking.set_room(room=reply.room))

    # Leases.

    def _take_leases(self, leases: tuple[Lease, ...], now: float) -> None:
        listed = set()
        stale: list[Lease] = []
        newest = self._newest_lease
        for lease in leases:
            listed.add(lease.number)
            if lease.number > self._newest_lease:
                self._slots[lease.number] = Slot(lease, now)
                if lease.container_id not in self._dead:
                    self._set_free(self._slots[lease.number])
                self._held_of[lease.container_id] = self._held_of.get(lease.container_id, 0) + 1
                self._reporting.held_changed = True
                newest = max(newest, lease.number)
            elif lease.number not in self._slots:
                stale.append(lease)
        self._newest_lease = newest
        for slot in [slot for number, slot in self._slots.items() if number not in listed]:
            self._leave(slot, now)
        self._forget_unheld(stale)

    def _forget_unheld(self, leases: Iterable[Lease]) -> None:
        """A reply that crossed with a return brought the handle of a container that is not used any more."""
        unheld = {lease.container_id: None for lease in leases if lease.container_id not in self._held_of}
        self._effects += [ForgetContainer(container_id) for container_id in unheld]

    def _share(self, now: float) -> None:
        """Give slots back until no more than `keep` are left, idle ones first (rule 11).

        Where busy ones may be kept, only those are given back that are idle for a moment: a call may follow.
        """
        if self._keep is None:
            return
        staying = [slot for slot in self._slots.values() if not slot.leaving]
        excess = len(staying) - self._keep
        if excess > 0:
            staying.sort(key=lambda slot: (bool(slot.batches), slot.idle_since))
            for slot in staying[:excess]:
                if not self._keep_busy or (not slot.batches and now - slot.idle_since >= UNUSED_S):
                    self._leave(slot, now)

    def _leave(self, slot: Slot, now: float) -> None:
        if not slot.batches:
            self._give_back(slot, now)
        elif not slot.leaving:
            slot.leaving = True
            for batch in slot.batches[1:]:
                self._ask_back(batch, now)

    def _set_free(self, slot: Slot) -> None:
        (self._whole if slot.lease.whole else self._free)[slot.lease.number] = None

    def _give_back(self, slot: Slot, now: float) -> None:
        self._free.pop(slot.lease.number, None)
        self._whole.pop(slot.lease.number, None)
        del self._slots[slot.lease.number]
        self._reporting.returned(slot.lease.number, now - slot.idle_since)
        container_id = slot.lease.container_id
        self._held_of[container_id] -= 1
        if not self._held_of[container_id]:
            del self._held_of[container_id]
            self._effects.append(ForgetContainer(container_id))

    # Sending.

    def _pump(self, now: float) -> None:
        while self._whole:
            slot = self._slots[self._whole.popitem()[0]]
            if self._suspects:
                self._send(slot, (self._suspects.popleft(),), now, alone=True)
            else:
                self._give_back(slot, now)  # At once: others may use all of its slots.
        while self._free and (self._alone or self._queue):
            number, _ = self._free.popitem()
            slot = self._slots[number]
            if self._alone:
                self._send(slot, (self._alone.popleft(),), now, alone=True)
            else:
                self._send(slot, self._take_queued(), now)
        while self._queue and self._endings and self._endings[0][0] <= now + AHEAD_S:
            if self._more_comes or self._queue[0] in self._once:
                break  # A batch ahead is in no hurry, and a full one costs no more messages.
            _, batch_id = heappop(self._endings)
            batch = self._batches.get(batch_id)
            if batch is not None and self._takes_ahead(batch, now):
                self._send(batch.slot, self._take_queued(), now)

    @property
    def _more_comes(self) -> bool:
        """The queue is short of a whole batch, and verdicts on further inputs are on their way."""
        if not self._asking.open_asks:
            return False
        return len(self._queue) < self._sizing.share(len(self._queue) + self._sent_open, len(self._slots))

    def _takes_ahead(self, batch: Batch, now: float) -> bool:
        slot = batch.slot
        on_time = batch.late_at is not None and now < batch.late_at
        if self._once and batch.input_ids[0] in self._once:
            return False
        return on_time and not (slot.leaving or len(slot.batches) > 1 or batch.alone or self._one_by_one)

    def _take_queued(self) -> tuple[int, ...]:
        if self._one_by_one or self._queue[0] in self._once:
            return (self._queue.popleft(),)
        size = self._sizing.inputs(self._queue, self._sent_open, len(self._slots))
        if self._once:
            size = next((n for n in range(1, size) if self._queue[n] in self._once), size)
        if size == 1:
            return (self._queue.popleft(),)
        pop = self._queue.popleft
        return tuple([pop() for _ in range(size)])

    def _send(self, slot: Slot, input_ids: tuple[int, ...], now: float, *, alone: bool = False) -> None:
        self._batch_count += 1
        batch_id = self._batch_count
        begins_at = now
        if slot.batches:
            begins_at = max(now, slot.batches[-1].ends_at or now)
            self._doubled[slot.lease.number] = slot
        else:
            self._busy += 1
        batch = Batch(batch_id, slot, input_ids, alone)
        slot.batches.append(batch)
        self._batches[batch_id] = batch
        self._sent_open += len(input_ids)
        self._expect(batch, begins_at)
        self._effects.append(SendBatch(batch_id, slot.lease, input_ids, oldest_open=self._oldest_open))

    @property
    def _oldest_open(self) -> int:
        """The oldest batch without an answer; containers may forget their answers to earlier ones."""
        return next(iter(self._batches))

    def _expect(self, batch: Batch, begins_at: float) -> None:
        """Set the batch's clocks: it is sent to begin then, or the one before it is over only now."""
        ends_at, late_at, overdue_at = self._sizing.times(len(batch.input_ids), begins_at)
        if ends_at is None or late_at is None or overdue_at is None or batch.asked_back:
            return
        batch.ends_at, batch.late_at, batch.overdue_at = ends_at, late_at, overdue_at
        heappush(self._endings, (ends_at, batch.batch_id))
        heappush(self._overdue, (overdue_at, batch.batch_id))

    # Answers.

    def _take_answer(self, event: BatchReturned, now: float) -> None:
        batch = self._batches.pop(event.batch_id, None)
        if batch is None:
            return  # Late or repeated: its inputs have moved on.
        if event.ran:
            self._sizing.add(event.ran, event.busy_s)
            self._reporting.add_service(event.ran, event.busy_s, event.sample_s)
        if batch.accounted is None and not any(event.statuses):
            self._sent_open -= len(batch.input_ids)
            self._settled(batch.input_ids)
            self._effects.append(Settle(batch.input_ids, event.statuses, event.payloads))
        else:
            account = [(p, event.statuses[p], event.payloads[p]) for p in batch.open_positions()]
            self._move(batch, account, now)
        self._end(batch, now, gone=event.bounced)

    def _end(self, batch: Batch, now: float, *, gone: bool = False) -> None:
        slot = batch.slot
        slot.batches.remove(batch)
        self._doubled.pop(slot.lease.number, None)
        slot.leaving = slot.leaving or gone  # A lease whose batch came back unstarted is never sent on again.
        if slot.batches:
            self._expect(slot.batches[0], now)
            return
        self._busy -= 1
        slot.idle_since = now
        if slot.leaving:
            self._give_back(slot, now)
        else:
            self._set_free(slot)

    def _move(self, batch: Batch, account: Iterable[tuple[int, int, object]], now: float) -> None:
        """Move inputs of the batch on; `account` has (position, status, payload) of each."""
        unstarted: list[int] = []
        for position, status, payload in account:
            input_id = batch.input_ids[position]
            self._sent_open -= 1
            if status == UNSTARTED:
                unstarted.append(input_id)
            elif status == FAILED and (delay_s := self._retry_delay_s(input_id)) is not None:
                self._attempts[input_id] = self.attempt(input_id) + 1
                heappush(self._resting, (now + delay_s, input_id))
            else:
                self._settle([input_id], status, payload)
        self._line_of(batch).extendleft(reversed(unstarted))

    def _line_of(self, batch: Batch) -> deque[int]:
        """Where its unstarted inputs came from."""
        if batch.slot.lease.whole:
            return self._suspects
        return self._alone if batch.alone else self._queue

    def _retry_delay_s(self, input_id: int) -> float | None:
        if input_id in self._once:
            return None
        return retry_delay_s(self._retries, self.attempt(input_id))

    def _take_reclaimed(self, event: BatchReclaimed, now: float) -> None:
        batch = self._batches.get(event.batch_id)
        if batch is None:
            return  # The answer to `run` came first.
        told = zip(event.positions, event.statuses, event.payloads, strict=True)
        account = [entry for entry in told if batch.is_open(entry[0])]
        for position, _, _ in account:
            batch.account(position)
        self._move(batch, account, now)

    def _lose_container(self, event: ContainerLost, now: float) -> None:
        if event.container_id not in self._dead:  # Each of its batches may tell.
            self._dead.append(event.container_id)
        for slot in [s for s in self._slots.values() if s.lease.container_id == event.container_id]:
            for batch in slot.batches:
                del self._batches[batch.batch_id]
                for position in batch.open_positions():
                    self._sent_open -= 1
                    self._lose_input(batch.input_ids[position], batch, event.cause)
            self._busy -= bool(slot.batches)
            slot.batches.clear()
            self._doubled.pop(slot.lease.number, None)
            self._give_back(slot, now)

    def _lose_input(self, input_id: int, batch: Batch, cause: str) -> None:
        """By itself at first, for most deaths are not an input's fault; then with a container to itself."""
        shared = self._shares and not batch.slot.lease.whole
        losses = self._losses.get(input_id, 0) + (batch.alone and not shared)
        at_most_once = self._at_most_once or input_id in self._once
        if runs_again_after_loss(at_most_once=at_most_once, losses_alone=losses):
            self._losses[input_id] = losses
            (self._suspects if batch.alone and self._shares else self._alone).append(input_id)
        else:
            self._settle([input_id], LOST, cause)

    # Giving up.

    def _cancel(self, input_ids: set[int], now: float, *, interrupt: bool) -> None:
        found = self._asking.drop(input_ids)
        found += [i for i in (*self._queue, *self._alone, *self._suspects) if i in input_ids]
        self._queue = deque(i for i in self._queue if i not in input_ids)
        self._alone = deque(i for i in self._alone if i not in input_ids)
        self._suspects = deque(i for i in self._suspects if i not in input_ids)
        found += [i for _, i in self._resting if i in input_ids]
        self._resting = [(due, i) for due, i in self._resting if i not in input_ids]
        heapify(self._resting)
        for batch in self._batches.values():
            cancels = [p for p in batch.open_positions() if batch.input_ids[p] in input_ids]
            if cancels:
                found += [batch.input_ids[p] for p in cancels]
                self._cancel_in_batch(batch, cancels, now, interrupt=interrupt)
        self._settle(found, CANCELLED, None)

    def _cancel_in_batch(self, batch: Batch, positions: list[int], now: float, *, interrupt: bool) -> None:
        for position in positions:
            batch.account(position)
        self._sent_open -= len(positions)
        batch.cancels += positions
        batch.interrupts += positions if interrupt else []
        self._effects.append(batch.cancellation)
        heappush(self._repeats, (now + REPEAT_S, batch.batch_id))

    def _fail_waiting(self, failure: object) -> None:
        """No container can start: whatever waits here, asked for or not, fails with the start's error."""
        lost = [*self._alone, *self._suspects]
        failed = [*self._asking.drop(), *self._queue, *lost, *(i for _, i in self._resting)]
        for line in (self._queue, self._alone, self._suspects, self._resting):
            line.clear()
        self._settle(failed, START_FAILED, failure)

    def _settle(self, input_ids: Sequence[int], status: int, payload: object) -> None:
        if input_ids:
            self._settled(input_ids)
            count = len(input_ids)
            self._effects.append(Settle(input_ids, bytes([status]) * count, [payload] * count))

    def _settled(self, input_ids: Sequence[int]) -> None:
        self._sizing.forget(input_ids)
        if self._once:
            self._once.difference_update(input_ids)
        for memory in (self._attempts, self._losses):
            if memory:
                for input_id in input_ids:
                    memory.pop(input_id, None)

    # Time.

    def _run_timers(self, now: float) -> None:
        while self._resting and self._resting[0][0] <= now:
            self._queue.append(heappop(self._resting)[1])
        while self._endings and self._is_past(self._endings[0][1], now):
            heappop(self._endings)  # Otherwise calls that never queue would leave theirs here for ever.
        while self._overdue and self._overdue[0][0] <= now:
            overdue_at, batch_id = heappop(self._overdue)
            batch = self._batches.get(batch_id)
            if batch is None or batch.overdue_at != overdue_at:
                continue  # It is over, or began later than was expected.
            if batch.slot.batches[0] is batch:
                self._ask_back_slot(batch.slot, now)
        if self._free and not self._queue and self._doubled:
            self._ask_back_ahead(now)
        if self._free and self._keep_busy:
            self._share(now)
        while self._repeats and self._repeats[0][0] <= now:
            self._repeat(heappop(self._repeats)[1], now)
        while self._free:
            slot = self._slots[next(iter(self._free))]
            if slot.idle_since > now - LINGER_S:
                break
            self._give_back(slot, now)

    def _is_past(self, batch_id: int, now: float) -> bool:
        """Over, or so late that nothing is sent behind it."""
        batch = self._batches.get(batch_id)
        return batch is None or (batch.late_at is not None and batch.late_at <= now)

    def _ask_back_slot(self, slot: Slot, now: float) -> None:
        """The batch under way took four times its time: neither it nor what is behind it waits longer."""
        for batch in slot.batches:
            if batch.may_have_unstarted:
                self._ask_back(batch, now)

    def _ask_back_ahead(self, now: float) -> None:
        """A slot is free: what was sent ahead behind a late batch could run there."""
        for slot in self._doubled.values():
            first, ahead = slot.batches
            if first.late_at is not None and first.late_at <= now and not ahead.asked_back:
                self._ask_back(ahead, now)

    def _ask_back(self, batch: Batch, now: float) -> None:
        self._effects.append(ReclaimBatch(batch.batch_id, batch.slot.lease.container_id))
        batch.asked_back = True
        batch.late_at = now  # Nothing is sent behind it any more.
        heappush(self._repeats, (now + REPEAT_S, batch.batch_id))

    def _repeat(self, key: int, now: float) -> None:
        """A positive key repeats what was asked of a batch, a negative one sends the batch again."""
        batch = self._batches.get(abs(key))
        if batch is None:
            return
        lease = batch.slot.lease
        if key < 0:
            again = SendBatch(
                batch.batch_id, lease, batch.input_ids, again=True, oldest_open=self._oldest_open
            )
            self._effects.append(again)
            return
        if batch.cancels:
            self._effects.append(batch.cancellation)
            heappush(self._repeats, (now + REPEAT_S, key))
        elif batch.may_have_unstarted:
            self._ask_back(batch, now)

    def _report(self, now: float) -> None:
        if self._reporting.is_settled(self._tally, self.waiting, now):
            return
        standing = Standing(
            waiting=self.waiting,
            assigned=self._busy,
            resting=len(self._resting),
            suspects=len(self._suspects),
            patient=self._asking.patient,
            held_back=self._asking.held_back,
            holds_any=bool(self._slots),
        )
        if standing.is_empty:
            self._asking.end_advance()
        next_in_s = NEXT_IN_S if self.last_reply is None else self.last_reply.next_in_s
        if self._reporting.is_due(self._tally, standing, next_in_s, now):
            held = tuple([slot.lease for slot in self._slots.values()])
            self._effects.append(SendReport(self._reporting.make(self._tally, standing, held, now)))
