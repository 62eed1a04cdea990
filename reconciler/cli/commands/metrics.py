"""How things stand, for Prometheus: on standard output, or in a file for node_exporter.

It must not change anything else, nor take a lock.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from reconciler import kinds
from reconciler.base.errors import DONE, HostError, UnknownState
from reconciler.cli.commands.status import PATIENCE, gathered

if TYPE_CHECKING:
    from reconciler.cli.context import Context
    from reconciler.core.model import Outcome
    from reconciler.core.observe import Snapshot
    from reconciler.host import Host
    from reconciler.output.metrics import Metrics


def run(context: Context) -> int:
    """Print them; what is wrong with the resources is in them, not in the exit status."""
    spec = context.load()
    host = context.host(spec)
    found = _metrics(context, context.look(spec, host, within=PATIENCE), host, ())
    sys.stdout.write(_text(found).decode())
    return DONE


def write(context: Context, look: Snapshot, host: Host, outcomes: Sequence[Outcome]) -> None:
    """Write the file that the spec names, whole, for everybody to read. Raises HostError."""
    from reconciler.host import walk
    from reconciler.host.place import put

    assert look.spec.metrics is not None
    text = _text(_metrics(context, look, host, outcomes))
    folder, _, name = look.spec.metrics.rpartition("/")
    with (
        walk.reported(f"cannot write the metrics to {look.spec.metrics}"),
        walk.opened(folder) as to,
    ):
        put(to, name, text, 0o644, sync=False)


def _text(metrics: Metrics) -> bytes:
    try:
        return metrics.text()
    except ImportError:
        from reconciler.host.remedy import remedy

        command = remedy(sys.executable, "-m", "pip", "install", "prometheus-client>=0.20")
        raise HostError(f"metrics need prometheus-client; install it with: {command}") from None


def _metrics(context: Context, look: Snapshot, host: Host, outcomes: Sequence[Outcome]) -> Metrics:
    """``outcomes``: what was done since the look."""
    from reconciler.output.metrics import Metrics

    document = gathered(context, look, host)
    done = {one.step.id for one in outcomes if one.result == "done"}
    for one in document["resources"]:
        if one["id"] in done and one["state"] == "differs":
            one["state"] = "ok"
    return Metrics({**document, **counted(context, look, host)})


def counted(context: Context, look: Snapshot, host: Host) -> dict[str, Any]:
    """What metrics need besides the status."""
    from reconciler.state.heartbeat import last_pass

    counts: list[Any] = []
    unsent: dict[str, int] = {}
    with suppress(HostError):  # ``gathered`` has said it.
        store = context.store(look.spec, False)
        counts = store.history.counts()
        waiting = store.outbox.waiting()
        unsent = {one.name: len(waiting.get(one.name, ())) for one in look.spec.notify.addressed}
    return {
        "counts": counts,
        "waiting": unsent,
        **_queues(look, host),
        "pass": last_pass(context.folder(look.spec)),
    }


def _queues(look: Snapshot, host: Host) -> dict[str, Any]:
    """``queues``: how many files wait, and the age of the oldest in seconds, by resource and
    folder; ``executors``: what ``commands`` gives, by their homes.

    Somebody else may have put millions there, or a file system that hangs: none is told of then.
    """
    from reconciler.core.observe import shown
    from reconciler.host.child import Children
    from reconciler.host.probe_own import commands

    wanted: dict[tuple[str, str], list[str]] = {}
    homes: dict[str, None] = {}
    for resource in look.spec.resources:
        for key in shown(kinds.get(resource.kind), resource, host) if resource.present else ():
            if key.sort == "queue":
                folder, _, match = key.value.rpartition("/")
                wanted.setdefault((resource.id, folder), []).append(match)
            elif key.sort == "executor":
                homes[key.value] = None
    with Children() as children:
        for place, patterns in wanted.items():
            children.begin("\0".join(place), partial(_waiting, place[1], patterns, host), PATIENCE)
        for home in homes:
            children.begin(home, partial(commands, home, host.walltime), PATIENCE)
        children.wait()
        answers = children.answers
    queues = {place: answers.get("\0".join(place)) for place in wanted}
    return {
        "queues": {place: counted for place, counted in queues.items() if counted is not None},
        "executors": {home: answers.get(home) for home in homes},
    }


def _waiting(folder: str, patterns: Sequence[str], host: Host) -> tuple[int, float] | None:
    from reconciler.host.probe import waiting

    with suppress(UnknownState, OSError):
        return waiting(folder, patterns, host.walltime)[:2]
    return None
