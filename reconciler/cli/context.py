"""One call of the command: the spec that it names, and a pass over the host.

It must not decide what a mode does, nor what its exit status is.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from reconciler import kinds
from reconciler.base.errors import HostError
from reconciler.base.records import replace
from reconciler.base.text import hide, hide_marked, redacted_json
from reconciler.cli.call_state import CallState
from reconciler.cli.invocation import InvalidUsage, no_such
from reconciler.core.kind import Ageing
from reconciler.core.observe import Snapshot

if TYPE_CHECKING:
    import argparse

    from reconciler.config.isolated import Loading
    from reconciler.core.model import Observation, Outcome, Report, Spec
    from reconciler.host import Host
    from reconciler.host.processes import Identity
    from reconciler.notify.reports import Reports
    from reconciler.notify.sender import Sender
    from reconciler.output.text import Line
    from reconciler.state.store import Store
    from reconciler.watchdog.requests import Answer


_NONE: Mapping[str, Identity] = {}
_PATIENCE = 5.0
"""Seconds for which one who still writes the spec is waited for."""
ACTING = ("once", "loop", "repair", "pause", "resume", "undo", "uninstall")
"""The modes that act by the spec, and so must not take half of one."""
MOST_ROUNDS = 100
"""Short passes behind one, for what one step does only a part of."""


class Context(CallState):
    """One call of the command, and what follows from its options."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        self.acted = False
        """Has anything been done in this call?"""
        self.answer: Answer | None = None
        """What the loop has answered that was asked for a pass, where it has acted in it."""
        self.carried: Sequence[Outcome] = ()
        """What was done in this call by a process that hung then, and whose work this one does."""
        self.carry: Callable[[Outcome], None] = lambda outcome: None
        """Hears of what is done, for the next one, should this process hang."""

    def load(self, write_cache: bool = False, complete: bool = False) -> Spec:
        """The spec that was asked for. Raises SpecError, BeingWritten or Usage."""
        from reconciler.config import load

        patience = _PATIENCE if self.options.mode in ACTING else None
        strict = self.options.mode == "check"
        spec = load(
            **self._to_load(patience), write_cache=write_cache, complete=complete, strict=strict
        )
        return self.known(spec)

    def load_isolated(self, patience: float = _PATIENCE) -> Loading:
        """The same, whole, loaded by a child; what it gives goes through ``known``."""
        from reconciler.config.isolated import Loading

        return Loading(partial(self._to_load, patience), InvalidUsage)

    def _to_load(self, patience: float | None) -> dict[str, Any]:
        return {
            "path": self.spec_path(), "all_kinds": kinds.all_kinds, "facts": self.facts(),
            "settings": self.settings, "environ": os.environ,
            "state_dir": self.state_dir, "patience": patience, "placed": self.options.placed,
        }  # fmt: skip

    def last_good(self) -> Spec | None:
        """What goes on of the spec as it was compiled last; None: nothing that is to be trusted."""
        from reconciler.config import cache
        from reconciler.config.last_good import reduced

        inputs = self.inputs()
        spec = cache.last_good(cache.file_name(self.state_dir, inputs), inputs)
        return None if spec is None else self.known(reduced(spec))

    def known(self, spec: Spec) -> Spec:
        """The spec, whose secrets are not printed from now on."""
        if spec.secrets:
            hide(secret.reveal() for secret in spec.secrets)
        from reconciler.state.folder import secret_marks

        hide_marked(partial(secret_marks, os.path.join(self.state_dir, spec.name)))
        notes, self._notes = self._notes or (), None
        if notes or (self.options.quiet and self.options.mode != "loop"):
            # Should something be said after all, this is what it is about.
            self.terminal.head(self.heading(spec))
        for text in notes:
            self._note(text)
        self._say_whose(spec)
        return spec

    def heading(self, spec: Spec) -> Line:
        """Which spec this is about, on which host."""
        from reconciler.output.text import given, heading

        return heading(spec.name, spec.path, os.uname().nodename, given(self.about(spec)))

    def head(self, spec: Spec) -> None:
        """Say that, unless people asked for quiet, before whatever is said next."""
        if not self.options.quiet:
            self.terminal.head(self.heading(spec))

    def host(self, spec: Spec) -> Host:
        """This machine, as that spec sees it."""
        from reconciler.host import Host

        host = Host(spec.name, self.folder(spec), self.clock, self._measured, self._carriers)
        host.declared, host.spec_path = spec.resources, spec.path
        host.stops = self.stops
        host.remembers = self._locked
        return host

    def look(
        self,
        spec: Spec,
        host: Host,
        only: Sequence[str] | None = None,
        within: float | None = None,
    ) -> Snapshot:
        """Look at the host, and plan.

        ``only`` is by default what ``--only`` says. The spec comes back with what it has left on
        the host and no more declares, unless only a part was asked for. ``within`` so many
        seconds it ends whatever hangs: what has not answered by then is unknown. Raises Usage
        for an ``only`` that matches nothing.
        """
        from reconciler.core.observe import begin

        if only is None:
            only = self.options.only
        host.forget()
        self._trusted.clear()
        if not only and within is None:
            begin(spec.resources, self.get_kind, host)
        try:
            return self._look(spec, host, only, within)
        finally:
            host.let_go()

    def _look(self, spec: Spec, host: Host, only: Sequence[str], within: float | None) -> Snapshot:
        from reconciler.core.observe import judged, observe, with_orphans
        from reconciler.core.plan import chosen, looked_at

        tracker = self.tracker(spec, False)
        tracker.refresh()
        host.said = tracker.said()
        if not only and within is not None:
            from reconciler.core.isolated import look_isolated

            spec, seen = look_isolated(spec, self.get_kind, host, within)
        elif not (only or self._guest):
            spec = with_orphans(spec, self.get_kind, host)
        try:
            resources = chosen(spec, only)
        except KeyError as error:
            raise InvalidUsage(no_such(error.args[0], spec)) from None
        looked = looked_at(spec, resources, self.get_kind) if only else resources
        if within is None:
            seen = observe(looked, self.get_kind, host, fresh=False)
        elif only:
            from reconciler.core.isolated import observe_isolated

            seen = observe_isolated(looked, self.get_kind, host, within)
        if only:
            seen = {one.id: seen[one.id] for one in resources if one.id in seen}
        past = tracker.past(seen)
        plan, known = judged(spec, resources, seen, self.get_kind, host, past, part=bool(only))
        return Snapshot(spec, plan, known, tuple(only))

    def act(
        self,
        look: Snapshot,
        host: Host,
        on_outcome: Callable[[Outcome], None],
        stopping: Callable[[], bool] = lambda: False,
        settle: bool = True,
        remember: bool = True,
        turn: Callable[[Collection[str]], bool] = lambda ids: False,
        after: dict[str, Observation[Any]] | None = None,
        rounds: int = MOST_ROUNDS,
    ) -> Report:
        """Do what the plan says. Raises SpecError when the spec is broken by now, and Usage.

        The compiled spec holds no secrets; with something to be done it is compiled once more,
        and the plan is made anew. ``settle`` False: what must hold for a while is not waited for.
        ``remember`` False: the caller does not hold the lock. ``turn`` and ``after``: see
        ``apply``. What the steps themselves have made wrong, such as the mode of a file that is
        new, is fixed in short passes behind them, at most so many ``rounds``.
        """
        from reconciler.core.plan import to_do_again, to_look_at_again

        if not look.spec.complete:
            look = self.look(self.load(complete=True), host, look.only)
        from reconciler.state.folder import mark_secrets
        from reconciler.undo.journal import journal_of

        self._remember("what must not be shown", mark_secrets, self.folder(look.spec))
        tracker = self.tracker(look.spec, remember)
        journal = journal_of(tracker, self.get_kind, host)
        early: list[Outcome] = []

        def ended(outcomes: Sequence[Outcome]) -> None:
            # What was dropped may be done yet.
            early.extend(one for one in outcomes if one.result == "dropped" and one.moved)
            over = [one for one in outcomes if one not in early]
            journal.ended(over)
            tracker.ended(over)
            for one in over:
                on_outcome(one)

        def acted(look: Snapshot, again: bool = False) -> Report:
            from reconciler.core.apply import apply

            journal.intends(look)
            verbs = {one.verb for one in look.plan.steps}
            if remember and (self.options.mode != "loop" or verbs != {"start"}):
                tracker.intends()  # Else nothing waits for the disk.
            return apply(
                look.plan, look.spec, self.get_kind, host, ended, stopping, tracker.begins,
                settle, again, turn, after, journal.begins, (look.begun, look.seen),
            )  # fmt: skip

        self.acted = True
        try:
            report = acted(look)
            spec, seen, last = look.spec, look.seen, report
            moves = sum(isinstance(self.get_kind(one.kind), Ageing) for one in spec.resources)
            for number in range(rounds):
                again = to_look_at_again(look.seen, spec.resources, last, self.get_kind)
                # Rules that move files to one another come to no end.
                again = again if number <= moves else []
                again = [ident for ident in again if ident not in report.failed_ids]
                spec, again = to_do_again(spec, again, seen, last, self.get_kind)
                if not again or stopping():
                    break
                dropped = {outcome.step.id for outcome in early}.intersection(again)
                early[:] = [outcome for outcome in early if outcome.step.id not in dropped]
                report = report.without(dropped)
                more = self.look(spec, host, again)
                # What they need has had its turn.
                steps = tuple(step for step in more.plan.steps if step.id in again)
                more = replace(more, plan=replace(more.plan, steps=steps))
                last, seen = acted(more, again=True), more.seen
                report = report.followed(last, seen)
            tracker.ended(early)
            for outcome in early:
                on_outcome(outcome)
        finally:
            tracker.flush(last=True)
        for end in host.last:
            end()
        return report

    def learn(self, look: Snapshot, host: Host) -> float | None:
        """Remember what was seen, and bound our own logs; seconds until something is due."""
        if not look.only:
            self._trim_logs(look.spec, host)
        host.walltime.note()
        if self.is_quiet(look.spec) and not self._unwritten:
            from reconciler.state.tracker import has_ailments

            if not has_ailments(look.seen):
                return None
        tracker = self.tracker(look.spec, True)
        tracker.learn(look.plan, look.seen)
        pauses = tracker.store.pauses if tracker.store is not None else None
        if pauses is not None and pauses.over and host.walltime.doubt() is None:
            with suppress(HostError):  # It is only looked at in vain.
                pauses.forget_over()
        return tracker.due(look.plan, look.seen)

    def _trim_logs(self, spec: Spec, host: Host) -> None:
        folder = os.path.join(host.state_dir, "log")
        own = [
            one
            for one in spec.resources
            if one.kind == "process" and one.want.log is not None and one.present
        ]
        if spec.last_good or not (own or os.path.isdir(folder)):
            return
        from reconciler.host.daemon_log import trim
        from reconciler.kinds.process.actions import bounds

        rules = [one.want for one in spec.resources if one.kind == "retention"]

        def is_rotated(log: str) -> bool:
            return any(rule.rotates and rule.is_about(log) for rule in rules)

        for words in trim(folder, bounds(own, host), is_rotated):
            self.warn(words)

    def tell(
        self, look: Snapshot, outcomes: Sequence[Outcome], last: Mapping[str, Identity] = _NONE
    ) -> None:
        """Queue the messages of a pass; ``post`` delivers them.

        ``last``: by id what is known to have run before, whoever had started it.
        """
        plan, spec = look.plan, look.spec
        nothing = not (outcomes or plan.trouble or self._reports)
        if self.is_quiet(spec) and (nothing or not spec.notify.targets):
            return
        wanted = {one.id for one in spec.resources if one.skip is None}
        store = self.store(spec, True)
        try:
            troubles = store.troubles.all()
            # What flaps is summed up in its time, though nothing happens then.
            if nothing and not (troubles or any(one.flaps for one in store.sent.all().values())):
                return
            from reconciler.notify.outbox import tell
            from reconciler.notify.transitions import News

            whole = not look.only and not spec.last_good
            gone = set(troubles) - wanted if whole else set()
            tracker = self.tracker(spec, True)
            started = {one.step.id for one in outcomes if one.step.verb == "start"}
            booted = self.clock.wall() - self.clock.since_boot()
            before = {one: last[one].began(booted) for one in started & last.keys()}
            ran = store.history.ran(started, booted, before)
            news = News(
                plan, outcomes, look.seen, gone, tracker.unproven(), tracker.waits(), ran,
                partial(self._look_command, spec),
            )  # fmt: skip
            tell(spec, store, news, self._reports, self.clean)
            self._reports.clear()
        except HostError as error:
            self.warn(f"{error}; no message is queued")

    def _look_command(self, spec: Spec) -> str:
        from reconciler.diagnose import command_line

        return command_line(self, spec.path, "--diagnose")

    def post(self, spec: Spec, on_event: Callable[[str, bool], None]) -> Sender:
        """Delivers what is queued for the targets of that spec."""
        from reconciler.notify.sender import Sender

        post = Sender(self.folder(spec), lambda: self.store(spec, True), self.clock, on_event)
        post.adopt(spec.notify)
        return post

    def reports(self, queued: Callable[[], None], on_event: Callable[[str], None]) -> Reports:
        """Makes the reports of a spec that sum up a period."""
        from reconciler.notify.reports import Reports

        def opened(spec: Spec) -> Store:
            return self.store(spec, True)

        return Reports(
            self.clock, self.get_kind, self.host, opened, self.clean, queued, on_event,
            self._diagnosed,
        )  # fmt: skip

    def _diagnosed(self, spec: Spec) -> list[str]:
        """A full diagnosis for a report; the caller is a child that is there for nothing else."""
        from reconciler.diagnose import diagnose
        from reconciler.host.program import versions
        from reconciler.output.diagnosis import diagnosis_blocks
        from reconciler.output.text import lines_of

        self.begin_anew()
        self.terminal.relay = lambda blocks: None
        blocks = diagnosis_blocks(diagnose(self, spec), False)
        return [versions(), "", *(line for line, _ in lines_of(blocks))]

    def write_metrics(self, look: Snapshot, host: Host, outcomes: Sequence[Outcome]) -> None:
        """Write the file of ``loop: {metrics: FILE}``; a warning where that cannot be."""
        from reconciler.cli.commands.metrics import write

        try:
            write(self, look, host, outcomes)
        except HostError as error:
            self.warn(str(error))

    def print_json(self, document: Any) -> None:
        """Print the one document on standard output; each row of a list on one line."""
        from reconciler.output.data import laid_out

        sys.stdout.write(laid_out(redacted_json(document)) + "\n")
