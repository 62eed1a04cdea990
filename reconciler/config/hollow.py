"""Where an empty value goes: it may take a part out of a path, by whichever way it gets there.

Every blank value has a mark that stands in for it, and what is made of it is worked out a second
time with the marks, so that it is seen where they end up. It must not change what a template gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from reconciler.config import scalars
from reconciler.config.nodes import Bare, Broken, Map, Node, Seq
from reconciler.config.templates import Environ, Expression, TemplateError, split, whole

if TYPE_CHECKING:
    from reconciler.config.sandbox import Sandbox

_FIRST = 0xF0000
"""The first of the characters that nobody uses, of which each mark has one."""
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


class _Environ(Environ):
    """The environment, with a mark for each variable that is set to nothing."""

    __slots__ = ("_marked",)

    def __init__(self, real: Environ, marked: Callable[[Any, str], Any]) -> None:
        super().__init__(real.values, lambda name, value: False)
        self._marked = marked

    def read(self, name: str) -> str | None:
        value = super().read(name)
        return value if value is None else self._marked(value, f"env.{name}")


class Hollows:
    """The marks, and the names in scope as they are with them.

    ``known`` are those names that differ from what they are without.
    """

    def __init__(self, values: Mapping[str, Any], sandbox: Callable[[], Sandbox]) -> None:
        self._values = values
        self._sandbox = sandbox
        self._marks: dict[str, str] = {}
        self._labels: dict[str, str] = {}
        self._found: dict[str, Any] = {}
        self.known: dict[str, Any] = {}
        environ = values["env"]
        self._blank_environ = any(not value.strip() for value in environ.values.values())
        self.known["env"] = _Environ(environ, self.marked)
        for name, value in values.items():
            if name != "env":
                self.define(name, self.marked(value, name))

    def define(self, name: str, marked: Any) -> None:
        """From now on this is what ``name`` is with its marks."""
        self._found.clear()
        self.known[name] = marked

    def forget(self, name: str) -> None:
        """It is no longer in scope."""
        self._found.clear()
        self.known.pop(name, None)

    def marked(self, value: Any, label: str) -> Any:
        """The value, with a mark for each blank text in it."""
        if isinstance(value, str):
            known = isinstance(value, _Mark) or value.strip()
            return value if known else _mark(self._character(label), value)
        if isinstance(value, dict):
            return {key: self.marked(item, f"{label}.{key}") for key, item in value.items()}
        if isinstance(value, list):
            return [self.marked(item, f"{label}[{at}]") for at, item in enumerate(value)]
        return value

    def _character(self, label: str) -> str:
        if label not in self._marks:
            made = chr(_FIRST + min(len(self._marks), _MOST))
            self._marks[label] = made
            self._labels[made] = label
        return self._marks[label]

    @property
    def _any(self) -> bool:
        return bool(self._marks) or self._blank_environ

    def value(self, node: Node, real: Any, label: str) -> Any:
        """What ``Scope.typed`` would give of ``node`` with the marks; ``real`` is what it gave."""
        return self.marked(self._typed(node) if self._any else real, label)

    def _typed(self, node: Node) -> Any:
        if isinstance(node, Map):
            return {str(key): self._typed(value) for key, value in node.items()}
        if isinstance(node, Seq):
            return [self._typed(item) for item in node]
        if "{{" in node and not isinstance(node, Broken):
            code = whole(node.strip())
            if code is not None:
                return self._evaluated(code)
            return _settled(self._pieces(split(node)))[0]
        return scalars.typed(node) if isinstance(node, Bare) else str(node)

    def _evaluated(self, code: str) -> Any:
        """What an expression gives with the marks, or without them where it does not take them."""
        if code not in self._found:
            try:
                found = self._sandbox().evaluate(code, {**self._values, **self.known})
            except TemplateError:
                found = self._sandbox().evaluate(code, self._values)
            self._found[code] = found
        return self._found[code]

    def _pieces(self, parts: Iterable[str | Expression]) -> list[tuple[str, int | None]]:
        """Texts, each with the number of the expression that gave it; None: it was written."""
        found: list[tuple[str, int | None]] = []
        for at, part in enumerate(parts):
            if not isinstance(part, Expression):
                found.append((part, None))
                continue
            value = self._evaluated(part.code)
            # A constant is as good as written.
            said = self._sandbox().names(part.code)
            found.append((str(value), at if said else None))
        return found

    def taken(self, parts: Iterable[str | Expression]) -> str | None:
        """The name of an empty value that takes a part out of the path that these give."""
        if not self._any:
            return None
        mark = _settled(self._pieces(parts))[1]
        return None if mark is None else self._labels[mark]


def _settled(pieces: Iterable[tuple[str, int | None]]) -> tuple[str, str | None]:
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
