"""Messages to people, and what is remembered of them. Plain data."""

from __future__ import annotations

import time
from collections.abc import Collection

from reconciler.base.records import dataclass

EVENTS = ("changed", "failed", "gave_up", "recovered", "progress", "report")
"""What people can be told of, in the order in which they are told of it."""
RATE = 6
"""Turns of one thing, or other messages of one event about it, in an hour: then it flaps."""

HOUR = 3600.0
EXITED = "exited right after start"
"""How the reason begins why a step has failed whose process does not run behind it."""


@dataclass(frozen=True, slots=True)
class Message:
    """``event`` is one of EVENTS, or REMINDER.

    It goes to those who take one of ``about``, or else ``event``.
    """

    event: str
    body: str
    about: tuple[str, ...] = ()

    def is_for(self, events: Collection[str]) -> bool:
        """Does somebody who takes these events get it?"""
        return any(event in events for event in self.about or (self.event,))


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that people were told is wrong: ``event`` is ``failed`` or ``gave_up``.

    ``wall`` is since when, in seconds since the epoch; ``told`` the seconds since they were told
    last, None when that was before this boot.
    """

    event: str
    reason: str
    wall: float
    told: float | None = 0.0


@dataclass(frozen=True, slots=True)
class Sent:
    """How often one thing has turned since ``wall``, and how many of that were held back.

    ``wall`` is in seconds since the epoch, ``age`` the seconds since then, None: before this boot.
    """

    count: int
    held: int
    wall: float
    age: float | None = 0.0

    @property
    def over(self) -> bool:
        """Has its hour ended?"""
        return self.age is None or self.age >= HOUR

    @property
    def flaps(self) -> bool:
        """Is nothing of it told by itself any more?"""
        return self.count >= RATE


def in_parts(status: str, action: str, evidence: str = "") -> str:
    """A message: what is so, what is done about it, each on a line, then what shows it."""
    return "\n".join(filter(None, (f"Status: {status}", f"Action: {action}", evidence)))


def in_one_line(body: str) -> str:
    """A message as one line among others."""
    status, *rest = body.removeprefix("Status: ").split("\n")
    return "; ".join(
        [status, *(one.removeprefix("Action: ").removeprefix("- ").strip() for one in rest)]
    )


def moment(wall: float) -> str:
    """A time, in seconds since the epoch, as people of this place read it."""
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(wall))
    except (OverflowError, ValueError, OSError):
        return "some time ago"


def dated(body: str, wall: float) -> str:
    """The same, which says at its end when it was written."""
    return f"{undated(body, wall)} ({moment(wall)})"


def undated(body: str, wall: float) -> str:
    """The same without that."""
    return body.removesuffix(f" ({moment(wall)})")
