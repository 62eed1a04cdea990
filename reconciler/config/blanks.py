"""Where an empty value goes: it may take a part out of a path, by whichever way it gets there.

Every blank value has a mark that stands in for it, and what is made of it is worked out a second
time with the marks, so that it is seen where they end up. It must not change what a template gives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reconciler.config.nodes import Node
from reconciler.config.template import Environ, Expression, TemplateError, split, typed

if TYPE_CHECKING:
    from reconciler.config.sandbox import Sandbox

_FIRST = 0xF0000
"""The first of the characters that nobody uses, of which each mark has one."""
_MARKS = chr(_FIRST)
_MOST = 65_000
_NOTHING = " *?[]"
"""What a part of a path may hold and still be next to nothing: `{{ x }}*` is all there is."""


class _Mark(str):
    """Stands in for a blank text: it holds its mark, and passes for ``real`` otherwise."""

    real: str

    def __bool__(self) -> bool:
        return bool(self.real)

    def __len__(self) -> int:
        return len(self.real)

    def __eq__(self, other: object) -> bool:
        return self.real == other

    def __hash__(self) -> int:
        return hash(self.real)

    def strip(self, characters: str | None = None) -> str:
        return _mark(str(self), self.real.strip(characters))

    def lower(self) -> str:
        return self

    upper = title = capitalize = lower


def _mark(character: str, real: str) -> _Mark:
    made = _Mark(character)
    made.real = real
    return made


class _MarkedEnviron(Environ):
    """The environment, with a mark for each variable that is set to nothing."""

    __slots__ = ("_marked",)

    def __init__(self, real: Environ, marked: Callable[[Any, str], Any]) -> None:
        super().__init__(real.values, lambda name, value: False)
        self._marked = marked

    def read(self, name: str) -> str | None:
        value = super().read(name)
        return value if value is None else self._marked(value, f"env.{name}")


class Blanks:
    """The marks, and the names in scope as they are with them: those that differ."""

    def __init__(self, values: Mapping[str, Any], sandbox: Callable[[], Sandbox]) -> None:
        self._values = values
        self._sandbox = sandbox
        self._marks: dict[str, str] = {}
        self._found: dict[str, Any] = {}
        self._touched: dict[str, bool] = {}
        environ = values["env"]
        self._any = any(not value.strip() for value in environ.values.values())
        self._known = {name: self._marked(value, name) for name, value in values.items()}
        self._known["env"] = _MarkedEnviron(environ, self._marked)

    def define(self, name: str, value: Any, node: Node | None = None) -> None:
        """``name`` has that value, which ``node`` gave if it was made of one."""
        if self._any and node is not None:
            value = typed(node, self._evaluated, self._joined)
        self._forget()
        self._known[name] = self._marked(value, name)

    def forget(self, name: str) -> None:
        """It is no longer in scope."""
        self._forget()
        self._known.pop(name, None)

    def _forget(self) -> None:
        self._found.clear()
        self._touched.clear()

    def each(self, node: Node, values: Sequence[Any]) -> Sequence[Any]:
        """The values of a ``for_each`` with their marks, to be defined one by one."""
        found = typed(node, self._evaluated, self._joined) if self._any else values
        return [
            self._marked(one, "each") for one in (found if len(found) == len(values) else values)
        ]

    def _marked(self, value: Any, label: str) -> Any:
        """The value, with a mark for each blank text in it."""
        if isinstance(value, str):
            return value if isinstance(value, _Mark) or value.strip() else self._new(value, label)
        if isinstance(value, dict):
            return {key: self._marked(item, f"{label}.{key}") for key, item in value.items()}
        if isinstance(value, list):
            return [self._marked(item, f"{label}[{at}]") for at, item in enumerate(value)]
        return value

    def _new(self, value: str, label: str) -> _Mark:
        self._any = True
        character = self._marks.setdefault(label, chr(_FIRST + min(len(self._marks), _MOST)))
        return _mark(character, value)

    def _evaluated(self, code: str) -> Any:
        """What an expression gives with the marks, or without them where it does not take them."""
        if code not in self._found:
            try:
                found = self._sandbox().evaluate(code, {**self._values, **self._known})
            except TemplateError:
                found = self._sandbox().evaluate(code, self._values)
            self._found[code] = found
        return self._found[code]

    def _is_marked(self, part: str) -> bool:
        """Is it an expression of which anything is blank?"""
        if not isinstance(part, Expression):
            return False
        if part not in self._touched:
            text = str(self._evaluated(part))
            self._touched[part] = not text.strip() or max(text) >= _MARKS
        return self._touched[part]

    def _joined(self, text: str) -> str:
        return _settled(self._pieces(split(text)))[0]

    def _pieces(self, parts: Sequence[str]) -> list[tuple[str, int | None]]:
        """Texts, each with the number of the expression that gave it; None: it was written."""
        found: list[tuple[str, int | None]] = []
        for at, part in enumerate(parts):
            if not isinstance(part, Expression):
                found.append((part, None))
                continue
            text = self._evaluated(part)
            if not str(text).strip():
                text = self._new("", part)
            # A constant is as good as written.
            found.append((str(text), at if self._sandbox().names(part) else None))
        return found

    def taken(self, parts: Sequence[str], words: Sequence[str]) -> str | None:
        """The name of an empty value that takes a part out of the path that these give."""
        any_blank = not all(map(str.strip, words))
        if not any_blank and not (self._any and any(map(self._is_marked, parts))):
            return None
        mark = _settled(self._pieces(parts))[1]
        return next((label for label, one in self._marks.items() if one == mark), None)


def _settled(pieces: Sequence[tuple[str, int | None]]) -> tuple[str, str | None]:
    """The text that they give, and the first mark that is all of a part of it.

    ``{{ prefix }}{{ root }}`` loses nothing where another value begins with the slash: the marks
    of such parts are left out.
    """
    text = "".join(word for word, _ in pieces)
    if not any(ord(one) >= _FIRST for one in text):
        return text, None
    owners = [owner for word, owner in pieces for _ in range(str.__len__(word))]
    kept: list[str] = []
    first = None
    start = 0
    for part in text.split("/"):
        end = start + len(part)
        marks = [one for one in part if ord(one) >= _FIRST]
        if marks and not "".join(one for one in part if ord(one) < _FIRST).strip(_NOTHING):
            behind = owners[end] if end < len(text) else None
            mine = {owners[at] for at in range(start, end) if ord(text[at]) >= _FIRST}
            if behind is not None and behind not in mine:
                part = ""
            else:
                first = first or marks[0]
        kept.append(part)
        start = end + 1
    return "/".join(kept), first
