"""What the store of spawned calls keeps, and what it never does."""

from __future__ import annotations

import contextlib
import os
import pickle
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from flexray.context import POSITIONS
from flexray.core.status import CANCELLED, FAILED, OK, START_FAILED, SpawnedCall
from flexray.errors import ExecutionError
from flexray.runtime import callstore, database
from flexray.runtime.callstore import FILE_BYTES, FORGET_EXPIRED_S, Call, CallStore, SentBatch

LARGE = b"L" * (FILE_BYTES + 1)
LARGER = b"R" * (FILE_BYTES + 2)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "c1.calls.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[CallStore]:
    with CallStore(path) as store:
        yield store


def spawned(call_id: str, parent: int | None = None) -> SpawnedCall:
    return SpawnedCall(call_id, "f", is_whole=False, parent=parent)


def now_of(store: CallStore, call_id: str) -> Call:
    call = store.call(call_id)
    assert call is not None
    return call


def add(store: CallStore, *arguments: bytes, call_id: str = "fc-1", closed: bool = True) -> Call:
    """A call with these inputs, created at 10 and closed at 11."""
    with store.transaction():
        call = store.add_call(spawned(call_id), store.add_pool("a/f", b"record"), 10.0)
        store.add_inputs(call, 0, arguments)
        if closed:
            store.close_call(call, 11.0)
    return now_of(store, call_id)


def settle(store: CallStore, call: Call, *outcomes: tuple[int, int, object], now: float = 12.0) -> set[int]:
    """Write (position, status, payload); returns the positions that had an outcome before."""
    with store.transaction():
        late = store.settle([(call.first + p, status, payload) for p, status, payload in outcomes], now)
    return {number - call.first for number in late}


def waiting(store: CallStore, call: Call, after: int = -1, limit: int = 1000) -> list[tuple[int, int, bytes]]:
    """As (position, attempt, arguments)."""
    (rows,) = store.waiting([(call, call.first + after, limit)])
    return [(row.number - call.first, row.attempt, row.arguments) for row in rows]


def files(path: Path) -> list[str]:
    return sorted(file.name for file in path.with_suffix("").iterdir())


# Pools and calls.


def test_a_pool_keeps_its_number_and_takes_its_newest_record(store: CallStore) -> None:
    first, second = store.add_pool("a/f", b"old"), store.add_pool("a/g", b"g")
    assert store.add_pool("a/f", b"new") == first
    assert store.pools() == {first: ("a/f", b"new"), second: ("a/g", b"g")}


def test_a_call_is_known_by_its_id_and_number_and_added_once(store: CallStore) -> None:
    call = store.add_call(spawned("fc-1", parent=7), 3, 10.0)
    assert call == Call(1, "fc-1", 3, "f", 7, 10.0, None, 0, 0, None, expired=False)
    assert (call.first, call.open, call.expired) == (POSITIONS, 0, False)
    assert store.add_call(spawned("fc-1"), 4, 99.0) == call
    assert store.call("fc-1") == store.call_at(1) == call
    assert store.call("fc-2") is None
    assert store.call_at(2) is None


def test_calls_are_listed_the_newest_first_and_the_open_ones_the_oldest_first(store: CallStore) -> None:
    for call_id in ("fc-1", "fc-2", "fc-3", "fc-4"):
        add(store, b"x", call_id=call_id)
    settle(store, now_of(store, "fc-2"), (0, OK, b""), now=20.0)
    settle(store, now_of(store, "fc-3"), (0, OK, b""), now=30.0)
    assert [call.id for call in store.open_calls()] == ["fc-1", "fc-4"]
    assert [call.id for call in store.newest_calls(10)] == ["fc-4", "fc-3", "fc-2", "fc-1"]
    assert [call.id for call in store.newest_calls(2)] == ["fc-4", "fc-3"]
    assert store.expire(25.0) == 1
    assert [call.id for call in store.newest_calls(10)] == ["fc-4", "fc-3", "fc-1"]


