"""Since when something has been wrong with a thing that is there, such as a process too large.

It must not decide for how long that may be.
"""

from __future__ import annotations

from collections.abc import Collection

from reconciler.state.store.base import Base

Condition = tuple[str, str, str]
"""The id, what is wrong, and with which of them (a process that was started anew is another)."""


class Conditions:
    """The table of conditions; see Base for what its methods raise."""

    def __init__(self, base: Base) -> None:
        self._base = base

    def all(self) -> dict[Condition, float]:
        """How long each has lasted, in seconds; those from before this boot are over."""
        rows = self._base.read("SELECT id, what, of, boot, at FROM conditions")
        found = {}
        for ident, what, of, boot, at in rows:
            age = self._base.age(boot, at)
            if age is not None:
                found[ident, what, of] = age
        return found

    def note(self, begun: Collection[Condition], over: Collection[Condition]) -> None:
        """Those that have begun now, and those that are over."""
        now = self._base.clock.monotonic()
        with self._base.change() as base:
            for one in over:
                base.execute("DELETE FROM conditions WHERE id = ? AND what = ? AND of = ?", one)
            for ident, what, of in begun:
                base.execute(
                    "INSERT OR REPLACE INTO conditions (id, what, of, boot, at) "
                    "VALUES (?, ?, ?, ?, ?)",
                    (ident, what, of, self._base.boot, now),
                )
