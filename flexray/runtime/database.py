"""One SQLite file with one owner: what the controller's store and the store of spawned calls have in common.

One rule: a call that returned is on the disk. SQLite's exclusive lock, which the system frees when the owner
dies, keeps a second owner out (and WAL needs no shared memory, so a home on a network disk will do). A file
of a newer FlexRay is refused and left as it is. This module knows no Ray.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from flexray.errors import ExecutionError

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


class Database:
    """The file at `path`. `schemas` are the steps that make each version of its schema from the one before.

    Any thread may call it. Every method raises `ExecutionError`, with the path and a hint, when the file
    cannot be read or written: then nothing of that call was kept.
    """

    def __init__(self, path: Path | str, schemas: Sequence[str]) -> None:
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
                self._prepare(schemas)
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

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside is kept together, or nothing of it."""
        with self._lock, self._explained():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _run(self, statement: str, *values: object, **named: object) -> list[tuple[Any, ...]]:
        with self._lock, self._explained():
            return self._connection.execute(statement, named or values).fetchall()

    def _prepare(self, schemas: Sequence[str]) -> None:
        run = self._connection.execute
        run("PRAGMA locking_mode = EXCLUSIVE")
        run("BEGIN EXCLUSIVE").execute("COMMIT")  # From here on the file is ours, or this raised.
        version = int(run("PRAGMA user_version").fetchone()[0])
        if version > len(schemas):
            raise ExecutionError(
                f"{self.path} was written by a newer FlexRay: schema {version}, known here {len(schemas)}",
                hint="upgrade FlexRay on the head node, or name another folder with FLEXRAY_STATE_DIR",
            )
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = FULL")
        if version < len(schemas):
            steps = " ".join(schemas[version:])
            self._connection.executescript(f"BEGIN; {steps} PRAGMA user_version = {len(schemas)}; COMMIT")

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
                shutil.rmtree(path.with_suffix(""), ignore_errors=True)  # Its large values.
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
        return "another process holds this file; end that one, or name another folder with FLEXRAY_STATE_DIR"
    if "malformed" in text or "not a database" in text:
        return "the file is damaged: move it away to start afresh"
    return "free space on that disk, or name a folder that can be written with FLEXRAY_STATE_DIR"
