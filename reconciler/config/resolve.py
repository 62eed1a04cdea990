"""From nodes to declared resources: ``for_each``, ``when`` and templates in values.

It must not judge the fields of a kind; it hands on text with its place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from reconciler.base.records import dataclass, names
from reconciler.config.errors import Problems
from reconciler.config.nodes import (
    Bare,
    Broken,
    Map,
    Node,
    Rendered,
    Seq,
    Source,
    SourceMark,
    Text,
    empty_map,
    is_null,
    placed,
    shown,
    texts,
)
from reconciler.config.rendering import unevaluated
from reconciler.config.scope import Scope
from reconciler.config.yaml import load
from reconciler.core.kind import Kind

COMMON = ("state", "needs", "after", "when", "for_each")
_OWN = (("state", Map), ("after", Text))
"""What a kind may have as a field of its own, and the form by which it is known for that."""
"""Fields that every resource has."""
MAX_RESOURCES = 100_000
MAX_WORK = 5_000_000
"""Values that one ``for_each`` may make in all the resources it stands for."""
MAX_NAME = 200
"""Characters in the name of a resource, and in a value that becomes part of one."""


@dataclass(slots=True)
class Declaration:
    """A resource as it was declared, at ``at``, its templates rendered.

    ``base`` is its id without [each]. ``want`` is what its kind makes of it, None where that is
    not valid. ``kept`` is its body until it is not needed, and behind that if it holds
    a secret.
    """

    kind: Kind[Any, Any]
    id: str
    base: str
    at: SourceMark
    kept: Map | None
    present: bool = True
    needs: Sequence[Text] = ()
    after: Sequence[Text] = ()
    skip: str | None = None
    broken: bool = False
    want: Any = None

    @property
    def name(self) -> str:
        return self.id.partition(":")[2]

    @property
    def common(self) -> Sequence[str]:
        """Its fields that are no business of its kind; in another form one may be its own."""
        fields = names(self.kind.resource)
        own = {
            name for name, form in _OWN if name in fields and isinstance(self.body.get(name), form)
        }
        return [name for name in COMMON if name not in own] if own else COMMON

    @property
    def title(self) -> str:
        """What it is called in messages."""
        return f"{self.kind.name} {self.name!r}"

    @property
    def body(self) -> Map:
        """Its fields, which are read once more where they were not kept."""
        if self.kept is None:
            source = self.at.source
            root = load(source.text.encode(), Source(source.shown, source.path), Problems())
            sections = [part for part in (root or {}).values() if isinstance(part, Map)]
            entries = (entry for section in sections for entry in section.entries())
            body = next(body for _, body, at in entries if at.start == self.at.start)
            self.kept = body if isinstance(body, Map) else empty_map(self.at)
        return self.kept

    def place(self, field: str) -> SourceMark:
        """Where a field is written, or else the resource."""
        return self.body.place(field) if field in self.body else self.at


class Resolver:
    """Finds the resources in the files of one spec."""

    def __init__(
        self, roots: Sequence[Map], kinds: Sequence[Kind[Any, Any]], problems: Problems
    ) -> None:
        self.roots = roots
        self.sections = {kind.section: kind for kind in kinds}
        self.problems = problems
        self.bases: dict[str, SourceMark] = {}
        """The ids of everything that was written, also where ``for_each`` gave nothing."""
        self.declared_kinds: dict[str, None] = {}
        """The kinds whose section was written, also where it is empty."""

    def resources(self, scope: Scope) -> Iterator[Declaration]:
        """Every resource, in the order of the files and of what is written in them.

        As long as one is looked at, its ``each`` is in scope. Of what was written no more is kept
        then than what was not found yet, since it takes more memory than all else.
        """
        made = 0
        gone = Bare()
        for root in self.roots:
            for section, entries in root.items():
                kind = self.sections.get(section)
                if kind is None:
                    continue
                prefix = kind.name
                self.declared_kinds[prefix] = None
                if is_null(entries):
                    continue
                if not isinstance(entries, Map):
                    self.problems.add(
                        entries.at,
                        f"{section} needs a name for each: name: {{fields}}",
                        "write each as 'name:' with its fields indented below it",
                    )
                    continue
                for written, body, at in entries.entries():
                    name = self._rendered(written, at, scope) if "{{" in written else written
                    base = f"{prefix}:{name}"
                    if base in self.bases:
                        first = self.bases[base]
                        message = f"{prefix} {name!r} is defined twice; first in {first}"
                        self.problems.add(at, message)
                        continue
                    self.bases[base] = at
                    entries[written] = gone
                    self._name(kind, name, at)
                    for declared in self._declare(kind, base, at, body, scope):
                        made += 1
                        yield declared
                    if made > MAX_RESOURCES:
                        self.problems.add(at, f"more than {MAX_RESOURCES:,} resources")
                        return

    def _rendered(self, written: str, at: SourceMark, scope: Scope) -> str:
        """A name that is a template; it is shown everywhere, so it holds nothing secret."""
        text = placed(Text(written), at.source, at.start)
        unknown = sorted(scope.names(text) - scope.values.keys() - scope.failed)
        if unknown and not scope.partial:
            hint = "a name may have variables in it; for_each makes one resource for each value"
            self.problems.add(at, f"{written!r}: {unknown[0]!r} is not defined", hint)
            return written
        name = scope.text(text)
        if isinstance(name, Rendered) and name.secret:
            self.problems.add(at, f"{written!r} gives a value of the environment, which no name is")
        return str(name)

    def _name(self, kind: Kind[Any, Any], name: str, at: SourceMark) -> None:
        wrong = None
        if not 0 < len(name) <= MAX_NAME:
            wrong = f"a name has 1 to {MAX_NAME} characters"
        elif not name.isprintable():
            wrong = "a name holds no control characters"
        elif name.strip() != name:
            wrong = "a name neither begins nor ends with a blank"
        elif "[" in name or "]" in name:
            wrong = "a name holds no '[' or ']', which are made by for_each"
        if wrong is not None:
            self.problems.add(at, f"{kind.name} {name!r}: {wrong}")

    def _declare(
        self, kind: Kind[Any, Any], base: str, at: SourceMark, body: Node, scope: Scope
    ) -> Iterator[Declaration]:
        if is_null(body):
            body = empty_map(at)
        if not isinstance(body, Map):
            name = base.partition(":")[2]
            message = f"{kind.name} {name!r} needs fields, not {_what(body)}"
            hint = "write 'field: value' lines indented below the name"
            self.problems.add(body.at, message, hint)
            return
        node = body.get("for_each")
        if node is None:
            yield self._one(Declaration(kind, base, base, at, body), scope)
            return
        values = self._values(node, scope)
        if values is None:
            scope.failed.add("each")
            declared = self._one(Declaration(kind, base, base, at, body), scope)
            declared.broken = True
            yield declared
            scope.failed.discard("each")
            return
        if len(values) * sum(1 for _ in texts(body)) > MAX_WORK:
            self.problems.add(node.at, f"for_each makes more than {MAX_WORK:,} values to work out")
            return
        seen: set[str] = set()
        for number, (value, is_secret, item, marked) in enumerate(values):
            label = _label(value, number)
            if not 0 < len(label) <= MAX_NAME or not label.isprintable():
                what = f"item {number + 1} of for_each cannot be part of a name: {label[:40]!r}"
                self.problems.add(item.at, what)
                continue
            if label in seen:
                self.problems.add(item.at, f"for_each has {label!r} twice")
                continue
            seen.add(label)
            scope.set_each(value, is_secret, marked)
            yield self._one(Declaration(kind, f"{base}[{label}]", base, at, body), scope)
        scope.clear_each()

    def _values(self, node: Node, scope: Scope) -> list[tuple[Any, bool, Node, Any]] | None:
        """The values of a ``for_each``, whether they are secret, and where they stand; last, what
        they are with the marks of ``Blanks``."""
        if isinstance(node, Seq):
            every = [scope.value(item) for item in node]
            found = [result for result in every if result is not None]
            if len(found) < len(every):
                return None
            marked = scope.blanks.each(node, [value for value, _ in found])
            return [(*one, *more) for one, *more in zip(found, node, marked, strict=True)]
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
        others = scope.blanks.each(node, values)
        return [(value, is_secret, node, one) for value, one in zip(values, others, strict=True)]

    def _one(self, declared: Declaration, scope: Scope) -> Declaration:
        before = len(self.problems.found)
        when = declared.body.get("when")
        body = declared.body
        if body.source.templated:
            kept = (*unevaluated(declared.kind.resource), "when", "for_each")
            rendered = scope.node(body, kept)
            assert isinstance(rendered, Map)
            declared.kept = body = rendered
        if when is not None:
            if not isinstance(when, Text) or is_null(when):
                hint = 'when needs an expression, such as "host.systemd"'
                self.problems.add(when.at, hint)
            elif scope.truth(when) is False:
                declared.skip = when.strip()
        state = body.get("state")
        if "state" not in declared.common:
            pass
        elif state is not None and not isinstance(state, Broken):
            if not isinstance(state, Text) or state not in ("present", "absent"):
                said = shown(state) if isinstance(state, Text) else _what(state)
                self.problems.add(
                    state.at,
                    f"state is present or absent, not {said[:40]}",
                    near=(said, ["present", "absent"]),
                )
            declared.present = state != "absent"
        declared.needs = self._ids(body, "needs")
        if "after" in declared.common:
            declared.after = self._ids(body, "after")
        declared.broken = len(self.problems.found) != before
        return declared

    def _ids(self, body: Map, name: str) -> Sequence[Text]:
        node = body.get(name)
        if node is None or is_null(node):
            return ()
        if not isinstance(node, Seq):
            hint = f"write {name}: [{shown(node)[:60]}]" if isinstance(node, Text) else None
            self.problems.add(node.at, f"{name} needs a list of ids", hint)
            return ()
        for item in node:
            if not isinstance(item, Text):
                self.problems.add(item.at, f"{name} holds ids, such as directory:logs")
        return [one for one in node if isinstance(one, Text) and not isinstance(one, Broken)]


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
