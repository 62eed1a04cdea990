"""A template of its own, read with jinja2: its text, and between it the values of its outputs.

It must not read a file, nor escape anything: values stay apart from the text around them, so
that whoever knows the format can escape them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from jinja2 import TemplateSyntaxError, nodes, pass_context

from reconciler.config.sandbox import Sandbox, defined, syntax
from reconciler.core.templating import Literal, Value

_MARK = "\0"
_REFUSED: dict[type[nodes.Node], str] = {
    nodes.Include: "include", nodes.Import: "import", nodes.FromImport: "import",
    nodes.Extends: "extends", nodes.Block: "block", nodes.Macro: "macro",
    nodes.CallBlock: "call", nodes.FilterBlock: "filter", nodes.AssignBlock: "set without =",
}  # fmt: skip


class InvalidTemplate(Exception):
    """The template cannot be read; the message says why, and ``line`` counts from 1."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


class _Raw(str):
    """What the filter ``raw`` gives."""

    __slots__ = ()


class Template:
    """A template, read in a ``sandbox`` that is only for it. Raises InvalidTemplate.

    ``names`` are those that it asks its surroundings for.
    """

    def __init__(self, sandbox: Sandbox, source: str) -> None:
        self.sandbox = sandbox
        self._values: list[Value] = []
        sandbox.trim_blocks = sandbox.lstrip_blocks = sandbox.keep_trailing_newline = True
        # Both take the context, so that nothing is worked out when the template is compiled.
        own: dict[str, Callable[..., Any]] = {
            "placed by us": pass_context(lambda _, value, line: self._placed(value, line)),
            "charged by us": pass_context(lambda _, items: self._all(items)),
        }
        sandbox.filters |= {"raw": lambda value: _Raw(defined(value)), **own}
        try:
            tree = self._parsed(source)
            self.names = frozenset(name.name for name in tree.find_all(nodes.Name))
            for output in tree.find_all(nodes.Output):
                output.nodes = [
                    each
                    for child in output.nodes
                    for each in (
                        (nodes.TemplateData(f"{_MARK}:{child.lineno}{_MARK}"), child)
                        if isinstance(child, nodes.TemplateData)
                        else (_filtered(child, "placed by us", nodes.Const(child.lineno)),)
                    )
                ]
            for loop in tree.find_all(nodes.For):
                loop.iter = _filtered(loop.iter, "charged by us")
            self._template = sandbox.from_string(tree)
        except TemplateSyntaxError as error:
            raise InvalidTemplate(error.lineno, syntax(error.message or "")) from None

    def _parsed(self, source: str) -> nodes.Template:
        if _MARK in source:
            line = source[: source.index(_MARK)].count("\n") + 1
            raise InvalidTemplate(line, "there is a NUL character")
        try:
            tree = self.sandbox.parse(source)
        except RecursionError:
            raise InvalidTemplate(1, "it is nested too deep") from None
        for sort, word in _REFUSED.items():
            found = tree.find(sort)
            if found is not None:
                raise InvalidTemplate(found.lineno, f"{{% {word} %}} is not for templates here")
        return tree

    def pieces(self, values: Mapping[str, Any]) -> tuple[Literal | Value, ...]:
        """The text of the template, and between it its values. Raises TemplateError."""
        self._values.clear()
        with self.sandbox.bounded(""):
            parts = "".join(self._counted(self._template.generate(values))).split(_MARK)
            plain = self.sandbox.plain
            found = [Value(plain(one.value), one.raw, one.line) for one in self._values]
        return tuple(_pieces(parts, found))

    def _counted(self, parts: Iterable[str]) -> Iterable[str]:
        for part in parts:
            self.sandbox.spend(part)
            yield part

    @staticmethod
    def line_of(error: BaseException) -> int:
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
        raw = isinstance(defined(value), _Raw)
        self._values.append(Value(str(value) if raw else value, raw, line))
        self.sandbox.spend(value)
        return f"{_MARK}{len(self._values) - 1}{_MARK}"

    def _all(self, items: Any) -> list[Any]:
        found = []
        for item in defined(items):
            self.sandbox.spend(None)
            found.append(item)
        return found


def _pieces(parts: Sequence[str], values: Sequence[Value]) -> Iterator[Literal | Value]:
    """Texts, and between them what stood between marks: a value's number, or a line's."""
    line = 1
    for at, part in enumerate(parts):
        if at % 2 and part.startswith(":"):
            line = int(part[1:])
        elif at % 2:
            yield values[int(part)]
        elif part:
            text = Literal(part)
            text.line = line
            yield text


def _filtered(node: nodes.Node, name: str, *arguments: nodes.Expr) -> nodes.Filter:
    assert isinstance(node, nodes.Expr)
    return nodes.Filter(node, name, list(arguments), [], None, None, lineno=node.lineno)
