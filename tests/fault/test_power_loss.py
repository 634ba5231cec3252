"""Power fails under a store of spawned calls: whatever it has acknowledged is there afterwards.

FLEXRAY_FAULT_SEED repeats the work and how much of it is acknowledged before the end.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from flexray.errors import ExecutionError
from tests.fault import power_loss

SEED = int(os.environ.get("FLEXRAY_FAULT_SEED") or random.SystemRandom().randrange(10**6))
ROOT = Path(__file__).parents[2]


def lines_until_power_loss(tmp_path: Path, fault: str, acknowledged: int, seed: int) -> list[str]:
    """What the process acknowledged until it was killed, shortly after so many lines."""
    for folder in ("disk", "durable"):
        (tmp_path / folder).mkdir()
    command = [
        sys.executable,
        "-m",
        "tests.fault.power_loss",
        *map(str, (tmp_path / "disk", tmp_path / "durable", fault, seed)),
    ]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            if len(lines) == acknowledged:
                process.kill()
    if lines and lines[0].startswith("skip "):
        pytest.skip(lines[0].removeprefix("skip "))
    assert len(lines) >= acknowledged, lines[-3:]
    assert not lines[-1].startswith("broken"), lines[-1]
    return lines


def lost(tmp_path: Path, lines: list[str]) -> list[str]:
    try:
        return power_loss.lost(tmp_path / "durable", lines)
    except ExecutionError as error:
        return [str(error)]


@pytest.mark.parametrize("turn", range(4))
def test_whatever_was_acknowledged_is_there_after_power_was_lost(tmp_path: Path, turn: int) -> None:
    seed = SEED + turn
    acknowledged = random.Random(seed).randrange(1, (10, 100, 500, 1500)[turn])
    lines = lines_until_power_loss(tmp_path, "", acknowledged, seed)
    assert lost(tmp_path, lines) == [], f"FLEXRAY_FAULT_SEED={SEED}"


@pytest.mark.parametrize("fault", power_loss.FAULTS[1:])
def test_a_store_that_does_not_sync_is_found_out(tmp_path: Path, fault: str) -> None:
    """By one power loss of three: right after SQLite has synced by itself there is nothing to lose."""
    for turn in range(3):
        folder = tmp_path / str(turn)
        folder.mkdir()
        if lost(folder, lines_until_power_loss(folder, fault, 300 + turn, SEED + turn)):
            return
    pytest.fail(f"nothing was lost, FLEXRAY_FAULT_SEED={SEED}")
