"""Times with a zone, and JSON that is safe to print."""

from __future__ import annotations

import json
import time

_FAR = 3e10


def stamp(seconds: float | None = None) -> str:
    """A wall-clock time (now, unless given) as ISO 8601 with milliseconds and the local zone.

    One that is further away than some thousand years, as a file may have, is that far away.
    """
    at = time.time() if seconds is None else min(max(seconds, -_FAR), _FAR)
    local = time.localtime(at)
    minutes = local.tm_gmtoff // 60
    sign = "-" if minutes < 0 else "+"
    zone = f"{sign}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', local)}.{int(at * 1000) % 1000:03d}{zone}"


def as_json(value: object) -> str:
    """`value` as indented ASCII JSON with a newline at the end: safe to print and to store."""
    text = json.dumps(value, indent=2, ensure_ascii=True, allow_nan=False)
    return text.replace("\x7f", "\\u007f") + "\n"
