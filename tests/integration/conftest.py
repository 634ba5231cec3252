"""One Ray cluster of its own per session: 4 CPUs, 2 pretended H100s; about 4 s to start and 2 s to stop.

It never joins or touches another Ray on the machine, and leaves no process and no file behind.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

METRICS_EVERY_MS = 2000
"""How often Ray's processes bring their metrics to its exporter; else every 10 s."""
NAMESPACE = "flexray"
Run = Callable[..., tuple[int, str, str]]
"""What the fixture `run` gives."""
REPOSITORY = Path(__file__).parents[2]


@dataclass
class Cluster:
    """The session's cluster, to which this process is connected as a driver."""

    address: str
    """Host and port of its head, for the RAY_ADDRESS of further drivers."""
    directory: Path
    """Everything that Ray writes for it."""
    drivers: list[subprocess.Popen[str]] = field(default_factory=list)
    """Started by `start_driver`; those that still run are killed at the end."""

    def start_driver(self, code: str, folder: Path | None = None) -> subprocess.Popen[str]:
        """A Python process that runs `code` and finds this cluster with a plain `ray.init()`.

        Its stdin and stdout are pipes of text; it imports from the repository and from `folder`, where it
        runs. Its stderr is this process's.
        """
        environment = {**os.environ, "RAY_ADDRESS": self.address, "PYTHONPATH": str(REPOSITORY)}
        driver = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.drivers.append(driver)
        return driver


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    with running_cluster() as running:
        yield running


@pytest.fixture
def run(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the `flexray` command in this process: (exit code, stdout, stderr)."""
    from flexray import cli

    def run_words(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            cli.main([str(word) for word in words])
        printed = capsys.readouterr()
        return int(caught.value.code or 0), printed.out, printed.err

    return run_words


@contextmanager
def running_cluster() -> Iterator[Cluster]:
    """A cluster for the time of the block, with this process as a driver."""
    import ray

    # Short, for the paths of sockets end at 107 characters.
    directory = Path(tempfile.mkdtemp(prefix="fr", dir="/tmp"))
    with pytest.MonkeyPatch.context() as patch, reaped(directory):
        _set_environment(patch, directory)
        context = ray.init(
            address="local",
            num_cpus=4,
            num_gpus=2,
            resources={"accelerator_type:H100": 2},
            object_store_memory=200 * 1024 * 1024,
            namespace=NAMESPACE,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="WARNING",
            _temp_dir=str(directory / "ray"),
        )
        running = Cluster(context.address_info["gcs_address"], directory)
        try:
            yield running
        finally:
            _stop_drivers(running)
            ray.shutdown()


@contextmanager
def reaped(directory: Path) -> Iterator[None]:
    """Nothing of the cluster outlives the block, nor this process if that is killed."""
    command = [sys.executable, str(Path(__file__).with_name("reaper.py")), str(directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as reaper:
        yield
        reaper.communicate()


def _set_environment(patch: pytest.MonkeyPatch, directory: Path) -> None:
    patch.delenv("RAY_ADDRESS", raising=False)
    patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    patch.setenv("FLEXRAY_STATE_DIR", str(directory / "state"))
    patch.setenv("RAY_metrics_report_interval_ms", str(METRICS_EVERY_MS))
    # Else Ray writes one into the user's home. Not undone, for Ray reads it once per process.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def _stop_drivers(cluster: Cluster) -> None:
    for driver in cluster.drivers:
        driver.kill()
        driver.communicate()
