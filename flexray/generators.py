"""Results one by one: what runs `remote_gen`.

One rule: a generator runs once; leaving the loop ends it in its container, at most 16 results ahead of here.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

from flexray.backend import Client, Results
from flexray.core.status import OK
from flexray.outcome import exception_of
from flexray.serialization import unpack_result


def results(client: Client, name: str, prepared: Any) -> Iterator[Any]:
    """The results, on this thread."""
    changed = threading.Event()
    stream = client.stream(prepared, changed.set)
    try:
        while not _is_over(stream):
            if stream.is_readable and stream.must_ask:
                for packed in stream.fetch():
                    yield unpack_result(packed)
            else:
                changed.wait()
                changed.clear()
        _check(client, name, stream)
    finally:
        stream.close()


async def results_async(client: Client, name: str, prepared: Any) -> AsyncIterator[Any]:
    """The results, on this event loop."""
    import asyncio  # noqa: PLC0415  # Whoever runs this has imported it already.

    loop, changed = asyncio.get_running_loop(), asyncio.Event()

    def wake() -> None:
        with contextlib.suppress(RuntimeError):  # The loop was closed, and nobody reads any more.
            loop.call_soon_threadsafe(changed.set)

    stream = client.stream(prepared, wake)
    try:
        while not _is_over(stream):
            if stream.is_readable and stream.must_ask:
                for packed in await stream.fetch_async():
                    yield unpack_result(packed)
            else:
                await changed.wait()
                changed.clear()
        _check(client, name, stream)
    finally:
        stream.close()


def _is_over(stream: Results) -> bool:
    return stream.outcome is not None and not stream.must_ask


def _check(client: Client, name: str, stream: Results) -> None:
    """Raise what the generator raised, or what became of it."""
    assert stream.outcome is not None
    status, payload = stream.outcome
    if status != OK:
        raise exception_of(name, True, client, status, payload)
