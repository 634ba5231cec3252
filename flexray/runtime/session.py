"""Finds or starts Ray, and finds or starts the controller there.

One rule: the user's own Ray is respected: what `ray.init()` would join is joined, and nothing of it is
changed but for one detached actor on the head node.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import ray

from flexray.config import AutoscalerSettings, FunctionConfig, FunctionSource
from flexray.errors import Error, ExecutionError
from flexray.runtime import shipping
from flexray.runtime.controller import ControllerActor
from flexray.runtime.deaths import cause_of
from flexray.runtime.dispatcher import Dispatcher
from flexray.runtime.farewell import before_shutdown
from flexray.runtime.liveness import process_id
from flexray.runtime.poolclient import PoolClient
from flexray.runtime.wire import CONTROLLER_NAME, NAMESPACE, AppSpec, PoolSpec, decode, encode
from flexray.serialization import register_reference_type

CREATE_TIMEOUT_S = 60.0
RESTART_TIMEOUT_S = 30.0
RETRY_PAUSE_S = 0.1


class Session:
    """This process's connection to one Ray cluster: the controller and the dispatcher."""

    def __init__(self, *, owns_ray: bool) -> None:
        register_reference_type(ray.ObjectRef)
        self.process = process_id()
        self.owns_ray = owns_ray
        """Whether this session started a Ray of its own, which then nobody else uses."""
        self._core_worker = _core_worker()
        self.dispatcher = Dispatcher(self.process, _find_controller, lambda: self.is_current)
        before_shutdown(self._close)
        self.environment = shipping.caller_environment()
        self.import_paths = tuple(shipping.import_paths())

    def _close(self) -> None:
        self._core_worker = None
        self.dispatcher.close()

    @property
    def is_current(self) -> bool:
        """Whether Ray is still the one that this session connected to."""
        return self._core_worker is not None and _core_worker() is self._core_worker

    def client(self, pool_id: str, config: FunctionConfig) -> PoolClient:
        """The client of a pool; nothing is sent."""
        return self.dispatcher.client(pool_id, config)

    def open_app(
        self, app_id: str, name: str, functions: Sequence[FunctionSource], environment: Mapping[str, Any]
    ) -> None:
        """Start an ephemeral app, which ends with this process at the latest."""
        pools = [self._pool_spec(app_id, function, environment) for function in functions]
        app = AppSpec(app_id, name, self.process, tuple(pools))
        self._ask("open_app", encode(app))

    def close_app(self, app_id: str) -> None:
        """End an app with everything that it started."""
        self.dispatcher.close_app(app_id)  # First, or the controller's word that it is gone comes before.
        self._ask("close_app", app_id)

    def open_variant(
        self,
        app_id: str,
        pool_id: str,
        base_pool_id: str,
        config: FunctionConfig,
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        """Add a pool with the code of another, and with options and parameters of its own; again is fine."""
        base: PoolSpec = decode(self._ask("pool_spec", base_pool_id))
        layer = shipping.uploaded(config.runtime_env) if config.runtime_env else {}
        environment = shipping.merged_runtime_env(base.runtime_env, {}, layer)
        config = config.model_copy(update={"env": {**base.config.env, **config.env}})
        spec = replace(
            base,
            pool_id=pool_id,
            config=config,
            runtime_env=environment,
            parameters=None if parameters is None else dict(parameters),
            is_template=False,
        )
        data = encode(spec)
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

    def _ask(self, method: str, *args: Any) -> Any:
        """The controller's answer, its exceptions as they were raised there; its restarts are waited out.

        Where it died meanwhile it may be asked twice, which changes nothing.
        """
        deadline = time.monotonic() + RESTART_TIMEOUT_S
        while True:
            if not self.is_current:
                raise ExecutionError("Ray was shut down meanwhile", "call ray.init() and start the app again")
            controller = self.dispatcher.controller
            try:
                return ray.get(getattr(controller, method).remote(*args))
            except ray.exceptions.RayTaskError as error:
                raise (error.cause if isinstance(error.cause, Error) else error) from None
            except ray.exceptions.ActorUnavailableError as error:
                if time.monotonic() > deadline:
                    raise _controller_away(error) from error
                time.sleep(RETRY_PAUSE_S)
            except ray.exceptions.ActorDiedError:
                self.dispatcher.replace_controller(controller)

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
        )


def _controller_away(error: Exception) -> ExecutionError:
    return ExecutionError(
        f"the controller did not come back within {RESTART_TIMEOUT_S:g} s: {cause_of(error)}",
        "see that the head node is up; the log of the actor flexray:controller may say more",
    )


_lock = threading.Lock()
_session: Session | None = None


def connect() -> Session:
    """The session of this process; starts or joins Ray as `ray.init()` would.

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
            owns_ray = not ray.is_initialized() and _start_ray()
            _session = Session(owns_ray=owns_ray)
        return _session


def _start_ray() -> bool:
    try:
        ray.init(namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR)
    except ConnectionError as error:
        raise ExecutionError(
            f"the Ray cluster cannot be joined: {error}",
            "check the address; where the cluster uses token authentication set RAY_AUTH_MODE=token and "
            "RAY_AUTH_TOKEN_PATH to the cluster's token, and where it does not, RAY_AUTH_MODE=disabled",
        ) from error
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


def _core_worker() -> Any:
    from ray._private.worker import global_worker  # noqa: PLC0415  # Changes with every ray.init.

    # While Ray shuts down it still has its core worker, and any call would start another Ray.
    return getattr(global_worker, "core_worker", None) if global_worker.connected else None


def _find_controller() -> Any:
    """The controller's handle; created if there is none. Two processes at once get the same one."""
    try:
        return ray.get_actor(CONTROLLER_NAME, namespace=NAMESPACE)
    except ValueError:
        pass
    cluster_id = _cluster_id()
    controller = ControllerActor.options(
        name=CONTROLLER_NAME,
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        resources={"node:__internal_head__": 0.001},
        runtime_env={},
        enable_task_events=False,
    ).remote(cluster_id)
    try:
        ray.get(controller.__ray_ready__.remote(), timeout=CREATE_TIMEOUT_S)
    except ray.exceptions.GetTimeoutError as error:
        raise ExecutionError(
            f"the controller did not start on the head node within {CREATE_TIMEOUT_S:g} s",
            "see that the head node is up and that flexray is installed there",
        ) from error
    except ray.exceptions.RayActorError as error:
        raise _not_started(error) from None
    return controller


def _not_started(error: Exception) -> ExecutionError:
    """Ray tells its traceback as text, with our own error at the end where it was one."""
    _, own, told = str(error).rpartition(f"{ExecutionError.__module__}.{ExecutionError.__qualname__}: ")
    sentence, _, hint = told.partition("\n\nhint: ")
    return ExecutionError(
        f"the controller does not start on the head node: {sentence if own else cause_of(error)}",
        hint.strip() if own else "the head node needs the same version of flexray as this process",
    )


def _cluster_id() -> str:
    """Ray's own id of the cluster."""
    from ray._private.worker import global_worker  # noqa: PLC0415  # Ray has no public word for it.

    client: Any = getattr(global_worker, "gcs_client", None)
    cluster_id = getattr(client, "cluster_id", None)
    return cluster_id.hex() if cluster_id is not None else uuid.uuid4().hex
