"""What ``--at`` and ``--if`` may say. Pure."""

from __future__ import annotations

import re
import time

from reconciler.base.records import dataclass
from reconciler.base.scalars import parse_duration
from reconciler.cli.invocation import InvalidUsage

_TIMES = "--at takes '2026-12-24 03:00' or +3d"
_EVENTS = (
    "--if takes 'ID dies', 'ID dies 12 times', 'ID dies 12 times in 10m', 'CHECK fails' or "
    "'CHECK fails for 10m'"
)
_FORM = "%Y-%m-%d %H:%M"
_EVENT = re.compile(
    r"(?P<id>\S(?:.*\S)?)\s+(?:(?P<dies>dies)(?:\s+(?P<times>[0-9]{1,9})\s+times?)?"
    r"(?:\s+in\s+(?P<within>\S+))?|fails(?:\s+for\s+(?P<lasts>\S+))?)\s*"
)
_FARTHEST = 100 * 366 * 86400.0
_MOST = 1000
"""Deaths of one event."""


def seconds_until(text: str, now: float) -> float:
    """Seconds from ``now`` until a time of this place. Raises Usage for one that is past."""
    if text.startswith("+"):
        try:
            return _near(parse_duration(text[1:]))
        except ValueError as error:
            raise InvalidUsage(f"{_TIMES}, not {text!r}: {error}") from None
    try:
        asked = time.strptime(text, _FORM)
        found = {time.mktime((*asked[:8], dst)) for dst in (0, 1)}
    except (ValueError, OverflowError):
        raise InvalidUsage(f"{_TIMES}, not {text!r}") from None
    # Of an hour that comes twice, the first; of one that is left out, none.
    at = min((one for one in found if time.localtime(one)[:5] == asked[:5]), default=None)
    if at is None:
        raise InvalidUsage(f"there is no {text} here: the clock is set ahead then")
    if at < now - 60:
        there = time.strftime(_FORM, time.localtime(now))
        raise InvalidUsage(
            f"--at {text} is past, and how this host was then is not known; it is {there} now"
        )
    return _near(max(0.0, at - now))


def _near(ahead: float) -> float:
    if ahead > _FARTHEST:
        raise InvalidUsage("--at takes a time of the next hundred years")
    return ahead


@dataclass(frozen=True, slots=True)
class Event:
    """One thing dies so often, spread over ``lasts`` seconds, or as soon as it runs; or a check,
    for which ``times`` is 0, fails for so long, or until that counts."""

    id: str
    times: int
    lasts: float | None

    @classmethod
    def read(cls, text: str) -> Event:
        """Raises Usage."""
        found = _EVENT.fullmatch(text.strip())
        if found is None:
            raise InvalidUsage(f"{_EVENTS}, not {text!r}")
        times = int(found["times"] or 1) if found["dies"] else 0
        if found["dies"] and not 1 <= times <= _MOST:
            raise InvalidUsage(f"--if takes 1 to {_MOST} times, not {times}")
        lasts = found["within"] or found["lasts"]
        try:
            return cls(found["id"], times, None if lasts is None else parse_duration(lasts))
        except ValueError as error:
            raise InvalidUsage(f"{_EVENTS}: {error}") from None
