"""Files into a .tar.gz that is whole before any of them is deleted.

It must not replace what an archive holds, nor delete a file that has not been read back from it.
"""

from __future__ import annotations

import errno
import os
import stat
import tarfile
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any, NamedTuple

from reconciler.base.digests import blake2b
from reconciler.base.errors import HostError
from reconciler.host.found import File, by_folder
from reconciler.host.gzipped import Gunzip, Gzip, TooMuch
from reconciler.host.openfiles import OpenFiles
from reconciler.host.place import Draft, draft, has_acl
from reconciler.host.progress import BYTES, Work, working
from reconciler.host.remove import delete, names
from reconciler.host.walk import (
    Elsewhere,
    Emptied,
    Tree,
    opened,
    reason,
    reported,
    sort_of,
)

_SPOOLED = 8 << 20
"""Bytes of a file that are kept in memory while it is read; longer ones go to the disk."""
_CHUNK = 1 << 18
_ENDING = ".tar.gz"
_UNREADABLE = (errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE)
"""One file that cannot be read; the others can."""
_INFLATED, _RATIO = 1 << 30, 20
"""What an archive may hold that is written anew: so many bytes, or so many times its own size, if
that is more. Logs become 5 to 20 times smaller; a trap becomes 1,000 times larger."""
_OPTIONS: dict[str, Any] = {
    "format": tarfile.PAX_FORMAT, "encoding": "utf-8", "errors": "surrogateescape",
}  # fmt: skip


class _Member(NamedTuple):
    """What an archive must hold. ``digest`` is empty for what is no regular file."""

    name: str
    sort: bytes
    size: int
    mtime: float
    digest: bytes


class _Rights(NamedTuple):
    """Whose a file is, and what its mode lets people do; with an ACL nobody but its owner."""

    uid: int
    gid: int
    mode: int


def _rights(handle: int) -> _Rights:
    status = os.fstat(handle)
    # An ACL may take rights from some whom the mode gives them.
    mode = status.st_mode & 0o700 if has_acl(handle) else status.st_mode
    return _Rights(status.st_uid, status.st_gid, mode)


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
        kept = _archive(path, files, part(goal, number), open_files, trouble)
    except TooMuch:
        kept = _archive(path, files, part(goal, number + 1), open_files, trouble)
    known = set(kept)
    spared = [file for file in files if file not in known]
    spared += delete(path, kept, open_files)
    if trouble:
        which = f"{len(trouble)} of {len(files)} files" if len(files) > 1 else "a file"
        raise HostError(f"cannot archive {which}: {trouble[0]}")
    return spared


def part(goal: str, number: int) -> str:
    """The archive itself, and those that were begun when it held too much to be written anew."""
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
) -> list[File]:
    parent, _, name = goal.rpartition("/")
    with reported(f"cannot write {goal}; all files were kept"), opened(parent, make=True) as folder:
        return _write(path, files, folder, name, goal, open_files, trouble)


def _write(
    path: str,
    files: Sequence[File],
    folder: int,
    name: str,
    goal: str,
    open_files: OpenFiles,
    trouble: list[str],
) -> list[File]:
    """Write the archive; returns the files that are whole in it."""
    with _existing(folder, name, goal) as old, draft(folder, name) as made:
        out = Gzip(made.handle)
        with tarfile.open(fileobj=out, mode="w|", **_OPTIONS) as tar:  # type: ignore[call-overload]
            adding = _Adding(tar, folder, open_files, trouble)
            if old is not None:
                adding.take_over(_copied(old, tar, goal), _rights(old))
            # Each is read to its end first, and then compressed.
            size = 2 * sum(file.size for file in files)
            with working(f"add to {goal}", size, BYTES) as work:
                kept = adding.add(path, files, work)
        out.finish()
        if not adding.added:
            return kept  # Nothing to add: all is there already, and has been read whole.
        os.fsync(made.handle)
        if list(_read(made.handle, goal)) != adding.members:
            raise HostError(f"{goal} reads back as something else; all files were kept")
        _publish(made, goal, old, adding.parts)
    return kept


def _publish(made: Draft, goal: str, old: int | None, parts: list[_Rights]) -> None:
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


def _copied(old: int, tar: tarfile.TarFile, goal: str) -> Iterator[_Member]:
    """Copy every member of the old archive, and check that it is whole."""
    most = max(_INFLATED, _RATIO * os.fstat(old).st_size)
    for info, content in _members(old, goal, most):
        if content is None:
            tar.addfile(info)
            yield _Member(info.name, info.type, 0, info.mtime, b"")
        else:
            reader = _Digesting(content)
            tar.addfile(info, reader)
            yield _Member(info.name, info.type, info.size, info.mtime, reader.digest())


def _read(handle: int, goal: str) -> Iterator[_Member]:
    for info, content in _members(handle, goal):
        if content is None:
            yield _Member(info.name, info.type, 0, info.mtime, b"")
            continue
        reader = _Digesting(content)
        while reader.read(_CHUNK):
            pass
        yield _Member(info.name, info.type, info.size, info.mtime, reader.digest())


