"""Thousands of seeds of every kind, each with every check.

`FLEXRAY_SIM_SEEDS` says how many seeds, `FLEXRAY_SIM_FIRST` from which on.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sim.play import failure_of
from tests.sim.scenarios import KINDS, scenario

SEEDS = int(os.environ.get("FLEXRAY_SIM_SEEDS", "1000"))
FIRST = int(os.environ.get("FLEXRAY_SIM_FIRST", "0"))
AT_ONCE = 100
ROOT = Path(__file__).parents[2]


def kept_seeds() -> list[tuple[int, str]]:
    """The seeds that once failed, with their kinds."""
    lines = (Path(__file__).parent / "seeds.txt").read_text().splitlines()
    parts = [line.split() for line in lines if line and not line.startswith("#")]
    return [(int(part[0]), part[1]) for part in parts]


def explained(seed: int, kind: str, failure: str) -> str:
    return f"{failure}\n    replay: python -m tests.sim {seed} {kind}"


@pytest.mark.parametrize("first", range(FIRST, FIRST + SEEDS, AT_ONCE))
def test_every_promise_holds_in_every_simulated_world(first: int) -> None:
    failures = []
    for seed in range(first, min(first + AT_ONCE, FIRST + SEEDS)):
        failure = failure_of(scenario(seed))
        if failure is not None:
            failures.append(explained(seed, KINDS[seed % len(KINDS)], failure))
    assert not failures, "\n" + "\n".join(failures)


@pytest.mark.parametrize(("seed", "kind"), kept_seeds())
def test_a_seed_that_once_failed_passes(seed: int, kind: str) -> None:
    failure = failure_of(scenario(seed, kind))
    assert failure is None, explained(seed, kind, failure or "")


def test_the_same_seed_gives_the_same_trace_under_any_hash_seed() -> None:
    program = (
        "import hashlib\n"
        "from tests.sim.play import play\n"
        "from tests.sim.scenarios import KINDS, scenario\n"
        "digest = hashlib.sha256()\n"
        "for seed in range(2 * len(KINDS)):\n"
        "    play(scenario(seed), lambda now, line: digest.update(f'{now!r} {line}'.encode()))\n"
        "print(digest.hexdigest())\n"
    )

    def digest(hash_seed: str) -> str:
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-c", program]
        return subprocess.run(
            command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True
        ).stdout

    assert digest("1") == digest("2")


def test_a_seed_can_be_replayed_with_a_readable_trace() -> None:
    command = [sys.executable, "-m", "tests.sim", "0", "calm", "--to", "1"]
    replay = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert "pool -> StartContainer(container_id='f#1')" in replay
    assert "seed 0: passed" in replay
