"""A process that spawns, sends and settles through the store until it is killed. Run by `test_power_loss`.

Whatever it writes goes to one folder, as always. A second folder has what a disk keeps that loses power: of
each file its content at its last fsync, and its name once the folder's was synced, too. SQLite's are seen
through a VFS of our own, which passes all on to SQLite's and copies the file whenever that has synced it.
"""

from __future__ import annotations

import ctypes
import os
import queue
import random
import shutil
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from flexray.context import POSITIONS
from flexray.core.status import OK, SpawnedCall
from flexray.runtime import callstore
from flexray.runtime.callstore import FILE_BYTES, CallStore, SentBatch
from flexray.runtime.groupcommit import GroupCommit

FILE_NAME = "c1.calls.sqlite"
DISPATCHER = "d"
SPAWNERS, SENDERS = 4, 3
FAULTS = ("", "synchronous = OFF", "synchronous = NORMAL", "folders are not synced")
CHECKPOINT_PAGES = 200
"""A fifth of SQLite's own bound: there is more to meet, and less to copy."""
LARGE_EVERY = 40
"""Of so many positions, one has large arguments and the next a large result."""

P = ctypes.c_void_p
OpenCall = ctypes.CFUNCTYPE(ctypes.c_int, P, P, P, ctypes.c_int, P)
SyncCall = ctypes.CFUNCTYPE(ctypes.c_int, P, ctypes.c_int)


class Vfs(ctypes.Structure):
    """`sqlite3_vfs`; what is not named here is passed on as it is."""

    _fields_ = (
        ("version", ctypes.c_int),
        ("file_size", ctypes.c_int),
        ("path_max", ctypes.c_int),
        ("next", P),
        ("name", ctypes.c_char_p),
        ("app_data", P),
        ("open", P),
        ("others", P * 15),
    )


class Methods(ctypes.Structure):
    """`sqlite3_io_methods`."""

    _fields_ = (("version", ctypes.c_int), ("before", P * 4), ("sync", P), ("others", P * 13))


class File(ctypes.Structure):
    """`sqlite3_file`."""

    _fields_ = (("methods", ctypes.POINTER(Methods)),)


class Disk:
    """What is durable of `folder`, in the folder `durable`."""

    def __init__(self, folder: Path, durable: Path) -> None:
        self._folder, self._durable = folder, durable
        self._copies = durable.with_name(f"{durable.name}-copies")
        self._copies.mkdir()
        self._unnamed: dict[Path, bytes] = {}
        """Files that were synced and their folder not yet."""
        self._fsync = os.fsync
        self._lock = threading.Lock()

    def fsync(self, fd: int) -> None:
        """In place of `os.fsync`."""
        self._fsync(fd)
        path = Path(f"/proc/self/fd/{fd}").readlink()
        with self._lock:
            if path.is_dir():
                self.keep_names(path)
            elif self._target(path).exists():
                self.keep(path)
            else:
                self._unnamed[path] = path.read_bytes()

    def keep(self, path: Path) -> None:
        """The file was synced, and its name is durable."""
        copy = self._copies / path.name
        shutil.copyfile(path, copy)
        copy.replace(self._target(path))

    def keep_with_names(self, path: Path) -> None:
        """A file of SQLite was synced, and its folder too, as with the first sync of a journal."""
        with self._lock:
            self.keep(path)
            self.keep_names(path.parent)

    def keep_names(self, folder: Path) -> None:
        """The folder was synced: what it names is there, and what was deleted is not."""
        for path in folder.iterdir():
            if path.is_dir():
                self._target(path).mkdir(exist_ok=True)
        for copy in self._target(folder).glob("*") if self._target(folder).is_dir() else ():
            if not (folder / copy.name).exists():
                copy.unlink(missing_ok=True)
        for path in [path for path in self._unnamed if path.parent == folder]:
            content = self._unnamed.pop(path)
            if self._target(folder).is_dir():
                self._target(path).write_bytes(content)

    def _target(self, path: Path) -> Path:
        return self._durable / path.relative_to(self._folder)


