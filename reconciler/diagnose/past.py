"""What the store remembers, and whether it is whole. It is called in a child of its own.

It must not change the store: a damaged one is set aside by the next pass, which holds the lock.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from reconciler.base.errors import HostError, UnknownState
from reconciler.base.values import ProbeHistory
from reconciler.core.kind import GetKind
from reconciler.core.model import Past, Resource
from reconciler.host.clock import Clock
from reconciler.host.folders import refuse_unreadable
from reconciler.host.remedy import remedy
from reconciler.state.folder import STORE, Unreadable, quiet
from reconciler.state.heartbeat import WatchdogHeartbeat, pulse
from reconciler.state.store import Store
from reconciler.state.tracker import Tracker

_DEEDS = 200
_DAY = 86400.0
_UNKNOWN = "exit reason unknown"


def remembered(
    folder: str, resources: Sequence[Resource[Any]], get_kind: GetKind
) -> tuple[Past, dict[str, ProbeHistory], dict[str, Any]]:
    """What a plan must know, and the rest: attempts, pauses, what was done in the last day."""
    refuse_unreadable(folder)
    clock = Clock()
    trouble: list[str] = []
    store = Store(folder, clock, False)
    tracker = Tracker(
        resources, get_kind, store, trouble.append, set(), lambda: "", lambda t: t, {}, {}
    )
    past = Past()
    try:
        past = tracker.past()
    except Unreadable as error:
        trouble.append(str(error))
    said = dict(tracker.said())
    found: dict[str, Any] = {"attempts": {}, "pauses": [], "deeds": [], "damage": None,
                             "begun": {}}  # fmt: skip
    path = os.path.join(folder, STORE)
    deep = False
    try:
        for row in () if trouble else store.base.read("PRAGMA quick_check(1)"):
            if row[0] != "ok":
                deep = True
                trouble.append(f"the store {path} is damaged: {' '.join(row[0].split())}")
        found["attempts"] = {
            ident: {"count": one.count, "since": one.since}
            for ident, one in store.attempts.all().items()
        }
        found["pauses"] = [
            {"id": one.id, "reason": one.reason, "since": one.wall, "until": one.until,
             "by": one.by}
            for one in store.pauses.all().values()
        ]  # fmt: skip
        found["deeds"] = [
            {"time": deed.wall, "by": deed.by, "id": deed.id, "verb": deed.verb,
             "result": deed.result, "why": deed.why, "error": deed.error,
             "seconds": round(deed.seconds, 3), "pass": deed.number}
            for deed in store.history.since(clock.wall() - _DAY, _DEEDS)
        ]  # fmt: skip
        found["begun"] = store.history.begun()
        found["messages"] = [
            {
                "target": target,
                "since": min(one.wall for one in letters),
                "tries": letters[0].tries,
                "title": letters[0].title,
            }
            for target, letters in store.outbox.waiting().items()
        ]
    except HostError as error:
        trouble.append(str(error))
    finally:
        store.close()
    if trouble and "locked" in trouble[0]:
        raise UnknownState(trouble[0])  # Somebody writes to it just now, and is slow.
    if trouble:
        found["damage"] = trouble[0].removesuffix("; failed starts are not remembered")
        if deep or quiet(folder):
            # No pass looks there, so none would set it aside.
            found["aside"] = remedy("mv", path, f"{path}.damaged")
    return past, said, found


def loop(folder: str) -> WatchdogHeartbeat | None:
    """The loop of that state directory. Raises OSError where that cannot be known."""
    refuse_unreadable(folder)
    return pulse(folder, Clock())


def told_causes(
    deeds: Sequence[dict[str, Any]],
    booted: float,
    deaths: Sequence[dict[str, Any]],
    names: Mapping[str, Sequence[str]],
    begun: Mapping[str, float],
) -> list[dict[str, Any]]:
    """The starts and restarts among what was done, each with its cause where it is known. Pure.

    ``deaths`` is what the kernel has ended, ``names`` the programs that an id may run as, and
    ``begun`` when the first thing was done about it that is known.
    """
    found = []
    before: dict[str, str] = {}
    for deed in deeds:
        ident, verb = deed["id"], deed["verb"]
        if verb in ("start", "restart", "stop", "pause", "resume"):
            done = verb == "start" and deed["result"] == "done"
            if done and before.get(ident) == "resume":
                cause: str | None = "resumed"
            elif done and ident not in before and begun.get(ident, 0.0) >= deed["time"]:
                cause = "first start"
            else:
                cause = _cause(deed, booted, deaths, names.get(ident, ()))
            before[ident] = verb
            found.append({**deed, "cause": cause or _UNKNOWN})
    return found


def _cause(
    deed: dict[str, Any], booted: float, deaths: Sequence[dict[str, Any]], names: Sequence[str]
) -> str | None:
    at, why = deed["time"], deed["why"]
    if deed["verb"] in ("pause", "resume"):
        who = {"program": "a program", "loop": "the watchdog"}.get(deed["by"], deed["by"])
        who = "ai-cmd-executor" if "ai-cmd-executor" in why else who
        return f"requested by {who}"
    if deed["verb"] == "restart" or (deed["verb"] == "stop" and why):
        return str(why)
    for death in deaths:
        if 0 <= at - death["time"] <= 120 and death["name"] in names:
            return f"the kernel ended {death['name']} (pid {death['pid']}): {death['how']}"
    if 0 <= at - booted <= 600:
        return "the host was booted"
    return str(deed["error"]) if deed["result"] != "done" else None
