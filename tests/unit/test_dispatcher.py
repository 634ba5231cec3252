from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from flexray.runtime.dispatcher import Dispatcher


@pytest.fixture
def dispatcher() -> Iterator[Dispatcher]:
    controller: Any = SimpleNamespace()
    dispatcher = Dispatcher("p", lambda: controller, lambda: True)
    yield dispatcher
    dispatcher._is_connected = lambda: False
    dispatcher.close()


def test_its_place_is_not_to_be_had_while_it_acts(dispatcher: Dispatcher) -> None:
    acts, goes_on = threading.Event(), threading.Event()

    def act() -> None:
        acts.set()
        goes_on.wait(10)

    dispatcher.call_soon(act)
    assert acts.wait(10)
    with dispatcher.borrowed() as is_mine:
        assert not is_mine
    with dispatcher.borrowed(0.05) as is_mine:
        assert not is_mine
    threading.Timer(0.05, goes_on.set).start()
    with dispatcher.borrowed(10) as is_mine:
        assert is_mine


def test_it_waits_while_another_acts_in_its_place(dispatcher: Dispatcher) -> None:
    acted = threading.Event()
    with dispatcher.borrowed() as is_mine:
        assert is_mine
        dispatcher.call_soon(acted.set)
        assert not acted.wait(0.1)
        with dispatcher.borrowed() as another:
            assert not another
    assert acted.wait(10)


def test_its_place_is_given_back_whatever_happens(dispatcher: Dispatcher) -> None:
    with pytest.raises(ValueError, match="bad"), dispatcher.borrowed():
        raise ValueError("bad")
    with dispatcher.borrowed() as is_mine:
        assert is_mine
