"""The files of `cluster-configs/`: valid by Ray's own checks, which need no cloud, and what FlexRay needs."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml  # type: ignore[import-untyped]  # Ray brings it along.
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil
from ray.core.generated.autoscaler_pb2 import ResourceRequestByCount

from flexray.config import Resources
from flexray.runtime.nodetypes import types_in
from flexray.runtime.placement import KIND, MIB, actor_options, infeasible

FOLDER = Path(__file__).parents[2] / "cluster-configs"
RAY_UP = ("aws", "gcp", "azure", "on-premises")
KUBERAY = ("kuberay-cluster", "kuberay-job")
HEADS = {"metadata": {"name": "flexray", "namespace": "default"}}
HEAD = {"Alive": True, "Resources": {"node:__internal_head__": 1.0}, "Labels": {}}


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / f"{name}.yaml").read_text()))


def ray_up(name: str) -> dict[str, Any]:
    """The file as `ray up` takes it: with what Ray fills in, and checked by Ray."""
    [content] = documents(name)
    config: dict[str, Any] = prepare_config(content)
    validate_config(config)
    return config


def ray_cluster(name: str) -> dict[str, Any]:
    """The spec of the cluster in a KubeRay manifest."""
    spec: dict[str, Any] = documents(name)[-1]["spec"]
    return spec.get("rayClusterSpec", spec)


def autoscaling(name: str) -> dict[str, Any]:
    """What Ray's autoscaler makes of the file."""
    if name in RAY_UP:
        return ray_up(name)
    config: dict[str, Any] = _derive_autoscaling_config_from_ray_cr({**HEADS, "spec": ray_cluster(name)})
    return config


def head_and_workers(name: str) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    config = autoscaling(name)
    types = dict(config["available_node_types"])
    return types.pop(config["head_node_type"]), types


def head_pod(name: str) -> dict[str, Any]:
    pod: dict[str, Any] = ray_cluster(name)["headGroupSpec"]["template"]["spec"]
    return pod


@dataclass(frozen=True)
class Offer:
    """GPUs of one kind in one file."""

    file: str
    kind: str
    count: int

    def __str__(self) -> str:
        return f"{self.file}-{self.kind}:{self.count}"


def offers() -> Iterator[Offer]:
    for name in (*RAY_UP, *KUBERAY):
        for node_type in head_and_workers(name)[1].values():
            for resource in node_type["resources"]:
                if resource.startswith(KIND):
                    yield Offer(name, resource.removeprefix(KIND), node_type["resources"]["GPU"])


def launches(name: str, options: Mapping[str, Any]) -> dict[str, int]:
    """The nodes that autoscaler v2 would start for one actor where only a head runs: type to number."""
    without_keys = {**autoscaling(name), "auth": {}}
    config = AutoscalingConfig(without_keys, skip_content_hash=True)
    kind = options.get("accelerator_type")
    shape = {
        "CPU": options["num_cpus"],
        "GPU": options.get("num_gpus"),
        "memory": options.get("memory"),
        f"{KIND}{kind}": 0.001 if kind else None,
    }
    asked = ResourceRequestUtil.make({resource: amount for resource, amount in shape.items() if amount})
    types = config.get_node_type_configs()
    del types[config.get_head_node_type()]  # It runs, and has nothing to offer.
    reply = ResourceDemandScheduler(None).schedule(
        SchedulingRequest(
            disable_launch_config_check=True,
            node_type_configs=types,
            max_num_nodes=config.get_max_num_nodes(),
            resource_requests=[ResourceRequestByCount(request=asked, count=1)],
            gang_resource_requests=[],
            cluster_resource_constraints=[],
            current_instances=[],
            idle_timeout_s=config.get_idle_timeout_s(),
        )
    )
    return {launch.instance_type: launch.count for launch in reply.to_launch}


def commands(name: str) -> list[str]:
    config = ray_up(name)
    return [
        command
        for key, value in config.items()
        if key.endswith("_commands")
        for command in value
        if value is not None
    ]


@pytest.mark.parametrize("name", [*RAY_UP, *KUBERAY])
def test_ray_takes_the_file_and_no_worker_runs_until_one_is_needed(name: str) -> None:
    head, workers = head_and_workers(name)
    assert head["max_workers"] == 0
    assert workers
    for node_type in workers.values():
        assert node_type["min_workers"] == 0
        assert node_type["max_workers"] > 0
    most = autoscaling(name)["max_workers"]
    assert max(node_type["max_workers"] for node_type in workers.values()) <= most


