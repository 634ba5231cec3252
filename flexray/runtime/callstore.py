"""Spawned calls on the disk: their inputs, what has been sent of them, and their outcomes.

One rule: an input has no outcome, or one, for ever: the first that is written. What was acknowledged is on
the disk. The number of an input is that of its call times 2**32, plus its position, so that a call is one
range of one table. This module knows no Ray.

A value over 1 MiB is a file beside the database, whose size stands in its place.
"""

from __future__ import annotations

import contextlib
import os
import pickle
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from flexray.context import POSITIONS
from flexray.core.status import SpawnedCall
from flexray.core.window import BYTES as WINDOW_BYTES
from flexray.errors import ExecutionError
from flexray.runtime.database import Database, make_private_directory

SCHEMAS = (
    """
CREATE TABLE pools (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, record BLOB NOT NULL);
CREATE TABLE calls (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, pool INTEGER NOT NULL,
    function TEXT NOT NULL, parent INTEGER,
    created_at REAL NOT NULL, size INTEGER, added INTEGER NOT NULL DEFAULT 0, done INTEGER NOT NULL DEFAULT 0,
    over_at REAL, expired INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX calls_open ON calls (pool) WHERE over_at IS NULL;
CREATE INDEX calls_over ON calls (over_at) WHERE over_at IS NOT NULL;
CREATE INDEX calls_of_parents ON calls (parent) WHERE parent IS NOT NULL;
CREATE TABLE inputs (id INTEGER PRIMARY KEY, status INTEGER, attempt INTEGER, arguments, outcome);
CREATE TABLE batches (
    dispatcher TEXT NOT NULL, number INTEGER NOT NULL, pool INTEGER NOT NULL, container TEXT NOT NULL,
    lease INTEGER NOT NULL, inputs BLOB NOT NULL, PRIMARY KEY (dispatcher, pool, number)
) WITHOUT ROWID;
""",
)

FILE_BYTES = 1 << 20
"""Values above this are files."""
FORGET_EXPIRED_S = 90 * 86400.0
"""For so long an expired call is known by name."""


class Call(NamedTuple):
    number: int
    id: str
    pool: int
    function: str
    parent: int | None
    created_at: float
    size: int | None
    """None: inputs are still being added."""
    added: int
    done: int
    over_at: float | None
    expired: bool

    @property
    def first(self) -> int:
        """Number of its first input, which may not be there."""
        return self.number * POSITIONS

    @property
    def open(self) -> int:
        """Inputs without an outcome."""
        return self.added - self.done


class Waiting(NamedTuple):
    """An input without an outcome."""

    number: int
    attempt: int
    arguments: bytes


@dataclass(frozen=True, slots=True)
class SentBatch:
    """A batch that a container may have."""

    dispatcher: str
    number: int
    """Each dispatcher counts those of each pool by themselves."""
    pool: int
    container: str
    lease: int
    inputs: tuple[int, ...]
    attempts: dict[int, int]
    """Of those that are not on their first."""


_SELECT_CALLS = (
    "SELECT number, id, pool, function, parent, created_at, size, added, done, over_at, expired "
    "FROM calls WHERE "
)


