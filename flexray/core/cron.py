"""When a schedule is due next.

One rule: every tick is one moment, named by the wall clock of the schedule's zone. A clock that is put
forward moves what it skips to the moment of the change; one that is put back repeats what happens every hour.

The same as Vixie cron does, see its manual page; croniter fires twice where a clock is put back.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from flexray.schedule import Allowed, Cron, Period, Schedule

HORIZON_DAYS = 366 * 8 + 1
"""Every date that there is comes within eight years: there is a 29th of February."""
MINUTE = timedelta(minutes=1)
SHIFT = timedelta(hours=3)
"""No clock is put forward or back by more."""


def next_tick(schedule: Schedule, after: float) -> float | None:
    """The first tick later than that time, both in seconds since the epoch of Unix; None: there is none."""
    if isinstance(schedule, Period):
        return after + schedule.seconds
    moment = datetime.fromtimestamp(after, UTC)
    ticks = _every_hour(schedule, moment) if schedule.hours is None else _at_hours(schedule, moment)
    found = next((tick for tick in ticks if tick > moment), None)
    return None if found is None else found.timestamp()


def _every_hour(cron: Cron, after: datetime) -> Iterator[datetime]:
    """Real minutes, one after the other, whose wall clock fits: each of two equal hours has its own."""
    zone = ZoneInfo(cron.timezone)
    moment = after.replace(second=0, microsecond=0)
    last = after + timedelta(days=HORIZON_DAYS)
    while moment < last:
        wall = moment.astimezone(zone)
        if not _is_day(cron, wall.date()):
            hours_left = 23 - wall.hour
            moment += timedelta(hours=max(0, hours_left - 3), minutes=60 - wall.minute)
        elif (ahead := _ahead(cron.minutes, wall.minute)) is None:
            moment += timedelta(minutes=60 - wall.minute)
        elif ahead:
            moment += timedelta(minutes=ahead)
        else:
            yield moment
            moment += MINUTE


def _ahead(minutes: Allowed, minute: int) -> int | None:
    """Minutes to the next allowed one of the same hour."""
    if minutes is None:
        return 0
    at = bisect_left(minutes, minute)
    return minutes[at] - minute if at < len(minutes) else None


def _at_hours(cron: Cron, after: datetime) -> Iterator[datetime]:
    """The moments of what the wall clock shows, in order."""
    zone = ZoneInfo(cron.timezone)
    start = after.astimezone(zone).replace(tzinfo=None, second=0, microsecond=0) - SHIFT
    assert cron.hours is not None
    for day in (start.date() + timedelta(days=n) for n in range(HORIZON_DAYS)):
        if not _is_day(cron, day):
            continue
        for hour in cron.hours:
            for minute in range(60) if cron.minutes is None else cron.minutes:
                wall = datetime(day.year, day.month, day.day, hour, minute)  # noqa: DTZ001  # A wall has none.
                if wall >= start:
                    yield _moment(wall, zone)


def _moment(wall: datetime, zone: ZoneInfo) -> datetime:
    """The first moment at which the clock shows this, or that at which it was put past it."""
    moment = wall.replace(tzinfo=zone).astimezone(UTC)
    if moment.astimezone(zone).replace(tzinfo=None) == wall:
        return moment
    before = wall - MINUTE
    while (moment := before.replace(tzinfo=zone).astimezone(UTC)).astimezone(zone).replace(
        tzinfo=None
    ) != before:
        before -= MINUTE
    return moment + MINUTE


def _is_day(cron: Cron, day: date) -> bool:
    """Days of month and of week, where both are restricted, are alternatives."""
    if cron.months is not None and day.month not in cron.months:
        return False
    of_month = cron.days is None or day.day in cron.days
    of_week = cron.weekdays is None or day.isoweekday() % 7 in cron.weekdays
    if cron.days is not None and cron.weekdays is not None:
        return of_month or of_week
    return of_month and of_week
