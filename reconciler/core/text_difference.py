"""How two texts differ, in words for people. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

_LONGEST = 1 << 18
"""Characters of a text whose lines are compared."""
_COMPARING = 2.0
"""Seconds for that: others may have written what takes hours, a million empty lines."""


def hidden(content: str, lines: str) -> str:
    """``content`` for people where ``lines`` hold a secret: other lines may hold an old one.

    It is ``lines`` only where the content is.
    """
    from reconciler.base.digests import blake2b

    def shown(line: str) -> str:
        if line in known:
            return line
        digest = blake2b(line.encode("utf-8", "surrogateescape"), digest_size=6)
        return f"(not shown: it may hold a secret; digest {digest.hexdigest()})"

    known = {*lines.split("\n"), ""}
    return "\n".join(map(shown, content.split("\n")))


def first_difference(have: str, want: str) -> str:
    """Which line is the first that differs, and how."""
    pairs = zip(_lazily(have), _lazily(want), strict=False)
    for number, (now, goal) in enumerate(pairs, 1):
        if now != goal:
            is_now = "missing" if now in (None, "") else repr(now)
            should = "gone" if goal in (None, "") else repr(goal)
            return f"line {number} of its content is {is_now}, should be {should}"
    return "its content differs"


def differing(have: str, want: str, most: int) -> tuple[list[str], int]:
    """At most so many of the lines that differ, as diff -u has them, and how many there are.

    Where they cannot be compared, they are all of the one and all of the other.
    """
    from difflib import unified_diff

    from reconciler.base.errors import UnknownState
    from reconciler.host.process_search import within

    if max(len(have), len(want)) <= _LONGEST:
        old, new = have.splitlines(), want.splitlines()
        try:
            with within(_COMPARING, "comparing two texts"):
                lines = list(unified_diff(old, new, n=2, lineterm=""))[2:]
                return lines[:most], len(lines)
        except UnknownState:
            pass
    found, number = [], 0
    for sign, text in (("-", have), ("+", want)):
        whole = text.removesuffix("\n")
        lines = [f"{sign}{line}" for line in islice(_lazily(whole), most) if line is not None]
        found += lines if text else []
        number += whole.count("\n") + 1 if text else 0
    return found[:most], number


def _lazily(text: str) -> Iterator[str | None]:
    """Its lines, and then None: one after the other, for there may be very many."""
    at = 0
    while (end := text.find("\n", at)) >= 0:
        yield text[at:end]
        at = end + 1
    yield text[at:]
    yield None
