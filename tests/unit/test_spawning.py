from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import AsyncIterator

import pytest

from flexray import spawning
from flexray.call import _finished, _Steps
from flexray.errors import InvalidError
from flexray.spawning import _Reader


def test_a_slow_async_iterator_gives_what_it_has_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spawning, "CHUNK_S", 0.05)

    async def slow() -> AsyncIterator[tuple[int]]:
        yield (0,)
        yield (1,)
        await asyncio.sleep(0.3)
        yield (2,)

    async def read() -> list[list[tuple[int, ...]]]:
        reader = _Reader(slow())
        chunks = []
        while chunk := await reader.some():
            chunks.append(chunk)
        return chunks

    assert asyncio.run(read()) == [[(0,), (1,)], [(2,)]]


def test_an_async_iterator_is_read_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spawning, "CHUNK", 3)

    async def numbers() -> AsyncIterator[tuple[int]]:
        for number in range(7):
            yield (number,)

    async def read() -> list[int]:
        reader = _Reader(numbers())
        return [len(await reader.some()) for _ in range(4)]

    assert asyncio.run(read()) == [3, 3, 1, 0]


def test_ctrl_c_ends_what_waits_for_several_calls() -> None:
    began = time.monotonic()
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        _finished(asyncio.sleep(30))
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("index", [-1, 1 << 32, 1 << 63, True, 1.0, None])
def test_an_index_that_no_call_can_have_is_refused(index: object) -> None:
    with pytest.raises(InvalidError, match="index is"):
        _Steps("fc-1", None, index)
