"""Draws a grid search: what was found, and which container ran what when."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np

if TYPE_CHECKING:
    from grid_search import Score
    from matplotlib.axes import Axes
    from pool_watch import PoolWatch

LOWEST_SHOWN = 0.86
"""Accuracies below it have the darkest colour: chance is 0.1, and the interesting ones are close together."""
HIGHEST_SHOWN = 0.99
COLOURS = {"SVC": "#2f6f9f", "RandomForest": "#4f9d69", "kNN": "#e0a030"}
INK, PALE, FAINT = "#2b2f36", "#8a919c", "#eef0f3"


@dataclass(frozen=True)
class Round:
    title: str
    scores: list[Score]

    def of(self, model: str) -> list[Score]:
        return [score for score in self.scores if score.point.model == model]


def short(value: float, digits: int = 3) -> str:
    """As 0.000316, 1.78, 1000."""
    return f"{float(f'{value:.{digits}g}'):g}"


def draw(rounds: list[Round], watch: PoolWatch, path: Path) -> None:
    mpl.use("agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415  # It settles on a backend when it is imported.

    plt.rcParams.update({"font.size": 9, "text.color": INK, "axes.labelcolor": INK, "axes.titlesize": 10.5})
    figure = plt.figure(figsize=(13, 9.6), layout="constrained", facecolor="white")
    figure.get_layout_engine().set(h_pad=0.09, w_pad=0.09)
    top, middle, bottom = figure.add_gridspec(3, 1, height_ratios=[4.4, 4.4, 1.5])
    places = top.subgridspec(1, 4, width_ratios=[6, 5, 3.2, 2.2])
    coarse, fine = rounds
    maps = [figure.add_subplot(place) for place in places]
    image = draw_heat_map(maps[0], coarse.of("SVC"), "gamma", "C", "SVC, coarse round")
    draw_heat_map(maps[1], fine.of("SVC"), "gamma", "C", "SVC, fine round: around the best")
    draw_heat_map(maps[2], coarse.of("RandomForest"), "max_depth", "n_estimators", "Random forest")
    draw_heat_map(maps[3], coarse.of("kNN"), None, "n_neighbors", "Nearest neighbours")
    bar = figure.colorbar(image, ax=maps, extend="min", pad=0.01, aspect=30, format="{x:.0%}")
    bar.outline.set_visible(False)
    timeline = figure.add_subplot(middle)
    draw_timeline(timeline, rounds, watch.began_at)
    counts = figure.add_subplot(bottom, sharex=timeline)
    draw_counts(counts, watch)
    timeline.tick_params(labelbottom=False)
    best = max((score for found in rounds for score in found.scores), key=lambda score: score.accuracy)
    figure.suptitle(
        f"Handwritten digits: {best.point.model} with {best.point} is right in {best.accuracy:.2%} of cases",
        fontsize=15,
        fontweight="bold",
        x=0.008,
        ha="left",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def draw_heat_map(axes: Axes, scores: list[Score], across: str | None, up: str, title: str) -> Any:
    """Accuracies over one parameter (`across` None) or two."""
    columns = sorted({score.point.parameters[across] for score in scores}) if across else [0]
    rows = sorted({score.point.parameters[up] for score in scores})
    grid = np.zeros((len(rows), len(columns)))
    for score in scores:
        column = columns.index(score.point.parameters[across]) if across else 0
        grid[rows.index(score.point.parameters[up]), column] = score.accuracy
    image = axes.imshow(
        grid, origin="lower", aspect="auto", cmap="viridis", vmin=LOWEST_SHOWN, vmax=HIGHEST_SHOWN
    )
    middle = (LOWEST_SHOWN + HIGHEST_SHOWN) / 2
    for (row, column), accuracy in np.ndenumerate(grid):
        best = accuracy == grid.max()
        axes.text(
            column,
            row,
            f"{accuracy * 100:.1f}",
            ha="center",
            va="center",
            color="white" if accuracy < middle else INK,
            fontweight="bold" if best else "normal",
            fontsize=8.5,
        )
        if best:
            frame = {"fill": False, "edgecolor": "#d1345b", "linewidth": 2.2}
            axes.add_patch(mpl.patches.Rectangle((column - 0.48, row - 0.48), 0.96, 0.96, **frame))
    axes.set_title(title, loc="left", fontweight="bold")
    axes.set_xticks(range(len(columns)), [short(value, 2) for value in columns] if across else [])
    axes.set_yticks(range(len(rows)), [short(value, 2) for value in rows])
    axes.set_xlabel(across or "")
    axes.set_ylabel(up, labelpad=2)
    _strip(axes)
    return image


def draw_timeline(axes: Axes, rounds: list[Round], began_at: float) -> None:
    """A row for each container, a bar for each input."""
    scores = [score for found in rounds for score in found.scores]
    first = {}
    for score in sorted(scores, key=lambda score: score.began_at):
        first.setdefault(score.container, len(first))
    for container, row in first.items():
        mine = [score for score in scores if score.container == container]
        begin = min(score.began_at for score in mine) - began_at
        end = max(score.ended_at for score in mine) - began_at
        axes.barh(row, end - begin, left=begin, height=0.82, color=FAINT, zorder=1)
    for model, colour in COLOURS.items():
        mine = [score for score in scores if score.point.model == model]
        axes.barh(
            [first[score.container] for score in mine],
            [score.ended_at - score.began_at for score in mine],
            left=[score.began_at - began_at for score in mine],
            height=0.6,
            color=colour,
            edgecolor="white",
            linewidth=0.7,
            label=f"{model} ({len(mine)})",
            zorder=2,
        )
    axes.invert_yaxis()
    axes.set_yticks(range(len(first)), [f"container {row + 1}\nprocess {pid}" for pid, row in first.items()])
    axes.tick_params(axis="y", labelsize=7.5)
    axes.set_title("Which container ran which input when", loc="left", fontweight="bold")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, frameon=False)
    axes.grid(axis="x", color=FAINT, zorder=0)
    _strip(axes)


def draw_counts(axes: Axes, watch: PoolWatch) -> None:
    """How many containers there were."""
    at_s, ready, starting = (np.array(column) for column in zip(*watch.counts, strict=True))
    axes.fill_between(at_s, ready, step="post", color="#5b6b82", linewidth=0, label="ready")
    axes.fill_between(
        at_s, ready, ready + starting, step="post", color="#c3cbd6", linewidth=0, label="starting"
    )
    axes.set_title("Containers", loc="left", fontweight="bold")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False)
    axes.set_xlabel("seconds")
    axes.set_ylim(0)
    axes.set_xlim(0, at_s[-1] + 0.5)
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.grid(color=FAINT)
    axes.set_axisbelow(True)
    _strip(axes)


def _strip(axes: Axes) -> None:
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, colors=INK)
