"""The comparison as text: what the command prints and what the page in docs/ says."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tests.bench.policies.comparison import (
    VALUES,
    Figures,
    Table,
    better_in_both,
    mean_regret,
    policies,
    regret_on,
)
from tests.bench.policies.ours import Ours
from tests.bench.policies.reach import Reach

BOUNDS = {10.0: 1.10, 30.0: 1.06, 100.0: 1.20}
"""Mean regrets that ours must not exceed."""
LOSES_FROM = 1.05
"""Regrets of ours from here on are told with who did better."""


def table_of(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns line up; the first is text, the others are numbers."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = [" | ".join(_aligned(row, widths)) for row in [head, *rows]]
    rule = " | ".join(
        "-" * widths[column] if column == 0 else "-" * (widths[column] - 1) + ":"
        for column in range(len(head))
    )
    return "\n".join(f"| {line} |" for line in [lines[0], rule, *lines[1:]])


def _aligned(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [
        cell.ljust(width) if column == 0 else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]


def regrets(table: Table) -> str:
    """The mean regret of every policy at every value of waiting."""
    rows = [
        [policy, *(f"{mean_regret(table, policy, value):.2f}" for value in VALUES)]
        for policy in policies(table)
    ]
    return table_of(["mean regret", *(f"v = {value:g}" for value in VALUES)], rows)


def regrets_by_trace(table: Table, value: float = 30.0) -> str:
    """Regret of every policy on every trace."""
    head = ["v = 30", *policies(table)]
    rows = [
        [trace, *(f"{regret_on(of, policy, value):.2f}" for policy in policies(table))]
        for trace, of in table.items()
    ]
    return table_of(head, rows)


def by_trace(table: Table) -> str:
    """All figures of every trace, one table each."""
    head = ["", "wait p50", "p99", "mean, s", "container-s", "starts", *(f"J({v:g})" for v in VALUES)]
    return "\n\n".join(
        table_of([trace, *head[1:]], [_figures(row) for row in rows.values()])
        for trace, rows in table.items()
    )


def _figures(row: Figures) -> list[str]:
    waits = [f"{seconds:.2f}" for seconds in (row.p50_s, row.p99_s)]
    counts = [f"{number:,.0f}" for number in (row.container_s, row.launches)]
    return [row.policy, *waits, f"{row.mean_wait_s:.3f}", *counts, *(f"{row.price(v):,.0f}" for v in VALUES)]


def goals(table: Table, reached: Sequence[Reach]) -> list[Reach]:
    """Everything that the policy must reach, the regrets included."""
    found = [
        Reach(
            f"mean regret at v = {value:g}",
            f"{mean_regret(table, Ours.name, value):.3f}",
            f"<= {bound:.2f}",
            mean_regret(table, Ours.name, value) <= bound,
        )
        for value, bound in BOUNDS.items()
    ]
    both = better_in_both(table)
    found.append(Reach("traces and peers better in waiting and cost", str(len(both)), "0", not both))
    return found + list(reached)


def goals_table(found: Sequence[Reach]) -> str:
    """The goals and whether they are met."""
    return table_of(
        ["goal", "figure", "bound", ""],
        [[one.what, one.figure, one.bound, "reached" if one.reached else "missed"] for one in found],
    )


def losses(table: Table) -> str:
    """Where another policy has a J at v = 30 that is lower by a twentieth, or is better in both."""
    lines = []
    for trace, rows in table.items():
        regret = regret_on(rows, Ours.name, 30.0)
        if regret >= LOSES_FROM:
            best = min(rows.values(), key=lambda row: row.price(30.0))
            lines.append(
                f"- **{trace}**: J is {regret:.2f} times that of {best.policy}. {_compared(rows, best)}"
            )
    for value in VALUES:
        regret_of = {policy: mean_regret(table, policy, value) for policy in policies(table)}
        best_policy = min(regret_of, key=lambda policy: regret_of[policy])
        if best_policy != Ours.name:
            lines.append(
                f"- In the mean over all traces, **at v = {value:g}**, {best_policy} is ahead: "
                f"{regret_of[best_policy]:.2f} against {regret_of[Ours.name]:.2f}."
            )
    for trace, peer in better_in_both(table):
        compared = _compared(table[trace], table[trace][peer])
        lines.append(f"- **{trace}**: {peer} is better in waiting and in cost. {compared}")
    return "\n".join(lines) or "Nowhere by a twentieth or more."


def _compared(rows: dict[str, Figures], other: Figures) -> str:
    ours = rows[Ours.name]
    return (
        f"Ours waits {ours.mean_wait_s:.3f} s in the mean for {ours.container_s:,.0f} container-seconds, "
        f"it {other.mean_wait_s:.3f} s for {other.container_s:,.0f}."
    )


def printed(table: Table, found: Sequence[Reach], say: Callable[[str], None]) -> None:
    """Everything, for the terminal."""
    for part in (by_trace(table), regrets_by_trace(table), regrets(table), goals_table(found), losses(table)):
        say("\n" + part)
