from __future__ import annotations

import threading
from typing import Any

import pytest

from flexray.output import LINE_MAX
from flexray.runtime import journal
from flexray.runtime.journal import Journal


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Journal:
    """A journal that sends nothing."""
    monkeypatch.setattr(threading.Thread, "start", lambda _: None)
    return Journal("shop", "price", "shop/price#1")


def texts(of: Journal) -> list[tuple[str, str]]:
    return [(line.stream, line.text) for line in of._lines]


def test_whole_lines_are_taken_by_stream(written: Journal) -> None:
    written.write("stdout", "one")
    written.write("stderr", "bad\n")
    written.write("stdout", " two\nthree\nfo")
    assert texts(written) == [("stderr", "bad"), ("stdout", "one two\nthree")]


def test_of_a_progress_bar_only_the_last_is_kept_and_it_costs_nothing(written: Journal) -> None:
    for number in range(100_000):
        written.write("stderr", f"{number} of many done\r")
    assert texts(written) == []
    assert sum(map(len, written._partial.values())) < 100
    written.write("stderr", "done\n")
    assert len(texts(written)) == 1


def test_a_line_without_an_end_is_cut(written: Journal) -> None:
    for _ in range(30_000):
        written.write("stdout", ".")
    assert all(len(text) <= LINE_MAX + 1 for _, text in texts(written))
    assert len(texts(written)) == 3


def test_what_no_text_may_have_is_replaced(written: Journal) -> None:
    written.write("stdout", "caf\udce9\n")
    assert texts(written) == [("stdout", "caf?")]


def test_too_much_that_cannot_be_sent_loses_the_oldest(
    written: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "KEPT_CHARACTERS", 100)
    for number in range(50):
        written.write("stdout", f"{number:09}\n")
    assert texts(written)[-1] == ("stdout", f"{49:09}")
    assert written._lost + len(texts(written)) == 50
    sent: list[Any] = []

    class Log:
        class add:  # noqa: N801  # As Ray's methods look.
            @staticmethod
            def remote(lines: Any) -> Any:
                sent.extend(lines)

    monkeypatch.setattr(journal, "find_logs", Log)
    monkeypatch.setattr(journal.ray, "get", lambda *_, **__: None)
    written._send(1.0)
    assert sent[0].text == f"({50 - (len(sent) - 1)} prints were lost here)"


def test_lines_that_cannot_be_kept_are_told_as_lost_and_the_next_are_sent(
    written: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []

    class Log:
        class add:  # noqa: N801  # As Ray's methods look.
            @staticmethod
            def remote(lines: Any) -> Any:
                sent.extend(lines)

    monkeypatch.setattr(journal, "find_logs", Log)
    monkeypatch.setattr(journal.ray, "get", lambda *_, **__: None)
    written.write("stdout", "one\ntwo\n")
    written._drop()
    written._send(1.0)
    assert [line.text for line in sent] == ["(1 prints were lost here)"]
    written.write("stdout", "three\n")
    written._send(1.0)
    assert sent[-1].text == "three"
