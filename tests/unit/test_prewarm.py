from __future__ import annotations

from flexray.core.prewarm import NextTick


def test_a_start_begins_a_cold_start_and_a_little_before_the_tick() -> None:
    tick = NextTick(at=100.0)
    assert tick.containers(1, slowest_s=10.0, now=88.4) == 0
    assert tick.containers(1, slowest_s=10.0, now=88.6) == 1


def test_containers_are_kept_until_the_ticks_inputs_had_time_to_arrive() -> None:
    tick = NextTick(at=100.0)
    assert tick.containers(1, slowest_s=10.0, now=104.9) == 1
    assert tick.containers(1, slowest_s=10.0, now=105.1) == 0


def test_slots_are_shared_by_the_inputs_of_a_tick() -> None:
    assert NextTick(at=100.0, inputs=9).containers(4, slowest_s=10.0, now=99.0) == 3


def test_a_far_tick_keeps_nothing() -> None:
    assert NextTick(at=100.0).is_beyond(60.0, now=30.0)
    assert not NextTick(at=100.0).is_beyond(60.0, now=50.0)
