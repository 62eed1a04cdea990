"""When cron runs a line: checked, said in words, and the next time of it. Pure.

cronsim reads a schedule as Debian's cron does. What it takes beyond that, which is a sixth field,
``L``, ``mon#1`` and a step of one number, is refused, and so is a day that no month has.
"""

from __future__ import annotations

import os
import re
from datetime import datetime, tzinfo
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cronsim import CronSim

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
_FIELDS = {
    "minute": "0-59",
    "hour": "0-23",
    "day-of-month": "1-31",
    "month": "1-12, jan-dec",
    "day-of-week": "0-7, sun-sat",
}
_VALUE = r"(?:[0-9]{1,4}|[A-Za-z]{3})"
_PART = rf"(?:(?:\*|{_VALUE}-{_VALUE})(?:/[0-9]{{1,3}})?|{_VALUE})"
_FIELD = re.compile(rf"{_PART}(?:,{_PART})*")


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
    words = text.split()
    if len(words) != 5:
        what = "minute, hour, day of month, month and day of week"
        raise ValueError(f"needs five fields ({what}), not {len(words)}: {text!r}")
    for at, (name, allowed) in enumerate(_FIELDS.items()):
        alone = ["*"] * 5
        alone[at] = words[at]
        if not _FIELD.fullmatch(words[at]) or not _is_read(" ".join(alone)):
            raise ValueError(
                f"{name.replace('-', ' ')}: {words[at]!r} is not allowed; write {allowed}, *, "
                "ranges from low to high (1-5), steps of * or of a range (*/5, 0-30/5), or lists "
                "(1,3)"
            )
    if not _is_read(text):
        raise ValueError(f"never: {text!r} asks for a day that no month has")
    return text


def _is_read(text: str) -> bool:
    from cronsim import CronSimError

    try:
        return bool(read(text))
    except CronSimError:
        return False


def read(text: str, now: datetime = datetime.min) -> CronSim:
    """Raises CronSimError."""
    from cronsim import CronSim

    # It takes 5-5/2 for 5/2, and that for 5-59/2.
    text = re.sub(r"\b(\w+)-\1/[0-9]+", r"\1", NICKNAMES.get(text, text))
    return CronSim(text, now)


def in_words(text: str) -> str:
    """A valid schedule for people: "at 03:30 on Monday to Friday"."""
    if text == REBOOT:
        return "when the host boots"
    schedule = read(text)
    days = {day for day in schedule.weekdays if isinstance(day, int)}
    if not schedule.day_and and (len(schedule.days) == 31 or len({day % 7 for day in days}) == 7):
        # Where one of the two day fields suffices, one that has all days makes the other idle.
        words = text.split()
        schedule = read(" ".join([*words[:2], "*", words[3], "*"]))
    said: str = schedule.explain().replace(" through ", " to ")
    return said[:1].lower() + said[1:]


def next_run(text: str, now: float) -> float | None:
    """When cron runs it next after ``now``, both in seconds since the epoch; local time.

    None for ``@reboot``.
    """
    if text == REBOOT:
        return None
    return next(read(text, datetime.fromtimestamp(now, _local_zone()))).timestamp()


def _local_zone() -> tzinfo | None:
    """The zone of ``TZ``, or of the host; None where it has none that can be read."""
    from zoneinfo import ZoneInfo

    name = os.environ.get("TZ", "").removeprefix(":")
    try:
        if name and not name.startswith("/"):
            return ZoneInfo(name)
        with open(name or "/etc/localtime", "rb") as file:
            return ZoneInfo.from_file(file)
    except (OSError, ValueError):
        return None
