"""How what was done about a process is taken back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reconciler.base.records import replace
from reconciler.core.model import Resource, Step
from reconciler.host.start_records import RENEWED
from reconciler.undo import Around, Irreversible, Reversal, refuse_lost_secrets


class OfProcess(Reversal):
    """It is stopped, or started from what it was started from before."""

    defines = True

    def before(
        self, resource: Resource[Any], step: Step, have: Any, around: Around
    ) -> Sequence[Resource[Any]]:
        want, runs = resource.want, have is not None and bool(have.found)
        if step.demanded:
            return ()  # It has run before, from the same.
        former = around.known(resource.id)
        if former is None and not runs:
            # Of one that is to go, only what it has left behind is ended.
            return (Resource(resource.id, want, False),) if resource.present else ()
        versions = {one.partition(".")[0] for one in _versions(have)}  # Without env_file's.
        running = versions - {"", want.digest()}
        # Where some run from this already, the pass that began it has noted what was before.
        if former is not None and want.digest() not in versions and running - {former.digest()}:
            former = None  # Who has started it was killed before he could note from what.
        if former is None:
            if running:
                raise Irreversible("what it was started from before is not known")
            former = replace(want, instances=len(have.found))
        refuse_lost_secrets(former, want, "former values of its environment")
        return (Resource(resource.id, replace(former, stop_extra=True)),)

    def made(self, resource: Resource[Any]) -> str | None:
        # With an env_file it depends on what that holds.
        return None if resource.want.env_file is not None else str(resource.want.digest())

    def trace(self, state: Any) -> str:
        return " ".join(sorted(_versions(state)))

    def is_left(self, left: str, now: str) -> bool:
        # What has ended since, or did not come up then, was changed by nobody.
        return not now or not left or left == now


def _versions(state: Any) -> set[str]:
    """What those were started from that run, also where it is their turn to be started anew."""
    found = () if state is None else state.found or ()
    return {(digest or "").removesuffix(RENEWED) for _, digest in found}


REVERSAL = OfProcess()
