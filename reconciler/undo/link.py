"""How what was done about a symlink is taken back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reconciler.core.model import Resource, Step
from reconciler.kinds.link import Link
from reconciler.undo import Around, Reversal


class OfLink(Reversal):
    """It is removed, or leads where it led."""

    def before(
        self, resource: Resource[Any], step: Step, have: Any, around: Around
    ) -> Sequence[Resource[Any]]:
        want = resource.want
        if resource.present and have is None:
            made: Resource[Any] = Resource(resource.id, want, present=False)
            return (made, *around.missing_above(want.path))
        return (Resource(resource.id, Link(want.path, have.target)),)

    def made(self, resource: Resource[Any]) -> str | None:
        return self.trace(resource.want)

    def trace(self, state: Any) -> str:
        return "" if state is None else str(state.target)


REVERSAL = OfLink()
