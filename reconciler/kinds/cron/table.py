"""A crontab as one spec sees it: its own block, and all that is not its own. Pure.

It must not take a line for ours that a person could have written. Our block, one for each spec,
stands below everything else:

    # BEGIN reconcile SPEC -- changes up to its END are undone
    # reconcile SPEC cron:backup 1a2b3c4d
    30 3 * * * backup
    # END reconcile SPEC

The comment above a line is its tag: spec, id, and a check sum of the lines that go with it. It
tells our line from one that a person has put beside it, also where a marker was deleted.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Collection, Mapping

from reconciler.base.records import dataclass, replace
from reconciler.core.managed_block import (
    BlockMark,
    Split,
    at_the_end,
    joined,
    lines_of,
    split,
    word,
)
from reconciler.kinds.cron.lines import bare, setting

BELOW = "there are lines below it"
_FOREIGN = re.compile(rb"# (BEGIN|END) reconcile (\S+?)(?: -- .*)?")


@dataclass(frozen=True, slots=True)
class CronEntry:
    """One line of ours, with the MAILTO above it where it has one; without line ends.

    ``vouched``: the check sum of its tag says that it is as we wrote it.
    """

    line: bytes
    mailto: bytes | None = None
    vouched: bool = True

    @property
    def lines(self) -> tuple[bytes, ...]:
        """All lines of it."""
        return (self.line,) if self.mailto is None else (self.mailto, self.line)


@dataclass(frozen=True, slots=True)
class CronTable:
    """A crontab as one spec sees it. ``entries`` are ours, by id.

    ``trouble`` says in a few words what is wrong with our block as a whole, None when nothing.
    """

    spec: str
    user: str
    parts: Split
    entries: Mapping[str, CronEntry]
    trouble: str | None = None

    @property
    def marked(self) -> bool:
        """Is there anything of ours?"""
        return self.parts.inner is not None or self.parts.damaged or bool(self.entries)

    def others(self) -> frozenset[bytes]:
        """The person's lines, without their ends."""
        return frozenset(map(bare, _without_blocks(self.parts.before + self.parts.after)))

    def settings(self) -> dict[bytes, bytes]:
        """What the person's lines set for ours, which stand below them."""
        found: dict[bytes, bytes] = {}
        for line in _without_blocks(self.parts.before + self.parts.after):
            pair = setting(line)
            if pair is not None:
                found[pair[0]] = pair[1]
        return found

    def text(self, entries: Mapping[str, CronEntry]) -> bytes | None:
        """The whole crontab with these entries; None when there should be none at all."""
        if not entries:
            left = self.parts.others
            if not left and self.parts.new:
                return None
            # Where a person's last line had no end, crontab(1) would refuse what it was.
            return left + b"\n" if left and not left.endswith(b"\n") else left
        inner: list[bytes] = []
        mailto = False
        for name, entry in sorted(entries.items(), key=_place):
            inner += self._tagged(name, entry.lines)
            mailto = mailto or entry.mailto is not None
        if mailto:
            # Another spec's lines may follow.
            inner += self._tagged("mailto", (self._mailto(),))
        return joined(replace(self.parts, inner=b"".join(inner)), _mark(self.spec))

    def _tagged(self, name: str, lines: tuple[bytes, ...]) -> list[bytes]:
        tag = b"%s%s %s" % (_tag(self.spec), word(name), _sum(lines))
        return [line + b"\n" for line in (tag, *lines)]

    def _mailto(self) -> bytes:
        lines = _without_blocks(self.parts.before + self.parts.after)
        for line in reversed(lines):
            pair = setting(line)
            if pair is not None and pair[0] == b"MAILTO":
                return bare(line)
        return b"MAILTO=" + self.user.encode("utf-8", "surrogateescape")


def table(text: bytes | None, spec: str, user: str) -> CronTable:
    """Read a crontab; None is one that is not there."""
    mark = _mark(spec)
    parts = split(text or b"", mark)
    if text is None:
        parts = replace(parts, new=True)
    entries: dict[str, CronEntry] = {}
    if parts.inner is None and not parts.damaged and _tag(spec) not in parts.before:
        return CronTable(spec, user, parts, entries)
    trouble = "a marker is missing or doubled" if parts.damaged else None
    kept = _parted(lines_of(parts.inner or b""), spec, entries, False)
    spared = _parted(lines_of(parts.spare), spec, {}, False)
    before = _loose(parts.before, spec, entries)
    after = _loose(parts.after, spec, entries)
    if trouble is None and (before, after) != (parts.before, parts.after):
        trouble = "lines of it stand outside of it"
    if kept or spared:
        trouble = trouble or "there are lines in it that are not ours"
        if before and not before.endswith(b"\n"):
            before += b"\n"
        before += b"".join(kept + spared)
    parts = replace(parts, before=before, after=after)
    if _without_blocks(after):
        trouble = trouble or BELOW
        parts = at_the_end(parts)
    made = CronTable(spec, user, parts, entries)
    if trouble is None and made.text(entries) != text:
        trouble = "its own lines were edited" if entries else "there is nothing in it"
    return replace(made, trouble=trouble)


