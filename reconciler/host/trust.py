"""Whether a path may be believed: may anybody but root and the caller decide what stands there?

It is asked for everything that is run, obeyed or remembered: specs and what they include, files
with a URL or an environment, the state directory, queues, folders of PATH, this program itself.
The way is walked through descriptors, so that what was looked at is what is then opened. It must
not change anything on the way, nor read a file.

The rule, for every folder, symlink and file on the way:

- it belongs to root, to the caller, or to an account of ``--trust``;
- nobody else may write to it, by its mode or an access list (in one of NFSv4, names are those of
  this host). A group without another member may, as OpenSSH of Debian has it;
- a sticky folder (/tmp) may be writable by all, where the entry on the way is one of ours;
- nobody else has mounted the file system and answers for it himself (FUSE).

For a caller who is not root, a folder on the way that belongs to somebody else is only noted: who
administers a home on NFS is often not root. A folder that belongs to the overflow uid counts as
root's in a user namespace that does not know its owner, user_namespaces(7).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection
from contextlib import suppress

from reconciler.base.errors import HostError, UnknownState
from reconciler.host import filesystems

PATH_ONLY = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
MOST_LINKS = 40
"""Symlinks on one way, path_resolution(7)."""

_more_owners: set[int] = set()


class Untrusted(HostError):
    """Somebody else could decide what stands at a path.

    ``path`` is what is wrong on the way to it, ``reason`` says how, and ``command`` has the words
    of what would settle it, empty where there is nothing.
    """

    def __init__(self, path: str, reason: str, command: tuple[str, ...] = ()) -> None:
        super().__init__(path, reason, command)
        self.path = path
        self.reason = reason
        if command:
            from reconciler.host.remedy import remedy

            self.remedy = remedy(*command)

    def __str__(self) -> str:
        return f"{self.reason}; fix it with: {self.remedy}" if self.remedy else self.reason


def trust_owner(uid: int) -> None:
    """Believe one more account from now on, for ``--trust``."""
    _more_owners.add(uid)


def trusted_owners() -> tuple[int, ...]:
    """The accounts that were named with ``--trust``, sorted."""
    return tuple(sorted(_more_owners))


def opened(
    path: str,
    flags: int = os.O_RDONLY,
    *,
    what: str = "what it says",
    also: Collection[int] = (),
    make: int | None = None,
    shared: bool = False,
    notes: list[Untrusted] | None = None,
) -> int:
    """A descriptor of ``path``, opened with ``flags``, that nobody else has put there.

    It never waits for the other end of a FIFO. ``what`` somebody else could change is for the
    message, ``also`` are further owners that are believed, ``make`` is the mode of a folder that
    is made where it is missing. ``shared``: for an ordinary caller only what everybody may write
    to is refused; the rest goes into ``notes``. Raises Untrusted, and OSError as open(2) has it.
    """
    way = _Way(path, what, _owners(also), make, notes, shared)
    entry = way.walked(not flags & os.O_NOFOLLOW)
    if flags & os.O_PATH:
        return entry
    try:
        # The very thing that was looked at, whatever has its name by now.
        flags = flags & ~os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        return os.open(f"/proc/self/fd/{entry}", flags)
    finally:
        os.close(entry)


def refuse_untrusted(
    path: str,
    what: str = "what it says",
    *,
    also: Collection[int] = (),
    notes: list[Untrusted] | None = None,
) -> bool:
    """Raise Untrusted as ``opened`` does; is there anything? Raises OSError."""
    try:
        os.close(opened(path, os.O_PATH, what=what, also=also, notes=notes))
    except FileNotFoundError:
        return False
    return True


def is_trusted(path: str) -> bool:
    """Is it there, and can nobody else decide what? A foreign folder on the way counts as well."""
    notes: list[Untrusted] = []
    try:
        return refuse_untrusted(path, notes=notes) and not notes
    except (Untrusted, OSError):
        return False


def own_file(path: str, flags: int = os.O_RDONLY) -> int:
    """A descriptor of a file in a folder of ours, which was looked at before.

    It follows no symlink and never waits, whatever stands there. Raises HostError where it is no
    regular file or somebody else's, and OSError as open(2) has it.
    """
    always = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    handle = os.open(path, flags | always)
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode) or status.st_uid not in _owners():
        os.close(handle)
        raise HostError(f"{path} is not a regular file of ours; move it away")
    return handle


def own_bytes(path: str, most: int, at: int = 0) -> bytes | None:
    """What such a file holds, at most so many bytes; None: there is none, or it cannot be read."""
    with suppress(OSError, HostError):
        handle = own_file(path)
        try:
            return os.pread(handle, most, at)
        finally:
            os.close(handle)
    return None


def is_trusted_way(folder: str, *, services: bool = False) -> bool:
    """Can nobody else exchange what is ours in that folder? It may be sticky, as /tmp is.

    ``services``: a group of service accounts is nobody else, as syslog's, Ubuntu's /var/log.
    """
    notes: list[Untrusted] = []
    try:
        way = _Way(folder, "what stands there", _owners(), None, notes, False, True, services)
        os.close(way.walked(True))
    except (Untrusted, OSError):
        return False
    return not notes


def refuse_untrusted_way(folder: str, what: str) -> None:
    """Raise Untrusted, or OSError, where somebody else could exchange what is ours in it.

    It may be sticky; people may share it, as ``opened`` has it.
    """
    way = _Way(folder, what, _owners(), None, None, shared=True, through=True)
    os.close(way.walked(True))


def only_ours(
    status: os.stat_result, handle: int, *, also: Collection[int] = (), services: bool = False
) -> bool:
    """May only root, the caller and ``also`` write to what is open as ``handle``, by itself?"""
    owners = _owners(also)
    if status.st_uid not in owners or _is_alone(handle, status):
        return status.st_uid in owners
    from reconciler.host.writers import writers

    return next(writers(handle, status, owners, services), None) is None


def shared(status: os.stat_result) -> bool:
    """May somebody else than root and the caller write to this directory, by its mode?"""
    return bool(status.st_mode & 0o022) or status.st_uid not in (0, os.geteuid())


def _owners(also: Collection[int] = ()) -> frozenset[int]:
    return frozenset((0, os.geteuid(), *_more_owners, *also))


def _is_alone(handle: int, status: os.stat_result) -> bool:
    """May certainly nobody but its owner write to what is open there?"""
    by_mode = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return not by_mode and not filesystems.has_nfs_lists(handle, status.st_dev)


class _Way:
    """One walk from the root folder to a path."""

    def __init__(
        self,
        path: str,
        what: str,
        owners: frozenset[int],
        make: int | None,
        notes: list[Untrusted] | None,
        shared: bool,
        through: bool = False,
        services: bool = False,
    ) -> None:
        self._services = services
        self._through = through
        """Is it a folder, and looked at for what is in it?"""
        # Not abspath: what stands before a ".." may be a link.
        self._path = path if path.startswith("/") else os.path.join(os.getcwd(), path)
        self._what = what
        self._owners = owners
        self._make = make
        self._notes = notes
        self._shared = shared
        self._lenient = shared and os.geteuid() != 0

    def walked(self, follow: bool) -> int:
        """A path-only descriptor of its end. Raises Untrusted, OSError.

        ``follow`` False: it must not be a symlink itself.
        """
        servers = filesystems.served()
        todo = _parts(self._path)
        links = 0
        # What is open: the folder that we stand in, and what is looked at in it.
        handles = [os.open("/", PATH_ONLY | os.O_DIRECTORY)]
        where = "/"
        try:
            status = os.fstat(handles[0])
            device = status.st_dev
            self._check(where, handles[0], status, None, not (todo or self._through))
            while todo:
                name = todo.pop()
                handles.append(self._entry(handles[0], name, bool(todo)))
                step = os.path.dirname(where) if name == ".." else f"{where.rstrip('/')}/{name}"
                if step in servers:
                    # Before anything is asked of it: he need not answer.
                    self._refuse_server(step, handles[1])
                above, status = (None if name == ".." else status), os.fstat(handles[1])
                if status.st_dev != device:
                    device = status.st_dev
                    # What lies on a block device is for nobody to answer for, but for root.
                    if os.major(device) == 0:
                        self._refuse_server(step, handles[1])
                self._check(step, handles[1], status, above, not (todo or self._through))
                if not stat.S_ISLNK(status.st_mode):
                    os.close(handles.pop(0))
                    where = step
                    continue
                links += 1
                if links > MOST_LINKS or not (follow or todo):
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), self._path)
                target = os.readlink("", dir_fd=handles[1])
                todo += _parts(target)
                os.close(handles.pop())
                if target.startswith("/"):
                    os.close(handles.pop())
                    handles.append(os.open("/", PATH_ONLY | os.O_DIRECTORY))
                    where = "/"
                status = os.fstat(handles[0])
            return handles.pop()
        finally:
            for handle in handles:
                os.close(handle)

    def _entry(self, here: int, name: str, folder: bool) -> int:
        """What stands under that name: a descriptor. With ``folder``, of what is on the way."""
        try:
            # A folder as one, so that it is mounted where an automounter waits for that.
            return os.open(name, PATH_ONLY | os.O_DIRECTORY if folder else PATH_ONLY, dir_fd=here)
        except NotADirectoryError:
            return os.open(name, PATH_ONLY, dir_fd=here)
        except FileNotFoundError:
            if self._make is None:
                raise
        with suppress(FileExistsError):  # Made meanwhile: looked at like any other.
            os.mkdir(name, 0o755 if folder else self._make, dir_fd=here)
        return os.open(name, PATH_ONLY, dir_fd=here)

    def _refuse_server(self, step: str, entry: int) -> None:
        """Raises Untrusted where somebody else may say of what stands there what he likes.

        Raises OSError where one who is believed does not answer.
        """
        uid = filesystems.server(filesystems.mount_of(entry))
        if uid in self._owners:
            try:
                filesystems.refuse_silent(step, exactly=True)
            except UnknownState as error:
                raise OSError(errno.EIO, str(error)) from None
        elif uid is not None:
            what = f"the file system of {step} is mounted by user {uid}, who answers for it"
            who = f"and could change {self._what}"
            raise Untrusted(step, f"not trusted by {_caller()}: {what} {who}")

    def _check(
        self,
        step: str,
        entry: int,
        status: os.stat_result,
        above: os.stat_result | None,
        last: bool,
    ) -> None:
        """Raises Untrusted. ``above`` is the folder that it is in, if its name was looked up."""
        if status.st_uid in self._owners and _is_alone(entry, status):
            return
        link = stat.S_ISLNK(status.st_mode)
        if status.st_uid not in self._owners:
            from reconciler.host.users import overflow_uid

            in_sticky = above is not None and above.st_mode & stat.S_ISVTX
            overflow = not last and not link and status.st_uid == overflow_uid()
            noted = os.geteuid() != 0 and not in_sticky and (link or not last or self._lenient)
            if not overflow:
                self._owner(step, status, noted)
        sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
        device = stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)
        if link or device or (sticky and not last):
            return  # In a sticky folder others may add entries, but not replace ours, inode(7).
        from reconciler.host.writers import writers

        writer = next(writers(entry, status, self._owners, self._services), None)
        if writer is not None:
            who, remedy = writer
            text = f"{who} may write to {step}"
            # What is sticky is meant to be everybody's, but for a queue.
            meant = sticky and not self._shared
            settled = () if meant or not remedy else (*remedy, step)
            if not self._lenient or status.st_mode & stat.S_IWOTH:
                raise Untrusted(step, f"not trusted by {_caller()}: {text}", settled)
            if self._notes is not None:
                self._notes.append(Untrusted(step, text, settled))

    def _owner(self, step: str, status: os.stat_result, noted: bool) -> None:
        """It belongs to somebody else: raised, or only noted."""
        sorts = {stat.S_IFDIR: "the directory ", stat.S_IFLNK: "the symbolic link "}
        sort = sorts.get(stat.S_IFMT(status.st_mode), "")
        by = f"{sort}{step} belongs to user {status.st_uid}, who could change {self._what}"
        if noted:
            if self._notes is not None:
                self._notes.append(Untrusted(step, by))
            return
        flag = ("-h",) if stat.S_ISLNK(status.st_mode) else ()
        # A folder that is somebody's stays his: what is to be believed is better kept elsewhere.
        takes = os.geteuid() == 0 and (self._shared or not stat.S_ISDIR(status.st_mode))
        remedy = ("chown", *flag, "root", step) if takes else ()
        hint = (
            ""
            if remedy or self._shared
            else f"; keep it in a folder of your own, or, to believe that account, add: "
            f"--trust {status.st_uid}"
        )
        raise Untrusted(step, f"not trusted by {_caller()}: {by}{hint}", remedy)


def _parts(path: str) -> list[str]:
    """The names in a path, the first one last."""
    return [part for part in path.split("/") if part not in ("", ".")][::-1]


def _caller() -> str:
    return f"user {os.geteuid()}" if os.geteuid() else "root"
