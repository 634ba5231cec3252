"""What users have today: plain Ray actors, and Ray Serve; each set up as its documentation would have it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray

from flexray.runtime.actors import LOOP_CALLS_MAX

SERVE_ONGOING_MAX = 100
"""Requests at one replica: more than there are callers, so that none is held back by Serve's router."""


@ray.remote(num_cpus=0, max_concurrency=LOOP_CALLS_MAX)
class AsyncEcho:
    """An async actor with the concurrency limit that our containers have."""

    async def echo(self, value: Any) -> Any:
        return value


@ray.remote(num_cpus=0)
class Echo:
    """The plainest actor."""

    def echo(self, value: Any) -> Any:
        return value


@ray.remote(num_cpus=1)
class Sleeper:
    """A plain actor that asks for what a container asks for."""

    def nap(self, length_s: float) -> None:
        time.sleep(length_s)


@contextmanager
def actors(actor: Any, count: int) -> Iterator[list[Any]]:
    """Plain actors that have answered; killed after the block."""
    handles = [actor.remote() for _ in range(count)]
    ray.get([handle.__ray_ready__.remote() for handle in handles])
    try:
        yield handles
    finally:
        for handle in handles:
            ray.kill(handle)


@contextmanager
def serve_echo(replicas: int) -> Iterator[Callable[[Any], Any]]:
    """A blocking call of a Serve handle to a trivial deployment: no HTTP, no access log, no autoscaling."""
    from ray import serve

    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    serve.start(proxy_location="Disabled")

    @serve.deployment(
        num_replicas=replicas,
        max_ongoing_requests=SERVE_ONGOING_MAX,
        ray_actor_options={"num_cpus": 0},
        logging_config={"enable_access_log": False, "log_level": "ERROR"},
    )
    class ServeEcho:
        async def __call__(self, value: Any) -> Any:
            return value

    handle = serve.run(ServeEcho.bind(), route_prefix=None)
    try:
        yield lambda value: handle.remote(value).result()
    finally:
        serve.shutdown()
