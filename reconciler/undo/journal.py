"""What one pass does, noted step by step while it goes on, for ``--undo``.

It must not keep a step from being done, whatever goes wrong here, nor note what is secret.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from reconciler.base.errors import HostError
from reconciler.base.records import class_of, is_record, name_of, names, replace
from reconciler.base.text import censored, redacted_json
from reconciler.base.values import Secret, secrets, strings
from reconciler.core.kind import GetKind
from reconciler.core.model import Observation, Outcome, Plan, Resource, Step
from reconciler.core.observe import failure, observe
from reconciler.undo import MOST, Around, Irreversible, reversal, room_of

if TYPE_CHECKING:
    from reconciler.core.observe import Snapshot
    from reconciler.host import Host
    from reconciler.state.store import Store
    from reconciler.state.tracker import Tracker

Rows = Sequence[tuple[str, bytes | None]]
"""What is to be written of steps, by id; None: nothing any more."""

_encode = json.JSONEncoder(separators=(",", ":")).encode
_FLAT = frozenset((type(None), bool, int, float, str))
_CLASS = "is"
_SHORT = 1000
"""Bytes up to which nothing is gained by packing."""


class _Note:
    """What takes one step back, or ``why`` nothing does. ``begun``: it may have been done."""

    def __init__(self, resource: Resource[Any], step: Step) -> None:
        self.resource = resource
        self.step = step
        self.resources: Sequence[Resource[Any]] = ()
        self.document: list[Any] = []
        self.made: list[Any] | bool | None = None
        """What it is to leave; True: what takes it back, present in place of absent."""
        self.why: str | None = None
        self.room = 0
        self.begun = False
        self.result = ""
        self.data = b""

    @property
    def is_only_made(self) -> bool:
        """Is it taken back by removing it alone?"""
        return self.why is None and len(self.resources) == 1 and not self.resources[0].present

    def row(self, left: list[str] | None) -> bytes:
        """As it is written. Before the step is done it has not ``left`` anything; what it is to
        leave tells then whether it was done."""
        document: dict[str, Any] = {"verb": self.step.verb, "undo": self.document}
        document |= {"made": self.made} if left is None else {"left": left}
        return packed(document | ({} if self.why is None else {"why": self.why}))


class PassJournal:
    """The notes of one pass; ``known`` gives the definition that was last started, by id."""

    def __init__(self, get_kind: GetKind, host: Host, known: Callable[[str], Any]) -> None:
        self._get_kind = get_kind
        self._host = host
        self._known = known
        self._now = Around(host, known, set())
        self._left = MOST
        self._notes: dict[str, _Note] = {}
        self._definitions: dict[str, bytes | None] = {}

    def intends(self, look: Snapshot) -> None:
        """The steps of that plan are about to be done. Of several about one thing the first
        counts."""
        by_id = {one.id: one for one in look.spec.resources}
        then = Around(self._host, self._known, set())
        for step in look.plan.steps:
            if step.denied is None and step.id not in self._notes:
                note = self._notes[step.id] = _Note(by_id[step.id], step)
                self._take(note, look.seen[step.id].state, then)
                # They are there for the steps behind it.
                made = (one for one in note.resources if one.kind == "directory")
                then.there.update(one.want.path for one in made if not one.present)

    def begins(self, resource: Resource[Any], step: Step, have: Any) -> None:
        """A step is about to act on that state, which may be another one than was planned for."""
        note = self._notes.get(resource.id)
        if note is None or not note.begun:
            path = getattr(resource.want, "path", None) or ""
            made = note is not None and have is None and note.is_only_made
            if note is not None and made and not self._now.missing_above(path):
                note.step, note.begun = step, True  # It is still missing.
                return
            found = self._notes[resource.id] = _Note(resource, step)
            found.begun = True
            if note is not None:
                self._left += note.room
                found.data = note.data
            self._take(found, have, self._now, note)

    def _take(self, note: _Note, have: Any, around: Around, planned: _Note | None = None) -> None:
        """Note what takes a step back; most often it is what was ``planned``."""
        try:
            how = reversal(note.resource.kind)
            if how is None:
                raise Irreversible("nothing says how")
            resources = how.before(note.resource, note.step, have, around)
            note.room = sum(map(_room, resources))
            self._left -= note.room
            if self._left < 0:
                what = f"more than {MOST >> 20} MiB of files and paths are changed with it"
                raise Irreversible(what)
            if planned is not None and planned.why is None and planned.resources == resources:
                note.resources, note.document = planned.resources, planned.document
                note.made = planned.made
                return
            document = [plain_resource(one) for one in resources]
            wants = [one.want for one in resources] if how.defines else []
            if _tells_secret(document, *wants):
                raise Irreversible("it holds a secret, and is not kept")
            note.resources, note.document = resources, document
            same = note.is_only_made and resources[0].want == note.resource.want
            note.made = same or _made(note.resource)
        except Exception as error:
            note.why = _why(error)

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
            how = reversal(resource.kind)
            if how is None or not how.defines:
                continue
            if not resource.present and one.result in ("done", "begun"):
                self._definitions[resource.id] = None
            elif resource.present and one.result == "done":
                data = plain(resource.want)
                told = _tells_secret(data, resource.want)
                self._definitions[resource.id] = None if told else packed(data)

    def intents(self) -> Rows:
        """What is to be written before the steps that are planned are done, by id."""
        found: list[tuple[str, bytes | None]] = []
        for ident, note in self._notes.items():
            if not note.data:
                note.data = note.row(None)
                found.append((ident, note.data))
        return found

    def rows(self) -> Rows:
        """What is to be written behind the steps, by id; None: there is nothing to take back."""
        resources = [one for note in self._notes.values() for one in note.resources if note.result]
        seen = seen_now(resources, self._get_kind, self._host)
        found: list[tuple[str, bytes | None]] = []
        for ident, note in list(self._notes.items()):
            data: bytes | None = None
            if note.result:
                left = [trace(one, seen[one.id]) for one in note.resources]
                differ = [differs(one, seen[one.id], self._get_kind) for one in note.resources]
                if note.why is not None or any(differ) or note.result == "begun":
                    data = note.row(left)
            elif note.begun:
                data = note.row(None)  # It was cut short.
            else:
                del self._notes[ident]
            if data != (note.data or None):
                found.append((ident, data))
            note.data = data or b""
        return found

    def definitions(self) -> dict[str, bytes | None]:
        """What was started, by id; None: it was stopped for good."""
        found, self._definitions = self._definitions, {}
        return found

    @staticmethod
    def not_noted(rows: Rows) -> Rows:
        """What stands in place of these rows where there was no room: that they are lacking."""
        data = packed({"why": "there was no room in the store for what was noted of it"})
        return [(ident, data) for ident, noted in rows if noted is not None]


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

    def known(ident: str) -> Any:
        data = None if store is None else store.journal.definition(ident)
        try:
            return None if data is None else from_plain(unpacked(data), None)
        except (Irreversible, ValueError, KeyError, TypeError):
            return None  # It is of another version, or damaged.

    return known


def plain(value: Any) -> Any:
    """A value of records and tuples as JSON; of a secret its digest. Raises TypeError."""
    cls = type(value)
    if cls in _FLAT:
        return value
    if isinstance(value, tuple):
        return [plain(one) for one in value]
    if cls is Secret:
        return {_CLASS: "secret", "digest": value.digest}
    known, fields = _described(cls)  # type: ignore[arg-type]
    found = {_CLASS: known}
    for name in fields:
        one = getattr(value, name)
        found[name] = one if type(one) in _FLAT else plain(one)
    return found


@cache
def _described(cls: type) -> tuple[str, tuple[str, ...]]:
    if not is_record(cls):
        raise TypeError(f"no way to keep a {cls.__name__}")
    return name_of(cls), names(cls)


def from_plain(value: Any, known: Mapping[str, Secret] | None) -> Any:
    """The value again, with those secrets that are ``known``, by digest; None: without.

    Raises Irreversible.
    """
    if isinstance(value, list):
        return tuple(from_plain(one, known) for one in value)
    if not isinstance(value, dict):
        return value
    name = str(value.get(_CLASS))
    if name == "secret":
        if known is None:
            return Secret(None, value["digest"])
        if value["digest"] not in known:
            raise Irreversible("a value of its environment is another one now, and is not kept")
        return known[value["digest"]]
    fields = {key: from_plain(one, known) for key, one in value.items() if key != _CLASS}
    try:
        if name.startswith("reconciler."):
            return class_of(name)(**fields)
    except (AttributeError, ImportError, KeyError, TypeError):
        pass
    raise Irreversible("it was noted by another version of this program")


def secrets_in(value: Any) -> dict[str, Secret]:
    """All secrets of a value that have their value, by digest."""
    return {one.digest: one for one in secrets(value) if one.value is not None}


def plain_resource(one: Resource[Any]) -> list[Any]:
    """A resource of a reversal."""
    return [one.id, one.present, plain(one.want)]


def packed(document: Any) -> bytes:
    """A JSON value as it is written."""
    data = _encode(document).encode()
    if len(data) <= _SHORT:
        return data
    import zlib

    return zlib.compress(data, 1)


def unpacked(data: bytes) -> Any:
    """The JSON value again. Raises ValueError."""
    import zlib

    try:
        return json.loads(data if data[:1] in b"{[" else zlib.decompress(data))
    except (TypeError, zlib.error):
        raise ValueError("it is damaged") from None


def _room(one: Resource[Any]) -> int:
    """What it takes of the bytes that are noted of one pass."""
    content, moved = getattr(one.want, "content", None), getattr(one.want, "returned", None)
    room = len(content) if isinstance(content, str) else 0
    if one.kind == "permission":
        room += sum(room_of(entry[0]) for entry in one.want.former or ())
    return room + sum(room_of(f"{file[1]}/{file[2]}") for file in moved or ())


def _made(resource: Resource[Any]) -> list[Any] | None:
    """What a step is to leave; None where that holds a secret."""
    want = resource.want
    if getattr(want, "secret", None) is True or getattr(want, "hides", None) is True:
        return None
    try:
        document = plain_resource(resource)
    except TypeError:
        return None
    how = reversal(resource.kind)
    wants = [want] if how is not None and how.defines else []
    return None if _tells_secret(document, *wants) else document


def _tells_secret(document: Any, *wants: Any) -> bool:
    """Does it hold a secret, or do the commands of those look as if they did?"""
    if redacted_json(document) != document:
        return True
    text = "\n".join(one for want in wants for one in strings(want))
    return bool(text) and censored(text, most=None) != text


def _why(error: Exception) -> str:
    if isinstance(error, (Irreversible, HostError)):
        return str(error)
    return failure(error)
