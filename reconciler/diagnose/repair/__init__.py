"""The five steps of a repair: diagnose, fix, watchdog, persistence, diagnose again.

It must not resume what a person has paused, nor stop at a step that failed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from reconciler import kinds
from reconciler.base.errors import HostError
from reconciler.base.records import dataclass, field
from reconciler.base.text import error_in_words
from reconciler.core.kind import Persistent, Probed
from reconciler.core.model import Outcome, Spec
from reconciler.core.plan import STARTS
from reconciler.diagnose import diagnose, keeps
from reconciler.diagnose.repair.actors import Actor, actor
from reconciler.output.data import FORMAT
from reconciler.state.folder import LockHeld
from reconciler.state.heartbeat import pulse

if TYPE_CHECKING:
    from reconciler.cli.context import Context
    from reconciler.diagnose.repair.progress import RepairProgress

NAMES = (
    "diagnose",
    "health and fixes",
    "watchdog running",
    "persistence in place",
    "final check",
)
_COMES_UP = 45.0
"""Seconds that what was just started may take until all is well."""
_PROBE = 60.0
"""Seconds for a check in the final look, unless it may take less."""
_PAUSE = 0.5


@dataclass(slots=True)
class RepairStep:
    """One of the five. ``error`` says why it came to no end; ``words`` what it has found."""

    number: int
    name: str
    seconds: float = 0.0
    error: str | None = None
    words: str = ""
    notes: list[str] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Is there something that it could not do?"""
        return self.error is not None or any(one.result == "failed" for one in self.outcomes)


class RepairBusy(HostError):
    """Another pass is at work, and does not come to its end."""


