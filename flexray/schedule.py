"""When a function runs by itself: `Cron` and `Period`.

One rule: what can be wrong with one is found where it is written; here is no clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from flexray.errors import InvalidError

FIELDS = 5
UNITS_S = {"weeks": 604800.0, "days": 86400.0, "hours": 3600.0, "minutes": 60.0, "seconds": 1.0}
LONGEST_S = 366 * 86400.0

Allowed = tuple[int, ...] | None
"""Values that a field may have, rising; None: any."""


@dataclass(frozen=True)
class Cron:
    """At certain minutes of the clock, as crontab has it: minute, hour, day of month, month, day of week.

    `Cron("0 6 * * 1-5", timezone="America/New_York")` is six in the morning there, on weekdays. Names (`mon`,
    `jan`), ranges, lists and steps are understood; days of both kinds, where both are given, are either.
    Where the clock is put forward, what was skipped happens right after; where it is put back, what names its
    hours happens once, and what happens every hour happens in each.

    Raises:
        InvalidError: The expression or the time zone is none.
    """

    expression: str
    timezone: str = "UTC"
    minutes: Allowed = field(init=False, repr=False, compare=False)
    hours: Allowed = field(init=False, repr=False, compare=False)
    days: Allowed = field(init=False, repr=False, compare=False)
    months: Allowed = field(init=False, repr=False, compare=False)
    weekdays: Allowed = field(init=False, repr=False, compare=False)
    """0 is Sunday."""

    def __post_init__(self) -> None:
        try:
            ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, TypeError, ValueError, OSError):
            raise InvalidError(
                f"timezone is {self.timezone!r:.70}, which is unknown here", 'give one as "America/New_York"'
            ) from None
        names = ("minutes", "hours", "days", "months", "weekdays")
        for name, allowed in zip(names, _expanded(self.expression), strict=True):
            object.__setattr__(self, name, allowed)


class Period:
    """Again and again, so long after the time before; the first time so long after it was deployed.

    `Period(days=1, hours=4)`; also weeks, minutes and seconds. One second at least, 366 days at most.

    Raises:
        InvalidError: A part is no number, or the whole is out of bounds.
    """

    def __init__(
        self, *, weeks: float = 0, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0
    ) -> None:
        given = {"weeks": weeks, "days": days, "hours": hours, "minutes": minutes, "seconds": seconds}
        for name, value in given.items():
            if type(value) not in (int, float) or not value >= 0:
                raise InvalidError(f"{name} is {value!r:.60}", "it is a number, 0 or more")
        self.seconds = sum(UNITS_S[name] * value for name, value in given.items())
        self._given = {name: value for name, value in given.items() if value}
        if not 1 <= self.seconds <= LONGEST_S:
            raise InvalidError(
                f"{self!r} is {self.seconds:,.0f} seconds", "it is 1 second at least and 366 days at most"
            )

    def __repr__(self) -> str:
        return f"Period({', '.join(f'{name}={value}' for name, value in self._given.items())})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Period) and other.seconds == self.seconds

    def __hash__(self) -> int:
        return hash(self.seconds)


Schedule = Cron | Period


def _expanded(expression: object) -> list[Allowed]:
    from croniter import croniter  # noqa: PLC0415  # Only programs with schedules need it.
    from croniter.croniter import CroniterError  # noqa: PLC0415

    hint = 'as in "0 6 * * *": minute, hour, day of month, month, day of week'
    if not isinstance(expression, str) or len(expression.split()) != FIELDS:
        raise InvalidError(f"the cron expression is {expression!r:.70}, which has not five fields", hint)
    try:
        fields, nth = croniter.expand(expression)
    except (CroniterError, ValueError, KeyError) as error:
        raise InvalidError(f"the cron expression is {expression!r:.70}: {error}", hint) from None
    if nth or any(type(value) is not int and value != "*" for values in fields for value in values):
        raise InvalidError(
            f"the cron expression is {expression!r:.70}, and L, W and # are not understood",
            "name the days, or look at the date in the function",
        )
    allowed: list[Allowed] = [None if values == ["*"] else tuple(sorted(set(values))) for values in fields]
    if allowed[4] is not None:
        allowed[4] = tuple(sorted({day % 7 for day in allowed[4]}))
    return allowed
