"""Declared resources to the kinds' own dataclasses, guarded by pydantic.

Every field that is wrong is told at its own place. It must not look at more than one resource
at a time, and it is the only module that imports pydantic.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from reconciler.base.records import fields, replace
from reconciler.base.scalars import InvalidScalar
from reconciler.config.errors import Problems
from reconciler.config.nodes import (
    Broken,
    Map,
    Node,
    Rendered,
    Seq,
    SourceMark,
    Text,
    is_null,
    place,
    texts,
)
from reconciler.config.resolve import COMMON, Declared
from reconciler.config.secrecy import censored, hidden, shown
from reconciler.config.shapes import Leaf, Record, Shape, record
from reconciler.core.kind import Completed, Kind, Modifying


class Validator:
    """Turns declared resources into what the kinds want."""

    def __init__(self, kinds: Sequence[Kind[Any, Any]], home: str, problems: Problems) -> None:
        self.kinds = kinds
        self.home = home
        self.problems = problems
        self._adapters: dict[str, TypeAdapter[Any]] = {}
        self.keeps_secrets = False
        """Some value of the environment stands in a field that is not made for secrets."""

    def want(self, declared: Declared) -> Any:
        """The kind's dataclass, or None when something is wrong with it."""
        problems = self.problems
        before = len(problems.found)
        kind = declared.kind
        shape = record(kind.resource)
        title = f"{kind.name} {declared.name!r}"
        body = self._record(shape, declared.body, title, declared)
        try:
            want = self._adapter(kind).validate_python(body)
        except ValidationError as error:
            for entry in error.errors(include_url=False, include_input=False):
                self._tell(entry, declared, body, title)
            return None
        if declared.broken or (problems and _is_broken(body)):
            return None
        if not declared.present and isinstance(kind, Modifying):
            mark = place(body, "state") if "state" in body else declared.key.at
            problems.add(mark, f"{title} makes nothing that could be absent; take it out instead")
        if isinstance(kind, Completed):
            want = kind.named(want, declared.name)
        if _secret(body):
            marked = [one.name for one in fields(kind.resource) if "secret" in one.metadata]
            want = replace(want, **dict.fromkeys(marked, True))
        for name, message in kind.check(want):
            _, mark, names = _follow(body, _steps(name))
            mark = mark if names else declared.key.at
            problems.add(mark, f"{title}: {names or name}: {censored(message, body)}")
        return want if len(problems.found) == before else None

    def _adapter(self, kind: Kind[Any, Any]) -> TypeAdapter[Any]:
        if kind.name not in self._adapters:
            self._adapters[kind.name] = TypeAdapter(kind.resource)
        return self._adapters[kind.name]

    def _record(self, shape: Record, node: Map, title: str, declared: Declared | None) -> Map:
        """Check the keys of a mapping, and make its paths complete."""
        common = COMMON if declared is not None else ()
        result = node
        for key, value in node.items():
            inner = shape.fields.get(key)
            if inner is None:
                if key not in common:
                    self._unknown(key, shape, title, declared)
                continue
            new = self._value(inner, value, f"{title}: {key}")
            if new is not value:
                if result is node:
                    result = Map(node)
                    result.at = node.at
                result[key] = new
        return result

    def _value(self, shape: Shape, node: Node, title: str) -> Node:
        if isinstance(shape, Leaf):
            if isinstance(node, Text):
                if isinstance(node, Rendered) and node.secret and shape.may_hold_secrets:
                    self.keeps_secrets = True
                return self._path(node, title) if shape.is_path else node
            if shape.may_hold_secrets and _secret(node):
                self.keeps_secrets = True
            return node
        if isinstance(shape, Record):
            return self._record(shape, node, title, None) if isinstance(node, Map) else node
        if not isinstance(node, Seq):
            return node
        items = [self._value(shape.item, item, title) for item in node]
        if all(new is old for new, old in zip(items, node, strict=True)):
            return node
        result = Seq(items)
        result.at = node.at
        return result

    def _path(self, text: Text, title: str) -> Text:
        if isinstance(text, Rendered) and text.hollow is not None:
            self.problems.add(
                text.at,
                f"{title}: {{{{ {text.hollow} }}}} is empty, which would make this {shown(text)!r}",
                "give it a value: a path that loses a part would name something else",
            )
            return _broken(text)
        if not text.startswith("~") or is_null(text):
            return text
        if text != "~" and not text.startswith("~/"):
            self.problems.add(
                text.at,
                f"{title}: {shown(text)!r} names the home of another user",
                "write the whole path; only ~ and ~/... are understood",
            )
            return _broken(text)
        full = Rendered(self.home + text[1:])
        full.at = text.at
        full.hollow = None
        full.secret = isinstance(text, Rendered) and text.secret
        full.source = text.source if isinstance(text, Rendered) else str(text)
        return full

    def _unknown(self, key: Text, shape: Record, title: str, declared: Declared | None) -> None:
        known = [*shape.fields, *(COMMON if declared is not None else ())]
        others = [
            kind.section
            for kind in self.kinds
            if declared is not None and key in record(kind.resource).fields
        ]
        hint = f"its fields are {', '.join(known)}"
        if others:
            hint = f"it is a field under {' and '.join(others)}"
        elif ":" in key:
            hint = "write a space after the colon"
        self.problems.add(key.at, f"{title} has no field {str(key)!r}", hint, near=(key, known))

    def _tell(self, entry: Any, declared: Declared, body: Map, title: str) -> None:
        """One error of pydantic, at the innermost thing that was written."""
        sort, loc = entry["type"], entry["loc"]
        if sort == "missing":
            holder, _, names = _follow(body, loc[:-1])
            mark = declared.key.at if holder is body else holder.at
            what = f"{title}: {names}" if names else title
            self.problems.add(mark, f"{what} needs {loc[-1]!r}")
            return
        node, mark, names = _follow(body, loc)
        if _is_broken(node):
            return
        message = entry["msg"]
        hint = None
        near = None
        cause = entry.get("ctx", {}).get("error")
        if isinstance(cause, InvalidScalar):
            holder = node
            node, mark, names = _follow(body, (*loc, *cause.at))
            if cause.key and isinstance(holder, Map) and cause.at:
                mark = next(key.at for key in holder if key == cause.at[-1])
                node, _, names = _follow(body, loc)
            near = cause.near if hidden(node, "") == "" else None
        if isinstance(cause, ValueError):
            message = str(cause)
        elif is_null(node):
            message = "is empty; give it a value or leave the line out"
        elif sort in ("tuple_type", "list_type"):
            message = "needs a list"
            hint = f"write [{shown(node)[:60]}]" if isinstance(node, Text) else None
        elif sort in ("dataclass_type", "dataclass_exact_type", "dict_type"):
            message = "needs fields, one 'name: value' a line, or {name: value}"
        self.problems.add(mark, f"{title}: {names}: {hidden(node, message)}", hint, near)


def _steps(name: str) -> list[str | int]:
    """``windows[1].layout`` as the keys and indexes that lead there."""
    return [int(word) if word.isdigit() else word for word in re.findall(r"[^.\[\]]+", name)]


def _follow(body: Map, loc: Iterable[Any]) -> tuple[Node, SourceMark, str]:
    """The node that ``loc`` leads to, where it was written, and its name: ``panes[0].cwd``."""
    node: Node = body
    mark = body.at
    names = ""
    for step in loc:
        if isinstance(node, Map) and step in node:
            mark = place(node, step)
            node = node[step]
            names += f".{step}" if names else str(step)
        elif isinstance(node, Seq) and isinstance(step, int) and step < len(node):
            node = node[step]
            mark = node.at
            names += f"[{step}]"
        else:
            break
    return node, mark, names


def _is_broken(node: Node) -> bool:
    return any(isinstance(text, Broken) for text in texts(node))


def _broken(text: Text) -> Broken:
    broken = Broken(text)
    broken.at = text.at
    return broken


def _secret(node: Node) -> bool:
    return any(isinstance(text, Rendered) and text.secret for text in texts(node))
