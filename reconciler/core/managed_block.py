"""A marked block in a text that people own too: found, taken out, put in. Bytes in, bytes out.

It must not look at the host, and it never changes a byte that is not ours: what stands between
our two markers is ours, and nothing else. A marker is a whole line that begins in its first
column; one that is indented, quoted, or of another name is somebody's text.

    # BEGIN reconcile NAME -- changes up to its END are undone
    # END reconcile NAME

Rules for what a person has damaged:

- The first BEGIN that is followed by its END, with no marker of ours between, is the block.
- What stands between further such pairs is a copy of it: it goes, as ``spare``.
- A marker without its other half is taken out as a line; the lines around it are not ours.
- A marker whose text behind `` -- `` was edited is a marker still.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import pairwise

from reconciler.base.records import dataclass, replace

_UNDONE = b"changes up to its END are undone"
_ADDED = rb" \(newline added after ([0-9a-f]{8})\)"
_NEW = b" (nothing was here before)"
_LF = 10
_SEARCHING = 1.0
"""Seconds for the place of a new block, at most."""


def word(name: str) -> bytes:
    """A name as one word without blanks or control characters, so that no name begins another."""
    data = name.encode("utf-8", "surrogateescape")
    return b"".join(
        b"%c" % one if one > 0x20 and one not in b"%\x7f" else b"%%%02X" % one for one in data
    )


def lines_of(text: bytes) -> list[bytes]:
    """The lines with their ends; only LF ends a line, as cron(8) has it."""
    lines = text.split(b"\n")
    last = lines.pop()
    return [line + b"\n" for line in lines] + ([last] if last else [])


@dataclass(frozen=True, slots=True)
class BlockMark:
    """What our markers look like: the sign that begins a comment, and the block's name.

    ``close`` is what ends a comment, where something must. Nothing in it has ``--`` then.
    """

    sign: bytes
    name: bytes
    close: bytes = b""

    @property
    def tail(self) -> bytes:
        """What is behind the name in the first of the two."""
        return b" (%s)" % _UNDONE if self.close else b" -- " + _UNDONE

    def line(self, side: bytes, more: bytes, end: bytes) -> bytes:
        """A marker, with ``more`` behind the name."""
        return self.start(side) + more + (b" " + self.close if self.close else b"") + end

    def start(self, side: bytes) -> bytes:
        """What a line of ours begins with; ``side`` is BEGIN or END."""
        return b"%s %s reconcile %s" % (self.sign, side, self.name)

    def stands_in(self, line: bytes, side: bytes) -> bool:
        """Is this line a marker of ours?"""
        start = self.start(side)
        if not line.startswith(start):
            return False
        rest = line[len(start) :].rstrip(b"\r\n")
        if self.close:
            return not rest or rest.startswith(b" ")
        # Debian's crontab -l shows a carriage return as these two characters.
        return not rest.replace(b"\\r", b"") or rest.startswith(b" -- ")


@dataclass(frozen=True, slots=True)
class Split:
    """A text around our block.

    ``inner`` is what stands between our markers, None when there is no whole block; it belongs
    between ``before`` and ``after``. ``spare`` is what copies of the block hold. ``damaged`` is
    True where a marker of ours stands alone or is doubled. ``added`` is the check sum of the line
    behind which we have added a line end; ``new`` says that there was no text at all before us.
    ``end`` is how our own lines end.
    """

    before: bytes
    inner: bytes | None
    after: bytes
    spare: bytes = b""
    damaged: bool = False
    added: bytes | None = None
    new: bool = False
    end: bytes | None = None

    @property
    def others(self) -> bytes:
        """All that is not ours, with the end of its last line as it was before us."""
        return self.before + self.after if self.after else _restored(self.before, self.added)


def split(text: bytes, mark: BlockMark) -> Split:
    """Part a text into what is ours and what is not.

    The text is searched and never split into lines: that would take a hundred times its size.
    """
    markers = sorted((*_lines_like(text, mark, b"BEGIN"), *_lines_like(text, mark, b"END")))
    if not markers:
        return Split(text, None, b"")
    pairs = [(one, other) for one, other in pairwise(markers) if one.begins and not other.begins]
    head = pairs[0][0] if pairs else next((one for one in markers if one.begins), None)
    first = text[head.start : head.end] if head is not None else b""
    added = re.search(_ADDED, first) if b"(newline added" in first else None
    place = pairs[0][0].start if pairs else markers[0].start
    ours = sorted(
        {*((one.start, one.end) for one in markers), *((a.start, b.end) for a, b in pairs)}
    )
    before: list[bytes] = []
    after: list[bytes] = []
    at = 0
    for start, end in ours:
        if start >= at:
            (before if start <= place else after).append(text[at:start])
        at = max(at, end)
    after.append(text[at:])
    return Split(
        b"".join(before),
        text[pairs[0][0].end : pairs[0][1].start] if pairs else None,
        b"".join(after),
        b"".join(text[begin.end : end.start] for begin, end in pairs[1:]),
        len(pairs) != 1 or len(markers) != 2,
        added[1] if added else None,
        _NEW in first,
        (b"\r\n" if first.endswith(b"\r\n") else b"\n") if first else None,
    )


_MOST_COPIES = 1000


class MarkedText:
    """A text with many blocks, which is searched once for all of their markers."""

    def __init__(self, text: bytes) -> None:
        self.text = text
        self._spans: dict[bytes, dict[bytes, tuple[int, int]]] = {}

    def is_crowded(self, mark: BlockMark) -> bool:
        """Are there so many markers of it that a look at all of them would hold up a pass?"""
        span = self._spans_of(mark.sign).get(mark.name)
        if span is None:
            return False
        starts = [mark.start(side) for side in (b"BEGIN", b"END")]
        ends = (b"\n", b"\r", b"\\r", b" ")  # Other names may begin as this one does.
        counts = (self.text.count(one + end, *span) for one in starts for end in ends)
        return sum(counts) > _MOST_COPIES

    def find(self, mark: BlockMark) -> tuple[Split, int, int] | None:
        """The text around that block, and where the block begins and ends; None: not a marker.

        Of what stands before and after it, the parts of an undamaged one have only the line before.
        """
        span = self._spans_of(mark.sign).get(mark.name)
        if span is None:
            return None
        start, end = span
        before = self.text.rfind(b"\n", 0, max(0, start - 1)) + 1
        parts = split(self.text[before:end], mark)
        if parts.damaged:
            parts = split(self.text, mark)
        return None if parts.inner is None and not parts.damaged else (parts, start, end)

    def _spans_of(self, sign: bytes) -> dict[bytes, tuple[int, int]]:
        if sign not in self._spans:
            self._spans[sign] = self._searched(sign)
        return self._spans[sign]

    def _searched(self, sign: bytes) -> dict[bytes, tuple[int, int]]:
        """By name, where what looks like the first marker begins, and the last one ends."""
        found: dict[bytes, tuple[int, int]] = {}
        line = rb"^%s (?:BEGIN|END) reconcile (\S+ \S+)[^\n]*\n?" % re.escape(sign)
        for match in re.finditer(line, self.text, re.MULTILINE):
            name = match[1]
            end = len(name)
            while name.endswith(b"\\r", 0, end):
                end -= 2
            # As BlockMark.stands_in has it; not all that lie between, of which there may be many.
            for one in {name, name[: max(end, len(name) - 2)], name[:end]} - {b""}:
                start, _ = found.get(one, match.span())
                found[one] = start, match.end()
        return found


@dataclass(frozen=True, slots=True, order=True)
class _Marker:
    """A line of ours: where it begins and ends in the text, its own end included."""

    start: int
    end: int
    begins: bool


def _lines_like(text: bytes, mark: BlockMark, side: bytes) -> Iterator[_Marker]:
    start = mark.start(side)
    at = text.find(start)
    while at >= 0:
        if at == 0 or text[at - 1] == _LF:
            end = (text.find(b"\n", at) + 1) or len(text)
            if mark.stands_in(text[at:end], side):
                yield _Marker(at, end, side == b"BEGIN")
        at = text.find(start, at + 1)


def joined(parts: Split, mark: BlockMark, end: bytes = b"\n") -> bytes:
    """The text with one whole block of ``parts.inner``, whose lines end in ``end``."""
    before, added = parts.before, parts.added
    if before and not before.endswith(b"\n"):
        added = _check(before)
        before += end
    elif added is not None and _restored(before, added) == before:
        added = None  # A person has put more between that line and us.
    more = mark.tail
    if added is not None:
        more += b" (newline added after %s)" % added
    if parts.new:
        more += _NEW
    ours = mark.line(b"BEGIN", more, end) + (parts.inner or b"") + mark.line(b"END", b"", end)
    return before + ours + parts.after


def passed_on(parts: Split, after: bytes) -> bytes:
    """What stands behind a block that goes, with its note of the line end that we have added.

    It goes to the block that is the next one there: with the last one that line end goes again.
    """
    head, end, rest = after.partition(b"\n")
    first = re.match(rb".* BEGIN reconcile \S+ \S+(?: -- %s| \(%s\))" % (_UNDONE, _UNDONE), head)
    if parts.added is None or first is None or re.search(_ADDED, head):
        return after
    if _restored(parts.before, parts.added) == parts.before:
        return after
    at = first.end()
    note = b" (newline added after %s)" % parts.added
    return head[:at] + note + head[at:] + end + rest


def place_in(text: bytes, after: str | None, before: str | None) -> int:
    """Where a new block goes: behind the last line in which ``after`` is found, or in front of the
    first one of ``before``; where there is none, at the end. A line of a block is none.

    Raises UnknownState where it takes long: who writes the file decides what stands there.
    """
    expression = after if before is None else before
    if expression is None:
        return len(text)
    from reconciler.host.process_search import within

    with within(_SEARCHING, f"looking for {expression!r}, where the block goes,"):
        return _found_in(text, re.compile(expression).search, before is not None)


def _found_in(text: bytes, search: Callable[[str], object], is_before: bool) -> int:
    found = len(text)
    marker = re.compile(rb"\S+ (BEGIN|END) reconcile (\S+ \S+)")
    ends = re.finditer(rb"^\S+ END reconcile (\S+ \S+)", text, re.MULTILINE)
    last = {match[1]: match.start() for match in ends}
    inside, at = -1, 0
    while at < len(text):
        next_line = (text.find(b"\n", at) + 1) or len(text)
        line = text[at:next_line]
        match = marker.match(line) if b" reconcile " in line else None
        if match and match[1] == b"BEGIN":
            inside = max(inside, last.get(match[2], -1))
        if at > inside and search(line.rstrip(b"\r\n").decode("utf-8", "surrogateescape")):
            if is_before:
                return at
            found = next_line  # Behind a last line without an end is the end.
        at = next_line
    return found


def at_the_end(parts: Split) -> Split:
    """The same with the block below everything else."""
    if not parts.after:
        return parts
    return replace(parts, before=parts.before + parts.after, after=b"", added=None)


def _check(before: bytes) -> bytes:
    import zlib

    return b"%08x" % zlib.crc32(before.rpartition(b"\n")[2])


def _restored(before: bytes, added: bytes | None) -> bytes:
    """``before`` without the line end that we have added, if that is still its last."""
    if added is None:
        return before
    for end in (b"\r\n", b"\n"):
        bare = before.removesuffix(end)
        # Debian's crontab -l shows two control characters as two characters each.
        raw = bare.replace(b"\\r", b"\r").replace(b"\\b", b"\b")
        if bare != before and added in (_check(bare), _check(raw)):
            return bare
    return before