def test_the_children_of_a_call_are_those_that_its_own_inputs_have_spawned(store: CallStore) -> None:
    mine, other = add(store, b"x", call_id="fc-1"), add(store, b"x", call_id="fc-2")
    for call_id, parent in (
        ("fc-3", mine.first),
        ("fc-4", other.first),
        ("fc-5", mine.first + POSITIONS - 1),
        ("fc-6", None),
    ):
        store.add_call(spawned(call_id, parent), 1, 10.0)
    assert [call.id for call in store.children(mine)] == ["fc-3", "fc-5"]
    assert [call.id for call in store.children(other)] == ["fc-4"]


# Inputs come.


def test_adding_inputs_again_adds_nothing_twice(store: CallStore) -> None:
    call = add(store, closed=False)
    assert store.add_inputs(call, 0, [b"a", b"b"]) == 2
    assert store.add_inputs(now_of(store, "fc-1"), 0, [b"a", b"b"]) == 0
    assert store.add_inputs(now_of(store, "fc-1"), 1, [b"b", b"c", b"d"]) == 2
    assert store.add_inputs(now_of(store, "fc-1"), 4, []) == 0
    assert now_of(store, "fc-1").added == 4
    assert waiting(store, call) == [(0, 1, b"a"), (1, 1, b"b"), (2, 1, b"c"), (3, 1, b"d")]


def test_inputs_that_are_over_are_not_added_again(store: CallStore) -> None:
    call = add(store, b"a", b"b", closed=False)
    settle(store, call, (0, OK, b"A"), (1, OK, b"B"))
    assert store.add_inputs(now_of(store, "fc-1"), 0, [b"a", b"b", b"c"]) == 1
    assert waiting(store, call) == [(2, 1, b"c")]


def test_calls_do_not_see_each_others_inputs(store: CallStore) -> None:
    first, second = add(store, b"a", call_id="fc-1"), add(store, b"b", b"c", call_id="fc-2")
    assert waiting(store, first) == [(0, 1, b"a")]
    assert waiting(store, second) == [(0, 1, b"b"), (1, 1, b"c")]
    with store.transaction():
        assert store.settle_rest(first, CANCELLED, None, 12.0) == 1
    assert now_of(store, "fc-2").open == 2


# Windows.


def test_waiting_inputs_come_in_windows_by_their_count(store: CallStore) -> None:
    call = add(store, *[b"%d" % number for number in range(10)])
    assert [row[0] for row in waiting(store, call, limit=4)] == [0, 1, 2, 3]
    assert [row[0] for row in waiting(store, call, after=3, limit=4)] == [4, 5, 6, 7]
    settle(store, call, (8, OK, b""))
    assert [row[0] for row in waiting(store, call, after=7, limit=4)] == [9]
    assert waiting(store, call, after=9) == []


def test_waiting_inputs_come_in_windows_by_their_bytes_and_one_at_least(
    store: CallStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callstore, "WINDOW_BYTES", 100)
    call = add(store, b"x" * 50, b"y" * 50, b"z", LARGE, b"w" * 101, b"v")
    windows = []
    after = -1
    while rows := waiting(store, call, after=after):
        windows.append([position for position, _, _ in rows])
        after = rows[-1][0]
    assert windows == [[0, 1], [2], [3], [4], [5]]


def test_outcomes_come_in_windows_by_their_bytes_too(
    store: CallStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callstore, "WINDOW_BYTES", 200)
    call = add(store, b"", b"", b"", b"")
    settle(store, call, *[(position, OK, b"x" * 120) for position in range(4)])
    assert len(store.outcomes(call, 0, 4)) == 2
    assert len(store.outcomes(call, 3, 4)) == 1


# Outcomes.


