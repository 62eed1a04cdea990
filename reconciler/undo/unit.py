"""How what was done about a unit is taken back."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from reconciler.base.records import replace
from reconciler.core.attributes import Attributes
from reconciler.core.model import Resource, Step
from reconciler.undo import Around, Irreversible, Reversal, with_attributes


class OfUnit(Reversal):
    """Its file, and whether it is enabled and runs, are as they were."""

    def before(
        self, resource: Resource[Any], step: Step, have: Any, around: Around
    ) -> Sequence[Resource[Any]]:
        want, changed = resource.want, {one.field for one in step.changes}
        bare = replace(
            want, template=None, content=None, vars=(), secret=(), text=None, environment=None,
            hides=False, enabled=None, active=None,
        )  # fmt: skip
        if resource.present and (have is None or have.there is False):
            path = have.path if have is not None and have.path else ""
            # A text, so that the file is looked at.
            gone: Resource[Any] = Resource(resource.id, replace(bare, text=""), present=False)
            return (gone, *around.missing_above(path))
        if "masked" in changed:
            raise Irreversible("it was masked")
        if have.environment_text is not None and (not resource.present or "environment" in changed):
            raise Irreversible("its EnvironmentFile holds secrets, and is not kept")
        if not resource.present or "content" in changed:
            if want.hides or (have.content is not None and have.content != have.text):
                raise Irreversible("its file holds secrets, and is not kept")
            bare = replace(bare, text=have.text)
        if not resource.present:
            bare = replace(bare, enabled=have.enabled, active=have.active)
        else:
            bare = replace(
                bare,
                enabled=have.enabled if "enabled" in changed else None,
                active=have.active if "active" in changed else None,
            )
        found: list[Resource[Any]] = [Resource(resource.id, bare)]
        if bare.text is None and have.path and changed & {"mode", "owner"}:
            owner = ("0", "0") if want.scope == "system" else (str(os.geteuid()), None)
            given = Attributes(want.mode, *owner)
            found.append(with_attributes(have.path, given, around.host))
        if (bare.text, bare.enabled, bare.active) == (None, None, None):
            del found[0]  # It was only restarted.
        return found

    def trace(self, state: Any) -> str:
        if state is None or state.there is False:
            return ""
        # That it has ended, or was started, does not make it another one.
        return super().trace((state.text, state.environment_text, state.enabled))


REVERSAL = OfUnit()
