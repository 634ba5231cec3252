"""What is printed in a container, and by whom: prints, subprocesses, forks, and what is nobody's."""

# ruff: noqa: T201  # This is about prints.

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import pytest

from flexray.runtime import farewell, journal, output
from flexray.runtime.journal import Journal
from flexray.runtime.output import Capture, current_dispatcher
from tests.unit.collecting import collect_at_any_moment


class Container:
    """A capture over standard streams of its own, which are files as Ray's are."""

    def __init__(self, folder: Path) -> None:
        self.journal: list[tuple[str, str]] = []
        """All that it was told."""
        self.capture = Capture()
        self._folder = folder

    def __enter__(self) -> Self:
        # Not in a fixture: pytest sets up its own streams between that and the test.
        self._saved = {number: os.dup(number) for number in (1, 2)}
        self._streams = sys.stdout, sys.stderr
        for number in (1, 2):
            file = os.open(self._folder / str(number), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(file, number)
            os.close(file)
        sys.stdout, sys.stderr = (os.fdopen(os.dup(number), "w") for number in (1, 2))
        self.capture.install(self)  # type: ignore[arg-type]  # It is the journal, too.
        return self

    def __exit__(self, *_: object) -> None:
        sys.stdout, sys.stderr = self._streams
        for number, copy in self._saved.items():
            os.dup2(copy, number)
            os.close(copy)

    def write(self, stream: str, text: str, _: int) -> None:
        self.journal.append((stream, text))

    def told(self, dispatcher_id: str) -> list[tuple[str, str]]:
        """(stream, text) for this dispatcher since the last call."""
        return [(stream, text) for stream, text, _ in self.capture.drain(dispatcher_id)]

    def written(self) -> str:
        """All that is in the file behind stdout."""
        return (self._folder / "1").read_text()


def shell(command: str) -> None:
    assert os.system(command) == 0


def test_what_a_subprocess_writes_comes_in_its_place_among_the_prints(tmp_path: Path) -> None:
    with Container(tmp_path) as container:
        capture = container.capture
        capture.begin("d")
        print("before")
        shell("echo from below; echo in trouble >&2")
        print("after")
        shell("printf 'no newline'")
        capture.end("d")
        lines = container.told("d")
        assert [text for stream, text in lines if stream == "stdout"] == [
            "before\n",
            "from below\n",
            "after\n",
            "no newline\n",
        ]
        assert [text for stream, text in lines if stream == "stderr"] == ["in trouble\n"]
        assert sorted(container.journal) == sorted(
            [
                *(("stdout", text) for text in ("before", "\n", "from below\n", "after", "\n")),
                *(("stdout", "no newline\n"), ("stderr", "in trouble\n")),
            ]
        )


def test_it_can_be_fetched_while_the_input_runs(tmp_path: Path) -> None:
    with Container(tmp_path) as container:
        capture = container.capture
        capture.begin("d")
        shell("printf 'one\\ntw'")
        capture.look()
        assert container.told("d") == [("stdout", "one\n")]
        shell("printf 'o\\n'")
        capture.look()
        assert container.told("d") == [("stdout", "two\n")]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # The threads of a container are many.
def test_a_fork_prints_as_its_parent_does(tmp_path: Path) -> None:
    with Container(tmp_path) as container:
        container.capture.begin("d")
        child = os.fork()
        if child == 0:
            print("from the fork")
            os._exit(0)
        os.waitpid(child, 0)
        container.capture.end("d")
        assert container.told("d") == [("stdout", "from the fork\n")]


def test_what_two_callers_could_have_written_is_nobodys_and_is_in_the_log_once(tmp_path: Path) -> None:
    with Container(tmp_path) as container:
        capture = container.capture
        capture.begin("a")
        shell("echo of a")
        capture.begin("b")
        shell("echo of either")
        print("of either, too")
        token = current_dispatcher.set("b")
        print("of b")
        current_dispatcher.reset(token)
        capture.end("b")
        shell("echo of a again")
        capture.end("a")
        shell("echo of nobody")
        capture.begin("c")
        capture.end("c")
        told = {name: "".join(text for _, text in container.told(name)) for name in "abc"}
        assert told == {"a": "of a\nof a again\n", "b": "of b\n", "c": ""}
        logged = "".join(text for _, text in container.journal)
        assert sorted(logged.splitlines()) == sorted(
            ["of a", "of either", "of either, too", "of b", "of a again", "of nobody"]
        )
        assert "of either, too\n" in container.written()


def test_what_loading_writes_belongs_to_the_first_input(tmp_path: Path) -> None:
    with Container(tmp_path) as container:
        shell("echo weights are read")
        print("loaded")
        container.capture.begin("d")
        container.capture.end("d")
        assert container.told("d") == [("stdout", "weights are read\n"), ("stdout", "loaded\n")]


def test_a_bar_that_writes_over_itself_is_its_last_state(tmp_path: Path) -> None:
    with Container(tmp_path) as container:
        container.capture.begin("d")
        shell(r"printf '10%%\r50%%\r'")
        container.capture.look()
        shell(r"printf '90%%\r100%%'")
        container.capture.end("d")
        assert container.told("d") == [("stdout", "100%\n")]


def test_of_very_much_the_newest_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Container(tmp_path) as container:
        monkeypatch.setattr(output, "KEPT_CHARACTERS", 100)
        container.capture.begin("d")
        shell("for i in 1 2 3 4 5 6 7 8 9; do echo line $i of twenty letters; done; echo ä")
        container.capture.end("d")
        text = "".join(text for _, text in container.told("d"))
        assert text == (
            "(150 bytes were lost here)\n"
            "line 7 of twenty letters\nline 8 of twenty letters\nline 9 of twenty letters\nä\n"
        )


def test_who_prints_says_whether_ray_has_it_too(tmp_path: Path) -> None:
    with Container(tmp_path) as container:
        container.capture.begin("d")
        print("printed")
        shell("echo written")
        container.capture.end("d")
        assert container.capture.drain("d") == [("stdout", "printed\n", False), ("stdout", "written\n", True)]


def test_an_unfinished_line_is_not_told_to_who_comes_next(tmp_path: Path) -> None:
    with Container(tmp_path) as container:
        for name in "ab":
            container.capture.begin(name)
        shell("printf 'of one of them'")
        for name in "ab":
            container.capture.end(name)
        shell("printf 'of a daemon'")
        sys.stdout.buffer.write(b"of the buffer")
        container.capture.begin("c")
        container.capture.end("c")
        assert [container.told(name) for name in "abc"] == [[], [], []]


def test_what_is_written_to_the_buffer_comes_with_the_input(tmp_path: Path) -> None:
    with Container(tmp_path) as container:
        container.capture.begin("d")
        sys.stdout.buffer.write(b"bytes\n")
        container.capture.end("d")
        assert container.told("d") == [("stdout", "bytes\n")]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # The threads of a container are many.
def test_lines_of_threads_and_forks_that_print_at_once_stay_whole(tmp_path: Path) -> None:
    with Container(tmp_path) as container:
        for name in "ab":  # So that what threads print is nobody's, and goes by the file.
            container.capture.begin(name)

        def talk(of: int) -> None:
            for number in range(200):
                print("thread", of, "says", number)

        threads = [threading.Thread(target=talk, args=(of,)) for of in range(4)]
        for thread in threads:
            thread.start()
        children = []
        for of in range(4, 6):
            children.append(os.fork())
            if not children[-1]:
                talk(of)
                os._exit(0)
        for thread in threads:
            thread.join()
        for child in children:
            os.waitpid(child, 0)
        for name in "ab":
            container.capture.end(name)
        logged = "".join(text for _, text in container.journal).splitlines()
        assert sorted(logged) == sorted(f"thread {of} says {n}" for of in range(6) for n in range(200))


def test_finalizers_that_print_and_log_hold_nothing_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Journal, "_send", lambda self, _: self._lines.clear())
    monkeypatch.setattr(journal, "GATHER_S", 0.0)

    class Loud:
        def __init__(self) -> None:
            self.itself = self  # Only the collector ends it, wherever that comes.

        def __del__(self) -> None:
            print("it is gone")
            logger.warning("so it is")

    def work(_: int, change: Callable[[], None]) -> None:
        for number in range(1000):
            change()
            Loud()
            capture.begin("d")
            print("input", number, end="" if number % 2 else "\n")
            logger.warning("input %s", number)
            kept.end_line()
            capture.end("d")
            capture.drain("d")

    with Container(tmp_path):
        capture, kept = Capture(), Journal("shop", "price", "shop/price#1")
        capture.install(kept)
        logger = logging.getLogger("of finalizers")
        logger.handlers = [logging.StreamHandler(sys.stderr)]
        collect_at_any_moment(work, threads=2)


