"""Planted faults: what the checks are worth.

Each mutant leaves one rule of the protocol out, or breaks one promise, by a change of the source of one
function or of one constant while a `with` block lasts. `test_mutants.py` wants every one of them caught.
"""

from __future__ import annotations

import __future__

import importlib
import inspect
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FunctionType
from typing import Any


@dataclass(frozen=True)
class Mutant:
    """One planted fault."""

    name: str
    """What the code then does."""
    rule: str
    """The protocol's rule that it leaves out."""
    where: str
    """`module.Class.method`, `module.function` or `module.CONSTANT`, in flexray.core."""
    old: str
    """Text in the function's source that occurs once; empty for a constant."""
    new: Any
    """What stands there instead; the constant's value."""
    hunts: tuple[str, ...]
    """Kinds of scenarios, or names of promises, that may notice."""
    first: int = 0
    """The seed to begin with."""

    @contextmanager
    def planted(self) -> Iterator[None]:
        module_name, _, rest = self.where.partition(".")
        owner: Any = importlib.import_module(f"flexray.core.{module_name}")
        *path, name = rest.split(".")
        for part in path:
            owner = getattr(owner, part)
        if not self.old:
            kept = getattr(owner, name)
            setattr(owner, name, self.new)
            try:
                yield
            finally:
                setattr(owner, name, kept)
            return
        function = owner.__dict__[name]
        if isinstance(function, property):
            function = function.fget
        code = function.__code__
        function.__code__ = _edited(function, self.old, self.new)
        try:
            yield
        finally:
            function.__code__ = code


def _edited(function: Callable[..., Any], old: str, new: str) -> Any:
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(old) == 1, f"{function.__qualname__} has {source.count(old)} times {old!r}"
    names: dict[str, Any] = {}
    flags = __future__.annotations.compiler_flag
    code = compile(source.replace(old, new).replace("@property\n", ""), inspect.getfile(function), "exec", flags)
    exec(code, function.__globals__, names)
    (edited,) = names.values()
    assert isinstance(edited, FunctionType)
    return edited.__code__


_QUEUE_AGAIN = (
    "batch = self._batches.pop(batch_id); "
    "self._move(batch, [(p, UNSTARTED, None) for p in batch.open_positions()], now); "
    "self._end(batch, now)"
)

