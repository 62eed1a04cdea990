"""Directories that must be there, with mode, owner and group.

It must not touch what a directory holds, and it removes only empty ones.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reconciler.fields import Mode, Name, Path
from reconciler.model import ABSENT, Action, Change, Claim, Key, Kind, Observation

if TYPE_CHECKING:
    from reconciler.host import Host


@dataclass(frozen=True, slots=True)
class Directory:
    """What a user may write under ``directories``. Fields left out are left alone."""

    path: Path
    mode: Mode | None = None
    owner: Name | None = None
    group: Name | None = None
