"""When cron runs a line: read strictly, said in words, and the next time of it. Pure.

The rules are those of Debian's cron 3.0pl1 (entry.c, cron.c), which others share. What it takes
without ever running it, such as ``5-1``, or means something else than it seems, is refused.
"""

from __future__ import annotations

import re
import time

from reconciler.base.records import dataclass

NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
REBOOT = "@reboot"
_MONTHS = "January February March April May June July August September October November December"
_DAYS = "Sunday Monday Tuesday Wednesday Thursday Friday Saturday"
_MONTH_NAMES = {name[:3].lower(): at for at, name in enumerate(_MONTHS.split(), 1)}
_DAY_NAMES = {name[:3].lower(): at for at, name in enumerate(_DAYS.split())}
_LONGEST = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_DAYS_AHEAD = 366 * 8 + 2
"""29 February comes at the latest after eight years, as around 2100."""


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    low: int
    high: int
    names: dict[str, int]

    @property
    def allowed(self) -> str:
        words = f"{self.low}-{self.high}"
        if self.names:
            first, *_, last = self.names
            words += f", {first}-{last}"
        return words


_FIELDS = (
    _Field("minute", 0, 59, {}),
    _Field("hour", 0, 23, {}),
    _Field("day of month", 1, 31, {}),
    _Field("month", 1, 12, _MONTH_NAMES),
    _Field("day of week", 0, 7, _DAY_NAMES),
)


@dataclass(frozen=True, slots=True)
class Schedule:
    """The values of the five fields, and what was written in them. Sunday is 0."""

    written: tuple[str, ...]
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]

    @property
    def either(self) -> bool:
        """Does one of the two day fields suffice? Not where one of them begins with ``*``."""
        return not (self.written[2].startswith("*") or self.written[4].startswith("*"))

    def on(self, month: int, day: int, weekday: int) -> bool:
        """Does it run on such a day?"""
        if month not in self.months:
            return False
        if self.either:
            return day in self.days or weekday in self.weekdays
        return day in self.days and weekday in self.weekdays


def parse_schedule(value: object) -> str:
    """Five fields with one blank between them, or a nickname. Raises ValueError."""
    if not isinstance(value, str):
        raise ValueError('needs one text, such as "*/5 * * * *" or "@daily"')
    text = re.sub(r"[ \t]+", " ", value).strip(" \n")
    if text.startswith("@"):
        if text not in NICKNAMES and text != REBOOT:
            known = ", ".join([*NICKNAMES, REBOOT])
            raise ValueError(f"{text!r} is no time that cron knows; write five fields, or {known}")
        return text
    if not text.isascii() or not text.isprintable():
        raise ValueError('holds a character that cron does not know; write "*/5 * * * *"')
    if parsed(text) is not None and not _possible(read(text)):
        raise ValueError(f"never: {text!r} asks for a day that no month has")
    return text


def parsed(text: str) -> Schedule | None:
    """The schedule behind a text; None when it is ``@reboot``. Raises ValueError."""
    return None if text == REBOOT else read(NICKNAMES.get(text, text))


def read(text: str) -> Schedule:
    """The schedule that five fields give. Raises ValueError."""
    words = text.split()
    if len(words) != 5:
        what = "minute, hour, day of month, month and day of week"
        raise ValueError(f"needs five fields ({what}), not {len(words)}: {text!r}")
    values = [_values(word, field) for word, field in zip(words, _FIELDS, strict=True)]
    weekdays = frozenset(day % 7 for day in values[4])
    return Schedule(tuple(words), values[0], values[1], values[2], values[3], weekdays)


def _values(word: str, field: _Field) -> frozenset[int]:
    found: set[int] = set()
    for part in word.split(","):
        body, slash, step = part.partition("/")
        first, dash, last = body.partition("-")
        if body == "*":
            low, high = field.low, field.high
        else:
            low = _number(first, part, field)
            high = _number(last, part, field) if dash else low
        by = 1
        if slash:
            if body != "*" and not dash:
                hint = f"{body}-{field.high}/{step}"
                raise ValueError(
                    f"{field.name}: {part!r}: a step needs a range or *, such as {hint}"
                )
            if not re.fullmatch(r"[0-9]{1,3}", step) or int(step) == 0:
                raise ValueError(f"{field.name}: {part!r}: a step is a number from 1 up")
            by = int(step)
        if low > high:
            mended = f"{first}-{field.high},{field.low}-{last}"
            if field.high == 7:
                mended = f"{first}-7" if high == 0 else f"{first}-6,0-{last}"
            raise ValueError(
                f"{field.name}: {part!r} runs backwards, which cron never matches; write {mended}"
            )
        found.update(range(low, high + 1, by))
    return frozenset(found)


def _number(text: str, part: str, field: _Field) -> int:
    if text.lower() in field.names:
        return field.names[text.lower()]
    if re.fullmatch(r"[0-9]{1,4}", text) and field.low <= int(text) <= field.high:
        return int(text)
    raise ValueError(
        f"{field.name}: {part!r} is not allowed; write {field.allowed}, *, ranges (1-5), steps "
        "(*/5) or lists (1,3)"
    )


def _possible(schedule: Schedule) -> bool:
    if schedule.either:
        return True
    return any(min(schedule.days) <= _LONGEST[month - 1] for month in schedule.months)


