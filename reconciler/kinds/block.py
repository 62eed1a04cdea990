"""Marked blocks in text files that people own too, such as ~/.bashrc.

It must not change a byte outside of its markers, nor move a block that stands somewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from reconciler.base.errors import HostError
from reconciler.base.records import dataclass, field, replace
from reconciler.core.claims import Declarations, Key
from reconciler.core.fields import Comment, Path, Regex, Text
from reconciler.core.kind import Batched, Completed, Described, Kind, Persistent
from reconciler.core.managed_block import (
    BlockMark,
    MarkedText,
    Split,
    joined,
    passed_on,
    place_in,
    split,
    word,
)
from reconciler.core.model import (
    ABSENT,
    Action,
    Change,
    Observation,
    Resource,
    not_known,
)

if TYPE_CHECKING:
    from reconciler.host import Host

_LIMIT = 16 * 2**20
_IN_ORDER = "in order"


@dataclass(frozen=True, slots=True)
class Block:
    """Lines in the file ``path`` between two comments that say whose they are."""

    path: Path
    """The file; its folder must be there."""
    content: Text
    """The lines of the block."""
    comment: Comment = ("#",)
    """What begins a comment in that file; or also what ends it: ["<!--", "-->"]."""
    after: Regex | None = None
    """A new block goes behind the last line in which this is found, or else to the end."""
    before: Regex | None = None
    """A new block goes in front of the first line in which this is found, or else to the end."""
    secret: bool = field(default=False, metadata={"written": False, "secret": True})
    """Does a value of the environment stand in it?"""

    @property
    def lines(self) -> str:
        """The content as whole lines."""
        return self.content if not self.content or self.content.endswith("\n") else (
            f"{self.content}\n"
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class BlockState:
    """What stands between the markers, and whether both are there as they should be."""

    content: str
    markers: str = _IN_ORDER


@dataclass(frozen=True, slots=True)
class WriteBlock:
    """Put the block into its file, or in the place of the one that is there."""

    path: str
    block: str
    comment: tuple[str, ...]
    lines: str
    secret: bool = False
    after: str | None = None
    before: str | None = None

    def describe(self) -> str:
        count = self.lines.count("\n")
        return f"write {self.block} into {self.path} ({count} line{'' if count == 1 else 's'})"

    def run(self, host: Host) -> None:
        _edit(self.path, (self,), host)


@dataclass(frozen=True, slots=True)
class DropBlock:
    """Take the block out of its file; the file too, where it was made for the block alone."""

    path: str
    block: str
    comment: tuple[str, ...]
    lines: str

    def describe(self) -> str:
        return f"take {self.block} out of {self.path}"

    def run(self, host: Host) -> None:
        _edit(self.path, (self,), host)


class Blocks(Kind[Block, BlockState], Completed, Persistent, Described, Batched):
    """The section ``blocks``."""

    section = "blocks"
    resource = Block

    def check(self, want: Block) -> Iterable[tuple[str, str]]:
        if any(sign != sign.strip() for sign in want.comment):
            yield "comment", "begins or ends with a blank, which would be lost in the marker"
        if want.after is not None and want.before is not None:
            yield "before", "write either after or before, not both"
        if "\r" in want.content:
            yield "content", "holds a carriage return; lines end as the others in the file do"
        for side in ("BEGIN", "END"):
            start = f"{want.comment[0]} {side} reconcile "
            if any(line.startswith(start) for line in want.lines.split("\n")):
                yield "content", f"has a line that begins with {start!r}, as our markers do"

    def linked(self, want: Block, declared: Declarations) -> Block:
        others = declared.claims.get(Key("path", want.path), ())
        if any(claim.asks.get("type") == "a file" for claim in others):
            words = "is also in 'files', which would take the block out; put the lines in there"
            raise ValueError("path", words)
        return want

    def uses(self, want: Block) -> Iterable[Key]:
        return (Key("path", want.path),)

    def expected(self, want: Block) -> BlockState:
        return BlockState(want.lines)

    def observe(
        self, resources: Sequence[Resource[Block]], host: Host
    ) -> Sequence[Observation[BlockState]]:
        texts: dict[str, MarkedText | HostError] = {}
        for resource in resources:
            path = resource.want.path
            if path not in texts:
                try:
                    texts[path] = MarkedText(_read(path, host))
                except HostError as error:
                    texts[path] = error
        return [_look(resource, texts[resource.want.path], host) for resource in resources]

    def changes(self, expected: BlockState | None, have: BlockState | None) -> tuple[Change, ...]:
        if expected is None or have is None:
            if expected is have:
                return ()
            if expected is None:
                return (Change("state", "present", "absent"),)
            content = Change("content", None, expected.content)
            return (Change("state", "absent", "present"), content)
        return super().changes(expected, have)

    def words(self, changes: Sequence[Change]) -> str:
        from reconciler.core.text_difference import first_difference

        told = []
        for change in changes:
            if change.field == "content" and change.have is not None:
                told.append(first_difference(change.have, change.want))
            elif change.field == "markers":
                told.append(f"its markers are not {change.want}: {change.have}")
            elif change.field == "state":
                told.append("missing" if change.have == "absent" else "present, should be absent")
        return "; ".join(told)

    def actions(
        self, resource: Resource[Block], have: BlockState | None, changes: Sequence[Change]
    ) -> Sequence[Action]:
        want = resource.want
        if not resource.present:
            return (DropBlock(want.path, resource.id, want.comment, want.lines),)
        place = want.secret, want.after, want.before
        return (WriteBlock(want.path, resource.id, want.comment, want.lines, *place),)

    def run_all(self, actions: Sequence[Action], host: Host) -> Sequence[Exception | None]:
        edits = [action for action in actions if isinstance(action, (WriteBlock, DropBlock))]
        by_path: dict[str, list[WriteBlock | DropBlock]] = {}
        for edit in edits:
            by_path.setdefault(edit.path, []).append(edit)
        errors: dict[str, Exception] = {}
        for path, its in by_path.items():
            try:
                _edit(path, its, host)
            except Exception as error:
                errors[path] = error
        return [errors.get(edit.path) for edit in edits]


def _mark(comment: tuple[str, ...], spec: str, block: str) -> BlockMark:
    sign, *close = (one.encode("utf-8", "surrogateescape") for one in comment)
    name = word(spec) + b" " + word(block)
    if close:  # No -- may stand in a comment of XML.
        name = name.replace(b"--", b"-%2D")
    return BlockMark(sign, name, *close)


def _edit(path: str, edits: Sequence[WriteBlock | DropBlock], host: Host) -> None:
    """Rewrite the file once for all of them. Raises HostError."""
    from reconciler.host.rewrite import rewrite

    secret = any(isinstance(edit, WriteBlock) and edit.secret for edit in edits)
    real = host.files.real(path)
    if real is None and not any(isinstance(edit, WriteBlock) for edit in edits):
        return
    rewrite(
        real or path,
        lambda text: edited(text, edits, host.owner),
        _LIMIT,
        host.state_dir,
        born=0o600 if secret else 0o644,
    )


def edited(text: bytes | None, edits: Sequence[WriteBlock | DropBlock], owner: str) -> bytes | None:
    """The text of a file after these edits of different blocks; None: no file. Pure.

    What is not damaged is edited in its own place, without a look at the rest: there may be many.
    """
    marked = MarkedText(text or b"")
    inside: list[tuple[int, int, Split, BlockMark, WriteBlock | DropBlock]] = []
    damaged: list[tuple[BlockMark, WriteBlock | DropBlock]] = []
    new: list[tuple[BlockMark, WriteBlock]] = []
    alone = False
    for edit in edits:
        mark = _mark(edit.comment, owner, edit.block)
        if (found := marked.find(mark)) is not None:
            parts, start, end = found
            alone = alone or (parts.new and isinstance(edit, DropBlock))
            if parts.damaged:
                damaged.append((mark, edit))
            else:
                inside.append((start, end, parts, mark, edit))
        elif isinstance(edit, WriteBlock):
            new.append((mark, edit))
    if text is None and not new:
        return None
    made = _edited_inside(marked.text, inside)
    for mark, edit in damaged:
        made = _edited_one(split(made, mark), mark, edit)
    made = _with_new(made, new, text is None)
    return None if alone and not made else made


def _edited_one(parts: Split, mark: BlockMark, edit: WriteBlock | DropBlock) -> bytes:
    if isinstance(edit, WriteBlock):
        return _with(parts, mark, edit.lines)
    loose = _without_loose(parts, edit.lines)
    return replace(loose, after=passed_on(loose, loose.after)).others


def _edited_inside(
    text: bytes, inside: Iterable[tuple[int, int, Split, BlockMark, WriteBlock | DropBlock]]
) -> bytes:
    """From the last one to the first, so that it is known whether something follows."""
    pieces: list[bytes] = []
    at, follows = len(text), b""
    for start, end, parts, mark, edit in sorted(inside, key=lambda one: one[0], reverse=True):
        pieces.append(text[end:at])
        if parts.added is not None and isinstance(edit, DropBlock):
            pieces = [passed_on(parts, b"".join(reversed(pieces)))]
        follows = follows or text[end:at][:1]
        made = _edited_one(replace(parts, after=follows), mark, edit)
        made = made[: len(made) - len(follows)]
        # Without anything behind it, it may take the end of the line before with it.
        at = start - len(parts.before) + min(len(parts.before), len(made))
        pieces.append(made[len(parts.before) :])
        follows = follows or made[len(parts.before) :][:1]
    pieces.append(text[:at])
    return b"".join(reversed(pieces))


def _with_new(text: bytes, new: Iterable[tuple[BlockMark, WriteBlock]], is_new: bool) -> bytes:
    """With new blocks at their places: by default behind all that is there."""
    end = _line_end(Split(text, None, b""))
    places: dict[tuple[str | None, str | None], int] = {}
    inside: dict[int, list[bytes]] = {}
    last: list[bytes] = [text]
    for mark, edit in new:
        place = edit.after, edit.before
        if place not in places:
            places[place] = place_in(text, *place)
        if places[place] < len(text):
            made = _with(Split(b"", None, b"", end=end), mark, edit.lines)
            inside.setdefault(places[place], []).append(made)
            continue
        line = last[-1][last[-1].rfind(b"\n", 0, max(0, len(last[-1]) - 1)) + 1 :]
        parts = Split(line, None, b"", new=is_new, end=end)
        last.append(_with(parts, mark, edit.lines)[len(line) :])
        is_new = False
    pieces: list[bytes] = []
    at = 0
    for place_at, blocks in sorted(inside.items()):
        pieces += [text[at:place_at], *blocks]
        at = place_at
    return b"".join([*pieces, text[at:], *last[1:]])


def _line_end(parts: Split) -> bytes:
    """How the lines of the file end: as ours do there, or else as its first one does."""
    if parts.end is not None:
        return parts.end
    first, end, _ = (parts.before or parts.after).partition(b"\n")
    return b"\r\n" if end and first.endswith(b"\r") else b"\n"


def _lines(content: str, end: bytes) -> bytes:
    data = content.encode("utf-8", "surrogateescape")
    if data and not data.endswith(b"\n"):
        data += b"\n"
    return data.replace(b"\n", end) if end != b"\n" else data


def _with(parts: Split, mark: BlockMark, lines: str) -> bytes:
    end = _line_end(parts)
    if parts.inner is None:
        parts = _without_loose(parts, lines)
        if not parts.damaged:
            parts = replace(parts, before=parts.before + parts.after, after=b"")
    return joined(replace(parts, inner=_lines(lines, end)), mark, end)


def _without_loose(parts: Split, lines: str) -> Split:
    """Beside a marker without its other half, exactly our lines are ours, and nothing else."""
    ours = _lines(lines, _line_end(parts))
    if parts.inner is not None or not parts.damaged or not ours:
        return parts
    if parts.after.startswith(ours):
        return replace(parts, after=parts.after.removeprefix(ours))
    return replace(parts, before=parts.before.removesuffix(ours))


def _read(path: str, host: Host) -> bytes:
    """What the file holds; nothing when there is none. Raises HostError."""
    from reconciler.host.reading import read_in
    from reconciler.host.walk import opened, reported

    real = host.files.real(path)
    if real is None:
        return b""
    parent, _, name = real.rpartition("/")
    with reported(f"cannot read {path}"), opened(parent) as folder:
        there = read_in(folder, name, path, _LIMIT)
    return b"" if there is None else there[0]


def _look(
    resource: Resource[Block], text: MarkedText | HostError, host: Host
) -> Observation[BlockState]:
    if isinstance(text, HostError):
        return not_known(text)
    want = resource.want
    mark = _mark(want.comment, host.owner, resource.id)
    if text.is_crowded(mark):
        return Observation(unknown=f"{want.path} is full of copies of it; take them out by hand")
    found = text.find(mark)
    if found is None:
        return ABSENT
    parts, start, end = found
    line_end = _line_end(parts)
    inner = (parts.inner or b"").decode("utf-8", "surrogateescape")
    content = inner.replace("\r\n", "\n") if line_end == b"\r\n" else inner
    seen = content
    if want.secret:
        from reconciler.core.text_difference import hidden

        seen = hidden(content, want.lines)
    if parts.damaged:
        return Observation(BlockState(seen, "one is missing or doubled"))
    whole = joined(replace(parts, inner=_lines(content, line_end)), mark, line_end)
    markers = _IN_ORDER if whole == parts.before + text.text[start:end] else "were edited"
    note = _read_by_others(want.path) if want.secret else None
    return Observation(BlockState(seen, markers), note=note)


def _read_by_others(path: str) -> str | None:
    from reconciler.host.remedy import remedy
    from reconciler.host.writers import readers

    who = readers(path)
    if who is None:
        return None
    command = remedy("chmod", "go-r", path)
    return f"{path} holds a secret and is readable by {who}; fix it with: {command}"


KIND = Blocks()
