"""Small text files of the host: one, or all of a folder such as conf.d, ordered by name.

It must not wait, change anything, nor raise: what may not be read is passed over.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

_LIMIT = 2**18
_FILES = 500


def texts(places: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The path and the text of each file of these folders, or of the place that is a file."""
    for place in places:
        try:
            names = sorted(f"{place}/{one}" for one in os.listdir(place))
        except NotADirectoryError:
            names = [place]
        except OSError:
            continue
        for name in names[:_FILES]:
            found = text(name)
            if found is not None:
                yield name, found


def text(path: str) -> str | None:
    """The first 256 KiB of that file; None where it cannot be read."""
    try:
        with open(path, "rb", opener=_unwaiting) as file:
            data = file.read(_LIMIT)
    except (OSError, ValueError):
        return None
    # A FIFO that somebody is about to write to has None.
    return (data or b"").decode(errors="replace").replace("\r\n", "\n")


def _unwaiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)