def test_the_first_outcome_of_an_input_is_its_outcome(store: CallStore) -> None:
    call = add(store, b"a", b"b")
    assert settle(store, call, (0, OK, b"first")) == set()
    assert settle(store, call, (0, FAILED, b"second"), (1, OK, b"B"), (1, OK, b"again")) == {0, 1}
    assert store.outcomes(call, 0, 10) == [(OK, b"first"), (OK, b"B")]
    assert now_of(store, "fc-1").done == 2


@pytest.mark.parametrize("first", [b"small", LARGE])
def test_a_late_large_outcome_does_not_replace_the_first(store: CallStore, path: Path, first: bytes) -> None:
    call = add(store, b"a")
    settle(store, call, (0, OK, first))
    before = files(path)
    assert settle(store, call, (0, OK, LARGER)) == {0}
    assert store.outcomes(call, 0, 1) == [(OK, first)]
    assert files(path) == before


def test_an_input_that_is_not_there_has_no_outcome(store: CallStore) -> None:
    call = add(store, b"a")
    assert settle(store, call, (5, OK, b"x"), (6, OK, LARGE)) == {5, 6}
    assert now_of(store, "fc-1").done == 0
    assert store.outcomes(call, 5, 2) == []


def test_outcomes_are_those_of_a_range_of_positions_in_their_order(store: CallStore) -> None:
    call = add(store, *[b"x"] * 5)
    settle(store, call, (3, OK, b"three"), (1, CANCELLED, None))
    assert store.outcomes(call, 0, 5) == [
        (None, None),
        (CANCELLED, None),
        (None, None),
        (OK, b"three"),
        (None, None),
    ]
    assert store.outcomes(call, 3, 1) == [(OK, b"three")]
    assert store.outcomes(call, 5, 10) == []
    assert store.statuses(call, 4) == [None, CANCELLED, None, OK]
    assert store.open_among([call.first + p for p in range(6)]) == {
        call.first,
        call.first + 2,
        call.first + 4,
    }


def test_the_arguments_of_an_input_that_is_over_are_dropped(store: CallStore) -> None:
    call = add(store, b"a", LARGE, b"c")
    settle(store, call, (0, OK, b""))
    numbers = [call.first + position for position in range(4)]
    assert store.arguments(numbers) == {numbers[1]: LARGE, numbers[2]: b"c"}
    assert store._run("SELECT arguments FROM inputs WHERE id = ?", numbers[0]) == [(None,)]


def test_settling_the_rest_leaves_the_outcomes_that_are_there(store: CallStore) -> None:
    call = add(store, b"a", b"b", LARGE)
    settle(store, call, (1, OK, b"B"))
    with store.transaction():
        assert store.settle_rest(call, CANCELLED, None, 13.0) == 2
        assert store.settle_rest(call, FAILED, None, 14.0) == 0
    assert store.outcomes(call, 0, 3) == [(CANCELLED, None), (OK, b"B"), (CANCELLED, None)]
    assert now_of(store, "fc-1").over_at == 13.0
    assert settle(store, call, (0, OK, b"late")) == {0}


# When a call is over.


def test_a_closed_call_is_over_with_its_last_outcome(store: CallStore) -> None:
    call = add(store, b"a", b"b")
    assert (call.size, call.added, call.done, call.over_at, call.open) == (2, 2, 0, None, 2)
    settle(store, call, (1, OK, b""), now=20.0)
    assert (now_of(store, "fc-1").done, now_of(store, "fc-1").over_at) == (1, None)
    settle(store, call, (0, FAILED, b""), now=21.0)
    assert (now_of(store, "fc-1").open, now_of(store, "fc-1").over_at) == (0, 21.0)
    settle(store, call, (0, OK, b""), now=22.0)
    assert now_of(store, "fc-1").over_at == 21.0


def test_a_call_whose_inputs_are_all_over_is_over_when_it_is_closed(store: CallStore) -> None:
    call = add(store, b"a", closed=False)
    settle(store, call, (0, OK, b""), now=20.0)
    assert (now_of(store, "fc-1").size, now_of(store, "fc-1").over_at) == (None, None)
    store.close_call(call, 30.0)
    store.close_call(call, 40.0)
    assert (now_of(store, "fc-1").size, now_of(store, "fc-1").over_at) == (1, 30.0)


