"""What one pass does, noted before it is done, for ``--undo``.

It must not keep a step from being done, whatever goes wrong here, nor note what is secret.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from reconciler.base.errors import HostError
from reconciler.base.records import replace
from reconciler.core.kind import GetKind
from reconciler.core.model import Observation, Outcome, Plan, Resource, Step
from reconciler.core.observe import failure, observe
from reconciler.undo import MOST, Around, Irreversible, Reversal, reversal, room_of
from reconciler.undo.notes import (
    NotedResource,
    from_plain,
    holds_secret,
    looks_secret,
    noted_resource,
)

if TYPE_CHECKING:
    from reconciler.core.observe import Snapshot
    from reconciler.host import Host
    from reconciler.state.store import Store
    from reconciler.state.store.journal import Noted
    from reconciler.state.tracker import Tracker


class _Note:
    """What takes one step back, or ``why`` nothing does."""

    __slots__ = (
        "begun", "document", "have", "how", "resource", "resources", "result", "room", "step",
        "why", "written",
    )  # fmt: skip

    def __init__(self, resource: Resource[Any], step: Step, have: Any) -> None:
        self.resource = resource
        self.step = step
        self.have = have
        """What was there when it was noted."""
        self.how: Reversal | None = None
        self.resources: Sequence[Resource[Any]] = ()
        self.document: dict[str, Any] = {}
        """As it is written: to ``undo`` it, these resources. By ``left`` it is known that they are
        as the step has left them; where that is not known before, ``made`` is what it is to make.
        """
        self.why: str | None = None
        self.room = 0
        self.begun = False
        """May it have been done?"""
        self.result = ""
        self.written = False

    @property
    def is_only_made(self) -> bool:
        """Is it taken back by removing it alone?"""
        return self.why is None and len(self.resources) == 1 and not self.resources[0].present

    @property
    def is_whole(self) -> bool:
        """Is there nothing more to be noted of it?"""
        if self.why is not None or self.how is None:
            return True
        return self.result == "done" and (self.how.sure or "left" in self.document)


class PassJournal:
    """The notes of one pass; ``known`` gives the definition that was last started, by id."""

    def __init__(self, get_kind: GetKind, host: Host, known: Callable[[str], Any]) -> None:
        self._get_kind = get_kind
        self._host = host
        self._known = known
        self._now = Around(host, known, set())
        self._left = MOST
        self._notes: dict[str, _Note] = {}
        self._started: dict[str, _Note | None] = {}
        """What was started, by id, since that was written down last; None: it was stopped."""

    def intends(self, look: Snapshot) -> None:
        """The steps of that plan are about to be done. Of several about one thing the first
        counts."""
        by_id = {one.id: one for one in look.spec.resources}
        then = Around(self._host, self._known, set())
        new: list[_Note] = []
        for step in look.plan.steps:
            if step.denied is None and step.id not in self._notes:
                note = _Note(by_id[step.id], step, look.seen[step.id].state)
                self._notes[step.id] = note
                self._take(note, then)
                new.append(note)
                # They are there for the steps behind it.
                for one in note.resources:
                    if not one.present and one.kind == "directory":
                        then.there.add(one.want.path)
        _write_up(new)

    def begins(self, resource: Resource[Any], step: Step, have: Any) -> None:
        """A step is about to act on that state, which may be another one than was planned for."""
        note = self._notes.get(resource.id)
        if note is not None and (note.begun or self._is_still(note, have)):
            note.begun = True
            return
        found = self._notes[resource.id] = _Note(resource, step, have)
        found.begun = True
        if note is not None:
            self._left += note.room
        self._take(found, self._now)
        if note is not None and (found.resources, found.why) == (note.resources, note.why):
            found.document, found.written = note.document, note.written
        else:
            _write_up([found])

    def _is_still(self, note: _Note, have: Any) -> bool:
        """Is it still what was planned that takes it back?"""
        if note.why is not None or note.how is None:
            return False
        try:
            if have is None:
                path = getattr(note.resource.want, "path", None) or ""
                return note.is_only_made and not self._now.missing_above(path)
            return have == note.have and note.how.is_still(note.have, have)
        except Exception:
            return False  # Why it is not is said by who asks again.

    def _take(self, note: _Note, around: Around) -> None:
        """Ask what takes a step back."""
        try:
            note.how = how = reversal(note.resource.kind)
            if how is None:
                raise Irreversible("nothing says how")
            note.resources = how.before(note.resource, note.step, note.have, around)
            note.room = sum(map(_room, note.resources))
            self._left -= note.room
            if self._left < 0:
                what = f"more than {MOST >> 20} MiB of files and paths are changed with it"
                raise Irreversible(what)
        except Exception as error:
            note.resources, note.why = (), _why(error)

    def why(self, ident: str) -> str | None:
        """Why that step cannot be undone."""
        note = self._notes.get(ident)
        return None if note is None else note.why

    def ended(self, outcomes: Sequence[Outcome]) -> None:
        """Steps have come to their end."""
        for one in outcomes:
            note = self._notes.get(one.step.id)
            if note is None or not note.begun:
                continue
            if one.result in ("dropped", "skipped"):
                note.begun = bool(note.result)
                continue
            note.result, resource = one.result, note.resource
            if note.how is None or not note.how.defines:
                continue
            if resource.present and one.result == "done":
                self._started[resource.id] = note
            elif not resource.present and one.result in ("done", "begun"):
                self._started[resource.id] = None

    def intents(self) -> Noted:
        """What is to be written before the steps that are planned are done."""
        found = {i: note.document for i, note in self._notes.items() if not note.written}
        return {"notes": found} if found else {}

    def rows(self, goes_on: bool = False) -> Noted | None:
        """What is to be written behind the steps; None: there is nothing to take back, also of what
        was noted before, unless the pass ``goes_on`` that another process has begun."""
        asked = {i: one for i, one in self._notes.items() if one.result and not one.is_whole}
        resources = [one for note in asked.values() for one in note.resources]
        seen = seen_now(resources, self._get_kind, self._host)
        left, void = {}, []
        for ident, note in list(self._notes.items()):
            if not note.result:
                is_void = not note.begun
            elif ident in asked:
                differ = [differs(one, seen[one.id], self._get_kind) for one in note.resources]
                is_void = note.result != "begun" and not any(differ)
                left[ident] = [trace(one, seen[one.id]) for one in note.resources]
            else:
                is_void = not note.document.get("undo", True)
            if is_void:
                del self._notes[ident]
                left.pop(ident, None)
                void.append(ident)
        if not (self._notes or goes_on):
            return None
        cut = any(not note.result for note in self._notes.values())
        return {"notes": {}, **self.intents(), "left": left, "void": void, "ended": not cut}

    def wrote(self) -> None:
        """What was to be written is."""
        for note in self._notes.values():
            note.written = True

    def definitions(self) -> dict[str, Any | None]:
        """From what was started, by id; None: it was stopped for good, or is not kept."""
        started, self._started = self._started, {}
        found: dict[str, Any] = {}
        for ident, note in started.items():
            if (
                note is not None
                and note.is_only_made
                and note.resources[0].want == note.resource.want
            ):
                found[ident] = note.resource.want  # It is known to hold no secret.
            elif note is not None:
                one = [noted_resource(note.resource)]
                secret = holds_secret(one) or looks_secret(one)
                found[ident] = None if secret else note.resource.want
        return dict.fromkeys(started) | found

    @staticmethod
    def not_noted(noted: Noted) -> Noted:
        """What stands in place of that where there was no room: that it is lacking."""
        why = "there was no room in the store for what was noted of it"
        notes = {ident: {"why": why} for ident in noted["notes"]}
        whole = bool(noted.get("ended")) and not (noted.get("left") or noted.get("void"))
        return {"notes": notes, "ended": whole} if notes else {}


def seen_now(
    resources: Sequence[Resource[Any]], get_kind: GetKind, host: Host
) -> dict[str, Observation[Any]]:
    """A look at what takes steps back, by id: at what is to go as if it were declared present.

    What the host remembers was seen behind the last step.
    """
    as_present = [one if one.present else Resource(one.id, one.want) for one in resources]
    remembers, host.remembers = host.remembers, False  # It only looks, and takes over nothing.
    try:
        seen = observe(as_present, get_kind, host, fresh=False)
        odd = [one for one in resources if not one.present and seen[one.id].unknown is not None]
        gone = observe(odd, get_kind, host, fresh=False) if odd else {}
    finally:
        host.remembers = remembers
    return seen | {i: one for i, one in gone.items() if (one.unknown, one.state) == (None, None)}


def differs(one: Resource[Any], seen: Observation[Any], get_kind: GetKind) -> bool:
    """Is there anything to be done to make it so? It was seen as if it were declared present."""
    if seen.unknown is not None or seen.unsure is not None:
        return True
    if one.present:
        kind = get_kind(one.kind)
        return bool(kind.changes(kind.expected(one.want), seen.state))
    return seen.state is not None and getattr(seen.state, "there", None) is not False


def trace(one: Resource[Any], seen: Observation[Any]) -> str:
    """By what it is known whether it was changed."""
    how = reversal(one.kind)
    if seen.unknown is not None or how is None:
        return "?"
    return how.trace(seen.state)


def marked(look: Snapshot, get_kind: GetKind, host: Host, store: Store | None) -> Plan:
    """The plan, in which each step says what of it cannot be undone."""
    journal = PassJournal(get_kind, host, known_by(store))
    journal.intends(look)
    steps = [(step, journal.why(step.id)) for step in look.plan.steps]
    found = (step if why is None else replace(step, final=why) for step, why in steps)
    return replace(look.plan, steps=tuple(found))


def journal_of(tracker: Tracker, get_kind: GetKind, host: Host) -> PassJournal:
    """The notes of the pass that this tracker is about."""
    if tracker.journal is None:
        tracker.journal = PassJournal(get_kind, host, known_by(tracker.store))
    return tracker.journal


def known_by(store: Store | None) -> Callable[[str], Any]:
    """The definitions of that store, without their secrets."""
    ids: set[str] | None = None

    def known(ident: str) -> Any:
        nonlocal ids
        if store is None:
            return None
        if ids is None:
            ids = store.journal.defined()
        try:
            return from_plain(store.journal.definition(ident), None) if ident in ids else None
        except (Irreversible, ValueError, KeyError, TypeError):
            return None  # It is of another version, or damaged.

    return known


def _write_up(notes: Sequence[_Note]) -> None:
    """Make the documents of what takes these back, but for what is secret."""
    for note in notes:
        if note.why is None:
            try:
                note.document = _document(note)
            except Exception as error:
                note.why = _why(error)
    kept = [note for note in notes if note.why is None]
    for holds, some in (
        (holds_secret, kept),
        (looks_secret, [note for note in kept if note.how and note.how.defines]),
    ):
        # All at once; most often there is none.
        if some and holds(one for note in some for one in _noted(note.document)):
            for note in some:
                if holds(note.document["undo"]):
                    note.why = "it holds a secret, and is not kept"
                elif holds(_noted(note.document)):
                    note.document["made"] = None
    for note in notes:
        if note.why is not None:
            note.document = {"why": note.why}


def _noted(document: dict[str, Any]) -> list[NotedResource]:
    """All resources of a note."""
    made = document.get("made")
    return document["undo"] if made is None else [*document["undo"], made]


def _document(note: _Note) -> dict[str, Any]:
    how, resource = note.how, note.resource
    assert how is not None
    document: dict[str, Any] = {"undo": list(map(noted_resource, note.resources))}
    left = how.made(resource) if note.is_only_made else None
    if left is not None:
        document["left"] = [left]
    elif not how.sure:
        want = resource.want
        hidden = getattr(want, "secret", None) is True or getattr(want, "hides", None) is True
        document["made"] = None if hidden else noted_resource(resource)
    return document


def _room(one: Resource[Any]) -> int:
    """What it takes of the bytes that are noted of one pass."""
    if one.kind == "permission":
        return sum([room_of(path) for path, *_ in one.want.former or ()])
    content, moved = getattr(one.want, "content", None), getattr(one.want, "returned", None)
    room = len(content) if isinstance(content, str) else 0
    return room + sum(room_of(f"{file[1]}/{file[2]}") for file in moved or ())


def _why(error: Exception) -> str:
    if isinstance(error, (Irreversible, HostError)):
        return str(error)
    return failure(error)
