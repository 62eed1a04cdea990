"""The logs of daemons that say nothing about theirs: kept within a bound, in our state directory.

It must not touch a log that a rule of the spec rotates.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from reconciler.base.errors import HostError
from reconciler.host.walk import reason

MOST = 50 << 20
"""Bytes of a log, and of each of those that were taken out of it."""
KEEP = 5
"""How many of the latter stay."""


def trim(folder: str, is_rotated: Callable[[str], bool]) -> Iterator[str]:
    """Take out of each log in ``folder`` what is more than ``MOST``; what went wrong, in words.

    ``is_rotated``: does a rule of the spec rotate it? Then it stays as it is.
    """
    try:
        with os.scandir(folder) as entries:
            large = [
                entry.path
                for entry in entries
                if entry.name.endswith(".log") and entry.stat(follow_symlinks=False).st_size > MOST
            ]
    except FileNotFoundError:
        return
    except OSError as error:
        yield f"cannot look through {folder}: {reason(error)}"
        return
    for path in large:
        if is_rotated(path):
            continue
        from reconciler.host.rotate import bound

        try:
            bound(path, MOST, KEEP)
        except HostError as error:
            yield f"the log {path} is too large, and stays so: {error}"
        except OSError as error:
            yield f"the log {path} is too large, and stays so: {reason(error)}"
