"""The actors on the head node as their callers know them: the names of their methods, and nothing behind.

One rule: Ray imports an actor's class wherever a handle of it comes, and to import what is behind these takes
as long as all that a caller needs. So only the actor's own process does it.
"""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import Any

import ray

from flexray.runtime.wire import decode, encode

REQUESTS_MAX = 1_000_000
"""Requests under way at an actor on a loop: every dispatcher parks one per pool."""
REQUEST_THREADS = 32
"""Threads of the call queue for requests that are answered as soon as they can be."""
PARKED_THREADS = 512
"""Threads of the call queue for processes that wait for news, one each; see `listening`."""


class Face:
    """Asks the object behind it, which is made together with it."""

    behind: Any


def _face(module: str, name: str, methods: str) -> type[Face]:
    """On the actor's event loop."""

    def ask(method: str) -> Any:
        async def asked(self: Face, *args: Any) -> Any:
            return await getattr(self.behind, method)(*args)

        return asked

    return _made(module, name, {method: ask(method) for method in methods.split()})


def _threaded_face(module: str, name: str, methods: str, parked: str) -> type[Face]:
    """On threads, from which coroutines are run on the loop of the object behind.

    Ray answers a call on a thread a quarter faster than one on a loop. Requests and answers are one `bytes`
    each: every argument by itself costs 0.1 ms.
    """

    def ask(method: str) -> Any:
        def asked(self: Face, request: bytes) -> bytes:
            answer = getattr(self.behind, method)(*decode(request))
            if asyncio.iscoroutine(answer):
                answer = asyncio.run_coroutine_threadsafe(answer, self.behind.loop).result()
            return encode(answer)

        return asked

    members = {method: ask(method) for method in methods.split()}
    for method in parked.split():
        members[method] = ray.method(concurrency_group="parked")(ask(method))
    return _made(module, name, members)


def _made(module: str, name: str, members: dict[str, Any]) -> type[Face]:
    def start(self: Face) -> None:
        self.behind = getattr(import_module(module), name)()

    for method, member in members.items():
        member.__name__ = method
    return type(name, (Face,), {"__module__": __name__, "__init__": start, **members})


def _actor(face: type[Face], **options: Any) -> Any:
    return ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=0, **options)(face)


Controller = _face(
    "flexray.runtime.controller",
    "Controller",
    "greet open_app close_app open_pool pool_config deploy rollback deployments stop_app find "
    "update_autoscaler info pools containers stats stop_container end report leave watch hello "
    "is_outdated retire",
)
CallQueue = _threaded_face(
    "flexray.runtime.callqueue",
    "CallQueue",
    "open_pool add close cancel info outcomes graph newest",
    parked="news",
)
Logs = _face("flexray.runtime.logs", "Logs", "add newest after apps")

ControllerActor = _actor(Controller, max_concurrency=REQUESTS_MAX)
LogsActor = _actor(Logs, max_concurrency=REQUESTS_MAX)
CallQueueActor = _actor(
    CallQueue, max_concurrency=REQUEST_THREADS, concurrency_groups={"parked": PARKED_THREADS}
)
