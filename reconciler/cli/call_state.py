"""What one call remembers: of its spec from pass to pass, and of what it has said and learned.

It must not look at the host, nor act on it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

from reconciler import kinds
from reconciler.base.errors import HostError
from reconciler.base.records import dataclass, replace
from reconciler.base.text import printable
from reconciler.cli.invocation import Invocation
from reconciler.host.clock import Clock
from reconciler.host.environment import on_note

if TYPE_CHECKING:
    import argparse

    from reconciler.base.values import ProbeHistory
    from reconciler.core.kind import GetKind
    from reconciler.core.model import Spec
    from reconciler.host.process_snapshot import Carrier, CarrierCache
    from reconciler.host.processes import Identity
    from reconciler.host.stops import Stopping
    from reconciler.output.text import Block
    from reconciler.state.restarts import Unwritten
    from reconciler.state.store import Store
    from reconciler.state.tracker import Tracker

_LONGEST = 4000
_PATTERNS = 200
"""Compiled patterns of which a loop learns no more: it keeps some hundreds."""
APPLYING = ("once", "loop", "repair")
"""The modes that apply a spec: what they set is the spec's for every later call."""


def _number_of_patterns() -> int:
    """How many patterns ``re`` keeps compiled, as far as it lets us see them."""
    return len(getattr(re, "_cache", ()))


def _patterns_since(number: int) -> list[tuple[str | bytes, int]]:
    """Those that it has compiled since there were so many, with their flags. The others are not
    touched: in a child each of them would be copied."""
    kept = islice(reversed(getattr(re, "_cache", {})), max(0, _number_of_patterns() - number))
    return [(pattern, int(flags)) for _, pattern, flags in kept]


@dataclass(frozen=True, slots=True)
class Learned:
    """What a call knows after a pass that it did not know before, for another process.

    ``acted`` names the probes of which something was done about what they said; ``reports`` are
    those that nobody was told. ``carriers`` are, by user, those of the new processes, and who is
    gone. ``patterns`` are those that were compiled, with their flags.
    """

    begun: frozenset[str]
    unwritten: Mapping[str, Unwritten | None]
    warned: frozenset[str]
    measured: Mapping[Any, Any]
    acted: tuple[str, ...]
    reports: tuple[str, ...]
    carriers: Mapping[int, tuple[Mapping[Identity, Carrier | None], Collection[Identity]]]
    patterns: Collection[tuple[str | bytes, int]] = ()


