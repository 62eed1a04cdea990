"""How what was done about a directory is taken back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reconciler.base.records import replace
from reconciler.core.model import Resource, Step
from reconciler.kinds.directory import Directory
from reconciler.undo import Around, Reversal, all_of


class OfDirectory(Reversal):
    """It is removed, if it is empty, made again, or given what it had."""

    def before(
        self, resource: Resource[Any], step: Step, have: Any, around: Around
    ) -> Sequence[Resource[Any]]:
        want, host = resource.want, around.host
        if resource.present and have is None:
            bare = want if want.born is None else replace(want, born=None)
            made: Resource[Any] = Resource(resource.id, bare, False)
            return (made, *around.missing_above(want.path))
        now = all_of(want.path, host)
        return (Resource(resource.id, Directory(want.path, now.mode, now.owner, now.group)),)

    def made(self, resource: Resource[Any]) -> str | None:
        return self.trace(resource.want)

    def trace(self, state: Any) -> str:
        if state is None:
            return ""
        state = getattr(state, "have", state)  # Where it may not be changed.
        return f"{state.mode} {state.owner} {state.group}"


REVERSAL = OfDirectory()
