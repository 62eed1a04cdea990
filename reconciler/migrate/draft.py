"""A spec that is made from other files: what came from where, and what has no equivalent.

It must not print anything, nor look at the host. What the checker of specs refuses becomes a
comment at its place, so that what is left is always valid.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from reconciler.base.errors import HostError
from reconciler.base.text import count_of, printable
from reconciler.config.errors import Problem
from reconciler.migrate.document import Block, Origin, Place, dump


class LeftOut(NamedTuple):
    """What has no equivalent, and why."""

    origin: Origin
    reason: str

    def __str__(self) -> str:
        return printable(f"{self.origin}: {self.reason}", 500)


class Draft:
    """The sections of a spec, each with its resources."""

    def __init__(self, name: str, about: Sequence[str] = ()) -> None:
        self.document = Block()
        for line in about:
            self.document.say(printable(line))
        self.document.put("version", 1)
        self.document.put("name", slug(name, 64))
        self.left: list[LeftOut] = []

    def add(self, section: str, name: str, origin: Origin | None = None) -> Block:
        """A new resource; its name becomes one that is free."""
        resources = self.document.setdefault(section, Block())
        stem = name = slug(name)
        number = 1
        while name in resources:
            number += 1
            name = f"{stem}-{number}"
        made = Block()
        resources.put(name, made, origin)
        return made

    def leave(self, block: Block, origin: Origin, reason: str, before: str | None = None) -> None:
        """Something has no equivalent: a comment in ``block``, and a line for people."""
        left = LeftOut(origin, reason)
        self.left.append(left)
        block.say(str(left), before)

    def valid(self, problems_of: Callable[[str], Sequence[Problem]]) -> str:
        """The text, without what ``problems_of`` a text refuses."""
        while True:
            text, places = dump(self.document)
            problems = problems_of(text)
            if not problems:
                return text
            self._take_out(problems, places)

    def summary(self) -> str:
        """What was made, and how much was left out."""
        sections = [one for one in self.document.values() if isinstance(one, Block)]
        made = count_of(sum(map(len, sections)), "resource")
        if not self.left:
            return f"{made}; everything has an equivalent"
        comments = "a comment" if len(self.left) == 1 else "each is a comment"
        return f"{made}; {count_of(len(self.left), 'setting')} left out: {comments} in the spec"

    def _take_out(self, problems: Sequence[Problem], places: Sequence[Place]) -> None:
        lines = [place.line for place in places]
        above = {
            id(place.holder[place.key]): place
            for place in places
            if isinstance(place.holder[place.key], Block)
        }
        done: set[tuple[int, str]] = set()
        for problem in problems:
            way = [places[bisect_right(lines, problem.line) - 1]]
            while id(way[-1].holder) in above:
                way.append(above[id(way[-1].holder)])
            names = [(id(place.holder), place.key) for place in way]
            unknown = len(way) == 1 and isinstance(self.document[way[0].key], Block)
            if problem.line and (len(way) > 1 or unknown) and done.isdisjoint(names):
                done.add(names[0])
                self._drop(way, re.sub(r"^\w+:\S+: (?=\S)", "", problem.message))
        if not done:
            raise HostError(f"no valid spec can be made of it: {problems[0].message}")

    def _drop(self, way: Sequence[Place], reason: str) -> None:
        """Take out the first of ``way``, and what it stands in where that is empty then."""
        _, holder, key = way[0]
        known = (at.holder.origins[at.key] for at in way if at.key in at.holder.origins)
        origins = list(holder[key].origins.values()) if holder is self.document else [next(known)]
        for origin in origins:
            self.leave(holder, origin, reason, key)
        holder.drop(key)
        for _, holder, key in way[1:]:
            if holder[key]:
                break
            for _, comment in holder[key].lines():
                holder.say(comment, key)
            holder.drop(key)


def slug(text: str, most: int = 80) -> str:
    """A name for a spec or a resource, made of that text."""
    plain = re.sub(r"[^a-z0-9_-]+", "-", text.lower()).strip("-_")
    return plain[:most].strip("-_") or "imported"


def nested(block: Block, key: str, origin: Origin | None = None) -> Block:
    """The mapping under a key, which is made where it is missing."""
    if key not in block:
        block.put(key, Block(), origin)
    inner: Any = block[key]
    assert isinstance(inner, Block)
    return inner