def test_a_call_without_inputs_is_over_when_it_is_closed(store: CallStore) -> None:
    call = add(store, closed=False)
    with store.transaction():
        assert store.settle_rest(call, CANCELLED, None, 20.0) == 0
    assert now_of(store, "fc-1").over_at is None
    store.close_call(call, 30.0)
    assert (now_of(store, "fc-1").size, now_of(store, "fc-1").over_at) == (0, 30.0)


def test_closing_a_call_again_does_not_change_its_size(store: CallStore) -> None:
    call = add(store, b"a")
    store.add_inputs(call, 1, [b"b"])
    store.close_call(call, 30.0)
    assert now_of(store, "fc-1").size == 1


# Large values.


def test_values_over_a_mebibyte_are_files_and_others_are_rows(store: CallStore, path: Path) -> None:
    call = add(store, b"x" * FILE_BYTES, LARGE, b"y")
    assert files(path) == [f"{call.first + 1}.arguments"]
    assert [len(row[2]) for row in waiting(store, call)] == [FILE_BYTES, FILE_BYTES + 1, 1]
    assert (path.with_suffix("") / files(path)[0]).read_bytes() == LARGE
    settle(store, call, (2, OK, LARGER))
    assert files(path) == [f"{call.first + 1}.arguments", f"{call.first + 2}.outcome"]
    assert store.outcomes(call, 2, 1) == [(OK, LARGER)]


@pytest.mark.parametrize("reopened", [False, True])
def test_the_file_of_arguments_goes_with_the_outcome(path: Path, reopened: bool) -> None:
    with CallStore(path) as store:
        call = add(store, LARGE, LARGE, LARGE)
        if not reopened:
            settle(store, call, (0, OK, b""))
    with CallStore(path) as store:
        settle(store, call, (0, OK, b""))
        assert files(path) == [f"{call.first + 1}.arguments", f"{call.first + 2}.arguments"]
        with store.transaction():
            store.settle_rest(call, CANCELLED, None, 12.0)
        assert files(path) == []
        assert not store._large


def test_a_transaction_that_is_rolled_back_deletes_no_file(store: CallStore, path: Path) -> None:
    call = add(store, LARGE, LARGE)
    other = add(store, b"", call_id="fc-2")
    settle(store, other, (0, OK, LARGER))
    before = files(path)
    with contextlib.suppress(KeyError), store.transaction():
        store.settle([(call.first, OK, b"x")], 20.0)
        store.settle_rest(call, CANCELLED, None, 20.0)
        store.expire(1000.0)
        raise KeyError
    settle(store, other, (0, OK, b"late"))
    assert files(path) == before
    assert waiting(store, call) == [(0, 1, LARGE), (1, 1, LARGE)]
    assert store.outcomes(other, 0, 1) == [(OK, LARGER)]


def test_what_was_rolled_back_is_deleted_when_it_happens_after_all(store: CallStore, path: Path) -> None:
    call = add(store, LARGE, LARGE)
    with contextlib.suppress(KeyError), store.transaction():
        store.settle([(call.first, OK, b"x")], 20.0)
        store.settle_rest(call, CANCELLED, None, 20.0)
        raise KeyError
    settle(store, call, (0, OK, b"x"), (1, OK, b"x"))
    assert files(path) == []