def _members(
    handle: int, goal: str, most: int | None = None
) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    """What an archive holds, to its very end. Raises HostError when it is damaged, and TooMuch."""
    os.lseek(handle, 0, os.SEEK_SET)
    try:
        with working(f"read {goal}", os.fstat(handle).st_size, BYTES) as work:
            yield from _unpacked(Gunzip(handle, work, most))
    except (tarfile.TarError, EOFError, zlib.error, UnicodeError, ValueError) as error:
        raise HostError(
            f"{goal} is damaged or no .tar.gz ({error}); nothing was deleted; mend it, or move it "
            "away and the next pass begins a new one"
        ) from None


def _unpacked(source: Gunzip) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    with tarfile.open(fileobj=source, mode="r|", **_OPTIONS) as tar:  # type: ignore[call-overload]
        for info in tar:
            if info.issparse():
                raise tarfile.ReadError(f"{info.name} is stored sparsely")
            yield info, tar.extractfile(info) if info.isreg() else None
            tar.members = []  # tarfile remembers all; there may be many.
        end = tar.offset
    while source.read(_CHUNK):
        pass
    # tarfile takes damage in the middle for the end; behind the real one all is zero.
    if source.content > end or source.size < end + tarfile.BLOCKSIZE:
        raise tarfile.ReadError("it ends in the middle")


class _Adding:
    """Adds files to an archive that is being written.

    ``members`` is all that it holds then, ``parts`` who could read what it was made of, and
    ``added`` how many are new. What cannot be read goes to ``trouble``, in words.
    """

    def __init__(
        self, tar: tarfile.TarFile, folder: int, open_files: OpenFiles, trouble: list[str]
    ) -> None:
        self.members: list[_Member] = []
        self.parts: list[_Rights] = []
        self.added = 0
        self._tar = tar
        self._folder = folder
        self._open_files = open_files
        self._there: dict[str, list[_Member]] = {}
        self._trouble = trouble

    def take_over(self, members: Iterable[_Member], rights: _Rights) -> None:
        """These are in it already, from an archive with those rights."""
        for member in members:
            self.members.append(member)
            self._there.setdefault(_plain(member.name), []).append(member)
        self.parts.append(rights)

    def add(self, path: str, files: Sequence[File], work: Work) -> list[File]:
        """Add what is not there yet; returns all files that are in the archive then."""
        kept: list[File] = []
        with Emptied(path) as tree:
            for below, group in by_folder(files):
                try:
                    inside = tree.enter(below)
                except OSError as error:
                    if error.errno in _UNREADABLE:
                        self._trouble += [f"{path}/{below}: {reason(error)}"] * len(group)
                    continue  # Gone, or no folder of this tree any more.
                try:
                    kept += [one for one in group if self._adds(tree, inside, one, path, work)]
                finally:
                    os.close(inside)
        return kept

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
        status = os.fstat(handle)
        if not file.is_still(status):
            return False
        with _spool(self._folder) as spool:
            digest = blake2b(digest_size=32)
            left = file.size  # Whoever appends as fast as it is read does not keep us.
            while chunk := os.read(handle, min(_CHUNK, left)):
                digest.update(chunk)
                spool.write(chunk)
                work.advance(len(chunk))
                left -= len(chunk)
            if spool.tell() != file.size or not file.is_still(os.fstat(handle)):
                return False
            spool.seek(0)
            content = (file.size, file.mtime / 1e9, digest.digest())
            for name in names(file.path):
                taken = self._there.get(name)
                if taken is None:
                    break
                if any((one.size, one.mtime, one.digest) == content for one in taken):
                    return True
            info = tarfile.TarInfo(name)
            info.size, info.mtime = content[:2]
            info.mode = stat.S_IMODE(status.st_mode)
            info.uid, info.gid = status.st_uid, status.st_gid
            self._tar.addfile(info, _Reading(spool, work))
        member = _Member(name, info.type, *content)
        self.members.append(member)
        self._there[name] = [member]
        self.parts.append(_rights(handle))
        self.added += 1
        return True


def _plain(name: str) -> str:
    """As the file would be called after extracting it."""
    return name.removeprefix("./").rstrip("/")


def _spool(folder: int) -> Any:
    # Beside the archive, where room is needed anyway; without a name, so that nothing stays.
    return tempfile.SpooledTemporaryFile(_SPOOLED, dir=f"/proc/self/fd/{folder}")


class _Digesting:
    """A file that digests what is read from it."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self._digest = blake2b(digest_size=32)

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(size)
        self._digest.update(data)
        return data

    def digest(self) -> bytes:
        return self._digest.digest()


class _Reading:
    """A file of which it is told how far it has been read."""

    def __init__(self, source: IO[bytes], work: Work) -> None:
        self._source = source
        self._work = work

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(size)
        self._work.advance(len(data))
        return data
