"""The head dies with everything on it, and starts again on the same disk, as cluster-configs/ sets it up."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.conftest import REPOSITORY, reaped
from tests.integration.reaper import reap
from tests.waiting import wait_until

RUNS = "Ray runtime started"

BEFORE = """
import flexray
app = flexray.App("shop")

@app.function(cpu=1)
def price(x):
    return 2 * x

@app.function(cpu=1)
def slow(seconds):
    import time
    time.sleep(seconds)
    return seconds

app.deploy()
print(price.remote(4), slow.spawn(8).object_id)
"""

AFTER = """
import flexray
price = flexray.Function.from_name("shop", "price")
print(price.remote(5), flexray.FunctionCall.from_id({call!r}).get(timeout=60))
"""


@dataclass
class Head:
    """A head in a folder that is its disk."""

    folder: Path
    port: int

    def start(self) -> None:
        """Ray gives up now and then while it starts a node, so there are tries."""
        for number in range(3):
            log = self.folder / f"log{number}"
            with log.open("wb") as written:
                process = subprocess.Popen(
                    self._command(), env=self._environment(), stdout=written, stderr=written
                )
            wait_until(lambda: process.poll() is not None or RUNS in log.read_text(), 90)  # noqa: B023
            if process.poll() is None:
                return
        raise AssertionError(log.read_text())

    def drive(self, code: str) -> list[str]:
        """The words that a program prints which is connected to it."""
        environment = {**self._environment(), "RAY_ADDRESS": f"127.0.0.1:{self.port}"}
        command = [sys.executable, "-c", code]
        return subprocess.check_output(command, env=environment, text=True, timeout=120).split()

    def _environment(self) -> dict[str, str]:
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
            "PYTHONPATH": str(REPOSITORY),
            "RAY_TMPDIR": f"{self.folder}/ray",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "disabled",
            "FLEXRAY_STATE_DIR": f"{self.folder}/state",
            "RAY_gcs_storage": "rocksdb",
            "RAY_gcs_storage_path": f"{self.folder}/state/gcs",
        }

    def _command(self) -> list[str]:
        return [
            str(Path(sys.executable).with_name("ray")),
            *("start", "--head", "--block", "--num-cpus=2", "--object-store-memory=100000000"),
            *("--include-dashboard=false", "--min-worker-port=0", "--max-worker-port=0"),
            *("--dashboard-agent-listen-port=0", "--metrics-export-port=0"),
            f"--port={self.port}",
            f"--temp-dir={self.folder}/ray",
        ]


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_head_that_starts_again_on_its_disk_has_its_apps_and_its_spawned_calls() -> None:
    folder = Path(tempfile.mkdtemp(prefix="fr", dir="/tmp"))  # Short, for the paths of sockets.
    for name in ("ray", "state"):
        (folder / name).mkdir()
    with reaped(folder), socket.create_server(("127.0.0.1", 0)) as found:
        head = Head(folder, found.getsockname()[1])
        found.close()
        head.start()
        price, call = head.drive(BEFORE)
        assert price == "8"
        assert reap(str(folder))
        head.start()
        assert head.drive(AFTER.format(call=call)) == ["10", "8"]
