"""What one call learns in a pass, for the process that goes on. Plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from reconciler.base.records import dataclass

if TYPE_CHECKING:
    from reconciler.state.restarts import Unwritten


@dataclass(frozen=True, slots=True)
class Learned:
    """What a call knows after a pass that it did not know before, for another process.

    ``acted`` names the probes of which something was done about what they said; ``reports`` are
    those that nobody was told.
    """

    begun: frozenset[str]
    unwritten: Mapping[str, Unwritten | None]
    warned: frozenset[str]
    measured: Mapping[Any, Any]
    acted: tuple[str, ...]
    reports: tuple[str, ...]
