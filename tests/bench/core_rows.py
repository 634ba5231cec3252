"""What an event costs in the core, with 10,000 containers beside 10."""

from __future__ import annotations

from tests.bench.core_events import EVENTS, core_events
from tests.bench.measure import Plan, Row


def core_event(plan: Plan) -> list[Row]:
    """One row for each kind of event; the machine's noise hits both sizes alike only over turns."""
    turns = [core_events(plan.count(EVENTS, 100)) for _ in range(plan.repeat)]
    return [
        Row(
            f"{kind}, at 10,000 containers",
            "us",
            [turn[kind]["large_us"] for turn in turns],
            "at 10 containers",
            [turn[kind]["small_us"] for turn in turns],
            2.0,
        )
        for kind in turns[0]
    ]
