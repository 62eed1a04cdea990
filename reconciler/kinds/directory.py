"""Directories that must be there, with mode, owner and group.

It must not touch what a directory holds, and it removes only empty ones.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Sequence, Set
from typing import TYPE_CHECKING

from reconciler.base.errors import Remedy, UnknownState
from reconciler.base.records import dataclass, field, replace
from reconciler.core.attributes import Attributes, Barred, SetAttributes, by_hand, judged
from reconciler.core.claims import Claim, Declarations, Key
from reconciler.core.fields import Flag, Mode, Name, Path
from reconciler.core.kind import (
    Completed,
    Described,
    Diagnosed,
    Kind,
)
from reconciler.core.model import (
    ABSENT,
    Action,
    Change,
    Observation,
    Resource,
    diff,
    not_known,
)
from reconciler.host.walk import sort_of

if TYPE_CHECKING:
    from reconciler.host import Host


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory that must be there. Fields left out are left alone.

    ``keep_narrower``: group and others get no right back that somebody has taken from them.
    ``trusted``: it is refused where somebody else could exchange it, for what is run from it.
    """

    path: Path
    """The directory."""
    mode: Mode | None = None
    """Permission bits in quotes, such as "0755"."""
    owner: Name | None = None
    """A user, by name or number."""
    group: Name | None = None
    """A group, by name or number."""
    keep_narrower: Flag = False
    """Rights that somebody has taken from group and others are not given back."""
    trusted: Flag = False
    """It is refused where somebody else could exchange it, for what is run from it."""
    born: Attributes | None = field(default=None, metadata={"written": False})
    emptied: tuple[str, ...] = field(default=(), metadata={"written": False})
    """Paths in it that go before it, where it is removed."""


@dataclass(frozen=True, slots=True)
class MakeDirectory:
    """Make it and its missing parents, and give it what is asked for."""

    path: str
    attributes: Attributes

    def describe(self) -> str:
        words = self.attributes.describe()
        return f"make directory {self.path}" + (f" ({words})" if words else "")

    def run(self, host: Host) -> None:
        host.files.make_directory(self.path, *self.attributes.numbers(host))


@dataclass(frozen=True, slots=True)
class RemoveDirectory:
    """Remove it; it must be empty."""

    path: str

    def describe(self) -> str:
        return f"remove the empty directory {self.path}"

    def run(self, host: Host) -> None:
        host.files.remove_directory(self.path)


Seen = Attributes | Barred


class Directories(Kind[Directory, Seen], Completed, Described, Diagnosed):
    """The section ``directories``."""

    section = "directories"
    resource = Directory

    def check(self, want: Directory) -> Iterable[tuple[str, str]]:
        if want.keep_narrower and want.mode is None:
            yield "keep_narrower", "keeps what is narrower than mode; write the mode, too"

    def claims(self, want: Directory) -> Iterable[Claim]:
        asks = {"type": "a directory", **self.expected(want).asks()}
        return (Claim(Key("path", want.path), asks),)

    def linked(self, want: Directory, declared: Declarations) -> Directory:
        # A permission that asks for more counts when the directory is made: it never has a
        # wrong mode, and one pass is enough.
        above = declared.asked_below(want.path.rpartition("/")[0])
        claims = declared.claims.get(Key("path", want.path), ())
        if not above and len(claims) < 2:
            return want  # Nobody else asks for anything.
        own = self.expected(want)
        asks = dict(above)
        for claim in claims:
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
    ) -> Sequence[Observation[Seen]]:
        going = {resource.want.path for resource in resources if not resource.present}
        return [self._look(resource, going, host) for resource in resources]

    def _look(
        self, resource: Resource[Directory], going: Set[str], host: Host
    ) -> Observation[Seen]:
        want = resource.want
        if resource.present and want.trusted and (refused := _untrusted(want)):
            return refused
        try:
            found = host.files.looked_at(want.path)
            if found is None:
                (want.born or self.expected(want)).numbers(host)  # Is there such an owner?
                return ABSENT
            status, exposed = found
            if not stat.S_ISDIR(status.st_mode):
                what = f"{want.path} is {sort_of(status)}"
                return Observation(unknown=f"{what} where a directory should be; move it away")
            if not resource.present and isinstance(host.files.itself(want.path), str):
                from reconciler.host.remedy import remedy

                what = f"{want.path} is a symlink, and only a directory is removed"
                return not_known(UnknownState(what, remedy=remedy("rm", want.path)))
            gone = {*going, *want.emptied}
            if not resource.present and host.files.entries(want.path) - gone:
                what = f"{want.path} is not empty"
                return Observation(unknown=f"{what}, and only an empty directory is removed")
            asked = self.expected(want)
            have = asked.seen(status, host)
            if not resource.present or (have == asked and not exposed):
                return Observation(have)
            asked = replace(asked, mode=_narrowed(want, stat.S_IMODE(status.st_mode)))
            found_so = judged(asked, want.path, status, host)
            have = found_so.have if isinstance(found_so, Barred) else found_so
            if have.mode == asked.mode:
                have = replace(have, mode=want.mode)
            if isinstance(found_so, Barred):
                why = found_so.refused
                return Observation(Barred(have, why), denied=why.reason)
            return Observation(have)
        except UnknownState as error:
            return not_known(error)

    def changes(self, expected: Seen | None, have: Seen | None) -> tuple[Change, ...]:
        if isinstance(expected, Attributes) and isinstance(have, Barred):
            return tuple(expected.differences(have.have, have.refused))
        return diff(expected, have)

    def by_hand(
        self, resource: Resource[Directory], have: Seen | None, changes: Sequence[Change]
    ) -> Sequence[Remedy]:
        return by_hand((have.refused,) if isinstance(have, Barred) else ())

    def actions(
        self, resource: Resource[Directory], have: Seen | None, changes: Sequence[Change]
    ) -> Sequence[Action]:
        want = resource.want
        if not resource.present:
            return (RemoveDirectory(want.path),)
        if have is None:
            return (MakeDirectory(want.path, want.born or self.expected(want)),)
        asked = self.expected(want)
        have = have.have if isinstance(have, Barred) else have
        if want.keep_narrower and have.mode is not None:
            is_right = have.mode == want.mode
            asked = replace(asked, mode=None if is_right else _narrowed(want, int(have.mode, 8)))
        return (SetAttributes(want.path, asked, True),)


def _narrowed(want: Directory, mode: int) -> str | None:
    """The mode that a directory with ``mode`` is to be given."""
    if want.mode is None or not want.keep_narrower:
        return want.mode
    return f"{int(want.mode, 8) & (mode | 0o7700):04o}"


def _untrusted(want: Directory) -> Observation[Seen] | None:
    """Who else could exchange it? A mode that is declared is set anyhow: only its way counts."""
    import os

    from reconciler.host import trust

    above = want.path.rpartition("/")[0] or "/"
    what = "what is run from it"
    try:
        trust.refuse_untrusted_way(above, what)
        if want.mode is None:
            os.close(trust.opened(want.path, os.O_PATH, what=what, shared=True))
    except trust.Untrusted as error:
        return not_known(error)
    except FileNotFoundError:
        return None
    except OSError as error:
        return Observation(unknown=f"cannot look at {want.path}: {error.strerror}")
    return None


KIND = Directories()
