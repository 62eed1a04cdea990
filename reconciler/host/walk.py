"""The way to every file or directory, walked by descriptors.

It must not follow a symlink that somebody else could have made, nor change anything through a
name that can be swapped between the check and the change.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from reconciler.base.errors import HostError, UnknownState
from reconciler.host.filesystems import mount_of, refuse_silent, server
from reconciler.host.trust import MOST_LINKS, PATH_ONLY, shared
from reconciler.host.users import run_as

_SHOWN = 1000
"""Characters of a path that are shown to people."""


class closing:
    """Gives an open descriptor to a block, at whose end it is closed."""

    __slots__ = ("_handle",)

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def __enter__(self) -> int:
        return self._handle

    def __exit__(self, *error: object) -> None:
        os.close(self._handle)


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
        return foreign_server(handle) is not None
    except OSError:
        return True


def foreign_server(handle: int) -> int | None:
    """The user other than root and the caller who answers for the file system that it is on."""
    uid = server(mount_of(handle))
    return None if uid in (0, os.geteuid()) else uid


def gives_rights(handle: int, server: int | None) -> bool:
    """Have set-ID bits and capabilities an effect there? Not with ``nosuid``, mount(8)."""
    return server is None and not os.fstatvfs(handle).f_flag & os.ST_NOSUID


def credible(handle: int, status: os.stat_result, server: int | None) -> tuple[int, int, int]:
    """Mode, user and group of what is open there, as far as they count on another file system.

    No set-ID bit where it has no effect: who brings such a file system need not be root, and a
    copy elsewhere would run as whom he names. What a foreign ``server`` answers for is all his;
    a folder of it gives its group to nothing that is made there.
    """
    mode, uid, gid = stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid
    is_folder = stat.S_ISDIR(status.st_mode)
    special = mode & ~0o1777
    if special and (server is not None or not (is_folder or gives_rights(handle, server))):
        mode &= 0o1777
    return (mode, uid, gid) if server is None else (mode, server, os.getegid())


def exchangeable(above: os.stat_result, status: os.stat_result) -> bool:
    """Can somebody else than root and the caller exchange that entry of the folder ``above``?"""
    ours = (0, os.geteuid())
    kept = above.st_mode & stat.S_ISVTX and above.st_uid in ours and status.st_uid in ours
    return shared(above) and not kept


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
    here = os.open("/", PATH_ONLY | os.O_DIRECTORY)
    try:
        todo = [part for part in reversed(path.split("/")) if part]
        links = below_link = 0
        above = os.fstat(here)
        open_way = False
        while todo:
            name = todo.pop()
            below_link -= 1
            try:
                entry = os.open(name, PATH_ONLY, dir_fd=here)
            except FileNotFoundError:
                if not make:
                    raise
                if below_link >= 0:
                    raise HostError(f"a symlink on the way to {path} leads nowhere") from None
                os.mkdir(name, 0o777, dir_fd=here)
                entry = os.open(name, PATH_ONLY | os.O_DIRECTORY, dir_fd=here)
            status = os.fstat(entry)
            if stat.S_ISLNK(status.st_mode):
                with closing(entry):
                    sticky = bool(above.st_mode & stat.S_ISVTX)
                    refuse_foreign_link(here, shared(above), sticky, open_way, status, path)
                    target = os.readlink("", dir_fd=entry)
                links += 1
                if links > MOST_LINKS:
                    raise HostError(f"{path} is a loop of symlinks")
                parts = [part for part in reversed(target.split("/")) if part not in ("", ".")]
                todo += parts
                below_link = max(0, below_link) + len(parts)
                if target.startswith("/"):
                    os.close(here)
                    here = os.open("/", PATH_ONLY | os.O_DIRECTORY)
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
    with closing(os.open(name, PATH_ONLY, dir_fd=folder)) as entry:
        if stat.S_ISLNK(os.fstat(entry).st_mode):
            # A link that may be followed leads to a directory, as status() has seen it.
            with opened(path) as target:
                yield target
        else:
            yield entry


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


def joined(below: str, name: str) -> str:
    """A path below a top, of a name in a folder below it."""
    return f"{below}/{name}" if below else name


def shown(path: str) -> str:
    """A path for people: of one that is too long for every tool its beginning and its end."""
    if len(path) <= 2 * _SHOWN:
        return path
    return f"{path[:_SHOWN]}…({len(path):,} characters)…{path[-_SHOWN:]}"
