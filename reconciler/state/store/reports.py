"""What was reported last of each period, and when: where the next one begins.

It must not decide when one is due.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from reconciler.base.records import dataclass
from reconciler.state.store.base import Base


@dataclass(frozen=True, slots=True)
class Reported:
    """``wall`` is in seconds since the epoch, ``age`` in seconds, None: before this boot.

    ``figures`` are those of that time.
    """

    wall: float
    age: float | None
    figures: dict[str, Any]


class ReportTable:
    """The table of reports, by the length of their period in seconds; see Base."""

    def __init__(self, base: Base) -> None:
        self._base = base

    def all(self) -> dict[float, Reported]:
        """The last one of each period."""
        import json

        found = {}
        rows = self._base.read("SELECT period, boot, at, wall, figures FROM reports")
        for period, boot, at, wall, figures in rows:
            try:
                known = json.loads(figures)
            except ValueError:
                known = {}
            found[float(period)] = Reported(wall, self._base.age(boot, at), known)
        return found

    def made(self, periods: Collection[float], figures: dict[str, Any]) -> None:
        """One of each of these is made now, and the next period begins."""
        import json

        clock = self._base.clock
        row = self._base.boot, clock.monotonic(), clock.wall(), json.dumps(figures)
        with self._base.change() as base:
            for period in periods:
                base.execute(
                    "INSERT OR REPLACE INTO reports (period, boot, at, wall, figures) "
                    "VALUES (?, ?, ?, ?, ?)",
                    (period, *row),
                )
