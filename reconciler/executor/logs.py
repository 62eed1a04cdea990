"""Reading logs: those of commands, also in their archives, and the end of the worker's own.
Must not write anything, nor unpack to disk.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import tarfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

from reconciler.executor import files
from reconciler.executor.home import Layout
from reconciler.host.tar import BoundedTarInfo

_EVERY = 0.2  # seconds between two looks
_MOST = 1 << 20  # bytes in which the last lines are looked for


def tail(path: str, count: int, follow: bool) -> Iterator[bytes | None]:
    """The last lines, and with `follow` all that comes, for ever. Raises OSError.

    Where the log was rotated lately, its last lines are those of `path`.1. A log that is not
    there is waited for with `follow`, from its first line on, after None.
    """
    before = b""
    with contextlib.suppress(OSError):
        before = _last_of(files.open_shown(f"{path}.1"), count)
    try:
        fd: int | None = files.open_shown(path)
    except FileNotFoundError:
        if not before and not follow:
            raise
        fd = None
        if follow:
            yield None
    data = b"" if fd is None else _last_of(fd, count, close=False)
    yield b"".join((before + data).splitlines(keepends=True)[-count:])
    while follow:
        time.sleep(_EVERY)
        if fd is None:
            with contextlib.suppress(FileNotFoundError):
                fd = files.open_shown(path)
            if fd is None:
                continue
        # Looked at before reading: whoever writes to the new one is through with the old one.
        replaced = os.path.lexists(path) and not files.same_file(fd, path)
        if os.fstat(fd).st_size < os.lseek(fd, 0, os.SEEK_CUR):
            os.lseek(fd, 0, os.SEEK_SET)  # it was cut
        while data := os.read(fd, 65536):
            yield data
        if replaced:
            os.close(fd)
            fd = None


def _last_of(fd: int, count: int, close: bool = True) -> bytes:
    """The last whole lines of what is open; it stands at its end afterwards."""
    try:
        end = os.fstat(fd).st_size
        begin = max(0, end - _MOST)
        os.lseek(fd, begin, os.SEEK_SET)
        data = os.read(fd, end - begin)
    finally:
        if close:
            os.close(fd)
    if begin:
        data = data.partition(b"\n")[2]
    return b"".join(data.splitlines(keepends=True)[-count:])


_ENDING = ".tar.gz"


@contextmanager
def archived_log(layout: Layout, command_id: str | None) -> Iterator[tuple[str, IO[bytes]] | None]:
    """The log of that command (of the one written last, if None), and the archive it is in.

    None if no archive holds one. An archive that cannot be read counts as one without it.
    """
    for path in _newest_first(layout):
        with suppress(tarfile.TarError, EOFError, gzip.BadGzipFile, OSError):
            name = f"{command_id}.log" if command_id is not None else _last(path)
            with _members(path) as members:
                for member, content in members:
                    if name is not None and _is(member, name) and content is not None:
                        found = path, content
                        break
                else:
                    continue
                yield found
                return
    yield None


def broken_archive(layout: Layout, most: int) -> tuple[int, str | None]:
    """How many of the newest archives can be read to their end, and which one cannot, and why."""
    paths = _newest_first(layout)[:most]
    for at, path in enumerate(paths):
        try:
            with (
                os.fdopen(files.open_shown(path), "rb") as raw,
                gzip.GzipFile(fileobj=raw) as unpacked,
            ):
                while unpacked.read(_MOST):
                    pass
        except FileNotFoundError:
            continue  # Its time was over.
        except (EOFError, zlib.error, OSError) as error:
            return at, f"{path} cannot be read: {error}"
    return len(paths), None


def _newest_first(layout: Layout) -> list[str]:
    try:
        with os.scandir(layout.logs) as entries:
            found = [
                (entry.stat(follow_symlinks=False).st_mtime_ns, entry.path)
                for entry in entries
                if entry.name.endswith(_ENDING) and entry.is_file(follow_symlinks=False)
            ]
    except OSError:
        return []
    return [path for _, path in sorted(found, reverse=True)]


@contextmanager
def _members(path: str) -> Iterator[Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]]:
    """Its files, in their order; each can be read until the next one is asked for."""
    with (
        os.fdopen(files.open_shown(path), "rb") as raw,
        gzip.GzipFile(fileobj=raw) as unpacked,
        tarfile.open(fileobj=unpacked, mode="r|", tarinfo=BoundedTarInfo) as archive,
    ):
        yield ((member, archive.extractfile(member)) for member in archive if member.isreg())


def _is(member: tarfile.TarInfo, name: str) -> bool:
    return os.path.basename(member.name) == name


def _last(path: str) -> str | None:
    """The name of the log in it that was written last."""
    with _members(path) as members:
        times = [(m.mtime, os.path.basename(m.name)) for m, _ in members if m.name.endswith(".log")]
    return max(times)[1] if times else None
