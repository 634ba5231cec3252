"""`flexray call` on a cluster that runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

import flexray
from flexray import cli
from tests.integration.conftest import Cluster
from tests.waiting import wait_until

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> Run:
    def run_words(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            cli.main(["call", *words])
        printed = capsys.readouterr()
        return int(caught.value.code or 0), printed.out, printed.err

    return run_words


@pytest.fixture
def app(cluster: Cluster) -> flexray.App:
    return flexray.App("shell")


def row_of(run: Run, call: flexray.FunctionCall[Any]) -> dict[str, Any]:
    rows = json.loads(run("list", "--json")[1])
    return next(row for row in rows if row["call"] == call.object_id)


def test_list_shows_calls_with_their_inputs(app: flexray.App, run: Run) -> None:
    @app.function(cpu=0)
    def double(value: int) -> int:
        return 2 * value

    with app.run():
        call = double.spawn_map(range(3))
        assert list(call.iter()) == [0, 2, 4]
        wait_until(lambda: row_of(run, call)["state"] == "over", timeout_s=10)
        row = row_of(run, call)
        assert (row["function"], row["inputs"], row["over"]) == ("double", 3, 3)
        code, printed, _ = run("list")
        assert code == 0
        assert call.object_id in printed
        assert "s ago" in printed


def test_get_prints_a_result_and_fails_as_the_input_did(app: flexray.App, run: Run) -> None:
    @app.function(cpu=0)
    def half(value: int) -> float:
        return 1 / value

    with app.run():
        call = half.spawn_map([2, 0])
        assert run("get", call.object_id)[:2] == (0, "0.5\n")
        assert json.loads(run("get", call.object_id, "--json")[1])["result"] == 0.5
        code, _, told = run("get", call.object_id, "--index", "1")
        assert code == 1
        assert "ZeroDivisionError" in told
        code, _, told = run("get", call.object_id, "--index", "2")
        assert code == 2
        assert "has 2 inputs" in told
        assert "Traceback" not in told


@pytest.mark.parametrize("call_id", ["nonsense", "fc-nonsense"])
def test_a_wrong_id_is_told_in_a_sentence(run: Run, call_id: str) -> None:
    code, _, told = run("get", call_id)
    assert code != 0
    assert call_id in told
    assert "hint:" in told
    assert "Traceback" not in told


def test_cancel_says_how_many_inputs_it_ended(app: flexray.App, run: Run) -> None:
    @app.function(resources={"nowhere": 1}, startup_timeout=600)
    def never() -> None: ...

    with app.run():
        call = never.spawn()
        code, _, told = run("get", call.object_id, "--timeout", "0")
        assert code == 1
        assert "is not over" in told
        assert run("cancel", call.object_id)[1] == "1 of 1 inputs were not over and are cancelled\n"
        assert run("cancel", call.object_id)[1] == "0 of 1 inputs were not over and are cancelled\n"
        with pytest.raises(flexray.InputCancelledError):
            call.get(timeout=5)
