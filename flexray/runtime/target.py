"""The user's code in a container: a function, or an instance of a class with its methods.

One rule: what kind of callable it is decides how it runs, and is seen once, when it is loaded.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

from flexray.decorators import ENTER, EXIT, BoundMethod, Marked, hooks_of, methods_of, new_instance

logger = logging.getLogger("flexray")


class Kind(Enum):
    """How a callable gives its result."""

    SYNC = "sync"
    ASYNC = "async"
    GENERATOR = "generator"
    ASYNC_GENERATOR = "async generator"

    @property
    def is_async(self) -> bool:
        return self in (Kind.ASYNC, Kind.ASYNC_GENERATOR)


def kind_of(function: Callable[..., Any]) -> Kind:
    """See `Kind`."""
    if inspect.isasyncgenfunction(function):
        return Kind.ASYNC_GENERATOR
    if inspect.isgeneratorfunction(function):
        return Kind.GENERATOR
    return Kind.ASYNC if inspect.iscoroutinefunction(function) else Kind.SYNC


class Target:
    """What inputs call, by name; a function's name is the empty one."""

    def __init__(
        self, code: Any, parameters: Mapping[str, Any] | None, *, is_generator: bool = False
    ) -> None:
        self._hooks: dict[str, list[Callable[[], Any]]] = {ENTER: [], EXIT: []}
        if parameters is None:
            self.methods: dict[str, Callable[..., Any]] = {"": code}
        else:
            instance = new_instance(code, parameters)
            self.methods = {name: getattr(instance, name) for name in methods_of(code)}
            self._hooks = {role: [getattr(instance, n) for n in hooks_of(code, role)] for role in self._hooks}
        self.kinds = {name: kind_of(_plain(method)) for name, method in self.methods.items()}
        if is_generator and self.kinds.get("") is Kind.SYNC:  # As the option says of what gives one.
            self.kinds[""] = Kind.GENERATOR

    @property
    def is_async(self) -> bool:
        """Whether everything runs on an event loop."""
        return all(kind.is_async for kind in self.kinds.values())

    @property
    def needs_loop(self) -> bool:
        """Whether anything does."""
        hooks = [hook for hooks in self._hooks.values() for hook in hooks]
        return any(kind.is_async for kind in self.kinds.values()) or any(
            _may_give_coroutine(_plain(function)) for function in (*self.methods.values(), *hooks)
        )

    def run_hooks(self, role: str, run_coroutine: Callable[[Any], Any]) -> None:
        """Call the enter hooks, or the exit hooks; `run_coroutine` waits for one that is async."""
        for hook in self._hooks[role]:
            try:
                result = hook()
                if inspect.iscoroutine(result):
                    run_coroutine(result)
            except BaseException:
                if role != EXIT:
                    raise
                logger.exception("in an exit hook")  # The others run all the same.


def _plain(function: Any) -> Any:
    """The function as the user wrote it, with the user's own decorators."""
    return function.__wrapped__ if isinstance(function, BoundMethod | Marked) else function


def _may_give_coroutine(function: Any) -> bool:
    """It is async, or a decorator of the user's around what is."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(inspect.unwrap(function))
