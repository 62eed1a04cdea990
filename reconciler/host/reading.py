"""Files of people, read through descriptors; never what a symlink leads to.

It must not wait for what is no file, nor read more than it was allowed to. What it finds must not
be shown where ``is_private`` says so: who may write to a folder can give the name that is watched
there to a file that he may not read.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

from reconciler.base.errors import HostError, UnknownState
from reconciler.base.records import dataclass
from reconciler.host.walk import closing, opened, reason, sort_of

_MOST_TEXT = 2**18
_MOST_FILES = 500
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
PRIVATE = (
    "not shown, since others could have given its name to what they may not read; make it "
    "readable for all, or the folder's owner its owner"
)


@dataclass(frozen=True, slots=True)
class Content:
    """What a file holds, and how it is; ``handle`` is open for reading."""

    data: bytes
    status: os.stat_result
    handle: int


@contextmanager
def regular_file_in(folder: int, name: str, path: str) -> Iterator[int | None]:
    """A descriptor of the regular file of that name; None when there is nothing.

    ``path`` is what people are told. Raises HostError when it is something else, and OSError.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode):
            raise HostError(f"{path} is {sort_of(status)}, not a file; move it away")
        handle = os.open(name, flags, dir_fd=folder)
    except FileNotFoundError:
        yield None
        return
    with closing(handle):
        yield handle


@contextmanager
def reading(folder: int, name: str, path: str, limit: int) -> Iterator[Content | None]:
    """The regular file ``name`` in ``folder``, kept open; None when there is nothing.

    ``path`` is what people are told. Raises HostError when it is something else, a symlink too,
    or longer than ``limit`` bytes, and OSError.
    """
    with regular_file_in(folder, name, path) as handle:
        if handle is None:
            yield None
            return
        data = content(handle, limit + 1)
        if len(data) > limit:
            raise HostError(f"{path} is larger than {limit // 2**20} MiB, so it is not changed")
        yield Content(data, os.fstat(handle), handle)


def read_in(folder: int, name: str, path: str, limit: int) -> tuple[bytes, os.stat_result] | None:
    """The same, closed again."""
    with reading(folder, name, path, limit) as found:
        return None if found is None else (found.data, found.status)


def content(handle: int, most: int) -> bytes:
    """At most so many bytes from the beginning of what is open there. Raises OSError."""
    chunks = []
    at = 0
    while at < most and (chunk := os.pread(handle, min(most - at, 1 << 20), at)):
        chunks.append(chunk)
        at += len(chunk)
    return b"".join(chunks)


def beginning(path: str, limit: int) -> bytes | None:
    """The first ``limit`` bytes of a regular file, or None when there is none.

    Raises UnknownState when it cannot be read.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UnknownState(f"cannot read {path}: {reason(error)}") from None
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise UnknownState(f"cannot read {path}: it is {sort_of(status)}, not a file")
        return os.read(handle, limit)
    except OSError as error:
        raise UnknownState(f"cannot read {path}: {reason(error)}") from None
    finally:
        os.close(handle)


@contextmanager
def regular_file(path: str) -> Iterator[tuple[int, bool]]:
    """A descriptor that reads the regular file ``path``, no symlink, and whether it is private.

    Raises OSError, HostError.
    """
    parent, _, name = path.rpartition("/")
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY
    with opened(parent) as folder:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode):
            raise UnknownState(f"{path} is {sort_of(status)}, not a file")
        handle = os.open(name, flags, dir_fd=folder)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise UnknownState(f"{path} is not a file any more")
            private = is_private(folder, handle)
        except BaseException:
            os.close(handle)
            raise
    with closing(handle):
        yield handle, private


def is_private(folder: int, file: int | None = None, also: Collection[int] = ()) -> bool:
    """Could somebody have given that name to what he may not read? Then it must not be shown.

    It is asked of a ``file`` that stands in ``folder``, or else of the folder, for its names.
    The one who could is whoever may write to a folder on the way. What is shown must be his who
    owns such a folder, or an account's of ``also``; or readable for all, or for the group that
    may write there. Only root is asked: others read with their own rights.
    """
    if os.geteuid() != 0:
        return False
    from reconciler.host.trust import only_ours

    shown = os.fstat(folder if file is None else file)
    rightful, groups = set(also), set()
    # Can all others get to it, as far as the last folder that they may write to?
    reachable, known_to_all = bool(shown.st_mode & stat.S_IROTH), True
    entry, here = shown, os.open("." if file is not None else "..", _FOLDER, dir_fd=folder)
    try:
        while True:
            above = os.fstat(here)
            if os.path.samestat(above, entry):
                break  # It is the root folder.
            # In a sticky one nobody renames what is another's, inode(7); a hard link is a name.
            linked = stat.S_ISREG(entry.st_mode) and entry.st_nlink > 1
            sticky = above.st_mode & stat.S_ISVTX and above.st_uid == 0 and not linked
            if not sticky and not only_ours(above, here, services=True):
                rightful.add(above.st_uid)
                groups.add(above.st_gid if above.st_mode & stat.S_IWGRP else -1)
                known_to_all = reachable
            reachable = reachable and bool(above.st_mode & stat.S_IXOTH)
            entry, below = above, here
            here = os.open("..", _FOLDER, dir_fd=below)
            os.close(below)
    finally:
        os.close(here)
    by_group = shown.st_mode & stat.S_IRGRP and shown.st_gid in groups
    return not (known_to_all or by_group or shown.st_uid in rightful - {0})


def texts(places: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The path and the text of each file of these folders, or of the place that is a file."""
    for place in places:
        try:
            names = sorted(f"{place}/{one}" for one in os.listdir(place))
        except NotADirectoryError:
            names = [place]
        except OSError:
            continue
        for name in names[:_MOST_FILES]:
            found = text(name)
            if found is not None:
                yield name, found


def text(path: str) -> str | None:
    """The first 256 KiB of that file; None where it cannot be read."""
    try:
        with open(path, "rb", opener=_unwaiting) as file:
            data = file.read(_MOST_TEXT)
    except (OSError, ValueError):
        return None
    # A FIFO that somebody is about to write to has None.
    return (data or b"").decode(errors="replace").replace("\r\n", "\n")


def _unwaiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)
