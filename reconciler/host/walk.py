"""Every tree, and the way to every file or directory, seen through descriptors.

It must not follow a symlink that somebody else could have made, follow any below the top of a
tree, leave the mount that the top is on, nor change anything through a name that can be swapped
between the check and the change.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby
from typing import NamedTuple

from reconciler.model import HostError, UnknownState

MOST_LINKS = 40
"""Symlinks on one way, as path_resolution(7) has it."""
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


def refuse_foreign_link(shared: bool, sticky: bool, link: os.stat_result, path: str) -> None:
    # The rule of fs.protected_symlinks, proc(5), made stricter: in a directory that others may
    # write to, only our own or root's links count, and only where sticky keeps them theirs.
    if shared and not (sticky and link.st_uid in (0, os.geteuid())):
        raise UnknownState(
            f"{path} is a symlink in a folder that somebody else may write to, so it is not "
            "followed; write the real path, or take away that right"
        )


def refuse_hard_link(folder: int, status: os.stat_result, path: str) -> None:
    # A hard link to a file of another folder would carry the change there, systemd-tmpfiles(8).
    if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode) and shared(os.fstat(folder)):
        raise HostError(
            f"{path} has {status.st_nlink} hard links in a folder that somebody else may write "
            "to, so it is not changed; replace it by a copy"
        )


class NoSpace(HostError):
    """The disk is full, or a quota is used up."""


@contextmanager
def reported(what: str) -> Iterator[None]:
    """An OSError becomes a HostError that begins with ``what``."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise (NoSpace if full else HostError)(f"{what}: {reason(error)}") from None


def reason(error: OSError) -> str:
    hints = {
        "Permission denied": "; run as root or as its owner",
        "Operation not permitted": "; run as root or as its owner",
        "Directory not empty": "; only an empty directory is removed",
        "No space left on device": "; free some space",
    }
    text = error.strerror or type(error).__name__
    return text.lower() + hints.get(text, "")


@contextmanager
def opened(path: str, make: bool = False) -> Iterator[int]:
    """A path-only descriptor of the directory ``path``, reached without foreign symlinks."""
    here = os.open("/", _PATH_ONLY | os.O_DIRECTORY)
    try:
        todo = [part for part in reversed(path.split("/")) if part]
        links = below_link = 0
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
                    above = os.fstat(here)
                    sticky = bool(above.st_mode & stat.S_ISVTX)
                    refuse_foreign_link(shared(above), sticky, status, path)
                    target = os.readlink("", dir_fd=entry)
                finally:
                    os.close(entry)
                links += 1
                if links > MOST_LINKS:
                    raise HostError(f"{path} is a symlink to a symlink, without end")
                parts = [part for part in reversed(target.split("/")) if part not in ("", ".")]
                todo += parts
                below_link = max(0, below_link) + len(parts)
                if target.startswith("/"):
                    os.close(here)
                    here = os.open("/", _PATH_ONLY | os.O_DIRECTORY)
                continue
            if not stat.S_ISDIR(status.st_mode):
                os.close(entry)
                raise HostError(f"{name} on the way to {path} is {sort_of(status)}; move it away")
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


class File(NamedTuple):
    """A regular file as it was when it was looked at.

    ``time`` is what its age is counted from, ``mtime`` and ``ctime`` the kernel's, all in
    nanoseconds since the epoch. ``below`` is its folder below the top, empty for the top itself.
    ``size`` is in bytes. Sorted, the oldest comes first.
    """

    time: int
    below: str
    name: str
    device: int
    inode: int
    size: int
    mtime: int
    ctime: int

    @property
    def path(self) -> str:
        """Its path below the top."""
        return f"{self.below}/{self.name}" if self.below else self.name

    def is_still(self, status: os.stat_result) -> bool:
        """Is this the same file, unchanged?"""
        return (
            stat.S_ISREG(status.st_mode)
            and (status.st_dev, status.st_ino, status.st_size) == self[3:6]
            and (status.st_mtime_ns, status.st_ctime_ns) == self[6:]
        )


class Elsewhere(OSError):
    """A folder or file below the top is a mount point, and therefore left alone."""


class Tree:
    """An open directory. Raises OSError or HostError when it cannot be opened."""

    def __init__(self, path: str) -> None:
        with opened(path) as top:
            self.top = os.open(".", _FOLDER, dir_fd=top)
        self._device = os.fstat(self.top).st_dev
        self._mount = mount_of(self.top)

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.top)

    def enter(self, below: str) -> int:
        """A new descriptor of a folder below the top, for reading.

        Raises Elsewhere for another mount, and OSError for a symlink on the way.
        """
        here = os.open(".", _FOLDER, dir_fd=self.top)
        try:
            for name in below.split("/") if below else ():
                there = os.open(name, _FOLDER, dir_fd=here)
                os.close(here)
                here = there
                self._stay(here)
        except BaseException:
            os.close(here)
            raise
        return here

    def _stay(self, handle: int) -> None:
        # A bind mount of the same file system has the same device, but another mount.
        if os.fstat(handle).st_dev != self._device or mount_of(handle) != self._mount:
            raise Elsewhere(errno.EXDEV, "it is a mount point")

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
            # Not by its device: overlayfs may give a file another one than the folder it is in.
            if mount_of(handle) != self._mount:
                raise Elsewhere(errno.EXDEV, "it is a mount point")
            yield handle
        finally:
            os.close(handle)


def by_folder(files: Iterable[File]) -> Iterator[tuple[str, list[File]]]:
    """The files of each folder, the oldest first."""
    ordered = sorted(files, key=lambda file: (file.below, file))
    for below, group in groupby(ordered, key=lambda file: file.below):
        yield below, list(group)


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
