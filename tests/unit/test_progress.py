# ruff: noqa: T201  # These tests print, as users do.

from __future__ import annotations

import io
import logging
import re
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from flexray import progress
from flexray.output import BOTTOM, is_terminal, relay
from flexray.progress import (
    Counts,
    MapProgress,
    describe,
    describe_ending,
    draw,
    format_seconds,
    show_by_default,
    shown_by_default,
)
from tests.waiting import wait_until


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True

    def lines(self) -> list[str]:
        """What the user sees, as far as it is text."""
        lines, row, column = [""], 0, 0
        for token in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\n|\r|[^\x1b\n\r]+", self.getvalue()):
            if token == "\n":
                row, column = row + 1, 0
                lines += [""] * (row + 1 - len(lines))
            elif token == "\r":
                column = 0
            elif token == "\x1b[2K":
                lines[row] = ""
            elif token == "\x1b[1A":
                row -= 1
            elif not token.startswith("\x1b"):
                lines[row] = lines[row][:column].ljust(column) + token + lines[row][column + len(token) :]
                column += len(token)
        while lines and not lines[-1]:
            lines.pop()
        return lines


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Terminal]]:
    """Puts both streams on one terminal of 100 columns. Called in the test, for pytest has its own before."""
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"}.items():
        monkeypatch.setenv(name, value)
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)

    def attach() -> Terminal:
        terminal = Terminal()
        monkeypatch.setattr(sys, "stdout", terminal)
        monkeypatch.setattr(sys, "stderr", terminal)
        return terminal

    yield attach
    BOTTOM.close()


@pytest.fixture(autouse=True)
def _default_as_it_was() -> Iterator[None]:
    yield
    show_by_default(False)


COUNTS = Counts(done=1204, running=8, waiting=88, ready=2, starting=2)
NOTICE = "waiting for {GPU: 1} since 12 s"


def test_the_counts_are_told_in_words() -> None:
    assert describe(COUNTS) == "1,204 done, 8 running, 88 waiting, 4 containers (2 starting)"
    assert describe(Counts(ready=1)) == "0 done, 0 running, 0 waiting, 1 container"
    assert describe(Counts(notice=NOTICE)).endswith(f"0 containers; {NOTICE}")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.04, "0.0 s"), (0.44, "0.4 s"), (12.9, "12 s"), (60, "1:00"), (185, "3:05"), (3723, "1:02:03")],
)
def test_seconds_are_told_as_a_person_reads_them(seconds: float, said: str) -> None:
    assert format_seconds(seconds) == said


def test_the_line_that_stays_says_how_it_ended() -> None:
    assert describe_ending("resize", Counts(done=2000), 12, failed=False) == "resize: 2,000 done in 12 s"
    assert describe_ending("resize", Counts(done=7), 1, failed=True) == "resize: 7 done, stopped after 1 s"


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_a_bar_with_room_fits_its_terminal(width: int) -> None:
    (line,) = draw("resize", 2000, COUNTS, 12, width)
    assert line.cell_len < width or width < 75
    assert "1,204 done" in line.plain


def test_a_bar_is_filled_as_far_as_the_map_is_done() -> None:
    (line,) = draw("f", 100, Counts(done=50), 1, 200)
    assert (line.plain.count("━"), line.plain.count("─")) == (15, 15)
    (line,) = draw("f", 0, Counts(), 1, 200)
    assert line.plain.count("━") == 30
    (line,) = draw("f", 10, Counts(done=11), 1, 200)
    assert line.plain.count("━") == 30


def test_without_a_total_there_is_no_bar() -> None:
    (line,) = draw("f", None, Counts(done=50), 1, 200)
    assert "─" not in line.plain


def test_a_notice_stands_beside_the_bar_or_under_it() -> None:
    counts = Counts(done=3, notice=NOTICE)
    (line,) = draw("f", 10, counts, 1, 200)
    assert line.plain.endswith(NOTICE)
    bar, under = draw("f", 10, counts, 1, 80)
    assert NOTICE not in bar.plain
    assert under.plain == f"  {NOTICE}"


