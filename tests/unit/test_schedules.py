from __future__ import annotations

from flexray.core.schedules import LATE_S, Due, Schedules
from flexray.schedule import Cron, Period


def test_ticks_come_in_order_each_once() -> None:
    schedules = Schedules()
    schedules.set("a/f", Period(seconds=10), 100.0)
    schedules.set("a/g", Cron("* * * * *"), 100.0)
    assert schedules.due(109.9) == []
    assert schedules.due(125.0) == [Due("a/f", 110.0), Due("a/f", 120.0), Due("a/g", 120.0)]
    assert schedules.due(125.0) == []
    assert schedules.next_at("a/f") == 130.0


def test_a_tick_that_was_due_too_long_ago_is_missed_and_told_once() -> None:
    schedules = Schedules()
    schedules.set("a/f", Cron("* * * * *"), 0.0)
    assert schedules.due(3600.0 + 15) == [Due("a/f", 60.0, missed=True), Due("a/f", 3600.0)]
    schedules.set("a/f", Period(hours=1), 0.0)
    assert schedules.due(3600.0 + LATE_S + 1) == [Due("a/f", 3600.0, missed=True)]


def test_what_is_removed_or_set_again_is_due_by_its_newest_schedule_alone() -> None:
    schedules = Schedules()
    schedules.set("a/f", Period(seconds=10), 0.0)
    schedules.set("a/f", Period(seconds=20), 0.0)
    schedules.set("a/g", Period(seconds=5), 0.0)
    schedules.remove("a/g")
    schedules.remove("a/nothing")
    assert schedules.due(20.0) == [Due("a/f", 20.0)]
    assert len(schedules) == 1


def test_a_schedule_without_another_tick_is_none() -> None:
    schedules = Schedules()
    schedules.set("a/f", Cron("0 0 30 2 *"), 0.0)
    assert (len(schedules), schedules.next_at("a/f")) == (0, None)
