from __future__ import annotations

from pathlib import Path

import pytest

from flexray.runtime import logstore
from flexray.runtime.logstore import LogStore, Printed, Wanted


def printed(app: str, text: str, *, at: float = 1.0, function: str = "f", number: int = 1) -> Printed:
    return Printed(app, function, f"{app}/{function}#{number}", at, "stdout", text)


def texts(found: list[tuple[int, Printed]]) -> list[str]:
    return [line.text for _, line in found]


def test_lines_are_found_by_app_function_container_and_time(tmp_path: Path) -> None:
    with LogStore(tmp_path / "logs.sqlite") as store:
        store.add([printed("a", "one"), printed("b", "other"), printed("a", "two", at=2.0, number=2)])
        store.add([printed("a", "three", at=3.0, function="g")])
        assert texts(store.newest(Wanted("a"), 10)) == ["one", "two", "three"]
        assert texts(store.newest(Wanted("a"), 2)) == ["two", "three"]
        assert texts(store.newest(Wanted("a", function="f"), 10)) == ["one", "two"]
        assert texts(store.newest(Wanted("a", container="a/f#2"), 10)) == ["two"]
        assert texts(store.newest(Wanted("a", since=2.0), 10)) == ["two", "three"]
        first = store.newest(Wanted("a"), 10)[0][0]
        assert texts(store.after(Wanted("a"), first, 1)) == ["two"]
        assert store.after(Wanted("a"), store.newest(Wanted("a"), 1)[0][0], 10) == []
        assert store.apps() == ["a", "b"]


def test_lines_outlive_the_owner_and_old_ones_are_dropped(tmp_path: Path) -> None:
    with LogStore(tmp_path / "logs.sqlite") as store:
        store.add([printed("a", "old", at=1.0), printed("a", "new", at=9.0)])
    with LogStore(tmp_path / "logs.sqlite") as store:
        store.drop_before(5.0)
        assert texts(store.newest(Wanted("a"), 10)) == ["new"]


def test_of_each_app_the_newest_are_kept_up_to_a_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logstore, "KEPT_CHARACTERS", 100)
    with LogStore(tmp_path / "logs.sqlite") as store:
        store.add([printed("b", "y" * 90)])
        for number in range(30):
            store.add([printed("a", f"{number:010}")])
            assert 1 <= len(store.newest(Wanted("a"), 99)) <= 10
        kept = texts(store.newest(Wanted("a"), 99))
        assert kept == [f"{number:010}" for number in range(30 - len(kept), 30)]
        assert len(kept) >= 7
        assert len(store.newest(Wanted("b"), 99)) == 1
        number = store.newest(Wanted("a"), 1)[0][0]
    with LogStore(tmp_path / "logs.sqlite") as store:  # Its sizes are known again, and numbers rise.
        store.add([printed("a", "x" * 60)])
        assert len(store.newest(Wanted("a"), 99)) < len(kept) + 1
        assert store.newest(Wanted("a"), 1)[0][0] > number
