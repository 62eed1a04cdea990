"""From nodes to declared resources: ``for_each``, ``when`` and templates in values.

It must not judge the fields of a kind; it hands on text with its place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from reconciler.base.records import dataclass, field
from reconciler.config.errors import Problems
from reconciler.config.include import Document
from reconciler.config.nodes import Broken, Map, Node, Seq, Text, get, is_null, texts
from reconciler.config.rendering import unevaluated
from reconciler.config.scope import Scope
from reconciler.config.secrecy import shown
from reconciler.core.kind import Kind

COMMON = ("state", "needs", "after", "when", "for_each")
"""Fields that every resource has."""
MAX_RESOURCES = 100_000
MAX_WORK = 5_000_000
"""Values that one ``for_each`` may make in all the resources it stands for."""
MAX_NAME = 200
"""Characters in the name of a resource, and in a value that becomes part of one."""


@dataclass(slots=True)
class Declared:
    """A resource as it was declared, its templates rendered. ``base`` is its id without [each]."""

    kind: Kind[Any, Any]
    name: str
    base: str
    key: Text
    body: Map
    present: bool = True
    needs: list[Text] = field(default_factory=list)
    after: list[Text] = field(default_factory=list)
    skip: str | None = None
    broken: bool = False
    each: tuple[Any, bool] | None = None
    """The value of ``for_each`` that it stands for, and whether that is secret."""

    @property
    def id(self) -> str:
        return f"{self.kind.name}:{self.name}"


class Resolver:
    """Finds the resources in the documents of one spec."""

    def __init__(
        self, documents: Sequence[Document], kinds: Sequence[Kind[Any, Any]], problems: Problems
    ) -> None:
        self.documents = documents
        self.sections = {kind.section: kind for kind in kinds}
        self.problems = problems
        self.bases: set[str] = set()
        """The ids of everything that was written, also where ``for_each`` gave nothing."""
        self.declared_kinds: dict[str, None] = {}
        """The kinds whose section was written, also where it is empty."""

    def resources(self, scope: Scope) -> list[Declared]:
        """Every resource, in the order of the files and of what is written in them."""
        found: dict[str, Text] = {}
        declared: list[Declared] = []
        for document in self.documents:
            for section, entries in document.root.items():
                kind = self.sections.get(section)
                if kind is None:
                    continue
                self.declared_kinds[kind.name] = None
                if is_null(entries):
                    continue
                if not isinstance(entries, Map):
                    self.problems.add(
                        entries.at,
                        f"{kind.section} needs a name for each: name: {{fields}}",
                        "write each as 'name:' with its fields indented below it",
                    )
                    continue
                for key, body in entries.items():
                    base = f"{kind.name}:{key}"
                    if base in found:
                        first = found[base].at
                        line = first.source.line_of(first.start) + 1
                        self.problems.add(
                            key.at,
                            f"{kind.name} {str(key)!r} is defined twice; first in "
                            f"{first.source.shown}, line {line}",
                        )
                        continue
                    found[base] = key
                    self.bases.add(base)
                    self._name(kind, key)
                    declared.extend(self._declare(kind, key, body, scope))
                    if len(declared) > MAX_RESOURCES:
                        self.problems.add(key.at, f"more than {MAX_RESOURCES:,} resources")
                        return declared
        return declared

    def _name(self, kind: Kind[Any, Any], key: Text) -> None:
        wrong = None
        if "{{" in key:
            wrong = "templates are not evaluated in names"
        elif not 0 < len(key) <= MAX_NAME:
            wrong = f"a name has 1 to {MAX_NAME} characters"
        elif not key.isprintable():
            wrong = "a name holds no control characters"
        elif key.strip() != key:
            wrong = "a name neither begins nor ends with a blank"
        elif "[" in key or "]" in key:
            wrong = "a name holds no '[' or ']', which are made by for_each"
        if wrong is not None:
            hint = "for_each makes one resource for each value of a list" if "{{" in key else None
            self.problems.add(key.at, f"{kind.name} {str(key)!r}: {wrong}", hint)

    def _declare(
        self, kind: Kind[Any, Any], key: Text, body: Node, scope: Scope
    ) -> Iterator[Declared]:
        if is_null(body):
            fields = Map()
            fields.at = key.at
        elif isinstance(body, Map):
            fields = body
        else:
            message = f"{kind.name} {str(key)!r} needs fields, not {_what(body)}"
            self.problems.add(
                body.at, message, "write 'field: value' lines indented below the name"
            )
            return
        base = f"{kind.name}:{key}"
        if "for_each" not in fields:
            yield self._one(Declared(kind, str(key), base, key, fields), scope)
            return
        node = fields["for_each"]  # type: ignore[index]
        values = self._values(node, scope)
        if values is None:
            yield Declared(kind, str(key), base, key, fields, broken=True)
            return
        if len(values) * sum(1 for _ in texts(fields)) > MAX_WORK:
            self.problems.add(node.at, f"for_each makes more than {MAX_WORK:,} values to work out")
            return
        seen: set[str] = set()
        for number, (value, is_secret, at, marked) in enumerate(values):
            label = _label(value, number)
            if not 0 < len(label) <= MAX_NAME or not label.isprintable():
                self.problems.add(
                    at.at, f"item {number + 1} of for_each cannot be part of a name: {label[:40]!r}"
                )
                continue
            if label in seen:
                self.problems.add(at.at, f"for_each has {label!r} twice")
                continue
            seen.add(label)
            scope.set_each(value, is_secret, marked)
            declared = Declared(kind, f"{key}[{label}]", base, key, fields)
            declared.each = value, is_secret
            yield self._one(declared, scope)
        scope.clear_each()

    def _values(self, node: Node, scope: Scope) -> list[tuple[Any, bool, Node, Any]] | None:
        """The values of a ``for_each``, whether they are secret, and where they stand; last, what
        they are with the marks of ``Hollows``."""
        marked = scope.hollows.value
        if isinstance(node, Seq):
            every = [(scope.value(item), item) for item in node]
            if any(result is None for result, _ in every):
                return None
            return [
                (*result, item, marked(item, result[0], "each"))
                for result, item in every
                if result is not None
            ]
        if isinstance(node, Map) or "{{" not in node:
            hint = 'write a list, [a, b], or name a variable that is one: "{{ names }}"'
            self.problems.add(node.at, "for_each needs a list", hint)
            return None
        result = scope.value(node)
        if result is None:
            return None
        values, is_secret = result
        if not isinstance(values, list):
            self.problems.add(node.at, "for_each needs a list, and this gives none")
            return None
        if len(values) > MAX_RESOURCES:
            self.problems.add(node.at, f"for_each takes at most {MAX_RESOURCES:,} values")
            return None
        others = marked(node, values, "each")
        return [(value, is_secret, node, one) for value, one in zip(values, others, strict=True)]

    def _one(self, declared: Declared, scope: Scope) -> Declared:
        before = len(self.problems.found)
        written = declared.body
        when = get(written, "when")
        plain = Map({k: v for k, v in written.items() if k not in ("when", "for_each")})
        plain.at = written.at
        body = scope.node(plain, unevaluated(declared.kind.resource))
        assert isinstance(body, Map)
        declared.body = body
        if when is not None:
            self._when(declared, when, scope)
        state = get(body, "state")
        if state is not None and not isinstance(state, Broken):
            if not isinstance(state, Text) or state not in ("present", "absent"):
                said = shown(state) if isinstance(state, Text) else _what(state)
                self.problems.add(
                    state.at,
                    f"state is present or absent, not {said[:40]}",
                    near=(str(state), ["present", "absent"]) if isinstance(state, Text) else None,
                )
            declared.present = state != "absent"
        declared.needs = self._ids(body, "needs")
        declared.after = self._ids(body, "after")
        declared.broken = len(self.problems.found) != before
        return declared

    def _when(self, declared: Declared, when: Node, scope: Scope) -> None:
        if not isinstance(when, Text) or is_null(when):
            self.problems.add(when.at, 'when needs an expression, such as "host.systemd"')
        elif scope.truth(when) is False:
            declared.skip = str(when).strip()

    def _ids(self, body: Map, name: str) -> list[Text]:
        node = get(body, name)
        if node is None or is_null(node):
            return []
        if not isinstance(node, Seq):
            hint = f"write {name}: [{shown(node)[:60]}]" if isinstance(node, Text) else None
            self.problems.add(node.at, f"{name} needs a list of ids", hint)
            return []
        found = []
        for item in node:
            if isinstance(item, Broken):
                continue
            if isinstance(item, Text):
                found.append(item)
            else:
                self.problems.add(item.at, f"{name} holds ids, such as directory:logs")
        return found


def _what(node: Node) -> str:
    if isinstance(node, Seq):
        return "a list"
    return "a mapping" if isinstance(node, Map) else "a single value"


def _label(value: Any, number: int) -> str:
    """What stands in the brackets of a name: the value, its ``name``, or its number from 1."""
    if isinstance(value, dict):
        value = value.get("name")
    if value is None or isinstance(value, (dict, list)):
        return str(number + 1)
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