def without(old: CronTable, lines: Collection[bytes]) -> CronTable:
    """The table without these lines of a person's."""
    if not lines:
        return old
    before, after = (
        b"".join(one for one in lines_of(part) if bare(one) not in lines)
        for part in (old.parts.before, old.parts.after)
    )
    return replace(old, parts=replace(old.parts, before=before, after=after))


def changed(old: CronTable, entries: Mapping[str, CronEntry | None]) -> bytes | None:
    """The crontab with these entries, without those that are None, and our block in order."""
    made = {name: entry for name, entry in entries.items() if entry is not None}
    if made and old.trouble is not None:
        # A line that lost its tag and is the same is no line of a person's.
        ours = {entry.line for entry in made.values()}
        lines = [one for one in lines_of(old.parts.before) if one.rstrip(b"\n") not in ours]
        old = replace(old, parts=replace(old.parts, before=b"".join(lines)))
    left = {name: entry for name, entry in old.entries.items() if name not in entries}
    return old.text(left | made)


def _mark(spec: str) -> BlockMark:
    return BlockMark(b"#", word(spec))


def _tag(spec: str) -> bytes:
    return b"# reconcile %s " % word(spec)


def _sum(lines: tuple[bytes, ...]) -> bytes:
    return b"%08x" % zlib.crc32(b"\n".join(lines))


def _named(tag: bytes, spec: str) -> tuple[str, bytes]:
    """Id and check sum of a tag."""
    name, _, check = tag.removeprefix(_tag(spec)).strip().partition(b" ")
    plain = re.sub(rb"%([0-9A-F]{2})", lambda found: bytes([int(found[1], 16)]), name)
    return plain.decode("utf-8", "surrogateescape"), check


def _place(pair: tuple[str, CronEntry]) -> tuple[bool, str]:
    """By id, but those that set MAILTO below those that do not."""
    return pair[1].mailto is not None, pair[0]


def _group(lines: list[bytes], at: int) -> tuple[bytes, ...]:
    """The lines that go with the tag at ``at``, without their ends."""
    found: list[bytes] = []
    for line in lines[at + 1 : at + 3]:
        pair = setting(line)
        if not line.strip() or line.startswith(b"#") or (pair and (found or pair[0] != b"MAILTO")):
            break
        found.append(line.rstrip(b"\n"))
        if pair is None:
            break
    return tuple(found)


def _loose(text: bytes, spec: str, entries: dict[str, CronEntry]) -> bytes:
    """A text outside of our block without what is surely ours in it."""
    if _tag(spec) not in text:
        return text
    return b"".join(_parted(lines_of(text), spec, entries, True))


def _parted(
    lines: list[bytes], spec: str, entries: dict[str, CronEntry], strictly: bool
) -> list[bytes]:
    """``strictly``: only what our own check sum vouches for is not a person's."""
    left: list[bytes] = []
    at = 0
    while at < len(lines):
        line = lines[at]
        at += 1
        name, check = _named(line, spec) if line.startswith(_tag(spec)) else ("", b"")
        if not name or (strictly and not re.fullmatch(rb"[0-9a-f]{8}", check)):
            left.append(line)
            continue
        group = _group(lines, at - 1)[: 1 if name == "mailto" else 2]
        vouched = check == _sum(group)
        if group and (vouched or not strictly):
            at += len(group)
            if setting(group[-1]) is None:
                mailto = group[0] if len(group) > 1 else None
                entries.setdefault(name, CronEntry(group[-1], mailto, vouched))
    return left


def _without_blocks(text: bytes) -> list[bytes]:
    """The lines that stand in no block of another spec."""
    lines = lines_of(text)
    if b"# BEGIN reconcile " not in text:
        return lines
    markers = [_FOREIGN.fullmatch(bare(one)) if one[:2] == b"# " else None for one in lines]
    ends: dict[bytes, list[int]] = {}
    for at in range(len(lines) - 1, -1, -1):
        found = markers[at]
        if found is not None and found[1] == b"END":
            ends.setdefault(found[2], []).append(at)
    left: list[bytes] = []
    at = 0
    while at < len(lines):
        found = markers[at]
        if found is not None and found[1] == b"BEGIN":
            behind = ends.get(found[2], [])
            while behind and behind[-1] < at:
                behind.pop()
            if behind:
                at = behind[-1] + 1
                continue
        left.append(lines[at])
        at += 1
    return left
