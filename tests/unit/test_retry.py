from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexray.config import Retries
from flexray.core.retry import LOSSES_MAX, retry_delay_s, runs_again_after_loss


def test_delays_grow_by_the_coefficient_and_end_with_the_retries() -> None:
    policy = Retries(max_retries=3, initial_delay=1.0, backoff_coefficient=2.0)
    assert [retry_delay_s(policy, attempt) for attempt in (1, 2, 3, 4)] == [1.0, 2.0, 4.0, None]


def test_without_a_policy_nothing_is_retried() -> None:
    assert retry_delay_s(None, 1) is None


@given(
    retries=st.integers(0, 10),
    attempt=st.integers(1, 20),
    first_s=st.floats(0.0, 60.0),
    coefficient=st.floats(1.0, 10.0),
)
def test_a_delay_is_never_above_the_maximum(
    retries: int, attempt: int, first_s: float, coefficient: float
) -> None:
    policy = Retries(max_retries=retries, initial_delay=first_s, backoff_coefficient=coefficient)
    delay_s = retry_delay_s(policy, attempt)
    assert (delay_s is None) == (attempt > retries)
    assert delay_s is None or 0.0 <= delay_s <= policy.max_delay


@pytest.mark.parametrize(
    ("at_most_once", "losses_alone", "again"),
    [(False, 0, True), (False, LOSSES_MAX - 1, True), (False, LOSSES_MAX, False), (True, 0, False)],
)
def test_a_lost_input_runs_again_until_it_is_plainly_the_cause(
    at_most_once: bool, losses_alone: int, again: bool
) -> None:
    assert runs_again_after_loss(at_most_once=at_most_once, losses_alone=losses_alone) is again
