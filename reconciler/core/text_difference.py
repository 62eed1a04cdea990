"""How two texts differ, in words for people. Pure."""

from __future__ import annotations

from collections.abc import Iterator


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


def _lazily(text: str) -> Iterator[str | None]:
    """Its lines, and then None: one after the other, for there may be very many."""
    at = 0
    while (end := text.find("\n", at)) >= 0:
        yield text[at:end]
        at = end + 1
    yield text[at:]
    yield None
