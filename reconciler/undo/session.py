"""How what was done about a tmux session is taken back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reconciler.core.model import Resource, Step
from reconciler.undo import Around, Irreversible, Reversal, refuse_lost_secrets


class OfSession(Reversal):
    """Our windows are closed, or made again; a pane that had ended is not ended again."""

    defines = True
    traced = False  # What people have opened in it is left as it is anyhow.

    def before(
        self, resource: Resource[Any], step: Step, have: Any, around: Around
    ) -> Sequence[Resource[Any]]:
        former, want = around.known(resource.id), resource.want
        if resource.present and have is None:
            if former is not None:
                return (Resource(resource.id, former),)  # It had ended by itself.
            return (Resource(resource.id, want, present=False),)
        if resource.present:
            if any(one.field.startswith("option ") for one in step.changes):
                raise Irreversible("what was set in tmux before is not noted")
            return ()
        former = former or want
        if resource.orphan and not former.layout():
            raise Irreversible("its windows are not known")
        refuse_lost_secrets(former, want, "values of its environment")
        return (Resource(resource.id, former),)


REVERSAL = OfSession()
