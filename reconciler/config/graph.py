"""How resources bear on one another: one owner for each thing, needs, and one order.

It must not look at the host; what a resource manages and uses is said by its kind.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from reconciler.base.values import Facts
from reconciler.config.errors import Problems
from reconciler.config.nodes import SourceMark, Text, censored, shown
from reconciler.config.resolve import Declaration
from reconciler.core import claims as claims_of
from reconciler.core import order
from reconciler.core.claims import Claim, Key
from reconciler.core.kind import Completed, Modifying
from reconciler.core.model import Resource


class Graph:
    """All resources of a spec. ``bases`` are the ids as written, without ``[each]``."""

    def __init__(
        self,
        declared: Sequence[Declaration],
        bases: Collection[str],
        facts: Facts,
        problems: Problems,
    ) -> None:
        self.declared = declared
        self.bases = bases
        self.facts = facts
        self.problems = problems
        self._skip_with_what_is_used()
        self.active = {one.id: one for one in declared if one.skip is None}
        # Most need nothing: only others have an entry here.
        self.needs: dict[str, dict[str, None]] = {}
        self.after: dict[str, dict[str, None]] = {}
        self.wishes: list[tuple[SourceMark, str, str | None]] = []
        """Where two that count the same ask for different things: place, message and hint."""
        self._held: dict[str, str] = {}
        """Those, and why they are left alone."""
        self._spared: dict[Key, dict[str, tuple[str, ...]]] = {}
        self._clashing: set[str] = set()
        """Those that manage what another one does, so that they would need one another."""
        self._by_id = {one.id: one for one in declared}
        self._members: dict[str, list[str]] = {}
        """The ids that ``for_each`` has made of a base."""
        self._bare: dict[str, str] = {}
        self._makers_of: dict[str, Sequence[str]] = {}
        """Those at or above a folder, as far as they are known."""
        for one in declared:
            if one.base != one.id:
                self._members.setdefault(one.base, []).append(one.id)

    def _skip_with_what_is_used(self) -> None:
        """What lives in a resource by its name is skipped with it: a process with its session."""
        skips = {one.id: one.skip for one in self.declared if one.skip is not None}
        for one in self.declared if skips else ():
            if one.want is not None and one.skip is None:
                for key in one.kind.uses(one.want):
                    if key.sort == "id" and key.value in skips:
                        one.skip = skips[key.value]

    def ordered(self, *, whole: bool = True) -> tuple[Resource[Any], ...]:
        """The resources in order; ``whole`` is False when some are not valid."""
        before = len(self.problems.found)
        self._written()
        claims = {
            name: tuple(one.kind.claims(one.want))
            for name, one in self.active.items()
            if one.want is not None
        }
        self._one_owner(claims)
        self._covered(claims)
        self._link(claims)
        self._found(claims)
        resources = self._sorted()
        return resources if whole and len(self.problems.found) == before else ()

    def _written(self) -> None:
        """``needs`` and ``after`` as they were written."""
        for one in self.declared:
            for field, ids in (("needs", one.needs), ("after", one.after)):
                for text in ids:
                    for other in self._named(text, one, field):
                        if one.skip is None and other in self.active:
                            first, then = self._in_turn(other, one.id)
                            links = self.needs if field == "needs" else self.after
                            links.setdefault(then, {})[first] = None

    def _named(self, text: Text, declared: Declaration, field: str) -> Sequence[str]:
        name = str(text)
        members = (name,) if name in self._by_id else self._members.get(name, ())
        if declared.id in members:
            self.problems.add(text.at, f"{declared.id}: {field} names the resource itself")
            return ()
        if not members and name not in self.bases:
            what = f"{declared.id}: {field}: there is no resource {shown(text)!r}"
            known = [*self._by_id, *self._members]
            if ":" in name:
                self.problems.add(text.at, what, near=(name, known))
                return ()
            if not self._bare:
                self._bare = {other.partition(":")[2]: other for other in known}
            full = self._bare.get(name)
            hint = f"did you mean {full!r}?" if full else "an id is kind:name"
            self.problems.add(text.at, what, hint)
        return members

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
        mine, first = self.active[name], self.active[other]
        what = f"{claim.key.sort} {claim.key.value!r}"
        where = first.at
        if mine.kind is first.kind:
            self.problems.add(mine.at, f"{name} and {other} ({where}) both manage the {what}")
            self._clashing |= {name, other}
            return True
        both = self.active[name].present and self.active[other].present
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
        self.wishes.append((self.active[name].at, message, hint))
        for one in (name, other):
            self._held.setdefault(one, message)

    def _covered(self, claims: Mapping[str, tuple[Claim, ...]]) -> None:
        """What is claimed by itself is left out of a pattern or a tree that asks otherwise.

        So is what is to go. Two patterns or trees count the same: each pass would do what the
        other undoes.
        """
        if all(claim.covers is None for made in claims.values() for claim in made):
            return
        there = sorted(
            (claim.key.value, name, at)
            for name, made in claims.items()
            if self.active[name].present or not isinstance(self.active[name].kind, Modifying)
            for at, claim in enumerate(made)
        )
        for value, name, at in there:
            wider = claims[name][at]
            if wider.covers is None or not self.active[name].present:
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
                    if self.active[other].present:
                        self._differs(other, claim, name, wider)
                    else:
                        self._spared.setdefault(wider.key, {})[theirs] = ()

    def _differs(self, name: str, claim: Claim, other: str, wider: Claim) -> None:
        for field in claim.differs(wider):
            if claim.covers is None:
                self._spare(wider, claim.key.value, field)
                continue
            theirs = self.active[other]
            self._wish(
                name,
                other,
                f"{name} wants {field} {_asked(claim, field)} for the {claim.key.sort} "
                f"{claim.key.value!r}, but {other} ({theirs.at}) wants "
                f"{_asked(wider, field)} for all of {wider.key.value!r}",
                f"exclude it there, such as with exclude: [{_base(claim.key.value)}]",
            )
            return

    def _link(self, claims: Mapping[str, tuple[Claim, ...]]) -> None:
        """Let every kind fill in what follows from other resources."""
        made: dict[Key, list[Claim]] = {}
        for name, its in claims.items():
            if self.active[name].present:
                for claim in its:
                    made.setdefault(claim.key, []).append(claim)
        wants = {one.id: one.want for one in self.declared}
        present = {name for name, one in self.active.items() if one.present}
        everything = claims_of.Declarations(wants, made, self.facts, self._spared, present)
        for one in self.declared:
            kind = one.kind
            if one.want is None or not isinstance(kind, Completed):
                continue  # What is wrong with it has been reported.
            try:
                one.want = kind.linked(one.want, everything)
            except ValueError as error:
                self.problems.add(*_in_field(one, *error.args))
                continue
            for field, message in kind.disputed(one.want):
                if one.id in present:
                    self.wishes.append((*_in_field(one, field, message), None))
                    self._held.setdefault(one.id, message)

    def _found(self, claims: Mapping[str, tuple[Claim, ...]]) -> None:
        """Needs that follow from what is used and who makes it."""
        makers: dict[Key, list[str]] = {}
        for name, made in claims.items():
            if not isinstance(self.active[name].kind, Modifying):
                for claim in made:
                    makers.setdefault(claim.key, []).append(name)
        for name, one in self.active.items():
            uses = one.kind.uses(one.want) if one.want is not None else ()
            for key in uses:
                by_id = [key.value] if key.value in self.active else []
                for other in by_id if key.sort == "id" else self._nearest(key, name, makers):
                    self._need(name, other)

    def _nearest(self, key: Key, name: str, makers: Mapping[Key, list[str]]) -> Sequence[str]:
        """Who makes ``key``, other than ``name``; for a path the nearest one at or above it."""
        found = [other for other in makers.get(key, ()) if other != name]
        if found or key.sort != "path" or key.value in ("", "/"):
            return found
        folder = key.value.rpartition("/")[0] or "/"
        if folder not in self._makers_of:
            self._makers_of[folder] = self._nearest(Key("path", folder), "", makers)
        above = self._makers_of[folder]
        return above if name not in above else self._nearest(Key("path", folder), name, makers)

    def _need(self, name: str, other: str) -> None:
        mine, theirs = self.active[name], self.active[other]
        if {name, other} <= self._clashing:
            return
        if mine.present and theirs.present:
            self.needs.setdefault(name, {})[other] = None
        elif not mine.present and not theirs.present:
            self.needs.setdefault(other, {})[name] = None
        elif mine.present:
            self.problems.add(
                theirs.at,
                f"{other} is to be absent, but {name} ({mine.at}) needs it",
            )

    def _in_turn(self, first: str, then: str) -> tuple[str, str]:
        """In which order they begin, and end the other way round."""
        ends = not any(self.active[name].present for name in (first, then))
        return (then, first) if ends else (first, then)

    def _sorted(self) -> tuple[Resource[Any], ...]:
        before = {
            name: [*self.needs.get(name, ()), *self.after.get(name, ())]
            for name in self.needs.keys() | self.after.keys()
        }
        names = [one.id for one in self.declared]
        while True:
            try:
                names = order.in_order(names, before)
                break
            except order.Cycle as cycle:
                at = self.active[cycle.ids[0]].at
                self.problems.add(
                    at,
                    f"these wait for one another in a circle: {cycle}",
                    "take one of the needs out",
                )
                # There may be another circle, which has none of these.
                before = {name: [] if name in cycle.ids else ids for name, ids in before.items()}
        declared = self._by_id
        return tuple(
            Resource(
                name,
                declared[name].want,
                declared[name].present,
                tuple(self.needs.get(name, ())),
                tuple(self.after.get(name, ())),
                declared[name].skip,
                self._held.get(name),
            )
            for name in names
        )


def _asked(claim: Claim, field: str) -> str:
    """What it asks, for people: of a directory, or of a file."""
    either = {each[field] for each in (claim.asks, claim.of_files or {}) if field in each}
    return " or ".join(repr(one) for one in sorted(either))


def _base(path: str) -> str:
    return path.rpartition("/")[2]


def _in_field(declared: Declaration, field: str, message: str) -> tuple[SourceMark, str]:
    """Where the field stands, and what is wrong with it."""
    message = censored(message, declared.body)
    return declared.place(field), f"{declared.title}: {field}: {message}"
