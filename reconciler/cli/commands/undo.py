"""Takes a pass back: what it has changed is made as it was before, in reverse order, and paused.

It must not touch what somebody has changed since, nor begin before the pauses are in effect.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from reconciler import kinds
from reconciler.base.errors import BUSY, DONE, HostError
from reconciler.base.records import replace
from reconciler.base.text import printable
from reconciler.cli.commands.pause import wake, who
from reconciler.cli.context import Context
from reconciler.cli.invocation import InvalidUsage, complain, exit_status
from reconciler.core.kind import Orphans
from reconciler.core.model import Outcome, Report
from reconciler.output import data, text
from reconciler.output.status import moment
from reconciler.state.folder import LockHeld, turn
from reconciler.state.store.journal import undo_lock
from reconciler.undo.plan import Undoing, look_back

if TYPE_CHECKING:
    from reconciler.core.model import Spec
    from reconciler.host import Host
    from reconciler.state.store import Store
    from reconciler.state.store.journal import PassRow


_ROUNDS = 3
_FEW = 20
"""Ids that are named; of more, all that is paused is resumed."""


def run(context: Context) -> int:
    """``--undo``: 1 where something of the pass is not taken back."""
    spec = context.load(complete=True)
    context.claim(spec)
    if context.options.dry:
        return _shown(context, spec)
    with ExitStack() as held:
        if not held.enter_context(undo_lock(context.folder(spec))):
            return complain(f"{spec.name}: another --undo is at work; nothing was done", BUSY)
        loop = False
        try:
            held.enter_context(turn(context.folder(spec), context.warn))
        except LockHeld as taken:
            if taken.loop is None:
                return complain(f"{spec.name}: {taken}; nothing was done", BUSY)
            loop = True
        context.recover(spec)
        return _undone(context, spec, loop)


def _shown(context: Context, spec: Spec) -> int:
    store = context.store(spec, False)
    row, _ = _chosen(context, store)
    if row is None:
        return _nothing(context, spec, store)
    plan = _looked(context, spec, store, row, context.host(spec)).look.plan
    if context.options.json:
        context.print_json({**data.plan_document(plan, context.about(spec)), "undo": _of(row)})
    elif context.options.quiet:
        context.terminal.write(text.remark_lines(plan, False) if plan.trouble else ())
    else:
        lines = text.plan_lines(plan, context.options.verbose)
        context.terminal.write([context.heading(spec), _head(row), *lines])
    return exit_status(plan.trouble, bool(plan.steps), context.options)


def _undone(context: Context, spec: Spec, loop: bool) -> int:
    store = context.store(spec, True)
    row, begun = _chosen(context, store)
    if row is None:
        return _nothing(context, spec, store)
    host, options = context.host(spec), context.options
    found = _looked(context, spec, store, row, host)
    paused = _paused_ids(found, spec)
    tracker = context.tracker(spec, True)
    with store.base.change():
        tracker.number = begun or store.journal.begin(context.by, row.number)
        tracker.goes_on = begun is not None
        for ident in set(paused) - store.pauses.all().keys():
            store.pauses.pause(ident, _reason(row.number), None, who())
    store.journal.kept()
    if loop:
        # What it is at now may have been begun before the pauses were there.
        wake(context, spec, wait=True)
        found = _looked(context, spec, store, row, host)
    look = found.look
    context.say(context.heading(spec), _head(row))
    if not options.quiet or look.plan.trouble:
        context.terminal.write(text.remark_lines(look.plan, options.verbose))

    def show(outcome: Outcome) -> None:
        if not options.quiet or outcome.result == "failed":
            context.terminal.write(text.outcome_lines(outcome))

    outcomes: list[Outcome] = []
    for _ in range(_ROUNDS):
        failed = {one.step.id for one in outcomes if one.result != "done"}
        if failed >= {step.id for step in look.plan.steps}:
            break
        more = context.act(look, host, show, rounds=0).outcomes
        again = failed.intersection(one.step.id for one in more)
        outcomes = [one for one in outcomes if one.step.id not in again] + list(more)
        # What is about files that were moved back can be looked at by now, and a folder from which
        # the draft of a killed pass has gone is empty.
        look = _looked(context, spec, store, row, host).look
    steps = tuple(one.step for one in outcomes)
    report = Report(
        replace(found.look.plan, steps=steps, unknown=look.plan.unknown), tuple(outcomes)
    )
    context.say(*text.report_summary(report))
    if not report.failed:
        if not options.only:  # Else the rest may be wanted as well.
            store.journal.ended(tracker.number)
        if row.undoes is not None:
            # It is as it was before that undo, which has paused it.
            reasons = _reason(row.undoes), _reason(row.number)
            _resume(store, reasons, paused if options.only else None)
            paused = []
    resume = _command(context, spec, paused)
    if paused:
        some = f" and {len(paused) - _FEW} more" if len(paused) > _FEW else ""
        names = ", ".join(map(printable, paused[:_FEW])) + some
        words = f"paused, so that no pass does it again: {names}"
        context.say((words, "change"), (f"manage it again with: {resume}", ""))
    if options.json:
        done = {**_of(row), "number": tracker.number, "paused": paused, "resume": resume}
        context.print_json({**data.report_document(report, context.about(spec)), "undo": done})
    return exit_status(report.failed or look.plan.trouble, report.changed, options)


def _chosen(context: Context, store: Store) -> tuple[PassRow | None, int | None]:
    """The pass that is meant, and the number under which its undoing was begun.

    None: the last pass has taken one back already. Raises InvalidUsage, and HostError where the
    last pass is not in the journal.
    """
    passes, asked = store.journal.passes(), context.options.undo
    begun = {one.undoes: one.number for one in passes.values() if one.undoes and not one.ended}
    if asked:
        number = int(asked)
        if number not in passes:
            known = f"; the last ones are {_last(passes)}" if passes else ""
            raise InvalidUsage(f"pass {number} is not recorded, or has changed nothing{known}")
        return passes[number], begun.get(number)
    lost = store.journal.lost_since()
    if lost is not None:
        raise HostError(f"{_unkept(lost, passes)}; nothing was done")
    if not passes:
        raise InvalidUsage("nothing to undo: no pass that changed something is recorded")
    last = passes[max(passes)]
    if last.undoes is None:
        return last, None
    if last.ended or last.undoes not in passes:
        return None, None
    return passes[last.undoes], last.number


def _unkept(since: float, passes: dict[int, PassRow]) -> str:
    words = (
        f"the last pass, of {moment(since)} or later, is not in the journal: it cannot be undone"
    )
    if not passes:
        return words
    number, row = max(passes.items())
    return f"{words}. The one before it is taken back with --undo {number}: {moment(row.wall)}"


def _last(passes: dict[int, PassRow]) -> str:
    return ", ".join(str(number) for number in sorted(passes, reverse=True)[:5])


def _nothing(context: Context, spec: Spec, store: Store) -> int:
    """The last pass has taken one back: a second time is once."""
    from reconciler.diagnose import command_line

    passes = store.journal.passes()
    last = passes[max(passes)]
    if context.options.json:
        context.print_json(
            {"format": data.FORMAT, "spec": context.about(spec), "undo": _of(last), "steps": []}
        )
    words = f"{spec.name}: pass {last.undoes} was taken back by pass {last.number}"
    lines = [(f"{words} on {moment(last.wall)}; nothing to do", "good")]
    again = command_line(context, spec.path, "--undo", str(last.number))
    lines.append((f"do it again with: {again}", ""))
    before = [one for one in passes.values() if not one.undoes and one.number < (last.undoes or 0)]
    if before:
        command = command_line(context, spec.path, "--undo", str(before[-1].number))
        lines.append((f"take back the pass before it with: {command}", ""))
    context.say(*lines)
    return DONE


def _looked(context: Context, spec: Spec, store: Store, row: PassRow, host: Host) -> Undoing:
    host.forget()
    only = context.options.only
    try:
        return look_back(spec, row, store.journal.notes(row.number), only, kinds.get, host)
    finally:
        host.let_go()


def _reason(number: int) -> str:
    return f"undo of pass {number}"


def _resume(store: Store, reasons: Sequence[str], ids: Sequence[str] | None) -> None:
    """Take back what was paused for these reasons, or these of it."""
    for ident, pause in store.pauses.all().items():
        if pause.reason in reasons and (ids is None or ident in ids):
            store.pauses.resume(ident)


def _paused_ids(found: Undoing, spec: Spec) -> list[str]:
    """What is touched and managed: what no spec declares, and its kind would take away."""
    declared = {one.id for one in spec.resources}
    ids = []
    for ident in found.ids:
        if ident in declared or isinstance(kinds.get(ident.partition(":")[0]), Orphans):
            ids.append(ident)
    # Without a declaration, a file for cron is known by its path.
    ids += [
        f"cron:{one.want.path}"
        for one in found.look.spec.resources
        if one.kind == "cron" and one.want.file is not None and one.id not in declared
    ]
    return ids


def _command(context: Context, spec: Spec, paused: Sequence[str]) -> str:
    from reconciler.diagnose import command_line

    if len(paused) > _FEW:
        paused = ["*"]
    words = [word for ident in paused for word in ("--resume", ident)]
    return command_line(context, spec.path, *words)


def _head(row: PassRow) -> text.Line:
    what = f", which took back pass {row.undoes}" if row.undoes else ""
    return f"undo of pass {row.number}, {moment(row.wall)}, by {row.by}{what}:", ""


def _of(row: PassRow) -> dict[str, Any]:
    return {"pass": row.number, "time": row.wall, "by": row.by, "undoes": row.undoes}
