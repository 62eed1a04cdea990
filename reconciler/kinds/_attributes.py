"""Mode, owner and group, as more than one kind asks for them.

It must not decide what a path should be; it only compares and sets these three.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from reconciler.records import dataclass

if TYPE_CHECKING:
    from reconciler.host import Host


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
class SetAttributes:
    """Give a path what is asked for, if it still is what it was: a directory, or not."""

    path: str
    attributes: Attributes
    directory: bool

    def describe(self) -> str:
        """The action in words."""
        return f"set {self.attributes.describe()} on {self.path}"

    def run(self, host: Host) -> None:
        """Raises HostError."""
        host.files.set_attributes(self.path, *self.attributes.numbers(host), self.directory)