def test_files_that_are_closed_or_cut_off_are_no_failure(tmp_path: Path) -> None:
    with Container(tmp_path) as container:
        container.capture.begin("d")
        shell("echo much more than what comes after it")
        container.capture.look()
        os.truncate(tmp_path / "1", 0)
        shell("echo again")
        container.capture.look()
        os.close(container.capture._files["stdout"]._file)
        print("still here")
        container.capture.end("d")
        assert [text for _, text in container.told("d")][1:] == ["again\n", "still here\n"]


def test_what_is_printed_in_c_does_not_wait_for_more(tmp_path: Path) -> None:
    program = """
import ctypes, os, sys
from flexray.runtime.output import Capture

file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
os.dup2(file, 1)
capture = Capture()
capture.install(None)
capture.begin("d")
ctypes.CDLL(None).printf(b"from C\\n")
capture.end("d")
assert capture.drain("d") == [("stdout", "from C\\n", True)], "it waits"
"""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-c", program, str(tmp_path / "out")]
    subprocess.run(command, env=environment, cwd=Path(__file__).parents[2], check=True)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # The threads of a container are many.
def test_a_fork_that_is_ended_ends_and_runs_no_exit_hook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(farewell.worker, "raise_sys_exit_with_custom_error_message", None)
    farewell.before_sigterm_ends(lambda: os._exit(7))
    child = os.fork()
    if child == 0:
        farewell.worker.raise_sys_exit_with_custom_error_message("told to end")
        time.sleep(60)
        os._exit(8)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM


def test_streams_that_are_no_files_are_left_alone(tmp_path: Path) -> None:
    with Container(tmp_path):
        reader, writer = os.pipe()
        os.dup2(writer, 1)
        os.close(writer)
        other = Capture()
        other.install(None)
        other.begin("d")
        print("caught")
        shell("echo past it")
        other.end("d")
        assert other.drain("d") == [("stdout", "caught\n", False)]
        assert os.read(reader, 100) == b"past it\n"
        os.close(reader)


def test_a_container_without_a_journal_gives_the_same_lines(tmp_path: Path) -> None:
    with Container(tmp_path):
        other = Capture()
        other.install(None)
        for _ in range(3):
            other.begin("d")
            shell("echo a line")
            other.end("d")
        assert len(other.drain("d")) == 3
