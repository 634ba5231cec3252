from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from flexray.dual import Dual, DualIterable, DualIterator
from flexray.errors import InvalidError


def _double(x: int, *, plus: int = 0) -> int:
    return 2 * x + plus


async def _double_async(x: int, *, plus: int = 0) -> int:
    return 2 * x + plus


def test_a_dual_blocks_when_called() -> None:
    assert Dual(_double, _double_async)(3, plus=1) == 7


def test_the_aio_form_of_a_dual_is_a_coroutine_of_the_same_arguments() -> None:
    assert asyncio.run(Dual(_double, _double_async).aio(3, plus=1)) == 7


def _count(n: int) -> Iterator[int]:
    yield from range(n)


async def _count_async(n: int) -> AsyncIterator[int]:
    for i in range(n):
        yield i


async def _collect(items: Any) -> list[int]:
    return [item async for item in items]


COUNT = DualIterable(_count, _count_async)


def test_outputs_are_read_with_a_plain_loop() -> None:
    assert list(COUNT(3)) == [0, 1, 2]


def test_the_same_outputs_are_read_with_an_async_loop() -> None:
    assert asyncio.run(_collect(COUNT(3))) == [0, 1, 2]


def test_the_aio_form_is_read_with_an_async_loop() -> None:
    assert asyncio.run(_collect(COUNT.aio(3))) == [0, 1, 2]


def test_outputs_are_an_iterator_that_goes_on_where_it_was_left() -> None:
    outputs = COUNT(3)
    assert next(outputs) == 0
    assert list(outputs) == [1, 2]


def test_outputs_read_in_one_way_are_refused_in_the_other() -> None:
    outputs = COUNT(3)
    next(outputs)
    with pytest.raises(InvalidError, match="cannot be read with `async for` too"):
        asyncio.run(_collect(outputs))
    outputs = COUNT(3)
    asyncio.run(_collect(outputs))
    with pytest.raises(InvalidError, match="cannot be read with `for` too"):
        list(outputs)


def test_nothing_runs_before_the_first_item_is_asked_for() -> None:
    made: list[str] = []

    def blocking() -> Iterator[int]:
        made.append("blocking")
        return iter([1])

    outputs = DualIterator(blocking, lambda: _count_async(1))
    assert not outputs.started
    assert made == []
    assert list(outputs) == [1]
    assert outputs.started


class _Closable:
    def __init__(self) -> None:
        self.closed: list[str] = []

    def blocking(self) -> Iterator[int]:
        try:
            yield from range(10)
        finally:
            self.closed.append("blocking")

    async def asynchronous(self) -> AsyncIterator[int]:
        try:
            for i in range(10):
                yield i
        finally:
            self.closed.append("asynchronous")


def test_leaving_the_loop_early_ends_the_iteration() -> None:
    source = _Closable()
    for _ in DualIterator(source.blocking, source.asynchronous):
        break
    assert source.closed == ["blocking"]


def test_closing_ends_either_iteration() -> None:
    source = _Closable()
    outputs = DualIterator(source.blocking, source.asynchronous)
    next(outputs)
    outputs.close()
    assert source.closed == ["blocking"]

    async def read_one() -> None:
        outputs = DualIterator(source.blocking, source.asynchronous)
        await anext(outputs)
        await outputs.aclose()

    asyncio.run(read_one())
    assert source.closed == ["blocking", "asynchronous"]
