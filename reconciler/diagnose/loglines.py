"""What the lines of a log tell: errors and warnings by kind, and its rhythm. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from reconciler.base.records import dataclass
from reconciler.base.text import censored
from reconciler.host.probe_log import FURTHEST, ISO, SYSLOG, time_of

_TIMES = re.compile(ISO.pattern.decode()), re.compile(SYSLOG.pattern.decode())
_LEVEL = re.compile(
    r"(?<![\w.-])(?:(?P<error>ERROR|CRITICAL|FATAL|EMERG|ALERT|CRIT|ERR|[Ee]rror:|panic:|"
    r"Traceback|[Ff]ailed|[Ff]atal:|[A-Z]\w+(?:Error|Exception):)"
    r"|(?P<warning>WARNING|WARN|[Ww]arning:))(?!\w)"
)
_QUIET = re.compile(r"(?<![\w.-])(?:INFO|DEBUG|NOTICE|TRACE)(?!\w)|(?<![\w.-])0 (?:failed|errors)")
_SQUEEZE = (
    (re.compile(r"0x[0-9a-fA-F]+|\b[0-9a-fA-F-]*\d[0-9a-fA-F-]{7,}\b"), "#"),
    (re.compile(r"(?<![\w/])~?(?:/[^\s/:;,'\")]+)+/?"), "/…"),
    (re.compile(r"\d+(?:\.\d+)*"), "#"),
    (re.compile(r"\s+"), " "),
)
_KINDS = 20
_FEWEST = 20
_SHORTEST = 600.0
_LONGEST = 300


@dataclass(slots=True)
class _Sort:
    level: str
    message: str
    count: int = 0
    first: float | None = None
    last: float | None = None
    sample: str = ""


def analysed(lines: Sequence[str], now: float) -> dict[str, Any]:
    """Errors and warnings by kind, the time of the last line, and the longest silence so far.

    Times are in seconds since the epoch, or None in a log that has none. A line without a time
    has that of the one above it.
    """
    sorts: dict[tuple[str, str], _Sort] = {}
    times: list[float] = []
    at: float | None = None
    for line in lines:
        found = time_of(line[:FURTHEST].encode("utf-8", "replace"), now)
        if found is not None:
            at = found
            times.append(found)
        level = level_of(line)
        if level is None:
            continue
        # Before it is squeezed and cut: a piece of a secret does not look like one.
        line = censored(line)
        message = squeezed(line)
        one = sorts.setdefault((level, message), _Sort(level, message))
        one.count += 1
        one.first = at if one.first is None else one.first
        one.last = at
        one.sample = line.strip()[:_LONGEST]
    ranked = sorted(sorts.values(), key=lambda one: (one.level != "error", -one.count))
    return {
        "errors": sum(one.count for one in ranked if one.level == "error"),
        "warnings": sum(one.count for one in ranked if one.level == "warning"),
        "kinds": [
            {
                "level": one.level,
                "message": one.message,
                "count": one.count,
                "first": one.first,
                "last": one.last,
                "sample": one.sample,
            }
            for one in ranked[:_KINDS]
        ],
        **_rhythm(times),
    }


def _rhythm(times: Sequence[float]) -> dict[str, Any]:
    gaps = [later - sooner for sooner, later in pairwise(times)]
    return {
        "stamped": len(times),
        "last_time": times[-1] if times else None,
        "covers": round(times[-1] - times[0], 1) if times else 0.0,
        "longest_gap": round(max(gaps), 1) if gaps else None,
    }


def too_silent(stamped: int, covers: float, longest: float | None, silent: float) -> bool:
    """Is a log silent that never was for nearly so long, in a time that is much longer?"""
    return (
        longest is not None
        and stamped >= _FEWEST
        and silent >= _SHORTEST
        and silent > 3 * longest
        and covers >= 4 * silent
    )


def level_of(line: str) -> str | None:
    """``error``, ``warning`` or None; what says of itself that it is neither is not."""
    match = _LEVEL.search(line)
    if match is None:
        return None
    quiet = _QUIET.search(line)
    if quiet is not None and quiet.start() < match.start():
        return None
    return "error" if match["error"] else "warning"


def squeezed(line: str) -> str:
    """The line without its time, and without what differs from one line of its kind to another."""
    line = _TIMES[0].sub("", line[:FURTHEST], count=1) + line[FURTHEST:]
    line = _TIMES[1].sub("", line)
    for pattern, instead in _SQUEEZE:
        line = pattern.sub(instead, line)
    return line.strip()[:_LONGEST]
