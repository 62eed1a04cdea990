"""Files and directories: looked at by name, changed only through descriptors.

It must not follow a symlink that somebody else could have made, and it never changes anything
through a name that can be swapped between the check and the change.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from reconciler.base.errors import HostError, UnknownState
from reconciler.base.records import dataclass
from reconciler.host.filesystems import refuse_silent
from reconciler.host.trust import MOST_LINKS, shared
from reconciler.host.walk import (
    closing,
    entry_in,
    opened,
    reason,
    refuse_foreign_link,
    reported,
    set_on,
    shown,
    sort_of,
)

if TYPE_CHECKING:
    from reconciler.host.below import Below
    from reconciler.host.refusals import KnownEntries, Refused
    from reconciler.host.tree import Tree


@dataclass(frozen=True, slots=True)
class _Folder:
    """A directory on the way to something: its path without links, and who may write to it.

    ``open_way``: somebody else may be able to exchange it, or one on the way to it. ``exposed``:
    he may have put there what is in it; see ``looked_at``.
    """

    real: str
    shared: bool
    sticky: bool
    foreign: bool
    open_way: bool
    exposed: bool


def _folder(real: str, status: os.stat_result, *above: _Folder) -> _Folder:
    foreign = status.st_uid not in (0, os.geteuid())
    open_way = False
    for one in above:
        kept = one.sticky and not one.foreign and not foreign
        open_way = open_way or one.open_way or (one.shared and not kept)
    others = shared(status)
    root = os.geteuid() == 0
    exposed = others or open_way if root else bool(status.st_mode & stat.S_IWOTH)
    return _Folder(real, others, bool(status.st_mode & stat.S_ISVTX), foreign, open_way, exposed)


@contextmanager
def _held(real: str) -> Iterator[int]:
    """A path-only descriptor of a folder. Raises UnknownState."""
    try:
        handle = os.open(real or "/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise UnknownState(f"cannot look at {real}: {reason(error)}") from None
    with closing(handle):
        yield handle


def _new_mode() -> int:
    """The mode that a new directory gets, umask(2)."""
    mask = os.umask(0o077)
    os.umask(mask)
    return 0o777 & ~mask


class Files:
    """What this host has at which path. ``forget`` before every new look."""

    def __init__(self) -> None:
        self._folders: dict[str, _Folder | str | None] = {}
        self._contested: dict[str, bool] = {}
        self._known: KnownEntries | None = None
        """Device and inode of what stood at a path where nobody else could have put it.

        It is kept when all else is forgotten: once its folder is given to somebody, by this very
        pass, what is in it is still known by this, whatever he renames.
        """
        self._tree: tuple[str, Tree] | None = None

    @property
    def _own(self) -> KnownEntries:
        from reconciler.host.refusals import KnownEntries

        self._known = self._known or KnownEntries()
        return self._known

    def forget(self) -> None:
        """Drop what was seen, so that the next look is a fresh one."""
        self._folders.clear()
        self._contested.clear()

    def status(self, path: str) -> os.stat_result | None:
        """The status of what stands at ``path``, or None when there is nothing.

        A symlink is followed where nobody else could have made it. Raises UnknownState.
        """
        return found[0] if (found := self.found(path)) else None

    def itself(self, path: str) -> os.stat_result | str | None:
        """What stands at ``path`` itself: of a symlink its target. Raises UnknownState."""
        parent, _, name = path.rpartition("/")
        try:
            if (folder := self._folder(parent, 0)) is None:
                return None
            status = os.lstat(real := f"{folder.real}/{name}")
            return os.readlink(real) if stat.S_ISLNK(status.st_mode) else status
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UnknownState(f"cannot look at {path}: {reason(error)}") from None

    def refused(
        self,
        path: str,
        status: os.stat_result,
        mode: int | None,
        uid: int,
        gid: int,
        named: bool = True,
    ) -> Refused | None:
        """Why this is not done to it, as ``refusals.refused`` has it. Raises UnknownState."""
        from reconciler.host.refusals import refused, refused_set_id

        bit = refused_set_id(path, status, mode, uid, gid)
        found = self.looked_at(path)
        if bit is not None or found is None:
            return bit
        real = self.real(path) or path
        folders = {os.path.dirname(path), os.path.dirname(real)}
        root = os.geteuid() == 0
        if not found[1] or (root and not any(map(self._is_contested, folders))):
            self._own.learn(path, status)
            return None
        if self._own.has(path, status):
            return None
        try:
            folder = os.lstat(os.path.dirname(real) or "/")
        except OSError as error:
            raise UnknownState(f"cannot look at {path}: {reason(error)}") from None
        return refused(path, status, folder, mode, uid, gid, named)

    def looked_at(self, path: str) -> tuple[os.stat_result, bool] | None:
        """The status of what stands at ``path``, and whether somebody else may have put it there.

        True where it may be so, which ``refused`` knows better. For an ordinary caller only what
        everybody may write to counts: with whom he shares other folders is his to know. Raises
        UnknownState as ``status`` does.
        """
        parent, _, name = path.rpartition("/")
        folder = self._folder(parent, 0)
        found = None if folder is None else self._entry(folder, name, path, 0)
        if folder is None or found is None:
            return None
        status, real = found
        exposed = folder.exposed
        if real != path and not exposed:
            above = self._folder(real.rpartition("/")[0], 0)
            exposed = above is not None and above.exposed
        return status, exposed

    def _is_contested(self, folder: str) -> bool:
        """May somebody else than root change which entries this folder has?"""
        known = self._contested.get(folder)
        if known is None:
            from reconciler.host.trust import is_trusted_way, only_ours

            known = True
            if is_trusted_way(folder or "/"):
                with suppress(OSError, HostError), opened(folder) as handle:
                    known = not only_ours(os.fstat(handle), handle)
            self._contested[folder] = known
        return known

    def real(self, path: str) -> str | None:
        """Where ``path`` leads to, without symlinks, or None when there is nothing.

        Raises UnknownState as ``status`` does.
        """
        found = self.found(path)
        return None if found is None else found[1]

    def found(self, path: str) -> tuple[os.stat_result, str] | None:
        """What ``status`` and ``real`` say of it."""
        parent, _, name = path.rpartition("/")
        folder = self._folder(parent, 0)
        return None if folder is None else self._entry(folder, name, path, 0)

    def _folder(self, path: str, links: int) -> _Folder | None:
        try:
            known = self._folders[path]
        except KeyError:
            known = self._folders[path] = self._walk(path, links)
        if isinstance(known, str):
            raise UnknownState(known)
        return known

    def _walk(self, path: str, links: int) -> _Folder | str | None:
        if not path:
            return _folder("", os.lstat("/"))
        parent, _, name = path.rpartition("/")
        try:
            folder = self._folder(parent, links)
            found = None if folder is None else self._entry(folder, name, path, links)
            if folder is None or found is None:
                return None
            status, real = found
            if not stat.S_ISDIR(status.st_mode):
                return f"{path} is {sort_of(status)}, not a directory"
            goal = self._folder(real.rpartition("/")[0], links + 1) if real != path else None
        except UnknownState as error:
            return str(error)
        return _folder(real, status, folder, *([goal] if goal is not None else ()))

    def _entry(
        self, folder: _Folder, name: str, path: str, links: int
    ) -> tuple[os.stat_result, str] | None:
        real = f"{folder.real}/{name}"
        refuse_silent(real, exactly=True)
        try:
            status = os.lstat(real)
            if not stat.S_ISLNK(status.st_mode):
                return status, real
            target = os.readlink(real)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise UnknownState(f"cannot look at {path}: {reason(error)}") from None
        with _held(folder.real) as handle:
            refuse_foreign_link(handle, folder.shared, folder.sticky, folder.open_way, status, path)
        if links >= MOST_LINKS:
            raise UnknownState(f"{path} is a loop of symlinks")
        parts = [part for part in target.split("/") if part not in ("", ".")]
        if ".." in [part for at, part in enumerate(parts) if any(p != ".." for p in parts[:at])]:
            raise UnknownState(
                f"{path} is a symlink that goes down and up again; write the real path"
            )
        goal = os.path.normpath(os.path.join(folder.real or "/", target))
        parent, _, last = goal.rpartition("/")
        above = self._folder(parent, links + 1)
        found = self._entry(above, last, goal, links + 1) if above and last else None
        if not last:
            found = os.lstat("/"), ""
        if found is None:
            raise UnknownState(f"{path} is a symlink to {target}, where nothing is")
        return found

    def entries(self, path: str) -> set[str]:
        """The paths of all that a directory holds. Raises UnknownState when it cannot be read."""
        try:
            return {f"{path.rstrip('/')}/{name}" for name in os.listdir(path)}
        except FileNotFoundError:
            return set()
        except OSError as error:
            raise UnknownState(f"cannot read {path}: {reason(error)}") from None

    def tree(
        self,
        path: str,
        excluded: Callable[[str], bool] | None = None,
        right: Callable[[os.stat_result], bool] = lambda status: False,
    ) -> Below:
        """Everything below a directory but symlinks and other mounts, as ``below.Below`` has it."""
        from reconciler.host.below import Below

        self._leave()
        return Below(path, self._own, excluded, right)

    def _leave(self) -> None:
        if self._tree is not None:
            self._tree[1].close()
            self._tree = None

    def _entered(self, top: str) -> Tree:
        """The tree that something is done in, the same one for as long as it is asked for."""
        from reconciler.host.tree import Tree

        if self._tree is None or self._tree[0] != top:
            self._leave()
            self._tree = top, Tree(top, wary=os.geteuid() == 0)
        return self._tree[1]

    def set_below(
        self,
        top: str,
        path: str,
        mode: int | None,
        uid: int,
        gid: int,
        directory: bool,
        identity: tuple[int, int],
    ) -> None:
        """Set what is not None or -1 on an entry of the tree at ``top``. Raises HostError.

        What has gone since it was looked at, or become another one (``identity`` is device and
        inode), or a mount point, is left alone.
        """
        from reconciler.host.refusals import refuse, refuse_hard_link, refused, refused_set_id
        from reconciler.host.tree import Elsewhere

        below, _, name = path[len(top.rstrip("/")) + 1 :].rpartition("/")
        with reported(f"cannot change {shown(path)}"):
            try:
                tree = self._entered(top)
                folder = tree.go(below)
                entry = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            except (FileNotFoundError, NotADirectoryError, Elsewhere):
                return
            with closing(entry):
                if not tree.is_here(entry):
                    return
                status = os.fstat(entry)
                same = (status.st_dev, status.st_ino) == identity
                if not same or stat.S_ISDIR(status.st_mode) != directory:
                    return
                refuse_hard_link(folder, status, path)
                refuse(refused_set_id(path, status, mode, uid, gid))
                if os.geteuid() == 0 and tree.contested() and not self._own.has(path, status):
                    above = os.fstat(folder)
                    refuse(refused(path, status, above, mode, uid, gid, named=False))
                set_on(entry, mode, uid, gid)

    def make_directory(self, path: str, mode: int | None, uid: int, gid: int) -> None:
        """Make ``path`` and its missing parents; ``uid`` or ``gid`` -1 is the caller's.

        A directory that stands there already is kept and given what was asked for.
        Raises HostError.
        """
        parent, _, name = path.rpartition("/")
        with reported(f"cannot make the directory {path}"), opened(parent, make=True) as folder:
            with suppress(FileExistsError):
                if (mode, uid, gid) == (None, -1, -1):
                    os.mkdir(name, 0o777, dir_fd=folder)
                    return
                from reconciler.host.place import make_folder

                os.close(make_folder(folder, name, _new_mode() if mode is None else mode, uid, gid))
                return
            from reconciler.host.refusals import refuse

            with entry_in(folder, name, path) as entry:
                status = os.fstat(entry)
                if not stat.S_ISDIR(status.st_mode):
                    raise HostError(f"{path} is {sort_of(status)}, not a directory; move it away")
                # Somebody was faster, and it may be his.
                refuse(self.refused(path, status, mode, uid, gid))
                set_on(entry, mode, uid, gid)

    def remove_directory(self, path: str) -> None:
        """Remove an empty directory. Raises HostError."""
        parent, _, name = path.rpartition("/")
        with reported(f"cannot remove the directory {path}"), opened(parent) as folder:
            os.rmdir(name, dir_fd=folder)

    def set_attributes(
        self,
        path: str,
        mode: int | None,
        uid: int,
        gid: int,
        directory: bool | None = None,
        named: bool = True,
    ) -> None:
        """Set what is not None or -1, on the inode itself. Raises HostError.

        ``directory`` says what must stand there; ``named``: it was not found by a pattern.
        """
        from reconciler.host.refusals import refuse, refuse_hard_link

        parent, _, name = path.rpartition("/")
        with (
            reported(f"cannot change {path}"),
            opened(parent) as folder,
            entry_in(folder, name or ".", path) as entry,
        ):
            status = os.fstat(entry)
            if directory not in (None, stat.S_ISDIR(status.st_mode)):
                raise HostError(f"{path} has become {sort_of(status)} since it was looked at")
            refuse_hard_link(folder, status, path)
            refuse(self.refused(path, status, mode, uid, gid, named))
            set_on(entry, mode, uid, gid)
