"""Mode, owner and group of what already exists, one path or whole trees.

It must not create anything, and it never follows a symlink that somebody else could have made.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING

from reconciler.base.errors import Remedy, UnknownState
from reconciler.base.records import dataclass, field, replace
from reconciler.core.attributes import Attributes, Barred, SetAttributes, barred, by_hand, judged
from reconciler.core.claims import Claim, Declarations, Key
from reconciler.core.fields import Flag, Mode, Name, Path
from reconciler.core.kind import Completed, Described, Following, Kind, Verified
from reconciler.core.model import (
    ABSENT,
    Action,
    Change,
    Observation,
    Resource,
    not_known,
)
from reconciler.core.patterns import as_matched, never
from reconciler.host.walk import shown, sort_of
from reconciler.kinds.permission.entries import (
    FormerEntries,
    FormerEntry,
    PackedEntries,
    SetOnAll,
    WrongEntries,
    WrongEntry,
)

if TYPE_CHECKING:
    from reconciler.host import Host

_MOST_CHANGES = 20
_MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class Permission:
    """Mode, owner and group of what exists at ``path``, which may be a glob.

    ``exclude`` holds globs for names, or for paths below ``path``, that are left alone.
    """

    path: Path
    """What is there already; a glob means all that it matches."""
    mode: Mode | None = None
    """Permission bits in quotes, such as "0644"."""
    file_mode: Mode | None = None
    """The mode of files, where that of directories is another one."""
    dir_mode: Mode | None = None
    """The mode of directories, where that of files is another one."""
    owner: Name | None = None
    """A user, by name or number."""
    group: Name | None = None
    """A group, by name or number."""
    recursive: Flag = False
    """All below it as well, on the same file system."""
    exclude: tuple[Name, ...] = ()
    """Globs for names, or for paths below path, that are left alone."""
    spared: tuple[tuple[str, tuple[str, ...]], ...] = field(default=(), metadata={"written": False})
    """Paths that are declared by themselves, with the fields for which that counts."""
    former: tuple[FormerEntry, ...] | None = field(default=None, metadata={"written": False})
    """What each path had before a pass, which is all that is asked."""


class Permissions(Kind[Permission, WrongEntries], Completed, Described, Verified, Following):
    """The section ``permissions``."""

    section = "permissions"
    resource = Permission

    def check(self, want: Permission) -> Iterable[tuple[str, str]]:
        if want.mode is not None and (want.file_mode or want.dir_mode):
            yield "mode", "write either mode, or file_mode and dir_mode, not both"
        if not (want.mode or want.file_mode or want.dir_mode or want.owner or want.group):
            yield "path", "asks for nothing; give it a mode, an owner or a group"
        if "**" in want.path:
            yield "path", "'**' is not a glob here; name the folder and write recursive: true"
        if want.exclude and not want.recursive and not _is_glob(want.path):
            yield "exclude", "excludes nothing from a single path; write recursive: true"
        yield from never(want.path, want.exclude)

    def named(self, want: Permission, name: str) -> Permission:
        return replace(want, exclude=tuple(map(as_matched, want.exclude)))

    def claims(self, want: Permission) -> Iterable[Claim]:
        asks = _asked(want, True).asks()
        # With exceptions it cannot be said in general what is asked below.
        below = asks if want.recursive and not want.exclude else {}
        covers = partial(_covers, want) if want.recursive or _is_glob(want.path) else None
        files = _asked(want, False).asks()
        return (Claim(Key("path", want.path), asks, below, covers, files, want.recursive),)

    def linked(self, want: Permission, declared: Declarations) -> Permission:
        found = declared.spared.get(Key("path", want.path))
        return replace(want, spared=tuple(sorted(found.items()))) if found else want

    def uses(self, want: Permission) -> Iterable[Key]:
        parts = want.path.split("/")
        return (Key("path", "/".join(parts[: _first_glob(parts)]) or "/"),)

    def expected(self, want: Permission) -> WrongEntries:
        return WrongEntries()

    def observe(
        self, resources: Sequence[Resource[Permission]], host: Host
    ) -> Sequence[Observation[WrongEntries]]:
        return [self._look(resource.want, host) for resource in resources]

    def _look(self, want: Permission, host: Host) -> Observation[WrongEntries]:
        left_out: list[str] = []
        glob = _is_glob(want.path)
        former = None if want.former is None else FormerEntries(want.former)
        try:
            if glob:
                from reconciler.host.globs import matching

                roots = matching(host.files, want.path, left_out)
            else:
                roots = [want.path]
                status = host.files.status(want.path)
                if status is None:
                    return ABSENT
                if not stat.S_ISDIR(status.st_mode) and os.path.islink(want.path):
                    what = f"{want.path} is a symlink to {sort_of(status)}"
                    return Observation(unknown=f"{what}; write the path that it leads to")
            if roots:
                _asked(want, True).numbers(host)  # Is there such an owner?
            wrongs = PackedEntries()
            for root in roots:
                try:
                    for one in self._wrong_below(root, want, host, left_out, former):
                        if former is None or former.was_given(one):
                            wrongs.append(one)
                except UnknownState as error:
                    if not glob:
                        raise
                    left_out.append(str(error))
        except UnknownState as error:
            return not_known(error)
        refused = [one.reason for one in wrongs.refused()]
        denied = refused[0] if refused and len(refused) == len(wrongs) else None
        notes = [*_spared(want), *_left_out(left_out)]
        if refused and denied is None:
            notes.append(f"{len(refused)} of {len(wrongs)} are refused: {refused[0]}")
        note, unsure = "; ".join(notes) or None, former.changed() if former else None
        return Observation(WrongEntries(wrongs or ()), note=note, denied=denied, unsure=unsure)

    def _wrong_below(
        self,
        root: str,
        want: Permission,
        host: Host,
        left_out: list[str],
        former: FormerEntries | None,
    ) -> Iterator[WrongEntry]:
        found = host.files.looked_at(root)
        if found is None or _excluded(root, os.path.dirname(root), want.exclude):
            return
        status, exposed = found
        named = not _is_glob(want.path)
        directory = stat.S_ISDIR(status.st_mode)
        asks = _Asks(want) if former is None else former
        asked = asks.of_entry(root, status, host)
        have: Attributes | Barred = asked.seen(status, host)
        if exposed or have != asked:
            have = judged(asked, root, status, host, named)
        if have != asked:
            identity = status.st_dev, status.st_ino
            yield _wrong(root, have, asked, directory, named, None, identity)
        if not want.recursive or not directory:
            return
        excluded = partial(_excluded, root=root, patterns=want.exclude) if want.exclude else None
        right = _right(want, host) if former is None else lambda status: False
        below = host.files.tree(root, excluded, right)
        for path, entry in below:
            asked = asks.of_entry(path, entry, host)
            if asked.seen(entry, host) is asked or below.is_mounted(path):
                continue
            refused = below.refused(path, entry, *asked.numbers(host))
            have = barred(asked.seen(entry, host), refused, entry, host)
            identity = entry.st_dev, entry.st_ino
            yield _wrong(path, have, asked, stat.S_ISDIR(entry.st_mode), False, root, identity)
        left_out += below.left_out()

    def changes(
        self, expected: WrongEntries | None, have: WrongEntries | None
    ) -> tuple[Change, ...]:
        if expected is None:
            return ()
        if have is None:
            return (Change("state", "absent", "present"),)
        alone = len(have.paths) == 1
        found = [
            one if alone else replace(one, field=f"{one.field} of {shown(wrong.path)}")
            for wrong in have.paths[:_MOST_CHANGES]
            for one in wrong.want.differences(wrong.have, wrong.refused)
        ]
        more = len(have.paths) - _MOST_CHANGES
        if more > 0:
            found.append(Change("paths", f"{more} more differ", "as asked"))
        return tuple(found)

    def actions(
        self, resource: Resource[Permission], have: WrongEntries | None, changes: Sequence[Change]
    ) -> Sequence[Action]:
        return SetOnAll(have.paths if have is not None else ())

    def stale(self, planned: Sequence[Action], now: Sequence[Action]) -> bool:
        return planned != now

    def by_hand(
        self, resource: Resource[Permission], have: WrongEntries | None, changes: Sequence[Change]
    ) -> Sequence[Remedy]:
        return by_hand(one.refused for one in (have.paths if have else ()) if one.refused)

    def touched(self, have: WrongEntries) -> Iterable[tuple[str, bool]]:
        return ((one.path, one.directory) for one in have.paths)

    def left(
        self, planned: Sequence[Action], found: Sequence[Change], have: WrongEntries | None
    ) -> Sequence[Change]:
        if have is None:
            return found
        wrong = {(one.path, one.identity): one for one in have.paths}
        found_again = (
            wrong.get((one.path, one.identity))
            for one in (planned if wrong else ())
            if isinstance(one, SetAttributes)
        )
        still = tuple(one for one in found_again if one is not None)
        return self.changes(WrongEntries(), WrongEntries(still)) if still else ()


def _wrong(
    path: str,
    have: Attributes | Barred,
    want: Attributes,
    directory: bool,
    named: bool,
    top: str | None = None,
    identity: tuple[int, int] = (0, 0),
) -> WrongEntry:
    if isinstance(have, Barred):
        return WrongEntry(path, have.have, want, directory, named, top, identity, have.refused)
    return WrongEntry(path, have, want, directory, named, top, identity)


def _covers(want: Permission, path: str) -> bool:
    """Is it about that path, by its glob or as the top of a tree? Pure."""
    parts, mine = path.split("/"), want.path.split("/")
    if len(parts) < len(mine) or (len(parts) > len(mine) and not want.recursive):
        return False
    root = "/".join(parts[: len(mine)])
    # A glob as glob(7) has it: '*' does not match '/', nor a dot at the beginning.
    fits = all(
        fnmatchcase(one, pattern) and not (one.startswith(".") and not pattern.startswith("."))
        for one, pattern in zip(parts, mine, strict=False)
    )
    if not fits:
        return False
    if path == root:
        return not _excluded(path, os.path.dirname(root), want.exclude)
    # What is excluded is not entered either.
    below = ["/".join(parts[:count]) for count in range(len(mine) + 1, len(parts) + 1)]
    return not any(_excluded(one, root, want.exclude) for one in below)


def _right(want: Permission, host: Host) -> Callable[[os.stat_result], bool]:
    """Is there nothing to set on what has that status? What is spared is right all the more."""
    file_mode, uid, gid = _asked(want, False).numbers(host)
    dir_mode, _, _ = _asked(want, True).numbers(host)

    def right(status: os.stat_result) -> bool:
        mode = dir_mode if stat.S_ISDIR(status.st_mode) else file_mode
        return (
            (mode is None or stat.S_IMODE(status.st_mode) == mode)
            and (uid == -1 or status.st_uid == uid)
            and (gid == -1 or status.st_gid == gid)
        )

    return right


class _Asks:
    """What is asked of each path, but for what is declared by itself."""

    def __init__(self, want: Permission) -> None:
        self._sorts = (_asked(want, False), _asked(want, True))
        self._spared = dict(want.spared)

    def of(self, path: str, directory: bool) -> Attributes:
        """Of that path."""
        asked = self._sorts[directory]
        fields = self._spared.get(path) if self._spared else None
        if fields is None:
            return asked
        return replace(asked, **dict.fromkeys(fields)) if fields else Attributes()

    def of_entry(self, path: str, status: os.stat_result, host: Host) -> Attributes:
        """The same; where a new owner costs it a set-ID bit, without that bit."""
        asked = self.of(path, stat.S_ISDIR(status.st_mode))
        if asked.mode is None:
            from reconciler.host.refusals import kept_mode

            _, *ids = asked.numbers(host)
            kept = kept_mode(status, *ids)
            if kept != stat.S_IMODE(status.st_mode):
                return replace(asked, mode=f"{kept:04o}")
        return asked


def _spared(want: Permission) -> Iterator[str]:
    spared = [(path, fields) for path, fields in want.spared if fields]
    if spared:
        named = [f"{path} ({', '.join(fields)})" for path, fields in spared[:_MOST_NAMED]]
        number = len(spared) - _MOST_NAMED
        more = f", and {number} more" if number > 0 else ""
        yield "left to what is declared by itself: " + ", ".join(named) + more


def _left_out(found: Sequence[str]) -> Iterator[str]:
    if found:
        more = f", and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
        yield "left out: " + ", ".join(found[:_MOST_NAMED]) + more


def _asked(want: Permission, directory: bool) -> Attributes:
    mode = want.dir_mode if directory else want.file_mode
    return Attributes(mode or want.mode, want.owner, want.group)


def _is_glob(path: str) -> bool:
    return any(character in path for character in "*?[")


def _first_glob(parts: Sequence[str]) -> int:
    return next((at for at, part in enumerate(parts) if _is_glob(part)), len(parts))


def _excluded(path: str, root: str, patterns: Sequence[str]) -> bool:
    if not patterns:
        return False
    # A pattern that begins with / is one for the whole path.
    names = os.path.basename(path), os.path.relpath(path, root), path
    return any(fnmatchcase(name, one) for one in patterns for name in names)


KIND = Permissions()
