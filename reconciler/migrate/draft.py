"""A spec that is made from other files: what came from where, and what has no equivalent.

It must not print anything, nor look at the host. What the checker of specs refuses becomes a
comment at its place, so that what is left is always valid.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from reconciler.base.errors import HostError
from reconciler.base.text import censored, count_of, printable
from reconciler.config.errors import Problem
from reconciler.migrate.document import Origin, SpecBlock, SpecPlace, TemplateText, dump

_ABOUT = re.compile(r"^\w+(:\S+:| '[^']*':?) ")
"""What a message begins with: of which resource it is."""

_PASSWORD = re.compile(r"(?i)\b(pass(?:word|wd)?) +(?:\"[^\"]*\"|\S+)")


class LeftOut(NamedTuple):
    """What has no equivalent, and why."""

    origin: Origin
    reason: str

    def __str__(self) -> str:
        file, line, text = self.origin
        text = _PASSWORD.sub(r"\1 ***", censored(text, most=None))
        return printable(f"{file}:{line}: {text}: {self.reason}", 500)


class SpecDraft:
    """The sections of a spec, each with its resources."""

    def __init__(self, name: str, about: Sequence[str] = ()) -> None:
        self.document = SpecBlock()
        for line in about:
            self.document.say(printable(line))
        self.document.put("version", 1)
        self.document.put("name", slug(name, 64))
        self.left: list[LeftOut] = []
        self._told: set[LeftOut] = set()
        self._recent = deque[Origin](maxlen=3)
        self._numbers = Counter[tuple[str, str]]()

    def add(self, section: str, name: str, origin: Origin | None = None) -> SpecBlock:
        """A new resource; its name becomes one that is free."""
        resources = self.document.setdefault(section, SpecBlock())
        stem = name = slug(name)
        while name in resources:
            self._numbers[section, stem] += 1
            name = f"{stem}-{self._numbers[section, stem] + 1}"
        made = SpecBlock()
        resources.put(name, made, origin)
        return made

    def leave(
        self, block: SpecBlock, origin: Origin, reason: str, before: str | None = None
    ) -> None:
        """Something has no equivalent: a comment in ``block``, and a line for people."""
        if origin in self._recent:
            return  # A part of what has been said.
        self._recent.append(origin)
        one = LeftOut(origin, reason)
        if one not in self._told:  # It may be about several resources.
            self._told.add(one)
            self.left.append(one)
        block.say(printable(f"{origin}: {reason}", 500), before)

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
        sections = [one for one in self.document.values() if isinstance(one, SpecBlock)]
        made = count_of(sum(map(len, sections)), "resource")
        if not self.left:
            return f"{made}; everything has an equivalent"
        comments = "a comment" if len(self.left) == 1 else "each is a comment"
        return f"{made}; {count_of(len(self.left), 'setting')} left out: {comments} in the spec"

    def _take_out(self, problems: Sequence[Problem], places: Sequence[SpecPlace]) -> None:
        lines = [place.line for place in places]
        above: dict[int, SpecPlace] = {}
        for place in places:
            value = place.holder[place.key]
            inner = value if isinstance(value, list) else [value]
            above.update((id(one), place) for one in inner if isinstance(one, SpecBlock))
        done: set[tuple[int, str]] = set()
        for problem in problems:
            way = [places[bisect_right(lines, problem.line) - 1]]
            line, column, holder, key = way[0]
            if (line, column, 1) == problem[1:4] and len(key) > 1 and id(holder) in above:
                way = [above[id(holder)]]  # It is about the mapping that begins there.
            while id(way[-1].holder) in above:
                way.append(above[id(way[-1].holder)])
            names = [(id(place.holder), place.key) for place in way]
            unknown = len(way) == 1 and isinstance(self.document[way[0].key], SpecBlock)
            if problem.line and (len(way) > 1 or unknown) and done.isdisjoint(names):
                done.add(names[0])
                self._drop(way, _ABOUT.sub("", problem.message))
        if not done:
            raise HostError(f"no valid spec can be made of it: {problems[0].message}")

    def _drop(self, way: Sequence[SpecPlace], reason: str) -> None:
        """Take out the first of ``way``, and what it stands in where that is empty then."""
        *_, holder, key = way[0]
        known = (at.holder.origins[at.key] for at in way if at.key in at.holder.origins)
        origins = list(holder[key].origins.values()) if holder is self.document else [next(known)]
        said = list(_comments(holder[key]))
        for origin in origins:
            # Of what lacks something now, that was said as it was taken out.
            if not any(one.startswith(f"{origin}: ") for one in said):
                self.leave(holder, origin, reason, key)
        _take_away(holder, key)
        for *_, holder, key in way[1:]:
            if holder[key]:
                break
            _take_away(holder, key)


def _take_away(holder: SpecBlock, key: str) -> None:
    for comment in _comments(holder[key]):
        holder.say(comment, key)
    holder.drop(key)


def _comments(value: Any) -> Iterator[str]:
    """All that is said in what is taken away."""
    if isinstance(value, SpecBlock):
        for key, comment in value.lines():
            yield from [comment] if key is None else _comments(value[key])
    elif isinstance(value, list):
        for one in value:
            yield from _comments(one)


def slug(text: str, most: int = 80) -> str:
    """A name for a spec or a resource, made of that text."""
    plain = re.sub(r"[^a-z0-9_-]+", "-", text.lower()).strip("-_")
    return plain[:most].strip("-_") or "imported"


def nested(block: SpecBlock, key: str) -> SpecBlock:
    """The mapping under a key, which is made where it is missing."""
    if key not in block:
        block.put(key, SpecBlock())
    inner: Any = block[key]
    assert isinstance(inner, SpecBlock)
    return inner


def size(text: str) -> str | None:
    """``50MB``, ``100k`` or ``1 G`` as most programs mean it, by 1024; None for nothing.

    Raises ValueError.
    """
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([kmgt]?)(?:i?b|bytes?)?", text.strip().lower())
    if found is None:
        raise ValueError(f"{text!r} is not a size")
    unit = f"{found[2].upper()}iB" if found[2] else "B"
    return f"{found[1]}{unit}" if float(found[1]) else None


def variable(name: str) -> TemplateText:
    """The value of a variable of the environment; nothing where it is not set."""
    return TemplateText(f"{{{{ env.{name} | default('') }}}}")
