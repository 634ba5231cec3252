"""One method, two forms: blocking, and `.aio`.

One rule: both forms take the same arguments; which one runs is decided by how it is called, never guessed.

    resize.remote(image)               await resize.remote.aio(image)
    for x in resize.map(images): ...   async for x in resize.map(images): ...
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Generic, ParamSpec, Self, TypeVar

from flexray.errors import InvalidError

logger = logging.getLogger("flexray")

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Dual(Generic[P, R]):
    """A callable that blocks, with a coroutine function of the same signature as its `.aio`.

    ```python
    @property
    def remote(self) -> Dual[P, R]:
        return Dual(self._remote, self._remote_async)
    ```
    """

    __slots__ = ("_asynchronous", "_blocking")

    def __init__(self, blocking: Callable[P, R], asynchronous: Callable[P, Coroutine[Any, Any, R]]) -> None:
        self._blocking = blocking
        self._asynchronous = asynchronous

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """The result; blocks until it is there."""
        return self._blocking(*args, **kwargs)

    def aio(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """The same as a coroutine."""
        return self._asynchronous(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<{getattr(self._blocking, '__qualname__', self._blocking)}, also as .aio>"


class DualIterator(Generic[T]):
    """An iterator for both `for` and `async for`. Nothing runs before the first item is asked for.

    Attributes:
        started: Whether an item was ever asked for.
    """

    def __init__(
        self,
        blocking: Callable[[], Iterator[T]],
        asynchronous: Callable[[], AsyncIterator[T]],
        name: str = "a map",
    ) -> None:
        self._name = name
        self._make_blocking = blocking
        self._make_asynchronous = asynchronous
        self._blocking: Iterator[T] | None = None
        self._asynchronous: AsyncIterator[T] | None = None

    @property
    def started(self) -> bool:
        """Whether an item was ever asked for."""
        return self._blocking is not None or self._asynchronous is not None

    def __del__(self) -> None:
        if not self.started:
            logger.warning("the outputs of %s were never read, so none of its inputs ran", self._name)

    def __iter__(self) -> Self:
        self._start_blocking()
        return self

    def __next__(self) -> T:
        return next(self._start_blocking())

    def __aiter__(self) -> Self:
        self._start_asynchronous()
        return self

    async def __anext__(self) -> T:
        return await anext(self._start_asynchronous())

    def close(self) -> None:
        """Ends the blocking iteration early, as leaving its loop does."""
        close = getattr(self._blocking, "close", None)
        if close is not None:
            close()

    async def aclose(self) -> None:
        """Ends the asynchronous iteration early, as leaving its loop does."""
        close = getattr(self._asynchronous, "aclose", None)
        if close is not None:
            await close()

    def _start_blocking(self) -> Iterator[T]:
        if self._asynchronous is not None:
            message = "these outputs are being read with `async for` and cannot be read with `for` too"
            raise InvalidError(message, "call it again for a second iteration")
        if self._blocking is None:
            self._blocking = self._make_blocking()
        return self._blocking

    def _start_asynchronous(self) -> AsyncIterator[T]:
        if self._blocking is not None:
            message = "these outputs are being read with `for` and cannot be read with `async for` too"
            raise InvalidError(message, "call it again for a second iteration")
        if self._asynchronous is None:
            self._asynchronous = self._make_asynchronous()
        return self._asynchronous


class DualIterable(Generic[P, T]):
    """A callable whose outputs are read with `for` or `async for`; its `.aio` is for `async for` alone."""

    __slots__ = ("_asynchronous", "_blocking", "_check", "_name")

    def __init__(
        self,
        blocking: Callable[P, Iterator[T]],
        asynchronous: Callable[P, AsyncIterator[T]],
        name: str = "a map",
        check: Callable[P, object] | None = None,
    ) -> None:
        self._name = name
        self._check = check  # Runs at the call, so that a wrong use is told there and not in the loop.
        self._blocking = blocking
        self._asynchronous = asynchronous

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> DualIterator[T]:
        """The outputs, for either kind of loop."""
        if self._check is not None:
            self._check(*args, **kwargs)
        return DualIterator(
            lambda: self._blocking(*args, **kwargs), lambda: self._asynchronous(*args, **kwargs), self._name
        )

    def aio(self, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
        """The same outputs as an async iterator."""
        return self._asynchronous(*args, **kwargs)


async def in_thread(work: Callable[[], T]) -> T:
    """What it returns, for a coroutine, whose event loop goes on meanwhile."""
    import asyncio  # noqa: PLC0415  # Whoever runs this has imported it already.

    return await asyncio.to_thread(work)
