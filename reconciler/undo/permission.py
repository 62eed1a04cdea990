"""How what was done about modes and owners is taken back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reconciler.core.model import Resource, Step
from reconciler.kinds.permission import Permission
from reconciler.kinds.permission.entries import WrongEntry
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
        seen = paths.identified() if paths else ()
        found = tuple(
            [(one.path, identity, one.have, one.want) for one, identity in few(seen, _path_of)
             if one.refused is None]
        )  # fmt: skip
        if not found:
            return ()
        want = resource.want
        asked = want.mode, want.file_mode, want.dir_mode, want.owner, want.group
        back = Permission(want.path, *asked, want.recursive, want.exclude, (), found)
        return (Resource(resource.id, back),)

    def is_still(self, then: Any, now: Any) -> bool:
        return bool(then.paths and now.paths and then.paths.roots == now.paths.roots)


def _path_of(seen: tuple[WrongEntry, tuple[int, int]]) -> str:
    return seen[0].path


REVERSAL = OfPermission()
