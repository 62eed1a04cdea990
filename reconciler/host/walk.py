"""Every tree, and the way to every file or directory, seen through descriptors.

It must not follow a symlink that somebody else could have made, follow any below the top of a
tree, leave the mount that the top is on, nor change anything through a name that can be swapped
between the check and the change.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from reconciler.base.errors import HostError, UnknownState
from reconciler.base.records import dataclass
from reconciler.host.filesystems import refuse_silent, server
from reconciler.host.progress import Work, working
from reconciler.host.users import run_as

MOST_LINKS = 40
"""Symlinks on one way, as path_resolution(7) has it."""
LONGEST = 16 * 1024
"""Characters of a path below the top of a tree; what is nested deeper is not entered. No tool
that goes by names gets beyond a quarter of it, PATH_MAX."""
_SHOWN = 1000
"""Characters of a path that are shown to people."""
_MOST_NAMED = 20
"""Of what is left out so many are named."""
_KEPT_OPEN = 16
"""Folders above the one that a cursor is in that stay open."""
_MOST_LOST = 1000
"""How often a cursor begins anew because folders were moved away while it was in them."""
_SET_ID = stat.S_ISUID | stat.S_ISGID
_PATH_ONLY = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


def sort_of(status: os.stat_result) -> str:
    """What stands there, for people: "a file", "a symlink", "a socket"."""
    sorts = {
        stat.S_IFREG: "a file",
        stat.S_IFDIR: "a directory",
        stat.S_IFLNK: "a symlink",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return sorts.get(stat.S_IFMT(status.st_mode), "something else")


def shared(status: os.stat_result) -> bool:
    """May somebody else than root and the caller write to this directory?"""
    return bool(status.st_mode & 0o022) or status.st_uid not in (0, os.geteuid())


def refuse_foreign_link(
    folder: int, shared: bool, sticky: bool, open_way: bool, link: os.stat_result, path: str
) -> None:
    """Raises UnknownState where somebody else could have put that symlink into ``folder``.

    ``open_way``: he can exchange the folder, or one above it.
    """
    # The rule of fs.protected_symlinks, proc(5), made stricter: in a directory that others may
    # write to, only our own or root's links count, and only where sticky keeps them theirs.
    foreign = shared and not (sticky and link.st_uid in (0, os.geteuid()))
    # Root's own folder with links in it may have been moved here. Others know with whom they
    # share what is above theirs.
    if foreign or (open_way and os.geteuid() == 0) or _is_served(folder):
        raise UnknownState(
            f"{path} is a symlink in a folder that somebody else may write to, so it is not "
            "followed; write the real path, or take away that right"
        )


def _is_served(handle: int) -> bool:
    """Has somebody else mounted that file system, and answers for it?"""
    try:
        return server(mount_of(handle)) not in (None, 0, os.geteuid())
    except OSError:
        return True


def exchangeable(above: os.stat_result, status: os.stat_result) -> bool:
    """Can somebody else than root and the caller exchange that entry of the folder ``above``?"""
    ours = (0, os.geteuid())
    kept = above.st_mode & stat.S_ISVTX and above.st_uid in ours and status.st_uid in ours
    return shared(above) and not kept


def refuse_hard_link(folder: int, status: os.stat_result, path: str) -> None:
    # A hard link to a file of another folder would carry the change there, systemd-tmpfiles(8).
    if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode) and shared(os.fstat(folder)):
        raise HostError(
            f"{path} has {status.st_nlink} hard links in a folder that somebody else may write "
            "to, so it is not changed; replace it by a copy"
        )


def refuse_file_of_another(
    folder: int, parent: str, status: os.stat_result, path: str, uid: int = -1
) -> None:
    """Raise Untrusted where somebody else may have made that file in our place.

    What is written to it would be his to read, and he would write to it. It must be that user's
    (``uid``) in a folder, ``parent``, that somebody else may write to; for -1 the folder's
    owner's, root's or the caller's, as a declared path without an owner; the folder's owner does
    not count where he has taken that name, see ``taken_by``. For an ordinary caller only what
    everybody may write to counts.
    """
    above = os.fstat(folder)
    taken = taken_by(folder)
    right = [uid] if uid != -1 else [0, os.geteuid(), *([above.st_uid] if taken is None else [])]
    if status.st_uid in right:
        return
    from reconciler.host.trust import Untrusted, is_trusted

    root = os.geteuid() == 0
    if is_trusted(parent or "/") if root else taken is None and not above.st_mode & stat.S_IWOTH:
        return
    owner = os.geteuid() if uid == -1 else uid
    raise Untrusted(
        path,
        f"{path} belongs to user {status.st_uid}, in a folder that others may write to, so "
        f"nothing is written to it for user {owner}{'' if root else '; name another path'}",
        ("chown", str(owner), path) if root else (),
    )


def taken_by(folder: int) -> int | None:
    """Who has made that folder, or one above it, where everybody may: in /tmp, before us.

    None where it is root's, the caller's, or stands where only they could have put it.
    """
    here = os.dup(folder)
    try:
        status = os.fstat(here)
        while status.st_uid not in (0, os.geteuid()):
            try:
                above = os.open("..", _PATH_ONLY | os.O_DIRECTORY, dir_fd=here)
            except PermissionError:
                return None
            os.close(here)
            here = above
            owner, status = status.st_uid, os.fstat(here)
            if status.st_mode & stat.S_IWOTH:
                return owner
    finally:
        os.close(here)
    return None


class NoSpace(HostError):
    """The disk is full, or a quota is used up."""


@dataclass(frozen=True, slots=True)
class Refused:
    """What is not done to somebody's entry, why, and the command that would settle it.

    ``owner`` is whose it should be, where it is another's.
    """

    reason: str
    remedy: tuple[str, ...]
    owner: str | None = None


def refused(
    path: str,
    status: os.stat_result,
    folder: os.stat_result,
    mode: int | None,
    uid: int,
    gid: int,
    named: bool,
) -> Refused | None:
    """Why that is not done to an entry of a ``folder`` that somebody else may write to.

    He could have given its name to something else: unsafe transitions, systemd-tmpfiles(8).
    ``named``: it is declared by itself, and so must be its owner's already. ``mode`` None, ``uid``
    and ``gid`` -1 are left alone.
    """
    where = "in a folder that somebody else may write to"
    ours = status.st_uid == os.geteuid() == 0
    right = (uid,) if uid != -1 else (folder.st_uid, 0, os.geteuid())
    if named and status.st_uid not in right:
        owner = _user(right[0])
        reason = f"{shown(path)} belongs to {_user(status.st_uid)}, not to {owner}, {where}"
        return Refused(reason, ("chown", owner, path), owner)
    if ours and (uid not in (-1, 0) or gid not in (-1, status.st_gid)):
        reason = f"{shown(path)} is root's own {where}, so it gets no other owner or group"
        return Refused(reason, ("chown", _owners(uid, gid), path))
    if mode is None:
        return None
    added = mode & ~kept_mode(status, uid, gid)
    if added & _SET_ID:
        reason = f"{shown(path)} is {where}, so it gets no set-user-ID or set-group-ID bit"
        return Refused(reason, ("chmod", f"{mode:04o}", path))
    if ours and added & 0o777:
        reason = f"{shown(path)} is root's own {where}, so its mode is not made wider"
        if folder.st_uid != 0:
            return Refused(reason, ("chown", _user(folder.st_uid), path))
        return Refused(reason, ("chmod", f"{mode:04o}", path))
    return None


def refused_set_id(
    path: str, status: os.stat_result, mode: int | None, uid: int, gid: int
) -> Refused | None:
    """Why a file that was somebody's gets no set-ID bit along with a new owner: it is his work."""
    same = uid in (-1, status.st_uid) and gid in (-1, status.st_gid)
    none = mode is None or not mode & _SET_ID or stat.S_ISDIR(status.st_mode)
    if same or none or status.st_uid == 0:
        return None
    reason = (
        f"{shown(path)} belongs to {_user(status.st_uid)}, who decides what it does, so it gets "
        "no set-user-ID or set-group-ID bit along with a new owner or group"
    )
    return Refused(reason, ("chown", _owners(uid, gid), path))


