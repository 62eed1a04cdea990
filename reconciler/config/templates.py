"""Where the ``{{ … }}`` are in a string. It evaluates nothing, and needs no jinja2."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple


class Expression(NamedTuple):
    """What stands between ``{{`` and ``}}``; ``start`` and ``end`` include the braces."""

    code: str
    start: int
    end: int


class TemplateError(Exception):
    """A template cannot be read or evaluated. ``code`` is the expression, where it is known."""

    def __init__(self, message: str, hint: str | None = None, code: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code


LITERAL_HINT = "to mean the characters {{ themselves, write {{ '{{' }}"
_SIGN = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[\[({]|\}\}|[\])}]""", re.DOTALL)


def split(text: str) -> list[str | Expression]:
    """``a{{ x }}b`` as ``["a", Expression("x"), "b"]``, without empty strings.

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
        done = end + 2
        parts.append(Expression(code, start, done))
    rest = text[done:].lstrip() if eat else text[done:]
    if rest:
        parts.append(rest)
    return parts


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
    if not (text.startswith("{{") and text.endswith("}}")):
        return None
    parts = split(text)
    return parts[0].code if len(parts) == 1 and isinstance(parts[0], Expression) else None


class Environ:
    """``env`` in a template. Remembers which names were asked for, set or not."""

    __slots__ = ("_secret", "names", "secrets", "told", "values")

    def __init__(self, values: Mapping[str, str], secret: Callable[[str, str], bool]) -> None:
        self.values = values
        self._secret = secret
        self.names: set[str] = set()
        self.secrets = 0
        """How often a value that must not be shown was read."""
        self.told: dict[str, str] = {}
        """Those values, by their names."""

    def read(self, name: str) -> str | None:
        self.names.add(name)
        value = self.values.get(name)
        if value is not None and self._secret(name, value):
            self.secrets += 1
            self.told[name] = value
        return value
