"""A folder beside a name that only we may enter, in which what gets that name is made.

It must not be believed because of its name: whoever may write beside it could have made it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from reconciler.base.errors import HostError
from reconciler.base.records import dataclass
from reconciler.host.trust import shared
from reconciler.host.walk import closing

_LONGEST_NAME = 255
NEW = "reconcile.new"
"""What is being made is called so in a folder of its own."""
ACL = "system.posix_acl_access"
_DEFAULT_ACL = "system.posix_acl_default"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Private:
    """A folder that only we may enter: a descriptor of it, and its name."""

    handle: int
    name: str


@contextmanager
def private_folder(folder: int, name: str) -> Iterator[Private]:
    """A folder beside ``name`` that only we may enter, and one pass at a time.

    It goes away again when nothing is left in it. Raises OSError or HostError.
    """
    usual = private_name(name)
    # Something of that name that is not ours does not hinder us.
    for called in (usual, f"{usual}.{os.urandom(4).hex()}"):
        there = False
        try:
            os.mkdir(called, 0o700, dir_fd=folder)
        except FileExistsError:
            there = True
        handle = entered(folder, called)
        if handle is not None:
            break
    else:
        raise HostError(f"cannot make a private folder beside {name}")
    try:
        if there:
            _clear(handle)  # What a killed pass has left.
        yield Private(handle, called)
    finally:
        with suppress(OSError):
            try:
                os.rmdir(called, dir_fd=folder)
            except OSError:
                _clear(handle)
                os.rmdir(called, dir_fd=folder)
        os.close(handle)


def private_name(name: str) -> str:
    """What that folder is called, unless something that is not ours is in the way."""
    return f"{passing_name(name, 11)}.d"


def entered(folder: int, called: str) -> int | None:
    """A locked descriptor of a private folder; None when it is not private, or in use."""
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        entry = os.open(called, flags, dir_fd=folder)
    except OSError:
        return None
    with closing(entry):
        status = os.fstat(entry)
        above = os.fstat(folder)
        # Who mounts something there may say of it what he likes.
        if status.st_dev != above.st_dev:
            return None
        # A file system without such rights (FAT) has no private folders: there it is as safe as
        # the folder that it is in.
        if not _is_private(status) and (shared(above) or shared(status)):
            return None
        # A default ACL may have kept rights from us too.
        os.chmod(f"/proc/self/fd/{entry}", 0o700 | status.st_mode & stat.S_ISGID)
        handle = os.open(".", _FOLDER, dir_fd=entry)
    for acl in (ACL, _DEFAULT_ACL):
        take_away(handle, acl)
    with suppress(BlockingIOError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return handle
    os.close(handle)
    return None


def _is_private(status: os.stat_result) -> bool:
    """Is it a directory that only we may enter? With an ACL the bits of the group are its mask."""
    ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
    return ours and not status.st_mode & 0o077


def _clear(private: int) -> None:
    with suppress(FileNotFoundError):
        try:
            os.unlink(NEW, dir_fd=private)
        except IsADirectoryError:
            os.rmdir(NEW, dir_fd=private)


def take_away(handle: int, attribute: str) -> None:
    try:
        os.removexattr(handle, attribute)
    except OSError as error:
        if error.errno not in (errno.ENODATA, errno.EOPNOTSUPP):
            raise


def passing_name(name: str, more: int = 0) -> str:
    """The name of what stands beside ``name`` as a mark while something is done about it.

    ``more`` characters have room behind it.
    """
    passing = f".{name}.reconcile"
    if len(os.fsencode(passing)) + more > _LONGEST_NAME:
        from reconciler.base.digests import blake2b

        passing = f".{blake2b(os.fsencode(name), digest_size=8).hexdigest()}.reconcile"
    return passing