def _owners(uid: int, gid: int) -> str:
    """As chown(1) takes them; -1 is left alone."""
    return (_user(uid) if uid != -1 else "") + (f":{_group(gid)}" if gid != -1 else "")


def refuse(found: Refused | None) -> None:
    """Raises HostError where it is refused."""
    if found is not None:
        from reconciler.host.remedy import remedy

        raise HostError(found.reason, remedy=remedy(*found.remedy))


def kept_mode(status: os.stat_result, uid: int, gid: int) -> int:
    """The mode that is left by chown(2), which takes the set-ID bits away from files."""
    owned = uid in (-1, status.st_uid) and gid in (-1, status.st_gid)
    mode = stat.S_IMODE(status.st_mode)
    return mode if owned or stat.S_ISDIR(status.st_mode) else mode & ~_SET_ID


def _user(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    import grp

    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


@contextmanager
def reported(what: str) -> Iterator[None]:
    """An OSError becomes a HostError that begins with ``what``."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise (NoSpace if full else HostError)(f"{what}: {reason(error)}") from None


def reason(error: OSError) -> str:
    denied = f"; {run_as('its owner')}"
    hints = {
        "Permission denied": denied,
        "Operation not permitted": denied,
        "Directory not empty": "; only an empty directory is removed",
        "No space left on device": "; free some space",
    }
    text = error.strerror or type(error).__name__
    return text.lower() + hints.get(text, "")


@contextmanager
def opened(path: str, make: bool = False) -> Iterator[int]:
    """A path-only descriptor of the directory ``path``, reached without foreign symlinks."""
    refuse_silent(path)
    here = os.open("/", _PATH_ONLY | os.O_DIRECTORY)
    try:
        todo = [part for part in reversed(path.split("/")) if part]
        links = below_link = 0
        above = os.fstat(here)
        open_way = False
        while todo:
            name = todo.pop()
            below_link -= 1
            try:
                entry = os.open(name, _PATH_ONLY, dir_fd=here)
            except FileNotFoundError:
                if not make:
                    raise
                if below_link >= 0:
                    raise HostError(f"a symlink on the way to {path} leads nowhere") from None
                os.mkdir(name, 0o777, dir_fd=here)
                entry = os.open(name, _PATH_ONLY | os.O_DIRECTORY, dir_fd=here)
            status = os.fstat(entry)
            if stat.S_ISLNK(status.st_mode):
                try:
                    sticky = bool(above.st_mode & stat.S_ISVTX)
                    refuse_foreign_link(here, shared(above), sticky, open_way, status, path)
                    target = os.readlink("", dir_fd=entry)
                finally:
                    os.close(entry)
                links += 1
                if links > MOST_LINKS:
                    raise HostError(f"{path} is a loop of symlinks")
                parts = [part for part in reversed(target.split("/")) if part not in ("", ".")]
                todo += parts
                below_link = max(0, below_link) + len(parts)
                if target.startswith("/"):
                    os.close(here)
                    here = os.open("/", _PATH_ONLY | os.O_DIRECTORY)
                    above = os.fstat(here)
                continue
            if not stat.S_ISDIR(status.st_mode):
                os.close(entry)
                where = f"{name} on the way to {path}" if todo or links else path
                raise HostError(f"{where} is {sort_of(status)}, not a directory; move it away")
            open_way = open_way or exchangeable(above, status)
            above = status
            os.close(here)
            here = entry
        yield here
    finally:
        os.close(here)


@contextmanager
def entry_in(folder: int, name: str, path: str) -> Iterator[int]:
    """A path-only descriptor of what stands in ``folder`` under ``name``, never of a link."""
    entry = os.open(name, _PATH_ONLY, dir_fd=folder)
    try:
        if stat.S_ISLNK(os.fstat(entry).st_mode):
            # A link that may be followed leads to a directory, as status() has seen it.
            with opened(path) as target:
                yield target
        else:
            yield entry
    finally:
        os.close(entry)


def set_on(entry: int, mode: int | None, uid: int, gid: int) -> None:
    # chmod and chown of a path-only descriptor go through /proc: open(2), O_PATH. Owner first,
    # since chown(2) clears the set-user-ID bits.
    name = f"/proc/self/fd/{entry}"
    status = os.fstat(entry)
    if (uid not in (-1, status.st_uid)) or (gid not in (-1, status.st_gid)):
        os.chown(name, uid, gid)
        status = os.fstat(entry)
    if mode is not None and stat.S_IMODE(status.st_mode) != mode:
        os.chmod(name, mode)


def taken(status: os.stat_result) -> int:
    """How many bytes of a file are allocated, and no more than it is long."""
    return min(status.st_size, status.st_blocks * 512)


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


class _Step:
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
        self._steps: list[_Step] = []
        self._where = ""
        self._lost = 0

    def close(self) -> None:
        """Close all that is open, the top as well."""
        self._back_to_top()
        os.close(self.top)

    def go(self, below: str) -> int:
        """A descriptor of the folder ``below`` the top, open until the next call.

        Raises OSError, Elsewhere among them; it is then as near as it could get. Raises HostError
        when the folders are moved to and fro all the time.
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

    def _step(self, name: str, handle: int) -> _Step:
        """What is to be known of it further on. Raises OSError where it is not to be entered."""
        return _Step(name, handle, os.fstat(handle))

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
                raise HostError("its folders are moved to and fro all the time") from None
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
        entry = os.open(name, _PATH_ONLY, dir_fd=here)
        try:
            if not self.is_here(entry):
                raise Elsewhere(errno.EXDEV, "it is a mount point")
            return os.open(".", _FOLDER, dir_fd=entry)
        finally:
            os.close(entry)

    def _step(self, name: str, handle: int) -> _Step:
        status = os.fstat(handle)
        if status.st_dev != self._device:
            raise Elsewhere(errno.EXDEV, "it is another file system")
        if self._writable is None:
            return _Step(name, handle, status)
        above = (self._steps[-1].writable if self._steps else None) or self._writable
        return _Step(name, handle, status, above.below(handle, status))

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
        handle = self.enter(below)
        try:
            yield handle
        finally:
            os.close(handle)

    @contextmanager
    def opened_file(self, folder: int, name: str, flags: int = os.O_RDONLY) -> Iterator[int]:
        """A descriptor of the file ``name`` in ``folder``, never of a link or another mount."""
        handle = os.open(name, flags | _FILE, dir_fd=folder)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise Elsewhere(errno.EXDEV, "it is no regular file")
            if not self.is_here(handle):
                raise Elsewhere(errno.EXDEV, "it is a mount point")
            yield handle
        finally:
            os.close(handle)


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
        here = os.open(where, _PATH_ONLY | os.O_DIRECTORY)
        try:
            above = os.fstat(here)
            writable = _Writable.of(here, above, False, True)
            # Where the top is now: no link is on that way.
            for name in os.readlink(f"/proc/self/fd/{self.top}").split("/"):
                if not name:
                    continue
                entry = os.open(name, _PATH_ONLY | os.O_DIRECTORY, dir_fd=here)
                os.close(here)
                here = entry
                status = os.fstat(here)
                writable = writable.below(here, status)
                if writable.is_moved(status, above):
                    refuse(_moved(where, name, above))
                where, above = os.path.join(where, name), status
            if not os.path.samestat(above, os.fstat(self.top)):
                raise HostError(f"{where} was moved away meanwhile; the next pass looks again")
        finally:
            os.close(here)

    def _step(self, name: str, handle: int) -> _Step:
        step = super()._step(name, handle)
        if step.writable is not None and step.writable.way:
            above = os.fstat(self.here)
            if step.writable.is_moved(os.fstat(handle), above):
                raise Moved(errno.EPERM, _moved(self._where, name, above).reason)
        return step


def _moved(where: str, name: str, above: os.stat_result) -> Refused:
    reason = (
        f"{shown(os.path.join(where, name))} is root's own in a folder that somebody else may "
        "write to, who could have given it that name, so what is in it is left alone"
    )
    if above.st_uid != 0:
        # His folder stays his: it may be his home.
        return Refused(reason, ("chown", _user(above.st_uid), os.path.join(where, name)))
    return Refused(reason, ("chmod", "+t", where))


class Below:
    """All that is below a directory but symlinks, as (path, status), folder by folder.

    What is ``excluded`` is not entered. What may not be read, is another mount or has gone
    meanwhile is left out: it is counted in ``missed``, and ``skipped`` names the first ones with
    the reason. ``own`` knows, and learns, device and inode of what nobody else could have put where
    it is. Iterating raises UnknownState when the directory itself cannot be read.
    """

    def __init__(
        self, path: str, excluded: Callable[[str], bool], own: dict[str, tuple[int, int]]
    ) -> None:
        self.skipped: list[str] = []
        self.missed = 0
        self._own = own
        self._path = path.rstrip("/")
        self._excluded = excluded
        self._tree: Tree | None = None
        self._above = 0
        """How many levels above the place of the tree that is what was given last."""

    def __iter__(self) -> Iterator[tuple[str, os.stat_result]]:
        try:
            with (
                Tree(self._path or "/", wary=os.geteuid() == 0) as self._tree,
                working(f"look through {self._path}", None) as work,
            ):
                yield from self._entries(self._tree, work)
        except UnknownState:
            raise
        except HostError as error:
            raise UnknownState(f"cannot look through {self._path}: {error}") from None
        except OSError as error:
            raise UnknownState(f"cannot read below {self._path}: {reason(error)}") from None

    def refused(
        self, path: str, status: os.stat_result, mode: int | None, uid: int, gid: int
    ) -> Refused | None:
        """Why that is not done to ``path``, which was given last, or None."""
        tree = self._tree
        if tree is None or os.geteuid() != 0:
            return None
        found = refused_set_id(path, status, mode, uid, gid)
        if found is not None:
            return found
        identity = status.st_dev, status.st_ino
        if not tree.contested(self._above):
            self._own[path] = identity
        if self._own.get(path) == identity:
            return None
        folder = os.fstat(tree.here)
        if self._above:
            folder = os.stat("..", dir_fd=tree.here)
        return refused(path, status, folder, mode, uid, gid, named=False)

    def is_mounted(self, path: str) -> bool:
        """Is the file ``path``, which was given last, a mount point by itself?"""
        if self._tree is None or self._above:
            return False  # Of folders that was seen before.
        try:
            name = os.path.basename(path)
            entry = os.open(name, _PATH_ONLY, dir_fd=self._tree.here)
        except OSError:
            return True
        try:
            return not self._tree.is_here(entry)
        finally:
            os.close(entry)

    def left_out(self) -> list[str]:
        """What was left out, as ``skipped`` names it, and how much more there is."""
        more = self.missed - len(self.skipped)
        return [*self.skipped, *([f"{more} more"] if more else [])]

    def _entries(self, tree: Tree, work: Work) -> Iterator[tuple[str, os.stat_result]]:
        todo = [""]
        while todo:
            below = todo.pop()
            try:
                folder = tree.go(below)
                if below:
                    self._above = 1
                    yield f"{self._path}/{below}", os.fstat(folder)
                self._refuse_closed(tree, folder, below)
                files, folders = self._listed(folder, below)
            except OSError as error:
                if not below and not isinstance(error, Moved):
                    raise
                self._skip(below, error)
                if isinstance(error, PermissionError):
                    yield from self._one(tree, *below.rpartition("/")[::2])
                continue
            work.advance(len(files) + len(folders))
            self._above = 0
            for name in files:
                try:
                    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
                except OSError as error:
                    self._skip(joined(below, name), error)
                else:
                    yield f"{self._path}/{joined(below, name)}", status
            todo += reversed(folders)

    def _refuse_closed(self, tree: Tree, folder: int, below: str) -> None:
        """Raises Moved where the names in a folder are not for those who may have moved it here."""
        status = os.fstat(folder)
        if os.geteuid() != 0 or status.st_uid != 0 or status.st_mode & stat.S_IROTH:
            return
        path = f"{self._path}/{below}".rstrip("/")
        if self._own.get(path) == (status.st_dev, status.st_ino):
            return
        if not below or tree.contested(above=1):
            from reconciler.host.reading import is_private

            if is_private(folder):
                above = os.stat("..", dir_fd=folder)
                raise Moved(errno.EPERM, _moved(*os.path.split(path), above).reason)

    def _one(self, tree: Tree, below: str, name: str) -> Iterator[tuple[str, os.stat_result]]:
        """A folder that cannot be read still has a mode and an owner."""
        self._above = 0
        try:
            status = os.stat(name, dir_fd=tree.go(below), follow_symlinks=False)
        except OSError:
            return
        yield f"{self._path}/{joined(below, name)}", status

    def _listed(self, folder: int, below: str) -> tuple[list[str], list[str]]:
        """The names of its files, and its folders as paths below the top; both sorted."""
        files: list[str] = []
        folders: list[str] = []
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_symlink() or self._excluded(
                    f"{self._path}/{joined(below, entry.name)}"
                ):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(joined(below, entry.name))
                else:
                    files.append(entry.name)
        return sorted(files), sorted(folders)

    def _skip(self, below: str, error: OSError) -> None:
        self.missed += 1
        if len(self.skipped) < _MOST_NAMED:
            self.skipped.append(f"{shown(below)}: {reason(error)}")


def joined(below: str, name: str) -> str:
    """A path below a top, of a name in a folder below it."""
    return f"{below}/{name}" if below else name


def shown(path: str) -> str:
    """A path for people: of one that is too long for every tool its beginning and its end."""
    if len(path) <= 2 * _SHOWN:
        return path
    return f"{path[:_SHOWN]}…({len(path):,} characters)…{path[-_SHOWN:]}"


def mount_of(handle: int) -> str:
    """The number of the mount that a descriptor is on, proc(5), ``fdinfo``. Raises HostError."""
    try:
        info = os.open(f"/proc/self/fdinfo/{handle}", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise HostError("/proc is not mounted, so mount points cannot be told") from None
    try:
        text = os.read(info, 512)
    finally:
        os.close(info)
    return text.partition(b"mnt_id:")[2].split(None, 1)[0].decode()
