"""How commands print: tables for people, JSON for programs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from rich.table import Table

UNBOUNDED = 10_000

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def say(text: object) -> None:
    """Print a line of the command's own."""
    print(text, flush=True)  # noqa: T201  # It is what was asked for.


def say_json(value: Any) -> None:
    """Print it for programs."""
    say(json.dumps(value, indent=2))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], right: Sequence[str] = ()) -> None:
    """Print rows below the names of their columns, those in `right` as numbers are."""
    from rich.console import Console  # Only tables need rich.

    console = Console(soft_wrap=True)
    if not console.is_terminal:
        console.width = UNBOUNDED  # Nothing is cut off where nobody's window is the reason.
    console.print(drawn_table(columns, rows, right))


def drawn_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    right: Sequence[str] = (),
    folded: str | None = None,
) -> Table:
    """The same to be drawn; the column `folded` takes several lines where the window is narrow."""
    from rich.table import Table

    drawn = Table(box=None, pad_edge=False)
    for name in columns:
        justify: Literal["right", "left"] = "right" if name in right else "left"
        drawn.add_column(name, no_wrap=name != folded, justify=justify, overflow="fold")
    for row in rows:
        drawn.add_row(*[str(cell) for cell in row])
    return drawn


def labelled(pool: Any) -> str:
    """A pool's id, with what tells it from others of its function where that is in words."""
    return f"{pool.pool_id} ({pool.variant})" if pool.variant else str(pool.pool_id)


def ago(at: float) -> str:
    """How long ago that time was, in seconds since the epoch of Unix: "5 min ago"."""
    seconds = time.time() - at
    for unit, length_s in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length_s:
            return f"{seconds / length_s:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