class CallState(Invocation):
    """An invocation, the state of its spec, and what has become known in this call."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        self.clock = Clock()
        """By which all of this call goes: look, plan, attempts, pauses and messages."""
        self.get_kind: GetKind = kinds.get
        self._warned: set[str] = set()
        self._begun: set[str] = set()
        self._unwritten: dict[str, Unwritten] = {}
        self._reports: list[str] = []
        self._stores: dict[tuple[str, bool], Store] = {}
        self._refused: dict[str, HostError] | None = None
        """Why stores cannot be read, where one is asked for once."""
        self._trackers: dict[str, Tracker] = {}
        self._measured: dict[Any, Any] = {}
        self._carriers: CarrierCache = {}
        self._locked = False
        self.said: dict[str, ProbeHistory] = {}
        """What probes have said in this call."""
        self.stops: Stopping | None = None
        """Makes the stops that a loop does not wait for."""
        self._notes: list[str] | None = []
        on_note(self._note)

    def _note(self, text: str) -> None:
        """Say what was not believed, once it is known which spec this is about."""
        if self._notes is not None:
            self._notes.append(text)
        elif not self.options.quiet:
            self.warn(text)

    def _say_whose(self, spec: Spec) -> None:
        """Say that a look is by another file than the one whose state this is."""
        if self.options.mode in ("plan", "status", "diagnose"):
            with suppress(HostError):
                before = self._before(self.folder(spec), spec.path)
                if before is not None:
                    self._note(f"the state of {spec.name} is that of {before}, another file")

    def recover(self, spec: Spec) -> None:
        """Settle what one who was killed has left, and remember what this call is about.

        Only for one who holds the lock.
        """
        from reconciler.host.spec_files import known_as
        from reconciler.state import folder as state

        folder, ours = self.folder(spec), known_as(spec.path)
        self._locked = True
        known = state.known_spec(folder)
        taken_over = known != ours and self._path == spec.path
        if known is None or taken_over or (known == ours and not state.knows_volume(folder)):
            self._remember("which spec the state belongs to", state.remember_spec, folder, ours)
        if self.options.saved is None:
            self.remember_variables(spec)
        if state.interrupted(folder):
            from reconciler.state.store.base import roll_back

            roll_back(folder)
        if os.path.exists(os.path.join(folder, "replaced")):
            from reconciler.host.replaced import settle

            for words in settle(folder):
                self.warn(words)
        self._remember("what must not be shown", state.mark_secrets, folder)

    def remember_variables(self, spec: Spec) -> None:
        """What was set is the spec's from now on, where the whole of it is applied."""
        from reconciler.state.folder import remember_variables

        partly = self.options.only or spec.last_good or self._guest
        if self.options.mode in APPLYING and not partly:
            folder, values = self.folder(spec), dict(spec.variables)
            self._remember("the variables", remember_variables, folder, values)

    def _remember(self, what: str, keep: Callable[..., None], *values: Any) -> None:
        try:
            keep(*values)
        except (OSError, HostError) as error:
            self.warn(f"cannot remember {what}: {error}")

    def tracker(self, spec: Spec, writes: bool) -> Tracker:
        """What is remembered. ``writes``: it may be added to, by one who holds the lock."""
        from reconciler.state.tracker import Tracker

        folder = self.folder(spec)
        which = folder, writes or self._locked
        store = self._stores.get(which)
        if store is None and (writes or self._unwritten or not self.is_quiet(spec)):
            store = self.store(spec, which[1])
        if folder not in self._trackers:
            self._trackers[folder] = Tracker(
                (), self.get_kind, None, self.warn, self._begun, lambda: self.by, self.clean,
                self.said, self._unwritten,
            )  # fmt: skip
        tracker = self._trackers[folder]
        tracker.take(spec.resources, store)
        return tracker

    def is_quiet(self, spec: Spec) -> bool:
        """Is there nothing in the store that a pass would have to look at?"""
        from reconciler.state.folder import quiet

        return quiet(self.folder(spec))

    def is_silent(self, spec: Spec) -> bool:
        """Is there nothing either that this call has to say or to write?"""
        return not (self._reports or self._unwritten) and self.is_quiet(spec)

    def store(self, spec: Spec, writes: bool) -> Store:
        """The store of that spec, opened once for looking and once for more.

        Raises Newer or Unreadable.
        """
        folder = self.folder(spec)
        refused = self._refused or {}
        if folder in refused:
            raise refused[folder]
        if (folder, writes) not in self._stores:
            from reconciler.state.store import Store

            store = Store(folder, self.clock, writes)
            # Before anything is done by what it says, or without it.
            try:
                store.base.refuse_unreadable()
            except HostError as error:
                if self._refused is not None:
                    self._refused[folder] = error
                raise
            self._stores[folder, writes] = store
        return self._stores[folder, writes]

    def close(self, spec: Spec) -> None:
        """Let go of the stores of that spec, which is about to lose its state directory."""
        folder = self.folder(spec)
        for key in [key for key in self._stores if key[0] == folder]:
            self._stores.pop(key).close()

    def begin_anew(self) -> None:
        """In a child that is there for one look: what is open, and was said, is its parent's."""
        self._stores, self._trackers, self._warned, self._refused = {}, {}, set(), {}

    @cached_property
    def by(self) -> str:
        """Who has called, for the history."""
        from reconciler.host.users import caller

        return "loop" if self.options.mode == "loop" else caller()

    def clean(self, text: str) -> str:
        """The text without secrets, and without what cannot be printed."""
        return printable(text, _LONGEST)

    def warn(self, text: str) -> None:
        """Tell people what went wrong beside the work, once a call."""
        # It may have been said with what follows from it.
        if not any(said.startswith(text) for said in self._warned):
            self._warned.add(text)
            self.terminal.write([(f"  ! {printable(text)}", "bad")])

    def forked(self, write: Callable[[Sequence[Block]], None], stops: Stopping) -> None:
        """This is another process now: what it says goes to ``write``, and it must not touch what
        the store has open, which is its parent's."""
        self._of_parent = (
            self._stores, dict(self.said), dict(self._unwritten), dict(self._carriers),
            _number_of_patterns(),
        )  # fmt: skip
        self._stores, self._trackers = {}, {}
        self.terminal.relay = write
        self.stops = stops

    def learned(self) -> Learned:
        """What has become known since this process was ``forked``."""
        _, said, unwritten, carriers, patterns = self._of_parent
        acted = [i for i, one in self.said.items() if i in said and one.acted > said[i].acted]
        changed = {
            ident: self._unwritten.get(ident)
            for ident in unwritten.keys() | self._unwritten.keys()
            if self._unwritten.get(ident) != unwritten.get(ident)
        }
        moved = {}
        for uid, now in self._carriers.items():
            old = carriers.get(uid, {})
            if now is not old:
                new = {one: found for one, found in now.items() if one not in old}
                moved[uid] = new, old.keys() - now.keys()
        return Learned(
            frozenset(self._begun), changed, frozenset(self._warned), self._measured,
            tuple(acted), tuple(self._reports), moved, _patterns_since(patterns),
        )  # fmt: skip

    def learn_from(self, learned: Learned) -> None:
        """Know what a process knows that was forked from this one."""
        self._begun |= learned.begun
        for ident, attempt in learned.unwritten.items():
            if attempt is None:
                self._unwritten.pop(ident, None)
            else:
                self._unwritten[ident] = attempt
        self._warned |= learned.warned
        self._measured.update(learned.measured)
        for ident in learned.acted:
            one = self.said[ident]
            self.said[ident] = replace(one, failures=0, acted=one.acted + 1)
        self._reports[:0] = learned.reports
        for uid, (new, gone) in learned.carriers.items():
            known = {one: it for one, it in self._carriers.get(uid, {}).items() if one not in gone}
            self._carriers[uid] = {**known, **new}
        if _number_of_patterns() < _PATTERNS:
            for pattern, flags in learned.patterns:
                re.compile(pattern, flags)

    def handed_over(self) -> list[str]:
        """The words of ``report`` that wait for a pass, which another process tells now."""
        reports, self._reports = self._reports, []
        return reports

    def reports_untold(self, reports: Sequence[str]) -> None:
        """They were not sent after all."""
        self._reports[:0] = reports

    def report(self, words: str, action: str = "none is needed") -> None:
        """Something about the program itself, for the messages of the next pass."""
        from reconciler.core.messages import in_parts

        status, _, evidence = words.partition("\n")
        self._reports.append(in_parts(status.removesuffix(":"), action, evidence))
