"""Small file operations that leave no half-written file and follow no planted link.
Must not know what the files are about.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat


class NotRegular(OSError):
    """The name is a symbolic link, a directory, a pipe or a device, not a file with content."""


_KINDS = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def make_directories(paths: tuple[str, ...]) -> list[str]:
    """Make those of `paths` that are missing; leaves the mode of existing ones. Returns the new."""
    made = []
    for path in paths:
        if not os.path.isdir(path):
            os.makedirs(path, 0o755, exist_ok=True)
            made.append(path)
    return made


def open_regular(path: str) -> int:
    """Open a regular file for reading, without following a link and without ever waiting.

    Raises NotRegular, which says what it is instead, and OSError.
    """
    _refuse_other_kinds(os.lstat(path))  # before open: opening a device can already do something
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        _refuse_other_kinds(os.fstat(fd))
    except BaseException:
        os.close(fd)
        raise
    return fd


def _refuse_other_kinds(info: os.stat_result) -> None:
    for test, words in _KINDS:
        if test(info.st_mode):
            raise NotRegular(f"it is {words}, not a regular file")


def read_at_most(fd: int, limit: int) -> bytes:
    """The file's content from its beginning; `limit` + 1 bytes mean that there is more."""
    parts = []
    offset = 0
    while offset <= limit:
        part = os.pread(fd, limit + 1 - offset, offset)
        if not part:
            break
        parts.append(part)
        offset += len(part)
    return b"".join(parts)


def read_small(path: str, limit: int) -> bytes:
    """The content of a regular file of at most `limit` bytes; OSError otherwise."""
    fd = open_regular(path)
    try:
        data = read_at_most(fd, limit)
    finally:
        os.close(fd)
    if len(data) > limit:
        raise OSError(f"{path}: larger than {limit} bytes")
    return data


def write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def write_temp(temp: str, data: bytes, sync: bool = True) -> None:
    """A new file at `temp` (an old one is removed first). Nothing is left of it on an error."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temp)
    fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    try:
        try:
            write_all(fd, data)
            if sync:
                os.fsync(fd)
        finally:
            os.close(fd)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temp)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = temp  # a write does not know where it goes
        raise


def write_whole(path: str, data: bytes, temp: str, sync: bool = True) -> None:
    """Put `data` at `path` in one step. `temp` is in the same directory and nobody else's."""
    write_temp(temp, data, sync)
    try:
        os.rename(temp, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temp)
        raise
    if sync:
        sync_directory(os.path.dirname(path))


def sync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def try_lock(fd: int) -> bool:
    """Take the exclusive flock of an open file if it is free."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def same_file(fd: int, path: str) -> bool:
    """Whether `path` still names the file that is open as `fd`."""
    try:
        there = os.lstat(path)
    except OSError:
        return False
    here = os.fstat(fd)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