def in_words(text: str) -> str:
    """A valid schedule for people: "every 5 minutes", "at 03:30 on Monday to Friday"."""
    schedule = parsed(text)
    if schedule is None:
        return "when the host boots"
    words = [_time(schedule), _day(schedule)]
    if len(schedule.months) < 12:
        words.append("in " + _listed(schedule.months, _MONTHS.split(), 1))
    if not any(words[1:]) and (":" in words[0] or "o'clock" in words[0]):
        words.append("every day")
    return " ".join(word for word in words if word)


def _time(schedule: Schedule) -> str:
    minutes, hours = sorted(schedule.minutes), sorted(schedule.hours)
    if len(minutes) * len(hours) <= 4:
        return "at " + _and([f"{hour:02d}:{minute:02d}" for hour in hours for minute in minutes])
    step = _step(minutes, 60)
    if step:
        told = "every minute" if step == 1 else f"every {step} minutes"
    elif minutes == [0]:
        told = "every hour"
    else:
        told = f"at minute {_runs(minutes)}"
    if len(hours) == 24:
        return told if step or minutes == [0] else f"{told} of every hour"
    by = _step(hours, 24)
    if minutes == [0]:
        return f"every {by} hours" if by else f"at {_runs(hours)} o'clock"
    if by:
        return f"{told} of every {_nth(by)} hour"
    return f"{told} of hour {_runs(hours)}"


def _day(schedule: Schedule) -> str:
    days = "" if len(schedule.days) == 31 else f"on day {_runs(sorted(schedule.days))} of the month"
    weekdays = ""
    if len(schedule.weekdays) < 7:
        # A week that people speak of begins on Monday.
        numbers = frozenset(7 if day == 0 else day for day in schedule.weekdays)
        weekdays = "on " + _listed(numbers, [*_DAYS.split()[1:], "Sunday"], 1)
    if not days or not weekdays:
        # Where either suffices, a field that is full makes the other one idle.
        return "" if schedule.either else days or weekdays
    return f"{days} or {weekdays}" if schedule.either else f"{days} if that is {weekdays[3:]}"


def _step(values: list[int], size: int) -> int:
    """The step of values that go evenly through the whole of ``size`` from 0; else 0."""
    step = size // len(values)
    if len(values) == 1:
        return 0
    return step if values == list(range(0, size, step)) and size % step == 0 else 0


def _nth(number: int) -> str:
    return {2: "2nd", 3: "3rd"}.get(number, f"{number}th")


def _spans(values: list[int]) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    for value in values:
        if spans and spans[-1][1] == value - 1:
            spans[-1] = spans[-1][0], value
        else:
            spans.append((value, value))
    return spans


def _and(words: list[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def _runs(values: list[int]) -> str:
    told: list[str] = []
    for low, high in _spans(values):
        told += [f"{low} to {high}"] if high > low + 1 else map(str, range(low, high + 1))
    return _and(told)


def _listed(values: frozenset[int], names: list[str], first: int) -> str:
    told = []
    for low, high in _spans(sorted(values)):
        if high > low + 1:
            told.append(f"{names[low - first]} to {names[high - first]}")
        else:
            told += [names[value - first] for value in range(low, high + 1)]
    return _and(told)


def next_run(text: str, now: float) -> float | None:
    """When cron runs it next after ``now``, both in seconds since the epoch; local time.

    None for ``@reboot``, and when there is none within eight years. At the change to summer time
    cron(8) runs at once what stands at a time that is left out, unless it runs every minute or
    every hour; when an hour comes twice, only such lines run in both.
    """
    schedule = parsed(text)
    if schedule is None:
        return None
    moving = schedule.written[0].startswith("*") or schedule.written[1].startswith("*")
    here = time.localtime(now)
    for ahead in range(_DAYS_AHEAD):
        # mktime(3) mends a day that its month does not have; noon is on every day.
        noon = time.localtime(
            time.mktime((here.tm_year, here.tm_mon, here.tm_mday + ahead, 12, 0, 0, 0, 0, -1))
        )
        if schedule.on(noon.tm_mon, noon.tm_mday, (noon.tm_wday + 1) % 7):
            found = [at for at in _times(schedule, noon, moving) if at > now]
            if found:
                return min(found)
    return None


def _times(schedule: Schedule, day: time.struct_time, moving: bool) -> list[float]:
    """All times of that day, in seconds since the epoch."""
    found: list[float] = []
    date = day.tm_year, day.tm_mon, day.tm_mday
    for hour in sorted(schedule.hours):
        for minute in sorted(schedule.minutes):
            both = {time.mktime((*date, hour, minute, 0, 0, 0, dst)) for dst in (0, 1)}
            real = sorted(
                at for at in both if time.localtime(at)[3:5] == (hour, minute)
            )  # Both in the hour that comes twice, none in the one that is left out.
            if real:
                found += real if moving else real[:1]
            elif not moving:
                found.append(_behind_the_gap(min(both)))
    return found


def _behind_the_gap(inside: float) -> float:
    """The first moment of summer time at or after one that was reckoned without it."""
    start = inside - 3 * 3600
    offset = time.localtime(start).tm_gmtoff
    for at in range(int(start), int(inside) + 3 * 3600, 900):
        if time.localtime(at).tm_gmtoff != offset:
            return float(at)
    return inside
