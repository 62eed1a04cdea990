"""Looks at the host, a whole section at once. It must not change anything, nor decide."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from reconciler.contract import GetKind
from reconciler.model import HostError, Observation, Resource
from reconciler.plan import observed_kinds

if TYPE_CHECKING:
    from reconciler.host import Host


def observe(
    resources: Iterable[Resource[Any]], get_kind: GetKind, host: Host
) -> dict[str, Observation[Any]]:
    """A fresh look at all resources that are not skipped, by id. Never raises for the host."""
    host.forget()
    seen: dict[str, Observation[Any]] = {}
    for name, group in observed_kinds(resources).items():
        kind = get_kind(name)
        try:
            found = kind.observe(group, host)
        except (HostError, OSError) as error:
            found = [Observation(unknown=str(error))] * len(group)
        for resource, observation in zip(group, found, strict=True):
            seen[resource.id] = observation
    return seen
