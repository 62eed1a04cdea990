"""What was done, when, why, by whom, and with which result.

It must not grow without end.
"""

from __future__ import annotations

from collections.abc import Sequence

from reconciler.base.records import dataclass
from reconciler.state.store.base import Base

_MOST = 10_000


@dataclass(frozen=True, slots=True)
class Deed:
    """One step that came to its end. ``wall`` is in seconds since the epoch.

    ``by``: ``loop``, ``cron``, ``systemd``, ``person`` or ``program``. ``freed`` is in bytes, by
    what keeps files for so long only.
    """

    wall: float
    by: str
    id: str
    verb: str
    result: str
    why: str
    error: str | None
    seconds: float
    freed: int | None = None


class History:
    """The table of what was done; see Base for what its methods raise."""

    def __init__(self, base: Base) -> None:
        self._base = base

    def add(self, deeds: Sequence[Deed], instead: Sequence[Deed] = ()) -> None:
        """Those that were done now, ``instead`` of others; the oldest of many are dropped."""
        with self._base.change() as base:
            base.executemany(
                "DELETE FROM history WHERE seq = (SELECT max(seq) FROM history "
                "WHERE wall = ? AND id = ? AND verb = ? AND result = ?)",
                [(d.wall, d.id, d.verb, d.result) for d in instead],
            )
            base.executemany(
                "INSERT INTO history (wall, by, id, verb, result, why, error, seconds, freed) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (d.wall, d.by, d.id, d.verb, d.result, d.why, d.error, d.seconds, d.freed)
                    for d in deeds
                ],
            )
            base.execute(
                "DELETE FROM history WHERE seq <= (SELECT max(seq) FROM history) - ?", (_MOST,)
            )

    def begun(self) -> dict[str, float]:
        """When the oldest deed was done that is known, by id."""
        return dict(self._base.read("SELECT id, min(wall) FROM history GROUP BY id"))

    def since(self, wall: float, most: int = _MOST) -> list[Deed]:
        """The newest ``most`` since that time, oldest first."""
        rows = self._base.read(
            "SELECT wall, by, id, verb, result, why, error, seconds, freed FROM history "
            "WHERE wall >= ? ORDER BY seq DESC LIMIT ?",
            (wall, most),
        )
        return [Deed(*row) for row in reversed(rows)]
