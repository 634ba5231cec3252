"""What the controller must still know after it was killed, in one SQLite file.

One rule: the controller writes first and acts after. One file belongs to one Ray cluster. This module knows
no Ray.
"""

from __future__ import annotations

from pathlib import Path

from flexray.runtime.database import Database

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
    """
CREATE TABLE versions (
    app TEXT NOT NULL, version INTEGER NOT NULL, token TEXT NOT NULL, record BLOB NOT NULL,
    PRIMARY KEY (app, version)
) WITHOUT ROWID;
CREATE TABLE first_containers (pool_id TEXT PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE used_numbers (pool_id TEXT PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID;
""",
    """
DROP TABLE variants;
CREATE TABLE variants (pool_id TEXT PRIMARY KEY, record BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE leavings (pool_id TEXT PRIMARY KEY, record BLOB NOT NULL) WITHOUT ROWID;
""",
)
"""What makes each version of the schema from the one before it."""


class Store(Database):
    """Apps, autoscaler overrides, schedule cursors, known dispatchers and the epoch of one cluster."""

    def __init__(self, path: Path | str) -> None:
        super().__init__(path, SCHEMAS)

    def next_epoch(self) -> int:
        """A number above every one that this file ever gave, from 1."""
        with self._lock:
            self._run("UPDATE epoch SET value = value + 1")
            return int(self._run("SELECT value FROM epoch")[0][0])

    def save_app(self, app_id: str, record: bytes) -> None:
        """Keep the app's record in place of the one before."""
        self._run("INSERT OR REPLACE INTO apps VALUES (?, ?)", app_id, record)

    def delete_app(self, app_id: str, *, comes_again: bool = False) -> None:
        """Forget the app with its pools, settings and schedules, but not its versions.

        Where it `comes_again` the numbers of its containers are kept: no other may have one of them.
        """
        tables = ["cursors", "variants", "leavings", "overrides"]
        tables += [] if comes_again else ["first_containers", "used_numbers"]
        with self.transaction():
            self._run("DELETE FROM apps WHERE id = ?", app_id)
            for table in tables:
                self._delete_of_app(table, app_id)

    def _delete_of_app(self, table: str, app_id: str) -> None:
        key = "schedule_id" if table == "cursors" else "pool_id"
        prefix = f"{app_id}/"
        self._run(f"DELETE FROM {table} WHERE substr({key}, 1, length(?1)) = ?1", prefix)  # noqa: S608

    def apps(self) -> dict[str, bytes]:
        """App id to record, by id."""
        return dict(self._run("SELECT id, record FROM apps ORDER BY id"))

    # Versions of deployed apps.

    def save_version(self, app: str, version: int, token: str, record: bytes) -> None:
        """Keep a version; `token` is of whoever deploys, who may ask twice."""
        self._run("INSERT INTO versions VALUES (?, ?, ?, ?)", app, version, token, record)

    def version_by_token(self, app: str, token: str) -> int | None:
        """The version that this token has deployed."""
        rows = self._run("SELECT version FROM versions WHERE app = ? AND token = ?", app, token)
        return int(rows[0][0]) if rows else None

    def newest_version(self, app: str) -> int:
        """0 where there is none; numbers are never used again, not even after the app was stopped."""
        rows = self._run("SELECT max(version) FROM versions WHERE app = ?", app)
        return int(rows[0][0] or 0)

    def versions(self, app: str) -> dict[int, bytes]:
        """Version to record, the oldest first; the record is empty where the code is not kept any more."""
        rows = self._run("SELECT version, record FROM versions WHERE app = ? ORDER BY version", app)
        return dict(rows)

    def drop_old_code(self, app: str, keep: int) -> None:
        """Of versions before the newest so many, only the number is kept."""
        self._run(
            "UPDATE versions SET record = x'' WHERE app = ?1 AND version <= "
            "(SELECT max(version) FROM versions WHERE app = ?1) - ?2",
            app,
            keep,
        )

    def save_first_container(self, pool_id: str, number: int) -> None:
        """Containers of the pool with lower numbers run an earlier version."""
        self._run("INSERT OR REPLACE INTO first_containers VALUES (?, ?)", pool_id, number)

    def first_containers(self) -> dict[str, int]:
        """Pool id to that number."""
        return dict(self._run("SELECT pool_id, number FROM first_containers ORDER BY pool_id"))

    def save_used_number(self, pool_id: str, number: int) -> None:
        """Containers of the pool may have had any number up to this one."""
        self._run("INSERT OR REPLACE INTO used_numbers VALUES (?, ?)", pool_id, number)

    def used_numbers(self) -> dict[str, int]:
        """Pool id to that number."""
        return dict(self._run("SELECT pool_id, number FROM used_numbers ORDER BY pool_id"))

    # Pools that were added.

    def save_variant(self, pool_id: str, record: bytes) -> None:
        """Keep the record of a pool that was added to an app while it runs."""
        self._run("INSERT OR REPLACE INTO variants VALUES (?, ?)", pool_id, record)

    def variants(self) -> dict[str, bytes]:
        """Pool id to record, by id."""
        return dict(self._run("SELECT pool_id, record FROM variants ORDER BY pool_id"))

    # Pools whose function a deploy has removed.

    def save_leaving(self, pool_id: str, record: bytes) -> None:
        """Keep the record of such a pool, as long as something may wait there."""
        self._run("INSERT OR REPLACE INTO leavings VALUES (?, ?)", pool_id, record)

    def leavings(self) -> dict[str, bytes]:
        """Pool id to record, by id."""
        return dict(self._run("SELECT pool_id, record FROM leavings ORDER BY pool_id"))

    def delete_added(self, pool_id: str) -> None:
        """Forget what is kept of this pool as one that was added, or whose function was removed."""
        self._run("DELETE FROM variants WHERE pool_id = ?", pool_id)
        self._run("DELETE FROM leavings WHERE pool_id = ?", pool_id)

    def delete_leaving(self, pool_id: str) -> None:
        """Its function is back."""
        self._run("DELETE FROM leavings WHERE pool_id = ?", pool_id)

    # Dispatchers.

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

    def delete_overrides(self, app_id: str) -> None:
        """Forget the overrides of all pools of the app."""
        self._delete_of_app("overrides", app_id)

    def save_cursor(self, schedule_id: str, fired_at: float) -> None:
        """Keep when the schedule last fired, in seconds since the epoch of Unix, if no later time is kept."""
        self._run(
            "INSERT INTO cursors VALUES (?, ?) "
            "ON CONFLICT (schedule_id) DO UPDATE SET fired_at = max(fired_at, excluded.fired_at)",
            schedule_id,
            fired_at,
        )

    def cursors(self) -> dict[str, float]:
        """Schedule id to when it last fired, by id."""
        return dict(self._run("SELECT schedule_id, fired_at FROM cursors ORDER BY schedule_id"))

    def delete_cursor(self, schedule_id: str) -> None:
        """Forget this schedule."""
        self._run("DELETE FROM cursors WHERE schedule_id = ?", schedule_id)
