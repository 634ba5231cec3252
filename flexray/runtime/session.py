"""Finds or starts Ray, and finds or starts the controller there.

One rule: the user's own Ray is respected: what `ray.init()` would join is joined, and nothing of it is
changed but for one detached actor on the head node.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import ray

from flexray.config import AutoscalerSettings, FunctionConfig, FunctionSource
from flexray.core.status import CallInfo, Kept, SpawnedCall, is_to_come
from flexray.errors import Error, ExecutionError
from flexray.runtime import shipping
from flexray.runtime.deaths import cause_of
from flexray.runtime.dispatcher import Dispatcher
from flexray.runtime.farewell import before_shutdown
from flexray.runtime.head import client_types, connection, find_call_queue, find_controller, find_logs
from flexray.runtime.listening import Listener
from flexray.runtime.liveness import process_id
from flexray.runtime.poolclient import PoolClient
from flexray.runtime.wire import (
    NAMESPACE,
    PROTOCOL,
    AppSpec,
    ContainerInfo,
    ControllerInfo,
    Deployment,
    Found,
    PoolInfo,
    PoolSpec,
    VariantSpec,
    decode,
    encode,
)
from flexray.serialization import register_reference_type

RESTART_TIMEOUT_S = 30.0
RETRY_PAUSE_S = 0.1
REACH_S = 5.0
LEAVE_S = 0.5
"""How long the end of a process waits for the controller to take its slots back."""
OutcomesTold = tuple[CallInfo, list[tuple[int, Any]], str]
"""The call queue's answer: the call, outcomes, and which incarnation of the queue says so."""
REACHED_S = 3.0
"""A question that failed after so long had reached its actor."""


