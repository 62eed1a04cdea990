"""Deletes files and moves them away, each only if it still is what was chosen.

It must not overwrite anything, and what cannot be moved whole stays where it is.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress

from reconciler.base.digests import blake2b
from reconciler.base.errors import HostError
from reconciler.host.found import DEVICE, INODE, File, Packed, by_folder
from reconciler.host.openfiles import OpenFiles
from reconciler.host.place import draft, link, make_folder, write_all
from reconciler.host.progress import BYTES, Work, working
from reconciler.host.refusals import taken_by
from reconciler.host.tree import Cursor, Elsewhere, Emptied, Tree
from reconciler.host.walk import closing, joined, opened, reason, reported, sort_of

_CHUNK = 1 << 20
_ZEROS = bytes(_CHUNK)
_BLOCK = 4096
"""Zeros of this length may be a hole."""
_MOST_NAMES = 10_000
_MANY = 1000
"""Files beyond which it is not asked for each of them whether it is open, for a plan."""
_OFTEN = 64
"""Files after which it is told how far the work has come."""
_NONE: Mapping[str, str] = {}
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
"""A folder is no more, or has become something else."""


def delete(path: str, files: Sequence[File], open_files: OpenFiles) -> list[File]:
    """Delete those files below ``path``; returns those that were left alone for a good reason.

    Raises HostError when some could not be deleted; the others are.
    """

    def unlink(folder: int, _: int, file: File) -> None:
        os.unlink(file.name, dir_fd=folder)

    @contextmanager
    def nowhere(below: str) -> Iterator[int]:
        yield -1

    return _each(path, files, open_files, "delete", nowhere, unlink)


def move(
    path: str,
    files: Sequence[File],
    to: str,
    open_files: OpenFiles,
    called: Mapping[str, str] = _NONE,
) -> list[File]:
    """Move them below the directory ``to``, keeping the folders they are in; as ``delete``.

    What is missing of ``to`` is made; folders there get mode and owner of those they stand for.
    A name that is taken gets a number: ``name.1``. ``called`` has, by the path of a file, the name
    that it is to have there, if that is another one.
    """
    goals: list[_Goal] = []

    @contextmanager
    def goal(below: str) -> Iterator[int]:
        if not goals:
            goals.append(_Goal(tree, to))
        there = goals[0].go(below)
        if os.path.samestat(os.fstat(tree.go(below)), os.fstat(there)):
            # By a link or a mount: each would be taken for one that is there already.
            raise HostError(f"{to} leads to where the files are already")
        yield there

    with Emptied(path) as tree:
        try:
            return _each(
                path,
                files,
                open_files,
                "move",
                goal,
                lambda folder, there, file: _move(
                    tree, folder, there, file, called.get(file.path, file.name)
                ),
            )
        finally:
            for made in goals:
                made.close()


def free(path: str, files: Packed, open_files: OpenFiles) -> Packed:
    """Those that nobody holds open. What cannot be looked at is among them.

    Of very many only those that a process is seen to hold are left out: each one is asked for
    before anything is done to it in any case.
    """
    held: set[tuple[int, int]] | None = None
    if len(files) > _MANY:
        held = open_files.visible()
    if held is None:
        held = set()
        with Emptied(path) as tree:
            for below, group in files.by_folder():
                with suppress(OSError), tree.folder(below) as folder:
                    for file in group:
                        with suppress(OSError):
                            if open_files.held_at(folder, file.name, file.device, file.inode):
                                held.add((file.device, file.inode))
    if held.isdisjoint(zip(files.column(DEVICE), files.column(INODE), strict=True)):
        return files
    return Packed([file for file in files if (file.device, file.inode) not in held])


def _each(
    path: str,
    files: Sequence[File],
    open_files: OpenFiles,
    word: str,
    goal: Callable[[str], AbstractContextManager[int]],
    act: Callable[[int, int, File], None],
) -> list[File]:
    """Do something about every file that still is as it was and that nobody holds open.

    ``goal`` is opened for every folder, and handed to ``act`` behind the folder itself.
    Returns the files that were left alone. Raises HostError after the last one, if some failed.
    """
    spared: list[File] = []
    trouble: list[str] = []
    acted: set[tuple[int, int]] = set()
    with (
        reported(f"cannot {word} files of {path}"),
        Emptied(path) as tree,
        working(f"{word} files of {path}", len(files)) as work,
    ):
        for below, group in by_folder(files):
            try:
                with tree.folder(below) as folder, goal(below) as there:
                    for number, file in enumerate(group, 1):
                        if not number % _OFTEN or number == len(group):
                            work.advance((number - 1) % _OFTEN + 1)
                        try:
                            status, held = open_files.look(folder, file.name)
                            if acted and file[3:5] in acted:
                                # By another of its names, so that it has another ctime since.
                                file = file._replace(ctime=status.st_ctime_ns)
                            if held or not file.is_still(status):
                                spared.append(file)
                                continue
                            act(folder, there, file)
                            if status.st_nlink > 1:
                                acted.add(file[3:5])
                        except (FileNotFoundError, Elsewhere, _Spared):
                            spared.append(file)
                        except OSError as error:
                            if error.errno == errno.EBUSY:
                                spared.append(file)  # It is a mount point itself.
                                continue
                            if error.errno == errno.ENOSPC:
                                raise
                            trouble.append(f"{path}/{file.path}: {reason(error)}")
                        except HostError as error:
                            trouble.append(f"{path}/{file.path}: {error}")
            except HostError as error:
                trouble += [f"{path}/{below}: {error}"] * len(group)
            except OSError as error:
                if error.errno == errno.ENOSPC:
                    raise
                if isinstance(error, Elsewhere) or error.errno in _GONE:
                    spared += group
                else:
                    trouble += [f"{path}/{below}: {reason(error)}"] * len(group)
    if trouble:
        which = f"{len(trouble)} of {len(files)} files" if len(files) > 1 else "a file"
        raise HostError(f"cannot {word} {which}: {trouble[0]}")
    return spared


class _Spared(Exception):
    """A file is left alone: it has changed since it was chosen."""


def names(name: str) -> Iterator[str]:
    """``name`` and then ``name.1``, ``name.2`` and so on, for one that is not taken."""
    yield name
    for number in range(1, _MOST_NAMES):
        yield f"{name}.{number}"
    raise HostError(f"there are {_MOST_NAMES} files of the name {name} already; take some away")


class _Goal(Cursor):
    """Where files of a tree are moved to; folders there are made like those they stand for."""

    def __init__(self, tree: Tree, to: str) -> None:
        super().__init__(_base(tree, to))
        self._tree = tree

    def _enter(self, here: int, name: str) -> int:
        return _like(self._tree, joined(self._where, name), here, name)


def _base(tree: Tree, to: str) -> int:
    try:
        with opened(to) as there:
            owner = taken_by(there)
            if owner is not None:
                raise HostError(
                    f"{to} is in a folder that user {owner} has made in one that everybody may "
                    "write to, so nothing is moved there; move it away"
                )
            return os.dup(there)
    except FileNotFoundError:
        parent, _, name = to.rpartition("/")
        with opened(parent, make=True) as above:
            return _like(tree, "", above, name)


def _like(tree: Tree, below: str, above: int, name: str) -> int:
    """A descriptor of the folder ``name``; if it is missing it is made like that of the tree."""
    with suppress(FileNotFoundError):
        return _folder(above, name)
    with tree.folder(below) as source:
        mode = stat.S_IMODE(os.fstat(source).st_mode)
        try:
            return make_folder(above, name, mode, like=source)
        except FileExistsError:
            return _folder(above, name)  # Somebody else has made it meanwhile.


def _folder(above: int, name: str) -> int:
    try:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(name, flags, dir_fd=above)
    except NotADirectoryError:
        there = os.stat(name, dir_fd=above, follow_symlinks=False)
        raise HostError(f"{name} is {sort_of(there)} where files are moved; move it away") from None


def _move(tree: Tree, source: int, folder: int, file: File, goal: str) -> None:
    """Link exactly this file there as ``goal``, and take away its name here."""
    from reconciler.host.kernel import rename_new

    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    with closing(os.open(file.name, flags, dir_fd=source)) as entry:
        if not file.is_still(os.fstat(entry)):
            raise _Spared
        for name in names(goal):
            try:
                link(entry, folder, name)
            except FileExistsError:
                if not _has(folder, name, entry):
                    continue  # Else a pass that was killed has linked it.
            except PermissionError:
                # No hard links here, or not to a file of somebody else.
                try:
                    rename_new(source, file.name, folder, name)
                except FileExistsError:
                    continue
                return
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                _copy(tree, source, folder, file, goal)
                return
            if _has(source, file.name, entry):
                os.unlink(file.name, dir_fd=source)
            return


def _has(folder: int, name: str, handle: int) -> bool:
    """Is it this file that has the name?"""
    try:
        there = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(handle))


def _copy(tree: Tree, source: int, folder: int, file: File, goal: str) -> None:
    """To another file system: whole, read back, and only then taken away here."""
    with tree.opened_file(source, file.name) as handle:
        status = os.fstat(handle)
        if not file.is_still(status):
            raise _Spared
        if not _is_there(handle, status, folder, goal):
            with (
                draft(folder, goal) as made,
                working(f"copy {file.name}", 2 * file.size, BYTES) as work,
            ):
                digest = pour(handle, made.handle, work, file.size)
                os.lseek(made.handle, 0, os.SEEK_SET)
                if pour(made.handle, None, work, file.size) != digest:
                    raise HostError(f"the copy of {file.name} reads back as something else")
                if not file.is_still(os.fstat(handle)):
                    raise _Spared
                made.settle(stat.S_IMODE(status.st_mode), like=handle)
                os.utime(made.handle, ns=(status.st_atime_ns, status.st_mtime_ns))
                for name in names(goal):
                    with suppress(FileExistsError):
                        made.publish(name)
                        break
    if not file.is_still(os.stat(file.name, dir_fd=source, follow_symlinks=False)):
        raise _Spared
    os.unlink(file.name, dir_fd=source)


def _is_there(handle: int, status: os.stat_result, folder: int, name: str) -> bool:
    """Has a pass that was killed copied it already?"""
    for candidate in names(name):
        try:
            other = os.open(
                candidate, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder
            )
        except OSError:
            return False
        try:
            there = os.fstat(other)
            same = (there.st_size, there.st_mtime_ns) == (status.st_size, status.st_mtime_ns)
            if same and stat.S_ISREG(there.st_mode):
                with working(f"compare {name}", 2 * status.st_size, BYTES) as work:
                    size = status.st_size
                    if pour(other, None, work, size) == pour(handle, None, work, size):
                        return True
        finally:
            os.close(other)
            os.lseek(handle, 0, os.SEEK_SET)
    return False


def pour(source: int, goal: int | None, work: Work, most: int) -> bytes:
    """Copy at most so many bytes from here; returns the digest of what was read.

    There is no copy to the end: whoever appends as fast as it is read would never let it come.
    What is a hole, or nothing but zeros, becomes a hole in ``goal``, which is to end here, and is
    not read: it takes as long as what is allocated.
    """
    digest = blake2b(digest_size=32)
    start = at = os.lseek(source, 0, os.SEEK_CUR)
    end = start + most
    onto = 0 if goal is None else os.lseek(goal, 0, os.SEEK_CUR) - start
    while at < end:
        data = _data(source, at)
        if data is None:
            before, at = at, min(max(at, os.fstat(source).st_size), end)
            work.advance(at - before)
            break
        # In the same pieces whatever holes there are: those of a copy may be others.
        here = min(max(at, data - (data - start) % _CHUNK), end)
        size = _CHUNK - (here - start) % _CHUNK
        chunk = os.pread(source, min(size, end - here), here)
        if not _ZEROS.startswith(chunk):
            digest.update(b"%d " % (here - start))
            digest.update(chunk)
            if goal is not None:
                _write_data(goal, chunk, here + onto)
        work.advance(here + len(chunk) - at)
        at = here + len(chunk)
        if not chunk:
            break
    digest.update(b"%d" % (at - start))
    os.lseek(source, at, os.SEEK_SET)
    if goal is not None:
        os.ftruncate(goal, at + onto)
        os.lseek(goal, at + onto, os.SEEK_SET)
    return digest.digest()


def _write_data(goal: int, chunk: bytes, at: int) -> None:
    """Write what is there, and leave out whole blocks of zeros."""
    if _ZEROS[:_BLOCK] not in chunk:
        blocks = [(0, len(chunk))]
    else:
        starts = range(0, len(chunk), _BLOCK)
        blocks = [(start, start + _BLOCK) for start in starts]
    for start, end in blocks:
        block = chunk[start:end]
        if not _ZEROS.startswith(block):
            os.lseek(goal, at + start, os.SEEK_SET)
            write_all(goal, block)


def _data(handle: int, at: int) -> int | None:
    """Where the next bytes stand that are no hole; None where there are none any more."""
    try:
        return os.lseek(handle, at, os.SEEK_DATA)
    except OSError as error:
        return None if error.errno == errno.ENXIO else at
