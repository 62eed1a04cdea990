"""What is to be left alone until told otherwise.

It must not hold anything that is not a person's wish.
"""

from __future__ import annotations

from reconciler.base.records import dataclass
from reconciler.state.store.base import Base


@dataclass(frozen=True, slots=True)
class Pause:
    """``wall`` and ``until`` are in seconds since the epoch; None: until it is resumed."""

    id: str
    reason: str
    wall: float
    until: float | None
    by: str


class Pauses:
    """The table of pauses; may be changed without the lock. See Base for what is raised."""

    def __init__(self, base: Base) -> None:
        self._base = base
        self.known: dict[str, Pause] = {}
        """Those that were read last."""

    def all(self) -> dict[str, Pause]:
        """Those that are not over, by id. They hold over reboots, so they go by the wall clock."""
        now = self._base.clock.wall()
        rows = self._base.read("SELECT id, reason, wall, until, by FROM pauses ORDER BY id")
        found = {row[0]: Pause(*row) for row in rows}
        self.known = {i: p for i, p in found.items() if p.until is None or p.until > now}
        return self.known

    def pause(self, ident: str, reason: str, until: float | None, by: str) -> None:
        """Leave it alone from now on."""
        now = self._base.clock.wall()
        with self._base.change() as base:
            base.execute(
                "INSERT OR REPLACE INTO pauses (id, reason, wall, until, by) "
                "VALUES (?, ?, ?, ?, ?)",
                (ident, reason, now, until, by),
            )

    def resume(self, ident: str) -> bool:
        """Leave it alone no more; False when it was not paused."""
        with self._base.change() as base:
            return bool(base.execute("DELETE FROM pauses WHERE id = ?", (ident,)).rowcount)
