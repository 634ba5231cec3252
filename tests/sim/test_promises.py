"""The promises that take a world of their own."""

from __future__ import annotations

import pytest

from tests.sim.promises import PROMISES


@pytest.mark.parametrize("promise", PROMISES)
def test_this_promise_is_kept(promise: str) -> None:
    PROMISES[promise]()
