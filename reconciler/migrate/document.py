"""A spec in the making, with comments, and the YAML of it.

It must not know what a spec means. ruamel's round trip would do the same in 2 s for 5,000
resources, and takes comments only behind the keys that they are about.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from reconciler.base.text import escaped, escapes

WIDTH = 100
_PLAIN = re.compile(
    r"(?!---)(?:[A-Za-z_/]|[~-](?=[A-Za-z/-]))"
    r"(?:[A-Za-z0-9_/.~@%+=;,()|&$<>'\"*^!?\[\]{}\\-]|[ :](?=[^\s#]))*"
)
_IN_FLOW = re.compile(r"(?!---)(?:[A-Za-z_/]|[~-](?=[A-Za-z/-]))[A-Za-z0-9_/.~@%+=$ -]*(?<! )")
_UNIT = re.compile(r"[0-9]+(ms|s|m|h|d|[KMGT]?i?B)")
_WORDS = frozenset(("true", "false", "null", "yes", "no", "on", "off", "y", "n"))


class TemplateText(str):
    """A text in which ``{{ }}`` is meant: in any other it is written so that it stays as it is."""

    __slots__ = ()


def joined(*parts: str) -> str:
    """The parts as one text, which is a template where one of them is."""
    if not any(isinstance(part, TemplateText) for part in parts):
        return "".join(parts)
    return TemplateText("".join(map(_meant, parts)))


class Origin(NamedTuple):
    """Where something stood in the file that a spec is made from; ``text`` is how it was said."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file.rpartition('/')[2]}:{self.line}: {self.text}"


class SpecBlock(dict[str, Any]):
    """A mapping with a key on each line, and comments between them.

    Values are text, numbers, booleans, lists and mappings. ``origins`` are those of its keys.
    """

    __slots__ = ("_said", "origins")

    def __init__(self, entries: Mapping[str, Any] | None = None) -> None:
        super().__init__(entries or {})
        self.origins: dict[str, Origin] = {}
        self._said: list[tuple[int, str]] = []

    def put(self, key: str, value: Any, origin: Origin | None = None) -> None:
        """Set a key, and remember where its value is from."""
        self[key] = value
        if origin is not None:
            self.origins[key] = origin

    def say(self, comment: str, before: str | None = None) -> None:
        """A comment, before the key ``before`` or behind what was put so far."""
        at = len(self) if before is None else list(self).index(before)
        self._said.append((at, comment))

    def drop(self, key: str) -> None:
        """Take a key out; comments stay where they are."""
        at = list(self).index(key)
        del self[key]
        self._said = [(one - (one > at), words) for one, words in self._said]

    def lines(self) -> Iterator[tuple[str | None, str]]:
        """Its keys, and comments, for which the key is None: in the order to write them in."""
        said = iter(sorted(self._said, key=lambda one: one[0]))
        comment = next(said, None)
        for at, key in enumerate(self):
            while comment is not None and comment[0] <= at:
                yield None, comment[1]
                comment = next(said, None)
            yield key, ""
        while comment is not None:
            yield None, comment[1]
            comment = next(said, None)


class SpecPlace(NamedTuple):
    """A line of the text and a column, from 1, and what begins there: a key of ``holder``."""

    line: int
    column: int
    holder: SpecBlock
    key: str


def dump(document: SpecBlock) -> tuple[str, list[SpecPlace]]:
    """The text, and where the keys of all blocks stand in it, in their order."""
    writer = _Emitter()
    writer.block(document, 0)
    return "\n".join((*writer.lines, "")), writer.places


class _Emitter:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.places: list[SpecPlace] = []

    def block(self, block: Mapping[str, Any], indent: int, first: str | None = None) -> None:
        """``first`` is what stands before its first line in place of the indent, for a list."""
        margin = " " * indent
        entries = block.lines() if isinstance(block, SpecBlock) else ((key, "") for key in block)
        for key, comment in entries:
            if key is None:
                self.lines += (f"{margin}# {escapes(one)}".rstrip() for one in comment.split("\n"))
                continue
            if not indent and self.lines and isinstance(block[key], dict):
                self.lines.append("")
            head, first = first if first is not None else margin, None
            if isinstance(block, SpecBlock):
                self.places.append(SpecPlace(len(self.lines) + 1, len(head) + 1, block, key))
            self._entry(f"{head}{_scalar(key, True)}:", block[key], indent)

    def _entry(self, head: str, value: Any, indent: int) -> None:
        flow = _flow(value)
        fits = flow is not None and len(head) + len(flow) < WIDTH
        if flow is not None and (fits or not value or not isinstance(value, (dict, list))):
            self.lines.append(f"{head} {flow}")
        elif isinstance(value, str):
            self._literal(head, value, indent + 2)
        elif isinstance(value, dict):
            self.lines.append(head)
            self.block(value, indent + 2)
        else:
            self.lines.append(head)
            for item in value:
                self._item(item, indent + 2)

    def _item(self, item: Any, indent: int) -> None:
        dash = f"{' ' * indent}- "
        if isinstance(item, SpecBlock) and not item:
            self.block(item, indent)  # Its comments.
        if isinstance(item, dict) and item and _flow(item) is None:
            self.block(item, indent + 2, dash)
        else:
            self._entry(dash.rstrip(), item, indent)

    def _literal(self, head: str, text: str, indent: int) -> None:
        body = _meant(text)
        end = "" if body.endswith("\n") else "-"
        margin = " " * indent
        self.lines.append(f"{head} |{end}")
        lines = body.removesuffix("\n").split("\n")
        self.lines += (margin + line if line else "" for line in lines)


def _flow(value: Any) -> str | None:
    """The value on one line, or None where it needs more."""
    if isinstance(value, str):
        return None if _is_literal(value) else _scalar(value, False)
    if isinstance(value, dict):
        if isinstance(value, SpecBlock) or any(
            isinstance(one, (dict, list)) for one in value.values()
        ):
            return None if value else "{}"
        pairs = (f"{_scalar(key, True)}: {_scalar(one, True)}" for key, one in value.items())
        return f"{{ {', '.join(pairs)} }}" if value else "{}"
    if isinstance(value, list):
        if any(isinstance(one, (dict, list)) for one in value):
            return None
        return f"[{', '.join(_scalar(one, True) for one in value)}]"
    return _scalar(value, False)


def _is_literal(text: str) -> bool:
    """Is it best written as lines of their own, and can it be?"""
    body = text.removesuffix("\n")
    return (
        "\n" in text and bool(body) and not body.endswith("\n")
        and not body.startswith((" ", "\t", "\n"))
        and not re.search(r"[ \t]\n", body)
        and all(one.isprintable() or one in "\n\t" for one in body)
    )  # fmt: skip


def _meant(text: str) -> str:
    return text if isinstance(text, TemplateText) else text.replace("{{", "{{ '{{' }}")


def _scalar(value: Any, in_flow: bool) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return str(value)
    plain = (_IN_FLOW if in_flow else _PLAIN).fullmatch(value) or _UNIT.fullmatch(value)
    if plain and value.lower() not in _WORDS and "{{" not in value:
        return value
    quoted = json.dumps(_meant(value), ensure_ascii=False)
    return quoted if quoted.isprintable() else "".join(map(escaped, quoted))
