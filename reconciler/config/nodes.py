"""The tree of a YAML file in which every key and value knows where it was written.

A scalar is a ``str``, so that parsers take it as it is; it gives no meaning to any of them.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

from reconciler.base.scalars import Plain

_BREAK = re.compile(r"\r\n|\n|\r")
_KEPT = 200
# In a file with targets of messages every URL is one that is perhaps a secret: also where the
# file is too broken to tell. What stands in {{ }} is shown.
_TELLS = re.compile(r"""(^|[{,\s])["']?notify["']?\s*:""")
_URLS = re.compile(
    r"""://[^\s]*|\burl["']?\s*:[ \t]*"""
    r"""("(?!\{\{)[^"\r\n]*|'(?!\{\{)[^'\r\n]*|[^\s"',}{&*|>#-][^\s,}]*)"""
)


class SourcePlace(NamedTuple):
    """A position for people: ``line`` and ``column`` from 1, ``caret`` an index in ``text``."""

    line: int
    column: int
    length: int
    text: str
    caret: int


class Source:
    """One file: ``shown`` is its name for people, ``path`` absolute, ``text`` without a BOM."""

    __slots__ = ("_ends", "_starts", "_veils", "path", "shown", "text")

    def __init__(self, shown: str, path: str, text: str = "") -> None:
        self.shown = shown
        self.path = path
        self.text = text
        self._starts: list[int] | None = None
        self._ends: list[int] = []
        self._veils: list[tuple[int, int]] | None = None

    def line_of(self, index: int) -> int:
        """The line of a character, from 0."""
        if self._starts is None:
            breaks = [match.span() for match in _BREAK.finditer(self.text)]
            self._ends = [start for start, _ in breaks] + [len(self.text)]
            self._starts = [0] + [end for _, end in breaks]
        return bisect_right(self._starts, index) - 1

    def span(self, line: int) -> tuple[int, int]:
        """Where the text of ``line`` (from 0) begins and ends, without its line break."""
        self.line_of(0)
        assert self._starts is not None
        return self._starts[line], self._ends[line]

    def place(self, start: int, end: int) -> SourcePlace:
        line = self.line_of(start)
        first, last = self.span(line)
        start = min(start, last)
        length = max(1, min(end, last) - start)
        # A line may be megabytes long, and there may be many problems on it.
        cut = max(first, start - _KEPT)
        text = self._veiled(cut, min(last, start + _KEPT))
        return SourcePlace(line + 1, start - first + 1, length, text, start - cut)

    @property
    def veils(self) -> list[tuple[int, int]]:
        """Where the text must not be shown, from and to."""
        if self._veils is None:
            self._veils = []
            if _TELLS.search(self.text):
                for match in _URLS.finditer(self.text):
                    begin = match.start(1) if match[1] is not None else match.start() + 3
                    self._veils.append((begin, match.end()))
        return self._veils

    def _veiled(self, first: int, last: int) -> str:
        """The text from ``first`` to ``last``, as long as it is, with stars for what is veiled."""
        text = self.text[first:last]
        for begin, end in self.veils:
            begin, end = max(begin, first) - first, min(end, last) - first
            if begin < end:
                text = text[:begin] + "*" * (end - begin) + text[end:]
        return text


class SourceMark(NamedTuple):
    """From ``start`` up to ``end`` in the text of ``source``."""

    source: Source
    start: int
    end: int


class Text(str):
    """A scalar; unquoted ones are also ``Plain``."""

    __slots__ = ("at",)
    at: SourceMark


class Bare(Text, Plain):
    """A scalar without quotes."""

    __slots__ = ()


class Broken(Text):
    """Stands for a value that could not be made out; the problem has been told."""

    __slots__ = ()


class Rendered(Text):
    """What the templates in a scalar gave.

    ``secret``: it holds a value of the environment and must not be shown. ``hollow`` is the
    template that was all of a part of a path and gave nothing, or None. ``source`` is the
    scalar as written.
    """

    __slots__ = ("hollow", "secret", "source")
    hollow: str | None
    secret: bool
    source: str


class Map(dict["Text", "Node"]):
    """A mapping; its keys are the ``Text`` that was written."""

    __slots__ = ("at",)
    at: SourceMark

    def key(self, name: str) -> Text:
        """The key ``name`` as written. Raises KeyError."""
        for key in self:
            if key == name:
                return key
        raise KeyError(name)


class Seq(list["Node"]):
    """A sequence."""

    __slots__ = ("at",)
    at: SourceMark


Node: TypeAlias = Text | Map | Seq


def get(node: Map, key: str) -> Node | None:
    """The value of ``key``, or None."""
    return node.get(key)  # type: ignore[call-overload,no-any-return]


def texts(node: Node) -> Iterator[Text]:
    """Every value below ``node`` that is a scalar."""
    if isinstance(node, Text):
        yield node
    else:
        for item in node.values() if isinstance(node, Map) else node:
            yield from texts(item)


def is_null(node: object) -> bool:
    """Was nothing written here, or YAML's word for nothing?"""
    return isinstance(node, Plain) and node in ("", "~", "null", "Null", "NULL")


def text_at(value: str, mark: SourceMark) -> Text:
    """``value`` as if it had been written, in quotes, at ``mark``."""
    text = Text(value)
    text.at = mark
    return text


def place(node: Map, name: str) -> SourceMark:
    """Where to point for the value of ``name``: at it, or at its key when nothing is there."""
    value = node[name]  # type: ignore[index]
    return node.key(name).at if is_null(value) and not value else value.at
