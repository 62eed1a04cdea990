"""Mode, owner and group, as more than one kind asks for them.

It must not decide what a path should be; it only compares and sets these three.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from reconciler.host.walk import Refused, shown
from reconciler.model import Change, Remedy
from reconciler.records import dataclass, replace

if TYPE_CHECKING:
    from reconciler.host import Host


@dataclass(frozen=True, slots=True)
class Attributes:
    """Mode as four octal digits, owner and group by name; None is left alone.

    ``refused``: as they are seen on the host, why they may not be changed there.
    """

    mode: str | None = None
    owner: str | None = None
    group: str | None = None
    refused: Refused | None = None

    def asks(self) -> dict[str, str]:
        """Those that are given, by name."""
        asked = (("mode", self.mode), ("owner", self.owner), ("group", self.group))
        return {name: value for name, value in asked if value is not None}

    def describe(self) -> str:
        """Those that are given, in words."""
        return ", ".join(f"{name} {value}" for name, value in self.asks().items())

    def differences(self, have: Attributes) -> Iterator[Change]:
        """What differs on the host: first whose it is, if it must not be that one's."""
        bad = have.refused.owner if have.refused is not None else None
        if bad is not None and self.owner is None:
            yield Change("owner", have.owner, bad)
        for name, value in self.asks().items():
            if (is_now := getattr(have, name)) != value:
                yield Change(name, is_now, value)

    def judged(
        self, path: str, status: os.stat_result, host: Host, named: bool = True
    ) -> Attributes:
        """As ``seen``, and whether they may be changed at ``path``. Raises UnknownState.

        ``named``: the path is declared by itself, not found by a pattern.
        """
        seen = self.seen(status, host)
        if not host.files.is_exposed(path):
            return seen
        found = host.files.refused(path, status, *self.numbers(host), named)
        return seen if found is None else seen.barred(found, status, host)

    def barred(self, refused: Refused, status: os.stat_result, host: Host) -> Attributes:
        """As seen on the host, where they may not be changed."""
        owner = host.users.user_name(status.st_uid) if self.owner is None else self.owner
        return replace(self, owner=owner, refused=refused)

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


def remedies(seen: Iterable[Attributes]) -> tuple[Remedy, ...]:
    """The shell commands that settle what is refused, each once."""
    from reconciler.host.remedy import remedy

    commands = (remedy(*one.refused.remedy) for one in seen if one.refused is not None)
    return tuple(dict.fromkeys(commands))


@dataclass(frozen=True, slots=True)
class SetAttributes:
    """Give a path what is asked for, if it still is what it was: a directory, or not.

    ``named``: the path is declared by itself. ``top`` is that of a tree in which it was found,
    with that ``identity``, device and inode.
    """

    path: str
    attributes: Attributes
    directory: bool
    named: bool = True
    top: str | None = None
    identity: tuple[int, int] = (0, 0)

    def describe(self) -> str:
        """The action in words."""
        return f"set {self.attributes.describe()} on {shown(self.path)}"

    def run(self, host: Host) -> None:
        """Raises HostError."""
        asked = self.attributes.numbers(host)
        if self.top is None:
            host.files.set_attributes(self.path, *asked, self.directory, self.named)
        else:
            host.files.set_below(self.top, self.path, *asked, self.directory, self.identity)
