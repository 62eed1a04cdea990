"""The top of a spec: version, name, variables and loop.

It must not look into the sections.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from reconciler.base.records import dataclass
from reconciler.base.redaction import censored
from reconciler.base.values import Remembered
from reconciler.config.errors import Problems, closest, one_of
from reconciler.config.include import Document
from reconciler.config.nodes import Map, Node, SourceMark, Text, is_null
from reconciler.config.reading import NAME
from reconciler.config.scope import FIXED, Scope, told_secret
from reconciler.config.validate import Validator
from reconciler.core import order
from reconciler.core.fields import Duration
from reconciler.core.kind import Kind

_ONCE = "state"
"""The variable by which specs are taken away; it counts for one call."""
_MAIN = ("version", "name", "loop")
_KEYWORDS = ("and", "or", "not", "in", "is", "if", "else", "true", "false", "none")


@dataclass(frozen=True, slots=True)
class LoopFields:
    """How ``reconcile --loop`` works."""

    every: Duration = 30.0
    """The time between two passes."""


@dataclass(slots=True)
class Head:
    """What the top of the main file says. ``loop_every`` is in seconds.

    ``variables`` are those that were set to something else: see model.Spec.
    """

    name: str = ""
    loop_every: float = 30.0
    variables: tuple[tuple[str, str], ...] = ()


class HeadReader:
    """Reads what stands above the sections, in all the files of a spec."""

    def __init__(
        self, documents: Sequence[Document], kinds: Sequence[Kind[Any, Any]], problems: Problems
    ) -> None:
        self.documents = documents
        self.sections = [kind.section for kind in kinds]
        self.problems = problems
        self.head = Head()

    def read_head(self) -> None:
        """Check the top level of every file, and read ``version`` and ``name``."""
        for document in self.documents:
            self._known_keys(document)
            if not document.main:
                continue
            root = document.root
            version, name = root.get("version"), root.get("name")
            if version is None:
                self.problems.add(root.at, "'version' is missing", "write version: 1")
            elif not isinstance(version, Text) or version != "1":
                said = f", not {str(version)[:20]}" if isinstance(version, Text) else ""
                self.problems.add(
                    version.at, f"the version of the spec format is 1{said}", "write version: 1"
                )
            if name is None:
                self.problems.add(root.at, "'name' is missing", "write name: and a short word")
            elif not isinstance(name, Text) or not re.fullmatch(NAME, name):
                self.problems.add(
                    name.at,
                    "the name of a spec is made of a to z, 0 to 9, '_' and '-', begins with a "
                    "letter or digit, and has at most 64 characters",
                )
            else:
                self.head.name = str(name)

    def _known_keys(self, document: Document) -> None:
        allowed = ["include", "vars", "notify", *self.sections]
        if document.main:
            allowed = [*_MAIN, *allowed]
        for key in document.root:
            if key in allowed:
                continue
            at = document.root.key(key)
            if key in _MAIN:
                self.problems.add(at, f"{key!r} belongs into the main file only")
                continue
            self.problems.add(
                at,
                f"there is no section {key!r}",
                f"the sections are {one_of(self.sections)}" if self.sections else None,
                near=(key, allowed),
            )

    def read_vars(self, settings: Mapping[str, str], scope: Scope) -> None:
        """Evaluate all variables, each after those that it uses."""
        found: dict[str, tuple[SourceMark, Node]] = {}
        for document in self.documents:
            node = document.root.get("vars")
            if node is None or is_null(node):
                continue
            if not isinstance(node, Map):
                self.problems.add(node.at, "vars needs names with values: name: value")
                continue
            for name, value, at in node.entries():
                if self._variable_name(name, at, found):
                    found[name] = at, value
        for name, setting in settings.items():
            if name not in found and not isinstance(setting, Remembered):
                near = closest(name, found)
                self.problems.add_file(
                    f"--set {name}",
                    f"the spec has no variable {name!r}",
                    f"did you mean {near!r}?" if near else "only a variable under vars can be set",
                )
        before = {
            name: scope.names(node) & found.keys()
            for name, (_, node) in found.items()
            if name not in settings
        }
        scope.uses = {name: set(before.get(name, ())) for name in found}
        try:
            names = order.in_order(list(found), before)
        except order.Cycle as cycle:
            first = found[cycle.ids[0]][0]
            self.problems.add(first, f"variables use one another: {cycle}")
            self.problems.stop_if_any()
            raise
        for name in names:
            if name in settings:
                scope.define(name, str(settings[name]), told_secret(name, settings[name]))
                continue
            result = scope.value(found[name][1])
            if result is None:
                scope.failed.add(name)
                continue
            scope.define(name, *result, found[name][1])
        self.head.variables = tuple(
            (name, str(value))
            for name, value in sorted(settings.items())
            if name in found and name != _ONCE and self._lasts(name, value, found[name][1], scope)
        )

    def _lasts(self, name: str, value: str, own: Node, scope: Scope) -> bool:
        """Is it worth remembering, and may it be? Not what the file says anyway, nor a secret."""
        secret = name in scope.secrets or censored(value, most=None) != value
        return not secret and not scope.gives(own, value)

    def _variable_name(
        self, name: str, at: SourceMark, found: Mapping[str, tuple[SourceMark, Node]]
    ) -> bool:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", name) or name.lower() in _KEYWORDS:
            wrong = "is not a name for a variable: letters, digits and '_' make one"
        elif name in FIXED:
            wrong = "has a fixed meaning in templates; take another name"
        elif name in found:
            self.problems.add(at, f"the variable {name!r} is set twice; first in {found[name][0]}")
            return False
        else:
            return True
        self.problems.add(at, f"{name!r} {wrong}")
        return False

    def read_loop(self, scope: Scope, validator: Validator) -> None:
        """Read ``loop`` of the main file."""
        for document in self.documents:
            loop = document.root.get("loop")
            if not document.main or loop is None or is_null(loop):
                continue
            node = scope.node(loop)
            if isinstance(node, Map):
                found = validator.read(LoopFields, node, "loop", node.at)
                self.head.loop_every = found.every if found else 0.0
            else:
                self.problems.add(node.at, "loop needs fields", "write loop: {every: 30s}")
