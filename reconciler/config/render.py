"""Templates to text and values, with jinja2: what stands in them, and what they give.

It must not read a file, nor escape anything: values stay apart from the text around them, so
that whoever knows the format can escape them. The sandbox with its bounds is handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jinja2 import TemplateSyntaxError, nodes, pass_context
from jinja2.runtime import Undefined
from jinja2.sandbox import SandboxedEnvironment

from reconciler.core.kind import Value

_MARK = "\0"
_REFUSED: dict[type[nodes.Node], str] = {
    nodes.Include: "include", nodes.Import: "import", nodes.FromImport: "import",
    nodes.Extends: "extends", nodes.Block: "block", nodes.Macro: "macro",
    nodes.CallBlock: "call", nodes.FilterBlock: "filter", nodes.AssignBlock: "set without =",
}  # fmt: skip


class Syntax(Exception):
    """The template cannot be read. ``said`` is what jinja2 says, on that line from 1."""

    def __init__(self, line: int, said: str) -> None:
        super().__init__(said)
        self.line = line
        self.said = said


class _Raw(str):
    """What the filter ``raw`` gives."""

    __slots__ = ()


class Template:
    """A template, read. ``names`` are those that it asks its surroundings for.

    ``charge`` takes every item of a loop and every output, and raises when it is too much.
    """

    def __init__(
        self, environment: SandboxedEnvironment, source: str, charge: Callable[[Any], Any]
    ) -> None:
        self._values: list[Value] = []
        self._charge = charge
        environment.trim_blocks = environment.lstrip_blocks = True
        environment.keep_trailing_newline = True
        environment.filters |= {"raw": _raw}
        tree = self._parsed(environment, source)
        self.names = frozenset(name.name for name in tree.find_all(nodes.Name))
        # Both take the context, so that nothing is worked out when the template is compiled.
        own: dict[str, Callable[..., Any]] = {
            "placed by us": pass_context(lambda _, value, line: self._placed(value, line)),
            "charged by us": pass_context(lambda _, items: self._all(items)),
        }
        environment.filters |= own
        for output in tree.find_all(nodes.Output):
            output.nodes = [
                child
                if isinstance(child, nodes.TemplateData)
                else _filtered(child, "placed by us", nodes.Const(child.lineno))
                for child in output.nodes
            ]
        for loop in tree.find_all(nodes.For):
            loop.iter = _filtered(loop.iter, "charged by us")
        try:
            self._template = environment.from_string(tree)
        except TemplateSyntaxError as error:
            raise Syntax(error.lineno, error.message or "") from None

    @staticmethod
    def _parsed(environment: SandboxedEnvironment, source: str) -> nodes.Template:
        if _MARK in source:
            line = source[: source.index(_MARK)].count("\n") + 1
            raise Syntax(line, "there is a NUL character")
        try:
            tree = environment.parse(source)
        except TemplateSyntaxError as error:
            raise Syntax(error.lineno, error.message or "") from None
        except RecursionError:
            raise Syntax(1, "it is nested too deep") from None
        for sort, word in _REFUSED.items():
            found = tree.find(sort)
            if found is not None:
                raise Syntax(found.lineno, f"{{% {word} %}} is not for templates here")
        return tree

    def pieces(self, values: Mapping[str, Any]) -> tuple[str | Value, ...]:
        """The text of the template, and between it the values that its outputs give."""
        self._values.clear()
        parts = "".join(self._counted(self._template.generate(values))).split(_MARK)
        found = (self._values[int(part)] if at % 2 else part for at, part in enumerate(parts))
        return tuple(piece for piece in found if piece != "")

    def _counted(self, parts: Iterable[str]) -> Iterable[str]:
        for part in parts:
            self._charge(part)
            yield part

    def line_of(self, error: BaseException) -> int:
        """The line of the template in which an error came up, or 1."""
        line = 1
        cause: BaseException | None = error
        while cause is not None:
            trace = cause.__traceback__
            while trace is not None:
                if trace.tb_frame.f_code.co_filename == "<template>":
                    line = trace.tb_lineno  # jinja2 has put the template's own lines there.
                trace = trace.tb_next
            cause = cause.__cause__
        return line

    def _placed(self, value: Any, line: int) -> str:
        if isinstance(value, Undefined):
            str(value)  # Raises, and says what was undefined.
        raw = isinstance(value, _Raw)
        self._values.append(Value(str(value) if raw else value, raw, line))
        self._charge(value)
        return f"{_MARK}{len(self._values) - 1}{_MARK}"

    def _all(self, items: Any) -> list[Any]:
        if isinstance(items, Undefined):
            str(items)
        found = []
        for item in items:
            self._charge(None)
            found.append(item)
        return found


def _raw(value: Any) -> Any:
    return value if isinstance(value, Undefined) else _Raw(value)


def _filtered(node: nodes.Node, name: str, *arguments: nodes.Expr) -> nodes.Filter:
    assert isinstance(node, nodes.Expr)
    return nodes.Filter(node, name, list(arguments), [], None, None, lineno=node.lineno)
