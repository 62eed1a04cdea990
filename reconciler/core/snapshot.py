"""A look at the host: what was seen, and what is to be done about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reconciler.base.records import dataclass
from reconciler.core.model import Observation, Plan, Spec


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A look at the host: what was seen, by id, and what is to be done about it.

    ``only`` are the patterns of what was looked at; empty means all.
    """

    spec: Spec
    plan: Plan
    seen: Mapping[str, Observation[Any]]
    only: tuple[str, ...] = ()
