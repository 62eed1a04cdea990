"""Logs of commands that were put into archives since, `archive_*.tar.gz` beside the logs.
Must not write anything, nor unpack to disk.
"""

from __future__ import annotations

import gzip
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

from reconciler.executor import files
from reconciler.executor.layout import Layout

_ENDING = ".tar.gz"


@contextmanager
def log(layout: Layout, command_id: str | None) -> Iterator[tuple[str, IO[bytes]] | None]:
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
        tarfile.open(fileobj=unpacked, mode="r|") as archive,
    ):
        yield ((member, archive.extractfile(member)) for member in archive if member.isreg())


def _is(member: tarfile.TarInfo, name: str) -> bool:
    return os.path.basename(member.name) == name


def _last(path: str) -> str | None:
    """The name of the log in it that was written last."""
    with _members(path) as members:
        times = [(m.mtime, os.path.basename(m.name)) for m, _ in members if m.name.endswith(".log")]
    return max(times)[1] if times else None
