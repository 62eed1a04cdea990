"""The logs of daemons: opened for them, their last lines, and those in our own folder kept small.

It must not open or show what somebody else has put in the place of a log, nor touch one that a
rule of the spec rotates.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress

from reconciler.base.errors import HostError
from reconciler.host.launch import STREAMS
from reconciler.host.reading import is_private
from reconciler.host.refusals import refuse_file_of_another, refuse_hard_link
from reconciler.host.walk import closing, opened, reason, reported, sort_of

MOST = 50 << 20
"""Bytes of a log, and of each of those that were taken out of it."""
KEEP = 5
"""How many of the latter stay."""


Bound = tuple[int, int]
"""The most bytes of a log, and how many files of what was taken out of it stay."""


def trim(
    folder: str, bounds: Mapping[str, Bound], is_rotated: Callable[[str], bool]
) -> Iterator[str]:
    """Take out of each log in ``folder``, and of those that have ``bounds``, what is more than
    they may hold; what went wrong, in words.

    ``is_rotated``: does a rule of the spec rotate it? Then it stays as it is.
    """
    large = {path: bound for path, bound in bounds.items() if _is_larger(path, bound[0])}
    try:
        large |= dict.fromkeys(too_large(folder, bounds), (MOST, KEEP))
    except OSError as error:
        yield f"cannot look through {folder}: {reason(error)}"
    for path, bound in large.items():
        if is_rotated(path):
            continue
        from reconciler.host import rotate

        try:
            rotate.bound(path, *bound)
        except HostError as error:
            yield f"cannot shorten the log {path}: {error}"
        except OSError as error:
            yield f"cannot shorten the log {path}: {reason(error)}"


def too_large(folder: str, but: Collection[str] = ()) -> list[str]:
    """The logs in our own folder that hold more than they may, ``but`` these. Raises OSError."""
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        return [
            entry.path
            for entry in entries
            if entry.name.endswith(".log")
            and entry.path not in but
            and entry.stat(follow_symlinks=False).st_size > MOST
        ]
    return []


def _is_larger(path: str, most: int) -> bool:
    from reconciler.host.files import Files

    try:
        status = Files().status(path)
    except HostError:
        return False  # Where nobody answers; who starts the process says so.
    return status is not None and status.st_size > most


def open_log(path: str, uid: int, gid: int) -> int:
    """A descriptor that appends to ``path``; made, for that user, if missing.

    Raises HostError, also when something other than a regular file stands there, or a file
    that somebody else may have made, see ``refuse_file_of_another``: what is written to it
    would be written with the caller's rights. ``uid`` -1: it is for the caller. One of ``STREAMS``
    is where process 1 prints.
    """
    if path in STREAMS:
        return _stream(path)
    parent, _, name = path.rpartition("/")
    with reported(f"cannot open the log {path}"), opened(parent, make=True) as folder:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            log = os.open(name, flags, dir_fd=folder)
        except FileNotFoundError:
            from reconciler.host.place import new_log

            log = new_log(folder, name, 0o640, uid, gid)
        status = os.fstat(log)
        if not stat.S_ISREG(status.st_mode):
            os.close(log)
            raise HostError(f"the log {path} is {sort_of(status)}, not a file; move it away")
        try:
            refuse_hard_link(folder, status, path)
            refuse_file_of_another(folder, parent, status, path, uid)
        except HostError:
            os.close(log)
            raise
        os.set_blocking(log, True)
        return log


def _stream(path: str) -> int:
    """Raises HostError."""
    if os.path.isdir("/run/systemd/system"):
        raise HostError(
            f"the log {path} is where process 1 of a container prints, and here that is systemd; "
            "name a file, or leave log out"
        )
    with reported(f"cannot open the log {path}"):
        # A pipe that nobody reads any more would have us wait.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
        log = os.open(STREAMS[path], flags)
    os.set_blocking(log, True)
    return log


def last_lines(path: str, limit: int, before: os.stat_result | None = None, uid: int = -1) -> bytes:
    """The whole lines in the last ``limit`` bytes of a log, none that stood there ``before``.

    The rest of a line that begins before them is left out: it may be a piece of a secret.
    Empty when there is none to be read, and when somebody may have given its name to a file
    that is not his nor that user's, ``uid`` as for ``open_log``.
    """
    parent, _, name = path.rpartition("/")
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
    try:
        # What a process has put in the place of its log is not to be shown to people.
        with opened(parent) as folder:
            handle = os.open(name, flags, dir_fd=folder)
            try:
                status = os.fstat(handle)
                refuse_file_of_another(folder, parent, status, path, uid)
                # What was written since it was opened for the process is the process's.
                same = before is not None and os.path.samestat(before, status)
                start = before.st_size if before is not None and same else 0
                if not same and is_private(folder, handle, (uid,)):
                    raise HostError(f"{path} is not to be shown")
            except BaseException:
                os.close(handle)
                raise
    except (OSError, HostError):
        return b""
    with closing(handle):
        if not stat.S_ISREG(status.st_mode):
            return b""
        begin = max(start, status.st_size - limit)
        data = os.pread(handle, limit, begin)
        return data if begin == start else data.partition(b"\n")[2]
