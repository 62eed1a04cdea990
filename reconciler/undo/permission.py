"""How what was done about modes and owners is taken back."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Any

from reconciler.core.model import Resource, Step
from reconciler.kinds.permission import Permission
from reconciler.undo import Around, Reversal, few


class OfPermission(Reversal):
    """Each path gets what it had, if it still has what it was given."""

    traced = False
    sure = True

    def before(
        self, resource: Resource[Any], step: Step, have: Any, around: Around
    ) -> Sequence[Resource[Any]]:
        paths = have.paths if have is not None else ()
        # Another file of that name has never had what it had.
        found = tuple(few(paths.former(), itemgetter(0))) if paths else ()
        if not found:
            return ()
        want = resource.want
        asked = want.mode, want.file_mode, want.dir_mode, want.owner, want.group
        back = Permission(want.path, *asked, want.recursive, want.exclude, (), found)
        return (Resource(resource.id, back),)

    def is_still(self, then: Any, now: Any) -> bool:
        return bool(then.paths) and then.paths.roots == now.paths.roots


REVERSAL = OfPermission()
