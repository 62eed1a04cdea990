"""Files that a retention has moved, which ``--undo`` moves back where they are what they were.

It must not take another file for one of them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice

from reconciler.base.text import count_of
from reconciler.core.model import Observation
from reconciler.host.found import File, Packed
from reconciler.host.remove import names
from reconciler.host.tree import Emptied
from reconciler.host.walk import shown
from reconciler.kinds.retention.due import Due
from reconciler.kinds.retention.resource import Retention

_MOST_NAMES = 100
"""Under which one is looked for: others may have taken any number of them."""


def look(want: Retention, now: int) -> Observation[Due]:
    """Those of ``want.returned`` that are to be moved back. Raises HostError or OSError."""
    files = [File(*one) for one in want.returned or ()]
    there = _found(want.path, files)
    back = _found(str(want.to), [one for one in files if one.path not in there])
    gone = [one.path for one in files if one.path not in there and one.path not in back]
    unsure = None
    if gone:
        more = f" and {count_of(len(gone) - 1, 'other')}" if gone[1:] else ""
        unsure = f"{want.path}/{shown(gone[0])}{more}: changed or taken away since, so left"
    pairs = ((one, path.rpartition("/")[2]) for path, one in there.items())
    called = tuple((one.path, name) for one, name in pairs if name != one.name)
    due = Due(Packed(sorted(there.values(), key=_below)), now=now, called=called)
    return Observation(due, unsure=unsure)


def _below(file: File) -> tuple[str, str]:
    return file.below, file.name


def _found(top: str, files: Sequence[File]) -> dict[str, File]:
    """Those that are below that folder, as they are now, by the paths that they had.

    Where a name was taken, one has got a number behind it.
    """
    found: dict[str, File] = {}
    if not files:
        return found
    with suppress(FileNotFoundError), Emptied(top) as tree:
        for below, group in Packed(sorted(files, key=_below)).by_folder():
            with suppress(OSError), tree.folder(below) as folder:
                for file in group:
                    with suppress(OSError):
                        for name in islice(names(file.name), _MOST_NAMES):
                            now = os.stat(name, dir_fd=folder, follow_symlinks=False)
                            # A copy on another file system has another inode.
                            inode = file.inode if now.st_dev == file.device else now.st_ino
                            same = file._replace(
                                name=name, device=now.st_dev, inode=inode, ctime=now.st_ctime_ns
                            )
                            if same.is_still(now):
                                found[file.path] = same
                                break
    return found
