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
import zlib
from itertools import pairwise

from reconciler.records import dataclass, replace

_TAIL = b" -- changes up to its END are undone"
_ADDED = re.compile(rb" \(newline added after ([0-9a-f]{8})\)")
_NEW = b" (nothing was here before)"
_PLAIN = re.compile(rb"[^\x00-\x20%\x7f]")


def word(name: str) -> bytes:
    """A name as one word without blanks or control characters, so that no name begins another."""
    data = name.encode("utf-8", "surrogateescape")
    return b"".join(
        one if _PLAIN.fullmatch(one) else b"%%%02X" % one[0]
        for one in (data[at : at + 1] for at in range(len(data)))
    )


def lines_of(text: bytes) -> list[bytes]:
    """The lines with their ends; only LF ends a line, as cron(8) has it."""
    lines = text.split(b"\n")
    last = lines.pop()
    return [line + b"\n" for line in lines] + ([last] if last else [])


@dataclass(frozen=True, slots=True)
class Mark:
    """What our markers look like: the sign that begins a comment, and the block's name."""

    sign: bytes
    name: bytes

    def begins(self, line: bytes) -> bool:
        """Is this line a BEGIN of ours?"""
        return self._is(line, b"BEGIN")

    def ends(self, line: bytes) -> bool:
        """Is this line an END of ours?"""
        return self._is(line, b"END")

    def _is(self, line: bytes, side: bytes) -> bool:
        start = b"%s %s reconcile %s" % (self.sign, side, self.name)
        if not line.startswith(start):
            return False
        rest = line[len(start) :].rstrip(b"\r\n")
        # Debian's crontab -l shows a carriage return as these two characters.
        return rest in (b"", b"\\r") or rest.startswith(b" -- ")


@dataclass(frozen=True, slots=True)
class Split:
    """A text around our block.

    ``inner`` holds the lines between our markers, None when there is no whole block; it belongs
    between ``before`` and ``after``. ``damaged`` is True where a marker of ours stands alone or
    is doubled. ``added`` is the check sum of the line behind which we have added a line end;
    ``new`` says that there was no text at all before us. ``end`` is how our own lines end.
    """

    before: bytes
    inner: tuple[bytes, ...] | None
    after: bytes
    spare: tuple[bytes, ...] = ()
    damaged: bool = False
    added: bytes | None = None
    new: bool = False
    end: bytes | None = None

    @property
    def others(self) -> bytes:
        """All that is not ours, with the end of its last line as it was before us."""
        return self.before + self.after if self.after else _restored(self.before, self.added)


def split(text: bytes, mark: Mark) -> Split:
    """Part a text into what is ours and what is not."""
    lines = lines_of(text)
    markers = [
        (at, mark.begins(line))
        for at, line in enumerate(lines)
        if line.startswith(mark.sign) and (mark.begins(line) or mark.ends(line))
    ]
    if not markers:
        return Split(text, None, b"")
    pairs = [
        (at, end)
        for (at, begins), (end, begins_too) in pairwise(markers)
        if begins and not begins_too
    ]
    place = pairs[0][0] if pairs else markers[0][0]
    ours = {at for at, _ in markers}
    spare: list[bytes] = []
    for number, (begin, end) in enumerate(pairs):
        ours.update(range(begin, end + 1))
        if number:
            spare += lines[begin + 1 : end]
    head = lines[pairs[0][0]] if pairs else next((lines[at] for at, b in markers if b), b"")
    added = _ADDED.search(head)
    return Split(
        b"".join(line for at, line in enumerate(lines[:place]) if at not in ours),
        tuple(lines[pairs[0][0] + 1 : pairs[0][1]]) if pairs else None,
        b"".join(line for at, line in enumerate(lines[place:], place) if at not in ours),
        tuple(spare),
        len(pairs) != 1 or len(markers) != 2,
        added[1] if added else None,
        _NEW in head,
        (b"\r\n" if head.endswith(b"\r\n") else b"\n") if head else None,
    )


def joined(parts: Split, mark: Mark, end: bytes = b"\n") -> bytes:
    """The text with one whole block of ``parts.inner``, whose lines end in ``end``."""
    before, added = parts.before, parts.added
    if before and not before.endswith(b"\n"):
        added = _check(before)
        before += end
    elif added is not None and _restored(before, added) == before:
        added = None  # A person has put more between that line and us.
    head = b"%s BEGIN reconcile %s%s" % (mark.sign, mark.name, _TAIL)
    if added is not None:
        head += b" (newline added after %s)" % added
    if parts.new:
        head += _NEW
    inner = b"".join(parts.inner or ())
    tail = b"%s END reconcile %s" % (mark.sign, mark.name)
    return before + head + end + inner + tail + end + parts.after


def at_the_end(parts: Split) -> Split:
    """The same with the block below everything else."""
    if not parts.after:
        return parts
    return replace(parts, before=parts.before + parts.after, after=b"", added=None)


def _check(before: bytes) -> bytes:
    return b"%08x" % zlib.crc32(before.rpartition(b"\n")[2])


def _restored(before: bytes, added: bytes | None) -> bytes:
    """``before`` without the line end that we have added, if that is still its last."""
    if added is None:
        return before
    for end in (b"\r\n", b"\n"):
        bare = before.removesuffix(end)
        if bare != before and _check(bare) == added:
            return bare
    return before
