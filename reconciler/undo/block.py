"""How what was done about a block is taken back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reconciler.base.records import replace
from reconciler.core.model import Resource, Step
from reconciler.kinds.block import BlockState
from reconciler.undo import Around, Irreversible, Reversal, held, ident


class OfBlock(Reversal):
    """It is taken out, or holds again what it held; a file that lost one is whole again."""

    def before(
        self, resource: Resource[Any], step: Step, have: Any, around: Around
    ) -> Sequence[Resource[Any]]:
        want, host = resource.want, around.host
        if resource.present and have is None:
            out = replace(want, content="") if want.secret else want
            return (Resource(resource.id, out, present=False),)
        if want.secret:
            raise Irreversible("it holds a secret, and is not kept")
        if have.markers != "in order":
            raise Irreversible("its markers were damaged")
        if resource.present:
            return (Resource(resource.id, replace(want, content=have.content)),)
        from reconciler.kinds.file import WholeFile

        # Only the whole file says where in it the block was.
        real = host.files.real(want.path) or want.path
        text, now = held(real, host)
        whole = WholeFile(real, content=text, mode=now.mode, owner=now.owner, group=now.group)
        return (Resource(ident("file", real), whole),)

    def made(self, resource: Resource[Any]) -> str | None:
        want = resource.want
        return None if want.secret else self.trace(BlockState(want.lines))


REVERSAL = OfBlock()
