"""Declared resources to the kinds' own dataclasses, by the engine of pydantic.

Every field that is wrong is reported at its own place. It must not look at more than one resource
at a time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args, get_origin, get_type_hints

from pydantic_core import SchemaValidator, ValidationError

from reconciler.base import scalars
from reconciler.base.records import fields, replace
from reconciler.base.scalars import InvalidScalar
from reconciler.config.errors import Problems
from reconciler.config.field_schemas import of_record
from reconciler.config.nodes import (
    Broken,
    Map,
    Node,
    Rendered,
    Seq,
    SourceMark,
    Text,
    censored,
    follow,
    hidden,
    is_null,
    is_secret,
    shown,
    texts,
)
from reconciler.config.resolve import Declaration
from reconciler.core.fields import Parsed
from reconciler.core.kind import Completed, Kind, Modifying

_FREE = (
    scalars.parse_text,
    scalars.parse_name,
    scalars.parse_command,
    scalars.parse_patterns,
    scalars.parse_regex,
)
"""Parsers of free text, in which there may be a value that must not be kept on disk."""

_PATHS = (scalars.parse_path, scalars.parse_socket)


class Validator:
    """Turns declared resources into what the kinds want."""

    def __init__(self, kinds: Sequence[Kind[Any, Any]], home: str, problems: Problems) -> None:
        self.kinds = kinds
        self.home = home
        self.problems = problems
        self._readers: dict[type[Any], SchemaValidator] = {}
        self.saw_secret = False
        """Did what was read last hold a value of the environment?"""
        self.keeps_secrets = False
        """Some value of the environment stands in a field that is not made for secrets."""

    def want(self, declared: Declaration) -> Any:
        """The kind's dataclass, or None when something is wrong with it."""
        problems, kind, body = self.problems, declared.kind, declared.body
        before = len(problems.found)
        want = self.read(kind.resource, body, declared.title, declared.at, declared.common)
        if want is None or declared.broken:
            return None
        if not declared.present and isinstance(kind, Modifying):
            message = f"{declared.title} makes nothing that could be absent; take it out instead"
            problems.add(declared.place("state"), message)
        if isinstance(kind, Completed):
            want = kind.named(want, declared.name)
        if self.saw_secret:
            marked = [one.name for one in fields(kind.resource) if "secret" in one.metadata]
            want = replace(want, **dict.fromkeys(marked, True))
        for name, message in kind.check(want):
            steps = [
                int(word) if word.isdigit() else word for word in re.findall(r"[^.\[\]]+", name)
            ]
            _, mark, names = follow(body, steps)
            mark = mark if names else declared.at
            message = f"{declared.title}: {names or name}: {censored(message, body)}"
            problems.add(mark, message)
        return want if len(problems.found) == before else None

    def read(
        self, cls: type[Any], body: Map, title: str, at: SourceMark, common: Sequence[str] = ()
    ) -> Any:
        """What is written at ``at`` as that dataclass, or None when something is wrong with it.

        ``common`` are keys that are read by others. What is wrong is reported for ``title``.
        """
        if cls not in self._readers:
            self._readers[cls] = SchemaValidator(of_record(cls))
        written = {key: node for key, node in body.items() if key not in common}
        self.saw_secret = False
        found: list[Mapping[str, Any]] = []
        want = None
        try:
            want = self._readers[cls].validate_python(written, context=self.value)
        except ValidationError as error:
            found += error.errors(include_url=False, include_input=False)
        refused = [one["loc"] for one in found if one["type"] == "unexpected_keyword_argument"]
        for loc in refused:
            self._report_key(loc, cls, body, title, common)
        for one in found:
            if one["type"] != "unexpected_keyword_argument":
                self._report(one, cls, body, title, at)
        return None if refused or (self.problems and _is_broken(body)) else want

    def value(self, parsed: Parsed, node: Node) -> Any:
        """What a field holds, by its annotation. Raises ValueError."""
        if (
            node.secret
            if isinstance(node, Rendered)
            else type(node) in (Map, Seq) and is_secret(node)
        ):
            self.saw_secret = True
            self.keeps_secrets |= parsed.secrets or parsed.parse in _FREE
        if parsed.parse in _PATHS and isinstance(node, Text):
            return parsed.parse(self._path(node))
        return parsed.parse(node)

    def _path(self, text: Text) -> str:
        if isinstance(text, Rendered) and text.hollow is not None:
            raise InvalidScalar(
                f"{{{{ {text.hollow} }}}} is empty, which would make this {shown(text)!r}",
                hint="give it a value: a path that loses a part would name something else",
            )
        if not text.startswith("~") or is_null(text):
            return text
        if text != "~" and not text.startswith("~/"):
            raise InvalidScalar(
                f"{shown(text)!r} names the home of another user",
                hint="write the whole path; only ~ and ~/... are understood",
            )
        return self.home + text[1:]

    def _report_key(
        self, loc: Sequence[Any], cls: type[Any], body: Map, title: str, common: Sequence[str]
    ) -> None:
        """A key that is none of a field."""
        *above, key = loc
        holder, _, names = follow(body, above)
        assert isinstance(holder, Map)
        known = [*_keys(cls, above), *(() if above else common)]
        others = []
        if common and not above:
            others = [kind.section for kind in self.kinds if key in _keys(kind.resource)]
        hint = f"its fields are {', '.join(known)}"
        if others:
            hint = f"it is a field under {' and '.join(others)}"
        elif ":" in key:
            hint = "write a space after the colon"
        what = f"{title}: {names}" if names else title
        self.problems.add(holder.key(key), f"{what} has no field {key!r}", hint, near=(key, known))

    def _report(
        self, entry: Mapping[str, Any], cls: type[Any], body: Map, title: str, at: SourceMark
    ) -> None:
        """One error of pydantic, at the innermost thing that was written."""
        sort, loc = entry["type"], entry["loc"]
        if sort == "missing":
            holder, _, names = follow(body, loc[:-1])
            what = f"{title}: {names}" if names else title
            self.problems.add(holder.at if names else at, f"{what} needs {loc[-1]!r}")
            return
        node, mark, names = follow(body, loc)
        if _is_broken(node):
            return
        message = entry["msg"]
        hint = None
        near = None
        cause = entry.get("ctx", {}).get("error")
        if isinstance(cause, InvalidScalar):
            hint = cause.hint
            holder = node
            node, mark, names = follow(body, (*loc, *cause.at))
            if cause.key and isinstance(holder, Map) and cause.at:
                mark = holder.key(str(cause.at[-1]))
                node, _, names = follow(body, loc)
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
            known = _keys(cls, loc) if sort != "dict_type" else ()
            hint = f"its fields are {', '.join(known)}" if known else None
        self.problems.add(mark, f"{title}: {names}: {hidden(node, message)}", hint, near)


def _keys(cls: Any, loc: Iterable[Any] = ()) -> list[str]:
    """The keys that a user may write in the dataclass to which ``loc`` leads."""
    free = False
    """Is the next step a key of the user's own?"""
    for step in loc:
        if isinstance(step, str) and not free:
            named = {one.metadata.get("alias", one.name): one.name for one in fields(cls)}
            cls = get_type_hints(cls, include_extras=True)[named[step]]
            while not hasattr(cls, "__dataclass_fields__"):
                free = get_origin(cls) is dict
                cls = get_args(cls)[1 if free else 0]  # Of a list, of what may be missing.
        else:
            free = False
    return [
        str(one.metadata.get("alias", one.name))
        for one in fields(cls)
        if one.metadata.get("written", True)
    ]


def _is_broken(node: Node) -> bool:
    return any(isinstance(text, Broken) for text in texts(node))
