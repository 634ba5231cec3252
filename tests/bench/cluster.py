"""A Ray of the benchmarks' own: nothing else on the machine is joined, touched or left behind."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray

REAPER = Path(__file__).parents[1] / "integration" / "reaper.py"
CPUS = 8
"""Logical ones, so that no row waits for room; how many there really are is in the report."""


@contextmanager
def private_ray() -> Iterator[None]:
    """Connects this process to a new local Ray; ends it and deletes its files, even after a SIGKILL."""
    folder = Path(tempfile.mkdtemp(prefix="fb", dir="/tmp"))
    # The reaper kills whoever has the folder in its environment, so it starts before this process has.
    with subprocess.Popen([sys.executable, str(REAPER), str(folder)], stdin=subprocess.PIPE) as reaper:
        _set_environment(folder)
        ray.init(
            address="local",
            num_cpus=CPUS,
            object_store_memory=1 << 30,
            namespace="flexray",
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            _temp_dir=str(folder / "ray"),
        )
        try:
            yield
        finally:
            ray.shutdown()
            reaper.communicate()


def _set_environment(folder: Path) -> None:
    os.environ.pop("RAY_ADDRESS", None)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["FLEXRAY_STATE_DIR"] = str(folder / "state")
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # Else Ray writes one into the home.
