"""How often something was tried in vain.

It must not decide what follows from that.
"""

from __future__ import annotations

from reconciler.base.records import dataclass
from reconciler.state.store.base import Base


@dataclass(frozen=True, slots=True)
class Attempt:
    """Starts of a resource that were not forgiven yet.

    ``version`` says what was started. ``since`` is the age of the last one in seconds, None when
    it was made before this boot. ``behind``: it ended at once, and left behind what it had started.
    """

    version: str
    count: int
    since: float | None
    behind: bool = False


class Attempts:
    """The table of attempts; see Base for what its methods raise."""

    def __init__(self, base: Base) -> None:
        self._base = base

    def all(self) -> dict[str, Attempt]:
        """Those that were not forgiven, by id."""
        rows = self._base.read("SELECT id, version, count, boot, at, behind FROM attempts")
        return {
            ident: Attempt(version, count, self._base.age(boot, at), bool(behind))
            for ident, version, count, boot, at, behind in rows
        }

    def begun(self, ident: str, version: str, least: int, at: float) -> None:
        """A start was made ``at`` that moment of the monotonic clock.

        The first one counts only when it ``failed``: what has come up once is started again at
        once when it ends. It is the ``least``-th at least, after those that were not written.
        """
        with self._base.change() as base:
            base.execute("DELETE FROM attempts WHERE id = ? AND version != ?", (ident, version))
            base.execute(
                "INSERT INTO attempts (id, version, count, boot, at) "
                "VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
                "count = max(count + 1, excluded.count), boot = excluded.boot, at = excluded.at, "
                "behind = NULL",
                (ident, version, least, self._base.boot, at),
            )

    def failed(self, ident: str, behind: bool = False) -> None:
        """The start that was made did not even come up; see ``Attempt`` for ``behind``."""
        with self._base.change() as base:
            base.execute(
                "UPDATE attempts SET count = max(count, 1), behind = ? WHERE id = ?",
                (behind, ident),
            )

    def seen_running(self, ident: str) -> None:
        """It runs, and its last attempt was made before this boot: its age counts from now."""
        with self._base.change() as base:
            base.execute(
                "UPDATE attempts SET boot = ?, at = ? WHERE id = ?",
                (self._base.boot, self._base.clock.monotonic(), ident),
            )

    def forgive(self, ident: str) -> None:
        """It stayed healthy, or nobody wants it any more."""
        with self._base.change() as base:
            base.execute("DELETE FROM attempts WHERE id = ?", (ident,))
