"""What passes do, noted so that it can be taken back: a module named like a kind says how.

What takes a step back is one or more resources of the usual kinds, as things were before it. So it
is planned, done and verified as everything else is. It must not act itself, nor note what is
secret.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from reconciler.base.digests import blake2b
from reconciler.base.records import dataclass
from reconciler.base.values import secrets

if TYPE_CHECKING:
    from reconciler.core.attributes import Attributes
    from reconciler.core.model import Resource, Step
    from reconciler.host import Host

T = TypeVar("T")
LARGEST = 1 << 20
"""Bytes of a file at most whose content is noted."""

MOST = 32 << 20
"""Bytes of one pass at most: of files whose content is noted, and of lists of paths."""


class Irreversible(Exception):
    """The step, or what is left of it, cannot be undone; the message says why."""


@dataclass(frozen=True, slots=True)
class Around:
    """What a reversal may ask: the host, and the definition that was last started, by id."""

    host: Host
    known: Callable[[str], Any]
    there: set[str]
    """Folders that were there when somebody asked."""

    def missing_above(self, path: str) -> list[Resource[Any]]:
        """The folders on the way to it that are made with it, the lowest first, as absent ones."""
        found: list[Resource[Any]] = []
        while (path := path.rpartition("/")[0]) and path not in self.there:
            if self.host.files.status(path) is not None:
                self.there.add(path)
                break
            from reconciler.core.model import Resource
            from reconciler.kinds.directory import Directory

            found.append(Resource(ident("directory", path), Directory(path), present=False))
        return found


class Reversal:
    """How the steps of one kind are taken back."""

    defines: ClassVar[bool] = False
    """Is its definition noted when it is started, since the host does not show it?"""
    traced: ClassVar[bool] = True
    """Does a trace tell whether it was changed? Else each part of it is looked at by itself."""
    sure: ClassVar[bool] = False
    """Is there something to take back of each step that was done, which no trace is needed for?"""

    def before(
        self, resource: Resource[Any], step: Step, have: Any, around: Around
    ) -> Sequence[Resource[Any]]:
        """What takes the step back, in order, by what is there right before it. Read only.

        Nothing where there is nothing to take back. Raises Irreversible.
        """
        raise NotImplementedError

    def is_still(self, then: Any, now: Any) -> bool:
        """Would ``before`` say of equal states the same, whatever else there is? Pure."""
        return False

    def made(self, resource: Resource[Any]) -> str | None:
        """The trace of what was missing and is made, which it has until somebody changes it; None:
        that is not known beforehand. Pure."""
        return None

    def trace(self, state: Any) -> str:
        """What tells from a state, seen as if it were declared, whether it was changed. Pure."""
        if state is None or not self.traced:
            return ""
        return blake2b(repr(state).encode("utf-8", "replace"), digest_size=12).hexdigest()

    def is_left(self, left: str, now: str) -> bool:
        """Is it, by its traces, as the pass left it? Pure."""
        return left == now


@cache
def reversal(kind: str) -> Reversal | None:
    """How steps of that kind are taken back; None: there is no way."""
    name = f"{__name__}.{kind}"
    try:
        found: Reversal = import_module(name).REVERSAL
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        return None
    return found


def ident(kind: str, path: str) -> str:
    """The id of what no spec declares, by its path, as text that can be stored and shown."""
    return f"{kind}:{path.encode('utf-8', 'backslashreplace').decode()}"


def room_of(path: str) -> int:
    """Bytes that are about what a path in a list takes, until it is written."""
    return 1000 + 3 * len(path)


def few(found: Iterable[T], path_of: Callable[[T], str]) -> Iterator[T]:
    """The same, one by one. Raises Irreversible once that makes a list of paths that is too long:
    others may have filled a tree with them."""
    room = 0
    for number, one in enumerate(found):
        room += room_of(path_of(one))
        if room > MOST:
            raise Irreversible(f"it is about more than {number:,} paths, which are not kept")
        yield one


def refuse_lost_secrets(former: Any, want: Any, what: str) -> None:
    """Raise Irreversible where not all secrets of ``former`` are in ``want``: none is noted."""
    known = {one.digest for one in secrets(want)}
    if any(one.digest not in known for one in secrets(former)):
        raise Irreversible(f"{what} are not kept")


def all_of(path: str, host: Host) -> Attributes:
    """Mode, owner and group of what is there. Raises Irreversible or UnknownState."""
    status = host.files.status(path)
    if status is None:
        raise Irreversible(f"{path} is not there")
    return _attributes(status, host)


def _attributes(status: os.stat_result, host: Host) -> Attributes:
    from reconciler.core.attributes import Attributes

    users = host.users
    owner, group = users.user_name(status.st_uid), users.group_name(status.st_gid)
    return Attributes(f"{stat.S_IMODE(status.st_mode):04o}", owner, group)


def with_attributes(path: str, given: Attributes, host: Host) -> Resource[Any]:
    """What gives it the mode, owner and group again that it has now, where it is still the same
    and has what is ``given`` to it. Raises as ``all_of``."""
    from glob import escape

    from reconciler.core.attributes import Attributes
    from reconciler.core.model import Resource
    from reconciler.host.refusals import kept_mode
    from reconciler.kinds.permission import Permission

    status = host.files.status(path)
    if status is None:
        raise Irreversible(f"{path} is not there")
    mode, uid, gid = given.numbers(host)
    got = Attributes(
        f"{kept_mode(status, uid, gid) if mode is None else mode:04o}",
        host.users.user_name(status.st_uid if uid == -1 else uid),
        host.users.group_name(status.st_gid if gid == -1 else gid),
    )
    now = _attributes(status, host)
    had, gave = ((one.mode, one.owner, one.group) for one in (now, got))
    former = ((path, (status.st_dev, status.st_ino), had, gave),)
    want = Permission(escape(path), mode=now.mode, owner=now.owner, group=now.group, former=former)
    return Resource(ident("permission", path), want)


def held(path: str, host: Host) -> tuple[str, Attributes]:
    """What a file holds, and how it is, of one and the same. Raises Irreversible or HostError."""
    from reconciler.base.errors import HostError
    from reconciler.host.reading import is_private, reading
    from reconciler.host.walk import opened, reported

    real = host.files.real(path) or path
    status = host.files.status(real)
    if status is not None and status.st_size > LARGEST:
        raise Irreversible(f"{path} is larger than {LARGEST >> 20} MiB, and is not kept")
    parent, _, name = real.rpartition("/")
    try:
        with (
            reported(f"cannot read {path}"),
            opened(parent) as folder,
            reading(folder, name, path, LARGEST) as found,
        ):
            if found is None:
                raise Irreversible(f"{path} is not there")
            if is_private(folder, found.handle):
                # Put back, it would be what somebody may have exchanged it for.
                raise Irreversible(f"{path} could be another one than it seems, and is not kept")
            text = found.data.decode("utf-8", "surrogateescape")
            return text, _attributes(found.status, host)
    except HostError as error:
        raise Irreversible(str(error)) from None
