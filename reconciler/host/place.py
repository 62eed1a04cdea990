"""Files appear whole: written under a passing name beside the goal, synced, then renamed.

It must not write through a name that can be swapped, nor leave half a file under the real name.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from reconciler.host.command import still_waiting
from reconciler.host.walk import opened, reported, sort_of
from reconciler.model import HostError

_LONGEST_NAME = 255


class Draft:
    """A new file that has no name of its own yet; ``handle`` is open for reading and writing."""

    def __init__(self, folder: int, name: str, passing: str, handle: int) -> None:
        self.handle = handle
        self._folder = folder
        self._name = name
        self._passing = passing

    def publish(
        self,
        mode: int,
        uid: int,
        gid: int,
        replace: bool = True,
        name: str | None = None,
        marked: bool = False,
    ) -> None:
        """Give it owner, mode and its real name, and see that all of it is on the disk.

        ``uid`` or ``gid`` -1 is the caller's. Without ``replace`` it raises FileExistsError
        when something has that name already. ``name`` is another name than it was made for.
        ``marked``: it keeps its passing name as well, as a mark that something is still to be
        done about it; only without ``replace``.
        """
        name = self._name if name is None else name
        if (uid, gid) != (-1, -1):
            os.fchown(self.handle, uid, gid)
        os.fchmod(self.handle, mode)
        os.fsync(self.handle)
        if replace:
            os.rename(self._passing, name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        else:
            try:
                os.link(self._passing, name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
            except PermissionError:
                # A file system without hard links, such as FAT, still renames without replacing.
                from reconciler.host.kernel import rename_new

                rename_new(self._folder, self._passing, self._folder, name)
            else:
                if not marked:
                    os.unlink(self._passing, dir_fd=self._folder)
        sync_folder(self._folder)

    def drop(self) -> None:
        """Take it away again."""
        with suppress(OSError):
            os.unlink(self._passing, dir_fd=self._folder)


def passing_name(name: str) -> str:
    """The name that ``name`` has while it is being written."""
    passing = f".{name}.reconcile"
    if len(os.fsencode(passing)) > _LONGEST_NAME:
        from reconciler.digests import blake2b

        passing = f".{blake2b(os.fsencode(name), digest_size=8).hexdigest()}.reconcile"
    return passing


@contextmanager
def draft(folder: int, name: str) -> Iterator[Draft]:
    """A new file for ``name`` in the directory ``folder``; nothing stays unless it is published.

    What a killed pass has left under the passing name is taken away first. Raises OSError.
    """
    passing = passing_name(name)
    with suppress(FileNotFoundError):
        os.unlink(passing, dir_fd=folder)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    handle = os.open(passing, flags, 0o600, dir_fd=folder)
    made = Draft(folder, name, passing, handle)
    try:
        yield made
    except BaseException:
        made.drop()
        raise
    finally:
        os.close(handle)


def sync_folder(folder: int) -> None:
    """See that the names in a directory are on the disk; the descriptor may be path-only."""
    handle = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_all(handle: int, data: bytes) -> None:
    """Write all of ``data``, in as many calls as it takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]
    still_waiting()


def read_in(folder: int, name: str, path: str, limit: int) -> tuple[bytes, os.stat_result] | None:
    """A regular file's content and status, or None when there is none.

    Raises HostError when it is something else, a symlink too, or longer than ``limit`` bytes.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode):
            raise HostError(f"{path} is {sort_of(status)}, not a file; move it away")
        handle = os.open(name, flags, dir_fd=folder)
    except FileNotFoundError:
        return None
    try:
        chunks = []
        left = limit + 1
        while left > 0 and (chunk := os.read(handle, min(left, 1 << 20))):
            chunks.append(chunk)
            left -= len(chunk)
        if left <= 0:
            raise HostError(f"{path} is longer than {limit // 2**20} MiB; it is left alone")
        return b"".join(chunks), os.fstat(handle)
    finally:
        os.close(handle)


def replace_file(
    path: str, data: bytes, seen: bytes | None, mode: int | None, uid: int, gid: int, limit: int
) -> None:
    """Put a file with ``data`` at ``path``, in place of one that still holds ``seen``.

    ``seen`` None: nothing may be there. Mode, owner and group that are None or -1 are those of
    the file that is replaced, else 0644 and the caller's. ``path`` has no symlink at its end
    (Files.real gives such a path). Missing parents are made. Raises HostError, also when the
    file has changed since it was seen; nothing is written then.
    """
    parent, _, name = path.rpartition("/")
    with reported(f"cannot write {path}"), opened(parent, make=True) as folder:
        there = read_in(folder, name, path, limit)
        if (None if there is None else there[0]) != seen:
            raise HostError(f"{path} has changed since it was looked at; the next pass looks again")
        status = None if there is None else there[1]
        if status is not None:
            mode = stat.S_IMODE(status.st_mode) if mode is None else mode
            # Only root may give a file away; for others it is theirs anyhow, or nothing works.
            uid = status.st_uid if uid == -1 and os.geteuid() == 0 else uid
            gid = status.st_gid if gid == -1 else gid
        with draft(folder, name) as made:
            write_all(made.handle, data)
            made.publish(0o644 if mode is None else mode, uid, gid, replace=status is not None)


def remove_file(path: str, seen: bytes, limit: int) -> None:
    """Remove a file that still holds ``seen``. Raises HostError when it does not."""
    parent, _, name = path.rpartition("/")
    with reported(f"cannot remove {path}"), opened(parent) as folder:
        there = read_in(folder, name, path, limit)
        if there is None or there[0] != seen:
            raise HostError(f"{path} has changed since it was looked at; the next pass looks again")
        os.unlink(name, dir_fd=folder)
        sync_folder(folder)
