"""What the probes of each check have said last.

It must not decide what follows from that, nor hold anything but the words of a verdict.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from reconciler.core.model import ProbeHistory
from reconciler.state.store.base import Base


class CheckTable:
    """The table of checks; see Base for what its methods raise."""

    def __init__(self, base: Base) -> None:
        self._base = base

    def all(self) -> dict[str, ProbeHistory]:
        """What was said last, by id; what was said before this boot has no age."""
        rows = self._base.read(
            "SELECT id, version, result, failures, acted, reason, since, wall, boot, at, seconds "
            "FROM checks"
        )
        found = {}
        for ident, version, result, failures, acted, reason, since, wall, boot, at, seconds in rows:
            age = self._base.age(boot, at)
            found[ident] = ProbeHistory(
                version, result, failures, acted, reason, since, wall, age, seconds
            )
        return found

    def say(self, found: Mapping[str, ProbeHistory]) -> None:
        """These were said now; a verdict's ``age`` says how long ago."""
        now = self._base.clock.monotonic()
        with self._base.change() as base:
            for ident, said in found.items():
                base.execute(
                    "INSERT OR REPLACE INTO checks (id, version, boot, at, wall, result, failures, "
                    "acted, reason, since, seconds) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (ident, said.version, self._base.boot, now - (said.age or 0.0), said.wall,
                     said.result, said.failures, said.acted, said.reason, said.since,
                     said.seconds),
                )  # fmt: skip

    def acted(self, ids: Collection[str]) -> None:
        """What is to be done about these is being done; their failures count anew from now."""
        with self._base.change() as base:
            for ident in ids:
                base.execute(
                    "UPDATE checks SET failures = 0, acted = acted + 1 WHERE id = ?", (ident,)
                )

    def forget(self, ids: Collection[str]) -> None:
        """Nobody wants to know any more."""
        with self._base.change() as base:
            for ident in ids:
                base.execute("DELETE FROM checks WHERE id = ?", (ident,))
