"""The tree of a YAML file in which every key and value knows where it was written.

A scalar is a ``str``, so that parsers take it as it is; it gives no meaning to any of them. Of its
place it holds no more than where it starts, since a file may have half a million scalars.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias, TypeVar

from reconciler.base.scalars import Plain

_BREAK = re.compile(r"\r\n|\n|\r")
_KEPT = 200
# In a file with targets of messages every URL is one that is perhaps a secret: also where the
# file is too broken to know. What stands in {{ }} is shown.
_NOTIFY = re.compile(r"""(^|[{,\s])["']?notify["']?\s*:""")
_URLS = re.compile(
    r"""://[^\s]*|\burl["']?\s*:[ \t]*"""
    r"""("(?!\{\{)[^"\r\n]*|'(?!\{\{)[^'\r\n]*|[^\s"',}{&*|>#-][^\s,}]*)"""
)


class Source:
    """One file: ``shown`` is its name for people, ``path`` absolute, ``text`` without a BOM.

    ``starts`` and ``ends`` are those of its scalars, in their order.
    """

    __slots__ = ("_breaks", "_masks", "ends", "path", "shown", "starts", "templated", "text")

    def __init__(self, shown: str, path: str, text: str = "") -> None:
        self.shown = shown
        self.path = path
        self.text = text
        self.templated = True
        """May there be a template in it?"""
        self.starts = array("I")
        self.ends = array("I")
        self._breaks: tuple[list[int], list[int]] | None = None
        self._masks: list[tuple[int, int]] | None = None

    def _lines(self) -> tuple[list[int], list[int]]:
        """Where the lines start, and where they end without their line breaks."""
        if self._breaks is None:
            breaks = [match.span() for match in _BREAK.finditer(self.text)]
            starts, ends = [end for _, end in breaks], [start for start, _ in breaks]
            self._breaks = [0, *starts], [*ends, len(self.text)]
        return self._breaks

    def line_of(self, index: int) -> int:
        """The line of a character, from 0."""
        return bisect_right(self._lines()[0], index) - 1

    def span(self, line: int) -> tuple[int, int]:
        """Where the text of ``line`` (from 0) begins and ends, without its line break."""
        starts, ends = self._lines()
        return starts[line], ends[line]

    def end_of(self, start: int) -> int:
        """Where the scalar that starts there ends."""
        at = bisect_left(self.starts, start)
        known = at < len(self.starts) and self.starts[at] == start
        return self.ends[at] if known else start + 1

    def place(self, start: int, end: int) -> Mapping[str, Any]:
        """What ``Problem`` says of a place."""
        line = self.line_of(start)
        first, last = self.span(line)
        start = min(start, last)
        # A line may be megabytes long, and there may be many problems on it.
        cut = max(first, start - _KEPT)
        return {
            "line": line + 1,
            "column": start - first + 1,
            "length": max(1, min(end, last) - start),
            "source_line": self._masked(cut, min(last, start + _KEPT)),
            "caret": start - cut,
        }

    @property
    def masks(self) -> list[tuple[int, int]]:
        """Where the text must not be shown, from and to."""
        if self._masks is None:
            self._masks = []
            if _NOTIFY.search(self.text):
                for match in _URLS.finditer(self.text):
                    begin = match.start(1) if match[1] is not None else match.start() + 3
                    self._masks.append((begin, match.end()))
        return self._masks

    def _masked(self, first: int, last: int) -> str:
        """The text from ``first`` to ``last``, as long as it is, with stars for what is masked."""
        text = self.text[first:last]
        for begin, end in self.masks:
            begin, end = max(begin, first) - first, min(end, last) - first
            if begin < end:
                text = text[:begin] + "*" * (end - begin) + text[end:]
        return text


class SourceMark(NamedTuple):
    """From ``start`` up to ``end`` in the text of ``source``."""

    source: Source
    start: int
    end: int

    def __str__(self) -> str:
        return f"{self.source.shown}, line {self.source.line_of(self.start) + 1}"


class Text(str):
    """A scalar; unquoted ones are also ``Plain``."""

    __slots__ = ("source", "start")
    source: Source
    start: int

    @property
    def at(self) -> SourceMark:
        """Where it was written."""
        return SourceMark(self.source, self.start, self.source.end_of(self.start))


class Bare(Text, Plain):
    """A scalar without quotes."""

    __slots__ = ()


class Broken(Text):
    """Stands for a value that could not be made out; the problem has been reported."""

    __slots__ = ()


class Rendered(Text):
    """What the templates in a scalar gave.

    ``secret``: it holds a value of the environment and must not be shown. ``hollow`` is the
    template that was all of a part of a path and gave nothing, or None. ``template`` is the
    scalar as written.
    """

    __slots__ = ("hollow", "secret", "template")
    hollow: str | None
    secret: bool
    template: str


class Map(dict[str, "Node"]):
    """A mapping. ``starts`` has where each of its keys was written, in their order."""

    __slots__ = ("source", "start", "starts")
    source: Source
    start: int
    starts: tuple[int, ...]

    @property
    def at(self) -> SourceMark:
        """Where it begins."""
        return SourceMark(self.source, self.start, self.start + 1)

    def entries(self) -> Iterator[tuple[str, Node, SourceMark]]:
        """Every key with its value, and where the key is written."""
        for (name, value), start in zip(self.items(), self.starts, strict=True):
            yield name, value, SourceMark(self.source, start, self.source.end_of(start))

    def key(self, name: str) -> SourceMark:
        """Where a key is written."""
        return next(mark for key, _, mark in self.entries() if key == name)

    def place(self, name: str) -> SourceMark:
        """Where to point for a value: at it, or at its key when nothing is there."""
        value = self[name]
        return self.key(name) if is_null(value) and not value else value.at

    def but(self, items: Mapping[str, Node]) -> Map:
        """The same with these values; a key that is not there is left out."""
        made = placed(Map(items), self.source, self.start)
        pairs = zip(self, self.starts, strict=True)
        same = len(items) == len(self)
        made.starts = self.starts if same else tuple(at for name, at in pairs if name in items)
        return made


class Seq(list["Node"]):
    """A sequence."""

    __slots__ = ("source", "start")
    source: Source
    start: int

    @property
    def at(self) -> SourceMark:
        """Where it begins."""
        return SourceMark(self.source, self.start, self.start + 1)


Node: TypeAlias = Text | Map | Seq
N = TypeVar("N", bound="Text | Map | Seq")


def placed(node: N, source: Source, start: int) -> N:
    """The node, which was written there."""
    node.source, node.start = source, start
    return node


def empty_map(at: SourceMark) -> Map:
    """A mapping without keys, at that place."""
    made = placed(Map(), at.source, at.start)
    made.starts = ()
    return made


def broken(text: Text) -> Broken:
    """What stands for a text whose problem was reported."""
    return placed(Broken(text), text.source, text.start)


def texts(node: Node) -> Iterator[Text]:
    """Every value below ``node`` that is a scalar."""
    if isinstance(node, Text):
        yield node
    else:
        for item in node.values() if isinstance(node, Map) else node:
            yield from texts(item)


def follow(body: Map, loc: Iterable[Any]) -> tuple[Node, SourceMark, str]:
    """The node that ``loc`` leads to, where it was written, and its name: ``panes[0].cwd``."""
    node: Node = body
    mark = body.at
    names = ""
    for step in loc:
        if isinstance(node, Map) and step in node:
            mark = node.place(step)
            node = node[step]
            names += f".{step}" if names else str(step)
        elif isinstance(node, Seq) and isinstance(step, int) and step < len(node):
            node = node[step]
            mark = node.at
            names += f"[{step}]"
        else:
            break
    return node, mark, names


def is_null(node: object) -> bool:
    """Was nothing written here, or YAML's word for nothing?"""
    return isinstance(node, Plain) and node in ("", "~", "null", "Null", "NULL")


def _secrets(node: Node) -> Iterator[Rendered]:
    """The values below it that must not be shown."""
    return (text for text in texts(node) if isinstance(text, Rendered) and text.secret)


def is_secret(node: Node) -> bool:
    """Does it hold a value of the environment?"""
    return any(True for _ in _secrets(node))


def shown(text: Text) -> str:
    """``text`` for a message: its template where the value came from the environment."""
    return text.template if isinstance(text, Rendered) and text.secret else str(text)


def hidden(node: Node, message: str) -> str:
    """``message``, unless it is about a value that must not be shown."""
    for text in _secrets(node):
        return (
            f"what {text.template} gives is not valid here (the value is not shown, since it "
            "comes from the environment)"
        )
    return message


def censored(message: str, body: Map) -> str:
    """``message`` of a kind about ``body``, without any value that must not be shown."""
    for text in _secrets(body):
        message = message.replace(text, text.template) if text else message
    return message
