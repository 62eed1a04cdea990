"""Small file operations in folders that are held open, which follow no planted link.
Must not know what the files are about.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat

from reconciler.base.errors import HostError
from reconciler.executor.home import reached
from reconciler.host import place
from reconciler.host.reading import content
from reconciler.host.walk import closing, sort_of


class NotRegular(OSError):
    """The name is a symlink, a directory, a FIFO or a device, not a file with content."""


def open_regular(path: str, folder: int | None = None) -> int:
    """Open a regular file for reading, without following a link and without ever waiting.

    `path` may be a name in `folder`. Raises NotRegular, which says what it is instead, and OSError.
    """
    # Looked at before open: opening a device can already do something.
    _refuse_other_sorts(os.stat(path, dir_fd=folder, follow_symlinks=False))
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
    fd = os.open(path, flags, dir_fd=folder)
    try:
        _refuse_other_sorts(os.fstat(fd))
    except BaseException:
        os.close(fd)
        raise
    return fd


def open_shown(path: str) -> int:
    """The same in a home of anybody's: no symlink of others leads to what is shown."""
    folder, name = os.path.split(path)
    with reached(folder) as handle:
        return open_regular(name, handle)


def _refuse_other_sorts(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise NotRegular(f"it is {sort_of(status)}, not a regular file")


def read_small(path: str, limit: int, folder: int | None = None) -> bytes:
    """The content of a regular file of at most `limit` bytes; OSError otherwise."""
    with closing(open_regular(path, folder)) as fd:
        data = content(fd, limit + 1)
    if len(data) > limit:
        raise OSError(f"{path}: larger than {limit} bytes")
    return data


def put(
    folder: int, name: str, data: bytes, mode: int, replace: bool = False, sync: bool = True
) -> None:
    """A whole file with exactly that mode. Raises FileExistsError unless `replace`, and OSError."""
    try:
        place.put(folder, name, data, mode, replace=replace, sync=sync)
    except HostError as error:
        raise OSError(str(error)) from None
    except OSError as error:
        error.filename = error.filename or name  # a write does not know where it goes
        raise


def is_there(folder: int, name: str) -> bool:
    """Whether something has that name, even a link that leads nowhere."""
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def narrow(folder: int, name: str, mode: int) -> None:
    """Take from a file the rights of others that `mode` does not give, if it is ours."""
    with contextlib.suppress(OSError):
        info = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if not info.st_mode & 0o077 & ~mode:
            return
        with closing(open_regular(name, folder)) as fd:
            os.fchmod(fd, info.st_mode & (mode | 0o7700))


def try_lock(fd: int) -> bool:
    """Take the exclusive flock of an open file if it is free."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def open_lock(folder: int, name: str) -> int:
    """A file to lock that only we may open, made if missing: who may open a file may lock it.

    Raises OSError if the name stands for something else.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
    fd = os.open(name, flags, 0o600, dir_fd=folder)
    info = os.fstat(fd)
    if stat.S_ISREG(info.st_mode) and info.st_uid == os.geteuid() and not info.st_mode & 0o077:
        return fd
    os.close(fd)
    raise OSError(f"the lock {name} is not a file of ours that nobody else may open; remove it")


def same_file(fd: int, path: str, folder: int | None = None) -> bool:
    """Whether `path` still names the file that is open as `fd`."""
    try:
        there = os.stat(path, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return False
    return os.path.samestat(os.fstat(fd), there)
