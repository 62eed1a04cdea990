"""Every tree, seen through descriptors.

It must not follow a symlink below the top, leave the mount that the top is on, nor change
anything through a name that can be swapped between the check and the change.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from reconciler.base.errors import HostError
from reconciler.base.records import dataclass
from reconciler.host.filesystems import mount_of
from reconciler.host.refusals import Refused, refuse, user
from reconciler.host.trust import PATH_ONLY
from reconciler.host.walk import closing, opened, reason, shown

LONGEST = 16 * 1024
"""Characters of a path below the top of a tree; what is nested deeper is not entered. No tool
that goes by names gets beyond a quarter of it, PATH_MAX."""
_KEPT_OPEN = 16
"""Folders above the one that a cursor is in that stay open."""
_MOST_LOST = 1000
"""How often a cursor starts again from the top because a folder was moved away under it."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY

_NOT_EMPTY = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT, errno.ENOTDIR, errno.EBUSY)
"""It holds something, is gone, is no folder any more, or is a mount point."""


class Elsewhere(OSError):
    """A folder or file below the top is a mount point, and therefore left alone."""


class Moved(Elsewhere):
    """A folder below the top is root's own, and somebody else may have given it that name."""


@dataclass(frozen=True, slots=True)
class _Writable:
    """Where somebody else than root and the caller may write.

    ``folder``: in a folder itself; ``guarded``: what is ours stays there all the same, since it
    is sticky. ``way``: he can exchange the folder, or one above it. ``services`` are believed,
    as ``trust.is_trusted_way`` has it.
    """

    folder: bool
    guarded: bool
    way: bool
    services: bool

    @classmethod
    def at_top(cls, path: str, handle: int, status: os.stat_result, services: bool) -> _Writable:
        from reconciler.host.trust import is_trusted_way

        way = not is_trusted_way(os.path.dirname(path), services=services)
        return cls.of(handle, status, way, services)

    @classmethod
    def of(cls, handle: int, status: os.stat_result, way: bool, services: bool) -> _Writable:
        from reconciler.host.trust import only_ours

        guarded = bool(status.st_mode & stat.S_ISVTX) and status.st_uid in (0, os.geteuid())
        return cls(not only_ours(status, handle, services=services), guarded, way, services)

    def below(self, handle: int, status: os.stat_result) -> _Writable:
        """The same for a folder in it."""
        if not (self.folder or self.way or status.st_uid or status.st_mode & 0o022):
            return self  # Nearly all there are: only root's, and only he may write to it.
        kept = self.guarded and status.st_uid in (0, os.geteuid())
        return self.of(handle, status, self.way or (self.folder and not kept), self.services)

    def is_moved(self, status: os.stat_result, above: os.stat_result) -> bool:
        """Is the folder root's own, and may somebody have given it its name who has no right in it?

        One that the group of the folder ``above`` may write to is theirs as much as root's. What
        root has in a folder of somebody's, such as a log, he could as well take away himself.
        """
        theirs = self.folder and not self.guarded and status.st_gid == above.st_gid
        return self.way and status.st_uid == os.geteuid() == 0 and not theirs


class _Level:
    """A folder on the way through a tree; ``handle`` is -1 where it is not kept open."""

    __slots__ = ("handle", "identity", "name", "writable")

    def __init__(
        self, name: str, handle: int, status: os.stat_result, writable: _Writable | None = None
    ) -> None:
        self.name = name
        self.handle = handle
        self.identity = status.st_dev, status.st_ino
        self.writable = writable


