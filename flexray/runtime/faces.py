"""The actors on the head node as their callers know them: the names of their methods, and nothing behind.

One rule: Ray imports an actor's class wherever a handle of it comes, and to import what is behind these takes
as long as all that a caller needs. So only the actor's own process does it.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import ray

from flexray.runtime.wire import decode, encode

REQUESTS_MAX = 1_000_000
"""Requests under way at each of them: every dispatcher parks one per pool, and every getter one."""


class Face:
    """Asks the object behind it, which is made together with it."""

    behind: Any


def _face(module: str, name: str, methods: str, *, packed: bool = False) -> type[Face]:
    """With `packed`, requests and answers are one `bytes` each: every argument by itself costs 0.1 ms."""

    def start(self: Face) -> None:
        self.behind = getattr(import_module(module), name)()

    def ask(method: str) -> Any:
        async def asked(self: Face, *args: Any) -> Any:
            return await getattr(self.behind, method)(*args)

        async def asked_packed(self: Face, request: bytes) -> bytes:
            return encode(await getattr(self.behind, method)(*decode(request)))

        answering = asked_packed if packed else asked
        answering.__name__ = method
        return answering

    members = {method: ask(method) for method in methods.split()}
    return type(name, (Face,), {"__module__": __name__, "__init__": start, **members})


def _actor(face: type[Face]) -> Any:
    return ray.remote(  # type: ignore[call-overload]  # Ray types no max_concurrency.
        num_cpus=0, max_restarts=-1, max_task_retries=0, max_concurrency=REQUESTS_MAX
    )(face)


Controller = _face(
    "flexray.runtime.controller",
    "Controller",
    "greet open_app close_app open_pool pool_config deploy rollback deployments stop_app find "
    "update_autoscaler info pools containers stats stop_container end report leave watch hello "
    "is_outdated retire",
)
CallQueue = _face(
    "flexray.runtime.callqueue",
    "CallQueue",
    "open_pool add close cancel info outcomes graph newest",
    packed=True,
)
Logs = _face("flexray.runtime.logs", "Logs", "add newest after apps")

ControllerActor, CallQueueActor, LogsActor = _actor(Controller), _actor(CallQueue), _actor(Logs)
