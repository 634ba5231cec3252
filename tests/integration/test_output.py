"""What functions print reaches their caller, line by line, with the function's name."""

# ruff: noqa: T201  # The functions here print.

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

import flexray
from tests.integration.conftest import Cluster
from tests.integration.gates import Gate, in_background
from tests.waiting import wait_until

app = flexray.App("output")


@app.function(cpu=0, max_containers=4)
def greet(name: str) -> None:
    print(f"hello {name}")
    print(f"careful {name}", file=sys.stderr)


async def _greet_later(name: str) -> None:
    await asyncio.sleep(0)
    print(f"later {name}")


greet_later: flexray.Function[[str], Any] = app.function(cpu=0, name="greet_later")(_greet_later)


@app.function(cpu=0, max_containers=4)
def by_pieces(_: object) -> None:
    print("one", end="")
    print(", two")
    print("three\nfour", end="")


@app.function(cpu=0, max_containers=4)
def in_a_thread(_: object) -> None:
    thread = threading.Thread(target=print, args=("from a thread",))
    thread.start()
    thread.join()


@app.function(cpu=0, max_containers=4)
def logs(_: object) -> None:
    logging.getLogger("mine").warning("a warning")


@app.function(cpu=0, max_containers=4)
def fails_loudly(_: object) -> None:
    print("last words")
    raise ValueError


@app.function(cpu=0, max_containers=4)
def runs_programs(_: object) -> None:
    print("in Python")
    subprocess.run(["sh", "-c", "echo from a program; echo in trouble >&2"], check=True)
    process = multiprocessing.get_context("fork").Process(target=print, args=("from a fork",))
    process.start()
    process.join()


@app.function(cpu=0, max_containers=1)
def runs_a_slow_program(folder: Path) -> None:
    wait = f"until [ -e {folder}/end ]; do sleep 0.05; done"
    subprocess.run(["sh", "-c", f"echo it begins; {wait}"], check=True)


@app.function(cpu=0, max_containers=4)
def prints_a_lot(lines: int) -> None:
    for number in range(lines):
        print(number)


@app.function(cpu=0, max_containers=1)
def waits(folder: Path) -> None:
    print("before")
    Gate(folder).enter("x")
    print("after")


@app.function(cpu=0, max_containers=4)
def outer(name: str) -> None:
    print("outer here")
    greet.remote(name)


@app.cls(cpu=0)
class Chatty:
    @flexray.enter()
    def load(self) -> None:
        print("loading, ", end="")
        print("loaded")

    @flexray.method()
    def work(self) -> None:
        print("working")


@pytest.fixture(scope="module", autouse=True)
def running(cluster: Cluster) -> Iterator[None]:
    with app.run():
        yield


def test_lines_come_with_the_functions_name_before_the_call_returns(
    capsys: pytest.CaptureFixture[str],
) -> None:
    greet.remote("you")
    captured = capsys.readouterr()
    assert captured.out == "greet | hello you\n"
    assert captured.err == "greet | careful you\n"


def test_lines_of_enter_hooks_arrive_with_the_first_input(capsys: pytest.CaptureFixture[str]) -> None:
    Chatty().work.remote()
    Chatty().work.remote()
    assert capsys.readouterr().out.splitlines() == [
        "Chatty | loading, loaded",
        "Chatty | working",
        "Chatty | working",
    ]


def test_every_line_of_a_map_arrives_once(capsys: pytest.CaptureFixture[str]) -> None:
    greet.for_each([str(x) for x in range(100)])
    lines = capsys.readouterr().out.splitlines()
    assert sorted(lines) == sorted(f"greet | hello {x}" for x in range(100))


def test_lines_of_async_functions_arrive(capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(greet_later.remote.aio("you"))
    assert capsys.readouterr().out == "greet_later | later you\n"


def test_lines_written_in_pieces_arrive_whole(capsys: pytest.CaptureFixture[str]) -> None:
    by_pieces.remote(0)
    assert capsys.readouterr().out == "by_pieces | one, two\nby_pieces | three\nby_pieces | four\n"


def test_lines_of_threads_arrive(capsys: pytest.CaptureFixture[str]) -> None:
    in_a_thread.remote(0)
    assert capsys.readouterr().out == "in_a_thread | from a thread\n"


def test_lines_of_programs_and_forks_arrive_in_their_place(capsys: pytest.CaptureFixture[str]) -> None:
    runs_programs.remote(1)
    printed = capsys.readouterr()
    assert printed.out == (
        "runs_programs | in Python\nruns_programs | from a program\nruns_programs | from a fork\n"
    )
    assert "runs_programs | in trouble\n" in printed.err


def test_lines_of_a_program_arrive_while_it_runs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    call = in_background(lambda: runs_a_slow_program.remote(tmp_path))
    wait_until(lambda: capsys.readouterr().out == "runs_a_slow_program | it begins\n", timeout_s=20)
    assert not call.done()
    (tmp_path / "end").touch()
    call.result(20)


def test_log_records_arrive(capsys: pytest.CaptureFixture[str]) -> None:
    logs.remote(0)
    assert "logs | " in (error := capsys.readouterr().err)
    assert "a warning" in error


def test_lines_before_a_failure_arrive(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # It is the user's own, without words.
        fails_loudly.remote(0)
    assert capsys.readouterr().out == "fails_loudly | last words\n"


def test_many_lines_arrive_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    prints_a_lot.remote(5000)
    assert capsys.readouterr().out.splitlines() == [f"prints_a_lot | {x}" for x in range(5000)]


def test_lines_arrive_while_the_input_still_runs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    call = in_background(lambda: waits.remote(tmp_path))
    seen: list[str] = []

    def before_was_seen() -> bool:
        seen.append(capsys.readouterr().out)
        return "waits | before\n" in seen

    wait_until(before_was_seen, timeout_s=20)
    assert not call.done()
    Gate(tmp_path).open()
    call.result(20)
    assert capsys.readouterr().out == "waits | after\n"


def test_a_function_called_from_a_container_prints_there_and_so_here(
    capsys: pytest.CaptureFixture[str],
) -> None:
    outer.remote("you")
    captured = capsys.readouterr()
    assert set(captured.out.splitlines()) == {"outer | outer here", "outer | greet | hello you"}
    assert captured.err == "outer | greet | careful you\n"


SECOND_CALLER = """
import pickle
import ray
ray.init(namespace="flexray", log_to_driver=False, logging_level="ERROR")
pickle.loads(bytes.fromhex({function!r})).for_each([str(x) for x in range(50)])
"""


def test_two_callers_at_once_each_get_their_own_lines(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = cloudpickle.dumps(greet).hex()
    other = cluster.start_driver(SECOND_CALLER.format(function=packed))
    greet.for_each([f"here {x}" for x in range(50)])
    lines, _ = other.communicate(timeout=60)
    assert sorted(lines.splitlines()) == sorted(f"greet | hello {x}" for x in range(50))
    assert sorted(capsys.readouterr().out.splitlines()) == sorted(
        f"greet | hello here {x}" for x in range(50)
    )
