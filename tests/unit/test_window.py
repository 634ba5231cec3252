from __future__ import annotations

from flexray.core.window import Window

WINDOW = Window(inputs=100, bytes=1000)


def test_what_is_stored_is_read_when_half_of_the_window_is_gone_and_fills_it() -> None:
    assert WINDOW.to_read(50, 0, stored=500, assigned=0) == 0
    assert WINDOW.to_read(49, 0, stored=500, assigned=0) == 51
    assert WINDOW.to_read(49, 0, stored=3, assigned=0) == 3
    assert WINDOW.to_read(0, 0, stored=0, assigned=0) == 0


def test_the_window_is_four_times_what_runs() -> None:
    assert WINDOW.to_read(60, 0, stored=500, assigned=25) == 0
    assert WINDOW.to_read(60, 0, stored=500, assigned=50) == 140


def test_arguments_that_fill_the_memory_hold_reading_up() -> None:
    assert WINDOW.to_read(2, 1000, stored=500, assigned=1) == 0
    assert WINDOW.to_read(1, 999, stored=500, assigned=0) == 99


def test_however_large_arguments_are_free_slots_get_some() -> None:
    assert WINDOW.to_read(2, 1000, stored=500, assigned=2) == 98
    assert WINDOW.to_read(0, 0, stored=500, assigned=0) == 100


def test_new_inputs_stay_in_memory_where_they_fit_by_count_and_size() -> None:
    assert WINDOW.has_room(90, 900, more=10, more_size=100)
    assert not WINDOW.has_room(91, 900, more=10, more_size=100)
    assert not WINDOW.has_room(90, 900, more=10, more_size=101)
