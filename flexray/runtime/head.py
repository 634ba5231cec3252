"""Finds or starts what is on the head node once for the whole cluster: controller, call queue, logs.

One rule: two processes at once get the same one; where it cannot start, the error says why in one sentence.
"""

from __future__ import annotations

import sys
from typing import Any

import ray
from ray.util.client import ray as client

from flexray.errors import ExecutionError
from flexray.runtime.deaths import cause_of
from flexray.runtime.faces import CallQueueActor, ControllerActor, LogsActor
from flexray.runtime.wire import CALL_QUEUE_NAME, CONTROLLER_NAME, LOGS_NAME, NAMESPACE

CREATE_TIMEOUT_S = 60.0


def find_controller() -> Any:
    """The controller's handle; it is started if there is none.

    Raises:
        ExecutionError: It cannot start.
    """
    return _head_actor(CONTROLLER_NAME, ControllerActor)


def find_call_queue() -> Any:
    """The call queue's handle; it is started if there is none, with what is stored.

    Raises:
        ExecutionError: It cannot start.
    """
    return _head_actor(CALL_QUEUE_NAME, CallQueueActor)


def shows_log_of(actor: Any) -> bool:
    """Whether Ray prints that actor's log here itself: those of its own job, where `log_to_driver` is on."""
    from ray._private.worker import global_worker  # noqa: PLC0415  # Changes with every ray.init.

    printer = getattr(global_worker, "logger_thread", None)  # Neither has a public name.
    prints = printer is not None and printer.is_alive()
    return prints and actor._actor_id.job_id == global_worker.current_job_id  # noqa: SLF001


def find_logs() -> Any:
    """The handle of the logs' actor; it is started if there is none, with what is kept.

    Raises:
        ExecutionError: It cannot start.
    """
    return _head_actor(LOGS_NAME, LogsActor)


def _head_actor(name: str, its_class: Any) -> Any:
    try:
        return ray.get_actor(name, namespace=NAMESPACE)
    except ValueError:
        pass
    actor = its_class.options(
        name=name,
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        resources={"node:__internal_head__": 0.001},
        runtime_env={},
        enable_task_events=False,
    ).remote()
    what = "the " + name.partition(":")[2].replace("-", " ")
    try:
        ray.get(actor.__ray_ready__.remote(), timeout=CREATE_TIMEOUT_S)
    except ray.exceptions.GetTimeoutError as error:
        raise ExecutionError(
            f"{what} did not start on the head node within {CREATE_TIMEOUT_S:g} s",
            "see that the head node is up and that flexray is installed there",
        ) from error
    except ray.exceptions.RayActorError as error:
        raise _not_started(what, error) from None
    return actor


def connection() -> Any:
    """Ray's connection of this process, another one after every ray.init; None: there is none.

    Its core worker, or, where it is a client (`ray://`), the client's connection to its server.
    """
    from ray._private.worker import global_worker  # noqa: PLC0415  # Changes with every ray.init.

    # While Ray shuts down it still has its core worker, and any call would start another Ray.
    if global_worker.connected:
        return getattr(global_worker, "core_worker", None)
    context: Any = client
    return context.get_context().client_worker if context.is_connected() else None


def client_types() -> tuple[type, ...]:
    """References and actor handles of Ray Client; none where nobody has loaded it, which takes 20 ms."""
    common: Any = sys.modules.get("ray.util.client.common")
    return () if common is None else (common.ClientObjectRef, common.ClientActorHandle)


def _not_started(what: str, error: Exception) -> ExecutionError:
    """Ray tells its traceback as text, with our own error at the end where it was one."""
    _, own, told = str(error).rpartition(f"{ExecutionError.__module__}.{ExecutionError.__qualname__}: ")
    sentence, _, hint = told.partition("\n\nhint: ")
    if not own and "never ran" in str(error):
        return ExecutionError(
            f"{what} was ended while it started", "somebody ran `flexray shutdown`, perhaps; try it again"
        )
    return ExecutionError(
        f"{what} does not start on the head node: {sentence if own else cause_of(error)}",
        hint.strip() if own else "the head node needs the same version of flexray as this process",
    )


def cluster_id() -> str:
    """Ray's own id of the cluster; asked by a process of the cluster, for clients do not know it."""
    from ray._private.worker import global_worker  # noqa: PLC0415  # Ray has no public word for it.

    known: Any = getattr(getattr(global_worker, "gcs_client", None), "cluster_id", None)
    return known.hex() if known is not None else "cluster"
