"""Tries out a deploy: whether its code can be loaded where its containers will be.

One rule: nothing of the user's is run but the import of its modules; hooks and inputs are the containers'.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import traceback
from collections.abc import Sequence
from typing import Any

import ray

from flexray.errors import ContainerStartError, DeserializationError
from flexray.runtime.deaths import cause_of
from flexray.runtime.shipping import apply_import_paths
from flexray.runtime.wire import PoolSpec, decode, encode
from flexray.serialization import unpack_function

ATTEMPTS = 3
AGAIN_S = 1.0
Problem = tuple[str, str, str | None]
"""(function, what is wrong, the traceback of its modules' import)"""


class Probe:
    """Loads code as containers do, in their runtime environment."""

    def load(self, specs: Sequence[bytes]) -> list[Problem]:
        """What is wrong with each of these that cannot be loaded."""
        problems: list[Problem] = []
        before = dict(os.environ)
        for data in specs:
            spec: PoolSpec = decode(data)
            os.environ.clear()
            os.environ.update({**before, **spec.config.env})
            apply_import_paths(spec.import_paths)
            try:
                unpack_function(spec.code)
            except DeserializationError as error:
                problems.append((spec.function_name, error.sentence(), None))
            except BaseException as error:  # noqa: BLE001  # Importing the user's modules may raise anything.
                trace = "".join(traceback.format_exception(error))
                problems.append((spec.function_name, f"{type(error).__name__}: {error}", trace))
        return problems


class _DiedError(Exception):
    """Says how the probe died."""


ProbeActor: Any = ray.remote(num_cpus=0)(Probe)


async def check_loads(specs: Sequence[PoolSpec], timeout_s: float) -> None:
    """Load all of it, once for each runtime environment.

    Raises:
        ContainerStartError: Of the first that cannot be loaded.
    """
    groups: dict[str, list[PoolSpec]] = {}
    for spec in specs:
        groups.setdefault(repr((spec.runtime_env, spec.import_paths)), []).append(spec)
    await asyncio.gather(*[_check_group(group, timeout_s) for group in groups.values()])


async def _check_group(group: Sequence[PoolSpec], timeout_s: float) -> None:
    """Again where the probe died before it said anything: its node may have been leaving."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            await _check_once(group, timeout_s)
        except _DiedError as error:
            if attempt == ATTEMPTS:
                raise ContainerStartError(group[0].function_name, str(error)) from None
            await asyncio.sleep(AGAIN_S)
        else:
            return


async def _check_once(group: Sequence[PoolSpec], timeout_s: float) -> None:
    first = group[0]
    options = {"runtime_env": first.runtime_env} if first.runtime_env else {}
    probe = ProbeActor.options(enable_task_events=False, **options).remote()
    try:
        loading = probe.load.remote([encode(spec) for spec in group])
        problems: list[Problem] = await asyncio.wait_for(_awaited(loading), timeout_s)
    except TimeoutError:
        reason = f"its runtime_env was not set up, or its code not loaded, within {timeout_s:g} s"
        raise ContainerStartError(first.function_name, reason) from None
    except ray.exceptions.RayError as error:
        reason = f"{type(error).__name__}: {cause_of(error)}"
        if isinstance(error, ray.exceptions.ActorDiedError | ray.exceptions.ActorUnavailableError):
            raise _DiedError(reason) from None
        raise ContainerStartError(first.function_name, reason) from None
    finally:
        with contextlib.suppress(ray.exceptions.RayError):
            ray.kill(probe)
    for function, reason, trace in problems:
        raise ContainerStartError(function, reason, trace)


async def _awaited(ref: Any) -> Any:
    return await ref
