"""How what was done about a directory is taken back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reconciler.core.model import Resource, Step
from reconciler.kinds.directory import Directory
from reconciler.undo import Around, Reversal, all_of, missing_above


class OfDirectory(Reversal):
    """It is removed, if it is empty, made again, or given what it had."""

    def before(
        self, resource: Resource[Any], step: Step, have: Any, around: Around
    ) -> Sequence[Resource[Any]]:
        want, host = resource.want, around.host
        if resource.present and have is None:
            asked = Directory(want.path, want.mode, want.owner, want.group)
            made = Resource[Any](resource.id, asked, present=False)
            return (made, *missing_above(want.path, host))
        now = all_of(want.path, host)
        return (Resource(resource.id, Directory(want.path, now.mode, now.owner, now.group)),)


REVERSAL = OfDirectory()
