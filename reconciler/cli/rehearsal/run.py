"""``--plan --at`` and ``--plan --if`` from the command line to what is printed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

from reconciler import kinds
from reconciler.base.errors import DONE
from reconciler.base.records import replace
from reconciler.base.values import Notify
from reconciler.cli.commands import messages
from reconciler.cli.context import Context
from reconciler.cli.invocation import InvalidUsage, exit_status, no_such
from reconciler.cli.rehearsal.asked import Event, seconds_until
from reconciler.cli.rehearsal.context import RehearsedContext
from reconciler.core.kind import Probed, Running
from reconciler.core.model import Outcome
from reconciler.core.plan import chosen
from reconciler.host.clock import Clock, LaterClock, RehearsedClock, speak_by
from reconciler.notify.delivery import off
from reconciler.output import data, text
from reconciler.output.rehearsal import (
    Entry,
    as_of,
    entry_document,
    message_lines,
    passed,
    timeline_lines,
)
from reconciler.undo.journal import marked

if TYPE_CHECKING:
    from reconciler.core.model import Resource, Spec
    from reconciler.core.observe import Snapshot


def run(context: Context) -> int:
    """Print what would be done then, or after that."""
    options = context.options
    if options.out is not None:
        raise InvalidUsage("--out saves what is to be done now, on this host as it is; leave out "
                           f"{'--if' if options.event else '--at'}")  # fmt: skip
    ahead = 0.0 if options.at is None else seconds_until(options.at, Clock().wall())
    if options.event is not None:
        return _after(RehearsedContext(options, RehearsedClock(ahead)), Event.read(options.event))
    clock = LaterClock(ahead)
    speak_by(clock)
    try:
        return _at(RehearsedContext(options, clock), ahead)
    finally:
        speak_by(Clock())


# -- at another time


def _at(context: RehearsedContext, ahead: float) -> int:
    options = context.options
    spec = _loaded(context)
    at = context.clock.wall()
    host = context.host(spec)
    look = context.look(spec, host)
    told = _told(context, look)
    plan = messages.with_targets(context, look.plan, spec)
    plan = marked(replace(look, plan=plan), kinds.get, host, context.store(spec, False))
    if options.json:
        document = data.plan_document(plan, context.about(spec))
        document |= {"at": round(at, 3), "messages": [entry_document(one) for one in told]}
        context.print_json(document)
    elif options.quiet:
        context.terminal.write(text.remark_lines(plan, False) if plan.trouble else ())
    else:
        words, style = context.heading(spec)
        lines = [(f"{words}{as_of(at, ahead)}", style)]
        context.terminal.write([*lines, *text.plan_lines(plan, options.verbose)])
        context.terminal.write([*message_lines(told), *_off(spec.notify)])
    return exit_status(plan.trouble, bool(plan.steps), options)


def _told(context: RehearsedContext, look: Snapshot) -> list[Entry]:
    """What people would be told by a pass of then, of which each step succeeds that may be done."""
    found: list[Entry] = []
    clock, begun = context.clock, context.clock.monotonic()

    def hear(what: str, who: str, words: str) -> None:
        after = round(clock.monotonic() - begun, 3)
        found.append(Entry(after, round(clock.wall(), 3), what, who, words))

    outcomes = [
        Outcome(one, "done") if one.denied is None else Outcome(one, "failed", one.denied)
        for one in look.plan.steps
    ]
    context.tell(look, outcomes)
    _report(context, look.spec)
    sender = context.messages(look.spec, hear)
    sender.woken()
    while sender.due() == 0:
        sender.tend(())
    sender.held()
    return found


def _report(context: RehearsedContext, spec: Spec) -> None:
    """Queue what a loop would report: of the periods that have ended by then."""
    from reconciler.core.messages import Message
    from reconciler.notify.outbox import announce
    from reconciler.notify.reports import left, wanted

    if not wanted(spec.notify):
        return
    store, wall = context.store(spec, True), context.clock.wall()
    known = store.reports.all()
    for period in spec.notify.report_every:
        # Without one before it the first period only begins.
        if period in known and left(known[period], period, wall) <= 0:
            words = f"the report of {passed(period)}, which is due then"
            announce(spec, store, Message("report", words), context.clean)


def _loaded(context: RehearsedContext) -> Spec:
    spec = context.load()
    # Whether a target is off is known by its URL.
    hidden = any(one.url is not None and one.url.value is None for one in spec.notify.targets)
    return context.load(complete=True) if hidden else spec


def _off(notify: Notify) -> list[text.Line]:
    found = ((one.name, off(one)) for one in notify.targets)
    return [(f"  . target {name} is told nothing: it is off: {why}", "quiet")
            for name, why in found if why]  # fmt: skip


# -- after an event


def _after(context: RehearsedContext, event: Event) -> int:
    from reconciler.cli.rehearsal.loop import Rehearsal

    options = context.options
    spec = _loaded(context)
    resource = _meant(spec, event)
    part = chosen(spec, [event.id])
    if options.only:
        part = _within(options.only, spec, part, event)
    begun, ahead = context.clock.wall(), context.clock.ahead
    entries = Rehearsal(context, replace(spec, resources=part), event, resource).run()
    if options.json:
        document = {
            "format": data.FORMAT, "spec": context.about(spec), "at": round(begun, 3),
            "event": options.event, "timeline": [entry_document(one) for one in entries],
        }  # fmt: skip
        context.print_json(document)
        return DONE
    words, style = context.heading(spec)
    words = f"{words}{as_of(begun, ahead)}"
    context.terminal.write([(words, style), *_premises(context, spec, resource, event)])
    if options.quiet:
        entries = [one for one in entries if one.what in ("gives up", "told", "held")]
    context.terminal.write([*timeline_lines(entries), *_off(spec.notify)])
    return DONE


def _premises(
    context: RehearsedContext, spec: Spec, resource: Resource[object], event: Event
) -> list[text.Line]:
    """What the timeline goes by."""
    from reconciler.state.heartbeat import pulse

    found = [f"if {context.options.event}, and all else stays as declared:"]
    if pulse(context.folder(spec), Clock()) is None:
        found.append("  . no watchdog runs for it now; this is what one would do")
    if resource.kind == "unit":
        found.append("  . systemd may be faster, by Restart= of the unit")
    return [(words, "quiet") for words in found]


def _meant(spec: Spec, event: Event) -> Resource[object]:
    """The resource of the event. Raises Usage where nothing could follow from it."""
    resource = {one.id: one for one in spec.resources}.get(event.id)
    if resource is None:
        raise InvalidUsage(no_such(event.id, spec))
    kind = kinds.get(resource.kind)
    if not isinstance(kind, (Running, Probed)):
        able = [one.id for one in spec.resources if isinstance(kinds.get(one.kind), Running)]
        near = get_close_matches(event.id, able, 1)
        raise InvalidUsage(f"{event.id} neither runs nor is asked, so that it can neither die nor "
                           f"fail{f'; did you mean {near[0]!r}?' if near else ''}")  # fmt: skip
    if bool(event.times) is isinstance(kind, Probed):
        other = f"{event.id} fails for 10m" if isinstance(kind, Probed) else f"{event.id} dies"
        raise InvalidUsage(f"a {resource.kind} {'fails' if event.times else 'dies'}; "
                           f"write --if {other!r}")  # fmt: skip
    why = "it is declared absent" if not resource.present else resource.held
    why = f"it is switched off here, when: {resource.skip}" if resource.skip is not None else why
    if why is None and isinstance(kind, Running):
        ended = kind.ended(resource.want)
        differs = kind.changes(kind.expected(resource.want), ended.state)
        if not (differs or ended.failing):
            why = "nothing is declared of whether it runs (active: true)"
    if why is not None:
        raise InvalidUsage(f"nothing follows where {event.id} "
                           f"{'dies' if event.times else 'fails'}: {why}")  # fmt: skip
    return resource


def _within(
    only: Sequence[str], spec: Spec, part: Collection[Resource[object]], event: Event
) -> tuple[Resource[object], ...]:
    try:
        ids = {one.id for one in chosen(spec, only)}
    except KeyError as error:
        raise InvalidUsage(no_such(error.args[0], spec)) from None
    if event.id not in ids:
        raise InvalidUsage(f"{event.id} is not among what --only names, so that nothing follows")
    return tuple(one for one in part if one.id in ids)
