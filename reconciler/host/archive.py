"""Files into a .tar.gz that is whole before any of them is deleted.

It must not replace what an archive holds, nor delete a file that has not been read back from it.
"""

from __future__ import annotations

import errno
import io
import os
import re
import stat
import tarfile
import tempfile
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any, NamedTuple

from reconciler.base.digests import blake2b
from reconciler.base.errors import HostError
from reconciler.host.found import File, by_folder
from reconciler.host.gzipped import Gunzip, Gzip, MemberStart, TooMuch
from reconciler.host.openfiles import OpenFiles
from reconciler.host.place import Draft, draft, has_acl, write_all
from reconciler.host.progress import BYTES, Work, working
from reconciler.host.remove import delete, names
from reconciler.host.tar import OPTIONS, header, members
from reconciler.host.tree import Elsewhere, Emptied, Tree
from reconciler.host.walk import credible, foreign_server, opened, reason, reported, sort_of

_SPOOLED = 8 << 20
"""Bytes of a file that are kept in memory while it is read; longer ones go to the disk."""
_CHUNK = 1 << 18
_ENDING = ".tar.gz"
_NUMBER = re.compile(r"(\.[0-9]+)+\Z")
"""Behind a name that was taken."""
_UNREADABLE = (errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE)
"""One file that cannot be read; the others can."""
_INFLATED, _RATIO = 1 << 30, 20
"""What an archive may hold that is rewritten: so many bytes, or so many times its own size, if
that is more. Logs become 5 to 20 times smaller; a trap becomes 1,000 times larger."""


class _Rights(NamedTuple):
    """Whose a file is, and what its mode lets people do; with an ACL nobody but its owner."""

    uid: int
    gid: int
    mode: int


def _rights(handle: int, status: os.stat_result, server: int | None = None) -> _Rights:
    mode, uid, gid = credible(handle, status, server)
    # An ACL may take rights from some whom the mode gives them.
    return _Rights(uid, gid, mode & 0o700 if has_acl(handle) else mode)


def archive(path: str, files: Sequence[File], goal: str, open_files: OpenFiles) -> list[File]:
    """Add files below ``path`` to the archive ``goal``, then delete them.

    Returns those that were left alone: they changed, are open, or are gone. What a killed pass
    has put there already is not added again. Raises HostError: no file is deleted then, unless
    the archive is whole, and only some could not be read or deleted.
    """
    trouble: list[str] = []
    number = 1
    while os.path.lexists(part(goal, number + 1)):
        number += 1
    try:
        kept, spared = _archive(path, files, part(goal, number), open_files, trouble)
    except TooMuch:
        kept, spared = _archive(path, files, part(goal, number + 1), open_files, trouble)
    spared += delete(path, kept, open_files)
    if trouble:
        which = f"{len(trouble)} of {len(files)} files" if len(files) > 1 else "a file"
        raise HostError(f"cannot archive {which}: {trouble[0]}")
    return spared


def part(goal: str, number: int) -> str:
    """The archive itself, and those that were begun when it held too much to be rewritten."""
    return goal if number == 1 else f"{goal.removesuffix(_ENDING)}.part{number}{_ENDING}"


def size(goal: str) -> int:
    """Bytes of an archive with all its parts."""
    found, number = 0, 1
    while True:
        try:
            found += os.stat(part(goal, number)).st_size
        except OSError:
            return found
        number += 1


def _archive(
    path: str, files: Sequence[File], goal: str, open_files: OpenFiles, trouble: list[str]
) -> tuple[list[File], list[File]]:
    """Write the archive; the files that are whole in it, and those that were left alone."""
    parent, _, name = goal.rpartition("/")
    with (
        reported(f"cannot write {goal}; all files were kept"),
        opened(parent, make=True) as folder,
        _existing(folder, name, goal) as old,
        draft(folder, name) as made,
    ):
        out = _Stream(made.handle)
        adding = _Adding(out, folder, open_files, trouble)
        if old is not None:
            adding.take_over(old, goal, {file.path for file in files})
        # Each is read to its end first, and then compressed.
        size = 2 * sum(file.size for file in files)
        with working(f"add to {goal}", size, BYTES) as work:
            kept, spared = adding.add(path, files, work)
        if not adding.added:
            return kept, spared  # All is there already, and has been read whole.
        out.finish()
        os.fsync(made.handle)
        if _digest(made.handle, goal) != out.digest.digest():
            raise HostError(f"{goal} reads back as something else; all files were kept")
        _publish(made, goal, old, adding.parts)
    return kept, spared


