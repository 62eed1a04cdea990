"""One diagnosis as what is wrong is looked for in it. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from reconciler.base.errors import Remedy

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
        found: list[str] = []
        todo = [ident]
        while todo:
            one = self.by_id.get(todo.pop(0))
            for need in one["needs"] if one is not None else ():
                if need not in found and need != ident:
                    found.append(need)
                    todo.append(need)
        return found

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
