"""A real Ray whose autoscaler adds and removes nodes, all of them processes of this machine.

Ray's external fake provider stands for the cloud; autoscaler v2 decides as it would there. The process of the
tests may be connected to another cluster, so what uses this one runs in a driver: `in_driver` makes a test of
a function that runs there.
"""

from __future__ import annotations

import functools
import importlib
import json
import multiprocessing
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from tests.ports import free_ports
from tests.waiting import wait_until

REPOSITORY = Path(__file__).parents[2]
HEAD_ID = "f" * 51 + "00000"
"""The id by which the fake provider knows the head."""
HEAD_TYPE = "ray.head.default"
TYPE = "type"
"""The label by which the tests tell nodes apart."""
HEAD_RUNS = "Ray runtime started"
HEADS_TRIED = 3
IDLE_TIMEOUT_S = 4.0
"""How long a node may be idle before the autoscaler takes it away."""
STORE_BYTES = 80 * 1024 * 1024
FOR_THE_HEAD = {
    "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    "RAY_enable_autoscaler_v2": "1",
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
}


@dataclass(frozen=True)
class NodeType:
    """What the autoscaler may start, from none to `max_workers` of it."""

    resources: Mapping[str, int]
    labels: Mapping[str, str] = field(default_factory=dict)
    max_workers: int = 2

    def as_config(self, name: str) -> dict[str, Any]:
        """As it stands in a cluster's file."""
        return {
            "resources": {**self.resources, "object_store_memory": STORE_BYTES},
            "labels": {TYPE: name, **self.labels},
            "node_config": {},
            "min_workers": 0,
            "max_workers": self.max_workers,
        }


@dataclass(frozen=True)
class ScalingCluster:
    """A head without CPUs, and a driver in a process of its own that is connected to it."""

    address: str
    folder: Path
    driver: ProcessPoolExecutor

    def run(self, work: Callable[..., Any], *args: Any, timeout_s: float = 90) -> Any:
        """What a function of a module gives, run in the driver; one that hangs is the last there."""
        try:
            return self.driver.submit(work, *args).result(timeout_s)
        except TimeoutError:
            _end(self.driver)
            raise


def in_driver(body: Callable[[], None]) -> Callable[[ScalingCluster], None]:
    """A test whose body runs in the driver of `scaling_cluster`."""

    @functools.wraps(body)
    def test(scaling_cluster: ScalingCluster) -> None:
        scaling_cluster.run(_run_body, body.__module__, body.__name__)

    # Pytest reads the fixtures that it asks for from the signature, which `wraps` has hidden.
    del test.__wrapped__  # type: ignore[attr-defined]
    test.body = body  # type: ignore[attr-defined]
    return test


def _run_body(module: str, name: str) -> None:
    getattr(importlib.import_module(module), name).body()


@contextmanager
def running_nodes(node_types: Mapping[str, NodeType]) -> Iterator[ScalingCluster]:
    """A cluster with these types of nodes, none of them running; about 6 s to start and 1 s to stop."""
    with running_ray(functools.partial(cluster_config, node_types), _play_the_cloud) as cluster:
        yield cluster


Prepare = Callable[[Path, dict[str, str], dict[str, Any]], None]
"""Gets ready in a folder, for a head with this environment, which it may change, and this cluster's file."""


@contextmanager
def running_ray(config: Callable[[str], dict[str, Any]], prepare: Prepare) -> Iterator[ScalingCluster]:
    """A head with the file that `config` gives for its address, and no other node."""
    folder = Path(tempfile.mkdtemp(prefix="fn", dir="/tmp"))  # Short, for the paths of sockets.
    with ExitStack() as stack:
        reaper = [sys.executable, str(Path(__file__).with_name("reaper.py")), str(folder)]
        stack.callback(stack.enter_context(subprocess.Popen(reaper, stdin=subprocess.PIPE)).communicate)
        environment = _environment(folder)
        head, port = _start_head(folder, environment, config, prepare)
        stack.callback(_kill, head)
        address = f"127.0.0.1:{port}"
        driver = ProcessPoolExecutor(
            1, multiprocessing.get_context("spawn"), initializer=_connect, initargs=(address,)
        )
        stack.callback(_end, driver)
        with patch.dict(os.environ, environment, clear=True):
            driver.submit(int).result(90)
        yield ScalingCluster(address, folder, driver)


def _play_the_cloud(_folder: Path, environment: dict[str, str], _config: dict[str, Any]) -> None:
    environment["RAY_FAKE_CLUSTER"] = "1"
    environment["RAY_CLOUD_INSTANCE_ID"] = environment["RAY_OVERRIDE_NODE_ID_FOR_TESTING"] = HEAD_ID


def _environment(folder: Path) -> dict[str, str]:
    """What the head, its nodes and the drivers have in common; by the folder the reaper finds them."""
    for name in ("ray", "state"):
        (folder / name).mkdir()
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        "PYTHONPATH": str(REPOSITORY),
        "RAY_TMPDIR": f"{folder}/ray",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "FLEXRAY_STATE_DIR": f"{folder}/state",
    }