@pytest.mark.parametrize("name", [*RAY_UP, *KUBERAY])
def test_there_is_nothing_but_flexray_on_the_head(name: str) -> None:
    head, _ = head_and_workers(name)
    assert head["resources"]["CPU"] == 0
    assert not head["resources"].get("GPU")
    if name in RAY_UP:
        [start] = [command for command in ray_up(name)["head_start_ray_commands"] if "--head" in command]
        assert "--num-cpus=0 --num-gpus=0" in start
    else:
        assert ray_cluster(name)["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


@pytest.mark.parametrize("name", [*RAY_UP, *KUBERAY])
def test_autoscaler_v2_is_on(name: str) -> None:
    if name in RAY_UP:
        [start] = [command for command in ray_up(name)["head_start_ray_commands"] if "--head" in command]
        assert re.search(r"export [^;]*RAY_enable_autoscaler_v2=1\b[^;]*;\s*\S*ray start", start)
        assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in start
    else:
        spec = ray_cluster(name)
        assert spec["enableInTreeAutoscaling"] is True
        assert spec["autoscalerOptions"]["version"] == "v2"


@pytest.mark.parametrize("name", [*RAY_UP, *KUBERAY])
def test_an_idle_node_goes_within_minutes(name: str) -> None:
    config = autoscaling(name)
    assert 1 <= config["idle_timeout_minutes"] <= 10
    for node_type in head_and_workers(name)[1].values():
        assert 60 <= node_type.get("idle_timeout_s", 60 * config["idle_timeout_minutes"]) <= 600


@pytest.mark.parametrize("offer", list(offers()), ids=str)
def test_every_gpu_on_offer_is_found_by_its_name_from_a_cluster_without_workers(offer: Offer) -> None:
    nodes = [HEAD, *types_in(autoscaling(offer.file))]
    for spelling in (offer.kind, offer.kind.lower()):
        options = actor_options(Resources(cpu=1, gpu=f"{spelling}:{offer.count}"), nodes)
        assert infeasible(options, nodes) is None
        [(started, count)] = launches(offer.file, options).items()
        resources = head_and_workers(offer.file)[1][started]["resources"]
        assert resources[KIND + offer.kind] == count == 1


@pytest.mark.parametrize("name", [*RAY_UP, *KUBERAY])
def test_every_type_with_gpus_names_their_kind(name: str) -> None:
    for node_type in head_and_workers(name)[1].values():
        kinds = [resource for resource in node_type["resources"] if resource.startswith(KIND)]
        assert bool(kinds) == bool(node_type["resources"].get("GPU"))


@pytest.mark.parametrize("name", [*RAY_UP, *KUBERAY])
def test_memory_and_cpus_bring_a_node_too(name: str) -> None:
    for node_type in head_and_workers(name)[1].values():
        resources = node_type["resources"]
        memory_mib = resources["memory"] // MIB
        assert 1024 <= memory_mib / resources["CPU"] <= 16 * 1024
        options = actor_options(Resources(cpu=resources["CPU"], memory=memory_mib))
        assert sum(launches(name, options).values()) == 1


def test_kinds_are_those_that_ray_finds_on_the_machines() -> None:
    from ray.util.accelerators import accelerators

    known = {value for key, value in vars(accelerators).items() if key.isupper()}
    assert {offer.kind for offer in offers()} <= known
    assert {"A100", "H100"} <= {offer.kind for offer in offers()}


@pytest.mark.parametrize("name", RAY_UP)
def test_the_commands_are_shell_and_the_wheel_is_installed_everywhere(name: str) -> None:
    for command in commands(name):
        subprocess.run(["bash", "-n", "-c", command], check=True)
    config = ray_up(name)
    assert config["file_mounts"] == {"~/flexray-dist": "./dist"}
    for key in ("head_setup_commands", "worker_setup_commands"):
        [install, again] = [command for command in config[key] if "flexray-*.whl" in command]
        assert f"ray[default]=={ray.__version__}" in install
        assert "--force-reinstall" in again
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        stop, *_, start = config[key]
        assert stop.endswith("ray stop")
        assert "ray start " in start
    assert "--address=$RAY_HEAD_IP:6379" in config["worker_start_ray_commands"][-1]


@pytest.mark.parametrize("name", RAY_UP)
def test_state_and_the_cluster_that_it_belongs_to_are_on_a_disk_that_lasts(name: str) -> None:
    config = ray_up(name)
    settings = dict(re.findall(r"(\w+)=(\S+?);?\s", config["head_start_ray_commands"][-1]))
    directory = settings["FLEXRAY_STATE_DIR"]
    assert settings["RAY_gcs_storage"] == "rocksdb"
    assert settings["RAY_gcs_storage_path"] == f"{directory}/gcs"
    if name == "on-premises":
        assert directory.startswith("$HOME/")
        return
    assert not directory.startswith(("/tmp", "/dev/shm", "/run"))
    assert any(command.startswith("sudo install -d") and directory in command for command in commands(name))
    assert config["provider"]["cache_stopped_nodes"] is True  # The machine is stopped, and keeps its disk.


def test_machines_of_ones_own_have_every_setting_for_ray_fills_in_none() -> None:
    [content] = documents("on-premises")
    assert ray_up("on-premises") == content
    assert not set(ray_up("aws")) - set(content)


def test_the_heads_disk_outlives_a_machine_that_is_deleted_where_the_cloud_can_do_that() -> None:
    aws = head_and_workers("aws")[0]["node_config"]["BlockDeviceMappings"]
    assert [disk["Ebs"]["DeleteOnTermination"] for disk in aws] == [False]
    gcp = head_and_workers("gcp")[0]["node_config"]["disks"]
    assert [disk["autoDelete"] for disk in gcp] == [False]


@pytest.mark.parametrize("name", KUBERAY)
def test_state_is_on_a_volume_of_its_own(name: str) -> None:
    pod = head_pod(name)
    [container] = pod["containers"]
    settings = {variable["name"]: variable["value"] for variable in container["env"]}
    mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    volume = volumes[mounted[settings["FLEXRAY_STATE_DIR"]]]
    assert pod["securityContext"]["fsGroup"] == 100
    if name == "kuberay-cluster":
        [claim] = [one for one in documents(name) if one["kind"] == "PersistentVolumeClaim"]
        assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        assert settings["RAY_gcs_storage"] == "rocksdb"
        assert settings["RAY_gcs_storage_path"].startswith(settings["FLEXRAY_STATE_DIR"] + "/")
    else:
        assert volume["ephemeral"]["volumeClaimTemplate"]["spec"]["accessModes"] == ["ReadWriteOnce"]
        assert "RAY_gcs_storage" not in settings  # Another run would take up the cluster of this one.


@pytest.mark.parametrize("name", KUBERAY)
def test_pods_are_of_one_ray_and_are_images_with_flexray(name: str) -> None:
    spec = ray_cluster(name)
    assert spec["rayVersion"] == ray.__version__
    pods = [head_pod(name), *(group["template"]["spec"] for group in spec["workerGroupSpecs"])]
    for pod in pods:
        assert pod["restartPolicy"] == "Never"
        [container] = pod["containers"]
        assert container["resources"]["requests"] == container["resources"]["limits"]
        has_gpu = "nvidia.com/gpu" in container["resources"]["limits"]
        assert container["image"].endswith("/flexray:gpu" if has_gpu else "/flexray:cpu")
    dockerfile = (FOLDER / "Dockerfile").read_text()
    assert re.search(rf"^ARG RAY={re.escape(ray.__version__)}-py312$", dockerfile, re.MULTILINE)
    assert re.search(r"^RUN pip install .*flexray-\*\.whl$", dockerfile, re.MULTILINE)


def test_the_job_runs_a_program_that_is_one() -> None:
    config_map, job = documents("kuberay-job")
    [(file, program)] = config_map["data"].items()
    compile(program, file, "exec")
    directory = next(
        mount["mountPath"]
        for mount in head_pod("kuberay-job")["containers"][0]["volumeMounts"]
        if mount["name"] == "program"
    )
    assert job["spec"]["entrypoint"] == f"flexray run {directory}/{file}"
    assert job["spec"]["shutdownAfterJobFinishes"] is True


def test_the_readme_names_every_file() -> None:
    readme = (FOLDER / "README.md").read_text()
    for file in FOLDER.iterdir():
        assert file.name == "README.md" or f"({file.name})" in readme, file.name