def test_files_whose_writer_was_killed_before_its_commit_are_dropped(path: Path) -> None:
    code = """
import os, signal, sys
from flexray.core.status import SpawnedCall
from flexray.runtime.callstore import FILE_BYTES, CallStore
store = CallStore(sys.argv[1])
large = b"L" * (FILE_BYTES + 1)
with store.transaction():
    call = store.add_call(SpawnedCall("fc-1", "f", False, None), store.add_pool("a/f", b""), 10.0)
    store.add_inputs(call, 0, [large, large])
with store.transaction():
    store.add_inputs(store.call("fc-1"), 2, [large])
    store.settle([(call.first, 0, large)], 11.0)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code, path], check=False).returncode == -9
    first = POSITIONS
    assert files(path) == [
        f"{first}.arguments",
        f"{first}.outcome",
        f"{first + 1}.arguments",
        f"{first + 2}.arguments",
    ]
    with CallStore(path) as store:
        assert files(path) == [f"{first}.arguments", f"{first + 1}.arguments"]
        call = now_of(store, "fc-1")
        assert waiting(store, call) == [(0, 1, LARGE), (1, 1, LARGE)]
        settle(store, call, (0, OK, b""), (1, OK, b""))
        assert files(path) == []


def test_files_of_a_writer_that_was_killed_after_its_commit_are_dropped(path: Path) -> None:
    with CallStore(path) as store:
        call = add(store, LARGE)
        settle(store, call, (0, OK, LARGER))
    (path.with_suffix("") / f"{call.first}.arguments").write_bytes(LARGE)
    foreign = [".arguments", ".nfs00012", "notes.txt"]
    for name in foreign:
        (path.with_suffix("") / name).touch()
    with CallStore(path) as store:
        assert files(path) == sorted([*foreign, f"{call.first}.outcome"])
        assert store.outcomes(call, 0, 1) == [(OK, LARGER)]


def test_a_file_that_somebody_deleted_is_named(store: CallStore, path: Path) -> None:
    call = add(store, LARGE, b"b")
    settle(store, call, (1, OK, LARGER))
    for file in path.with_suffix("").iterdir():
        file.unlink()
    for arguments in (
        store.waiting([(call, 0, 10)])[0][0].arguments,
        store.arguments([call.first])[call.first],
    ):
        with pytest.raises(ExecutionError, match=f"{call.first}.arguments"):
            pickle.loads(arguments)
    with pytest.raises(ExecutionError, match=f"{call.first + 1}.outcome"):
        store.outcomes(call, 0, 2)
    assert store.statuses(call, 10) == [None, OK]


def test_only_the_user_can_look_at_the_large_values(store: CallStore, path: Path) -> None:
    assert path.with_suffix("").stat().st_mode & 0o777 == 0o700


def test_large_values_are_swept_with_their_database(path: Path) -> None:
    with CallStore(path) as store:
        add(store, LARGE)
    seconds = path.stat().st_mtime - 31 * 86_400
    os.utime(path, (seconds, seconds))
    assert database.sweep(path.parent) == [path]
    assert list(path.parent.iterdir()) == []


# Time.


def test_results_expire_after_their_call_is_over(store: CallStore, path: Path) -> None:
    over = add(store, b"a", b"b", call_id="fc-1")
    settle(store, over, (0, OK, LARGE), (1, OK, b""), now=100.0)
    still_open = add(store, b"a", b"b", call_id="fc-2")
    settle(store, still_open, (0, OK, b"x"), now=50.0)
    for before, count in ((100.0, 0), (101.0, 1), (101.0, 0)):
        with store.transaction():
            assert store.expire(before) == count
    assert now_of(store, "fc-1").expired
    assert store.outcomes(over, 0, 10) == []
    assert files(path) == []
    assert not now_of(store, "fc-2").expired
    assert store.outcomes(still_open, 0, 1) == [(OK, b"x")]


def test_an_expired_call_is_known_by_name_for_three_months_and_then_forgotten(store: CallStore) -> None:
    call = add(store, b"a")
    settle(store, call, (0, OK, b""), now=100.0)
    for before in (200.0, 100.0 + FORGET_EXPIRED_S):
        store.expire(before)
        assert now_of(store, "fc-1").expired
    store.expire(101.0 + FORGET_EXPIRED_S)
    assert store.call("fc-1") is None
    assert add(store, b"a", call_id="fc-2").number > call.number, "numbers are never used again"


# Batches.


def batch(
    number: int, *inputs: int, dispatcher: str = "d", lease: int = 1, container: str = "f#1"
) -> SentBatch:
    return SentBatch(dispatcher, number, 1, container, lease, inputs, dict.fromkeys(inputs[1:], 2))


def test_batches_are_kept_until_they_are_answered_or_their_container_is_dead(path: Path) -> None:
    one, two, three, four = batch(1, 7, 8), batch(2, 9), batch(3, 10, container="f#2"), batch(4, 11)
    with CallStore(path) as store:
        store.add_batches([four, two, one, three])
        store.add_batches([two])
        store.delete_batch("d", 1, 4)
        store.delete_batch("d", 1, 4)
        store.delete_batch("e", 1, 1)
    with CallStore(path) as store:
        assert store.batches() == [one, two, three]
        store.delete_batches_of("d", "f#1")
        assert store.batches() == [three]


def test_batches_of_two_pools_may_have_the_same_number(store: CallStore) -> None:
    one, two = batch(1, 7), replace(batch(1, 8, container="g#1"), pool=2)
    store.add_batches([one, two])
    assert store.batches() == [one, two]
    store.delete_batch("d", 1, 1)
    assert store.batches() == [two]


def test_what_an_earlier_process_sent_to_a_dead_container_is_kept_until_it_is_settled(
    store: CallStore,
) -> None:
    """An at-most-once input in it must end as lost, even where this process is killed before that."""
    earlier, mine = batch(1, 7, dispatcher="a"), batch(1, 8, dispatcher="b", lease=2)
    store.add_batches([earlier, mine])
    store.delete_batches_of("b", "f#1")
    assert store.batches() == [earlier]


def test_batches_of_a_later_process_come_after_those_of_an_earlier_one(store: CallStore) -> None:
    earlier = [batch(5, 7, dispatcher="z", lease=3), batch(6, 7, dispatcher="z", lease=1)]
    later = [batch(1, 7, dispatcher="a", lease=4), batch(10, 7, dispatcher="a", lease=9)]
    store.add_batches([*later, *earlier])
    assert store.batches() == [*earlier, *later]


def test_attempts_are_kept(path: Path) -> None:
    with CallStore(path) as store:
        call = add(store, b"a", b"b")
        store.set_attempts({call.first + 1: 3})
    with CallStore(path) as store:
        assert waiting(store, call) == [(0, 1, b"a"), (1, 3, b"b")]
        assert store.later_attempts([call.first, call.first + 1]) == {call.first + 1: 3}


# The disk.


def test_everything_is_there_after_a_restart(path: Path) -> None:
    with CallStore(path) as store:
        call = add(store, b"a", LARGE, b"c", b"d")
        settle(store, call, (0, OK, b"A"), (3, START_FAILED, ["why"]))
    with CallStore(path) as store:
        assert store.pools() == {1: ("a/f", b"record")}
        assert now_of(store, "fc-1") == Call(1, "fc-1", 1, "f", None, 10.0, 4, 4, 2, None, expired=False)
        assert waiting(store, call) == [(1, 1, LARGE), (2, 1, b"c")]
        assert store.outcomes(call, 0, 4) == [(OK, b"A"), (None, None), (None, None), (START_FAILED, ["why"])]


def test_a_newer_file_is_refused_and_left_as_it_is(path: Path) -> None:
    with CallStore(path) as store:
        add(store, b"a")
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(ExecutionError, match="newer FlexRay: schema 99, known here 1") as caught:
        CallStore(path)
    assert "hint: upgrade FlexRay" in str(caught.value)
    assert path.read_bytes() == before


def test_a_damaged_file_says_what_to_do(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"not SQLite at all" * 100)
    with pytest.raises(ExecutionError, match="move it away") as caught:
        CallStore(path)
    assert str(path) in str(caught.value)


def test_a_page_that_is_damaged_says_what_to_do(path: Path) -> None:
    with CallStore(path) as store:
        call = add(store, *[b"x" * 1000] * 100)
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))
    with CallStore(path) as store, pytest.raises(ExecutionError, match="hint: the file is damaged"):
        store.waiting([(call, call.first, 1000)])


def test_a_full_disk_is_named_and_loses_nothing(store: CallStore) -> None:
    call = add(store, b"a" * 1000, b"b", closed=False)
    settle(store, call, (1, OK, b"B"))
    pages = store._run("PRAGMA page_count")[0][0]
    store._run(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(ExecutionError, match="free space on that disk") as caught, store.transaction():
        store.add_inputs(now_of(store, "fc-1"), 2, [b"x" * 1000] * 100)
    assert str(store.path) in str(caught.value)
    assert now_of(store, "fc-1").added == 2
    assert waiting(store, call) == [(0, 1, b"a" * 1000)]
    assert store.outcomes(call, 0, 2) == [(None, None), (OK, b"B")]
    store._run("PRAGMA max_page_count = 1000000")
    with store.transaction():
        assert store.add_inputs(now_of(store, "fc-1"), 2, [b"x" * 1000] * 100) == 100


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on files")
@pytest.mark.parametrize("size", [3000, FILE_BYTES + 1])
def test_a_file_that_may_not_grow_is_named_and_loses_nothing(path: Path, size: int) -> None:
    """The nearest to a full disk that needs no disk of its own: the system refuses to write any further."""
    code = """
