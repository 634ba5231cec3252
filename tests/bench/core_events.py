"""What one event costs the controller's pool and a caller's dispatch, by the number of containers.

A pool with 10,000 containers must answer an event about as fast as one with 10: nothing but the decision
whether to start more may look at all of them, and that looks at counts.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from flexray.config import AutoscalerSettings, Limits
from flexray.core.dispatch import Dispatch
from flexray.core.events import (
    AnswerReport,
    BatchReturned,
    ContainerPlaced,
    ContainerReady,
    InputsSubmitted,
    Lease,
    Reply,
    ReplyReceived,
    Report,
    ReportReceived,
    SendBatch,
    SendReport,
    StartContainer,
    Ticked,
)
from flexray.core.pool import Pool, PoolConfig
from flexray.core.status import OK

SMALL = (10, 1)
"""Leases of each caller, callers."""
LARGE = (100, 100)
EVENTS = 2_000
TICK_S = 0.04
"""So short that no parked report is due for its answer."""


def core_events(events: int = EVENTS) -> dict[str, dict[str, float]]:
    """Microseconds per event with 10 and with 10,000 containers, and their ratio, by kind of event."""
    return {
        name: _compared(lambda size, measure=measure: measure(size, events))  # type: ignore[misc]
        for name, measure in MEASURED.items()
    }


def _compared(measure: Callable[[tuple[int, int]], float]) -> dict[str, float]:
    small_us, large_us = measure(SMALL), measure(LARGE)
    return {
        "small_us": round(small_us, 1),
        "large_us": round(large_us, 1),
        "ratio": round(large_us / small_us, 2),
    }


class Crowd:
    """A pool whose containers are all leased, and the callers that lease them."""

    def __init__(self, leases: int, callers: int) -> None:
        settings = AutoscalerSettings(max_containers=leases * callers)
        limits = Limits(pending=10**6, total=10**7)
        self.now = 0.0
        self.pool = Pool(PoolConfig("f", 1, settings=settings, limits=limits), 0.0)
        self.reports: dict[str, Report] = {}
        self.newest: dict[str, Reply] = {}
        for number in range(callers):
            self.report(Report(f"d{number}", 1, 0, asked=leases, arrived=leases))
        while self.pool.ledger.ready < leases * callers:
            self.now += 0.3
            self.tell(Ticked())
        for dispatcher_id, caller in self.pool.callers:
            while caller.parked_at is None:
                self.answer(dispatcher_id, waiting=0, assigned=leases)

    def tell(self, event: object) -> None:
        waiting = [event]
        while waiting:
            for effect in self.pool.handle(waiting.pop(), self.now):  # type: ignore[arg-type]
                if isinstance(effect, StartContainer):
                    waiting += [ContainerReady(effect.container_id), ContainerPlaced(effect.container_id)]
                elif isinstance(effect, AnswerReport) and effect.reply is not None:
                    self.newest[effect.dispatcher_id] = effect.reply

    def report(self, report: Report) -> None:
        self.reports[report.dispatcher_id] = report
        self.tell(ReportReceived(report))

    def answer(self, dispatcher_id: str, **changes: int) -> None:
        """The next report of this caller: it has taken in the newest reply."""
        last, reply = self.reports[dispatcher_id], self.newest[dispatcher_id]
        seen = {
            "seen": reply.number,
            "held": reply.leases,
            "decided": reply.decided,
            "admitted": reply.admitted,
        }
        self.report(replace(last, number=last.number + 1, **{**seen, **changes}))  # type: ignore[arg-type]

    def asks(self) -> Iterator[Callable[[], None]]:
        """Callers in turn ask for one input more each, and are answered."""
        while True:
            for dispatcher_id in self.reports:
                asked = self.reports[dispatcher_id].asked + 1
                yield lambda i=dispatcher_id, a=asked: self.answer(i, asked=a, waiting=1)  # type: ignore[misc]

    def ticks(self) -> Iterator[Callable[[], None]]:
        while True:
            self.now += TICK_S
            yield lambda: self.tell(Ticked())


def _per_event_us(steps: Iterator[Callable[[], None]], events: int) -> float:
    """Microseconds of the median tenth of the events."""
    gc.collect()
    gc.disable()
    try:
        parts = []
        for _ in range(10):
            begun = time.perf_counter()
            for _ in range(events // 10):
                next(steps)()
            parts.append((time.perf_counter() - begun) / (events // 10) * 1e6)
    finally:
        gc.enable()
    return sorted(parts)[len(parts) // 2]


def pool_report_us(size: tuple[int, int], events: int) -> float:
    """A report with an ask, its verdict, and the reply."""
    return _per_event_us(Crowd(*size).asks(), events)


def pool_tick_us(size: tuple[int, int], events: int) -> float:
    return _per_event_us(Crowd(*size).ticks(), min(events, 200))


def dispatch_call_us(size: tuple[int, int], events: int) -> float:
    """A call on a free slot of a caller that holds them all, and its answer."""
    leases = size[0] * size[1]
    dispatch = Dispatch("d")
    dispatch.handle(InputsSubmitted(range(leases)), 0.0)
    held = tuple(Lease(number + 1, f"f#{number}") for number in range(leases))
    effects = dispatch.handle(ReplyReceived(Reply(1, held, leases, leases, room=True), 1), 0.0)
    now, calls = 0.0, leases

    def finish(batch: SendBatch) -> None:
        count = len(batch.input_ids)
        dispatch.handle(
            BatchReturned(batch.batch_id, bytes([OK]) * count, [None] * count, ran=count, busy_s=count), now
        )

    for effect in effects:
        if isinstance(effect, SendBatch):
            finish(effect)

    def call() -> None:
        nonlocal now, calls
        now, calls = now + 1e-4, calls + 1
        for effect in dispatch.handle(InputsSubmitted((calls,)), now):
            if isinstance(effect, SendBatch):
                finish(effect)
            elif isinstance(effect, SendReport):
                seen = effect.report
                reply = Reply(seen.number + 1, seen.held, seen.asked, seen.asked, room=True)
                dispatch.handle(ReplyReceived(reply, seen.number), now)

    def calls_for_ever() -> Iterator[Callable[[], None]]:
        while True:
            yield call

    return _per_event_us(calls_for_ever(), events)


MEASURED = {
    "pool: a report with an ask": pool_report_us,
    "pool: a tick": pool_tick_us,
    "dispatch: a call and its answer": dispatch_call_us,
}

if __name__ == "__main__":
    json.dump(core_events(), sys.stdout, indent=2)
    sys.stdout.write("\n")
