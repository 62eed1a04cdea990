"""What a rehearsal has found, for people and as JSON. It must not print."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

from reconciler.base.records import dataclass
from reconciler.base.text import count_of, printable
from reconciler.core.messages import moment
from reconciler.output.text import Line

_MOST = 3
"""Times that something is shown which comes again and again."""
_STYLES = {
    "dies": "bad", "fails": "bad", "gives up": "bad", "waits": "bad", "reset": "good",
    "well": "good", "told": "long", "held": "long",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """What happens ``after`` so many seconds, at ``wall`` seconds since the epoch: to a resource
    of that ``id``; or who is ``told`` of it, or will be once it is not ``held`` any more."""

    after: float
    wall: float
    what: str
    id: str
    words: str


def as_of(wall: float, ahead: float) -> str:
    """The end of the first line: for which time it is."""
    return f", as of {moment(wall)}" + (f" (in {passed(ahead)})" if ahead >= 1 else " (now)")


def timeline_lines(entries: Sequence[Entry]) -> Iterator[Line]:
    """Each with the time since the beginning, and that of the day."""
    for one in _without_repeats(entries):
        if isinstance(one, str):
            yield one, "quiet"
            continue
        clock = time.strftime("%H:%M:%S", time.localtime(one.wall))
        text = f"  {f'+{passed(one.after)}':<13} {clock}  {printable(one.words)}"
        yield text, _STYLES.get(one.what, "change")
    acts = sum(one.what in ("start", "restart", "run") for one in entries)
    told = sum(one.what == "told" for one in entries)
    words = f"{count_of(acts, 'action')}, {count_of(told, 'message')}"
    last = entries[-1].after if entries else 0.0
    yield f"{words}; nothing more follows after {passed(last)}.", ""


def _without_repeats(entries: Sequence[Entry]) -> Iterator[Entry | str]:
    """Of what comes again and again, the first ones, and how many more."""
    for (_, words), group in groupby(entries, lambda one: (one.what, one.words)):
        same = list(group)
        yield from same[:_MOST]
        if more := same[_MOST:]:
            yield f"  … {len(more)} more times until +{passed(more[-1].after)}: {words}"


def message_lines(entries: Iterable[Entry]) -> Iterator[Line]:
    """What people would be told, behind a plan."""
    for one in entries:
        yield f"  > {printable(one.words)}", "long"


def entry_document(one: Entry) -> dict[str, Any]:
    """As a JSON value."""
    return {
        "after": one.after, "time": one.wall, "what": one.what, "id": one.id, "words": one.words
    }  # fmt: skip


def passed(seconds: float) -> str:
    """A time that has passed: ``0.5 s``, ``2 min 5 s``, ``3 h 20 min``, ``2 d 4 h``."""
    if seconds < 120:
        return f"{round(seconds, 2):g} s"
    for size, word, small, less in (
        (86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")
    ):  # fmt: skip
        if seconds >= size:
            number, rest = divmod(round(seconds), size)
            more = f" {rest // small} {less}" if rest // small else ""
            return f"{number} {word}{more}"
    return f"{seconds:g} s"