class Cursor:
    """A place at or below an open directory, moved from folder to folder by single steps.

    To go through a tree in its own order takes as many steps as it has folders, however deep
    they are. Up it goes by "..", and looks whether that still is the folder that it came from.
    """

    def __init__(self, top: int) -> None:
        self.top = top
        self._steps: list[_Level] = []
        self._where = ""
        self._lost = 0

    def close(self) -> None:
        """Close all that is open, the top as well."""
        self._back_to_top()
        os.close(self.top)

    def go(self, below: str) -> int:
        """A descriptor of the folder ``below`` the top, open until the next call.

        Raises OSError, Elsewhere among them; it is then as near as it could get. Raises HostError
        when folders keep being moved.
        """
        if len(below) > LONGEST:
            raise OSError(errno.ENAMETOOLONG, "it is nested too deeply")
        while self._steps and not self._is_on_the_way_to(below):
            self._up()
        for name in below[len(self._where) :].split("/"):
            if name:
                self._down(name)
        return self.here

    def _is_on_the_way_to(self, below: str) -> bool:
        end = len(self._where)
        return below.startswith(self._where) and below[end : end + 1] in ("", "/")

    @property
    def here(self) -> int:
        """The descriptor that ``go`` gave last."""
        return self._steps[-1].handle if self._steps else self.top

    def _down(self, name: str) -> None:
        handle = self._enter(self.here, name)
        try:
            self._steps.append(self._step(name, handle))
        except BaseException:
            os.close(handle)
            raise
        self._where = f"{self._where}/{name}" if self._where else name
        if len(self._steps) > _KEPT_OPEN:
            far = self._steps[-1 - _KEPT_OPEN]
            os.close(far.handle)
            far.handle = -1

    def _enter(self, here: int, name: str) -> int:
        """A descriptor for reading of the folder ``name``. Raises OSError."""
        return os.open(name, _FOLDER, dir_fd=here)

    def _step(self, name: str, handle: int) -> _Level:
        """What is to be known of it further on. Raises OSError where it is not to be entered."""
        return _Level(name, handle, os.fstat(handle))

    def _up(self) -> None:
        left = self._steps.pop()
        self._where = self._where[: -len(left.name)].removesuffix("/")
        try:
            if self._steps and self._steps[-1].handle < 0:
                self._steps[-1].handle = self._above(left.handle, self._steps[-1].identity)
        except OSError:
            # From the top again, by the names, but not for ever.
            self._back_to_top()
            self._lost += 1
            if self._lost > _MOST_LOST:
                raise HostError("its folders keep being moved") from None
        finally:
            os.close(left.handle)

    @staticmethod
    def _above(handle: int, identity: tuple[int, int]) -> int:
        """The folder that it is in. Raises OSError when that is another one than it was."""
        above = os.open("..", _FOLDER, dir_fd=handle)
        status = os.fstat(above)
        if (status.st_dev, status.st_ino) != identity:
            os.close(above)
            raise OSError(errno.ESTALE, "it was moved away meanwhile")
        return above

    def _back_to_top(self) -> None:
        for step in self._steps:
            if step.handle >= 0:
                os.close(step.handle)
        self._steps.clear()
        self._where = ""


class Tree(Cursor):
    """An open directory, and all below it on the same mount.

    ``wary``: it is to tell where somebody else may write. Raises OSError or HostError when it
    cannot be opened.
    """

    def __init__(self, path: str, wary: bool = False, services: bool = False) -> None:
        with opened(path) as top:
            super().__init__(os.open(".", _FOLDER, dir_fd=top))
        try:
            status = os.fstat(self.top)
            self._device = status.st_dev
            self._mount = mount_of(self.top)
            self._writable = None
            if wary:
                # Where it is, whatever link has led to it.
                real = os.readlink(f"/proc/self/fd/{self.top}")
                self._writable = _Writable.at_top(real, self.top, status, services)
        except BaseException:
            os.close(self.top)
            raise

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def contested(self, above: int = 0) -> bool:
        """May somebody else than root and the caller change which entries this folder has?

        ``above``: that of the folder so many levels higher.
        """
        at = len(self._steps) - 1 - above
        found = self._steps[at].writable if at >= 0 else self._writable
        return found is None or found.folder or found.way

    def _enter(self, here: int, name: str) -> int:
        # Of what somebody has mounted nothing is asked that he could leave without an answer.
        with closing(os.open(name, PATH_ONLY, dir_fd=here)) as entry:
            if not self.is_here(entry):
                raise Elsewhere(errno.EXDEV, "it is a mount point")
            return os.open(".", _FOLDER, dir_fd=entry)

    def _step(self, name: str, handle: int) -> _Level:
        status = os.fstat(handle)
        if status.st_dev != self._device:
            raise Elsewhere(errno.EXDEV, "it is another file system")
        if self._writable is None:
            return _Level(name, handle, status)
        above = (self._steps[-1].writable if self._steps else None) or self._writable
        return _Level(name, handle, status, above.below(handle, status))

    def is_here(self, handle: int) -> bool:
        """Is what is open on the mount of this tree?

        A bind mount of the same file system has the same device, but is another mount; and a
        file on overlayfs may have another device, but is on the same mount.
        """
        return mount_of(handle) == self._mount

    def reopen(self) -> None:
        """Share no place in a listing with another process any more, after fork(2)."""
        top = os.open(".", _FOLDER, dir_fd=self.top)
        self.close()
        self.top = top

    def enter(self, below: str) -> int:
        """A new descriptor of a folder below the top, for reading.

        Raises Elsewhere for another mount, and OSError for a symlink on the way.
        """
        return os.dup(self.go(below))

    @contextmanager
    def folder(self, below: str) -> Iterator[int]:
        """The same for a while."""
        with closing(self.enter(below)) as handle:
            yield handle

    @contextmanager
    def opened_file(self, folder: int, name: str, flags: int = os.O_RDONLY) -> Iterator[int]:
        """A descriptor of the file ``name`` in ``folder``, never of a link or another mount."""
        with closing(os.open(name, flags | _FILE, dir_fd=folder)) as handle:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise Elsewhere(errno.EXDEV, "it is no regular file")
            if not self.is_here(handle):
                raise Elsewhere(errno.EXDEV, "it is a mount point")
            yield handle


