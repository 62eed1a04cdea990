"""Removes folders in which nothing is left.

It must not remove the top, nor anything that holds something, whoever has just put it there.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable

from reconciler.base.errors import HostError
from reconciler.host.tree import Elsewhere, Emptied
from reconciler.host.walk import reason

_KEPT = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT, errno.ENOTDIR, errno.EBUSY)
"""It holds something, is gone, is no folder any more, or is a mount point."""


def remove_empty(path: str, folders: Iterable[str]) -> None:
    """Remove those ``folders`` below ``path`` that are empty, and above them what is so then.

    Raises HostError after the last one when some could not be removed.
    """
    trouble: list[str] = []
    todo = sorted(filter(None, folders), key=lambda folder: -folder.count("/"))
    with Emptied(path) as tree:
        for below in todo:
            while below:
                above, _, name = below.rpartition("/")
                try:
                    with tree.folder(above) as folder:
                        os.rmdir(name, dir_fd=folder)
                except Elsewhere:
                    break
                except OSError as error:
                    if error.errno not in _KEPT:
                        trouble.append(f"{path}/{below}: {reason(error)}")
                    break
                below = above
    if trouble:
        raise HostError(f"cannot remove {len(trouble)} empty folders: {trouble[0]}")
