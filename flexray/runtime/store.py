"""What the controller must still know after it was killed, in one SQLite file.

One rule: a call that returned is on the disk. The controller writes first and acts after.

One file belongs to one Ray cluster and has one owner at a time: SQLite's exclusive lock, which the system
frees when the owner dies, keeps a second controller out (and WAL needs no shared memory, so a home on a
network disk will do). A file of a newer FlexRay is refused and left as it is. This module knows no Ray.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from flexray.errors import ExecutionError

SCHEMAS = (
    """
CREATE TABLE epoch (value INTEGER NOT NULL);
INSERT INTO epoch VALUES (0);
CREATE TABLE apps (id TEXT PRIMARY KEY, record BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE dispatchers (id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE overrides (pool_id TEXT PRIMARY KEY, settings TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE cursors (schedule_id TEXT PRIMARY KEY, fired_at REAL NOT NULL) WITHOUT ROWID;
""",
    "CREATE TABLE variants (pool_id TEXT PRIMARY KEY, record BLOB NOT NULL) WITHOUT ROWID;",
)
"""What makes each version of the schema from the one before it."""
SCHEMA_VERSION = len(SCHEMAS)

OWNER_TIMEOUT_S = 5.0
"""How long a new owner waits for one that is just dying."""

KEPT_UNUSED_S = 30 * 86400.0
"""Files that nobody used for so long are swept: clusters on one machine come and go."""


def state_directory() -> Path:
    """The folder of all state files: FLEXRAY_STATE_DIR, by default `.flexray` in the user's home."""
    return Path(os.environ.get("FLEXRAY_STATE_DIR") or "~/.flexray").expanduser()


def state_file(cluster_id: str, content: str) -> Path:
    """The path of one cluster's file of that content, such as "controller" or "calls"."""
    return state_directory() / f"{cluster_id}.{content}.sqlite"


class Store:
    """Apps, autoscaler overrides, schedule cursors, known dispatchers and the epoch of one cluster.

    Any thread may call it. Every method raises `ExecutionError`, with the path and a hint, when the file
    cannot be read or written: then nothing of that call was kept.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._lock = threading.RLock()
        with self._explained():
            make_private_directory(self.path.parent)
            self.path.touch(mode=0o600)  # The folder may be one that others can read; and opening is using.
            self._connection = sqlite3.connect(
                self.path, timeout=OWNER_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
        try:
            with self._explained():
                self._prepare()
        except ExecutionError:
            self._connection.close()
            raise

    def close(self) -> None:
        """Let another owner in. Nothing else depends on it: what was saved is on the disk."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def next_epoch(self) -> int:
        """A number above every one that this file ever gave, from 1."""
        with self._lock:
            self._run("UPDATE epoch SET value = value + 1")
            return int(self._run("SELECT value FROM epoch")[0][0])

    def save_app(self, app_id: str, record: bytes) -> None:
        """Keep the app's record in place of the one before."""
        self._run("INSERT OR REPLACE INTO apps VALUES (?, ?)", app_id, record)

    def delete_app(self, app_id: str) -> None:
        """Forget the app's record, if there is one."""
        self._run("DELETE FROM apps WHERE id = ?", app_id)

    def apps(self) -> dict[str, bytes]:
        """App id to record, by id."""
        return dict(self._run("SELECT id, record FROM apps ORDER BY id"))

    def save_variant(self, pool_id: str, record: bytes) -> None:
        """Keep the record of a pool that was added to an app while it runs."""
        self._run("INSERT OR REPLACE INTO variants VALUES (?, ?)", pool_id, record)

    def variants(self) -> dict[str, bytes]:
        """Pool id to record, by id."""
        return dict(self._run("SELECT pool_id, record FROM variants ORDER BY pool_id"))

    def delete_variants(self, prefix: str) -> None:
        """Forget the added pools whose id starts with `prefix`; end it as ids do ("app/"), or give an id."""
        self._run("DELETE FROM variants WHERE substr(pool_id, 1, length(?1)) = ?1", prefix)

    def save_dispatcher(self, dispatcher_id: str) -> None:
        """Note that such a dispatcher reported; a second time changes nothing."""
        self._run("INSERT OR IGNORE INTO dispatchers VALUES (?)", dispatcher_id)

    def delete_dispatcher(self, dispatcher_id: str) -> None:
        """Forget a dispatcher that is dead."""
        self._run("DELETE FROM dispatchers WHERE id = ?", dispatcher_id)

    def dispatchers(self) -> list[str]:
        """The ids of all dispatchers that reported and were not found dead, in order."""
        return [row[0] for row in self._run("SELECT id FROM dispatchers ORDER BY id")]

    def save_override(self, pool_id: str, settings: str) -> None:
        """Keep the JSON of what `update_autoscaler` set for the pool, in place of the one before."""
        self._run("INSERT OR REPLACE INTO overrides VALUES (?, ?)", pool_id, settings)

    def overrides(self) -> dict[str, str]:
        """Pool id to JSON, by id."""
        return dict(self._run("SELECT pool_id, settings FROM overrides ORDER BY pool_id"))

    def delete_overrides(self, prefix: str) -> None:
        """Forget the overrides of all pools whose id starts with `prefix`; end it as ids do ("app/")."""
        self._run("DELETE FROM overrides WHERE substr(pool_id, 1, length(?1)) = ?1", prefix)

    def save_cursor(self, schedule_id: str, fired_at: float) -> None:
        """Keep when the schedule last fired, in seconds since the epoch of Unix."""
        self._run("INSERT OR REPLACE INTO cursors VALUES (?, ?)", schedule_id, fired_at)

    def cursors(self) -> dict[str, float]:
        """Schedule id to when it last fired, by id."""
        return dict(self._run("SELECT schedule_id, fired_at FROM cursors ORDER BY schedule_id"))

    def delete_cursors(self, prefix: str) -> None:
        """Forget the schedules whose id starts with `prefix`."""
        self._run("DELETE FROM cursors WHERE substr(schedule_id, 1, length(?1)) = ?1", prefix)

    def _run(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with self._lock, self._explained():
            return self._connection.execute(statement, values).fetchall()

    def _prepare(self) -> None:
        run = self._connection.execute
        run("PRAGMA locking_mode = EXCLUSIVE")
        run("BEGIN EXCLUSIVE").execute("COMMIT")  # From here on the file is ours, or this raised.
        version = int(run("PRAGMA user_version").fetchone()[0])
        if version > SCHEMA_VERSION:
            raise ExecutionError(
                f"{self.path} was written by a newer FlexRay: schema {version}, known here {SCHEMA_VERSION}",
                hint="upgrade FlexRay on the head node, or name another folder with FLEXRAY_STATE_DIR",
            )
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = FULL")
        if version < SCHEMA_VERSION:
            steps = " ".join(SCHEMAS[version:])
            self._connection.executescript(f"BEGIN; {steps} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT")

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            raise ExecutionError(f"the state in {self.path} cannot be used: {error}", _hint(error)) from error


def make_private_directory(directory: Path) -> None:
    """Make the folder, if it is not there, such that only its user can look into it."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)


def sweep(directory: Path, unused_s: float = KEPT_UNUSED_S) -> list[Path]:
    """Delete the state files that nobody used for so long, and return their paths.

    A file that some process holds open is in use, however old. What cannot be deleted stays.
    """
    swept = []
    for path in sorted(directory.glob("*.sqlite")):
        with contextlib.suppress(OSError, sqlite3.Error):
            if _last_used(path) < time.time() - unused_s and _is_free(path):
                path.unlink()
                swept.append(path)
    return swept


def _last_used(path: Path) -> float:
    files = [path, *path.parent.glob(f"{path.name}-wal")]
    return max(file.stat().st_mtime for file in files)


def _is_free(path: Path) -> bool:
    with contextlib.closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as connection:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("BEGIN EXCLUSIVE").execute("ROLLBACK")
    return True  # It is locked otherwise; and closing has removed the files beside it.


def _hint(error: Exception) -> str:
    text = str(error)
    if "locked" in text:
        return (
            "another controller holds this file; end that one, or name another folder with FLEXRAY_STATE_DIR"
        )
    if "malformed" in text or "not a database" in text:
        return "the file is damaged: move it away to start afresh (apps are then deployed anew)"
    return "free space on that disk, or name a folder that can be written with FLEXRAY_STATE_DIR"
