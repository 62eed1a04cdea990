"""Status, history and pauses as lines for people, and as JSON values.

It must not print, nor look anything up.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reconciler.base.text import count_of, printable
from reconciler.host.remedy import remedy
from reconciler.output.text import Block, Line, Row, Table, given, heading

if TYPE_CHECKING:
    from reconciler.state.store.tables import Deed, Pause

STYLES = {"ok": "good", "differs": "change", "paused": "change", "skipped": "quiet"}
"""How a resource in that state is drawn; any other one is ``bad``."""
_PLURAL = {"differs": "differ", "waits": "wait"}
_RESULTS = {"done": "good", "failed": "bad"}
_SHORT = 300
_LONGEST = 4000


def pause_document(pause: Pause) -> dict[str, Any]:
    """A pause as a JSON value; times in seconds since the epoch."""
    return {
        "id": pause.id,
        "reason": pause.reason,
        "since": pause.wall,
        "until": pause.until,
        "by": pause.by,
    }


def pause_lines(pause: Pause) -> Iterator[Line]:
    """A pause that has begun."""
    until = "until resumed" if pause.until is None else f"until {moment(pause.until)}"
    reason = f": {printable(pause.reason)}" if pause.reason else ""
    yield f"{printable(pause.id)}: paused {until}{reason}", "change"


def deed_document(deed: Deed) -> dict[str, Any]:
    """What was done once, as a JSON value."""
    return {
        "time": deed.wall,
        "by": deed.by,
        "id": deed.id,
        "verb": deed.verb,
        "result": deed.result,
        "why": deed.why,
        "error": deed.error,
        "seconds": round(deed.seconds, 6),
        "pass": deed.number,
    }


def history_table(deeds: Sequence[Mapping[str, Any]]) -> Table:
    """What was done, from JSON values."""
    rows = []
    for deed in deeds:
        words = [f"{deed['result']} {deed['verb']} {deed['id']}", deed["why"], deed["error"]]
        cells = (
            moment(deed["time"]),
            "" if deed.get("pass") is None else str(deed["pass"]),
            deed["by"],
            printable(": ".join(filter(None, words)), _LONGEST),
        )
        rows.append((cells, _RESULTS.get(deed["result"], "change")))
    return Table(("when", "pass", "by", "what was done, and why"), tuple(rows), frozenset((1,)))


def status_blocks(document: Mapping[str, Any]) -> Iterator[Block]:
    """How things stand, from the JSON value."""
    now = document["time"]
    spec = document["spec"]
    yield heading(spec["name"], spec["path"], document["host"], given(spec))
    yield loop_line(document["loop"])
    rows = tuple(_resource_row(one, now) for one in document["resources"])
    yield Table(("resource", "state", "next", "details"), rows)
    if document["last"]:
        yield "last actions:", ""
        yield history_table(document["last"])
    bad = {one["state"] for one in document["resources"]} - STYLES.keys()
    yield f"{counted(document['resources'])}.", "bad" if bad else "good"


def counted(resources: Sequence[Mapping[str, Any]]) -> str:
    """How many are in each state: ``4 ok, 2 differ``."""
    states = [one["state"] for one in resources]
    counts = {state: states.count(state) for state in dict.fromkeys(states)}
    return ", ".join(
        f"{number} {state if number == 1 else _PLURAL.get(state, state)}"
        for state, number in counts.items()
    )


def loop_line(loop: Mapping[str, Any]) -> Line:
    """Whether a watchdog keeps the spec."""
    if not loop["running"]:
        return "no watchdog is running; passes are made by cron or by hand", "change"
    if loop.get("stopped"):
        words = (
            f"the watchdog (pid {loop['pid']}) is stopped by a signal; nothing is kept as declared"
        )
        return f"{words}; continue it with: {remedy('kill', '-CONT', str(loop['pid']))}", "bad"
    if not loop["healthy"]:
        return (
            f"the watchdog (pid {loop['pid']}) hangs: no sign of life for {span(loop['moved'])}; "
            "a pass (--once) ends it and takes over",
            "bad",
        )
    return (
        f"the watchdog is running (pid {loop['pid']}): {count_of(loop['passes'], 'full pass')}, "
        f"the next within {span(loop['next'])}",
        "good",
    )


def _resource_row(one: Mapping[str, Any], now: float) -> Row:
    state = "ok (absent)" if one.get("absent") and one["state"] == "ok" else one["state"]
    words, coming = [], ""
    if "since" in one:
        pids = ", ".join(str(pid) for pid in one["pids"][:4])
        more = f" and {len(one['pids']) - 4} more" if len(one["pids"]) > 4 else ""
        words.append(f"pid {pids}{more} for {span(now - one['since'])}")
    if one.get("attempts"):
        number = one["attempts"]
        if "since" in one:
            words.append("restarted once" if number == 1 else f"restarted {number} times")
        elif one["state"] != "paused" and "failed start" not in one["reason"]:
            words.append(count_of(number, "failed start"))
    if one["reason"]:
        reason = one["reason"]
        if one["state"] == "paused":
            reason = reason.removeprefix("paused: ")  # The state has said so.
        words.append(printable(reason, _SHORT))
    if "due" in one and one["state"] not in ("paused", "skipped"):
        coming = span(one["due"]) if one["due"] > 0 else "now"
        if not one["reason"]:
            said = one["asked"]["said"] if "asked" in one else "not asked yet"
            words.append(printable(said, _SHORT))
    cells = (printable(one["id"]), state, coming, "; ".join(words))
    return cells, STYLES.get(one["state"], "bad")


def moment(wall: float) -> str:
    """A time for people, as it is here."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(wall))


def span(seconds: float) -> str:
    """How long, for people: "4 s", "15 min", "2 h", "3 d"."""
    for size, word in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {word}"
    return f"{max(0.0, seconds):.0f} s"
