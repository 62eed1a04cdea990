"""The tables of the store, but for those of messages; see ``Base`` for what they raise.

They must not decide what follows from what they hold.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from reconciler.base.records import dataclass, names
from reconciler.base.values import ProbeHistory
from reconciler.host.clock import Clock
from reconciler.state.store.base import Base, StoreTable

if TYPE_CHECKING:
    from reconciler.core.model import Step
    from reconciler.state.store.journal import Journal
    from reconciler.state.store.outbox import Outbox, ReportTable, SentMessages, Troubles

_MOST = 10_000
"""Steps that are remembered."""
_NONE: Mapping[str, float] = {}
_DEED = "wall, by, id, verb, result, why, error, seconds, freed, pass"
Condition = tuple[str, str, str]
"""The id, what is wrong, and with which of them (a process that was started anew is another)."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """Starts of a resource that were not reset yet.

    ``version`` says what was started. ``since`` is the age of the last one in seconds, None when
    it was made before this boot. ``behind``: it ended at once, and left behind what it had started.
    """

    version: str
    count: int
    since: float | None
    behind: bool = False


class Attempts(StoreTable):
    """How often something was started without success."""

    def all(self) -> dict[str, Attempt]:
        """Those that were not reset, by id."""
        rows = self._base.read("SELECT id, version, count, boot, at, behind FROM attempts")
        return {
            ident: Attempt(version, count, self._base.age(boot, at), bool(behind))
            for ident, version, count, boot, at, behind in rows
        }

    def begun(self, ident: str, version: str, least: int, at: float, counts: bool = True) -> None:
        """A start was made ``at`` that moment of the monotonic clock.

        The first one counts only when it ``failed``: what has come up once is started again at
        once when it ends. It is the ``least``-th at least, after those that were not written. It
        ``counts`` unless nothing has failed before it.
        """
        with self._base.change() as base:
            base.execute("DELETE FROM attempts WHERE id = ? AND version != ?", (ident, version))
            base.execute(
                "INSERT INTO attempts (id, version, count, boot, at) "
                "VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
                "count = max(count + ?, excluded.count), boot = excluded.boot, at = excluded.at, "
                "behind = NULL",
                (ident, version, least, self._base.boot, at, counts),
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

    def reset(self, ident: str) -> None:
        """It stayed healthy, or nobody wants it any more."""
        with self._base.change() as base:
            base.execute("DELETE FROM attempts WHERE id = ?", (ident,))


class Conditions(StoreTable):
    """Since when something has been wrong with a thing that is there, such as a process."""

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


class CheckTable(StoreTable):
    """What the probes of each check have said last."""

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


@dataclass(frozen=True, slots=True)
class Pause:
    """``wall`` and ``until`` are in seconds since the epoch; None: until it is resumed."""

    id: str
    reason: str
    wall: float
    until: float | None
    by: str


class Pauses(StoreTable):
    """What is left alone until it is resumed; may be changed without the lock."""

    def __init__(self, base: Base) -> None:
        super().__init__(base)
        self.known: dict[str, Pause] = {}
        """Those that were read last."""
        self.over = False
        """Is there one whose time is over, as of that?"""

    def all(self) -> dict[str, Pause]:
        """Those that are not over, by id. They hold over reboots, so they go by the wall clock."""
        now = self._base.clock.wall()
        rows = self._base.read("SELECT id, reason, wall, until, by FROM pauses ORDER BY id")
        found = {row[0]: Pause(*row) for row in rows}
        self.known = {i: p for i, p in found.items() if p.until is None or p.until > now}
        self.over = len(self.known) < len(found)
        return self.known

    def forget_over(self) -> None:
        """Forget those whose time is over: each pass would look at them."""
        with self._base.change() as base:
            base.execute("DELETE FROM pauses WHERE until <= ?", (self._base.clock.wall(),))
        self.over = False

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


@dataclass(frozen=True, slots=True)
class Deed:
    """One step that came to its end. ``wall`` is in seconds since the epoch.

    ``by``: ``loop``, ``cron``, ``systemd``, ``person`` or ``program``. ``freed`` is in bytes, by
    what keeps files for so long only. ``number`` is that of its pass.
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
    number: int | None = None


class Deeds:
    """A step that was done and did not hold is one deed, which failed."""

    def __init__(self) -> None:
        self._new: list[Deed] = []
        self._done: dict[str, tuple[Step, Deed]] = {}
        self._undone: list[Deed] = []

    def keep(self, step: Step, deed: Deed) -> None:
        """What became of a step."""
        done, before = self._done.pop(deed.id, (None, None))
        if before is not None and done is step:
            if before in self._new:
                self._new.remove(before)
            else:
                self._undone.append(before)
        if deed.result == "done":
            self._done[deed.id] = step, deed
        self._new.append(deed)

    def __bool__(self) -> bool:
        return bool(self._new)

    def taken(self) -> tuple[Sequence[Deed], Sequence[Deed]]:
        """What is to be written now, and what has been written as done and did not hold."""
        new, self._new = self._new, []
        undone, self._undone = self._undone, []
        return new, undone