class Watched:
    """SQLite's VFS, whose syncs are told to the disk."""

    def __init__(self, library: str, disk: Disk) -> None:
        self._sqlite = ctypes.CDLL(library)
        self._sqlite.sqlite3_vfs_find.restype = ctypes.POINTER(Vfs)
        self._disk = disk
        self._paths: dict[int, Path] = {}
        """By the address of the open file."""
        found = self._sqlite.sqlite3_vfs_find(None)
        self._open = OpenCall(found.contents.open)
        self._vfs = Vfs.from_buffer_copy(found.contents)
        self._vfs.name = b"power-loss"
        self._vfs.open = self._address(OpenCall(self._opened))
        self._methods: dict[int, Methods] = {}
        """By the address of SQLite's own; journals have others than databases."""
        self._syncs: dict[int, Any] = {}
        """SQLite's own, by the address of the open file."""
        self._synced_once: set[int] = set()
        self._sqlite.sqlite3_vfs_register(ctypes.byref(self._vfs), 1)

    @property
    def is_used(self) -> bool:
        return bool(self._paths)

    def _address(self, function: Any) -> Any:
        self.__dict__.setdefault("_alive", []).append(function)
        return ctypes.cast(function, P)

    def _opened(self, vfs: int, name: int | None, file: int, flags: int, given: int | None) -> int:
        result = int(self._open(vfs, name, file, flags, given))
        opened = File.from_address(file)
        if result or not name or not opened.methods:
            return result
        own = opened.methods.contents
        address = ctypes.addressof(own)
        if address not in self._methods:
            self._methods[address] = methods = Methods.from_buffer_copy(own)
            methods.sync = self._address(SyncCall(self._synced))
        self._paths[file] = Path(os.fsdecode(ctypes.string_at(name)))
        self._syncs[file] = SyncCall(own.sync)
        self._synced_once.discard(file)
        opened.methods = ctypes.pointer(self._methods[address])
        return result

    def _synced(self, file: int, flags: int) -> int:
        result = int(self._syncs[file](file, flags))
        try:
            if not result:
                path = self._paths[file]
                is_first = file not in self._synced_once and path.suffix != ".sqlite"
                self._synced_once.add(file)
                (self._disk.keep_with_names if is_first else self._disk.keep)(path)
        except BaseException as error:  # noqa: BLE001  # From here it would be lost.
            say(f"broken {error!r}")
            os._exit(1)
        return result


def arguments_of(number: int) -> bytes:
    """What the input of that number was spawned with."""
    return b"a%d" % number + b"." * (FILE_BYTES if number % LARGE_EVERY == 0 else 200)


def result_of(number: int) -> bytes:
    """What it comes to."""
    return b"r%d" % number + b"." * (FILE_BYTES if number % LARGE_EVERY == 1 else 200)


def say(line: str) -> None:
    """An acknowledgement: what it says is on the disk."""
    os.write(1, f"{line}\n".encode())


