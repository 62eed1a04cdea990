"""What a kind lets a user write, read from the type hints of its dataclass.

It must not validate values; it knows which keys there are, and which values are paths.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass
from typing import Annotated, Any

from reconciler.base import scalars as parsers
from reconciler.core.fields import Parsed


@dataclass(frozen=True, slots=True)
class Leaf:
    """A value that a parser of ``parsers`` takes as it is, be it a scalar or not."""

    parsed: Parsed | None

    @property
    def is_path(self) -> bool:
        return self.parsed is not None and self.parsed.parse is parsers.parse_path

    @property
    def may_hold_secrets(self) -> bool:
        """Could free text in it be a value that must not be kept on disk?"""
        if self.parsed is None or self.parsed.secrets:
            return True
        return self.parsed.parse in (
            parsers.parse_text,
            parsers.parse_name,
            parsers.parse_command,
            parsers.parse_patterns,
            parsers.parse_regex,
        )


@dataclass(frozen=True, slots=True)
class Many:
    """A list."""

    item: Shape


@dataclass(frozen=True, slots=True)
class Record:
    """A mapping with known keys; ``required`` are those without a default.

    A key is the name of the field, or the ``alias`` in its metadata, which pydantic takes too.
    """

    cls: type[Any]
    fields: dict[str, Shape]
    required: tuple[str, ...]


Shape = Leaf | Many | Record


_known: dict[type[Any], Record] = {}


def record(cls: type[Any]) -> Record:
    """The shape of a dataclass; fields that only the program fills in are left out."""
    if cls in _known:
        return _known[cls]
    hints = typing.get_type_hints(cls, include_extras=True)
    entries = [
        entry
        for entry in dataclasses.fields(cls)
        if entry.init and entry.metadata.get("written", True)
    ]
    _known[cls] = shape = Record(
        cls,
        {_key(entry): _shape(hints[entry.name]) for entry in entries},
        tuple(
            _key(entry)
            for entry in entries
            if entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
        ),
    )
    return shape


def _key(entry: dataclasses.Field[Any]) -> str:
    return str(entry.metadata.get("alias", entry.name))


def _shape(hint: Any) -> Shape:
    origin = typing.get_origin(hint)
    arguments = typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        others = [other for other in arguments if other is not type(None)]
        return _shape(others[0]) if len(others) == 1 else Leaf(None)
    if origin is Annotated:
        for extra in arguments[1:]:
            if isinstance(extra, Parsed):
                return Leaf(extra)
        return _shape(arguments[0])
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return Many(_shape(arguments[0]))
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return record(hint)
    return Leaf(None)