MUTANTS = (
    Mutant(
        "an old reply is taken in",
        "1", "dispatch.Dispatch._take_reply", "reply.number <= self._tally.seen", "False",
        ("losses", "partitions"),
    ),
    Mutant(
        "a lease that was given back is taken again",
        "1", "dispatch.Dispatch._take_leases", "lease.number > self._newest_lease", "lease.number not in self._slots",
        ("a_returned_lease_is_not_taken_again",),
    ),
    Mutant(
        "an old report is taken in",
        "1", "pool.Pool._take_report", "report.number <= caller.report.number", "False",
        ("calm", "losses", "limits"),
    ),
    Mutant(
        "a revoked lease is free at once",
        "1", "pool.Pool._revoke", "if lease.listed_at is None:", "if True:",
        ("settings", "partitions"),
    ),
    Mutant(
        "a lease is free when a report that has not seen it does not name it",
        "1", "pool.Pool._take_held", "if shown and", "if",
        ("burst",), 80,
    ),
    Mutant(
        "a reply that no report has seen is not repeated at once",
        "1", "pool.Pool._answer_caller", "newest is not None and report.seen >= newest.number:", "newest is not None:",
        ("a_lost_verdict_comes_again",),
    ),
    Mutant(
        "numbers begin again after a restart of the controller",
        "1", "pool.EPOCH", "", 0,
        ("restarts",),
    ),
    Mutant(
        "a lease that is not given back stays out",
        "2", "pool.Pool._release_overdue", "self._release(lease, now)", "pass",
        ("partitions", "deaths"),
    ),
    Mutant(
        "a container says that a lease is released while its input runs",
        "2", "occupancy.Occupancy.release", "return lease_number not in self._lines", "return True",
        ("partitions", "deaths"),
    ),
    Mutant(
        "a released lease still works at the container",
        "2", "occupancy.Occupancy.arrive", " or lease_number in self._released", "",
        ("partitions", "deaths"),
    ),
    Mutant(
        "a lease of which a batch came back unstarted is used again",
        "2", "dispatch.Dispatch._end", "slot.leaving or gone", "slot.leaving",
        ("partitions", "restarts", "everything"),
    ),
    Mutant(
        "a container does not count its slots",
        "2", "occupancy.Occupancy.arrive", "line is None and len(self._lines) >= self.slots", "False",
        ("restarts", "everything"),
    ),
    Mutant(
        "an input queues without asking",
        "4", "dispatch.Dispatch._submit", "self._asking_calls.extend(input_ids)\n        self._tally.asked += len(input_ids)",
        "self._queue.extend(input_ids)",
        ("limits",),
    ),
    Mutant(
        "admitted inputs that no report tells of do not count",
        "4", "admission.occupied", "waiting + unseen", "waiting",
        ("limits", "admission_is_exact"),
    ),
    Mutant(
        "idle leased slots do not count in the total",
        "4", "admission.occupied", "max(pending, idle_slots)", "pending",
        ("idle_slots_count_in_the_total",),
    ),
    Mutant(
        "a call takes the free slot that an open ask counts on",
        "4", "dispatch.Dispatch._submit", "len(self._free) - open_asks", "len(self._free)",
        ("a_free_slot_beside_an_open_ask_belongs_to_it",),
    ),
    Mutant(
        "a call is admitted beyond the limit",
        "4", "admission.admissible", "limits.pending - used.pending", "limits.pending - used.pending + 1",
        ("limits", "admission_is_exact"),
    ),
    Mutant(
        "maps ask however full the pool is",
        "4", "admission.has_room", "used.pending < ROOM_FRACTION * limits.pending and used.total < ROOM_FRACTION * limits.total",
        "True",
        ("a_map_waits_quietly_for_room",),
    ),
    Mutant(
        "the leases of a dead caller are free at once",
        "5", "pool.Pool._lose_dispatcher", "if lease.listed_at is None:", "if True:",
        ("a_dead_callers_input_keeps_its_slot",),
    ),
    Mutant(
        "the leases of a dead caller stay out",
        "5", "pool.Pool._lose_dispatcher", "self._release(lease, now)", "pass",
        ("deaths", "a_dead_callers_slots_come_back"),
    ),
    Mutant(
        "a silent caller keeps its leases",
        "5", "pool.SILENT_TICKS", "", 10**9,
        ("partitions",),
    ),
    Mutant(
        "a busy container is stopped",
        "6", "ledger.Ledger.least_recently_used", "self._room[0]", "self.by_state[State.READY]",
        ("calm",),
    ),
    Mutant(
        "a container is stopped before it is empty",
        "6", "pool.Pool._stop_drained", "if not container.leases:", "if True:",
        ("settings",),
    ),
    Mutant(
        "nobody says how long a slot was idle",
        "6", "reporting.Reporting.returned", "(lease_number, idle_s)", "(lease_number, 0.0)",
        ("calm", "limits"),
    ),
    Mutant(
        "the last container stops while its pool is active",
        "6", "autoscaler.idle_limit_s", " or facts.ready == 1", "",
        ("calm", "limits"),
    ),
    Mutant(
        "a container runs a batch again that it knows",
        "7", "occupancy.Occupancy.arrive", "if known is not None:", "if False:",
        ("losses",),
    ),
    Mutant(
        "a batch whose call failed is queued again",
        "7", "dispatch.Dispatch.handle", "heappush(self._repeats, (now + RESEND_S, -batch_id))", _QUEUE_AGAIN,
        ("losses",),
    ),
    Mutant(
        "a batch whose call failed is not sent again",
        "7", "dispatch.Dispatch.handle", "heappush(self._repeats, (now + RESEND_S, -batch_id))", "pass",
        ("losses",),
    ),
    Mutant(
        "a repeat of a batch runs whose answer is forgotten",
        "7", "occupancy.Occupancy.arrive", "key[1] < self._oldest_open[lease_number]", "False",
        ("losses",), 1203,
    ),
    Mutant(
        "answers are kept for ever",
        "7", "occupancy.Occupancy._forget_answered", "<= KEEP_ANSWER_S", "<= 1e9",
        ("settings", "calm"),
    ),
    Mutant(
        "a reclaimed input that has moved on is moved again",
        "8", "dispatch.Dispatch._take_reclaimed", " if batch.is_open(entry[0])", "",
        ("losses", "burst"),
    ),
    Mutant(
        "the answer to a batch counts for inputs that have moved on",
        "8", "dispatch.Dispatch._take_answer", "batch.open_positions()", "range(len(batch.input_ids))",
        ("losses", "burst"),
    ),
    Mutant(
        "what comes from a batch that is over counts",
        "8", "dispatch.Dispatch._take_answer", "self._batches.pop(event.batch_id, None)", "self._batches.get(event.batch_id)",
        ("calm",),
    ),
    Mutant(
        "a cancellation is not repeated",
        "8", "dispatch.Dispatch._cancel_in_batch", "heappush(self._repeats, (now + REPEAT_S, batch.batch_id))", "pass",
        ("a_cancelled_input_is_interrupted",),
    ),
    Mutant(
        "unstarted inputs are not asked back",
        "8", "dispatch.Dispatch._ask_back", "self._effects.append(ReclaimBatch(batch.batch_id, batch.slot.lease.container_id))", "pass",
        ("no_input_waits_behind_a_long_one",),
    ),
    Mutant(
        "a container that was found is used before it has answered",
        "9", "pool.Pool._adopt", "self.ledger.add(container_id, State.LAUNCHED, now, found=True)",
        "self.scaling.became_ready(self.ledger.add(container_id, State.LAUNCHED, now, found=True), now)",
        ("restarts",),
    ),
    Mutant(
        "leases of an earlier epoch are not listed again",
        "9", "pool.Pool._take_held", "if held_lease.number < self.config.epoch * EPOCH:", "if False:",
        ("restarts",), 80,
    ),
    Mutant(
        "asks are decided before every caller has reported",
        "9", "pool.Pool._admit", " or self.recovering", "",
        ("restarts",),
    ),
    Mutant(
        "containers are stopped before every caller has reported",
        "9", "pool.Pool.handle", "may_shrink=not self.recovering", "may_shrink=True",
        ("a_restarted_controller_stops_nothing_that_is_held",),
    ),
    Mutant(
        "leases that no report has seen do not lower the demand",
        "10", "callers.Callers.recount", "+ unseen - caller.unseen_leases", "+ unseen",
        ("one_input_starts_one_container",),
    ),
    Mutant(
        "no slot moves between callers",
        "11", "callers.Callers.share", "while needy and holders:", "while False:",
        ("callers_share_a_container_evenly",),
    ),
    Mutant(
        "slots move at once",
        "11", "callers.SETTLED_S", "", 0.0,
        ("callers_share_a_container_evenly",),
    ),
    Mutant(
        "at-most-once inputs travel together",
        "14", "dispatch.Dispatch._take_queued", "1 if self._at_most_once else ", "",
        ("burst", "calm"),
    ),
    Mutant(
        "at-most-once inputs are sent ahead",
        "14", "dispatch.Dispatch._takes_ahead", " or self._at_most_once", "",
        ("burst", "calm"),
    ),
    Mutant(
        "an at-most-once input is run again after a death",
        "14", "retry.runs_again_after_loss", "not at_most_once and ", "",
        ("deaths",),
    ),
    Mutant(
        "every loss counts, whoever was to blame",
        "14", "dispatch.Dispatch._lose_input", "+ alone", "+ 1",
        ("poison",),
    ),
    Mutant(
        "an input that was lost travels with others",
        "14", "dispatch.Dispatch._lose_input", "self._alone.append(input_id)", "self._queue.append(input_id)",
        ("poison",),
    ),
    Mutant(
        "containers on their way out do not count",
        "15", "scaling.Scaling._start", "- len(self._ledger))", "- len(self._ledger) + self._ledger.count(State.STOPPING))",
        ("settings", "calm", "burst"),
    ),
    Mutant(
        "a container that does not know a repeated at-most-once batch runs it",
        "7", "occupancy.Occupancy.arrive", "lost = again and at_most_once", "lost = False",
        ("losses", "everything"),
    ),
    Mutant(
        "an ask waits for the next report",
        "16", "reporting.Reporting.is_due", "if tally.asked > told.asked and tally.decided >= told.asked:", "if False:",
        ("a_call_beside_a_long_one_takes_a_few_hops",),
    ),
    Mutant(
        "a lease taken or given back waits for the next report",
        "16", "reporting.Reporting.is_due", "self.held_changed or ", "",
        ("calm", "burst", "callers_share_a_container_evenly"),
    ),
    Mutant(
        "waiting that grows by half waits for the next report",
        "16", "reporting.Reporting.is_due", "if standing.waiting > 1.5 * self._told_standing.waiting:", "if False:",
        ("calm", "deaths"),
    ),
    Mutant(
        "demand waits for the tick",
        "autoscaling", "scaling.Scaling.run", "ticked or demand_grew or now - self._decided_at >= DECIDE_EVERY_S", "ticked",
        ("calm",),
    ),
    Mutant(
        "starts that fail are not given up",
        "autoscaling", "scaling.Scaling.start_failed", "self._gives_up or (self.failed_starts >= GIVE_UP_AFTER and not self.ever_ready)",
        "False",
        ("broken",),
    ),
    Mutant(
        "starts that fail are repeated at once",
        "autoscaling", "scaling.Scaling.start_failed", "now + start_backoff_s(self.failed_starts)", "now",
        ("starts_that_fail_are_spaced_out",),
    ),
    Mutant(
        "a container that became ready does not end the pause",
        "autoscaling", "scaling.Scaling.became_ready", "self._retry_at = now", "pass",
        ("deaths",), 94,
    ),
    Mutant(
        "retries come at once",
        "retries", "retry.retry_delay_s", "return min(", "return 0 * min(",
        ("calm", "limits"),
    ),
    Mutant(
        "retries never end",
        "retries", "retry.retry_delay_s", " or attempt > policy.max_retries", "",
        ("calm", "limits"),
    ),
    Mutant(
        "the ends of batches are remembered for ever",
        "memory", "dispatch.Dispatch._run_timers", "self._endings and self._endings[0][1] not in self._batches", "False",
        ("calm",),
    ),
    Mutant(
        "a cancelled input stays in the queue",
        "cancel", "dispatch.Dispatch._cancel", '"_asking_maps", "_queue", ', '"_asking_maps", ',
        ("calm", "burst", "limits"),
    ),
    Mutant(
        "slots of a dead container count as supply",
        "autoscaling", "callers.Callers.recount", "min(report.assigned, out)", "report.assigned",
        ("everything",), 492,
    ),
    Mutant(
        "the handle of a container stays when its lease does not",
        "1", "dispatch.Dispatch._take_leases", "self._forget_unheld(stale)", "pass",
        ("partitions",), 38,
    ),
)
