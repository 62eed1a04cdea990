"""What a template of a resource gave, as its kind gets it; how it is escaped is for the kind."""

from __future__ import annotations

from typing import Any, Protocol

from reconciler.base.records import dataclass


class Literal(str):
    """Text of the template itself, which begins on its ``line``."""

    __slots__ = ("line",)
    line: int


@dataclass(frozen=True, slots=True)
class Value:
    """What a ``{{ … }}`` of a template gave, and the line of the template where it stands.

    ``raw``: it is to be put in as it is, without escaping.
    """

    value: Any
    raw: bool
    line: int


@dataclass(frozen=True, slots=True)
class RenderedTemplate:
    """A template with its values, which are not yet text: how they are escaped is for the kind.

    ``secret``: some value is one of the environment, which must not be shown.
    """

    pieces: tuple[Literal | Value, ...]
    secret: bool


class BadValue(ValueError):
    """A kind refuses what a template gave.

    ``line`` is one of the template that ``field`` names or holds, None is the field itself.
    """

    def __init__(self, field: str, line: int | None, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.line = line


class Templates(Protocol):
    """Renders the templates of one resource.

    A field of the resource is one by its metadata: ``template: "text"`` holds a template
    itself, ``template: "file"`` the name of one, ``template: "values"`` further values for both.
    The first and the last reach the kind as they were written.
    """

    spec: str
    """The name of the spec."""
    id: str
    """The resource's id."""

    def render(self, field: str) -> RenderedTemplate:
        """What the template in that field gives."""

    def beside(self, field: str) -> str:
        """The whole path of the file that a field names, beside the spec's own file."""


def as_text(rendered: RenderedTemplate, field: str) -> str:
    """What a template gave as plain text, in which nothing is escaped. Raises BadValue."""
    found: list[str] = []
    for piece in rendered.pieces:
        if not isinstance(piece, Value):
            found.append(piece)
            continue
        value = piece.value
        if isinstance(value, (list, dict)):
            words = "gives a list or a mapping; join it: {{ names | join(' ') }}"
            raise BadValue(field, piece.line, words)
        if isinstance(value, bool):
            value = "true" if value else "false"
        found.append("" if value is None else str(value))
    return "".join(found)