class Session:
    """This process's connection to one Ray cluster: the controller and the dispatcher."""

    def __init__(self, *, owns_ray: bool) -> None:
        for kind in (ray.ObjectRef, *client_types()):
            register_reference_type(kind)
        self.process = process_id()
        self.owns_ray = owns_ray
        """Whether this session started a Ray of its own, which then nobody else uses."""
        self._connection = connection()
        self.dispatcher = Dispatcher(self.process, find_controller, lambda: self.is_current)
        self._queue: Any = None
        self._listener = Listener(self.dispatcher)
        self._logs: Any = None
        self._greet()
        before_shutdown(self._connection, self._close)
        self.environment = shipping.caller_environment()
        self.import_paths = tuple(shipping.import_paths())

    def _greet(self) -> None:
        """See that the controller takes what this process says.

        Raises:
            ExecutionError: It is of a FlexRay that understands other messages.
        """
        own = importlib.metadata.version("flexray")
        try:
            protocol, version = self._ask("greet", PROTOCOL)
        except AttributeError:  # It has no such method.
            protocol, version = 0, "an earlier version"
        if protocol != PROTOCOL:
            self.dispatcher.close()
            raise ExecutionError(
                f"the controller of this cluster runs FlexRay {version}, and this process {own}: "
                f"they speak protocols {protocol} and {PROTOCOL}",
                f"install {version} here; or install {own} on all nodes and run `flexray shutdown`: what is "
                "deployed and spawned is kept, and taken up by the next controller",
            )

    def _close(self) -> None:
        self._connection = None
        self._listener.wake_all()
        self.dispatcher.close()
        with contextlib.suppress(Exception):  # Else its silence is noticed, seconds later.
            ray.get(self.dispatcher.controller.leave.remote(self.process), timeout=LEAVE_S)

    @property
    def is_current(self) -> bool:
        """Whether Ray is still the one that this session connected to."""
        return self._connection is not None and connection() is self._connection

    def client(self, pool_id: str, config: FunctionConfig) -> PoolClient:
        """The client of a pool; nothing is sent."""
        return self.dispatcher.client(pool_id, config)

    def open_app(
        self,
        app_id: str,
        name: str,
        functions: Sequence[FunctionSource],
        environment: Mapping[str, Any],
        *,
        detach: bool = False,
    ) -> None:
        """Start an ephemeral app, which ends with this process at the latest, unless it is detached."""
        pools = [self._pool_spec(app_id, function, environment) for function in functions]
        app = AppSpec(app_id, name, None if detach else self.process, tuple(pools))
        self._ask("open_app", encode(app))

    def deploy(
        self,
        name: str,
        functions: Sequence[FunctionSource],
        environment: Mapping[str, Any],
        *,
        recreate: bool,
    ) -> int:
        """Make this the current version of the app of that name; see `Backend`."""
        pools = [self._pool_spec(name, function, environment) for function in functions]
        app = AppSpec(name, name, None, tuple(pools))
        version: int = self._ask("deploy", encode(app), secrets.token_hex(8), recreate)
        return version

    def find(self, app_name: str, function: str, version: int | None) -> Found:
        """What a deployed app has under that name."""
        found: Found = self._ask("find", app_name, function, version)
        return found

    def rollback(self, app_name: str, version: int | None) -> int:
        """Deploy an earlier version again."""
        number: int = self._ask("rollback", app_name, version, secrets.token_hex(8))
        return number

    def deployments(self, app_name: str | None = None) -> list[Deployment]:
        """The deployed apps, or the versions of one."""
        known: list[Deployment] = self._ask("deployments", app_name)
        return known

    def stop_app(self, app_name: str) -> None:
        """End a deployed app."""
        self.dispatcher.close_app(app_name)
        self._ask("stop_app", app_name)

    def close_app(self, app_id: str) -> None:
        """End an app with everything that it started."""
        self.dispatcher.close_app(app_id)  # First, or the controller's word that it is gone comes before.
        self._ask("close_app", app_id)

    def open_variant(
        self,
        pool_id: str,
        base_pool_id: str,
        config: FunctionConfig,
        options: Mapping[str, Any],
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        """Add a pool with the code of another, and with options and parameters of its own; again is fine."""
        own = config.runtime_env if "runtime_env" in options else None
        data = encode(
            VariantSpec(
                pool_id,
                base_pool_id,
                dict(options),
                shipping.uploaded(own) if own else {},
                None if parameters is None else dict(parameters),
            )
        )
        self._ask("open_pool", data)
        self.client(pool_id, config).spec_data = data  # Idle ones are forgotten, and opened again.

    def update_autoscaler(self, pool_id: str, changes: dict[str, Any]) -> AutoscalerSettings:
        """Merge these settings into those in force."""
        settings: AutoscalerSettings = self._ask("update_autoscaler", pool_id, changes)
        return settings

    def stats(self, pool_id: str) -> dict[str, Any]:
        """A look at the pool."""
        stats: dict[str, Any] = self._ask("stats", pool_id)
        return stats

    def info(self) -> ControllerInfo:
        """A look at the controller."""
        info: ControllerInfo = self._ask("info")
        return info

    def pools(self, app_name: str | None = None, function: str | None = None) -> list[PoolInfo]:
        """What pools are at, and why."""
        pools: list[PoolInfo] = self._ask("pools", app_name, function)
        return pools

    def containers(self, app_name: str | None = None) -> list[ContainerInfo]:
        """Those of a deployed app, or of all apps."""
        containers: list[ContainerInfo] = self._ask("containers", app_name)
        return containers

    def stop_container(self, container_id: str, *, now: bool) -> None:
        """End a container."""
        self._ask("stop_container", container_id, now)

    def ask_logs(self, method: str, *args: Any) -> Any:
        """The answer of the logs' actor; see `Backend`."""
        return self._ask_actor(self._find_logs, self._logs_died, method, args, "the log store")

    def _find_logs(self) -> Any:
        if self._logs is None:
            self._logs = find_logs()
        return self._logs

    def _logs_died(self, logs: Any) -> None:
        if self._logs is logs:
            self._logs = None

    # Spawned calls.

    def add_inputs(
        self, pool_id: str, config: FunctionConfig, call: SpawnedCall, first: int, arguments: Sequence[bytes]
    ) -> Kept:
        """Keep inputs of a call; see `Backend`."""
        request = (pool_id, call, first, arguments)
        added: Kept = self.ask_queue("add", *request)
        while not added.is_known:
            self.ask_queue("open_pool", pool_id, self._record(pool_id, config))
            added = self.ask_queue("add", *request)
        return added

    async def add_inputs_async(
        self, pool_id: str, config: FunctionConfig, call: SpawnedCall, first: int, arguments: Sequence[bytes]
    ) -> Kept:
        """The same for a coroutine."""
        request = (pool_id, call, first, arguments)
        added: Kept = await self.ask_queue_async("add", *request)
        while not added.is_known:
            await self.ask_queue_async("open_pool", pool_id, self._record(pool_id, config))
            added = await self.ask_queue_async("add", *request)
        return added

    def _record(self, pool_id: str, config: FunctionConfig) -> bytes:
        return encode((config, self.client(pool_id, config).spec_data))

    def ask_queue(self, method: str, *args: Any) -> Any:
        """The call queue's answer; see `Backend`."""
        return decode(
            self._ask_actor(self._call_queue, self._queue_died, method, [encode(args)], "the call queue")
        )

    async def ask_queue_async(self, method: str, *args: Any) -> Any:
        """The same for a coroutine."""
        deadline: float | None = None
        while True:
            queue = self._queue or await asyncio.to_thread(self._call_queue)
            asked_at = time.monotonic()
            try:
                return decode(await getattr(queue, method).remote(encode(args)))
            except ray.exceptions.RayError as error:
                deadline = _deadline(deadline, asked_at)
                self._check_answer(error, "the call queue", deadline)
                if isinstance(error, ray.exceptions.ActorDiedError):
                    self._queue_died(queue)
                await asyncio.sleep(RETRY_PAUSE_S)

    def outcomes(
        self, call_id: str, first: int, limit: int, wait_s: float
    ) -> tuple[CallInfo, list[tuple[int, Any]]]:
        """The outcomes of inputs of a call; see `Backend`."""
        until = time.monotonic() + wait_s
        while True:
            news = threading.Event()
            listener = self._listener.name if time.monotonic() < until else None
            self._listener.begin(call_id, first, news.set)
            try:
                self._check_current()
                told: OutcomesTold = self.ask_queue("outcomes", call_id, first, limit, listener)
                if listener is None or told[1] or not is_to_come(told[0].size, first):
                    return told[0], told[1]
                self._check_current()  # Ray may be going down: any call of it would start another.
                queue = self._queue
                if queue is not None:  # Else the next look finds the one that there is now.
                    self._listener.ask(queue, told[2])
                    news.wait(until - time.monotonic())
            finally:
                self._listener.end(call_id, first, news.set)

    async def outcomes_async(
        self, call_id: str, first: int, limit: int, wait_s: float
    ) -> tuple[CallInfo, list[tuple[int, Any]]]:
        """The same for a coroutine."""
        until = time.monotonic() + wait_s
        while True:
            news = asyncio.Event()
            wake = partial(_wake_on, asyncio.get_running_loop(), news)
            listener = self._listener.name if time.monotonic() < until else None
            self._listener.begin(call_id, first, wake)
            try:
                self._check_current()
                told: OutcomesTold = await self.ask_queue_async("outcomes", call_id, first, limit, listener)
                if listener is None or told[1] or not is_to_come(told[0].size, first):
                    return told[0], told[1]
                self._check_current()
                queue = self._queue
                if queue is not None:
                    self._listener.ask(queue, told[2])
                    # Not wait_for: before Python 3.12 that can swallow a cancellation.
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(until - time.monotonic()):
                            await news.wait()
            finally:
                self._listener.end(call_id, first, wake)

    def _call_queue(self) -> Any:
        if self._queue is None:
            self._queue = find_call_queue()
        return self._queue

    def _queue_died(self, queue: Any) -> None:
        """Somebody has ended it: the next look starts another, with what is stored."""
        if self._queue is queue:
            self._queue = None

    # Asking.

    def _ask(self, method: str, *args: Any) -> Any:
        dispatcher = self.dispatcher
        return self._ask_actor(
            lambda: dispatcher.controller, dispatcher.replace_controller, method, args, "the controller"
        )

    def _ask_actor(
        self,
        find: Callable[[], Any],
        died: Callable[[Any], None],
        method: str,
        args: Sequence[Any],
        what: str,
    ) -> Any:
        """The answer of an actor on the head node, its exceptions as they were raised there.

        Its restarts are waited out. Where it died meanwhile it may be asked twice, which changes nothing.
        """
        deadline: float | None = None
        while True:
            actor = find()
            asked_at = time.monotonic()
            try:
                return ray.get(getattr(actor, method).remote(*args))
            except ray.exceptions.RayError as error:
                deadline = _deadline(deadline, asked_at)
                self._check_answer(error, what, deadline)
                if isinstance(error, ray.exceptions.ActorDiedError):
                    died(actor)
                else:
                    time.sleep(RETRY_PAUSE_S)

    def _check_answer(self, error: Exception, what: str, deadline: float) -> None:
        """Raise what the actor raised, or that it does not come back; returns where to ask again."""
        if isinstance(error, ray.exceptions.RayTaskError):
            raise (error.cause if isinstance(error.cause, Error | TimeoutError) else error) from None
        if not isinstance(error, ray.exceptions.ActorUnavailableError | ray.exceptions.ActorDiedError):
            raise error
        self._check_current()
        if time.monotonic() > deadline:
            raise ExecutionError(
                f"{what} did not come back within {RESTART_TIMEOUT_S:g} s: {cause_of(error)}",
                "see that the head node is up; the logs of Ray's actors flexray:... may say more",
            ) from error

    def _check_current(self) -> None:
        """Raise where Ray was shut down: any call would start another."""
        if not self.is_current:
            raise ExecutionError("Ray was shut down meanwhile", "call ray.init() and start the app again")

    def _pool_spec(self, app_id: str, function: FunctionSource, environment: Mapping[str, Any]) -> PoolSpec:
        own = function.config.runtime_env
        layers = [shipping.uploaded(layer) if layer else {} for layer in (environment, own)]
        return PoolSpec(
            pool_id=function.pool_id,
            app_id=app_id,
            function_name=function.config.name,
            config=function.config,
            code=function.code,
            runtime_env=shipping.merged_runtime_env(self.environment, *layers),
            import_paths=self.import_paths,
            parameters=function.parameters,
            is_template=function.is_template,
            has_exit=function.has_exit,
            interface=function.interface,
        )


def _wake_on(loop: asyncio.AbstractEventLoop, news: asyncio.Event) -> None:
    with contextlib.suppress(RuntimeError):  # The loop has ended.
        loop.call_soon_threadsafe(news.set)


def _deadline(deadline: float | None, asked_at: float) -> float:
    """Until when a restart is waited out: from the first failure on, or from one after a long question."""
    now = time.monotonic()
    if deadline is None or now - asked_at > REACHED_S:
        return now + RESTART_TIMEOUT_S
    return deadline


_lock = threading.Lock()
_session: Session | None = None


def connect(*, join: bool = False) -> Session:
    """The session of this process; starts or joins Ray as `ray.init()` would; with `join` it starts none.

    Raises:
        ExecutionError: The cluster cannot be joined, or its head has no room for the controller.
    """
    global _session  # noqa: PLW0603  # One per process, as Ray itself has.
    session = _session
    if session is not None and session.is_current:
        return session
    with _lock:
        if _session is None or not _session.is_current:
            if _session is not None:
                _session.dispatcher.close()
            owns_ray = not ray.is_initialized() and _start_ray("auto" if join else None)
            _session = Session(owns_ray=owns_ray)
        return _session


def join_ray() -> None:
    """Connect to the Ray that runs, if this process is not connected yet; no controller is looked for.

    Raises:
        ExecutionError: There is none, or it cannot be joined.
    """
    if not ray.is_initialized():
        _start_ray("auto")


def _check_reached() -> None:
    """See that somebody answers at RAY_ADDRESS: Ray itself tries for many minutes.

    Raises:
        ExecutionError: Nobody does.
    """
    host, colon, port = os.environ.get("RAY_ADDRESS", "").rpartition(":")
    if not (colon and port.isdigit()) or "/" in host:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_S).close()
    except (OSError, OverflowError) as error:
        raise ExecutionError(
            f"no Ray cluster answers at {host}:{port}: {error}",
            "check RAY_ADDRESS, and that the head node runs and can be reached from here",
        ) from None


