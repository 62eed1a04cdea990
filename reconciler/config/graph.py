"""How resources bear on one another: one owner for each thing, needs, and one order.

It must not look at the host; what a resource manages and uses is said by its kind.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from typing import Any

from reconciler.base.records import dataclass
from reconciler.base.values import Facts
from reconciler.config.errors import Problems
from reconciler.config.nodes import SourceMark, Text, place
from reconciler.config.resolve import Declared
from reconciler.config.secrecy import censored, shown
from reconciler.core import model, order
from reconciler.core.kind import Completed, Modifying
from reconciler.core.model import Claim, Key, Resource


@dataclass(slots=True)
class GraphEntry:
    """A declared resource and what its kind wants; None when that is not valid."""

    declared: Declared
    want: Any


class Graph:
    """All resources of a spec. ``bases`` are the ids as written, without ``[each]``."""

    def __init__(
        self, entries: list[GraphEntry], bases: set[str], facts: Facts, problems: Problems
    ) -> None:
        self.entries = entries
        self.bases = bases
        self.facts = facts
        self.problems = problems
        self._skip_with_what_is_used(entries)
        self.active = {e.declared.id: e for e in entries if e.declared.skip is None}
        self.needs: dict[str, dict[str, None]] = {name: {} for name in self.active}
        self.after: dict[str, dict[str, None]] = {name: {} for name in self.active}
        self.wishes: list[tuple[SourceMark, str, str | None]] = []
        """Where two that count the same ask for different things: place, message and hint."""
        self._held: dict[str, str] = {}
        """Those, and why they are left alone."""
        self._spared: dict[Key, dict[str, tuple[str, ...]]] = {}
        self._clashing: set[str] = set()
        """Those that manage what another one does, so that they would need one another."""
        self._members: dict[str, list[str]] = {}
        self._bare: dict[str, str] = {}
        for entry in entries:
            declared = entry.declared
            self._members.setdefault(declared.id, []).append(declared.id)
            if declared.base != declared.id:
                self._members.setdefault(declared.base, []).append(declared.id)

    @staticmethod
    def _skip_with_what_is_used(entries: list[GraphEntry]) -> None:
        """What lives in a resource by its name is skipped with it: a process with its session."""
        skips = {entry.declared.id: entry.declared.skip for entry in entries}
        for entry in entries:
            if entry.want is not None and entry.declared.skip is None:
                for key in entry.declared.kind.uses(entry.want):
                    if key.sort == "id" and skips.get(key.value) is not None:
                        entry.declared.skip = skips[key.value]

    def ordered(self, *, whole: bool = True) -> tuple[Resource[Any], ...]:
        """The resources in order; problems are told. ``whole`` is False when some are not valid."""
        before = len(self.problems.found)
        self._written()
        claims = {
            name: tuple(entry.declared.kind.claims(entry.want))
            for name, entry in self.active.items()
            if entry.want is not None
        }
        self._one_owner(claims)
        self._covered(claims)
        self._link(claims)
        self._found(claims)
        resources = self._sorted()
        return resources if whole and len(self.problems.found) == before else ()

    def _written(self) -> None:
        """``needs`` and ``after`` as they were written."""
        for entry in self.entries:
            declared = entry.declared
            for field, ids in (("needs", declared.needs), ("after", declared.after)):
                for text in ids:
                    for other in self._named(text, declared, field):
                        if declared.skip is None and other in self.active:
                            first, then = self._in_turn(other, declared.id)
                            (self.needs if field == "needs" else self.after)[then][first] = None

    def _named(self, text: Text, declared: Declared, field: str) -> Iterator[str]:
        name = str(text)
        if name in self._members:
            if declared.id in self._members[name]:
                self.problems.add(text.at, f"{declared.id}: {field} names the resource itself")
                return
            yield from self._members[name]
        elif name not in self.bases:
            what = f"{declared.id}: {field}: there is no resource {shown(text)!r}"
            if ":" in name:
                self.problems.add(text.at, what, near=(name, self._members))
                return
            if not self._bare:
                self._bare = {other.partition(":")[2]: other for other in self._members}
            full = self._bare.get(name)
            hint = f"did you mean {full!r}?" if full else "an id is kind:name"
            self.problems.add(text.at, what, hint)

    def _one_owner(self, claims: Mapping[str, tuple[Claim, ...]]) -> None:
        """Two of one section may not claim one key; others may not ask for different things."""
        owners: dict[Key, list[tuple[str, Claim]]] = {}
        for name, made in claims.items():
            for claim in made:
                others = owners.setdefault(claim.key, [])
                for other, theirs in others:
                    if other != name and self._clash(name, claim, other, theirs):
                        break
                others.append((name, claim))

    def _clash(self, name: str, claim: Claim, other: str, theirs: Claim) -> bool:
        mine, first = self.active[name].declared, self.active[other].declared
        what = f"{claim.key.sort} {claim.key.value!r}"
        where = _where(first.key.at)
        if mine.kind is first.kind:
            self.problems.add(mine.key.at, f"{name} and {other} ({where}) both manage the {what}")
            self._clashing |= {name, other}
            return True
        both = self.active[name].declared.present and self.active[other].declared.present
        for field in claim.differs(theirs) if both else ():
            value, wanted = _asked(claim, field), _asked(theirs, field)
            if claim.covers is not None and theirs.covers is None:
                self._spare(claim, theirs.key.value, field)
            elif claim.covers is None and theirs.covers is not None:
                self._spare(theirs, claim.key.value, field)
            else:
                what = f"for the {what}, but {other} ({where}) wants {wanted}"
                self._wish(name, other, f"{name} wants {field} {value} {what}")
                return True
        return False

    def _spare(self, wider: Claim, value: str, field: str) -> None:
        spared = self._spared.setdefault(wider.key, {})
        spared[value] = tuple(sorted({*spared.get(value, ()), field}))

    def _wish(self, name: str, other: str, message: str, hint: str | None = None) -> None:
        self.wishes.append((self.active[name].declared.key.at, message, hint))
        for one in (name, other):
            self._held.setdefault(one, message)

    def _covered(self, claims: Mapping[str, tuple[Claim, ...]]) -> None:
        """What is claimed by itself is left out of a pattern or a tree that asks otherwise.

        So is what is to go. Two patterns or trees count the same: each pass would do what the
        other undoes.
        """
        there = sorted(
            (claim.key.value, name, at)
            for name, made in claims.items()
            if self.active[name].declared.present
            or not isinstance(self.active[name].declared.kind, Modifying)
            for at, claim in enumerate(made)
        )
        for value, name, at in there:
            wider = claims[name][at]
            if wider.covers is None or not self.active[name].declared.present:
                continue
            # Only what begins like it can be meant: there may be thousands of both.
            start = re.split(r"[*?[]", value, maxsplit=1)[0]
            for index in range(bisect_left(there, (start,)), len(there)):
                theirs, other, which = there[index]
                if not theirs.startswith(start):
                    break
                claim = claims[other][which]
                near = other != name and claim.key.sort == wider.key.sort and theirs != value
                if near and wider.covers(theirs):
                    if self.active[other].declared.present:
                        self._differs(other, claim, name, wider)
                    else:
                        self._spared.setdefault(wider.key, {})[theirs] = ()

    def _differs(self, name: str, claim: Claim, other: str, wider: Claim) -> None:
        for field in claim.differs(wider):
            if claim.covers is None:
                self._spare(wider, claim.key.value, field)
                continue
            theirs = self.active[other].declared
            self._wish(
                name,
                other,
                f"{name} wants {field} {_asked(claim, field)} for the {claim.key.sort} "
                f"{claim.key.value!r}, but {other} ({_where(theirs.key.at)}) wants "
                f"{_asked(wider, field)} for all of {wider.key.value!r}",
                f"exclude it there, such as with exclude: [{_base(claim.key.value)}]",
            )
            return

    def _link(self, claims: Mapping[str, tuple[Claim, ...]]) -> None:
        """Let every kind fill in what follows from other resources."""
        made: dict[Key, list[Claim]] = {}
        for name, its in claims.items():
            if self.active[name].declared.present:
                for claim in its:
                    made.setdefault(claim.key, []).append(claim)
        wants = {e.declared.id: e.want for e in self.entries}
        present = {name for name, entry in self.active.items() if entry.declared.present}
        everything = model.Declared(wants, made, self.facts, self._spared, present)
        for entry in self.entries:
            declared = entry.declared
            kind = declared.kind
            if entry.want is None or not isinstance(kind, Completed):
                continue  # What is wrong with it has been told.
            try:
                entry.want = kind.linked(entry.want, everything)
            except ValueError as error:
                self.problems.add(*_in_field(declared, *error.args))
                continue
            for field, message in kind.disputed(entry.want):
                if declared.id in present:
                    at, words = _in_field(declared, field, message)
                    self.wishes.append((at, words, None))
                    self._held.setdefault(declared.id, message)

    def _found(self, claims: Mapping[str, tuple[Claim, ...]]) -> None:
        """Needs that follow from what is used and who makes it."""
        makers: dict[Key, list[str]] = {Key("id", name): [name] for name in self.active}
        for name, made in claims.items():
            if not isinstance(self.active[name].declared.kind, Modifying):
                for claim in made:
                    makers.setdefault(claim.key, []).append(name)
        for name, entry in self.active.items():
            uses = entry.declared.kind.uses(entry.want) if entry.want is not None else ()
            for key in uses:
                for other in _nearest(key, name, makers):
                    self._need(name, other)

    def _need(self, name: str, other: str) -> None:
        mine, theirs = self.active[name].declared, self.active[other].declared
        if {name, other} <= self._clashing:
            return
        if mine.present and theirs.present:
            self.needs[name][other] = None
        elif not mine.present and not theirs.present:
            self.needs[other][name] = None
        elif mine.present:
            self.problems.add(
                theirs.key.at,
                f"{other} is to be absent, but {name} ({_where(mine.key.at)}) needs it",
            )

    def _in_turn(self, first: str, then: str) -> tuple[str, str]:
        """In which order they begin, and end the other way round."""
        ends = not any(self.active[name].declared.present for name in (first, then))
        return (then, first) if ends else (first, then)

    def _sorted(self) -> tuple[Resource[Any], ...]:
        before = {name: [*self.needs[name], *self.after[name]] for name in self.active}
        names = [entry.declared.id for entry in self.entries]
        while True:
            try:
                names = order.in_order(names, before)
                break
            except order.Cycle as cycle:
                at = self.active[cycle.ids[0]].declared.key.at
                self.problems.add(
                    at,
                    f"these wait for one another in a circle: {cycle}",
                    "take one of the needs out",
                )
                # There may be another circle, which has none of these.
                before = {name: [] if name in cycle.ids else ids for name, ids in before.items()}
        entries = {entry.declared.id: entry for entry in self.entries}
        return tuple(self._resource(name, entries[name]) for name in names)

    def _resource(self, name: str, entry: GraphEntry) -> Resource[Any]:
        declared = entry.declared
        return Resource(
            name,
            entry.want,
            declared.present,
            tuple(self.needs.get(name, ())),
            tuple(self.after.get(name, ())),
            declared.skip,
            self._held.get(name),
        )


def _asked(claim: Claim, field: str) -> str:
    """What it asks, for people: of a directory, or of a file."""
    either = {each[field] for each in (claim.asks, claim.of_files or {}) if field in each}
    return " or ".join(repr(one) for one in sorted(either))


def _nearest(key: Key, name: str, makers: Mapping[Key, list[str]]) -> list[str]:
    """Who makes ``key``, other than ``name``; for a path the nearest one at or above it."""
    while True:
        found = [other for other in makers.get(key, ()) if other != name]
        if found or key.sort != "path" or key.value in ("", "/"):
            return found
        key = Key("path", key.value.rpartition("/")[0] or "/")


def _base(path: str) -> str:
    return path.rpartition("/")[2]


def _where(mark: SourceMark) -> str:
    return f"{mark.source.shown}, line {mark.source.line_of(mark.start) + 1}"


def _in_field(declared: Declared, field: str, message: str) -> tuple[SourceMark, str]:
    """Where the field stands, and what is wrong with it."""
    at = place(declared.body, field) if field in declared.body else declared.key.at
    message = f"{field}: {censored(message, declared.body)}"
    return at, f"{declared.kind.name} {declared.name!r}: {message}"
