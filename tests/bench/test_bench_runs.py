"""Every benchmark runs, at next to no size: what it measures is looked at by people, never here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.bench.inside import GROWTH
from tests.bench.measure import Row, in_turns, percentile
from tests.bench.suite import BENCHMARKS, TAKES_MINUTES, WITH_SERVE, serve_is_installed

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.long
@pytest.mark.timeout(180)
def test_every_benchmark_without_serve_gives_its_rows(tmp_path: Path) -> None:
    names = [name for name in BENCHMARKS if name not in {**WITH_SERVE, **TAKES_MINUTES}]
    # "map" has two peers, "core" three events, "batches", "spawn" and "idle" two rows, "million" four.
    assert len(_rows_of(names, tmp_path)) == len(names) + 9


@pytest.mark.long
@pytest.mark.timeout(300)
def test_every_benchmark_that_takes_minutes_gives_its_rows(tmp_path: Path) -> None:
    assert len(_rows_of(list(TAKES_MINUTES), tmp_path)) == len(TAKES_MINUTES) + 1  # "gpu-node" has two.


@pytest.mark.long
@pytest.mark.timeout(180)
@pytest.mark.skipif(not serve_is_installed(), reason="the peer is only in the bench extra")
def test_every_benchmark_against_serve_gives_its_rows(tmp_path: Path) -> None:
    assert len(_rows_of(list(WITH_SERVE), tmp_path)) == len(WITH_SERVE)


def _rows_of(names: list[str], folder: Path) -> list[dict[str, Any]]:
    file = folder / "bench.json"
    run = _bench(*names, "--repeat=1", "--share=0.02", f"--json={file}")
    assert run.returncode == 0, run.stdout + run.stderr
    rows: list[dict[str, Any]] = json.loads(file.read_text())["rows"]
    assert all(row["ours"] > 0 and row["value"] > 0 for row in rows if row["unit"] != GROWTH)
    return rows


def _bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.bench", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=False, text=True)


def test_an_unknown_benchmark_is_refused_with_the_known_ones_named() -> None:
    run = _bench("fly")
    assert run.returncode == 2
    assert "there is no benchmark fly; there are import, " in run.stderr


def test_a_ratio_is_the_median_of_the_ratios_of_the_turns() -> None:
    row = Row("call", "ms", [1.0, 10.0, 3.0], "peer", [1.0, 5.0, 1.0], 2.0)
    assert row.values == [1.0, 2.0, 3.0]
    assert row.value == 2.0
    assert row.is_reached
    assert not Row("call", "ms", row.ours, "peer", row.theirs, 2.5, at_least=True).is_reached


def test_each_side_goes_first_in_every_other_turn() -> None:
    order: list[str] = []
    in_turns([lambda: order.append("ours"), lambda: order.append("theirs")], 2)
    assert order == ["ours", "theirs", "theirs", "ours"]


def test_the_99th_percentile_of_a_hundred_is_the_last_but_one() -> None:
    assert percentile(range(1, 101), 0.99) == 99
    assert percentile([7.0], 0.99) == 7.0
