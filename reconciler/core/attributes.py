"""Mode, owner and group, as more than one kind asks for them.

It must not decide what a path should be; it only compares and sets these three.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from reconciler.base.errors import Remedy
from reconciler.base.records import dataclass, replace
from reconciler.core.model import Change
from reconciler.host.walk import shown

if TYPE_CHECKING:
    from reconciler.host import Host
    from reconciler.host.refusals import Refused


@dataclass(frozen=True, slots=True)
class Attributes:
    """Mode as four octal digits, owner and group by name; None is left alone."""

    mode: str | None = None
    owner: str | None = None
    group: str | None = None

    def asks(self) -> dict[str, str]:
        """Those that are given, by name."""
        asked = (("mode", self.mode), ("owner", self.owner), ("group", self.group))
        return {name: value for name, value in asked if value is not None}

    def describe(self) -> str:
        """Those that are given, in words."""
        return ", ".join(f"{name} {value}" for name, value in self.asks().items())

    def differences(self, have: Attributes, refused: Refused | None = None) -> Iterator[Change]:
        """What differs on the host: first whose it is, if it is refused for that."""
        if refused is not None and refused.owner is not None and self.owner is None:
            yield Change("owner", have.owner, refused.owner)
        for name, value in self.asks().items():
            if (is_now := getattr(have, name)) != value:
                yield Change(name, is_now, value)

    def seen(self, status: os.stat_result, host: Host) -> Attributes:
        """The same ones as they are on the host. Raises UnknownState for an unknown name."""
        users = host.users
        mode = self.mode
        if mode is not None and int(mode, 8) != stat.S_IMODE(status.st_mode):
            mode = f"{stat.S_IMODE(status.st_mode):04o}"
        owner = self.owner
        if owner is not None and users.uid(owner) != status.st_uid:
            owner = users.user_name(status.st_uid)
        group = self.group
        if group is not None and users.gid(group) != status.st_gid:
            group = users.group_name(status.st_gid)
        if mode is self.mode and owner is self.owner and group is self.group:
            return self
        return Attributes(mode, owner, group)

    def numbers(self, host: Host) -> tuple[int | None, int, int]:
        """Mode, user and group as chmod(2) and chown(2) take them. Raises UnknownState."""
        return (
            None if self.mode is None else int(self.mode, 8),
            -1 if self.owner is None else host.users.uid(self.owner),
            -1 if self.group is None else host.users.gid(self.group),
        )


@dataclass(frozen=True, slots=True)
class Barred:
    """As they are on the host, where they may not be changed, and why."""

    have: Attributes
    refused: Refused


def judged(
    want: Attributes, path: str, status: os.stat_result, host: Host, named: bool = True
) -> Attributes | Barred:
    """Those of ``path`` on the host, where somebody else may have put what stands there.

    ``named``: the path is declared by itself, not found by a pattern. Raises UnknownState.
    """
    refused = host.files.refused(path, status, *want.numbers(host), named)
    return barred(want.seen(status, host), refused, status, host)


def barred(
    have: Attributes, refused: Refused | None, status: os.stat_result, host: Host
) -> Attributes | Barred:
    """The same, with whose it is, where something is refused."""
    if refused is None:
        return have
    owner = host.users.user_name(status.st_uid) if have.owner is None else have.owner
    return Barred(replace(have, owner=owner), refused)


def by_hand(refused: Iterable[Refused]) -> tuple[Remedy, ...]:
    """The shell commands that settle it, each once."""
    from reconciler.host.remedy import remedy

    return tuple(dict.fromkeys(remedy(*one.remedy) for one in refused))


@dataclass(frozen=True, slots=True)
class SetAttributes:
    """Give a path what is asked for, if it still is what it was: a directory, or not.

    ``named``: the path is declared by itself. ``top`` is that of a tree in which it was found,
    with that ``identity``, device and inode. ``refused``: it is not to be done, whatever the steps
    before it have made of its folder.
    """

    path: str
    attributes: Attributes
    directory: bool
    named: bool = True
    top: str | None = None
    identity: tuple[int, int] = (0, 0)
    refused: Refused | None = None

    def describe(self) -> str:
        return f"set {self.attributes.describe()} on {shown(self.path)}"

    def run(self, host: Host) -> None:
        if self.refused is not None:
            from reconciler.host.refusals import refuse

            refuse(self.refused)
        asked = self.attributes.numbers(host)
        if self.top is None:
            host.files.set_attributes(self.path, *asked, self.directory, self.named)
        else:
            host.files.set_below(self.top, self.path, *asked, self.directory, self.identity)