import resource, signal, sys
from flexray.core.status import SpawnedCall
from flexray.errors import ExecutionError
from flexray.runtime.callstore import CallStore
store = CallStore(sys.argv[1])
with store.transaction():
    call = store.add_call(SpawnedCall("fc-1", "f", False, None), store.add_pool("a/f", b""), 10.0)
    store.add_inputs(call, 0, [b"a", b"b"])
    store.settle([(call.first, 0, b"A")], 11.0)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
added = 2
try:
    while True:
        with store.transaction():
            assert store.add_inputs(store.call("fc-1"), added, [b"x" * int(sys.argv[2])] * 10) == 10
        added += 10
except ExecutionError as error:
    text = str(error)
assert sys.argv[1].removesuffix(".sqlite") in text and "hint: free space on that disk" in text, text
assert len(store.waiting([(store.call("fc-1"), 0, 10_000)])[0]) == added - 1
assert store.outcomes(call, 0, 2) == [(0, b"A"), (None, None)]
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
with store.transaction():
    store.add_inputs(store.call("fc-1"), added, [b"c"])
print(added)
"""
    command = [sys.executable, "-c", code, str(path), str(size)]
    ran = subprocess.run(command, check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    with CallStore(path) as store:
        assert now_of(store, "fc-1").added == int(ran.stdout) + 1
        assert len(waiting(store, now_of(store, "fc-1"), limit=10_000)) == int(ran.stdout)


# All of it against a model.


class Model(RuleBasedStateMachine):
    """The store beside a dictionary; reopened, rolled back and repeated at random."""

    folder: Path

    @initialize()
    def open(self) -> None:
        for file in [*self.folder.glob("*.*"), *self.folder.glob("calls/*")]:
            if file.is_file():
                file.unlink()
        self.store = CallStore(self.folder / "calls.sqlite")
        self.inputs: dict[str, list[tuple[bytes, tuple[int, object] | None]]] = {}
        self.closed: set[str] = set()
        self.over: dict[str, float] = {}
        self.expired: set[str] = set()
        self.now = 0.0

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()

    calls = st.sampled_from(["fc-1", "fc-2", "fc-3"])
    values = st.sampled_from([b"", b"small", b"L" * 200, b"R" * 201])

    def _note_over(self) -> None:
        for call_id in self.closed - self.over.keys():
            if all(outcome for _, outcome in self.inputs[call_id]):
                self.over[call_id] = self.now

    @rule(call_id=calls, back=st.integers(0, 3), values=st.lists(values, max_size=4), fails=st.booleans())
    def add(self, call_id: str, back: int, values: list[bytes], fails: bool) -> None:
        if call_id in self.closed:
            return
        known = self.inputs.get(call_id, [])
        first = max(0, len(known) - back)
        arguments = [value for value, _ in known[first:]] + values
        try:
            with self.store.transaction():
                call = self.store.add_call(spawned(call_id), 1, self.now)
                assert self.store.add_inputs(call, first, arguments) == len(values)
                if fails:
                    raise KeyError
        except KeyError:
            return
        self.inputs[call_id] = known + [(value, None) for value in values]

    @rule(call_id=calls)
    def close(self, call_id: str) -> None:
        call = self.store.call(call_id)
        if call is not None:
            self.now += 1
            self.store.close_call(call, self.now)
            self.closed.add(call_id)
            self._note_over()

    @rule(call_id=calls, positions=st.lists(st.integers(0, 6), max_size=3), value=values, fails=st.booleans())
    def settle(self, call_id: str, positions: list[int], value: bytes, fails: bool) -> None:
        call = self.store.call(call_id)
        if call is None or call_id in self.expired:
            return
        self.now += 1
        try:
            with self.store.transaction():
                self.store.settle([(call.first + p, OK, value) for p in positions], self.now)
                if fails:
                    raise KeyError
        except KeyError:
            return
        inputs = self.inputs[call_id]
        for position in positions:
            if position < len(inputs) and inputs[position][1] is None:
                inputs[position] = (inputs[position][0], (OK, value))
        self._note_over()

    @rule(call_id=calls)
    def cancel(self, call_id: str) -> None:
        call = self.store.call(call_id)
        if call is None or call_id in self.expired:
            return
        self.now += 1
        with self.store.transaction():
            self.store.settle_rest(call, CANCELLED, None, self.now)
        self.inputs[call_id] = [(value, end or (CANCELLED, None)) for value, end in self.inputs[call_id]]
        self._note_over()

    @rule(seconds=st.integers(0, 5))
    def expire(self, seconds: int) -> None:
        before = self.now - seconds
        with self.store.transaction():
            self.store.expire(before)
        self.expired |= {call_id for call_id, over_at in self.over.items() if over_at < before}

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = CallStore(self.folder / "calls.sqlite")

    @precondition(lambda self: hasattr(self, "store"))
    @invariant()
    def it_keeps_what_the_model_keeps(self) -> None:
        expected_files = set()
        for call_id, inputs in self.inputs.items():
            call = now_of(self.store, call_id)
            is_expired = call_id in self.expired
            assert (call.expired, call.over_at) == (is_expired, self.over.get(call_id))
            assert call.added == len(inputs)
            assert call.done == sum(end is not None for _, end in inputs)
            assert call.size == (len(inputs) if call_id in self.closed else None)
            kept = [] if is_expired else inputs
            assert self.store.outcomes(call, 0, 100) == [end or (None, None) for _, end in kept]
            assert waiting(self.store, call) == [(p, 1, v) for p, (v, end) in enumerate(kept) if end is None]
            for position, (value, end) in enumerate(kept):
                if end is None and len(value) > callstore.FILE_BYTES:
                    expected_files.add(f"{call.first + position}.arguments")
                if end is not None and isinstance(end[1], bytes) and len(end[1]) > callstore.FILE_BYTES:
                    expected_files.add(f"{call.first + position}.outcome")
        assert expected_files <= set(files(self.store.path))
        over = {
            f"{now_of(self.store, call_id).first + position}.arguments"
            for call_id, inputs in self.inputs.items()
            for position, (_, end) in enumerate(inputs)
            if end is not None
        }
        assert not over & set(files(self.store.path))


def test_the_store_agrees_with_a_dictionary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callstore, "FILE_BYTES", 150)
    machine = type("Machine", (Model,), {"folder": tmp_path})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=60,
            stateful_step_count=25,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
