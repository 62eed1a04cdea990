"""What is wrong, and in which order to tell it: causes before what follows from them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from reconciler.base.errors import Remedy
from reconciler.base.records import dataclass


@dataclass(frozen=True, slots=True)
class Wrong:
    """One thing that is wrong. The smaller its ``weight``, the more important.

    ``key`` names it, ``ids`` are the resources that it is about, ``mend`` is the one command that
    mends it, if there is one; ``by`` is who can: ``program`` (a pass of ours) or ``person``.
    ``because`` are keys or ids: if one of them is wrong too, this follows from it. ``certain``
    False: worth a look only.
    """

    key: str
    words: str
    weight: int
    mend: Remedy | None = None
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
            "mend": self.mend,
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