class Emptied(Tree):
    """A tree whose files are deleted, moved, archived or rotated: no folder that is ``Moved``.

    In his own folder somebody else can give root's folder the declared name, and what root keeps
    in it would go: unsafe transitions, as with ``refused``. Raises HostError where the top is such
    a folder, or is below one.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path, wary=os.geteuid() == 0, services=True)
        if self._writable is not None and self._writable.way:
            try:
                self._refuse_moved()
            except BaseException:
                self.close()
                raise

    def _refuse_moved(self) -> None:
        where = "/"
        here = os.open(where, PATH_ONLY | os.O_DIRECTORY)
        try:
            above = os.fstat(here)
            writable = _Writable.of(here, above, False, True)
            # Where the top is now: no link is on that way.
            for name in os.readlink(f"/proc/self/fd/{self.top}").split("/"):
                if not name:
                    continue
                entry = os.open(name, PATH_ONLY | os.O_DIRECTORY, dir_fd=here)
                os.close(here)
                here = entry
                status = os.fstat(here)
                writable = writable.below(here, status)
                if writable.is_moved(status, above):
                    refuse(moved(where, name, above))
                where, above = os.path.join(where, name), status
            if not os.path.samestat(above, os.fstat(self.top)):
                raise HostError(f"{where} was moved away meanwhile; the next pass looks again")
        finally:
            os.close(here)

    def _step(self, name: str, handle: int) -> _Level:
        step = super()._step(name, handle)
        if step.writable is not None and step.writable.way:
            above = os.fstat(self.here)
            if step.writable.is_moved(os.fstat(handle), above):
                raise Moved(errno.EPERM, moved(self._where, name, above).reason)
        return step


def moved(where: str, name: str, above: os.stat_result) -> Refused:
    reason = (
        f"{shown(os.path.join(where, name))} is root's own in a folder that somebody else may "
        "write to, who could have given it that name, so what is in it is left alone"
    )
    if above.st_uid != 0:
        # His folder stays his: it may be his home.
        return Refused(reason, ("chown", user(above.st_uid), os.path.join(where, name)))
    return Refused(reason, ("chmod", "+t", where))


def remove_empty(path: str, folders: Iterable[str]) -> None:
    """Remove those ``folders`` below ``path`` that are empty, and above them what is so then.

    Raises HostError after the last one when some could not be removed.
    """
    trouble: list[str] = []
    todo = sorted(filter(None, folders), key=lambda folder: -folder.count("/"))
    with Emptied(path) as tree:
        for below in todo:
            while below:
                above, _, name = below.rpartition("/")
                try:
                    with tree.folder(above) as folder:
                        os.rmdir(name, dir_fd=folder)
                except Elsewhere:
                    break
                except OSError as error:
                    if error.errno not in _NOT_EMPTY:
                        trouble.append(f"{path}/{below}: {reason(error)}")
                    break
                below = above
    if trouble:
        raise HostError(f"cannot remove {len(trouble)} empty folders: {trouble[0]}")
