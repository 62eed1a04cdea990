"""YAML and JSON that are to be imported, read within the bounds of specs."""

from __future__ import annotations

import re
from collections.abc import Iterator

from reconciler.config.errors import Problems, SpecError
from reconciler.config.nodes import Map, Node, Source, is_null
from reconciler.config.yaml import load
from reconciler.migrate.document import Origin
from reconciler.migrate.original import Original

_STRING = r"""("(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')"""
_COMMENT = re.compile(rf"{_STRING}|//[^\n]*|/\*.*?\*/", re.DOTALL)
_KEY = re.compile(rf"{_STRING}([ \n]+):")


def tree(original: Original, text: str | None = None) -> Map:
    """Its mapping. Raises NotImported at the first thing that is wrong."""
    problems = Problems()
    text = original.text if text is None else text
    if text.lstrip()[:1] in ("{", "[", "/"):
        text = _plain(text)
    found = None
    try:
        found = load(text.encode(), Source(original.shown, original.path), problems)
        problems.stop_if_any()
    except SpecError as error:
        first = error.problems[0]
        reason = first.message.replace("a spec is", "it should be")
        raise original.refused(first.line or 1, reason) from None
    assert found is not None
    return found


def _plain(text: str) -> str:
    """JSON and JSON5 so that YAML reads it: without comments, tabs and blanks before a colon."""
    text = _COMMENT.sub(lambda found: found[1] or re.sub(r"[^\n]", " ", found[0]), text)
    return _KEY.sub(r"\1:\2", text.replace("\t", " "))


def entries(original: Original, node: Map) -> Iterator[tuple[str, Node, Origin]]:
    """Its keys with their values, and where they stand."""
    for key, value, mark in node.entries():
        line = mark.source.line_of(mark.start) + 1
        yield key, value, original.at(line, f"{key}: {said(value)}".rstrip(": "))


def said(node: Node) -> str:
    """A value for people, on one line."""
    if isinstance(node, Map):
        return f"{{{', '.join(node)}}}"
    if isinstance(node, list):
        return f"[{', '.join(map(said, node))}]"
    return str(node).partition("\n")[0]


def words(node: Node) -> list[str]:
    """A text, or each of a list of texts; nothing for null. Mappings in it are passed over."""
    if is_null(node):
        return []
    if isinstance(node, list):
        return [str(one) for one in node if isinstance(one, str) and not is_null(one)]
    return [str(node)] if isinstance(node, str) else []


def flag(node: Node) -> bool:
    """Is it one of the words for yes?"""
    return isinstance(node, str) and node.lower() in ("true", "yes", "on", "1")


def number(node: Node) -> int | None:
    """A whole number, if it is one."""
    text = str(node)
    return int(text) if re.fullmatch(r"-?[0-9]{1,12}", text) else None
