"""Pauses resources, and resumes them.

It must not wait for the lock: a pause takes effect at once.
"""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from reconciler import kinds
from reconciler.base.errors import DONE, TROUBLE
from reconciler.base.records import replace
from reconciler.cli.context import Context
from reconciler.cli.invocation import InvalidUsage, no_such
from reconciler.core.kind import Supervised
from reconciler.core.observe import Snapshot
from reconciler.core.plan import ending, is_matched

if TYPE_CHECKING:
    from reconciler.core.model import Resource, Spec
    from reconciler.host import Host
    from reconciler.state.store import Store
    from reconciler.state.store.tables import Pause

_LONGEST = 10 * 366 * 86400.0


def run(context: Context) -> int:
    """``--pause`` or ``--resume``."""
    spec = context.load(write_cache=True)
    context.claim(spec)
    context.recover(spec)
    return (_resume if context.options.resume else _pause)(context, spec)


def _pause(context: Context, spec: Spec) -> int:
    """Pause what ``--pause`` names, for ``--for`` or until it is resumed."""
    from reconciler.host.clock import Clock
    from reconciler.output.status import pause_lines

    options = context.options
    found = _named(options.pause, spec)
    context.head(spec)
    clock = Clock()
    until = clock.wall() + min(options.duration, _LONGEST) if options.duration else None
    reason = context.clean(options.reason or "")
    store = context.store(spec, False)
    for resource in found:
        store.pauses.pause(resource.id, reason, until, who())
    _remember(context, store, found, "pause", reason)
    pauses = store.pauses.all()
    failed = _stopped(context, spec, found) if options.stop else ()
    now = [pauses[resource.id] for resource in found if resource.id in pauses]
    if options.json:
        context.print_json(_document(context, spec, "paused", now))
    for one in now:
        context.say(*pause_lines(one))
    if now and not options.quiet:
        from reconciler.diagnose import command_line

        words = [word for name in options.pause for word in ("--resume", name)]
        context.say((f"manage it again with: {command_line(context, spec.path, *words)}", ""))
    for ident, why in failed:
        context.terminal.write([(f"  failed {ident}: {why}", "bad")])
    return TROUBLE if failed else DONE


def _resume(context: Context, spec: Spec) -> int:
    """Manage what ``--resume`` names again, at once where a loop runs.

    The retry counter is reset, so that it is tried at once.
    """
    options = context.options
    store = context.store(spec, False)
    paused = store.pauses.all()
    # Also what the spec no longer declares can be resumed.
    gone = [ident for ident in paused if any(is_matched(ident, one) for one in options.resume)]
    found = [resource.id for resource in _named(options.resume, spec, gone)]
    context.head(spec)
    ids = list(dict.fromkeys((*found, *gone)))
    done = [paused[ident] for ident in ids if store.pauses.resume(ident) and ident in paused]
    # Whoever resumes it has fixed it, or wants to see it fail.
    reset = [ident for ident in ids if ident in store.attempts.all()]
    for ident in reset:
        store.attempts.reset(ident)
    _remember(context, store, done, "resume", "")
    if options.json:
        context.print_json(_document(context, spec, "resumed", done))
    for one in done:
        context.say((f"{one.id}: resumed; it was paused: {one.reason or 'no reason'}", "good"))
    for ident in reset:
        context.say((f"{ident}: retry counter reset", "good"))
    if not done and not reset:
        context.say(("was not paused", "quiet"))
    wake(context, spec)
    return DONE


def _named(patterns: Sequence[str], spec: Spec, known: Sequence[str] = ()) -> list[Resource[Any]]:
    found: dict[str, Resource[Any]] = {}
    for pattern in patterns:
        matches = [resource for resource in spec.resources if is_matched(resource.id, pattern)]
        if not matches and not any(is_matched(ident, pattern) for ident in known):
            raise InvalidUsage(no_such(pattern, spec))
        found |= {resource.id: resource for resource in matches}
    return [resource for resource in spec.resources if resource.id in found]


def _stopped(
    context: Context, spec: Spec, found: Sequence[Resource[Any]]
) -> list[tuple[str, str | None]]:
    """End what was paused; what could not be ended, by its id, and why."""
    wrong = [
        resource.id for resource in found if not isinstance(kinds.get(resource.kind), Supervised)
    ]
    if wrong:
        raise InvalidUsage(f"--stop is for processes; {wrong[0]} is paused, and goes on running")
    # Whoever is at work may have begun before the pause was there.
    wake(context, spec, wait=True)
    host = context.host(spec)
    look = planned(replace(spec, resources=ending(found), complete=True), host)
    report = context.act(look, host, lambda outcome: None, remember=False)
    failed = [(one.step.id, one.error) for one in report.outcomes if one.result == "failed"]
    return [*((one.id, one.reason) for one in look.plan.unknown), *failed]


def planned(spec: Spec, host: Host) -> Snapshot:
    """A look at all of it, and a plan that knows of no pause and no attempt."""
    from reconciler.core.model import Past
    from reconciler.core.observe import judged, observe

    found = observe(spec.resources, kinds.get, host)
    plan, seen = judged(spec, spec.resources, found, kinds.get, host, Past())
    return Snapshot(spec, plan, seen)


def wake(context: Context, spec: Spec, wait: bool = False) -> None:
    """Have a loop look at it now, and with ``wait`` until it has."""
    from reconciler.base.errors import HostError
    from reconciler.host.clock import Clock
    from reconciler.state.heartbeat import ask, pulse

    folder, clock = context.folder(spec), Clock()
    loop = pulse(folder, clock)
    if loop is not None and loop.healthy:
        try:
            ask(loop, folder, clock, 60.0 if wait else 0.0)
        except HostError as error:
            context.warn(str(error))


def _remember(context: Context, store: Store, found: Sequence[Any], verb: str, why: str) -> None:
    from reconciler.state.store.tables import Deed

    now = store.base.clock.wall()
    store.history.add(
        [Deed(now, context.by, one.id, verb, "done", why, None, 0.0) for one in found]
    )


def _document(context: Context, spec: Spec, key: str, pauses: Sequence[Pause]) -> dict[str, Any]:
    from reconciler.output.data import headed
    from reconciler.output.status import pause_document

    return headed(context.about(spec), **{key: [pause_document(one) for one in pauses]})


def who() -> str:
    """Who pauses it."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        import os

        return f"user {os.geteuid()}"
