"""Waiting against cost, one panel per trace."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from tests.bench.policies.comparison import Figures, Table, policies
from tests.bench.policies.ours import Ours

COLUMNS = 4
FLOOR_S = 0.001
"""Shorter mean waits are drawn here: the axis is logarithmic."""
MARKS = ("*", "o", "s", "^", "D", "v", "P", "X", "h")
COLOURS = ("#d62728", "#1f77b4", "#4c9ed9", "#9fcbee", "#2ca02c", "#7f7f7f", "#bcbd22", "#9467bd", "#8c564b")


def draw(table: Table, path: Path) -> None:
    """Write the small multiples to `path` as PNG."""
    rows = -(-(len(table) + 1) // COLUMNS)
    figure, grid = plt.subplots(rows, COLUMNS, figsize=(3.6 * COLUMNS, 3.0 * rows), layout="constrained")
    panels: list[Axes] = list(grid.flat)
    for panel, (trace, of) in zip(panels, table.items(), strict=False):
        _panel(panel, trace, of)
    names = policies(table)
    spare = panels[len(table)]
    spare.axis("off")
    handles = [_mark(spare, [], [], names.index(name), name) for name in names]
    spare.legend(handles=handles, loc="center", frameon=False, fontsize=10)
    for panel in panels[len(table) + 1 :]:
        panel.axis("off")
    figure.supxlabel("container-seconds")
    figure.supylabel("mean wait of an input, s")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _panel(panel: Axes, trace: str, of: dict[str, Figures]) -> None:
    panel.set_title(trace, fontsize=10)
    panel.set_xscale("log")
    panel.set_yscale("log")
    for number, row in enumerate(of.values()):
        _mark(panel, [row.container_s], [max(FLOOR_S, row.mean_wait_s)], number, row.policy)
    best = min(row.price(30.0) for row in of.values())
    inputs = next(row.waited_s / row.mean_wait_s for row in of.values() if row.mean_wait_s)
    costs = [best * step / 200 for step in range(1, 200)]
    waits = [(best - cost) / 30.0 / inputs for cost in costs]
    limits = panel.get_xlim(), panel.get_ylim()
    panel.plot(costs, waits, ":", color="#999999", linewidth=1, zorder=0)
    panel.set_xlim(limits[0])
    panel.set_ylim(limits[1])
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=5))
        axis.set_major_formatter(FuncFormatter(_plain))
        axis.set_minor_formatter(NullFormatter())
    panel.tick_params(labelsize=8, which="both")
    panel.grid(visible=True, which="major", color="#eeeeee")


def _plain(value: float, _: object) -> str:
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"


def _mark(panel: Axes, x: list[float], y: list[float], number: int, name: str) -> object:
    ours = name == Ours.name
    return panel.plot(
        x,
        y,
        MARKS[number],
        color=COLOURS[number],
        markersize=13 if ours else 7,
        markeredgecolor="black" if ours else "none",
        label=name,
        zorder=3 if ours else 2,
    )[0]
