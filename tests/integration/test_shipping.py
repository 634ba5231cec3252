"""A container is set up as its caller is, whoever started the controller."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from flexray.errors import InvalidError
from flexray.runtime import shipping
from tests.integration.conftest import Cluster

CALLER = """
import json
import ray
from flexray.runtime import shipping
ray.init(namespace="flexray", log_to_driver=False, logging_level="WARNING", runtime_env={runtime_env!r})
environment = shipping.merged_runtime_env(shipping.caller_environment(), None, {function_env!r})
if {upload!r}:
    environment = shipping.uploaded(environment)
starter = ray.get_actor({starter!r})
seen = ray.get(starter.start.remote(environment, shipping.import_paths(), {module!r}), timeout=60)
print(json.dumps([environment, *seen]))
"""


@ray.remote(num_cpus=0)
class Holder:
    """Stands for a container."""

    def value_of(self, module: str, paths: list[str]) -> tuple[Any, str | None]:
        shipping.apply_import_paths(paths)
        return importlib.import_module(module).VALUE, os.environ.get("LEVEL")


@ray.remote(num_cpus=0)
class Starter:
    """Stands for the controller: detached, with an empty runtime_env, of the session's own job."""

    def start(self, runtime_env: dict[str, Any], paths: list[str], module: str) -> tuple[Any, str | None]:
        holder = Holder.options(
            runtime_env=runtime_env, lifetime="detached", name=f"holder-{module}"
        ).remote()
        try:
            return ray.get(holder.value_of.remote(module, paths), timeout=60)
        finally:
            ray.kill(holder)


@pytest.fixture(scope="module")
def starter(cluster: Cluster) -> Iterator[str]:
    name = f"starter-{os.getpid()}"
    actor = Starter.options(lifetime="detached", name=name, runtime_env={}).remote()
    ray.get(actor.__ray_ready__.remote(), timeout=30)
    yield name
    ray.kill(actor)


def make_module(folder: Path, name: str, value: int) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(f"VALUE = {value}\n")
    return folder


def call(cluster: Cluster, folder: Path, **values: Any) -> tuple[dict[str, Any], int, str | None]:
    """The runtime_env that the caller sent, and the module's VALUE and LEVEL as the container saw them."""
    defaults = {"runtime_env": None, "function_env": None, "upload": False}
    driver = cluster.start_driver(CALLER.format(**{**defaults, **values}), folder)
    output, _ = driver.communicate(timeout=100)
    assert driver.returncode == 0
    environment, value, level = json.loads(output.splitlines()[-1])
    return environment, value, level


def test_a_working_dir_given_to_ray_init_reaches_the_container(
    cluster: Cluster, starter: str, tmp_path: Path
) -> None:
    code = make_module(tmp_path / "code", "in_working_dir", 42)
    elsewhere = make_module(tmp_path / "elsewhere", "unrelated", 0)
    runtime_env = {"working_dir": str(code), "env_vars": {"LEVEL": "1"}}
    environment, value, level = call(
        cluster, elsewhere, runtime_env=runtime_env, starter=starter, module="in_working_dir"
    )
    assert environment["working_dir"].startswith("gcs://")
    assert (value, level) == (42, "1")


def test_folders_named_by_a_function_are_uploaded_by_its_caller(
    cluster: Cluster, starter: str, tmp_path: Path
) -> None:
    code = make_module(tmp_path / "code", "in_function_dir", 7)
    package = make_module(tmp_path / "packaged", "__init__", 8)
    function_env = {"working_dir": str(code), "py_modules": [str(package)], "env_vars": {"LEVEL": "2"}}
    for module, expected in (("in_function_dir", 7), ("packaged", 8)):
        _, value, level = call(
            cluster, tmp_path, function_env=function_env, upload=True, starter=starter, module=module
        )
        assert (value, level) == (expected, "2")


def test_the_folder_of_a_caller_without_a_runtime_env_is_found_on_its_machine(
    cluster: Cluster, starter: str, tmp_path: Path
) -> None:
    folder = make_module(tmp_path / "project", "beside_the_caller", 5)
    environment, value, _ = call(cluster, folder, starter=starter, module="beside_the_caller")
    assert environment == {}
    assert value == 5


def test_a_missing_folder_is_named_without_showing_variables(cluster: Cluster) -> None:
    with pytest.raises(InvalidError, match="nowhere") as caught:
        shipping.uploaded({"working_dir": "/nowhere", "env_vars": {"TOKEN": "hidden"}})
    assert "hidden" not in str(caught.value)


def test_import_paths_are_folders_of_ones_own(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = str(Path(pytest.__file__).parents[1])
    unpacked = tmp_path / "runtime_resources" / "package"
    unpacked.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", str(tmp_path), installed, "/nowhere", str(unpacked), os.__file__])
    assert shipping.import_paths() == [str(tmp_path)]


def test_import_paths_are_appended_once_where_they_exist(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", ["first"])
    shipping.apply_import_paths([str(tmp_path), "/nowhere", str(tmp_path)])
    assert sys.path == ["first", str(tmp_path)]


def test_runtime_envs_merge_with_the_function_on_top() -> None:
    caller = {"working_dir": "gcs://a.zip", "pip": ["emoji"], "env_vars": {"A": "1", "B": "1"}}
    app = {"env_vars": {"B": "2", "C": "2"}}
    function = {"working_dir": "gcs://b.zip", "uv": ["six"], "env_vars": {"C": "3"}}
    assert shipping.merged_runtime_env(caller, app, function) == {
        "working_dir": "gcs://b.zip",
        "uv": ["six"],
        "env_vars": {"A": "1", "B": "2", "C": "3"},
    }
    assert caller["env_vars"] == {"A": "1", "B": "1"}


def test_nothing_merged_is_nothing() -> None:
    assert shipping.merged_runtime_env(None, {}, {"env_vars": {}}) == {}
