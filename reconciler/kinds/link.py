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
from reconciler.core.claims import Claim, Key
from reconciler.core.fields import Name, Path
from reconciler.core.kind import Kind
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
    from reconciler.host.written import WrittenFile


@dataclass(frozen=True, slots=True)
class Link:
    """A symlink."""

    path: Path
    """The symlink."""
    target: Name
    """Where it leads, as ln -s takes it; it need not be there."""


@dataclass(frozen=True, slots=True)
class LinkState:
    """Where it leads. ``written``: is it cleared up behind its last change?"""

    target: str
    written: str = "finished"


@dataclass(frozen=True, slots=True)
class MakeLink:
    """Put the symlink into place, at once where there is an old one."""

    path: str
    target: str
    old: str | None

    def describe(self) -> str:
        return f"link {self.path} to {self.target}"

    def run(self, host: Host) -> None:
        from reconciler.host.whole_file import write_link
        from reconciler.host.written import WrittenFiles

        notes = WrittenFiles(host.state_dir)
        notes.note(self.path, "link", "begun")
        write_link(self.path, self.target, self.old)
        notes.note(self.path, "link", "done")


@dataclass(frozen=True, slots=True)
class RemoveLink:
    """Remove it, if it still leads there."""

    path: str
    target: str

    def describe(self) -> str:
        return f"remove the link {self.path}"

    def run(self, host: Host) -> None:
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
        return (Claim(Key("path", want.path), itself=True),)

    def uses(self, want: Link) -> Iterable[Key]:
        parent = want.path.rpartition("/")[0] or "/"
        yield Key("path", parent)
        yield Key("path", os.path.normpath(os.path.join(parent, want.target)))

    def expected(self, want: Link) -> LinkState:
        return LinkState(want.target)

    def observe(
        self, resources: Sequence[Resource[Link]], host: Host
    ) -> Sequence[Observation[LinkState]]:
        from reconciler.host.written import last_notes

        notes = last_notes(host.state_dir)
        return [self._look(one, notes.get(one.want.path), host) for one in resources]

    def _look(
        self, resource: Resource[Link], note: WrittenFile | None, host: Host
    ) -> Observation[LinkState]:
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
        unfinished = note is not None and note.unfinished
        return Observation(LinkState(there, "unfinished" if unfinished else "finished"))

    def changes(self, expected: LinkState | None, have: LinkState | None) -> tuple[Change, ...]:
        return tuple(one for one in diff(expected, have) if one.field != "written" or have)

    def actions(
        self, resource: Resource[Link], have: LinkState | None, changes: Sequence[Change]
    ) -> Sequence[Action]:
        want = resource.want
        if not resource.present:
            return (RemoveLink(want.path, want.target),)
        if have is not None and have.target == want.target:
            from reconciler.kinds.file import FinishFile

            return (FinishFile(want.path, link=True),)
        return (MakeLink(want.path, want.target, None if have is None else have.target),)


KIND = LinkKind()
