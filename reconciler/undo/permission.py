"""How what was done about modes and owners is taken back."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from reconciler.core.model import Resource, Step
from reconciler.kinds.permission import Permission
from reconciler.kinds.permission.entries import WrongEntry
from reconciler.undo import Around, Irreversible, Reversal, few

_PATH = attrgetter("path")


class OfPermission(Reversal):
    """Each path gets what it had, if it still has what it was given."""

    traced = False
    sure = True

    def before(
        self, resource: Resource[Any], step: Step, have: Any, around: Around
    ) -> Sequence[Resource[Any]]:
        entries: Sequence[WrongEntry] = have.paths if have is not None else ()
        found = tuple(
            [(one.path, _identity(one.path, one.identity, around), one.have, one.want)
             for one in few(entries, _PATH) if one.refused is None]
        )  # fmt: skip
        if not found:
            return ()
        want = resource.want
        asked = want.mode, want.file_mode, want.dir_mode, want.owner, want.group
        back = Permission(want.path, *asked, want.recursive, want.exclude, (), found)
        return (Resource(resource.id, back),)

    def is_still(self, resources: Sequence[Resource[Any]], around: Around) -> bool:
        want = resources[0].want
        return not want.recursive and all(
            _identity(path, (0, 0), around) == identity for path, identity, *_ in want.former
        )


def _identity(path: str, known: tuple[int, int], around: Around) -> tuple[int, int]:
    """Of what stands there by itself too: another file of that name has never had what it had."""
    if known != (0, 0):
        return known
    found = around.host.files.looked_at(path)
    if found is None:
        raise Irreversible(f"{path} is not there")
    return found[0].st_dev, found[0].st_ino


REVERSAL = OfPermission()
