"""`flexray top`: pools, inputs, containers and nodes as they are now, drawn anew each second.

One rule: it only looks; where nobody watches a terminal it prints once.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flexray import backend
from flexray.cli.cluster import NODE_COLUMNS, node_rows
from flexray.cli.printing import drawn_table, labelled
from flexray.output import is_terminal

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

STATES = ("ready", "loading", "launched", "stopping")


def top(
    every: Annotated[float, typer.Option(help="Seconds between two looks.", min=0.2)] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Print once and end.")] = False,
) -> Callable[[], None]:
    """Watch pools, inputs, containers by state, nodes and decisions; Ctrl-C ends it."""
    return lambda: _top(every, once)


def _top(every_s: float, once: bool) -> None:
    from rich.console import Console  # Only what draws needs rich.
    from rich.live import Live

    console = Console()
    if once or not is_terminal(sys.stdout):
        if not console.is_terminal:
            console.width = 160
        console.print(_look())
        return
    try:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                live.update(_look(), refresh=True)
                time.sleep(every_s)
    except KeyboardInterrupt:
        return  # That is how it ends.


def _look() -> RenderableType:
    view = backend.cluster_view()
    pools = [] if view.controller is None else backend.connect(join=True).pools()
    return _drawn(view, sorted(pools, key=lambda pool: (-pool.waiting, -pool.running, pool.pool_id)))


def _drawn(view: Any, pools: list[Any]) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    busy = [pool for pool in pools if pool.waiting or pool.running or any(pool.containers.values())]
    idle = len(pools) - len(busy)
    head = Text(
        f"{sum(pool.waiting for pool in pools):,} waiting, {sum(pool.running for pool in pools):,} running, "
        f"{_count(len(view.containers), 'container')} on {_count(len(view.nodes), 'node')}"
    )
    parts: list[Any] = [head, Text(), _pool_table(busy)]
    if idle:
        parts.append(Text(f"and {idle:,} more that have nothing", style="dim"))
    notes = {pool.notice: None for pool in busy if pool.notice is not None}
    parts += [Text(f"note: {note}", style="yellow") for note in notes]
    return Group(*parts, Text(), drawn_table(NODE_COLUMNS, node_rows(view), NODE_COLUMNS[2:]))


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _pool_table(pools: list[Any]) -> Table:
    states = [state for state in STATES if any(pool.containers.get(state) for pool in pools)]
    numbers = ("waiting", "running", *states)
    rows = [
        (
            labelled(pool),
            f"{pool.waiting:,}",
            f"{pool.running:,}",
            *[pool.containers.get(state, 0) or "-" for state in states],
            pool.why,
        )
        for pool in pools
    ]
    return drawn_table(("function", *numbers, "now"), rows, numbers, folded="now")
