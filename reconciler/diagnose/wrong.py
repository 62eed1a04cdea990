"""What is wrong, what may be its cause, and in which order to tell it. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from reconciler.base.errors import Remedy
from reconciler.base.records import dataclass


@dataclass(frozen=True, slots=True)
class Wrong:
    """One thing that is wrong. The smaller its ``weight``, the more important.

    ``key`` names it, ``ids`` are the resources that it is about, ``fix`` is the one command that
    fixes it, if there is one; ``by`` is who can: ``program`` (a pass of ours) or ``person``.
    ``because`` are keys or ids: if one of them is wrong too, this follows from it. ``certain``
    False: worth a look only.
    """

    key: str
    words: str
    weight: int
    fix: Remedy | None = None
    ids: tuple[str, ...] = ()
    because: tuple[str, ...] = ()
    by: str = "program"
    certain: bool = True

    def document(self, follows: str | None) -> dict[str, Any]:
        """As a JSON value."""
        return {
            "key": self.key,
            "ids": list(self.ids),
            "what": self.words,
            "mend": self.fix,
            "by": self.by,
            "follows_from": follows,
        }


def ordered(found: Sequence[Wrong]) -> list[tuple[Wrong, str | None]]:
    """Most important first; behind each cause what follows from it, with the cause's key."""
    owner: dict[str, Wrong] = {}
    for one in found:
        for name in (one.key, *one.ids):
            owner.setdefault(name, one)
    parents = {one.key: _parent(one, owner) for one in found}
    below: dict[str | None, list[Wrong]] = {}
    for one in found:
        below.setdefault(_root(one.key, parents), []).append(one)
    told: list[tuple[Wrong, str | None]] = []
    for cause in _sorted(one for one in found if _root(one.key, parents) == one.key):
        told.append((cause, None))
        told += [(one, cause.key) for one in _sorted(below[cause.key]) if one is not cause]
    return told


def _parent(one: Wrong, owner: dict[str, Wrong]) -> str | None:
    """The nearest of its causes that is wrong too: the least important, which has its own."""
    causes = [owner[name] for name in one.because if name in owner and owner[name] is not one]
    return _sorted(causes)[-1].key if causes else None


def _root(key: str, parents: dict[str, str | None]) -> str:
    """What it follows from in the end; in a circle, the least of its names."""
    seen = [key]
    while (parent := parents[seen[-1]]) is not None:
        if parent in seen:
            return min(seen[seen.index(parent) :])
        seen.append(parent)
    return seen[-1]


def _sorted(found: Iterable[Wrong]) -> list[Wrong]:
    return sorted(found, key=lambda one: (one.weight, one.key))


Document = Mapping[str, Any]
Command = Callable[..., Remedy]
"""The command line of ours with these words, on the same spec."""

CHECK = 85
"""How much a failing check weighs; see wrong.Wrong."""
HUNG = re.compile(r"(?:\S*/)?([\w.-]+) did not end within")
_SHOWN = 4


class Seen:
    """One diagnosis, and what follows from it."""

    def __init__(self, document: Document, command: Command) -> None:
        self.document = document
        self.command = command
        self.by_id: dict[str, Document] = {one["id"]: one for one in document["resources"]}
        self.well = bool(document["loop"]["running"] and document["loop"]["healthy"])

    # -- what a thing may follow from

    def needs(self, ident: str) -> list[str]:
        """All that it needs, also by way of others; the nearest first."""
        found = {ident: None}
        todo = [ident]
        for name in todo:
            one = self.by_id.get(name)
            for need in one["needs"] if one is not None else ():
                if need not in found:
                    found[need] = None
                    todo.append(need)
        return todo[1:]

    def causes(self, ident: str) -> tuple[str, ...]:
        """What may be the reason that something is wrong with it.

        Not what it needs where that is there and only differs, such as by a mode.
        """
        rows = ((need, self.by_id.get(need, {})) for need in self.needs(ident))
        needs = [need for need, row in rows if row.get("verb") != "update"]
        return (f"stopped {ident}", *needs, *(f"stopped {need}" for need in needs))

    def on_disks(self, ids: Sequence[str]) -> tuple[str, ...]:
        """The file systems of these and of all that they need."""
        wanted = {*ids, *(need for ident in ids for need in self.needs(ident))}
        return tuple(
            f"disk {disk['mount']}"
            for disk in self.document["disks"]
            if wanted.intersection(disk["ids"])
        )


def named(ids: Sequence[str]) -> str:
    """Some names: all of a few, else the first and how many more."""
    shown = ", ".join(ids[:_SHOWN])
    more = len(ids) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