class Repair:
    """One repair. ``told`` hears of each step as it begins and ends, and of what was done."""

    def __init__(self, context: Context, spec: Spec, told: RepairProgress) -> None:
        self.context = context
        self.spec = spec
        self.told = told
        self.steps: list[RepairStep] = []
        self.before: dict[str, Any] = {}
        self.after: dict[str, Any] = {}
        self.reset: dict[str, int] = {}
        self.paused: dict[str, dict[str, Any]] = {}
        self.set_aside: str | None = None
        self.by_loop = False
        """Was it the loop that acted?"""
        self.busy: LockHeld | None = None
        self.began = time.monotonic()

    def run(self) -> None:
        """All five, whatever becomes of each. Raises Busy before anything was changed."""
        works = (self._diagnose, self._fix, self._watchdog, self._persistence, self._final)
        for number, (name, work) in enumerate(zip(NAMES, works, strict=True), 1):
            self._step(RepairStep(number, name), work)
            if number == 2 and self.busy is not None:
                raise RepairBusy(f"{self.busy}; nothing was done")

    @property
    def outcomes(self) -> list[Outcome]:
        """What became of all that was to be done."""
        return [outcome for step in self.steps for outcome in step.outcomes]

    @property
    def changed(self) -> list[Outcome]:
        """What was done."""
        return [one for one in self.outcomes if one.result == "done"]

    @property
    def healthy(self) -> bool:
        """Is nothing wrong in the end?"""
        return bool(self.after.get("healthy"))

    def _step(self, step: RepairStep, work: Callable[[RepairStep], str]) -> None:
        self.steps.append(step)
        self.told.begins(step)
        began = time.monotonic()
        try:
            step.words = work(step)
        except LockHeld as taken:
            step.error = str(taken)
            self.busy = taken
        except Exception as error:
            # What cannot be done now must not keep the rest from being done.
            step.error = error_in_words(error)
        step.seconds = time.monotonic() - began
        self.told.ends(step)

    # -- the steps; each gives words for its end

    def _diagnose(self, step: RepairStep) -> str:
        self.before = diagnose(self.context, self.spec)
        self.told.wrong(self.before)
        return _wrongs(self.before)

    def _fix(self, step: RepairStep) -> str:
        with self._actor() as acting:
            self._reset(step, acting)
            acting.believe(self._failing())
            acting.look_again()
            with_orphans = acting.spec
            late = {one.id for one in with_orphans.resources if _is_late(one, self.spec.path)}
            ids = [one.id for one in with_orphans.resources if one.id not in late]
            acting.put_right(ids, step.outcomes)
        return _done(step)

    def _watchdog(self, step: RepairStep) -> str:
        keepers = [one.id for one in self.spec.resources if _is_keeper(one, self.spec.path)]
        if not keepers:
            return "the spec declares no watchdog"
        with self._actor() as acting:
            acting.put_right(keepers, step.outcomes)
        absent = [one for one in keepers if one in self._unwanted()]
        if len(absent) == len(keepers):
            return "the spec declares it absent"
        loop = self._loop(5.0)
        return f"the watchdog is running (pid {loop})" if loop is not None else _done(step)

    def _persistence(self, step: RepairStep) -> str:
        with self._actor() as acting:
            ids = [
                one.id
                for one in acting.spec.resources
                if isinstance(kinds.get(one.kind), Persistent)
            ]
            if not ids:
                return "the spec declares no persistence"
            acting.put_right(ids, step.outcomes)
            acting.tell(self.outcomes)
        return _done(step)

    def _final(self, step: RepairStep) -> str:
        end = time.monotonic() + _COMES_UP
        started = {one.step.id for one in self.changed if one.step.verb in STARTS}
        while True:
            # What a pass has said of checks is older than what was fixed.
            self.after = diagnose(self.context, self.spec, _PROBE)
            if not started or time.monotonic() >= end or not self._may_come(started):
                break
            time.sleep(_PAUSE)
        return _wrongs(self.after)

    def _may_come(self, started: Collection[str]) -> bool:
        """Is something wrong that may yet recover by itself, since it was just started?

        That is also the watchdog, if what runs it was started, and a check that needs something
        of it; one that needs nothing only where it has something started anew.
        """
        hopeful = set(started)
        if any(_is_keeper(one, self.spec.path) for one in self.spec.resources if one.id in started):
            hopeful.add("loop")
        for one in self.spec.resources:
            kind = kinds.get(one.kind)
            if not isinstance(kind, Probed):
                continue
            if hopeful.intersection(one.needs) if one.needs else kind.rhythm(one.want).acts:
                hopeful.add(one.id)
        return any(hopeful.intersection((one["key"], *one["ids"])) for one in self.after["wrong"])

    # -- what they share

    def _actor(self) -> Any:
        def ended(words: str) -> None:
            self.context.report(words, "the repair goes on in its place")
            self._note(self.steps[-1], words)

        return actor(self.context, self.spec, ended, self._acted)

    def _acted(self, outcome: Outcome, by_loop: bool) -> None:
        self.by_loop = self.by_loop or by_loop
        self.told.outcome(outcome)

    def _reset(self, step: RepairStep, acting: Actor) -> None:
        """No start that has failed before keeps anything from being started now."""
        try:
            self.set_aside = acting.repair_store(self._damaged())
            if self.set_aside is not None:
                self._note(step, self.set_aside)
            self.reset = acting.reset()
            for ident, count in self.reset.items():
                starts = "failed start" if count == 1 else "failed starts"
                self._note(step, f"{ident}: retry counter reset ({count} {starts})")
            self.paused = acting.pauses()
            for ident, pause in self.paused.items():
                why = pause["reason"] or "no reason given"
                self._note(step, f"{ident}: paused ({why}), skipped")
        except HostError as error:
            self._note(step, f"{error}; retry counters are not reset")

    def _note(self, step: RepairStep, words: str) -> None:
        step.notes.append(words)
        self.told.note(words)

    def _damaged(self) -> bool:
        return bool(self.before.get("past", {}).get("damage"))

    def _failing(self) -> dict[str, str]:
        """The checks that have failed for no other cause and can have something done about it."""
        document = self.before
        if not document:
            return {}
        causes = {one["key"] for one in document["wrong"] if one["follows_from"] is None}
        acts = {one["id"] for one in document["resources"] if one.get("acts")}
        return {
            one["id"]: one["said"]
            for one in document["checks"]
            if one["result"] == "failing" and one["id"] in causes & acts
        }

    def _unwanted(self) -> Collection[str]:
        return {one.id for one in self.spec.resources if not one.present or one.skip is not None}

    def _loop(self, seconds: float) -> int | None:
        """The loop that runs, or does so within that time."""
        from reconciler.host.clock import Clock

        end = time.monotonic() + seconds
        while True:
            found = pulse(self.context.folder(self.spec), Clock())
            if found is not None and found.healthy:
                return found.identity.pid
            if time.monotonic() >= end:
                return None
            time.sleep(0.05)

    def document(self) -> dict[str, Any]:
        """All of it as a JSON value."""
        return {
            "format": FORMAT,
            "spec": self.context.about(self.spec),
            "host": os.uname().nodename,
            "time": round(time.time(), 3),
            "by_loop": self.by_loop,
            "forgiven": [{"id": i, "attempts": n} for i, n in self.reset.items()],
            "paused": list(self.paused.values()),
            "store_set_aside": self.set_aside,
            "found": self.before.get("wrong", []),
            "steps": [_step_document(step) for step in self.steps],
            "changed": [_outcome_document(one) for one in self.changed],
            "wrong": self.after.get("wrong", []),
            "doubts": self.after.get("doubts", []),
            "checks": self.after.get("checks", []),
            "healthy": self.healthy,
            "seconds": round(time.monotonic() - self.began, 3),
        }


def _is_keeper(resource: Any, path: str) -> bool:
    return keeps(resource.want, path)


def _is_late(resource: Any, path: str) -> bool:
    """Has it a step of its own, behind the one for everything else?"""
    return isinstance(kinds.get(resource.kind), Persistent) or _is_keeper(resource, path)


def _done(step: RepairStep) -> str:
    done = sum(one.result == "done" for one in step.outcomes)
    failed = sum(one.result == "failed" for one in step.outcomes)
    words = f"{done} done" if done else "nothing to do"
    return f"{done} done, {failed} failed" if failed else words


def _wrongs(found: dict[str, Any]) -> str:
    number = sum(one["follows_from"] is None for one in found["wrong"])
    if not number:
        return "nothing is wrong"
    return "1 thing is wrong" if number == 1 else f"{number} things are wrong"


def _step_document(step: RepairStep) -> dict[str, Any]:
    return {
        "number": step.number,
        "name": step.name,
        "result": "failed" if step.failed else "done",
        "error": step.error,
        "words": step.words,
        "notes": step.notes,
        "outcomes": [_outcome_document(one) for one in step.outcomes],
        "seconds": round(step.seconds, 3),
    }


def _outcome_document(outcome: Outcome) -> dict[str, Any]:
    step = outcome.step
    return {
        "id": step.id, "verb": step.verb, "why": step.why, "result": outcome.result,
        "error": outcome.error, "seconds": round(outcome.seconds, 3),
    }  # fmt: skip
