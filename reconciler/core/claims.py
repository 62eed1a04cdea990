"""Who manages and uses what on the host, for the rule of one owner. Plain data, no I/O."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from reconciler.base.records import dataclass, field
from reconciler.base.values import Facts


@dataclass(frozen=True, slots=True)
class Key:
    """What a resource owns or uses on the host: ``Key("path", "/srv/x")``."""

    sort: str
    value: str


@dataclass(frozen=True, slots=True)
class Claim:
    """A resource manages ``key``. ``asks`` is what it asks of it, field by field.

    Two resources of one section may not claim the same key. ``asks_below`` is what it asks of
    every directory below a path, where it claims a whole ``tree``. ``of_files``: what it asks
    where the path is no directory, if that is something else.

    ``covers`` says of the value of another key of that sort whether it is about that as well, by
    a pattern or as a part of a tree. What is claimed by itself comes before that. ``itself``: it
    is about a symlink at that path, and not about what that leads to.
    """

    key: Key
    asks: Mapping[str, str] = field(default_factory=dict)
    asks_below: Mapping[str, str] = field(default_factory=dict)
    covers: Callable[[str], bool] | None = None
    of_files: Mapping[str, str] | None = None
    tree: bool = False
    itself: bool = False

    def differs(self, other: Claim) -> list[str]:
        """The fields of which both ask something else, so that each would undo the other.

        Of a path nobody knows whether it is a directory; only trees have both sorts in them.
        """
        found: dict[str, list[bool]] = {}
        for mine, theirs in (
            (self.asks, other.asks),
            (self.asks if self.of_files is None else self.of_files,
             other.asks if other.of_files is None else other.of_files),
        ):  # fmt: skip
            for name in mine.keys() & theirs.keys():
                found.setdefault(name, []).append(mine[name] != theirs[name])
        certain = any if self.tree and other.tree else all
        return sorted(name for name, all_of_it in found.items() if certain(all_of_it))


@dataclass(frozen=True, slots=True)
class Declarations:
    """All that one spec declares, for a kind that must know of others.

    ``wants`` maps ids to what was written, or to None where that is not valid. ``claims`` holds
    those of all present resources that are not skipped, by their key, and ``present`` the ids of
    these. ``spared`` has, by the key of a claim that covers others, the keys of those that are
    claimed by themselves and ask for something else, with the fields of which they do; with
    none, those that are to go.
    """

    wants: Mapping[str, Any]
    claims: Mapping[Key, Sequence[Claim]]
    facts: Facts
    spared: Mapping[Key, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    present: Collection[str] = ()
    below: dict[str, Mapping[str, str]] = field(default_factory=dict)
    """What ``asked_below`` knows so far."""

    def asked_below(self, folder: str) -> Mapping[str, str]:
        """What trees ask of the directories in ``folder`` (empty for ``/``), the nearest first."""
        known = self.below.get(folder)
        if known is None:
            own: dict[str, str] = {}
            for claim in self.claims.get(Key("path", folder or "/"), ()):
                own = {**claim.asks_below, **own}
            above = self.asked_below(folder.rpartition("/")[0]) if folder else {}
            known = self.below[folder] = {**above, **own}
        return known
