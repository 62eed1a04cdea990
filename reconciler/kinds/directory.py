"""Directories that must be there, with mode, owner and group.

It must not touch what a directory holds, and it removes only empty ones.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Sequence, Set
from typing import TYPE_CHECKING

from reconciler.contract import Kind, diff
from reconciler.fields import Mode, Name, Path
from reconciler.host.walk import sort_of
from reconciler.kinds._attributes import Attributes, SetAttributes, remedies
from reconciler.model import (
    ABSENT,
    Action,
    Change,
    Claim,
    Declared,
    Key,
    Observation,
    Remedy,
    Resource,
    UnknownState,
    not_known,
)
from reconciler.records import dataclass, field, replace

if TYPE_CHECKING:
    from reconciler.host import Host


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory that must be there. Fields left out are left alone."""

    path: Path
    mode: Mode | None = None
    owner: Name | None = None
    group: Name | None = None
    born: Attributes | None = field(default=None, metadata={"written": False})


@dataclass(frozen=True, slots=True)
class MakeDirectory:
    """Make it and its missing parents, and give it what is asked for."""

    path: str
    attributes: Attributes

    def describe(self) -> str:
        """The action in words."""
        words = self.attributes.describe()
        return f"make directory {self.path}" + (f" ({words})" if words else "")

    def run(self, host: Host) -> None:
        """Raises HostError."""
        host.files.make_directory(self.path, *self.attributes.numbers(host))


@dataclass(frozen=True, slots=True)
class RemoveDirectory:
    """Remove it; it must be empty."""

    path: str

    def describe(self) -> str:
        """The action in words."""
        return f"remove the empty directory {self.path}"

    def run(self, host: Host) -> None:
        """Raises HostError."""
        host.files.remove_directory(self.path)


class Directories(Kind[Directory, Attributes]):
    """The section ``directories``."""

    name = "directory"
    section = "directories"
    resource = Directory

    def claims(self, want: Directory) -> Iterable[Claim]:
        return (Claim(Key("path", want.path), self.expected(want).asks()),)

    def linked(self, want: Directory, declared: Declared) -> Directory:
        # A permission that asks for more is heeded when the directory is made, so that it has
        # never a wrong mode, and one pass is enough.
        own = self.expected(want)
        asks: dict[str, str] = {}
        above = want.path
        while above:
            above = above.rpartition("/")[0]
            for claim in declared.claims.get(Key("path", above or "/"), ()):
                asks = {**claim.asks_below, **asks}
        for claim in declared.claims.get(Key("path", want.path), ()):
            asks |= claim.asks
        asks |= own.asks()
        born = Attributes(asks.get("mode"), asks.get("owner"), asks.get("group"))
        return want if born == own else replace(want, born=born)

    def uses(self, want: Directory) -> Iterable[Key]:
        return (Key("path", want.path.rpartition("/")[0] or "/"),)

    def shows(self, resource: Resource[Directory], host: Host) -> Iterable[Key]:
        return (Key("folder", resource.want.path),)

    def expected(self, want: Directory) -> Attributes:
        return Attributes(want.mode, want.owner, want.group)

    def observe(
        self, resources: Sequence[Resource[Directory]], host: Host
    ) -> Sequence[Observation[Attributes]]:
        going = {resource.want.path for resource in resources if not resource.present}
        return [self._look(resource, going, host) for resource in resources]

    def _look(
        self, resource: Resource[Directory], going: Set[str], host: Host
    ) -> Observation[Attributes]:
        want = resource.want
        try:
            status = host.files.status(want.path)
            if status is None:
                (want.born or self.expected(want)).numbers(host)  # Is there such an owner?
                return ABSENT
            if not stat.S_ISDIR(status.st_mode):
                what = f"{want.path} is {sort_of(status)}"
                return Observation(unknown=f"{what} where a directory should be; move it away")
            if not resource.present and host.files.is_link(want.path):
                from reconciler.host.remedy import remedy

                what = f"{want.path} is a symlink, and only a directory is removed"
                return not_known(UnknownState(what, remedy=remedy("rm", want.path)))
            if not resource.present and host.files.entries(want.path) - going:
                what = f"{want.path} is not empty"
                return Observation(unknown=f"{what}, and only an empty directory is removed")
            if not resource.present:
                return Observation(self.expected(want).seen(status, host))
            have = self.expected(want).judged(want.path, status, host)
            return Observation(have, denied=have.refused.reason if have.refused else None)
        except UnknownState as error:
            return not_known(error)

    def changes(self, expected: Attributes | None, have: Attributes | None) -> tuple[Change, ...]:
        if expected is None or have is None:
            return diff(expected, have)
        return tuple(expected.differences(have))

    def by_hand(
        self, resource: Resource[Directory], have: Attributes | None, changes: Sequence[Change]
    ) -> Sequence[Remedy]:
        return remedies(() if have is None else (have,))

    def actions(
        self, resource: Resource[Directory], have: Attributes | None, changes: Sequence[Change]
    ) -> Sequence[Action]:
        want = resource.want
        if not resource.present:
            return (RemoveDirectory(want.path),)
        if have is None:
            return (MakeDirectory(want.path, want.born or self.expected(want)),)
        return (SetAttributes(want.path, self.expected(want), True),)


KIND = Directories()