class Work:
    """Threads that do what the call queue does with its store."""

    def __init__(self, store: CallStore, seed: int) -> None:
        self._store = store
        self._seed = seed
        self._writer = GroupCommit(store)
        self._pool = self._writer.run(lambda: store.add_pool("a/f", b"record"))
        self._added: queue.Queue[Sequence[int]] = queue.Queue(64)

    def start(self) -> None:
        works: list[tuple[Callable[[int], None], int]]
        works = [(self._spawn, number) for number in range(SPAWNERS)]
        works += [(self._send, number) for number in range(SENDERS)]
        for work, number in works:
            threading.Thread(target=self._guarded, args=(work, number)).start()

    def _guarded(self, work: Callable[[int], None], number: int) -> None:
        try:
            work(number)
        except BaseException as error:  # noqa: BLE001  # The test is told.
            say(f"broken {error!r}")
            os._exit(1)

    def _spawn(self, spawner: int) -> None:
        chance = random.Random(f"{self._seed} {spawner}")
        for count in range(1_000_000):
            call_id = f"fc-{spawner}-{count}"
            for _ in range(chance.randrange(1, 5)):
                size = chance.choice([1, 1, 5, 50])
                numbers = self._writer.submit(lambda c=call_id, n=size: self._add(c, n)).result()  # type: ignore[misc]
                say(f"added {call_id} {numbers[0]} {len(numbers)}")
                self._added.put(numbers)

    def _add(self, call_id: str, size: int) -> range:
        store = self._store
        call = store.add_call(SpawnedCall(call_id, "f", False, None), self._pool, 10.0)
        numbers = range(call.first + call.added, call.first + call.added + size)
        store.add_inputs(call, call.added, [arguments_of(number) for number in numbers])
        return numbers

    def _send(self, sender: int) -> None:
        store = self._store
        for count in range(1_000_000):
            numbers = self._added.get()
            batch = SentBatch(DISPATCHER, count * SENDERS + sender, self._pool, "f#1", 1, tuple(numbers), {})
            self._writer.run(lambda b=batch: store.add_batches([b]))  # type: ignore[misc]
            say(f"sent {batch.number} {numbers[0]} {len(numbers)}")
            self._writer.run(lambda b=batch: self._settle(b))  # type: ignore[misc]
            say(f"told {numbers[0]} {len(numbers)}")

    def _settle(self, batch: SentBatch) -> None:
        self._store.settle([(number, OK, result_of(number)) for number in batch.inputs], 11.0)
        self._store.delete_batch(batch.dispatcher, batch.pool, batch.number)


def lost(durable: Path, lines: Sequence[str]) -> list[str]:
    """What was acknowledged and is not in the folder."""
    found: list[str] = []
    with CallStore(durable / FILE_NAME) as store:
        batches = {batch.number for batch in store.batches()}
        for line in lines:
            word, *rest = line.split()
            first, count = int(rest[-2]), int(rest[-1])
            call = store.call_at(first // POSITIONS)
            outcomes = [] if call is None else store.outcomes(call, first % POSITIONS, count)
            while call is not None and 0 < len(outcomes) < count:  # Large ones come in windows.
                more = store.outcomes(call, first % POSITIONS + len(outcomes), count - len(outcomes))
                if not more:
                    break
                outcomes += more
            numbers = range(first, first + count)
            is_over = outcomes == [(OK, result_of(number)) for number in numbers]
            if word == "added" and not is_over:
                kept = store.arguments(numbers)
                if kept != {number: arguments_of(number) for number in numbers}:
                    found.append(line)
            elif (word == "sent" and not is_over and int(rest[0]) not in batches) or (
                word == "told" and not is_over
            ):
                found.append(line)
    return found


def main(folder: Path, durable: Path, fault: str, seed: int) -> None:
    libraries = [line.split()[-1] for line in _mapped() if "libsqlite3" in line]
    if not libraries:
        say("skip Python brings its own SQLite, or there is no /proc: its syncs cannot be seen")
        return
    disk = Disk(folder, durable)
    watched = Watched(libraries[0], disk)
    os.fsync = disk.fsync  # type: ignore[assignment]
    if fault == "folders are not synced":
        callstore.__dict__["_sync_folder"] = lambda _: None
    store = CallStore(folder / FILE_NAME)
    store._connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    if fault.startswith("synchronous"):
        store._connection.execute(f"PRAGMA {fault}")
    if not watched.is_used:
        say("skip SQLite opens its files without the VFS that was registered")
        return
    Work(store, seed).start()
    threading.Event().wait()  # For ever: what SQLite calls back is kept by this frame.


def _mapped() -> list[str]:
    import sqlite3  # noqa: F401  # Now it is.

    try:
        return Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return []


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