class History(StoreTable):
    """What was done, when, why, by whom, and with which result."""

    def add(
        self, deeds: Sequence[Deed], instead: Sequence[Deed] = (), number: int | None = None
    ) -> None:
        """Those that the pass of that ``number`` has done now, ``instead`` of others; the oldest of
        many are dropped."""
        with self._base.change() as base:
            base.executemany(
                "DELETE FROM history WHERE seq = (SELECT max(seq) FROM history "
                "WHERE wall = ? AND id = ? AND verb = ? AND result = ?)",
                [(d.wall, d.id, d.verb, d.result) for d in instead],
            )
            rows = [(*(getattr(one, name) for name in names(one)[:-1]), number) for one in deeds]
            base.executemany(
                f"INSERT INTO history ({_DEED}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows
            )
            base.execute(
                "DELETE FROM history WHERE seq <= (SELECT max(seq) FROM history) - ?", (_MOST,)
            )
            base.executemany(
                "INSERT INTO counts (id, verb, result, number) VALUES (?, ?, ?, 1) "
                "ON CONFLICT (id, verb, result) DO UPDATE SET number = number + 1",
                [(d.id, d.verb, d.result) for d in deeds],
            )

    def counts(self) -> list[tuple[Any, ...]]:
        """How many steps there ever were: id, verb, result and number, which only grows."""
        order = "ORDER BY id, verb, result"
        return self._base.read(f"SELECT id, verb, result, number FROM counts {order}")

    def latest(self) -> list[Deed]:
        """The newest of each id."""
        newest = "SELECT max(seq) FROM history GROUP BY id"
        rows = self._base.read(f"SELECT {_DEED} FROM history WHERE seq IN ({newest})")
        return [Deed(*row) for row in rows]

    def begun(self) -> dict[str, float]:
        """When the oldest deed was done that is known, by id."""
        return dict(self._base.read("SELECT id, min(wall) FROM history GROUP BY id"))

    def ran(
        self, ids: Collection[str], since: float, others: Mapping[str, float] = _NONE
    ) -> dict[str, float]:
        """Of those that were started just now, the ones that had been started before, and when.

        Only what was started after ``since``, and what nobody has ended, paused or resumed; of
        what is started for the first time ``others`` has who else's start it was.
        """
        if not ids:
            return {}
        deeds: dict[str, list[tuple[str, str, float]]] = {ident: [] for ident in ids}
        rows = self._base.read("SELECT id, verb, result, wall FROM history ORDER BY seq DESC")
        for ident, *deed in rows:
            if ident in ids and len(deeds[ident]) < 2:
                deeds[ident].append((deed[0], deed[1], deed[2]))
        last = {ident: known[1] for ident, known in deeds.items() if len(known) == 2}
        first = {ident: others[ident] for ident in others if ident in deeds and ident not in last}
        return first | {
            ident: wall
            for ident, (verb, result, wall) in last.items()
            if verb in ("start", "restart") and result == "done" and wall >= since
        }

    def since(self, wall: float, most: int = _MOST) -> list[Deed]:
        """The newest ``most`` since that time, oldest first."""
        rows = self._base.read(
            f"SELECT {_DEED} FROM history WHERE wall >= ? ORDER BY seq DESC LIMIT ?",
            (wall, most),
        )
        return [Deed(*row) for row in reversed(rows)]


class Store:
    """The store of one spec, table by table.

    ``writes``: the caller holds the lock, and may set a damaged file aside. Pauses may be
    changed without it.
    """

    def __init__(self, folder: str, clock: Clock, writes: bool, base: Base | None = None) -> None:
        self.base = base or Base(folder, clock, writes)
        self.attempts = Attempts(self.base)
        self.checks = CheckTable(self.base)
        self.conditions = Conditions(self.base)
        self.history = History(self.base)
        self.pauses = Pauses(self.base)

    @cached_property
    def reports(self) -> ReportTable:
        """When which reports were made."""
        from reconciler.state.store.outbox import ReportTable

        return ReportTable(self.base)

    @cached_property
    def journal(self) -> Journal:
        """What passes did, for ``--undo``."""
        from reconciler.state.store.journal import Journal

        return Journal(self.base)

    @cached_property
    def outbox(self) -> Outbox:
        """Messages on their way, which most passes have none of."""
        from reconciler.state.store.outbox import Outbox

        return Outbox(self.base)

    @cached_property
    def sent(self) -> SentMessages:
        """How many messages went out lately."""
        from reconciler.state.store.outbox import SentMessages

        return SentMessages(self.base)

    @cached_property
    def troubles(self) -> Troubles:
        """What people know is wrong."""
        from reconciler.state.store.outbox import Troubles

        return Troubles(self.base)

    def close(self) -> None:
        """Let go of the file."""
        self.base.close()
