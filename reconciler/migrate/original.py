"""A file to be imported: its text, and what to say where it cannot be read.

It must not wait for a pipe or a device, nor take more than a spec may have.
"""

from __future__ import annotations

import fnmatch
import glob
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from reconciler.host.spec_files import LIMIT
from reconciler.migrate.document import Origin

_MOST_FILES = 1000
"""That one file may include, with what these include: some include each other many times."""


_MOST_LOOKED = 20_000
"""Names that one pattern may lead through."""


class NotImported(Exception):
    """The file cannot be imported. ``line`` is 0 where none can be named."""

    def __init__(self, file: str, line: int, reason: str) -> None:
        super().__init__(f"{file}:{line}: {reason}" if line else f"{file}: {reason}")
        self.file = file
        self.line = line
        self.reason = reason


class Original(NamedTuple):
    """``shown`` is its name for people, ``path`` absolute; ``files`` are all that were opened."""

    shown: str
    path: str
    text: str
    files: list[str]

    def at(self, line: int, text: str = "") -> Origin:
        """That line, from 1, with what is said there."""
        return Origin(self.shown, line, text)

    def lines(self) -> Iterator[tuple[int, str]]:
        """Its lines, with their numbers."""
        return enumerate(self.text.split("\n"), 1)

    def refused(self, line: int, reason: str) -> NotImported:
        """To be raised where that line cannot be understood."""
        return NotImported(self.shown, line, reason)

    def matching(self, pattern: str, origin: Origin) -> list[str]:
        """What that glob, seen from the file's folder, names. Raises NotImported at too much."""
        found = ["/"]
        looked = 0
        for part in filter(None, os.path.join(self.folder, pattern).split("/")):
            if not glob.has_magic(part):
                found = [os.path.join(one, part) for one in found]
                found = [one for one in found if os.path.lexists(one)]
                continue
            names = []
            for folder in found:
                with suppress(OSError), os.scandir(folder) as entries:
                    for entry in entries:
                        looked += 1
                        if looked > _MOST_LOOKED:
                            raise self.refused(
                                origin.line, f"{origin.text}: a pattern that leads through more "
                                f"than {_MOST_LOOKED:,} names; name the folder"
                            )  # fmt: skip
                        hidden = entry.name.startswith(".") and not part.startswith(".")
                        if not hidden and fnmatch.fnmatch(entry.name, part):
                            names.append(entry.path)
            found = names
        return sorted(found)

    @property
    def base(self) -> str:
        return os.path.basename(self.path)

    @property
    def folder(self) -> str:
        return os.path.dirname(self.path)


def opened(path: str, origin: Origin | None = None, parent: Original | None = None) -> Original:
    """The file; ``-`` is standard input. ``origin``, in ``parent``, is what includes it.

    Raises NotImported.
    """
    shown = "standard input" if path == "-" else path
    file, line = (shown, 0) if origin is None else origin[:2]
    files = [] if parent is None else parent.files
    files.append(path)
    if len(files) > _MOST_FILES:
        raise NotImported(file, line, f"more than {_MOST_FILES:,} files are included")
    about = f"{shown} " if origin else ""
    try:
        data = _read(path)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise NotImported(file, line, f"{about}cannot be read: {reason}") from None
    except ValueError as error:
        raise NotImported(file, line, f"{about}{error}") from None
    return Original(shown, os.path.abspath(path), _decoded(data, shown), files)


def _read(path: str) -> bytes:
    if path == "-":
        data = sys.stdin.buffer.read(LIMIT + 1)
    else:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        with open(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise ValueError("is not a regular file")
            data = file.read(LIMIT + 1)
    if len(data) > LIMIT:
        raise ValueError(f"is longer than {LIMIT:,} bytes")
    return data


def _decoded(data: bytes, shown: str) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise NotImported(shown, 1, "is UTF-16; save it as UTF-8")
    data = data.removeprefix(b"\xef\xbb\xbf")
    zero = data.find(b"\0")
    if zero >= 0:
        raise NotImported(shown, _line(data, zero), "is binary: a NUL byte")
    try:
        return data.decode().replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        reason = f"the byte 0x{data[error.start]:02x} is not UTF-8; save it as UTF-8"
        raise NotImported(shown, _line(data, error.start), reason) from None


def _line(data: bytes, at: int) -> int:
    return data.count(b"\n", 0, at) + 1
