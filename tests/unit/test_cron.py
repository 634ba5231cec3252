from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter
from hypothesis import given
from hypothesis import strategies as st

from flexray.core.cron import next_tick
from flexray.errors import InvalidError
from flexray.schedule import Cron, Period

NEW_YORK = "America/New_York"
ZONES = ["UTC", NEW_YORK, "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kolkata"]


def ticks(cron: Cron, start: str, count: int) -> list[str]:
    """So many from that wall clock on, as the wall clock shows them with its offset."""
    zone = ZoneInfo(cron.timezone)
    at = datetime.fromisoformat(start).replace(tzinfo=zone).timestamp()
    found = []
    for _ in range(count):
        tick = next_tick(cron, at)
        assert tick is not None
        at = tick
        found.append(datetime.fromtimestamp(at, zone).strftime("%m-%d %H:%M %z"))
    return found


def test_a_clock_that_is_put_forward_moves_what_it_skips_to_the_moment_of_the_change() -> None:
    daily = Cron("30 2 * * *", timezone=NEW_YORK)
    assert ticks(daily, "2026-03-07T12:00", 2) == ["03-08 03:00 -0400", "03-09 02:30 -0400"]
    assert ticks(Cron("0 2,3 * * *", timezone=NEW_YORK), "2026-03-07T12:00", 2) == [
        "03-08 03:00 -0400",
        "03-09 02:00 -0400",
    ]


def test_a_clock_that_is_put_back_repeats_only_what_happens_every_hour() -> None:
    daily = Cron("30 1 * * *", timezone=NEW_YORK)
    assert ticks(daily, "2026-10-31T12:00", 2) == ["11-01 01:30 -0400", "11-02 01:30 -0500"]
    assert ticks(Cron("*/30 * * * *", timezone=NEW_YORK), "2026-11-01T00:10", 6) == [
        "11-01 00:30 -0400",
        "11-01 01:00 -0400",
        "11-01 01:30 -0400",
        "11-01 01:00 -0500",
        "11-01 01:30 -0500",
        "11-01 02:00 -0500",
    ]


def test_every_hour_goes_on_over_a_clock_that_is_put_forward() -> None:
    assert ticks(Cron("15 * * * *", timezone=NEW_YORK), "2026-03-08T00:30", 3) == [
        "03-08 01:15 -0500",
        "03-08 03:15 -0400",
        "03-08 04:15 -0400",
    ]


def test_days_of_both_kinds_are_alternatives_and_sunday_has_two_numbers() -> None:
    assert ticks(Cron("0 0 13 * 5"), "2026-02-01T00:00", 3) == [
        "02-06 00:00 +0000",
        "02-13 00:00 +0000",
        "02-20 00:00 +0000",
    ]
    assert Cron("0 0 * * 7").weekdays == Cron("0 0 * * 0").weekdays == Cron("0 0 * * sun").weekdays == (0,)


def test_a_leap_day_comes_and_a_day_that_never_comes_is_none() -> None:
    assert ticks(Cron("0 0 29 2 *"), "2025-03-01T00:00", 1) == ["02-29 00:00 +0000"]
    assert next_tick(Cron("0 0 30 2 *"), 0.0) is None


FIELD = st.sampled_from(["*", "*/7", "5", "10-20", "3,17,20", "*/15"])
HOUR = st.sampled_from(["*", "2", "1-3", "0,12", "*/5", "23"])
DAY = st.sampled_from(["*", "1", "8", "15-20"])
MONTH = st.sampled_from(["*", "3", "10,11", "*/4"])
WEEKDAY = st.sampled_from(["*", "0", "1-5", "sat"])
MOMENTS = st.datetimes(datetime(2024, 1, 1), datetime(2027, 12, 31))  # noqa: DTZ001


def is_repeated(moment: datetime, zone: ZoneInfo) -> bool:
    """Whether the clock shows this a second time."""
    wall = moment.astimezone(zone)
    return wall.fold == 1


@given(FIELD, HOUR, DAY, MONTH, WEEKDAY, st.sampled_from(ZONES), MOMENTS)
def test_ticks_are_those_of_croniter_but_for_hours_that_come_twice(
    minute: str, hour: str, day: str, month: str, weekday: str, zone_name: str, start: datetime
) -> None:
    expression, zone = f"{minute} {hour} {day} {month} {weekday}", ZoneInfo(zone_name)
    cron, at = Cron(expression, timezone=zone_name), start.replace(tzinfo=zone)
    theirs = croniter(expression, at)
    after = at.timestamp()
    for _ in range(5):
        ours = next_tick(cron, after)
        assert ours is not None
        expected = theirs.get_next(datetime)
        while cron.hours is not None and is_repeated(expected, zone):
            expected = theirs.get_next(datetime)
        found = datetime.fromtimestamp(ours, UTC)
        near = abs(found - expected.astimezone(UTC))
        assert near == timedelta(0) or _is_near_a_change(found, zone), (expression, found, expected)
        after = ours


def _is_near_a_change(moment: datetime, zone: ZoneInfo) -> bool:
    """Within a day of a change of the clock: what happens there is said above, one by one."""
    offsets = {(moment + timedelta(hours=h)).astimezone(zone).utcoffset() for h in range(-30, 31, 6)}
    return len(offsets) > 1


@given(FIELD, HOUR, st.sampled_from(ZONES), MOMENTS)
def test_ticks_rise_fit_the_wall_clock_and_leave_none_out(
    minute: str, hour: str, zone_name: str, start: datetime
) -> None:
    zone = ZoneInfo(zone_name)
    cron = Cron(f"{minute} {hour} * * *", timezone=zone_name)
    at = start.replace(tzinfo=zone).timestamp()
    tick = next_tick(cron, at)
    assert tick is not None
    assert at < tick <= at + 25 * 3600
    assert next_tick(cron, tick - 1) == tick
    assert next_tick(cron, (at + tick) / 2) == tick
    wall = datetime.fromtimestamp(tick, zone)
    skipped = (datetime.fromtimestamp(tick - 60, zone).utcoffset() or 0) != wall.utcoffset()
    fits = (cron.hours is None or wall.hour in cron.hours) and (
        cron.minutes is None or wall.minute in cron.minutes
    )
    assert fits or skipped


def test_a_period_comes_so_long_after_the_time_before() -> None:
    assert next_tick(Period(days=1, hours=4), 100.0) == 100.0 + 28 * 3600
    assert repr(Period(days=1, hours=4)) == "Period(days=1, hours=4)"
    assert Period(minutes=1) == Period(seconds=60)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Cron("0 6 * *"), "has not five fields"),
        (lambda: Cron("0 6 * * * *"), "has not five fields"),
        (lambda: Cron("61 6 * * *"), "61"),
        (lambda: Cron("0 6 * * mun"), "mun"),
        (lambda: Cron("0 6 L * *"), "not understood"),
        (lambda: Cron("0 6 * * 1#2"), "not understood"),
        (lambda: Cron(5), "has not five fields"),  # type: ignore[arg-type]
        (lambda: Cron("0 6 * * *", timezone="New York"), "timezone is 'New York'"),
        (lambda: Cron("0 6 * * *", timezone=3), "timezone is 3"),  # type: ignore[arg-type]
        (Period, "is 0 seconds"),
        (lambda: Period(days=400), "366 days"),
        (lambda: Period(hours=-1), "hours is -1"),
        (lambda: Period(hours="2"), "hours is '2'"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_schedule_is_refused_with_the_value(make: object, words: str) -> None:
    with pytest.raises(InvalidError, match=words) as caught:
        make()  # type: ignore[operator]
    assert caught.value.hint
