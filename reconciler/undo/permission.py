"""How what was done about modes and owners is taken back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reconciler.base.records import replace
from reconciler.core.model import Resource, Step
from reconciler.kinds.permission.entries import WrongEntry
from reconciler.undo import Around, Irreversible, Reversal, refuse_many


class OfPermission(Reversal):
    """Each path gets what it had, if it still has what it was given."""

    traced = False

    def before(
        self, resource: Resource[Any], step: Step, have: Any, around: Around
    ) -> Sequence[Resource[Any]]:
        refuse_many(one.path for one in (have.paths if have is not None else ()))
        found = tuple(
            (one.path, _identity(one, around), one.have, one.want)
            for one in (have.paths if have is not None else ())
            if one.refused is None
        )
        want = replace(resource.want, former=found, spared=())
        return (Resource(resource.id, want),) if found else ()


def _identity(one: WrongEntry, around: Around) -> tuple[int, int]:
    """Of what stands there by itself too: another file of that name has never had what it had."""
    if one.identity != (0, 0):
        return one.identity
    found = around.host.files.looked_at(one.path)
    if found is None:
        raise Irreversible(f"{one.path} is not there")
    return found[0].st_dev, found[0].st_ino


REVERSAL = OfPermission()
