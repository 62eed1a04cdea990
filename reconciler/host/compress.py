"""Compresses rotated logs that nobody writes to any more.

It must not delete a log before its compressed form was read back.
"""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Collection, Sequence
from contextlib import suppress

from reconciler.base.digests import blake2b
from reconciler.base.errors import HostError
from reconciler.host.gzipped import Gunzip, Gzip, TooMuch
from reconciler.host.openfiles import OpenFiles
from reconciler.host.place import draft, sync_folder
from reconciler.host.private_folder import passing_name
from reconciler.host.progress import BYTES, working
from reconciler.host.refusals import refuse_hard_link
from reconciler.host.rotate import Noting
from reconciler.host.rotated import Log, Names, shown_log
from reconciler.host.tree import Elsewhere, Emptied, Tree
from reconciler.host.walk import taken
from reconciler.host.work import MOST, hollow

_CHUNK = 1 << 20


def finish(
    path: str,
    marked: Sequence[Log],
    rotated: Sequence[Log],
    fresh: Sequence[Log],
    names: Names,
    open_files: OpenFiles,
) -> list[Log]:
    """Take the marks away, compress what is ``rotated``, and the newest of each ``fresh`` log.

    Returns what is left as it is: what is open, and what is more than a pass may read.
    Raises HostError after the last one when some failed.
    """
    trouble: list[str] = []
    still: list[Log] = []
    with Emptied(path) as tree:
        for log in marked:
            with Noting(path, log, trouble), tree.folder(log[0]) as folder:
                os.unlink(passing_name(log[1]), dir_fd=folder)
        left = MOST
        for log in (*fresh, *rotated):
            with Noting(path, log, trouble), tree.folder(log[0]) as folder:
                if log in fresh:
                    first = names.newest(folder, log[1]) if names.date else f"{log[1]}.1"
                    log = log[0], first or ""
                name = log[1]
                if name.endswith(".gz"):
                    continue
                length = os.stat(name, dir_fd=folder, follow_symlinks=False).st_size
                # One of them in any case, however long it is.
                if left < MOST and length > left:
                    still.append(log)
                    continue
                try:
                    if _compress(tree, folder, name, names, open_files, shown_log(path, log)):
                        left -= length
                    else:
                        still.append(log)
                except Elsewhere:
                    continue  # It is no file, so that nothing was rotated to there.
    if trouble:
        raise HostError(f"cannot compress {len(trouble)} logs: {trouble[0]}")
    return still


def compressible(
    path: str, logs: Sequence[Log], newest: Collection[Log], open_files: OpenFiles
) -> tuple[list[Log], list[Log]]:
    """Those of the rotated ``logs`` that nobody writes to any more, and those that are held open.

    In neither is what is not worth it: a pass would be too short for its holes. Where some
    processes could not be looked at, only the ``newest`` may still be held: the writer of one that
    was rotated twice has been told to open its log anew, or been copied from, long ago.
    """
    found: tuple[list[Log], list[Log]] = [], []
    with Emptied(path) as tree:
        for log in logs:
            with suppress(OSError), tree.folder(log[0]) as folder:
                status = os.stat(log[1], dir_fd=folder, follow_symlinks=False)
                if hollow(status.st_size, taken(status)):
                    continue
                held = open_files.held_at(folder, log[1], status.st_dev, status.st_ino)
                found[log in newest if held is None else held].append(log)
    return found


def _compress(
    tree: Tree, folder: int, name: str, names: Names, open_files: OpenFiles, shown: str
) -> bool:
    """``name`` to ``name.gz``, read back before the original goes. False when it is open."""

    def is_held() -> bool:
        held = open_files.held(handle)
        return names.is_last(folder, name) if held is None else held

    with tree.opened_file(folder, name) as handle:
        status = os.fstat(handle)
        if is_held():
            return False
        if hollow(status.st_size, taken(status)):
            return False
        refuse_hard_link(folder, status, shown)
        with (
            draft(folder, f"{name}.gz") as made,
            working(f"compress {shown}", status.st_size, BYTES) as work,
        ):
            digest = blake2b(digest_size=32)
            out = Gzip(made.handle)
            left = status.st_size  # Whoever appends as fast as it is read does not keep us.
            while chunk := os.read(handle, min(_CHUNK, left)):
                digest.update(chunk)
                out.write(chunk)
                work.advance(len(chunk))
                left -= len(chunk)
            out.finish()
            os.lseek(made.handle, 0, os.SEEK_SET)
            if _inflated(made.handle, shown, None) != digest.digest():
                raise HostError(f"{shown} has changed, or {shown}.gz reads back as something else")
            now = os.fstat(handle)
            same = (now.st_size, now.st_mtime_ns) == (status.st_size, status.st_mtime_ns)
            if not same or is_held():
                return False
            made.settle(stat.S_IMODE(status.st_mode), like=handle)
            os.utime(made.handle, ns=(status.st_atime_ns, status.st_mtime_ns))
            try:
                made.publish()
            except FileExistsError:
                _agree(tree, folder, f"{name}.gz", digest.digest(), status.st_size, shown)
        os.unlink(name, dir_fd=folder)
    sync_folder(folder)
    return True


def _agree(tree: Tree, folder: int, name: str, digest: bytes, size: int, shown: str) -> None:
    """A killed pass may have published it already; anything else is not overwritten."""
    try:
        with tree.opened_file(folder, name) as there:
            if _inflated(there, shown, size) == digest:
                return
    except (OSError, zlib.error, EOFError, TooMuch):
        pass
    raise HostError(f"{shown} and {shown}.gz are both there, and differ; move one away")


def _inflated(handle: int, shown: str, most: int | None) -> bytes:
    """The digest of what is compressed there. Raises zlib.error, EOFError or TooMuch."""
    with working(f"read {shown}.gz", os.fstat(handle).st_size, BYTES) as work:
        source = Gunzip(handle, work, most)
        while source.read(_CHUNK):
            pass
    return source.digest.digest()