def _start_head(
    folder: Path,
    environment: Mapping[str, str],
    config: Callable[[str], dict[str, Any]],
    prepare: Prepare,
) -> tuple[subprocess.Popen[bytes], int]:
    """The head's process and port. Ray gives up now and then while it starts a node, so there are tries."""
    for number in range(1, HEADS_TRIED + 1):
        port, *others = free_ports(4)
        mine = folder / f"head{number}"
        mine.mkdir()
        content, headwise = config(f"127.0.0.1:{port}"), {**environment, **FOR_THE_HEAD}
        prepare(mine, headwise, content)
        (mine / "cluster.json").write_text(json.dumps(content))
        log = mine / "head.log"
        with log.open("wb") as written:
            head = subprocess.Popen(
                _head_command(mine, port, others),
                env=headwise,
                stdin=subprocess.DEVNULL,
                stdout=written,
                stderr=written,
                start_new_session=True,
            )
        wait_until(lambda: head.poll() is not None or HEAD_RUNS in log.read_text(), timeout_s=60)  # noqa: B023
        if head.poll() is None:
            return head, port
    raise AssertionError(log.read_text())


def _head_command(folder: Path, port: int, others: list[int]) -> list[str]:
    flags = ("dashboard-agent-listen-port", "dashboard-agent-grpc-port", "metrics-export-port")
    return [
        str(Path(sys.executable).with_name("ray")),
        "start",
        "--head",
        "--block",
        f"--autoscaling-config={folder}/cluster.json",
        "--node-ip-address=127.0.0.1",
        f"--port={port}",
        "--num-cpus=0",
        f"--object-store-memory={STORE_BYTES}",
        "--include-dashboard=false",
        "--min-worker-port=0",
        "--max-worker-port=0",
        f"--temp-dir={folder}/r",
        *(f"--{flag}={other}" for flag, other in zip(flags, others, strict=True)),
    ]


def cluster_config(node_types: Mapping[str, NodeType], gcs_address: str) -> dict[str, Any]:
    """The file of a cluster of the fake provider, complete, for nothing fills in what it leaves out."""
    lists = (
        "initialization_commands setup_commands head_setup_commands worker_setup_commands "
        "head_start_ray_commands worker_start_ray_commands cluster_synced_files rsync_exclude rsync_filter"
    )
    return {
        "cluster_name": "fake",
        "max_workers": sum(node_type.max_workers for node_type in node_types.values()),
        "idle_timeout_minutes": IDLE_TIMEOUT_S / 60,
        "upscaling_speed": 1.0,
        "provider": {
            "type": "external",
            "module": "tests.integration.stubborn_provider.StubbornProvider",
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
            "gcs_address": gcs_address,
            "launch_multiple": True,
            "head_node_id": HEAD_ID,
        },
        "head_node_type": HEAD_TYPE,
        "available_node_types": {
            HEAD_TYPE: {"resources": {"CPU": 0}, "node_config": {}, "min_workers": 0, "max_workers": 0},
            **{name: node_type.as_config(name) for name, node_type in node_types.items()},
        },
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
        **{name: [] for name in lists.split()},
    }


def _connect(address: str) -> None:
    import ray

    ray.init(address, namespace="flexray", log_to_driver=False, logging_level="ERROR")


def _end(driver: ProcessPoolExecutor) -> None:
    for process in list(driver._processes.values()):
        process.kill()  # It may hang in a test that failed for that.
    driver.shutdown()


def _kill(head: subprocess.Popen[bytes]) -> None:
    # All at once, or the autoscaler starts a node while the reaper looks for those that are left.
    os.killpg(head.pid, signal.SIGKILL)
    head.wait()


# In the driver.


def workers() -> dict[str, str]:
    """The nodes that run beside the head: id to type."""
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] != HEAD_ID]
    return {node["NodeID"]: node["Labels"][TYPE] for node in nodes}


def running(node_type: str) -> int:
    """How many nodes of that type run."""
    return list(workers().values()).count(node_type)


def seconds_until_gone(node_type: str, within_s: float) -> float:
    """How long it takes from now until no node of that type runs; fails the test if that is longer."""
    began = time.monotonic()
    wait_until(lambda: not running(node_type), within_s, every_s=0.1)
    return time.monotonic() - began


def here() -> str:
    """The node on which this runs."""
    import ray

    return str(ray.get_runtime_context().get_node_id())


@dataclass(frozen=True)
class Visit:
    """How long it took until a GPU node that did not run had done something, and had gone again."""

    bare_s: float
    """From the creation of a bare Ray actor with a GPU to the answer to its first call."""
    result_s: float
    """From the call of a function with a GPU to its result."""
    gone_s: float
    """From that result to the moment when the node was gone: scaledown window, idle timeout, and the rest."""


def gpu_node_visit(kind: str, window_s: float) -> Visit:
    """One of each, from a cluster without workers. The kind says it: both get the same type of node."""
    import ray

    import flexray

    wait_until(lambda: not workers(), 60, every_s=0.1)
    began = time.monotonic()
    actor = ray.remote(num_cpus=0, num_gpus=1, accelerator_type=kind)(Bare).remote()  # type: ignore[attr-defined]
    ray.get(actor.answer.remote())
    bare_s = time.monotonic() - began
    ray.kill(actor)
    wait_until(lambda: not workers(), 60, every_s=0.1)
    app = flexray.App("visit")
    function = app.function(cpu=0, gpu=kind, scaledown_window=window_s)(here)
    with app.run():
        function.get_current_stats()  # The controller runs, as it does on every cluster that is used.
        began = time.monotonic()
        node = function.remote()
        result_s = time.monotonic() - began
        began = time.monotonic()
        wait_until(lambda: node not in workers(), 60, every_s=0.05)
        return Visit(bare_s, result_s, time.monotonic() - began)


class Bare:
    """What a function is compared with."""

    def answer(self) -> bool:
        return True
