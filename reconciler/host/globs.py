"""The paths that a pattern of a spec means, as glob(7) has it, seen through ``Files``.

It must not follow a symlink at the end of a path, nor name what may not be shown.
"""

from __future__ import annotations

import fnmatch
import os
import stat
from typing import TYPE_CHECKING

from reconciler.base.errors import HostError, UnknownState
from reconciler.host.filesystems import leads_to_server
from reconciler.host.reading import PRIVATE, is_private
from reconciler.host.walk import opened, reason

if TYPE_CHECKING:
    from reconciler.host.files import Files


def matching(files: Files, pattern: str, odd: list[str]) -> list[str]:
    """The paths that match a glob, sorted; a name that begins with a dot must be asked for.

    What cannot be looked at is left out, and ``odd`` says why. Raises UnknownState when that
    is what stands before the first wildcard.
    """
    found = [""]
    globbed = False
    for part in pattern.split("/")[1:]:
        if any(character in part for character in "*?["):
            told = odd if globbed else None
            found = [f"{path}/{name}" for path in found for name in _names(files, path, part, told)]
            globbed = True
        else:
            found = [f"{path}/{part}" for path in found]
    return sorted(path for path in found if _is_there(files, path, odd))


def _is_there(files: Files, path: str, odd: list[str]) -> bool:
    """Is there something other than a symlink? A glob passes over those, as find(1) does."""
    try:
        if leads_to_server(path):
            files.status(path.rpartition("/")[0])  # It may hang, so it is asked first.
        return not stat.S_ISLNK(os.lstat(path).st_mode) and files.status(path) is not None
    except FileNotFoundError:
        return False
    except UnknownState as error:
        odd.append(str(error))
    except OSError as error:
        odd.append(f"cannot look at {path}: {reason(error)}")
    return False


def _names(files: Files, path: str, pattern: str, odd: list[str] | None) -> list[str]:
    try:
        status = files.status(path or "/")
        if status is None or not stat.S_ISDIR(status.st_mode):
            return []
        _refuse_private(path, status)
        names = os.listdir(path or "/")
    except HostError as error:
        if odd is None:
            raise
        odd.append(str(error))
        return []
    except OSError as error:
        what = f"cannot read {path}: {reason(error)}"
        if odd is None:
            raise UnknownState(what) from None
        odd.append(what)
        return []
    hidden = pattern.startswith(".")
    return [name for name in fnmatch.filter(names, pattern) if hidden or not name.startswith(".")]


def _refuse_private(path: str, status: os.stat_result) -> None:
    """Raises UnknownState where nobody is to be shown what is in a folder: see ``reading``."""
    if os.geteuid() == 0 and not status.st_mode & stat.S_IROTH:
        with opened(path) as handle:
            if is_private(handle):
                raise UnknownState(f"what is in {path} is {PRIVATE}")
