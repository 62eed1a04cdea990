"""Symlinks that must be there, and where they lead.

It must not take away a file or a directory, nor a symlink that leads elsewhere.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from reconciler.base.errors import HostError
from reconciler.base.records import dataclass
from reconciler.core.fields import Name, Path
from reconciler.core.kind import Kind
from reconciler.core.model import (
    ABSENT,
    Action,
    Change,
    Claim,
    Key,
    Observation,
    Resource,
    not_known,
)
from reconciler.host.walk import sort_of

if TYPE_CHECKING:
    from reconciler.host import Host


@dataclass(frozen=True, slots=True)
class Link:
    """A symlink."""

    path: Path
    """The symlink."""
    target: Name
    """Where it leads, as ln -s takes it; it need not be there."""


@dataclass(frozen=True, slots=True)
class LinkState:
    """Where it leads."""

    target: str


@dataclass(frozen=True, slots=True)
class MakeLink:
    """Put the symlink into place, at once where there is an old one."""

    path: str
    target: str
    old: str | None

    def describe(self) -> str:
        """The action in words."""
        return f"link {self.path} to {self.target}"

    def run(self, host: Host) -> None:
        """Raises HostError."""
        from reconciler.host.whole_file import write_link

        write_link(self.path, self.target, self.old)


@dataclass(frozen=True, slots=True)
class RemoveLink:
    """Remove it, if it still leads there."""

    path: str
    target: str

    def describe(self) -> str:
        """The action in words."""
        return f"remove the link {self.path}"

    def run(self, host: Host) -> None:
        """Raises HostError."""
        from reconciler.host.whole_file import remove_link

        remove_link(self.path, self.target)


class LinkKind(Kind[Link, LinkState]):
    """The section ``links``."""

    section = "links"
    resource = Link

    def check(self, want: Link) -> Iterable[tuple[str, str]]:
        if want.target.startswith("~"):
            yield (
                "target",
                f"is a path as ln -s takes it; write {{{{ user.home }}}}{want.target[1:]}",
            )
        if os.path.normpath(os.path.join(os.path.dirname(want.path), want.target)) == want.path:
            yield "target", "leads to the link itself"

    def claims(self, want: Link) -> Iterable[Claim]:
        return (Claim(Key("path", want.path)),)

    def uses(self, want: Link) -> Iterable[Key]:
        parent = want.path.rpartition("/")[0] or "/"
        yield Key("path", parent)
        yield Key("path", os.path.normpath(os.path.join(parent, want.target)))

    def expected(self, want: Link) -> LinkState:
        return LinkState(want.target)

    def observe(
        self, resources: Sequence[Resource[Link]], host: Host
    ) -> Sequence[Observation[LinkState]]:
        return [self._look(resource, host) for resource in resources]

    def _look(self, resource: Resource[Link], host: Host) -> Observation[LinkState]:
        want = resource.want
        try:
            there = host.files.itself(want.path)
        except HostError as error:
            return not_known(error)
        if there is None:
            return ABSENT
        if not isinstance(there, str):
            sort = "a file" if stat.S_ISREG(there.st_mode) else sort_of(there)
            return Observation(unknown=f"{want.path} is {sort}, not a link; move it away")
        if not resource.present and there != want.target:
            what = f"{want.path} leads to {there}, not to {want.target}, so it is left"
            return Observation(unknown=what)
        return Observation(LinkState(there))

    def actions(
        self, resource: Resource[Link], have: LinkState | None, changes: Sequence[Change]
    ) -> Sequence[Action]:
        want = resource.want
        if not resource.present:
            return (RemoveLink(want.path, want.target),)
        return (MakeLink(want.path, want.target, None if have is None else have.target),)


KIND = LinkKind()
