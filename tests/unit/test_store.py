from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flexray.errors import ExecutionError
from flexray.runtime import database, store
from flexray.runtime.store import Store

DAY_S = 86_400


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "c1.controller.sqlite"


def make_old(path: Path, days: float) -> None:
    seconds = path.stat().st_mtime - days * DAY_S
    os.utime(path, (seconds, seconds))


def test_epochs_rise_over_restarts(path: Path) -> None:
    with Store(path) as first:
        assert [first.next_epoch(), first.next_epoch()] == [1, 2]
    with Store(path) as second:
        assert second.next_epoch() == 3


def test_what_was_saved_is_there_after_a_restart(path: Path) -> None:
    with Store(path) as before:
        before.save_app("ap-2", b"\x00two")
        before.save_app("ap-1", b"old")
        before.save_app("ap-1", b"one")
        before.save_dispatcher("d-1")
        before.save_dispatcher("d-1")
        before.save_override("shop/resize", '{"min_containers": 2}')
        before.save_cursor("shop/nightly", 1_600_000_000.5)
        before.save_cursor("shop/nightly", 1_700_000_000.5)
        before.save_cursor("shop/nightly", 1_650_000_000.5)
    with Store(path) as after:
        assert after.apps() == {"ap-1": b"one", "ap-2": b"\x00two"}
        assert after.dispatchers() == ["d-1"]
        assert after.overrides() == {"shop/resize": '{"min_containers": 2}'}
        assert after.cursors() == {"shop/nightly": 1_700_000_000.5}


def test_what_was_deleted_is_gone_and_may_be_deleted_again(path: Path) -> None:
    with Store(path) as kept:
        kept.save_app("ap-1", b"one")
        kept.save_dispatcher("d-1")
        for _ in range(2):
            kept.delete_app("ap-1")
            kept.delete_dispatcher("d-1")
        assert kept.apps() == {}
        assert kept.dispatchers() == []


def test_a_prefix_is_taken_literally(path: Path) -> None:
    with Store(path) as kept:
        for pool_id in ("a_b/f", "a_b/g#x", "axb/f", "a_b2/f", "A_B/f"):
            kept.save_override(pool_id, "{}")
            kept.save_cursor(pool_id, 1.0)
            kept.save_variant(pool_id, b"variant")
            kept.save_leaving(pool_id, b"spec")
            kept.save_first_container(pool_id, 3)
            kept.save_used_number(pool_id, 4)
        rest = ["A_B/f", "a_b2/f", "axb/f"]
        kept.delete_overrides("a_b")
        assert list(kept.overrides()) == rest
        kept.delete_app("a_b", comes_again=True)
        assert list(kept.cursors()) == list(kept.variants()) == list(kept.leavings()) == rest
        assert "a_b/f" in kept.first_containers()
        assert "a_b/f" in kept.used_numbers()
        kept.delete_app("a_b")
        assert list(kept.first_containers()) == list(kept.used_numbers()) == rest


def test_a_pool_that_is_forgotten_is_alone(path: Path) -> None:
    with Store(path) as kept:
        for pool_id in ("a/f", "a/f2", "a/f~1"):
            kept.save_variant(pool_id, b"variant")
            kept.save_leaving(pool_id, b"spec")
        kept.delete_leaving("a/f")
        assert list(kept.variants()) == ["a/f", "a/f2", "a/f~1"]
        assert list(kept.leavings()) == ["a/f2", "a/f~1"]
        kept.delete_added("a/f2")
        assert list(kept.variants()) == ["a/f", "a/f~1"]
        assert list(kept.leavings()) == ["a/f~1"]


