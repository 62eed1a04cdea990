"""What somebody saved while a file of his was replaced: kept beside it, and found again.

It must not delete what it has not read.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress

from reconciler.base.errors import HostError
from reconciler.host.place import put_at
from reconciler.host.private_folder import Private, entered
from reconciler.host.reading import Content, content
from reconciler.host.walk import closing, opened

_KEPT = "replaced"
"""The file in the state directory that says where something was kept aside."""


def settle(state_dir: str) -> list[str]:
    """Take away what was kept aside and nobody writes to; says what was written to since.

    Only for one who holds the lock of that state directory. Costs one system call when there is
    nothing.
    """
    kept = KeptFolders(state_dir)
    told: list[str] = []
    paths = kept.paths()
    if not paths:
        return told
    for path in paths:
        parent, _, called = path.rpartition("/")
        try:
            with opened(parent) as folder:
                handle = entered(folder, called)
                if handle is not None:
                    with closing(handle):
                        told += _left(Private(handle, called), path)
                    with suppress(OSError):
                        os.rmdir(called, dir_fd=folder)
        except (OSError, HostError):
            continue  # Gone, or not to be reached just now: then the next pass looks again.
    kept.forget()
    return told


def _is_ours(path: str) -> bool:
    try:
        status = os.lstat(path)
    except OSError as error:
        return error.errno not in (errno.ENOENT, errno.ENOTDIR)
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()


def _left(private: Private, path: str) -> list[str]:
    """What is still to be told of a folder in which something was kept."""
    asides = [Aside.called(name) for name in os.listdir(private.handle)]
    left = [one for one in asides if one is not None and not one.let_go(private)]
    written = sum(one.written(private) for one in left)
    if not written:
        return []
    what = "a file" if written == 1 else f"{written} files"
    return [
        f"what somebody saved while a file was replaced is kept in {path} ({what}); take over "
        "what is missing, then remove that folder"
    ]


class Aside:
    """What lies aside: what was exchanged for what was read, and then what came out.

    Its name says what each of them looked like, so that a later pass knows, too.
    """

    def __init__(self, *numbers: int) -> None:
        self._was = numbers[:3], numbers[3:]
        self.name = ".".join(map(str, numbers))

    @classmethod
    def of(cls, seen: Content, ours: os.stat_result | None) -> Aside:
        """For what was ``seen``; ``ours`` is what is exchanged for it, None where nothing is."""
        return cls(*((0, 0, 0) if ours is None else _looks(ours)), *_looks(seen.status))

    @classmethod
    def called(cls, name: str) -> Aside | None:
        """By its name; None when that is none of these."""
        numbers = name.split(".")
        if len(numbers) != 6 or not all(number.isdigit() for number in numbers):
            return None
        return cls(*map(int, numbers))

    def written(self, private: Private) -> bool:
        """Is it something else than what was read, and than what we wrote?"""
        status = os.stat(self.name, dir_fd=private.handle, follow_symlinks=False)
        return _looks(status) not in self._was

    def let_go(self, private: Private) -> bool:
        """Unlink it, unless it is being written to, or was since. Is it gone?"""
        if being_written(private.handle, self.name) or self.written(private):
            return False
        os.unlink(self.name, dir_fd=private.handle)
        return True


def _looks(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns


def being_written(folder: int, name: str) -> bool:
    """May a process have it open for writing, or mapped so? Raises OSError."""
    import fcntl

    from reconciler.host.clock import Clock
    from reconciler.host.openfiles import OpenFiles, leased

    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with closing(os.open(name, flags, dir_fd=folder)) as handle:
        free = leased(handle, fcntl.F_RDLCK)
        # No leases here (NFS), or not for us: who may have it open is looked up.
        return not free if free is not None else bool(OpenFiles(Clock()).held(handle))


class KeptFolders:
    """Where something was kept aside: the paths of folders, in the state directory."""

    def __init__(self, state_dir: str) -> None:
        self._path = os.path.join(state_dir, _KEPT)

    def paths(self) -> list[str]:
        """All of them."""
        try:
            handle = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return []
        with closing(handle):
            return [os.fsdecode(path) for path in content(handle, 1 << 20).split(b"\0") if path]

    def add(self, path: str) -> None:
        """Note it. Raises OSError or HostError."""
        self._write([*self.paths(), path])

    def forget(self) -> None:
        """What is no more, or is not ours."""
        self._write([path for path in self.paths() if _is_ours(path)])

    def _write(self, paths: list[str]) -> None:
        if paths:
            os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
            put_at(self._path, b"\0".join(os.fsencode(path) for path in dict.fromkeys(paths)))
        else:
            with suppress(FileNotFoundError):
                os.unlink(self._path)