def _start_ray(address: str | None) -> bool:
    _check_reached()
    try:
        ray.init(address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR)
    except ConnectionError as error:
        if address is not None and "RAY_ADDRESS" not in os.environ:
            raise ExecutionError(
                "no Ray cluster runs on this machine",
                "name one, as in RAY_ADDRESS=10.0.0.1:6379, or start one with `ray start --head`",
            ) from None
        raise ExecutionError(
            f"the Ray cluster cannot be joined: {error}",
            "check the address; where the cluster uses token authentication set RAY_AUTH_MODE=token and "
            "RAY_AUTH_TOKEN_PATH to the cluster's token, and where it does not, RAY_AUTH_MODE=disabled",
        ) from error
    except ValueError as error:  # RAY_ADDRESS may be that of its dashboard, which `ray job submit` takes.
        raise ExecutionError(
            f"RAY_ADDRESS={os.environ.get('RAY_ADDRESS', '')!r:.80} cannot be used here: {error}",
            "name the head as host:port, as in 10.0.0.1:6379, or a Ray Client server as ray://host:10001",
        ) from None
    except RuntimeError as error:  # Ray's word for another version of Ray or Python.
        if "ersion" not in str(error):
            raise
        raise ExecutionError(
            f"the Ray cluster has another version than this process: {str(error).strip()}",
            "install here the versions of ray and Python that the cluster has",
        ) from error
    return _is_own_cluster()


def _is_own_cluster() -> bool:
    """Whether ray.init started the head itself: then it is in this process's global node."""
    from ray._private import worker  # noqa: PLC0415  # Ray has no public word for it.

    node = getattr(worker, "_global_node", None)
    return node is not None and bool(node.head)
