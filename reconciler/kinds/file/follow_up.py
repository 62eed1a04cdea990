"""What follows in a step of one resource for another one of the same spec."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from reconciler.base.errors import HostError
from reconciler.base.records import dataclass
from reconciler.core.model import Action

if TYPE_CHECKING:
    from reconciler.host import Host


@dataclass(frozen=True, slots=True)
class FollowUp:
    """Restart or reload a process or a unit of the spec; one that does not run is left alone."""

    verb: str
    id: str

    @property
    def other(self) -> str | None:
        """A process may be restarted by instances, of which more are to follow."""
        return self.id if self.id.startswith("process:") else None

    def describe(self) -> str:
        return f"{self.verb} {self.id}"

    def run(self, host: Host) -> None:
        from reconciler import kinds

        found = (one for one in host.declared if one.id == self.id)
        resource = next(found, None)
        if resource is None or not resource.present or resource.held or resource.skip is not None:
            return
        kind: Any = kinds.get(resource.kind)
        if resource.kind == "unit":
            from reconciler.kinds.unit.actions import Renew

            actions: Sequence[Action] = (
                Renew(resource.want.scope, str(resource.want.unit), self.verb),
            )
        else:
            (seen,) = kind.observe([resource], host)
            if seen.unknown is not None:
                raise self._failed(seen.unknown)
            actions = () if seen.state is None else kind.restart(resource, seen.state, ())
        for error in kind.run_all(actions, host):
            if error is not None:
                raise self._failed(error)

    def _failed(self, why: object) -> HostError:
        return HostError(f"the file is written, but {self.describe()} failed: {why}")
