"""How what was done about modes and owners is taken back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reconciler.base.records import replace
from reconciler.core.model import Resource, Step
from reconciler.undo import Around, Reversal


class OfPermission(Reversal):
    """Each path gets what it had, if it still has what it was given."""

    def before(
        self, resource: Resource[Any], step: Step, have: Any, around: Around
    ) -> Sequence[Resource[Any]]:
        found = tuple(
            (one.path, one.identity, one.have, one.want)
            for one in (have.paths if have is not None else ())
            if one.refused is None
        )
        want = replace(resource.want, former=found, spared=())
        return (Resource(resource.id, want),) if found else ()

    def trace(self, state: Any) -> str:
        return ""  # Each path is looked at by itself.


REVERSAL = OfPermission()
