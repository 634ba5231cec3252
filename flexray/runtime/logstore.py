"""What containers of deployed apps have printed, in one SQLite file.

One rule: of each app the newest is kept, up to a size and an age; nothing else is ever lost here. This module
knows no Ray.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from flexray.runtime.database import Database

KEPT_CHARACTERS = 32 << 20
"""Of each app; a quarter is dropped where there is more."""
KEPT_S = 7 * 86400.0

SCHEMAS = (
    """
CREATE TABLE lines (
    id INTEGER PRIMARY KEY AUTOINCREMENT, app TEXT NOT NULL, function TEXT NOT NULL, container TEXT NOT NULL,
    at REAL NOT NULL, stream TEXT NOT NULL, text TEXT NOT NULL
);
CREATE INDEX lines_of_app ON lines (app, id);
""",
)


class Printed(NamedTuple):
    """Whole lines that a container has printed at once."""

    app: str
    function: str
    container: str
    """Its id, `APP/FUNCTION#N`."""
    at: float
    """Seconds since the epoch of Unix."""
    stream: str
    """`stdout`, `stderr`, or `failure`: the traceback of an input or of a start."""
    text: str


class Wanted(NamedTuple):
    """Which lines are asked for; None stands for all."""

    app: str
    function: str | None = None
    container: str | None = None
    since: float | None = None


class LogStore(Database):
    """The lines of one cluster."""

    def __init__(self, path: Path | str) -> None:
        super().__init__(path, SCHEMAS)
        rows = self._run("SELECT app, sum(length(text)) FROM lines GROUP BY app")
        self._sizes: dict[str, int] = dict(rows)

    def add(self, lines: Iterable[Printed]) -> None:
        """Keep these, in their order."""
        for line in lines:
            self._run(
                "INSERT INTO lines (app, function, container, at, stream, text) VALUES (?, ?, ?, ?, ?, ?)",
                *line,
            )
            self._sizes[line.app] = self._sizes.get(line.app, 0) + len(line.text)
        for app in [app for app, size in self._sizes.items() if size > KEPT_CHARACTERS]:
            self._drop_oldest(app)

    def newest(self, wanted: Wanted, limit: int) -> list[tuple[int, Printed]]:
        """(number, lines) of the last so many prints, the oldest first."""
        where, values = _where(wanted)
        rows = self._run(f"{_SELECT} WHERE {where} ORDER BY id DESC LIMIT ?", *values, limit)
        return [(row[0], Printed(*row[1:])) for row in reversed(rows)]

    def after(self, wanted: Wanted, number: int, limit: int) -> list[tuple[int, Printed]]:
        """The same of the first so many after that number."""
        where, values = _where(wanted)
        rows = self._run(f"{_SELECT} WHERE {where} AND id > ? ORDER BY id LIMIT ?", *values, number, limit)
        return [(row[0], Printed(*row[1:])) for row in rows]

    def apps(self) -> list[str]:
        """Of which there are lines."""
        return [row[0] for row in self._run("SELECT DISTINCT app FROM lines ORDER BY app")]

    def drop_before(self, at: float) -> None:
        """Forget what was printed before that time."""
        self._run("DELETE FROM lines WHERE at < ?", at)
        self._sizes = dict(self._run("SELECT app, sum(length(text)) FROM lines GROUP BY app"))

    def _drop_oldest(self, app: str) -> None:
        sizes = self._run("SELECT id, length(text) FROM lines WHERE app = ? ORDER BY id", app)
        self._sizes[app] = sum(size for _, size in sizes)  # Writes that failed were counted, too.
        for number, size in sizes:
            if self._sizes[app] <= KEPT_CHARACTERS * 3 // 4:
                self._run("DELETE FROM lines WHERE app = ? AND id < ?", app, number)
                break
            self._sizes[app] -= size


_SELECT = "SELECT id, app, function, container, at, stream, text FROM lines"


def _where(wanted: Wanted) -> tuple[str, list[object]]:
    terms: list[str] = ["app = ?"]
    values: list[object] = [wanted.app]
    for column, compared, value in (
        ("function", "=", wanted.function),
        ("container", "=", wanted.container),
        ("at", ">=", wanted.since),
    ):
        if value is not None:
            terms.append(f"{column} {compared} ?")
            values.append(value)
    return " AND ".join(terms), values
