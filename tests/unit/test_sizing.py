from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexray.core.sizing import BATCH_BYTES, BATCH_MAX, BATCH_S, OVERDUE_FACTOR, SMALL_BYTES, BatchSizing


def sizing_for(mean_s: float) -> BatchSizing:
    sizing = BatchSizing()
    sizing.add(1, mean_s)
    return sizing


def test_before_anything_has_finished_inputs_travel_alone() -> None:
    sizing = BatchSizing()
    assert sizing.inputs(deque(range(100)), 0, 1) == 1
    assert sizing.times(1, 0.0) == (None, None, None)


@pytest.mark.parametrize(
    ("mean_s", "queued", "sent", "slots", "size"),
    [
        (0.001, 1000, 0, 1, 10),
        (0.000001, 100_000, 0, 1, BATCH_MAX),
        (0.00001, 1000, 0, 2, 250),
        (0.00001, 750, 250, 2, 250),
        (0.005, 1000, 0, 1, 2),
        (0.2, 1000, 0, 1, 1),
        (0.001, 3, 0, 1, 3),
        (0.002, 3, 0, 1, 2),
        (0.001, 3, 100, 1, 3),
    ],
)
def test_a_batch_is_ten_milliseconds_of_work_and_an_even_share_at_most(
    mean_s: float, queued: int, sent: int, slots: int, size: int
) -> None:
    assert sizing_for(mean_s).inputs(deque(range(queued)), sent, slots) == size


@given(
    mean_s=st.floats(1e-9, 100.0),
    queued=st.integers(1, 5000),
    sent=st.integers(0, 5000),
    slots=st.integers(0, 300),
)
def test_a_batch_is_never_empty_nor_more_than_is_queued(
    mean_s: float, queued: int, sent: int, slots: int
) -> None:
    assert 1 <= sizing_for(mean_s).inputs(deque(range(queued)), sent, slots) <= min(queued, BATCH_MAX)


@given(sizes=st.lists(st.integers(1, 2 * BATCH_BYTES), min_size=2, max_size=50))
def test_the_arguments_of_a_batch_stay_within_its_bytes_unless_one_alone_exceeds_them(
    sizes: list[int],
) -> None:
    sizing = sizing_for(1e-9)
    for input_id, size_bytes in enumerate(sizes):
        sizing.set_size(input_id, size_bytes)
    count = sizing.inputs(deque(range(len(sizes))), 0, 1)
    assert count == 1 or sum(max(size, SMALL_BYTES) for size in sizes[:count]) <= BATCH_BYTES


def test_sizes_are_forgotten_with_their_inputs() -> None:
    sizing = sizing_for(1e-9)
    sizing.set_size(1, BATCH_BYTES)
    sizing.set_size(2, 1)
    sizing.forget([1, 2, 3])
    assert not sizing._large


def test_a_batch_is_late_a_quarter_beyond_its_time_and_overdue_at_four_times_or_forty_milliseconds() -> None:
    assert sizing_for(1.0).times(3, 10.0) == (13.0, 13.75, 10.0 + OVERDUE_FACTOR * 3.0)
    assert sizing_for(0.001).times(1, 10.0) == (10.001, 10.011, 10.0 + OVERDUE_FACTOR * BATCH_S)


def test_the_mean_follows_what_batches_take_now() -> None:
    sizing = sizing_for(1.0)
    for _ in range(30):
        sizing.add(1, 0.1)
    assert sizing.mean_s == pytest.approx(0.1, rel=0.05)
