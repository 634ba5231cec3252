"""How the user's code reaches a container.

One rule: a container is set up as its caller is. Containers are made by the controller, in the job of whoever
started it, so nothing of the caller's set-up comes along unless it is sent: the runtime_env (with packages
that the cluster already has) and the folders that the caller imports from.
"""

from __future__ import annotations

import os
import site
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.runtime_env import RuntimeEnv
from ray.util.client import ray as client

from flexray.errors import InvalidError

PYTHON_PROVIDERS = ("pip", "uv", "conda", "container", "image_uri")
"""Keys of a runtime_env that say where Python packages come from. Ray takes one of them at most."""

PIN_SECONDS = "RAY_RUNTIME_ENV_TEMPORARY_REFERENCE_EXPIRATION_S"
"""Ray's variable for how long it keeps a package that is not used yet."""

KEPT_S = 86400

UNPACKED = "runtime_resources"
"""The folder in which Ray unpacks packages on a node. What is in it travels as a package, not as a path."""


def caller_environment() -> dict[str, Any]:
    """The runtime_env of this driver or worker as a plain dict; its local folders are packages by now."""
    return dict(ray.get_runtime_context().runtime_env.to_dict())


def merged_runtime_env(
    caller: Mapping[str, Any] | None, app: Mapping[str, Any] | None, function: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The runtime_env of a function's containers: `function` over `app` over `caller`.

    `env_vars` merge variable by variable; any other key replaces the one below it. Naming one source of
    Python packages (pip, uv, conda, container, image_uri) removes the others below. Empty when all are
    empty: a container without a runtime_env starts in a pooled worker, in 0.1-0.2 s instead of about 1 s.
    """
    merged: dict[str, Any] = {}
    for layer in (caller or {}, app or {}, function or {}):
        if any(key in layer for key in PYTHON_PROVIDERS):
            merged = {key: value for key, value in merged.items() if key not in PYTHON_PROVIDERS}
        variables = {**merged.get("env_vars", {}), **(layer.get("env_vars") or {})}
        merged = {**merged, **layer, "env_vars": variables}
    return {key: value for key, value in merged.items() if value not in (None, {}, [])}


def uploaded(runtime_env: Mapping[str, Any]) -> dict[str, Any]:
    """`runtime_env` such that any node can use it: local folders as packages, files as their lines.

    Ray does this for `ray.init` only. Packages already uploaded stay as they are. The cluster keeps a package
    while a job or a detached actor uses it and for ten minutes after.

    Raises:
        InvalidError: Ray does not accept it, or a folder or file is missing.
    """
    # Ray offers no public form of these two; they are what ray.init itself calls.
    from ray._private.runtime_env.py_modules import upload_py_modules_if_needed  # noqa: PLC0415
    from ray._private.runtime_env.working_dir import upload_working_dir_if_needed  # noqa: PLC0415

    try:
        environment = RuntimeEnv(**runtime_env).to_dict()
        with tempfile.TemporaryDirectory() as scratch, _unpinned_by_clients():
            environment = upload_py_modules_if_needed(
                environment, include_gitignore=True, scratch_dir=scratch
            )
            environment = upload_working_dir_if_needed(
                environment, include_gitignore=True, scratch_dir=scratch
            )
    except (OSError, TypeError, ValueError, ray.exceptions.RuntimeEnvSetupError) as error:
        raise InvalidError(
            f"the runtime_env (keys {', '.join(runtime_env)}) cannot be used: {error}",
            hint="its keys are those of Ray's runtime_env; local paths must exist on this machine",
        ) from error
    environment.pop("excludes", None)  # It has done its work in the upload.
    return dict(environment)


@contextmanager
def _unpinned_by_clients() -> Iterator[None]:
    """Uploads by a client of Ray (`ray://`) without the wish that Ray keep the package until it is used.

    Ray never answers a client's wish (seen on 2.60). The package is there until the last actor that uses it
    is gone.
    """
    set_before = PIN_SECONDS in os.environ
    if client.is_connected():  # type: ignore[no-untyped-call]
        os.environ.setdefault(PIN_SECONDS, "0")
    try:
        yield
    finally:
        if not set_before:
            os.environ.pop(PIN_SECONDS, None)


def packages_of(runtime_env: Mapping[str, Any]) -> list[str]:
    """The packages in the cluster that it names."""
    folders = [runtime_env.get("working_dir"), *(runtime_env.get("py_modules") or ())]
    return [folder for folder in folders if isinstance(folder, str) and folder.startswith("gcs://")]


def keep_package(uri: str) -> None:
    """Have Ray keep the package for a day, whether or not anything uses it; clients of Ray cannot."""
    from ray._private.runtime_env.packaging import pin_runtime_env_uri  # noqa: PLC0415  # Not public.

    pin_runtime_env_uri(uri, expiration_s=KEPT_S)


def import_paths() -> list[str]:
    """The folders that this process imports its own code from, absolute and in order.

    That is `sys.path` (where `""` is the working directory) without the standard library, installed packages
    and what Ray unpacked. Containers on this machine, or that share its disk, append them.
    """
    installed = _installed_folders()
    folders = (Path(entry).absolute() for entry in sys.path)
    own = (folder for folder in folders if folder.is_dir() and not _is_below(folder, installed))
    return list(dict.fromkeys(str(folder) for folder in own if UNPACKED not in folder.parts))


def apply_import_paths(paths: Iterable[str]) -> None:
    """Append to `sys.path` those of `paths` that exist here: last, so that installed packages win."""
    for path in paths:
        if path not in sys.path and Path(path).is_dir():
            sys.path.append(path)


def _installed_folders() -> list[Path]:
    kinds = ("stdlib", "platstdlib", "purelib", "platlib", "scripts")
    folders = [*(sysconfig.get_path(kind) for kind in kinds), *site.getsitepackages()]
    return [Path(folder).absolute() for folder in (*folders, site.getusersitepackages())]


def _is_below(folder: Path, roots: Iterable[Path]) -> bool:
    return any(folder.is_relative_to(root) for root in roots)
