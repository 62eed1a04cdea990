"""Mode, owner and group of what already exists, one path or whole trees.

It must not create anything, and it never follows a symlink that somebody else could have made.
"""

from __future__ import annotations

from dataclasses import dataclass

from reconciler.fields import Flag, Mode, Name, Path


@dataclass(frozen=True, slots=True)
class Permission:
    """What a user may write under ``permissions``."""

    path: Path
    mode: Mode | None = None
    file_mode: Mode | None = None
    dir_mode: Mode | None = None
    owner: Name | None = None
    group: Name | None = None
    recursive: Flag = False
    exclude: tuple[Name, ...] = ()
