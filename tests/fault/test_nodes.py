"""A node is lost, or is about to go."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.integration.conftest import REPOSITORY, reaped


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("driver", ["node_loss", "node_leaving"])
def test_a_map_completes_on_the_other_node(driver: str) -> None:
    folder = Path(tempfile.mkdtemp(prefix="fr", dir="/tmp"))  # Short, for the paths of sockets.
    (folder / "ray").mkdir()
    environment = {
        **os.environ,
        "RAY_TMPDIR": str(folder / "ray"),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "FLEXRAY_STATE_DIR": str(folder / "state"),
        "PYTHONPATH": str(REPOSITORY),
    }
    with reaped(folder):
        done = subprocess.run(
            [sys.executable, "-m", f"tests.fault.{driver}", str(folder)],
            check=False,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            timeout=280,
        )
    assert done.stdout.splitlines()[-1:] == ["passed"]
