"""Where the ``{{ … }}`` are in a string, and the types of what is written without them.

It evaluates nothing, and needs no jinja2.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from reconciler.config.nodes import Bare, Map, Node, Seq, is_null

MAX_TEXT = 64 * 1024
"""Characters that a string may have once rendered."""


class Expression(str):
    """What stands between ``{{`` and ``}}``."""

    __slots__ = ()


class TemplateError(Exception):
    """A template cannot be read or evaluated. ``code`` is the expression, where it is known."""

    def __init__(self, message: str, hint: str | None = None, code: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code


LITERAL_HINT = "to mean the characters {{ themselves, write {{ '{{' }}"
_SIGN = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[\[({]|\}\}|[\])}]""", re.DOTALL)


@lru_cache(1024)
def split(text: str) -> tuple[str | Expression, ...]:
    """``a{{ x }}b`` as ``("a", Expression("x"), "b")``, without empty strings.

    As in jinja2, ``{{-`` and ``-}}`` take away the blanks on their side. Raises TemplateError.
    """
    parts: list[str | Expression] = []
    done = 0
    eat = False
    while (start := text.find("{{", done)) >= 0:
        end = _close(text, start + 2)
        code = text[start + 2 : end]
        before = text[done:start].lstrip() if eat else text[done:start]
        if code.startswith(("-", "+")):
            before = before.rstrip() if code[0] == "-" else before
            code = code[1:]
        eat = code.endswith("-")
        code = (code[:-1] if eat else code).strip()
        if not code:
            raise TemplateError("there is nothing between {{ and }}", LITERAL_HINT)
        if before:
            parts.append(before)
        parts.append(Expression(code))
        done = end + 2
    rest = text[done:].lstrip() if eat else text[done:]
    return (*parts, rest) if rest else tuple(parts)


def _close(text: str, at: int) -> int:
    """The index of the ``}}`` that ends the expression beginning at ``at``."""
    depth = 0
    while (match := _SIGN.search(text, at)) is not None:
        sign = match[0]
        at = match.end()
        if sign in "[({":
            depth += 1
        elif sign == "}}":
            if depth <= 0:
                return match.start()
            depth -= 1
            at = match.start() + 1
        elif sign in "])}":
            depth -= 1
    raise TemplateError("this '{{' is not closed with '}}'", LITERAL_HINT)


def whole(text: str) -> str | None:
    """The code of a string that is exactly one template, else None. Raises TemplateError."""
    text = text.strip()
    if not (text.startswith("{{") and text.endswith("}}")):
        return None
    parts = split(text)
    return parts[0] if len(parts) == 1 and isinstance(parts[0], Expression) else None


class Environ:
    """``env`` in a template. Remembers which names were asked for, set or not."""

    __slots__ = ("_secret", "names", "secret_values", "secrets", "values")

    def __init__(self, values: Mapping[str, str], secret: Callable[[str, str], bool]) -> None:
        self.values = values
        self._secret = secret
        self.names: set[str] = set()
        self.secrets = 0
        """How often a value that must not be shown was read."""
        self.secret_values: dict[str, str] = {}
        """Those values, by their names."""

    def read(self, name: str) -> str | None:
        """The value of a variable; None where it is not set."""
        self.names.add(name)
        value = self.values.get(name)
        if value is not None and self._secret(name, value):
            self.secrets += 1
            self.secret_values[name] = value
        return value


_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)"
    r"|\.(?:nan|NaN|NAN)"
)
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}


class _Written(float):
    """A float that is rendered the way it was written: ``1.10``."""

    __slots__ = ("text",)
    text: str

    def __str__(self) -> str:
        return self.text


def typed(node: Node, evaluate: Callable[[str], Any], join: Callable[[Any], str]) -> Any:
    """The value of a variable. Raises TemplateError.

    A string that is exactly one template has the type of what it gives by ``evaluate``; in others
    the templates are put into the text by ``join``.
    """
    if isinstance(node, Map):
        return {key: typed(value, evaluate, join) for key, value in node.items()}
    if isinstance(node, Seq):
        return [typed(item, evaluate, join) for item in node]
    if "{{" in node:
        code = whole(node)
        return join(node) if code is None else evaluate(code)
    return _plain(node) if isinstance(node, Bare) else str(node)


def _plain(node: Bare) -> Any:
    """A plain scalar by the core schema, https://yaml.org/spec/1.2.2/#103-core-schema.

    It must not be used for the fields of resources, whose parsers know better what is meant.
    """
    text = str(node)
    if is_null(node):
        return None
    if text in _BOOL:
        return _BOOL[text]
    if len(text) > 24 and re.fullmatch(r"[-+]?[0-9][0-9.eExo]*", text):
        hint = "put quotes around it to make it text"
        raise TemplateError(f"a number of {len(text):,} characters", hint, text)
    if _INT.fullmatch(text):
        if re.fullmatch(r"[-+]?0[0-9]+", text):
            raise TemplateError(
                f"{text} is the decimal number {int(text)} in YAML",
                f'write "{text}", or the number without the leading zero',
                text,
            )
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if _FLOAT.fullmatch(text):
        number = _Written(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        number.text = text
        return number
    return text
