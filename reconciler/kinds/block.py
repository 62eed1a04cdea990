"""Marked blocks in text files that people own too, such as ~/.bashrc.

It must not change a byte outside of its markers, nor move a block that stands somewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from reconciler.base.errors import HostError
from reconciler.base.records import dataclass, field, replace
from reconciler.core.fields import Name, Path, Text
from reconciler.core.kind import Described, Kind, Persistent
from reconciler.core.managed_block import BlockMark, Split, joined, split, word
from reconciler.core.model import ABSENT, Action, Change, Key, Observation, Resource, not_known

if TYPE_CHECKING:
    from reconciler.host import Host

_LIMIT = 16 * 2**20
_IN_ORDER = "in order"


@dataclass(frozen=True, slots=True)
class Block:
    """Lines in the file ``path`` between two comments that say whose they are."""

    path: Path
    content: Text
    comment: Name = "#"
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
    comment: str
    lines: str
    secret: bool = False

    def describe(self) -> str:
        """The action in words."""
        count = self.lines.count("\n")
        return f"write {self.block} into {self.path} ({count} line{'' if count == 1 else 's'})"

    def run(self, host: Host) -> None:
        """Raises HostError."""
        from reconciler.host.rewrite import rewrite

        mark = _mark(self.comment, host.owner, self.block)

        def edit(text: bytes | None) -> bytes:
            return _with(_parts(text, mark), mark, self.lines)

        path = host.files.real(self.path) or self.path
        rewrite(path, edit, _LIMIT, host.state_dir, born=0o600 if self.secret else 0o644)


@dataclass(frozen=True, slots=True)
class DropBlock:
    """Take the block out of its file; the file too, where it was made for the block alone."""

    path: str
    block: str
    comment: str
    lines: str

    def describe(self) -> str:
        """The action in words."""
        return f"take {self.block} out of {self.path}"

    def run(self, host: Host) -> None:
        """Raises HostError."""
        from reconciler.host.rewrite import rewrite

        mark = _mark(self.comment, host.owner, self.block)

        def edit(text: bytes | None) -> bytes | None:
            if text is None:
                return None
            parts = _parts(text, mark)
            left = _without_loose(parts, self.lines).others
            return None if not left and parts.new else left

        path = host.files.real(self.path)
        if path is not None:
            rewrite(path, edit, _LIMIT, host.state_dir)


class Blocks(Kind[Block, BlockState], Persistent, Described):
    """The section ``blocks``."""

    section = "blocks"
    resource = Block

    def check(self, want: Block) -> Iterable[tuple[str, str]]:
        if want.comment != want.comment.strip():
            yield "comment", "begins or ends with a blank, which would be lost in the marker"
        if "\r" in want.content:
            yield "content", "holds a carriage return; lines end as the others in the file do"
        for side in ("BEGIN", "END"):
            start = f"{want.comment} {side} reconcile "
            if any(line.startswith(start) for line in want.lines.split("\n")):
                yield "content", f"has a line that begins with {start!r}, as our markers do"

    def uses(self, want: Block) -> Iterable[Key]:
        return (Key("path", want.path),)

    def expected(self, want: Block) -> BlockState:
        return BlockState(want.lines)

    def observe(
        self, resources: Sequence[Resource[Block]], host: Host
    ) -> Sequence[Observation[BlockState]]:
        return [self._look(resource, host) for resource in resources]

    def _look(self, resource: Resource[Block], host: Host) -> Observation[BlockState]:
        want = resource.want
        try:
            text = _read(want.path, host)
        except HostError as error:
            return not_known(error)
        mark = _mark(want.comment, host.owner, resource.id)
        parts = _parts(text, mark)
        if text is None or (parts.inner is None and not parts.damaged):
            return ABSENT
        end = _line_end(parts)
        inner = (parts.inner or b"").decode("utf-8", "surrogateescape")
        content = inner.replace("\r\n", "\n") if end == b"\r\n" else inner
        seen = _hidden(content, want.lines) if want.secret else content
        if parts.damaged:
            return Observation(BlockState(seen, "one is missing or doubled"))
        whole = joined(replace(parts, inner=_lines(content, end)), mark, end)
        markers = _IN_ORDER if whole == text else "were edited"
        note = _read_by_others(want.path) if want.secret else None
        return Observation(BlockState(seen, markers), note=note)

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
        told = []
        for change in changes:
            if change.field == "content" and change.have is not None:
                told.append(_first_difference(change.have, change.want))
            elif change.field == "markers":
                told.append(f"its markers are not {change.want}: {change.have}")
            elif change.field == "state":
                told.append("it is absent" if change.have == "absent" else "it should be absent")
        return "; ".join(told)

    def actions(
        self, resource: Resource[Block], have: BlockState | None, changes: Sequence[Change]
    ) -> Sequence[Action]:
        want = resource.want
        if not resource.present:
            return (DropBlock(want.path, resource.id, want.comment, want.lines),)
        return (WriteBlock(want.path, resource.id, want.comment, want.lines, want.secret),)


def _mark(comment: str, spec: str, block: str) -> BlockMark:
    return BlockMark(comment.encode("utf-8", "surrogateescape"), word(spec) + b" " + word(block))


def _read(path: str, host: Host) -> bytes | None:
    """What the file holds; None when there is none. Raises HostError."""
    from reconciler.host.reading import read_in
    from reconciler.host.walk import opened, reported

    real = host.files.real(path)
    if real is None:
        return None
    parent, _, name = real.rpartition("/")
    with reported(f"cannot read {path}"), opened(parent) as folder:
        there = read_in(folder, name, path, _LIMIT)
    return None if there is None else there[0]


def _read_by_others(path: str) -> str | None:
    from reconciler.host.remedy import remedy
    from reconciler.host.trust import readers

    who = readers(path)
    if who is None:
        return None
    command = remedy("chmod", "go-r", path)
    return f"{path} holds a secret and is readable by {who}; fix it with: {command}"


def _parts(text: bytes | None, mark: BlockMark) -> Split:
    parts = split(text or b"", mark)
    return replace(parts, new=True) if text is None else parts


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


def _hidden(content: str, lines: str) -> str:
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


def _first_difference(have: str, want: str) -> str:
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


KIND = Blocks()
