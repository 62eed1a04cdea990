"""Writes a file that is ours as a whole, in place of what has its name.

It must not show it under that name before it is whole, settled and checked, nor take away
anything but what was looked at.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from reconciler.base.errors import HostError, UnknownState
from reconciler.base.records import dataclass
from reconciler.host.filesystems import mount_of, refuse_silent
from reconciler.host.place import draft, put_link, write_all
from reconciler.host.private_folder import private_folder
from reconciler.host.reading import PRIVATE, content, is_private, regular_file_in
from reconciler.host.refusals import (
    kept_mode,
    refuse,
    refuse_file_of_another,
    refused,
    refused_set_id,
)
from reconciler.host.trust import PATH_ONLY, is_trusted
from reconciler.host.users import run_as
from reconciler.host.walk import closing, opened, reported, sort_of, taken
from reconciler.host.work import hollow
from reconciler.host.written import SHOWN, as_shown, digest_of

_CHUNK = 2**16
_AGAIN = "has changed meanwhile; the next pass looks again"


@dataclass(frozen=True, slots=True)
class WholeFileWriter:
    """Puts a file at ``path`` with what ``fill`` writes to a descriptor of it.

    What is None or -1 of mode, user and group is as it was, with ACL and extended attributes, or
    ``born`` and the caller's. ``check`` gets a path of the new file before it is in place, and
    raises HostError. ``path`` has no symlink at its end.
    """

    path: str
    fill: Callable[[int], None]
    mode: int | None = None
    uid: int = -1
    gid: int = -1
    born: int = 0o644
    check: Callable[[str], None] = lambda new: None

    def write(self) -> None:
        """Write it; a mount point is written in place. Raises HostError."""
        parent, _, name = self.path.rpartition("/")
        with (
            reported(f"cannot write {self.path}"),
            opened(parent, make=True) as folder,
            regular_file_in(folder, name, self.path) as old,
        ):
            if old is not None and mount_of(old) != mount_of(folder):
                self._write_in_place(folder, old)
            else:
                self._replace(folder, old)

    def _replace(self, folder: int, old: int | None) -> None:
        path, mode, uid, gid = self.path, self.mode, self.uid, self.gid
        parent, _, name = path.rpartition("/")
        with draft(folder, name) as made:
            contested = not is_trusted(parent or "/")
            self.fill(made.handle)
            was = None if old is None else os.fstat(old)
            if was is None:
                made.settle(self.born if mode is None else mode, uid, gid)
            else:
                refuse_file_of_another(folder, parent, was, path, uid)
                refuse(refused_set_id(path, was, mode, uid, gid))
                if contested and was.st_uid not in (0, os.geteuid()):
                    refuse(refused(path, was, os.fstat(folder), mode, uid, gid, named=False))
                made.settle(kept_mode(was, uid, gid) if mode is None else mode, uid, gid, old)
                now = os.fstat(made.handle)
                owners = was.st_uid if uid == -1 else uid, was.st_gid if gid == -1 else gid
                if (now.st_uid, now.st_gid) != owners:
                    raise HostError(
                        f"{path} belongs to user {was.st_uid} and group {was.st_gid}, which cannot "
                        f"be kept when it is replaced; {run_as('its owner')}"
                    )
            seen = None if was is None else _identity(was)
            same = None if seen is None else lambda status: _identity(status) == seen

            # Who may write to the way can give that name to something else for who is to check it.
            by_handle = f"/proc/{os.getpid()}/fd/{made.handle}"
            if not made.exchange(
                same, lambda new: self.check(by_handle if contested else f"{parent}/{new}")
            ):
                raise HostError(f"{path} {_AGAIN}")

    def _write_in_place(self, folder: int, old: int) -> None:
        """It is a mount point, as /etc/hosts is in a container: nothing can be put in its place.

        What it is to hold is made and checked first. Who reads meanwhile, or after a kill, may see
        a part of it; the next pass writes it again.
        """
        path, mode, uid, gid = self.path, self.mode, self.uid, self.gid
        parent, _, name = path.rpartition("/")
        if not is_trusted(parent or "/"):
            raise HostError(f"{path} is a mount point in a folder that others may write to")
        was = os.fstat(old)
        refuse_file_of_another(folder, parent, was, path, uid)
        refuse(refused_set_id(path, was, mode, uid, gid))
        mode = kept_mode(was, uid, gid) if mode is None else mode
        made = os.memfd_create(name, os.MFD_CLOEXEC)
        with closing(made):
            self.fill(made)
            self.check(f"/proc/{os.getpid()}/fd/{made}")
            size = os.fstat(made).st_size
            handle = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            with closing(handle):
                if _identity(os.fstat(handle)) != _identity(was):
                    raise HostError(f"{path} {_AGAIN}")
                with suppress(OSError):  # Not every file system can say whether there is room.
                    os.posix_fallocate(handle, 0, max(1, size))
                if stat.S_IMODE(was.st_mode) & ~mode:
                    # Before there is what not all of them are to read.
                    os.fchmod(handle, stat.S_IMODE(was.st_mode) & mode)
                if (uid, gid) != (-1, -1):
                    os.fchown(handle, uid, gid)
                os.lseek(made, 0, os.SEEK_SET)
                while chunk := os.read(made, _CHUNK):
                    write_all(handle, chunk)
                os.ftruncate(handle, size)
                if stat.S_IMODE(os.fstat(handle).st_mode) != mode:
                    os.fchmod(handle, mode)
                os.fsync(handle)


def clear(path: str) -> None:
    """Take away what a killed pass has left beside it. Raises HostError."""
    parent, _, name = path.rpartition("/")
    words = f"cannot clear up beside {path}"
    with reported(words), opened(parent) as folder:
        if not _is_mount_point(folder, name):
            with private_folder(folder, name):
                pass


def _is_mount_point(folder: int, name: str) -> bool:
    try:
        entry = os.open(name, PATH_ONLY, dir_fd=folder)
    except FileNotFoundError:
        return False
    with closing(entry):
        return mount_of(entry) != mount_of(folder)


def write_link(path: str, target: str, old: str | None) -> None:
    """A symlink at ``path``, in place of one to ``old``, or of nothing. Raises HostError."""
    parent, _, name = path.rpartition("/")
    with reported(f"cannot make the link {path}"), opened(parent, make=True) as folder:
        if old is not None:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            refuse_file_of_another(folder, parent, status, path)
        if not put_link(folder, name, target, old):
            raise HostError(f"{path} {_AGAIN}")


def remove_link(path: str, target: str) -> None:
    """Remove a symlink that leads there. Raises HostError."""
    parent, _, name = path.rpartition("/")
    with reported(f"cannot remove the link {path}"), opened(parent) as folder:
        if os.readlink(name, dir_fd=folder) != target:
            raise HostError(f"{path} {_AGAIN}")
        os.unlink(name, dir_fd=folder)


@contextmanager
def opened_source(path: str) -> Iterator[int]:
    """A descriptor of a source, which nobody else could have put there. Raises HostError."""
    from reconciler.host import trust
    from reconciler.host.spec_files import lying

    path = lying(path)
    refuse_silent(path)
    try:
        handle = trust.opened(path, what="the file that is made of it")
    except FileNotFoundError:
        raise UnknownState(f"there is no {path}, of which a copy is to be made") from None
    with closing(handle):
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise HostError(f"{path} is {sort_of(os.fstat(handle))}, not a file")
        yield handle


def shown_file(real: str, handle: int) -> str:
    """What is shown of that file, which is open: nothing that others may have put there."""
    parent, _, name = real.rpartition("/")
    with closing(os.open(parent or "/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as folder:
        # Else what is asked of the way to it would be answered for another one.
        is_there = os.path.samestat(
            os.stat(name, dir_fd=folder, follow_symlinks=False), os.fstat(handle)
        )
        hidden = not is_there or is_private(folder, handle)
        return f"({PRIVATE})" if hidden else shown_bytes(handle)


def shown_bytes(data: bytes | int) -> str:
    """What is shown of bytes, or of what is open there: a text, or else its digest."""
    size = len(data) if isinstance(data, bytes) else os.fstat(data).st_size
    if isinstance(data, int) and is_hollow(data):
        return f"({size:,} bytes, most of them holes)"
    some = data if isinstance(data, bytes) else content(data, SHOWN + 1)
    try:
        if size <= SHOWN and b"\0" not in some:
            return as_shown(some.decode())
    except UnicodeDecodeError:
        pass
    return f"({size:,} bytes, digest {digest_of(data)[:12]})"


def is_hollow(handle: int) -> bool:
    """Has it holes that would take a pass to be read? They cost nothing to who makes them."""
    status = os.fstat(handle)
    return hollow(status.st_size, taken(status))


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_mode