class CallStore(Database):
    """The calls of one cluster. Changes belong into a `transaction`, which makes them one write."""

    def __init__(self, path: Path | str) -> None:
        super().__init__(path, SCHEMAS)
        self._files = self.path.with_suffix("")
        self._large: set[int] = set()
        """Inputs without an outcome whose arguments are files."""
        self._old_files: list[tuple[int, str]] = []
        """(input, which value) of files to delete once the transaction is on the disk."""
        with self._explained():
            make_private_directory(self._files)
            _sync_folder(self.path.parent)
            self._inode = self.path.stat().st_ino
        self._drop_orphaned_files()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside is kept together, or nothing of it; files of dropped values go once it is."""
        with self._lock:
            self._check_place()
            self._old_files.clear()
            with super().transaction():
                yield
            self._drop_old_files()

    def _check_place(self) -> None:
        """An open file can be written after it was moved away, but nobody would find it after a restart."""
        try:
            is_there = self.path.stat().st_ino == self._inode
        except OSError:
            is_there = False
        if not is_there:
            raise ExecutionError(
                f"the state in {self.path} cannot be used: it was moved away or deleted",
                "put it back, or start without it: end the actor flexray:call-queue with ray.kill",
            )

    # Pools.

    def pools(self) -> dict[int, tuple[str, bytes]]:
        """Number to (id, record)."""
        return {row[0]: (row[1], row[2]) for row in self._run("SELECT number, id, record FROM pools")}

    def add_pool(self, pool_id: str, record: bytes) -> int:
        """Its number; a second time changes its record."""
        self._run(
            "INSERT INTO pools (id, record) VALUES (?, ?) "
            "ON CONFLICT (id) DO UPDATE SET record = excluded.record",
            pool_id,
            record,
        )
        return int(self._run("SELECT number FROM pools WHERE id = ?", pool_id)[0][0])

    # Calls.

    def call(self, call_id: str) -> Call | None:
        return next(iter(self._calls("id = ?", call_id)), None)

    def call_at(self, number: int) -> Call | None:
        return next(iter(self._calls("number = ?", number)), None)

    def open_calls(self) -> list[Call]:
        """Those with inputs to run or to come, the oldest first."""
        return self._calls("over_at IS NULL ORDER BY number")

    def growing_calls(self) -> list[Call]:
        """Those with inputs to come, as far as anybody knows."""
        return self._calls("over_at IS NULL AND size IS NULL ORDER BY number")

    def newest_calls(self, limit: int) -> list[Call]:
        """The newest first, expired ones left out."""
        return self._calls("NOT expired ORDER BY number DESC LIMIT ?", limit)

    def children(self, call: Call) -> list[Call]:
        """Calls that inputs of this one have spawned, in their order."""
        where = "parent >= ? AND parent < ? ORDER BY number"
        return self._calls(where, call.first, call.first + POSITIONS)

    def _calls(self, where: str, *values: object) -> list[Call]:
        return [Call(*row) for row in self._run(_SELECT_CALLS + where, *values)]

    def add_call(self, spawned: SpawnedCall, pool: int, now: float) -> Call:
        """A new call without inputs; the one that there is where the id is known."""
        self._run(
            "INSERT OR IGNORE INTO calls (id, pool, function, parent, created_at) VALUES (?, ?, ?, ?, ?)",
            spawned.call_id,
            pool,
            spawned.function,
            spawned.parent,
            now,
        )
        call = self.call(spawned.call_id)
        assert call is not None
        return call

    def add_single(self, spawned: SpawnedCall, pool: int, arguments: bytes, now: float) -> Call | None:
        """A call of one input, whose arguments are small; None: it is known already."""
        values = (spawned.call_id, pool, spawned.function, spawned.parent, now, 1, 1)
        with self._lock, self._explained():
            made = self._connection.execute(
                "INSERT OR IGNORE INTO calls (id, pool, function, parent, created_at, size, added) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                values,
            )
            if not made.rowcount:
                return None
            call = Call(made.lastrowid or 0, *values, done=0, over_at=None, expired=False)
            self._connection.execute(
                "INSERT INTO inputs (id, arguments) VALUES (?, ?)", (call.first, arguments)
            )
            return call

    def add_inputs(self, call: Call, first: int, arguments: Sequence[bytes]) -> int:
        """Add inputs from that position on; returns how many are new, for they may be sent again."""
        new = arguments[max(0, call.added - first) :]
        start = call.first + max(first, call.added)
        with self._explained():
            rows = [(start + i, self._kept(start + i, "arguments", value)) for i, value in enumerate(new)]
            self._connection.executemany("INSERT INTO inputs (id, arguments) VALUES (?, ?)", rows)
        self._run("UPDATE calls SET added = added + ? WHERE number = ?", len(new), call.number)
        return len(new)

    def close_call(self, call: Call, now: float) -> None:
        """No input follows."""
        self._run("UPDATE calls SET size = added WHERE number = ? AND size IS NULL", call.number)
        self._count_done({call.number: 0}, now)

    # Inputs.

    def waiting(self, wanted: Iterable[tuple[Call, int, int]]) -> list[list[Waiting]]:
        """Inputs without an outcome, in their order, of each (call, after that number, so many at most).

        As many as memory has room for; calls for which it has none are left out, but for the first.
        """
        query = (
            "SELECT id, attempt, arguments FROM inputs "
            "WHERE id > ? AND id < ? AND status IS NULL ORDER BY id LIMIT ?"
        )
        found: list[list[Waiting]] = []
        size = 0
        with self._lock, self._explained():
            for call, after, limit in wanted:
                if size > WINDOW_BYTES:
                    break
                of_call: list[Waiting] = []
                rows = self._connection.execute(query, (after, call.first + POSITIONS, limit))
                for number, attempt, value in rows:
                    arguments = self._value(number, "arguments", value)
                    size += len(arguments)
                    if of_call and size > WINDOW_BYTES:
                        break
                    of_call.append(Waiting(number, attempt or 1, arguments))
                rows.close()
                found.append(of_call)
        return found

    def arguments(self, numbers: Iterable[int]) -> dict[int, bytes]:
        """Of those that have no outcome."""
        found = {}
        for number in numbers:
            rows = self._run("SELECT arguments FROM inputs WHERE id = ? AND status IS NULL", number)
            if rows:
                found[number] = self._value(number, "arguments", rows[0][0])
        return found

    def settle(self, outcomes: Iterable[tuple[int, int, Any]], now: float) -> set[int]:
        """Write (number, status, payload) of inputs without an outcome; returns those that had one."""
        done: dict[int, int] = {}
        late: set[int] = set()
        query = "UPDATE inputs SET status = ?, outcome = ?, arguments = NULL WHERE id = ? AND status IS NULL"
        with self._lock, self._explained():
            run = self._connection.execute
            for number, status, payload in outcomes:
                value = _packed(payload)
                if len(value) > FILE_BYTES and not self.open_among([number]):
                    late.add(number)  # Its file, if it is one, is that of the first outcome.
                    continue
                if run(query, (status, self._kept(number, "outcome", value), number)).rowcount:
                    done[number // POSITIONS] = done.get(number // POSITIONS, 0) + 1
                    if number in self._large:
                        self._old_files.append((number, "arguments"))
                else:
                    late.add(number)
        self._count_done(done, now)
        return late

    def settle_rest(self, call: Call, status: int, payload: Any, now: float) -> int:
        """End every input without an outcome with this one; returns how many there were."""
        query = (
            "UPDATE inputs SET status = ?, outcome = ?, arguments = NULL "
            "WHERE id >= ? AND id < ? AND status IS NULL"
        )
        with self._lock, self._explained():
            values = (status, _packed(payload), call.first, call.first + POSITIONS)
            count = self._connection.execute(query, values).rowcount
        mine = [number for number in self._large if number // POSITIONS == call.number]
        self._old_files += [(number, "arguments") for number in mine]
        self._count_done({call.number: count}, now)
        return count

    def open_among(self, numbers: Iterable[int]) -> set[int]:
        """Those of these inputs that have no outcome."""
        query = "SELECT 1 FROM inputs WHERE id = ? AND status IS NULL"
        return {number for number in numbers if self._run(query, number)}

    def outcomes(self, call: Call, first: int, limit: int) -> list[tuple[int | None, Any]]:
        """(status, payload) of so many inputs from that position on, in their order; None: none yet."""
        query = "SELECT id, status, outcome FROM inputs WHERE id >= ? AND id < ? ORDER BY id"
        start = call.first + first
        found: list[tuple[int | None, Any]] = []
        size = 0
        with self._lock, self._explained():
            end = min(start + limit, call.first + POSITIONS)
            rows = self._connection.execute(query, (start, end))
            for number, status, kept in rows:
                value = self._value(number, "outcome", kept)
                found.append((status, None if status is None else pickle.loads(value)))
                size += len(value)
                if size > WINDOW_BYTES:
                    break
            rows.close()
        return found

    def statuses(self, call: Call, limit: int) -> list[int | None]:
        query = "SELECT status FROM inputs WHERE id >= ? AND id < ? ORDER BY id LIMIT ?"
        return [row[0] for row in self._run(query, call.first, call.first + POSITIONS, limit)]

    # Batches.

    def add_batches(self, batches: Iterable[SentBatch]) -> None:
        """Note what is about to be sent."""
        with self._lock, self._explained():
            self._connection.executemany(
                "INSERT OR REPLACE INTO batches VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (
                        b.dispatcher,
                        b.number,
                        b.pool,
                        b.container,
                        b.lease,
                        pickle.dumps((b.inputs, b.attempts)),
                    )
                    for b in batches
                ],
            )

    def set_attempts(self, attempts: Mapping[int, int]) -> None:
        """These inputs are on later attempts than their first."""
        with self._lock, self._explained():
            rows = [(attempt, number) for number, attempt in attempts.items()]
            self._connection.executemany("UPDATE inputs SET attempt = ? WHERE id = ?", rows)

    def later_attempts(self, numbers: Iterable[int]) -> dict[int, int]:
        """Number to attempt, of those that are not on their first."""
        query = "SELECT attempt FROM inputs WHERE id = ? AND attempt > 1"
        found = {number: self._run(query, number) for number in numbers}
        return {number: rows[0][0] for number, rows in found.items() if rows}

    def delete_batch(self, dispatcher: str, pool: int, number: int) -> None:
        """Its answer is known."""
        query = "DELETE FROM batches WHERE dispatcher = ? AND pool = ? AND number = ?"
        self._run(query, dispatcher, pool, number)

    def delete_batches_of(self, dispatcher: str, container: str) -> None:
        """The container is dead; what an earlier process sent there is settled by itself."""
        self._run("DELETE FROM batches WHERE dispatcher = ? AND container = ?", dispatcher, container)

    def batches(self) -> list[SentBatch]:
        """What containers may have, the oldest first."""
        rows = self._run("SELECT dispatcher, number, pool, container, lease, inputs FROM batches")
        batches = [SentBatch(*row[:5], *pickle.loads(row[5])) for row in rows]
        since: dict[tuple[str, int], int] = {}
        for batch in batches:  # Leases of a pool rise for ever, so an earlier process had the lower ones.
            sender = batch.dispatcher, batch.pool
            since[sender] = min(batch.lease, since.get(sender, batch.lease))
        return sorted(batches, key=lambda batch: (since[batch.dispatcher, batch.pool], batch.number))

    # Time.

    def expire(self, before: float) -> int:
        """Drop the results of calls that were over before then; returns how many calls."""
        rows = self._run("SELECT number FROM calls WHERE over_at < ? AND NOT expired", before)
        for (number,) in rows:
            first = number * POSITIONS
            files = self._run(
                "SELECT id FROM inputs WHERE id >= ? AND id < ? AND typeof(outcome) = 'integer'",
                first,
                first + POSITIONS,
            )
            self._old_files += [(file[0], "outcome") for file in files]
            self._run("DELETE FROM inputs WHERE id >= ? AND id < ?", first, first + POSITIONS)
            self._run("UPDATE calls SET expired = 1 WHERE number = ?", number)
        self._run("DELETE FROM calls WHERE expired AND over_at < ?", before - FORGET_EXPIRED_S)
        return len(rows)

    def _count_done(self, done: dict[int, int], now: float) -> None:
        for number, count in done.items():
            self._run(
                "UPDATE calls SET done = done + :count, over_at = "
                "CASE WHEN done + :count = size AND over_at IS NULL THEN :now ELSE over_at END "
                "WHERE number = :number",
                count=count,
                now=now,
                number=number,
            )

    # Files.

    def _file(self, number: int, what: str) -> Path:
        return self._files / f"{number}.{what}"

    def _kept(self, number: int, what: str, value: bytes) -> bytes | int:
        """What stands in the table for the value, which is on the disk when this returns."""
        if len(value) <= FILE_BYTES:
            return value
        path = self._file(number, what)
        with path.open("wb") as file:
            file.write(value)
            file.flush()
            os.fsync(file.fileno())
        _sync_folder(self._files)
        if what == "arguments":
            self._large.add(number)
        return len(value)

    def _value(self, number: int, what: str, kept: bytes | int | None) -> bytes:
        if isinstance(kept, int):
            with self._explained():
                try:
                    return self._file(number, what).read_bytes()
                except FileNotFoundError as error:
                    return pickle.dumps(_Gone(str(error)))  # Whoever unpacks it is told, and nobody else.
        return kept or b""

    def _drop_old_files(self) -> None:
        files, self._old_files = self._old_files, []
        for number, what in files:
            if what == "arguments":
                self._large.discard(number)
            with contextlib.suppress(OSError):
                self._file(number, what).unlink()

    def _drop_orphaned_files(self) -> None:
        """Files whose row was never written, or has dropped them: their writer was killed in between."""
        query = "SELECT typeof(arguments), typeof(outcome) FROM inputs WHERE id = ?"
        for path in self._files.iterdir():
            name, _, what = path.name.partition(".")
            if not name.isdecimal() or what not in {"arguments", "outcome"}:
                continue  # Not ours.
            number = int(name)
            rows = self._run(query, number)
            if not rows or rows[0][what != "arguments"] != "integer":
                self._old_files.append((number, what))
            elif what == "arguments":
                self._large.add(number)
        self._drop_old_files()


def _sync_folder(path: Path) -> None:
    """The names of the files in it are on the disk when this returns."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class _Gone:
    """What stands for a value whose file is gone: unpickling it says so."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __reduce__(self) -> tuple[Any, ...]:
        return _raise_gone, (self._what,)


def _raise_gone(what: str) -> None:
    raise ExecutionError(f"a stored value is gone: {what}", "leave the files beside the database as they are")


def _packed(payload: Any) -> bytes:
    return pickle.dumps(payload, protocol=5)