def test_what_a_killed_owner_saved_is_kept_and_the_file_is_free(path: Path) -> None:
    code = """
import os, signal, sys
from flexray.runtime.store import Store
store = Store(sys.argv[1])
store.next_epoch()
store.save_app("ap-1", b"one")
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code, path], check=False).returncode == -9
    with Store(path) as kept:
        assert kept.apps() == {"ap-1": b"one"}
        assert kept.next_epoch() == 2


def test_epochs_are_distinct_over_threads(path: Path) -> None:
    with Store(path) as kept, ThreadPoolExecutor(8) as threads:
        epochs = list(threads.map(lambda _: kept.next_epoch(), range(64)))
    assert sorted(epochs) == list(range(1, 65))


def test_only_the_user_can_look_into_a_new_folder_and_file(path: Path) -> None:
    with Store(path) as kept:
        kept.next_epoch()
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert {file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {0o600}


def test_a_second_owner_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "OWNER_TIMEOUT_S", 0)
    with Store(path), pytest.raises(ExecutionError, match="locked") as caught:
        Store(path)
    assert "another process holds this file" in str(caught.value)


def test_a_newer_file_is_refused_and_left_as_it_is(path: Path) -> None:
    Store(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = path.read_bytes()
    for _ in range(2):
        with pytest.raises(ExecutionError, match="newer FlexRay: schema 99, known here 4") as caught:
            Store(path)
    assert "hint: upgrade FlexRay" in str(caught.value)
    assert path.read_bytes() == before


def test_a_damaged_file_says_what_to_do(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"not SQLite at all" * 100)
    with pytest.raises(ExecutionError, match="move it away") as caught:
        Store(path)
    assert str(path) in str(caught.value)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ExecutionError, match="FLEXRAY_STATE_DIR") as caught:
        Store(tmp_path / "file" / "c1.sqlite")
    assert str(tmp_path / "file") in str(caught.value)


@pytest.mark.parametrize("full", ["PRAGMA query_only = ON", "PRAGMA max_page_count = 1"])
def test_a_disk_that_takes_no_more_is_named_and_loses_nothing(path: Path, full: str) -> None:
    with Store(path) as kept:
        kept.save_app("ap-1", b"one")
        kept._connection.execute(full)
        with pytest.raises(ExecutionError, match="free space on that disk") as caught:
            kept.save_app("ap-1", b"x" * 1_000_000)
        assert str(path) in str(caught.value)
        assert kept.apps() == {"ap-1": b"one"}


def test_the_folder_is_named_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEXRAY_STATE_DIR", "/data/flexray")
    assert database.state_file("c1", "controller") == Path("/data/flexray/c1.controller.sqlite")
    monkeypatch.delenv("FLEXRAY_STATE_DIR")
    assert database.state_directory() == Path.home() / ".flexray"


def test_files_unused_for_a_month_are_swept_and_others_stay(tmp_path: Path) -> None:
    old, held, recent, foreign = (tmp_path / name for name in ("a.sqlite", "b.sqlite", "c.sqlite", "d.txt"))
    Store(old).close()
    Store(recent).close()
    foreign.touch()
    with Store(held) as owner:
        owner.next_epoch()
        for path in (old, held, foreign):
            make_old(path, days=31)
        make_old(tmp_path / "b.sqlite-wal", days=31)
        make_old(recent, days=29)
        assert database.sweep(tmp_path) == [old]
        assert owner.next_epoch() == 2
    assert sorted(tmp_path.iterdir()) == [held, recent, foreign]
    assert database.sweep(tmp_path / "missing") == []


def test_opening_a_file_is_using_it(path: Path) -> None:
    Store(path).close()
    make_old(path, days=31)
    Store(path).close()
    assert database.sweep(path.parent) == []


def test_a_file_of_an_earlier_version_is_brought_up_to_date(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as earlier:
        earlier.executescript(f"{store.SCHEMAS[0]} PRAGMA user_version = 1; UPDATE epoch SET value = 7;")
    earlier.close()
    with Store(path) as owner:
        assert owner.next_epoch() == 8
        owner.save_variant("shop/Model~1", b"spec")
    with Store(path) as owner:
        assert owner.variants() == {"shop/Model~1": b"spec"}
        owner.delete_added("shop/Model~1")
        assert owner.variants() == {}
