"""`cluster-configs/on-premises.yaml` as it is, with processes of this machine in the place of its machines.

Ray reaches them by an `ssh` that stays here. So what runs is Ray's provider for lists of machines, its
autoscaler v2, and the commands of the file.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # Ray brings it along.

import flexray
from tests.integration.node_scaling import ScalingCluster, here, in_driver, running_ray
from tests.waiting import wait_until

FILE = Path(__file__).parents[2] / "cluster-configs" / "on-premises.yaml"
HEAD = "127.0.0.1"
MACHINES = ["127.0.0.2", "127.0.0.3"]
TYPE = "local.cluster.node"
SSH = """#!/bin/bash
until [[ "$1" == *@127.* ]]; do shift; done
shift
exec bash -c "$*"
"""


def config(gcs_address: str) -> dict[str, Any]:
    """The file, with these machines, in which everything is installed."""
    content: dict[str, Any] = yaml.safe_load(FILE.read_text())
    content["provider"] |= {"head_ip": HEAD, "worker_ips": MACHINES}
    content |= {"auth": {"ssh_user": "nobody"}, "file_mounts": {}, "worker_setup_commands": []}
    content |= {"max_workers": len(MACHINES), "idle_timeout_minutes": 0.05}
    content["available_node_types"][TYPE]["max_workers"] = len(MACHINES)
    resources = content["available_node_types"][TYPE]["resources"]
    kinds = json.dumps({name: 1 for name in resources if name.startswith("accelerator_type:")})
    # What Ray finds out by itself on such a machine, and what several on one machine must not share.
    found = f"--num-cpus={resources['CPU']} --num-gpus={resources['GPU']} --resources='{kinds}'"
    apart = "--object-store-memory=80000000 --min-worker-port=0 --max-worker-port=0"
    ports = "--dashboard-agent-listen-port=0 --metrics-export-port=0"
    stop, start = content["worker_start_ray_commands"]
    assert stop.endswith("ray stop")  # Which would end every Ray here.
    start = start.replace("--object-manager-port=8076", f"{found} {apart} {ports}")
    content["worker_start_ray_commands"] = [start.replace(":6379", ":" + gcs_address.rpartition(":")[2])]
    return content


def prepare(folder: Path, environment: dict[str, str], content: dict[str, Any]) -> None:
    """What `ray up` leaves on the head, and the command with which the file tells that the head runs."""
    programs = folder / "bin"
    programs.mkdir()
    (programs / "ssh").write_text(SSH)
    (programs / "ssh").chmod(0o755)
    (folder / ".bashrc").touch()
    (folder / "flexray-env").symlink_to(sys.prefix)
    (folder / "ray_bootstrap_config.yaml").write_text(json.dumps(content))
    environment |= {"HOME": str(folder), "PATH": f"{programs}:{os.environ['PATH']}"}
    environment |= {"RAY_CLOUD_INSTANCE_ID": HEAD, "RAY_NODE_TYPE_NAME": "head"}
    _, tell, _ = content["head_start_ray_commands"]
    subprocess.run(["bash", "-c", tell], check=True, env=environment)


@pytest.fixture(scope="module")
def scaling_cluster() -> Iterator[ScalingCluster]:
    with running_ray(config, prepare) as cluster:
        yield cluster


def alive() -> int:
    import ray

    return sum(node["Alive"] for node in ray.nodes())


@pytest.mark.long
@in_driver
def test_machines_join_for_what_waits_and_leave_when_it_is_done() -> None:
    app = flexray.App("machines")

    def where(_: int) -> str:
        return here()

    whole = app.function(cpu=32, scaledown_window=2.0)(where)
    with_gpu = app.function(cpu=0, gpu="A100:2", scaledown_window=2.0, name="with_gpu")(where)
    with app.run():
        assert alive() == 1
        assert len(set(whole.map(range(2)))) <= 2
        assert with_gpu.remote(1)
        assert 1 < alive() <= 1 + len(MACHINES)
        wait_until(lambda: alive() == 1, 40)
