"""What people are to be told, from what a pass has brought to the queue in the store.

It must not deliver anything, nor show a URL.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from reconciler.base.errors import Remedy
from reconciler.base.values import Notify
from reconciler.core.messages import Message, Trouble
from reconciler.core.model import Remark, Spec
from reconciler.notify.delivery import off
from reconciler.notify.transitions import Meter, News, judge

if TYPE_CHECKING:
    from reconciler.state.store import Store


def title(spec: Spec) -> str:
    """What stands above every message."""
    return spec.notify.title or f"reconcile: {spec.name} on {os.uname().nodename}"


def remarks(notify: Notify) -> tuple[Remark, ...]:
    """The targets that are off, and why; and those whose URL somebody else may read."""
    off_ = ((target.name, off(target)) for target in notify.addressed)
    found = [Remark(f"notify:{name}", f"is off: {why}") for name, why in off_ if why]
    for ident, words, command in readable(notify):
        found.append(Remark(ident, f"{words}; fix it with: {command}", remedy=command))
    return tuple(found)


def readable(notify: Notify) -> Iterator[tuple[str, str, Remedy]]:
    """The targets whose URL somebody else may read: which one, how, and what ends that."""
    from reconciler.host.remedy import remedy
    from reconciler.host.writers import readers

    for target in notify.addressed:
        path = target.secret_file
        who = readers(path) if path is not None else None
        if path is not None and who is not None:
            words = f"its URL stands in {path}, which is readable by {who}"
            yield f"notify:{target.name}", words, remedy("chmod", "go-r", path)


def tell(
    spec: Spec,
    store: Store,
    news: News,
    reports: Sequence[str],
    blot: Callable[[str], str],
) -> None:
    """Judge what a pass has brought, and queue it for all who want to know. Raises HostError.

    ``reports`` are further words about the program itself; ``blot`` takes out of a line what
    nobody may see. While nobody is there to be told, nothing counts as told.
    """
    targets = [target for target in spec.notify.targets if off(target) is None]
    wall = store.base.clock.wall()
    heard = {event for target in targets for event in target.on}

    def judged() -> tuple[dict[str, Trouble], dict[str, Trouble], Meter, list[Message]]:
        known, meter = store.troubles.all(), Meter(store.sent.all(), wall, heard)
        if not targets:
            return known, {}, meter, []
        messages, now = judge(known, news, wall, spec.notify.remind_every, blot, meter)
        return known, now, meter, messages

    known, now, meter, messages = judged()
    changed = bool(targets) and (meter.changed or bool(messages) or bool(reports))
    if not (changed or now != known or any(one.told is None for one in known.values())):
        return
    about = [Message("report", "\n".join(map(blot, words.splitlines()))) for words in reports]
    with store.base.change() as base:
        # Another pass may have told the same meanwhile.
        known, now, meter, messages = judged()
        store.troubles.replace(base, known, now)
        if targets and meter.changed:
            store.sent.replace(base, meter.sent)
        queued = [
            (target.name, one)
            for one in (*about, *messages)
            for target in targets
            if one.is_for(target.on)
        ]
        store.outbox.add(base, blot(title(spec)), queued)


def announce(spec: Spec, store: Store, message: Message, blot: Callable[[str], str]) -> None:
    """Queue words about the program itself, for all who want to know. Raises HostError."""
    body = "\n".join(map(blot, message.body.splitlines()))
    queued = [
        (target.name, Message(message.event, body, message.about))
        for target in spec.notify.targets
        if message.is_for(target.on) and off(target) is None
    ]
    if queued:
        with store.base.change() as base:
            store.outbox.add(base, blot(title(spec)), queued)
