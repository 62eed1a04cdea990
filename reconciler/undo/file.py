"""How what was done about a whole file is taken back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reconciler.base.records import replace
from reconciler.core.model import Resource, Step
from reconciler.kinds.file import FileState, RemoveFile, WholeFile, WriteFile
from reconciler.undo import (
    Around,
    Irreversible,
    Reversal,
    held,
    with_attributes,
)


class OfFile(Reversal):
    """It is removed, or holds again what it held."""

    def before(
        self, resource: Resource[Any], step: Step, have: Any, around: Around
    ) -> Sequence[Resource[Any]]:
        want, host = resource.want, around.host
        if resource.present and have is None:
            empty = WholeFile(want.path, content="", secret=want.secret)
            made: Resource[Any] = Resource(resource.id, empty, present=False)
            return (made, *around.missing_above(want.path))
        if not any(isinstance(one, (WriteFile, RemoveFile)) for one in step.actions):
            real = host.files.real(want.path) or want.path
            sets = any(one.field in ("mode", "owner", "group") for one in step.changes)
            return (with_attributes(real, want.attributes, host),) if sets else ()
        if want.secret:
            raise Irreversible("its content is secret, and is not kept")
        text, now = held(want.path, host)
        had = WholeFile(want.path, content=text, on_change=want.on_change)
        had = replace(had, mode=now.mode, owner=now.owner, group=now.group)
        return (Resource(resource.id, had),)

    def made(self, resource: Resource[Any]) -> str | None:
        want = resource.want
        if want.secret or want.origin is not None:
            return None
        return self.trace(FileState(want.shown))  # Its mode is looked at by who declares one.

    def trace(self, state: Any) -> str:
        # What follows a change is no change of it.
        return super().trace(state and (state.content, state.mode, state.owner, state.group))


REVERSAL = OfFile()