def test_progress_that_is_not_asked_for_needs_the_switch_and_a_terminal(
    terminal: Callable[[], Terminal], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal()
    assert not shown_by_default()
    show_by_default(True)
    assert shown_by_default()
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert not shown_by_default()


def test_off_a_terminal_a_line_is_printed_now_and_then_and_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = io.StringIO()
    monkeypatch.setattr(sys, "stderr", plain)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_PLAIN_LINES", 0.01)
    with MapProgress("resize", 10) as shown:
        shown.update(done=3, running=2, notice=NOTICE)
        wait_until(
            lambda: f"resize: 3 done, 2 running, 0 waiting, 0 containers; {NOTICE}" in plain.getvalue()
        )
        shown.update(done=10)
    assert plain.getvalue().splitlines()[-1].startswith("resize: 10 done in ")
    shown.close()
    assert plain.getvalue().count("10 done in") == 1


def test_leaving_a_loop_early_is_no_failure_and_an_error_is(capsys: pytest.CaptureFixture[str]) -> None:
    def outputs() -> Iterator[int]:
        with MapProgress("early"):
            yield 1

    loop = outputs()
    next(loop)
    loop.close()  # type: ignore[attr-defined]  # A generator.
    with pytest.raises(ZeroDivisionError), MapProgress("failing"):
        _ = 1 / 0
    early, failing = capsys.readouterr().err.splitlines()
    assert early.startswith("early: 0 done in")
    assert failing.startswith("failing: 0 done, stopped after")


def test_on_a_terminal_the_bar_follows_the_counts_and_leaves_one_line(
    terminal: Callable[[], Terminal],
) -> None:
    screen = terminal()
    with MapProgress("resize", 10) as shown:
        shown.update(done=3, running=2)
        wait_until(lambda: "3 done, 2 running" in screen.getvalue())
        shown.update(done=10)
    (ending,) = screen.lines()
    assert ending.startswith("✓ resize: 10 done in ")
    hide, show = "\x1b[?25l", "\x1b[?25h"
    assert screen.getvalue().rindex(show) > screen.getvalue().rindex(hide)


def test_two_maps_at_once_have_two_bars(terminal: Callable[[], Terminal]) -> None:
    screen = terminal()
    with MapProgress("one", 10), MapProgress("two"):
        BOTTOM.redraw()
        assert [line[:3] for line in screen.lines()] == ["one", "two"]
    assert screen.lines() == ["✓ two: 0 done in 0.0 s", "✓ one: 0 done in 0.0 s"]


def test_what_the_user_prints_goes_above_the_bar_as_it_is(terminal: Callable[[], Terminal]) -> None:
    screen = terminal()
    long = "\x1b[31mred\x1b[0m\t[bold]" + "x" * 300
    with MapProgress("resize", 10):
        print(long)
        print("begun, ", end="", flush=True)
        assert "begun, \n" not in screen.getvalue()
        print("whole")
    assert f"{long}\n" in screen.getvalue()
    assert "begun, whole\n" in screen.getvalue()


def test_a_line_that_is_begun_when_the_bar_goes_is_not_lost(terminal: Callable[[], Terminal]) -> None:
    screen = terminal()
    with MapProgress("resize", 10):
        print("begun, ", end="")
    print("whole")
    assert screen.getvalue().endswith("begun, whole\n")


def test_a_log_handler_made_before_the_bar_goes_above_it(terminal: Callable[[], Terminal]) -> None:
    screen = terminal()
    handler = logging.StreamHandler(sys.stderr)
    with MapProgress("resize", 10):
        handler.emit(logging.makeLogRecord({"msg": "logged"}))
        assert [line[:6] for line in screen.lines()] == ["logged", "resize"]


def test_the_streams_are_the_programs_own_again_after_the_last_bar(terminal: Callable[[], Terminal]) -> None:
    screen = terminal()
    with MapProgress("resize", 10):
        assert sys.stdout is screen
        assert "write" in vars(screen)
    assert "write" not in vars(screen)


def test_an_stdout_that_is_no_terminal_stays_out_of_the_bar(
    terminal: Callable[[], Terminal], monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = terminal()
    file = io.StringIO()
    monkeypatch.setattr(sys, "stdout", file)
    with MapProgress("resize", 10):
        print("to the file")
    assert file.getvalue() == "to the file\n"
    assert "to the file" not in screen.getvalue()


def test_bars_of_many_threads_come_and_go(terminal: Callable[[], Terminal]) -> None:
    screen = terminal()

    def run_map(name: str) -> None:
        with MapProgress(name, 20) as shown:
            for done in range(20):
                shown.update(done=done)
                print(f"{name} printed {done}")

    threads = [threading.Thread(target=run_map, args=(f"map{index}",)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = screen.lines()
    printed = sorted(line for line in lines if "printed" in line)
    assert printed == sorted(f"map{index} printed {done}" for index in range(8) for done in range(20))
    assert len(lines) == 160 + 8
    assert "write" not in vars(screen)


def test_a_containers_lines_carry_the_functions_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    relay("resize", "one\ntwo\n", "stdout")
    relay("resize", "three", "stderr")
    relay("resize", "", "stdout")
    captured = capsys.readouterr()
    assert captured.out == "resize | one\nresize | two\n"
    assert captured.err == "resize | three\n"


def test_a_containers_lines_do_not_join_a_line_that_the_user_has_begun(
    terminal: Callable[[], Terminal],
) -> None:
    screen = terminal()
    with MapProgress("resize", 10):
        print("begun, ", end="")
        relay("resize", "one\n", "stdout")
        print("whole")
        assert screen.lines()[:2] == ["resize | one", "begun, whole"]
    assert "\x1b[36mresize\x1b[0m | one\n" in screen.getvalue()


def test_a_closed_stream_does_not_fail_the_relay(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    stream.close()
    monkeypatch.setattr(sys, "stdout", stream)
    relay("resize", "one\n", "stdout")
    monkeypatch.setattr(sys, "stdout", None)
    relay("resize", "one\n", "stdout")
    assert not is_terminal(stream)
    assert not is_terminal(None)
