"""How things stand now, on one screen. It must not change anything, nor take a lock."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from reconciler import kinds
from reconciler.base.errors import DONE, TROUBLE, HostError
from reconciler.base.text import printable, redacted_json
from reconciler.base.values import due_in
from reconciler.cli.invocation import InvalidUsage
from reconciler.core.kind import Probed, Supervised
from reconciler.core.observe import watched
from reconciler.core.plan import is_matched
from reconciler.core.restart_policy import NEXT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from reconciler.cli.context import Context
    from reconciler.core.model import Resource, Spec
    from reconciler.core.observe import Snapshot
    from reconciler.host import Host
    from reconciler.output.text import Block
    from reconciler.state.heartbeat import WatchdogHeartbeat
    from reconciler.state.store.tables import Deed

_LAST = 5
PATIENCE = 2.0
"""Seconds that a kind may take to be looked at."""
_EVERY = 1.0
"""Seconds between two looks of one who watches."""


def run(context: Context) -> int:
    """Print it; 1 when something is unknown, failing, or has failed."""
    from reconciler.output.status import status_blocks

    if context.options.watch:
        return _watch(context)
    spec = context.load()
    host = context.host(spec)
    look = context.look(spec, host, within=PATIENCE)
    document = gathered(context, look, host)
    if context.options.json:
        context.print_json(document)
    elif context.options.quiet:
        from reconciler.output.text import remark_lines

        context.terminal.write(remark_lines(look.plan, False) if look.plan.trouble else ())
    else:
        context.terminal.write(status_blocks(redacted_json(document)))
    return TROUBLE if look.plan.trouble else DONE


def _watch(context: Context) -> int:
    """The same screen again and again, until Ctrl-C."""
    import gc

    from reconciler.config.errors import SpecError
    from reconciler.output.status import status_blocks

    options, terminal = context.options, context.terminal
    if options.json or options.quiet:
        raise InvalidUsage("--watch goes with neither --json nor --quiet")
    gc.enable()
    spec, broken = context.load(), ""
    before: object = None
    try:
        with terminal.live() as show:
            while terminal.error is None:
                blocks: list[Block] = []
                lasting: object = None
                try:
                    host = context.host(spec)
                    look = context.look(spec, host, within=PATIENCE)
                    document = gathered(context, look, host)
                    lasting = _lasting(document)
                    blocks += status_blocks(redacted_json(document))
                except HostError as error:
                    blocks.append((printable(str(error)), "bad"))
                    lasting = str(error)
                # Nobody who reads a file wants a page a second, since all grows older.
                if terminal.watched or (lasting, broken) != before:
                    show([*blocks, *([(broken, "bad")] if broken else [])])
                before = lasting, broken
                time.sleep(_EVERY)
                try:
                    spec, broken = context.load(), ""
                except (SpecError, HostError) as error:
                    broken = f"the spec has changed and cannot be used: {error}".splitlines()[0]
    except KeyboardInterrupt:
        pass
    return DONE


def _lasting(document: Mapping[str, Any]) -> object:
    """What of it is no matter of time alone."""
    loop = document["loop"] or {}
    return (
        [loop.get(key) for key in ("running", "healthy", "stopped", "pid")],
        [
            (
                one["id"], one["state"], one["reason"].partition(NEXT)[0],
                one.get("pids"), (one.get("asked") or {}).get("result"),
            )
            for one in document["resources"]
        ],
        document["last"],
    )  # fmt: skip


def gathered(context: Context, look: Snapshot, host: Host) -> dict[str, Any]:
    """The status as a JSON value."""
    from reconciler.base.errors import HostError
    from reconciler.host.clock import Clock
    from reconciler.output.status import deed_document
    from reconciler.state.heartbeat import about_loop, pulse

    spec = look.spec
    loop = pulse(context.folder(spec), Clock())
    about: dict[str, dict[str, Any]] = {}
    deeds: list[Deed] = []
    try:
        deeds, about = _remembered(context, spec)
    except HostError as error:
        context.warn(str(error))
    plan = look.plan
    return {
        "format": 1,
        "spec": context.about(spec),
        "host": plan.host,
        "time": round(time.time(), 3),
        "loop": {**about_loop(loop), **_next(loop)},
        "resources": [
            {**one, **about.get(one["id"], {})} for one in _resources(context, look, host)
        ],
        "last": [deed_document(deed) for deed in deeds],
    }


def _next(loop: WatchdogHeartbeat | None) -> dict[str, Any]:
    """In how many seconds the loop makes its next full pass."""
    return {} if loop is None else {"next": round(max(0.0, loop.every - loop.age), 3)}


def _resources(context: Context, look: Snapshot, host: Host) -> list[dict[str, Any]]:
    from reconciler.output.data import standing

    words = standing(look.plan)
    found = []
    for resource in look.spec.resources:
        if look.only and resource.id not in look.seen and resource.id not in words:
            continue  # --only: nobody has looked at it
        state, reason = words.get(resource.id, ("ok", ""))
        one: dict[str, Any] = {"id": resource.id, "state": state, "reason": reason}
        if not resource.present:
            one["absent"] = True
        found.append({**one, **_since(look, resource, host), **_due(host, resource)})
    return found


def _due(host: Host, resource: Resource[Any]) -> dict[str, Any]:
    """In how many seconds a check is asked again."""
    kind = kinds.get(resource.kind)
    if not resource.present or not isinstance(kind, Probed):
        return {}
    said, version = host.said.get(resource.id), kind.version(resource.want)
    return {"due": round(due_in(said, version, kind.rhythm(resource.want).every, time.time()), 3)}


def _since(look: Snapshot, resource: Resource[Any], host: Host) -> dict[str, Any]:
    """The processes that a resource is, and since when they run."""
    seen = look.seen.get(resource.id)
    if seen is None or seen.unknown is not None or seen.state is None:
        return {}
    kind = kinds.get(resource.kind)
    if not isinstance(kind, Supervised):
        return {}
    found = watched(kind, resource, seen.state, host)
    if not found:
        return {}
    started = [host.processes.started(identity) for identity in found]
    return {"since": round(min(started), 3), "pids": [identity.pid for identity in found]}


def _remembered(context: Context, spec: Spec) -> tuple[list[Deed], dict[str, dict[str, Any]]]:
    """What the store holds: what was done last, and the rest by id."""
    store = context.store(spec, False)
    about: dict[str, dict[str, Any]] = {}
    for ident, attempt in store.attempts.all().items():
        if attempt.count:
            about.setdefault(ident, {})["attempts"] = attempt.count
    for ident, said in store.checks.all().items():
        about.setdefault(ident, {})["asked"] = {
            "time": round(said.wall, 3),
            "said": said.reason,
            "result": said.result,
            "since": round(said.since, 3),
            "failures": said.failures,
            "seconds": round(said.seconds, 3),
        }
    for ident, pause in store.pauses.all().items():
        from reconciler.output.status import pause_document

        about.setdefault(ident, {})["paused"] = pause_document(pause)
    only = context.options.only
    if not only:
        return store.history.since(0.0, _LAST), about
    deeds = [one for one in store.history.since(0.0) if any(is_matched(one.id, p) for p in only)]
    return deeds[-_LAST:], about
