"""A status page for browsers, in a process of its own.

It must not change anything, nor take a lock. What it shows is what ``--status`` sees. It is looked
at by a child each time, so that nothing that hangs, and no memory, is left in the process that
answers.
"""

from __future__ import annotations

import gc
import marshal
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from reconciler import kinds
from reconciler.base.errors import DONE, INVALID, HostError, UnknownState
from reconciler.base.text import error_in_words, printable, redacted, redacted_json
from reconciler.cli.commands.metrics import counted
from reconciler.cli.commands.status import PATIENCE, gathered
from reconciler.cli.context import Context
from reconciler.cli.invocation import InvalidUsage
from reconciler.config.isolated import Asked, Invalid
from reconciler.host.descriptors import usual_limit
from reconciler.host.environment import start_again

if TYPE_CHECKING:
    from reconciler.core.model import Spec
    from reconciler.core.observe import Snapshot
    from reconciler.host import Host
    from reconciler.host.processes import Identity
    from reconciler.output.text import Block

_LAST = 30
"""Of the history."""


def run(context: Context) -> int:
    """Answer browsers until a signal ends it."""
    try:
        from reconciler.web import address, server
        from reconciler.web.access import token_of
        from reconciler.web.looks import Looks
    except ImportError:
        from reconciler.host.remedy import remedy

        install = (sys.executable, "-m", "pip", "install", "starlette>=0.40", "uvicorn>=0.30")
        command = remedy(*install)
        raise HostError(f"the page needs starlette, uvicorn; install them: {command}") from None
    options = context.options
    if options.json:
        raise InvalidUsage("--serve prints no document; the page has one at /status.json")
    token = token_of(options.token_file) if options.token_file is not None else None
    try:
        spec = context.known(context.load_isolated().wait())
    except Asked as error:
        raise InvalidUsage(str(error)) from None
    except Invalid as error:
        sys.stderr.write(redacted(error.text))
        return INVALID
    context.folder(spec)  # Whether it is to be believed is said at once.
    try:
        listener = address.listen(options.serve, token is not None)
    except ValueError as error:
        raise InvalidUsage(str(error)) from None
    _prepare(context, spec)
    looks = Looks(
        spec, partial(_look, context), context.load_isolated, context.known, context.folder(spec)
    )
    context.head(spec)
    context.say((f"the page is at {address.url(listener)}; end it with Ctrl-C", ""))
    if server.serve(listener, looks, token, options.serve):
        usual_limit()
        start_again()
    return DONE


def _prepare(context: Context, spec: Spec) -> None:
    """Have in this process all that a look needs, so that no child has to make it anew."""
    from reconciler.host.filesystems import served
    from reconciler.watchdog.preload import preload

    with suppress(ImportError):  # Who asks for metrics without it is told.
        import prometheus_client.exposition  # noqa: F401
    if not served():  # A look may hang there, and this process must not.
        _look(context, spec)
        context.terminal.relay = None
        context.close(spec)
    gc.enable()  # This one lives for long.
    preload()


def _look(context: Context, spec: Spec) -> bytes:
    """The child's side: all that the page shows, as plain data, or ``error``: why there is none."""
    try:
        return marshal.dumps(_seen(context, spec))
    except Exception as error:
        return marshal.dumps({"error": printable(error_in_words(error))})


def _seen(context: Context, spec: Spec) -> dict[str, Any]:
    from reconciler.diagnose import command_line, seen_wrong
    from reconciler.host.clock import Clock
    from reconciler.output.status import deed_document
    from reconciler.state.heartbeat import pulse

    context.begin_anew()
    at, sources = time.monotonic(), _sources(spec, context.folder(spec))
    said: list[str] = []
    context.terminal.relay = lambda blocks: said.extend(_words(blocks))
    host = context.host(spec)
    look = context.look(spec, host, within=PATIENCE)
    found: dict[str, Any] = {"status": gathered(context, look, host), "at": at}
    found |= {"history": [], "latest": {}, "troubles": {}}
    with suppress(HostError):  # ``gathered`` has said it.
        store = context.store(look.spec, False)
        found["history"] = [deed_document(one) for one in store.history.since(0.0, _LAST)]
        found["latest"] = {one.id: deed_document(one) for one in store.history.latest()}
        found["troubles"] = {ident: one.wall for ident, one in store.troubles.all().items()}
    failed = {i: one["error"] for i, one in found["latest"].items() if one["result"] == "failed"}
    loop = pulse(context.folder(spec), Clock())
    found["wrong"] = seen_wrong(context, look, loop, failed)
    try:
        found["usage"] = _usage(look, host)
    except UnknownState as error:
        found["usage"] = None
        said.append(f"what processes use is not known: {error}")
    found["diagnose"] = command_line(context, spec.path, "--diagnose")
    if not os.path.isdir(context.folder(spec)):
        said.append(
            f"there is no state directory {context.folder(spec)}: what was done, tried or paused "
            "is not known"
        )
    figures = counted(context, look, host)
    figures["executors"] = redacted_json(figures["executors"])
    return {**redacted_json(found), "metrics": figures, "said": said, "sources": sources}


def _words(blocks: Sequence[Block]) -> list[str]:
    from reconciler.output.text import lines_of

    return [line.removeprefix("  ! ") for line, _ in lines_of(blocks)]


def _usage(look: Snapshot, host: Host) -> dict[str, Any]:
    """What the processes of each resource have used since they were started."""
    from reconciler.core.kind import Supervised
    from reconciler.core.observe import watched
    from reconciler.host.usage import since_start

    of: dict[str, list[Identity]] = {}
    for resource in look.spec.resources:
        kind, seen = kinds.get(resource.kind), look.seen.get(resource.id)
        if isinstance(kind, Supervised) and resource.present and resource.skip is None:
            there = seen is not None and seen.state is not None
            of[resource.id] = watched(kind, resource, seen.state, host) if there and seen else []
    used = since_start({one for ids in of.values() for one in ids}, host)
    return {
        ident: {
            "who": [[one.pid, one.start] for one in ids],
            "cpu": sum(used[one]["cpu"] for one in ids),
            "memory": sum(used[one]["memory"] for one in ids),
        }
        for ident, ids in of.items()
    }


def _sources(spec: Spec, folder: str) -> list[Any]:
    """What changes when the spec is to be loaded anew."""
    found: list[Any] = []
    for path in (*spec.files, os.path.join(folder, "variables")):
        try:
            one = os.stat(path)
        except OSError as error:
            found.append((path, error.errno))
        else:
            found.append((path, one.st_dev, one.st_ino, one.st_mtime_ns, one.st_size))
    return found
