from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from flexray.runtime.database import Database
from flexray.runtime.groupcommit import GROUP_MAX, GroupCommit

SCHEMAS = ("CREATE TABLE words (word TEXT NOT NULL UNIQUE);",)


class Words(Database):
    """A database that counts its transactions."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, SCHEMAS)
        self.begun = 0
        self._connection.set_trace_callback(self._count)

    def _count(self, statement: str) -> None:
        self.begun += statement.startswith("BEGIN")

    def add(self, word: str) -> Callable[[], str]:
        def operation() -> str:
            self._run("INSERT INTO words VALUES (?)", word)
            return word.upper()

        return operation

    @property
    def all(self) -> list[str]:
        return [row[0] for row in self._run("SELECT word FROM words ORDER BY rowid")]


@pytest.fixture
def words(tmp_path: Path) -> Iterator[Words]:
    with Words(tmp_path / "words.sqlite") as words:
        yield words


class Held:
    """The writer is inside an operation until it is let go: whatever comes meanwhile is one group."""

    def __init__(self, writer: GroupCommit) -> None:
        self._begun, self._go = threading.Event(), threading.Event()
        self._first = writer.submit(self._operation)
        assert self._begun.wait(10)

    def _operation(self) -> None:
        self._begun.set()
        assert self._go.wait(10)

    def let_go(self) -> None:
        self._go.set()
        self._first.result(10)


def test_an_operation_is_answered_with_what_it_returned_once_it_is_kept(words: Words) -> None:
    writer = GroupCommit(words)
    assert writer.submit(words.add("a")).result(10) == "A"
    assert writer.run(words.add("b")) == "B"
    assert not words._connection.in_transaction
    assert words.all == ["a", "b"]


def test_operations_run_in_the_order_in_which_they_came(words: Words) -> None:
    writer = GroupCommit(words)
    names = [str(number) for number in range(2 * GROUP_MAX + 1)]
    futures = [writer.submit(words.add(name)) for name in names]
    assert [future.result(10) for future in futures] == names
    assert words.all == names


def test_what_comes_while_one_write_is_under_way_shares_the_next(words: Words) -> None:
    writer = GroupCommit(words)
    held = Held(writer)
    before = words.begun
    futures = [writer.submit(words.add(str(number))) for number in range(GROUP_MAX)]
    held.let_go()
    for future in futures:
        future.result(10)
    assert words.begun == before + 1


def test_a_group_has_a_bound(words: Words) -> None:
    writer = GroupCommit(words)
    held = Held(writer)
    before = words.begun
    futures = [writer.submit(words.add(str(number))) for number in range(GROUP_MAX + 1)]
    held.let_go()
    for future in futures:
        future.result(10)
    assert words.begun == before + 2


@pytest.mark.parametrize("position", [0, 3, 6])
def test_an_operation_that_fails_takes_none_of_its_group_with_it(words: Words, position: int) -> None:
    def fails() -> str:
        words.add("half")()
        raise KeyError("wrong")

    writer = GroupCommit(words)
    held = Held(writer)
    names = [str(number) for number in range(7)]
    operations = [fails if number == position else words.add(name) for number, name in enumerate(names)]
    futures = [writer.submit(operation) for operation in operations]
    held.let_go()
    with pytest.raises(KeyError, match="wrong"):
        futures[position].result(10)
    del names[position], futures[position]
    assert [future.result(10) for future in futures] == names
    assert words.all == names


def test_two_of_a_group_may_fail(words: Words) -> None:
    writer = GroupCommit(words)
    held = Held(writer)
    futures = [writer.submit(words.add(name)) for name in ("a", "a", "b", "a", "c")]
    held.let_go()
    assert [future.exception(10) is None for future in futures] == [True, False, True, False, True]
    assert words.all == ["a", "b", "c"]


def test_what_fails_when_it_is_run_raises_there(words: Words) -> None:
    writer = GroupCommit(words)

    def fails() -> None:
        raise KeyError("wrong")

    with pytest.raises(KeyError, match="wrong"):
        writer.run(fails)
    assert writer.run(words.add("a")) == "A"


def test_nothing_is_answered_before_it_is_kept(words: Words) -> None:
    in_transaction: list[bool] = []
    writer = GroupCommit(words)
    held = Held(writer)
    for name in "abc":
        writer.submit(words.add(name)).add_done_callback(
            lambda _: in_transaction.append(words._connection.in_transaction)
        )
    held.let_go()
    writer.run(lambda: None)
    assert in_transaction == [False] * 3


def test_an_operation_that_was_cancelled_before_its_turn_does_not_run_and_stops_nobody(words: Words) -> None:
    writer = GroupCommit(words)
    held = Held(writer)
    first, second, third = (writer.submit(words.add(name)) for name in "abc")
    assert second.cancel()
    held.let_go()
    assert (first.result(10), third.result(10)) == ("A", "C")
    assert writer.submit(words.add("d")).result(10) == "D"
    assert words.all == ["a", "c", "d"]


def test_an_operation_that_has_begun_cannot_be_cancelled(words: Words) -> None:
    writer = GroupCommit(words)
    begun, go = threading.Event(), threading.Event()

    def operation() -> int:
        begun.set()
        assert go.wait(10)
        return 7

    future: Future[int] = writer.submit(operation)
    assert begun.wait(10)
    assert not future.cancel()
    go.set()
    assert future.result(10) == 7


def test_many_threads_run_and_submit_at_once_and_each_gets_its_own(words: Words) -> None:
    writer = GroupCommit(words)

    def work(thread: int) -> bool:
        names = [f"t{thread}-{number}" for number in range(100)]
        futures = [writer.submit(words.add(f"{name}-later")) for name in names]
        ran = [writer.run(words.add(name)) for name in names]
        return ran == [name.upper() for name in names] and all(f.result(10) for f in futures)

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(work, range(8)))
    assert len(words.all) == 1600
    for thread in range(8):
        mine = [word for word in words.all if word.startswith(f"t{thread}-") and "later" not in word]
        assert mine == [f"t{thread}-{number}" for number in range(100)]
