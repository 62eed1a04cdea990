"""Rotates live logs: numbers them, and compresses what nobody writes to any more.

It must not lose or double a byte that could be kept, at whichever moment it is killed. A mark,
the log's passing name, stands beside a log from before its rotation until all about it is done.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from reconciler.base.errors import HostError
from reconciler.base.records import dataclass
from reconciler.base.text import amount, printable
from reconciler.host.clock import Clock
from reconciler.host.found import File
from reconciler.host.openfiles import NonAppendingWriters
from reconciler.host.place import Draft, draft, link, sync_folder, write_all
from reconciler.host.private_folder import passing_name
from reconciler.host.progress import BYTES, working
from reconciler.host.refusals import kept_mode, refuse_hard_link
from reconciler.host.remove import pour
from reconciler.host.rotated import Log, Names, shown_log
from reconciler.host.tree import Emptied, Tree
from reconciler.host.walk import closing, reason, reported, sort_of, taken

_CHUNK = 1 << 20
_BEHIND, _SHARE = 64 << 20, 4
"""Of what is appended while a log is copied, so many bytes are copied as well, or this part of
the log if that is more; of a writer that is faster, the rest is left for the next pass."""


@dataclass(frozen=True, slots=True)
class RotationWay:
    """How logs are rotated.

    ``copy``: copied and cut, for a writer that cannot be told to reopen its log; else renamed.
    With ``mark`` the mark stays when this is done, since the writer is still to be told.
    ``largest`` is how many bytes a log may have when it is done. ``create`` is mode, user and
    group of the new log behind a renamed one; what is None or -1 is as it was. ``stamped``: the
    time of the rotation becomes that of the rotated log.
    """

    names: Names
    copy: bool = False
    mark: bool = False
    largest: int | None = None
    create: tuple[int | None, int, int] | None = None
    stamped: bool = False


def rotate(
    path: str, logs: Sequence[File], unfinished: Sequence[Log], way: RotationWay, clock: Clock
) -> tuple[list[File], list[str]]:
    """Rotate every one of the ``logs`` below ``path``; ``unfinished`` are logs with a mark.

    Returns those that are rotated or gone, and what went wrong with others, in words. A log to
    which a process writes without appending is not cut.
    """
    trouble: list[str] = []
    settled: list[File] = []
    careless = NonAppendingWriters(clock, [file[3:5] for file in logs])
    with Emptied(path) as tree:
        for log in unfinished:
            with Noting(path, log, trouble), tree.folder(log[0]) as folder:
                if way.copy:
                    _resume(tree, folder, log[1], way, shown_log(path, log))
                elif way.create is not None:
                    _create_missing(tree, folder, log[1], way)
        for file in logs:
            log = file.below, file.name
            with Noting(path, log, trouble), tree.folder(file.below) as folder:
                # It grows all the time; the same one that is shorter has been rotated already.
                now = os.stat(file.name, dir_fd=folder, follow_symlinks=False)
                if _is(file, now) and now.st_size >= file.size:
                    if way.copy:
                        _refuse_careless(tree, folder, file.name, careless, shown_log(path, log))
                        _copy(tree, folder, file, way, clock.wall(), shown_log(path, log))
                    else:
                        with _successor(tree, folder, file.name, file.name, way) as new:
                            _rename(folder, file, way, clock.wall(), shown_log(path, log))
                            _put(new)
                settled.append(file)
    return settled, trouble


def _refuse_careless(
    tree: Tree, folder: int, name: str, careless: NonAppendingWriters, shown: str
) -> None:
    with tree.opened_file(folder, name) as handle:
        pid = careless.writer(handle)
    if pid is not None:
        raise HostError(
            f"{shown} is not rotated: {_named(pid)} writes to it and does not append, so that it "
            "would go on behind a hole; start it with >> instead of > (O_APPEND)"
        )


def _named(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", errors="replace") as file:
            return f"process {pid} ({printable(file.read(64).strip())})"
    except OSError:
        return f"process {pid}"


class Noting:
    """What goes wrong with one log is noted, and the others go on."""

    def __init__(self, path: str, log: Log, trouble: list[str]) -> None:
        self._what = shown_log(path, log)
        self._trouble = trouble

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, FileNotFoundError):
            return True  # It is gone, and its folder perhaps as well.
        if isinstance(error, OSError):
            self._trouble.append(f"{self._what}: {reason(error)}")
        elif isinstance(error, HostError):
            self._trouble.append(str(error))
        else:
            return False
        return True


@contextmanager
def _successor(
    tree: Tree, folder: int, name: str, old: str, way: RotationWay
) -> Iterator[Draft | None]:
    """A new log for ``name`` behind that ``old`` one, settled before anything is renamed."""
    if way.create is None:
        yield None
        return
    mode, uid, gid = way.create
    with draft(folder, name) as made:
        with tree.opened_file(folder, old) as log:
            was = os.fstat(log)
            if mode is None:
                made.settle(kept_mode(was, uid, gid), uid, gid, like=log)
            else:
                is_root = os.geteuid() == 0
                # A set-ID bit is for whom the spec names, never for whose log lay there.
                mode &= ~(stat.S_ISUID if uid == -1 else 0) & ~(stat.S_ISGID if gid == -1 else 0)
                made.settle(
                    mode,
                    was.st_uid if is_root and uid == -1 else uid,
                    was.st_gid if is_root and gid == -1 else gid,
                )
        yield made


def _put(new: Draft | None) -> None:
    with suppress(FileExistsError):  # Its writer was faster.
        if new is not None:
            new.publish()


def _create_missing(tree: Tree, folder: int, name: str, way: RotationWay) -> None:
    """Make the new log that a killed pass has not made any more."""
    mark = os.stat(passing_name(name), dir_fd=folder, follow_symlinks=False)
    old = way.names.newest(folder, name, mark.st_ino)
    if old is not None:
        with _successor(tree, folder, name, old, way) as new:
            _put(new)


def _rename(folder: int, file: File, way: RotationWay, now: float, shown: str) -> None:
    from reconciler.host.kernel import rename_new

    name = file.name
    if way.mark:
        passing = passing_name(name)
        with suppress(FileNotFoundError):
            os.unlink(passing, dir_fd=folder)
        entry = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        # Where there are no hard links, a kill may leave the writer untold.
        with closing(entry), suppress(PermissionError):
            link(entry, folder, passing)
    first = way.names.make_room(folder, name, now)
    try:
        rename_new(folder, name, folder, first)
    except OSError as error:
        # It is as it was, and nobody is to be told.
        with suppress(FileNotFoundError):
            os.unlink(passing_name(name), dir_fd=folder)
        if isinstance(error, FileExistsError):
            there = sort_of(os.stat(first, dir_fd=folder, follow_symlinks=False))
            goal = shown.removesuffix(name) + first
            raise HostError(f"{goal} is {there}, no rotated log; move it away") from None
        raise
    status = os.stat(first, dir_fd=folder, follow_symlinks=False)
    if not _is(file, status):
        raise HostError(f"{shown} was replaced by somebody else while it was rotated")
    if way.stamped:
        with suppress(PermissionError):  # Of another user's it stays when it was written to last.
            times = status.st_atime_ns, int(now * 10**9)
            os.utime(first, ns=times, dir_fd=folder, follow_symlinks=False)
    sync_folder(folder)


def _is(file: File, status: os.stat_result) -> bool:
    same = (status.st_dev, status.st_ino) == (file.device, file.inode)
    return same and stat.S_ISREG(status.st_mode)


def _copy(tree: Tree, folder: int, file: File, way: RotationWay, now: float, shown: str) -> None:
    name = file.name
    with tree.opened_file(folder, name, os.O_RDWR) as log:
        status = os.fstat(log)
        if not _is(file, status):
            raise HostError(f"{shown} has been replaced meanwhile; the next pass looks again")
        refuse_hard_link(folder, status, shown)
        free = _free(log)
        if taken(status) > free:
            words = f"its copy would take {amount(taken(status))}, and {amount(free)} is free there"
            raise HostError(f"{shown} is not rotated: {words}; make room")
        goal = way.names.make_room(folder, name, now)
        block = os.fstatvfs(log).f_bsize
        # What can be taken out at once are whole blocks, without the last one, which stays.
        whole = (status.st_size - 1) // block * block
        enough = whole > 0 and (way.largest is None or block <= way.largest)
        collapses = enough and _collapses(folder, name, block)
        with draft(folder, name) as made, working(f"copy {shown}", file.size, BYTES) as work:
            pour(log, made.handle, work, whole if collapses else status.st_size)
            time = int(now * 10**9) if way.stamped else status.st_mtime_ns
            os.utime(made.handle, ns=(status.st_atime_ns, time))
            made.settle(stat.S_IMODE(status.st_mode), like=log)
            made.publish(goal, passing_name(name))
            # By this descriptor and not by its name, which others may have given away by now.
            first = os.dup(made.handle)
        try:
            _cut(log, first, collapses, shown)
        finally:
            os.close(first)
    if not way.mark:
        with suppress(FileNotFoundError):
            os.unlink(passing_name(name), dir_fd=folder)


def bound(path: str, most: int, keep: int) -> None:
    """Take what is more than ``most`` bytes out of a log, into ``path.1`` and so on.

    Each of those has ``most`` bytes, and ``keep`` of them stay; what is beyond that is dropped.
    Nothing is lost of what a writer that appends writes meanwhile, as with ``rotate``. Raises
    OSError and HostError.
    """
    parent, _, name = path.rpartition("/")
    with Emptied(parent) as tree, tree.folder("") as folder:
        with suppress(FileNotFoundError):
            _resume(tree, folder, name, RotationWay(Names(keep)), path)
        with tree.opened_file(folder, name, os.O_RDWR) as log:
            refuse_hard_link(folder, os.fstat(log), path)
            block = os.fstatvfs(log).f_bsize
            if _collapses(folder, name, block):
                _take_out(folder, log, name, most, keep, block, path)
            elif taken(os.fstat(log)) > most:
                _copy_and_cut(folder, log, name, most, keep, path)


def put_aside(path: str, keep: int) -> None:
    """Rename a log to ``path.1``, whose writers go on there. Raises HostError."""
    from reconciler.host.kernel import rename_new

    parent, _, name = path.rpartition("/")
    with reported(f"cannot put {path} aside"), Tree(parent) as tree, tree.folder("") as folder:
        rename_new(folder, name, folder, Names(keep).make_room(folder, name, 0))


def _take_out(
    folder: int, log: int, name: str, most: int, keep: int, block: int, shown: str
) -> None:
    from reconciler.host.kernel import collapse

    for _ in range(2 * keep):  # With one that is written faster the next pass goes on.
        status = os.fstat(log)
        if taken(status) <= most:
            return
        over = (status.st_size - most * (keep + 1)) // block * block
        if over > 0:
            collapse(log, over)
            continue
        size = min(most, status.st_size - 1) // block * block
        if _free(log) < size:
            # The disk is full, and perhaps of this: old lines of it are worth less than room.
            collapse(log, size)
            continue
        os.close(_piece(folder, log, name, 0, size, keep, shown))
        collapse(log, size)
        with suppress(FileNotFoundError):
            os.unlink(passing_name(name), dir_fd=folder)


def _copy_and_cut(folder: int, log: int, name: str, most: int, keep: int, shown: str) -> None:
    size = os.fstat(log).st_size
    for at in range(max(0, size - most * keep), size, most):
        last = _piece(folder, log, name, at, min(most, size - at), keep, shown)
        try:
            if at + most >= size:
                os.lseek(log, size, os.SEEK_SET)
                os.lseek(last, 0, os.SEEK_END)
                _catch_up(log, last, most)
                os.ftruncate(log, 0)
        finally:
            os.close(last)
    with suppress(FileNotFoundError):
        os.unlink(passing_name(name), dir_fd=folder)


def _piece(folder: int, log: int, name: str, at: int, size: int, keep: int, shown: str) -> int:
    """Copy so many bytes from there to ``name.1``; a descriptor of that, for writing."""
    goal = Names(keep).make_room(folder, name, 0)
    with draft(folder, name) as made, working(f"copy {shown}", size, BYTES) as work:
        os.lseek(log, at, os.SEEK_SET)
        pour(log, made.handle, work, size)
        made.settle(stat.S_IMODE(os.fstat(log).st_mode), like=log)
        made.publish(goal, passing_name(name))
        return os.dup(made.handle)


def _free(handle: int) -> int:
    """Bytes that are free there, for others than root."""
    found = os.fstatvfs(handle)
    return found.f_bavail * found.f_frsize


def _collapses(folder: int, name: str, block: int) -> bool:
    """Can this file system take blocks out of a file? Tried on a file of our own."""
    from reconciler.host.kernel import collapse

    with draft(folder, f"{name}.1") as probe:
        write_all(probe.handle, bytes(2 * block))
        return collapse(probe.handle, block)


def _cut(log: int, first: int, collapses: bool, shown: str) -> None:
    """Take out of the log what its copy ``first`` holds."""
    from reconciler.host.kernel import collapse

    size = os.fstat(first).st_size
    if os.fstat(log).st_size < size or (collapses and collapse(log, size)):
        return  # Somebody else has cut it, or it is done.
    # Else all that came since is copied too, and the log cut at once when there is no more.
    # What is written between the last look and the cut is lost.
    os.lseek(log, size, os.SEEK_SET)
    os.lseek(first, 0, os.SEEK_END)
    left = _catch_up(log, first, max(_BEHIND, size // _SHARE))
    os.fsync(first)
    if not _catch_up(log, first, left):
        raise HostError(f"{shown} is written faster than it can be copied; the next pass goes on")
    os.ftruncate(log, 0)
    os.fsync(first)


def _catch_up(log: int, first: int, most: int) -> int:
    """Copy what has come since, less than ``most`` bytes; by how many less, 0 where more came."""
    while most > 0:
        chunk = os.read(log, min(_CHUNK, most))
        if not chunk:
            return most
        write_all(first, chunk)
        most -= len(chunk)
    return 0


def _resume(tree: Tree, folder: int, name: str, way: RotationWay, shown: str) -> None:
    """Finish a copy that a pass has published and not yet cut out of the log."""
    passing = passing_name(name)
    made = os.stat(passing, dir_fd=folder, follow_symlinks=False)
    with (
        suppress(FileNotFoundError),  # Killed before it was published: the log is as it was.
        tree.opened_file(
            folder, way.names.newest(folder, name, made.st_ino) or passing, os.O_RDWR
        ) as first,
        tree.opened_file(folder, name, os.O_RDWR) as log,
    ):
        copy, status = os.fstat(first), os.fstat(log)
        # Its two names are the copy's only ones; with a third it would be somebody's trap.
        ours = (made.st_dev, made.st_ino) == (copy.st_dev, copy.st_ino) and copy.st_nlink == 2
        size = copy.st_size
        if ours and copy.st_uid == status.st_uid and 0 < size <= status.st_size:
            refuse_hard_link(folder, status, shown)
            with working(f"compare {shown}", 2 * size, BYTES) as work:
                same = pour(log, None, work, size) == pour(first, None, work, size)
            if same:
                whole = size % os.fstatvfs(log).f_bsize == 0 and size < status.st_size
                _cut(log, first, whole, shown)
    if not way.mark:
        os.unlink(passing, dir_fd=folder)
