"""A whole text file that one spec has made: what stands at its place, and the header that tells.

It must not write it; ``rewrite`` does.
"""

from __future__ import annotations

import os
import stat

from reconciler.base.errors import UnknownState
from reconciler.base.records import dataclass
from reconciler.host.reading import read_in
from reconciler.host.walk import opened, reason

LIMIT = 2**20
"""The most bytes that such a file may have."""
_MARK = "# reconcile: "
_HEADER_LINES = 10


@dataclass(frozen=True, slots=True)
class ManagedFile:
    """What stands at the place of such a file: its text, or where a symlink leads to."""

    text: str
    mode: int
    uid: int
    modified: float
    link: str | None = None


def managed_file(path: str) -> ManagedFile | None:
    """What stands at ``path``, not followed if it is a symlink. Raises UnknownState."""
    parent, _, name = path.rpartition("/")
    try:
        with opened(parent) as folder:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                return ManagedFile("", 0, 0, 0.0, os.readlink(name, dir_fd=folder))
            there = read_in(folder, name, path, LIMIT)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UnknownState(f"cannot look at {path}: {reason(error)}") from None
    if there is None:
        return None
    data, status = there
    text = data.decode("utf-8", "surrogateescape")
    return ManagedFile(text, stat.S_IMODE(status.st_mode), status.st_uid, status.st_mtime)


def header(spec: str, resource: str) -> str:
    """The lines that say who made a file, and tell us that it is ours."""
    said = "# Made by reconcile; edit the spec instead: what is changed here is put back."
    return f"{said}\n{mark(spec)} {resource}\n\n"


def mark(spec: str) -> str:
    """How the line begins that makes a file that spec's own."""
    return f"{_MARK}{spec}"


def ours(text: str, spec: str) -> bool:
    """Does the header of a file say that this spec made it?"""
    return spec in makers(text)


def makers(text: str) -> list[str]:
    """The specs that a file says it was made by."""
    first = text.split("\n", _HEADER_LINES)[:_HEADER_LINES]
    return [line.split()[2] for line in first if line.split()[:2] == _MARK.split() != line.split()]


def differs(have: str, want: str) -> str:
    """By how many lines a text differs from another, in words."""
    from difflib import ndiff

    lines = list(ndiff(have.split("\n"), want.split("\n")))
    count = max(sum(line.startswith(sign) for line in lines) for sign in "+-")
    return f"content differs ({count} {'line' if count == 1 else 'lines'})"
