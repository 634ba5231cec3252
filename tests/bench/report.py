"""The figures for people and for programs, with the machine that they are from."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.measure import Plan, Row

HEADINGS = ("work", "ours", "peer", "", "value", "from", "to", "must reach", "")


def table(rows: Sequence[Row]) -> str:
    """One line for each row, in columns; notes below."""
    lines = [HEADINGS, *[_cells(row) for row in rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    texts = [
        "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines
    ]
    notes = [f"{row.work}: {row.note}" for row in rows if row.note]
    return "\n".join([*texts, "", *notes]).rstrip()


def markdown(rows: Sequence[Row]) -> str:
    """The same as a table of a document."""
    lines = [("work", "FlexRay", "peer", "", "value", "must reach", "")]
    lines += [(*cells[:5], *cells[7:]) for cells in map(_cells, rows)]
    texts = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([texts[0], "|---" * len(lines[0]) + "|", *texts[1:]])


def _cells(row: Row) -> tuple[str, ...]:
    ours = f"{_number(median(row.ours))} {row.unit}"
    theirs = f"{_number(median(row.theirs))} {row.unit}" if row.theirs else "-"
    times = " times" if row.theirs else f" {row.unit}"
    bound = f"{'>=' if row.at_least else '<='} {row.reach:g}{times}"
    lowest, highest = row.values[0], row.values[-1]
    reached = "reached" if row.is_reached else "MISSED"
    return (
        row.work,
        ours,
        row.peer,
        theirs,
        _number(row.value),
        _number(lowest),
        _number(highest),
        bound,
        reached,
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def as_json(rows: Sequence[Row], plan: Plan, load_before: float) -> dict[str, Any]:
    """Everything, for a file."""
    return {
        "machine": {**machine(), "load_before": load_before},
        "repeat": plan.repeat,
        "share": plan.share,
        "rows": [row.as_json() for row in rows],
    }


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    import ray  # The only thing here that needs it.

    import flexray

    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "ray": ray.__version__,
        "flexray": flexray.__version__,
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
