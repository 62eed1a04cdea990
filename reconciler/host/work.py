"""How much may be read and written in one pass, and is there room for it.

It must not decide what is left for the next pass.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TypeVar

MOST = 4 << 30
"""Bytes that one step of a pass reads in order to write them elsewhere."""
_T = TypeVar("_T")


def room(path: str) -> tuple[int, int]:
    """The device on which ``path`` is, or is to be, and the bytes that are free on it.

    What is kept back for root is not free. Raises OSError.
    """
    while True:
        try:
            found = os.statvfs(path)
            return os.stat(path).st_dev, found.f_bavail * found.f_frsize
        except (FileNotFoundError, NotADirectoryError):
            if path in ("", "/"):
                raise
            path = path.rpartition("/")[0] or "/"


def affordable(
    things: Sequence[_T], size: Callable[[_T], int], most: int
) -> tuple[Sequence[_T], Sequence[_T]]:
    """The first of these, of ``most`` bytes in all, and the rest. One is always among the first."""
    for number, thing in enumerate(things):
        most -= size(thing)
        if most < 0 and number:
            return things[:number], things[number:]
    return things, things[:0]


def hollow(length: int, taken: int) -> bool:
    """Is most of it a hole, so long that reading it would take a pass of its own, and more?"""
    return length > MOST and taken < length // 2
