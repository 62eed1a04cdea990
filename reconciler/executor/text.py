"""Text for people: safe to print, and times with a zone.
Must not read or write anything.
"""

from __future__ import annotations

import json
import time


def shown(text: object, keep: str = "") -> str:
    """`text` with every character that could steer a terminal or hide something escaped.

    `keep` names characters to leave as they are, such as a newline.
    """
    raw = str(text)
    if raw.isprintable():
        return raw
    return "".join(c if c.isprintable() or c in keep else _escaped(c) for c in raw)


def _escaped(char: str) -> str:
    point = ord(char)
    if 0xDC80 <= point <= 0xDCFF:  # a byte that was not UTF-8, as Python carries it in names
        return f"\\x{point - 0xDC00:02x}"
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")


def stamp(seconds: float | None = None) -> str:
    """A wall-clock time (now, unless given) as ISO 8601 with milliseconds and the local zone."""
    at = time.time() if seconds is None else seconds
    local = time.localtime(at)
    minutes = local.tm_gmtoff // 60
    sign = "-" if minutes < 0 else "+"
    zone = f"{sign}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', local)}.{int(at * 1000) % 1000:03d}{zone}"


def as_json(value: object) -> str:
    """`value` as indented ASCII JSON with a newline at the end: safe to print and to store."""
    text = json.dumps(value, indent=2, ensure_ascii=True, allow_nan=False)
    return text.replace("\x7f", "\\u007f") + "\n"
