"""What is printed in a container, and by whom: prints, subprocesses, forks, and what is nobody's."""

# ruff: noqa: T201  # This is about prints.

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Self

import pytest

from flexray.runtime import output
from flexray.runtime.output import Capture, current_dispatcher


class Container:
    """A capture over standard streams of its own, which are files as Ray's are."""

    def __init__(self, folder: Path) -> None:
        self.journal: list[tuple[str, str]] = []
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
        self.capture.install(lambda stream, text: self.journal.append((stream, text)))
        return self

    def __exit__(self, *_: object) -> None:
        sys.stdout, sys.stderr = self._streams
        for number, copy in self._saved.items():
            os.dup2(copy, number)
            os.close(copy)

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
        lines = capture.drain("d")
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
        assert capture.drain("d") == [("stdout", "one\n")]
        shell("printf 'o\\n'")
        capture.look()
        assert capture.drain("d") == [("stdout", "two\n")]


def test_a_fork_prints_as_its_parent_does(tmp_path: Path) -> None:
    with Container(tmp_path) as container:
        container.capture.begin("d")
        child = os.fork()
        if child == 0:
            print("from the fork")
            os._exit(0)
        os.waitpid(child, 0)
        container.capture.end("d")
        assert container.capture.drain("d") == [("stdout", "from the fork\n")]


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
        told = {name: "".join(text for _, text in capture.drain(name)) for name in "abc"}
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
        assert container.capture.drain("d") == [("stdout", "weights are read\n"), ("stdout", "loaded\n")]


def test_a_bar_that_writes_over_itself_is_its_last_state(tmp_path: Path) -> None:
    with Container(tmp_path) as container:
        container.capture.begin("d")
        shell(r"printf '10%%\r50%%\r'")
        container.capture.look()
        shell(r"printf '90%%\r100%%'")
        container.capture.end("d")
        assert container.capture.drain("d") == [("stdout", "100%\n")]


def test_of_very_much_the_newest_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Container(tmp_path) as container:
        monkeypatch.setattr(output, "KEPT_CHARACTERS", 100)
        container.capture.begin("d")
        shell("for i in 1 2 3 4 5 6 7 8 9; do echo line $i of twenty letters; done; echo ä")
        container.capture.end("d")
        text = "".join(text for _, text in container.capture.drain("d"))
        assert text.endswith("line 9 of twenty letters\nä\n")
        assert len(text.encode()) <= 100


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
        assert other.drain("d") == [("stdout", "caught\n")]
        assert os.read(reader, 100) == b"past it\n"
        os.close(reader)
