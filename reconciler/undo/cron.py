"""How what was done about lines for cron is taken back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reconciler.base.records import replace
from reconciler.core.model import Resource, Step
from reconciler.kinds.cron.former import entries_of
from reconciler.undo import Around, Irreversible, Reversal


class OfCron(Reversal):
    """The lines of a crontab, or a file in /etc/cron.d, are as they were."""

    def before(
        self, resource: Resource[Any], step: Step, have: Any, around: Around
    ) -> Sequence[Resource[Any]]:
        want = resource.want
        if want.file is not None:
            bare = replace(want, template=None, content=None, vars=(), text=None)
            if resource.present and have is None:
                return (Resource(resource.id, bare, present=False),)
            if want.secret:
                raise Irreversible("it holds a secret, and is not kept")
            return (Resource(resource.id, replace(bare, text=have.text)),)
        if have is not None and have.block != "in order":
            raise Irreversible("its lines, or those around them, were edited by hand")
        if have is not None and have.env:
            raise Irreversible("the values of its variables are not kept")
        found = entries_of(resource, around.host)
        if want.secret and found:
            raise Irreversible("it holds a secret, and is not kept")
        bare = replace(
            want, schedule=None, command=None, env=(), replaces=None, template=None, content=None,
            vars=(), text=None, entry=want.entry or resource.id, former=found,
        )  # fmt: skip
        return (Resource(resource.id, bare, present=bool(found)),)


REVERSAL = OfCron()