def _publish(made: Draft, goal: str, old: int | None, parts: Collection[_Rights]) -> None:
    """Give it its name, readable by nobody who could not read all that is in it."""
    mode = 0o666
    for part in parts:
        mode &= part.mode
    owners = {(part.uid, part.gid) for part in parts}
    uid, gid = -1, os.getegid()
    if os.geteuid() == 0 and len(owners) == 1:
        ((uid, gid),) = owners
    elif owners != {(os.geteuid(), gid)}:
        mode &= 0o600
    made.settle(mode | 0o400, uid, gid)
    if old is None:
        made.publish()
        return
    before = _identity(os.fstat(old))
    if not made.exchange(lambda now: _identity(now) == before):
        raise HostError(f"{goal} has changed meanwhile; the next pass adds to it")


def _identity(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


@contextmanager
def _existing(folder: int, name: str, goal: str) -> Iterator[int | None]:
    """A descriptor of the archive that is there already, or None."""
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        yield None
        return
    if not stat.S_ISREG(status.st_mode):
        raise HostError(f"{goal} is {sort_of(status)}, not an archive; move it away")
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    handle = os.open(name, flags, dir_fd=folder)
    try:
        yield handle
    finally:
        os.close(handle)


class _Stream:
    """A tar, compressed to a descriptor, with the digest of what was written."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._out = Gzip(handle)
        self.digest = blake2b(digest_size=32)

    def write(self, data: bytes) -> int:
        """The next bytes of it."""
        self.digest.update(data)
        return self._out.write(data)

    def write_file(
        self, head: bytes, content: IO[bytes], size: int, work: Work | None = None
    ) -> None:
        """A header, and what a file holds, up to a whole block."""
        padding = bytes(-size % tarfile.BLOCKSIZE)
        while True:
            chunk = content.read(_CHUNK)
            if work is not None:
                work.advance(len(chunk))
            if len(chunk) < _CHUNK:
                break
            self.write(head + chunk)
            head = b""
        self.write(head + chunk + padding)

    def go_on_after(self, old: int, start: MemberStart) -> None:
        """Begin with what is compressed in ``old`` before that gzip member."""
        at = 0
        while chunk := os.pread(old, min(_CHUNK, start.raw - at), at):
            write_all(self._handle, chunk)
            at += len(chunk)
        self.digest = start.digest

    def finish(self) -> None:
        """Write the end, as a gzip member of its own, so that more can be added before it."""
        self._out.finish()
        self._out = Gzip(self._handle)
        self.write(bytes(tarfile.RECORDSIZE))
        self._out.finish()


def _digest(handle: int, goal: str) -> bytes:
    """Of all that an archive holds."""
    os.lseek(handle, 0, os.SEEK_SET)
    with working(f"read {goal}", os.fstat(handle).st_size, BYTES) as work:
        source = Gunzip(handle, work)
        while source.read(_CHUNK):
            pass
    return source.digest.digest()


@contextmanager
def _unpacking(handle: int, goal: str, most: int | None = None) -> Iterator[Gunzip]:
    """Read an archive. Raises HostError when it is damaged, and TooMuch."""
    os.lseek(handle, 0, os.SEEK_SET)
    try:
        with working(f"read {goal}", os.fstat(handle).st_size, BYTES) as work:
            yield Gunzip(handle, work, most)
    except (tarfile.TarError, EOFError, zlib.error, UnicodeError, ValueError) as error:
        raise HostError(
            f"{goal} is damaged or no .tar.gz ({error}); nothing was deleted; repair it, or "
            "move it away and the next pass starts a new one"
        ) from None


class _Member(NamedTuple):
    """What tells two files of an archive apart."""

    size: int
    mtime: float
    digest: bytes


class _Adding:
    """Adds files to an archive that is being written.

    ``parts`` is who could read what it was made of, and ``added`` how many are new. What cannot
    be read goes to ``trouble``, in words.
    """

    def __init__(
        self, out: _Stream, folder: int, open_files: OpenFiles, trouble: list[str]
    ) -> None:
        self.parts: set[_Rights] = set()
        self.added = 0
        self._out = out
        self._folder = folder
        self._open_files = open_files
        self._wanted: Collection[str] = ()
        self._there: dict[str, list[_Member]] = {}
        """What the archive held before, under names that are to be added, or such with a number."""
        self._trouble = trouble
        self._server: int | None = None

    def take_over(self, old: int, goal: str, wanted: Collection[str]) -> None:
        """Begin with what an archive holds, of which every byte is read."""
        self._wanted = wanted
        most = max(_INFLATED, _RATIO * os.fstat(old).st_size)
        end = 0
        with _unpacking(old, goal, most) as source:
            for info, content, place in members(source):
                end = place
                name = info.name.removeprefix("./").rstrip("/")
                if name in wanted or _NUMBER.sub("", name) in wanted:
                    self._there.setdefault(name, []).append(_content(info, content))
        self.parts.add(_rights(old, os.fstat(old)))
        if source.last.size == end:
            self._out.go_on_after(old, source.last)
            return
        # It was made by others, or by an older version, and is compressed again.
        with _unpacking(old, goal, most) as source:
            for info, content, _ in members(source):
                if content is None:
                    self._out.write(info.tobuf(**OPTIONS))
                else:
                    self._out.write_file(info.tobuf(**OPTIONS), content, info.size)

    def add(self, path: str, files: Sequence[File], work: Work) -> tuple[list[File], list[File]]:
        """Add what is not there yet; the files that are in the archive then, and the others."""
        kept: list[File] = []
        spared: list[File] = []
        with Emptied(path) as tree:
            self._server = foreign_server(tree.top)
            for below, group in by_folder(files):
                try:
                    inside = tree.enter(below)
                except OSError as error:
                    if error.errno in _UNREADABLE:
                        self._trouble += [f"{path}/{below}: {reason(error)}"] * len(group)
                    spared += group  # Gone, or no folder of this tree any more.
                    continue
                try:
                    for file in group:
                        is_in = self._adds(tree, inside, file, path, work)
                        (kept if is_in else spared).append(file)
                finally:
                    os.close(inside)
        return kept, spared

    def _adds(self, tree: Tree, inside: int, file: File, path: str, work: Work) -> bool:
        """Is it in the archive now?"""
        try:
            with tree.opened_file(inside, file.name) as handle:
                return not self._open_files.held(handle) and self._one(file, handle, work)
        except (FileNotFoundError, BlockingIOError, Elsewhere):
            return False  # It is gone, or somebody else has a lease on it.
        except OSError as error:
            if error.errno in _UNREADABLE:
                self._trouble.append(f"{path}/{file.path}: {reason(error)}")
            elif error.errno != errno.ELOOP:  # Then it has become a symlink.
                raise
            return False

    def _one(self, file: File, handle: int, work: Work) -> bool:
        """One file, read to its end before any of it is written. False when it has changed."""
        if not file.is_still(os.fstat(handle)):
            return False
        with _spool(self._folder, file.size) as spool:
            # Only what an archive holds already is told apart by its content.
            digest = blake2b(digest_size=32) if self._there else None
            left = file.size  # Whoever appends as fast as it is read does not keep us.
            while left and (chunk := os.read(handle, min(_CHUNK, left))):
                if digest is not None:
                    digest.update(chunk)
                spool.write(chunk)
                left -= len(chunk)
                work.advance(len(chunk))
            status = os.fstat(handle)
            if left or not file.is_still(status):
                return False
            name, seconds = file.path, file.mtime / 1e9
            if digest is not None:
                content = _Member(file.size, seconds, digest.digest())
                for name in names(file.path):
                    there = self._there.get(name)
                    if there is None and (name == file.path or name not in self._wanted):
                        break
                    if content in (there or ()):
                        return True
            info = tarfile.TarInfo(name)
            info.size, info.mtime = file.size, seconds
            info.mode, info.uid, info.gid = credible(handle, status, self._server)
            spool.seek(0)
            self._out.write_file(header(info), spool, info.size, work)
        self.parts.add(_rights(handle, status, self._server))
        self.added += 1
        return True


def _content(info: tarfile.TarInfo, content: IO[bytes] | None) -> _Member:
    digest = blake2b(digest_size=32)
    while content is not None and (data := content.read(_CHUNK)):
        digest.update(data)
    return _Member(info.size, info.mtime, digest.digest() if content is not None else b"")


def _spool(folder: int, size: int) -> Any:
    # Beside the archive, where room is needed anyway; without a name, so that nothing stays.
    if size <= _SPOOLED:
        return io.BytesIO()
    return tempfile.TemporaryFile(dir=f"/proc/self/fd/{folder}")
