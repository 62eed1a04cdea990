"""Mode, owner and group of what already exists, one path or whole trees.

It must not create anything, and it never follows a symlink that somebody else could have made.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING

from reconciler.contract import Kind
from reconciler.fields import Flag, Mode, Name, Path
from reconciler.host.walk import sort_of
from reconciler.kinds._attributes import Attributes, SetAttributes
from reconciler.kinds._patterns import meant, never
from reconciler.model import ABSENT, Action, Change, Claim, Key, Observation, Resource, UnknownState
from reconciler.records import dataclass, replace

if TYPE_CHECKING:
    from reconciler.host import Host

_MOST_CHANGES = 20


@dataclass(frozen=True, slots=True)
class Permission:
    """Mode, owner and group of what exists at ``path``, which may be a glob.

    ``exclude`` holds globs for names, or for paths below ``path``, that are left alone.
    """

    path: Path
    mode: Mode | None = None
    file_mode: Mode | None = None
    dir_mode: Mode | None = None
    owner: Name | None = None
    group: Name | None = None
    recursive: Flag = False
    exclude: tuple[Name, ...] = ()


@dataclass(frozen=True, slots=True)
class Wrong:
    """A path that is not as it should be."""

    path: str
    have: Attributes
    want: Attributes
    directory: bool


@dataclass(frozen=True, slots=True)
class Wrongs:
    """Everything below the path that is not as it should be; should be empty."""

    paths: tuple[Wrong, ...] = ()


class Permissions(Kind[Permission, Wrongs]):
    """The section ``permissions``."""

    name = "permission"
    section = "permissions"
    resource = Permission
    creates = False
    trails = True

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
        return replace(want, exclude=tuple(map(meant, want.exclude)))

    def claims(self, want: Permission) -> Iterable[Claim]:
        asks = _asked(want, True).asks()
        # With exceptions it cannot be said in general what is asked below.
        below = asks if want.recursive and not want.exclude else {}
        covers = partial(_covers, want) if want.recursive or _is_glob(want.path) else None
        files = _asked(want, False).asks()
        # Whether a path is a directory or a file cannot be said either.
        either = {name: {value, files[name]} for name, value in asks.items() if files.get(name)}
        return (Claim(Key("path", want.path), asks, below, covers, either),)

    def uses(self, want: Permission) -> Iterable[Key]:
        parts = want.path.split("/")
        return (Key("path", "/".join(parts[: _first_glob(parts)]) or "/"),)

    def expected(self, want: Permission) -> Wrongs:
        return Wrongs()

    def observe(
        self, resources: Sequence[Resource[Permission]], host: Host
    ) -> Sequence[Observation[Wrongs]]:
        return [self._look(resource.want, host) for resource in resources]

    def _look(self, want: Permission, host: Host) -> Observation[Wrongs]:
        try:
            if _is_glob(want.path):
                roots = host.files.matching(want.path)
            else:
                roots = [want.path]
                status = host.files.status(want.path)
                if status is None:
                    return ABSENT
                if not stat.S_ISDIR(status.st_mode) and os.path.islink(want.path):
                    what = f"{want.path} is a symlink to {sort_of(status)}"
                    return Observation(unknown=f"{what}; write the path that it leads to")
            found = (wrong for root in roots for wrong in self._wrong_below(root, want, host))
            return Observation(Wrongs(tuple(found)))
        except UnknownState as error:
            return Observation(unknown=str(error))

    def _wrong_below(self, root: str, want: Permission, host: Host) -> Iterator[Wrong]:
        status = host.files.status(root)
        if status is None or _excluded(root, os.path.dirname(root), want.exclude):
            return
        entries: Iterable[tuple[str, os.stat_result]] = [(root, status)]
        if want.recursive and stat.S_ISDIR(status.st_mode):
            below = host.files.tree(root, lambda path: _excluded(path, root, want.exclude))
            entries = [(root, status), *below]
        for path, entry in entries:
            asked = _asked(want, stat.S_ISDIR(entry.st_mode))
            seen = asked.seen(entry, host)
            if seen != asked:
                yield Wrong(path, seen, asked, stat.S_ISDIR(entry.st_mode))

    def changes(self, expected: Wrongs | None, have: Wrongs | None) -> tuple[Change, ...]:
        if expected is None:
            return ()
        if have is None:
            return (Change("state", "absent", "present"),)
        found = [
            Change(field if len(have.paths) == 1 else f"{field} of {wrong.path}", seen, asked)
            for wrong in have.paths[:_MOST_CHANGES]
            for field, asked in wrong.want.asks().items()
            if (seen := getattr(wrong.have, field)) != asked
        ]
        more = len(have.paths) - _MOST_CHANGES
        if more > 0:
            found.append(Change("paths", f"{more} more differ", "as asked"))
        return tuple(found)

    def actions(
        self, resource: Resource[Permission], have: Wrongs | None, changes: Sequence[Change]
    ) -> Sequence[Action]:
        paths = have.paths if have is not None else ()
        return tuple(SetAttributes(wrong.path, wrong.want, wrong.directory) for wrong in paths)


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
