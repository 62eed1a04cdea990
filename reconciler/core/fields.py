"""The words a user may write in a field: durations, sizes, modes, paths, commands.

Each is a standard type with a parser as its annotation, so that the kinds stay plain
dataclasses. It must not touch the host. The two dunder methods are pydantic's protocol for
annotations; they need no import of it, so that a pass in steady state never loads it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from reconciler.base.records import replace
from reconciler.base.scalars import (
    KEPT,
    choice_parser,
    integer_parser,
    parse_command,
    parse_comment,
    parse_duration,
    parse_environment,
    parse_flag,
    parse_keep,
    parse_mode,
    parse_name,
    parse_number,
    parse_path,
    parse_patterns,
    parse_regex,
    parse_share,
    parse_signal,
    parse_size,
    parse_socket,
    parse_text,
    parse_variables,
)
from reconciler.base.values import Secret


class Parsed:
    """Annotation: how the text of a scalar becomes a value, and how an editor checks it.

    ``secrets``: free text in it could be a value that must not be kept on disk.
    """

    __slots__ = ("parse", "schema", "secrets")

    def __init__(
        self, parse: Callable[[Any], Any], schema: dict[str, Any], secrets: bool = False
    ) -> None:
        self.parse = parse
        self.schema = schema
        self.secrets = secrets

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> dict[str, Any]:
        return {
            "type": "function-plain",
            "function": {"type": "with-info", "function": self._read},
        }

    def _read(self, value: Any, info: Any) -> Any:
        """What is in a field, as the context of the validation reads it."""
        return info.context(self, value)

    def __get_pydantic_json_schema__(self, core: Any, handler: Any) -> dict[str, Any]:
        schema = dict(self.schema)
        schema.pop("format", None)  # A regular expression with a template need not be one.
        return schema if _takes_templates(schema) else {"anyOf": [schema, TEMPLATE]}


def _takes_templates(schema: dict[str, Any]) -> bool:
    """Is a text with a template valid by it already?"""
    if "{" in schema.get("pattern", ""):
        return True
    kind = schema.get("type", ())
    free = kind == "string" or "string" in kind or kind == "object"
    free = free or any(map(_takes_templates, schema.get("oneOf", ())))
    return free and "enum" not in schema and "pattern" not in schema


class Short:
    """Annotation of a dataclass: a text alone stands for one of its fields, or for the one that
    ``field`` says of it; ``others`` are fields that have these values then."""

    __slots__ = ("field", "others")

    def __init__(self, field: str | Callable[[str], str], **others: Any) -> None:
        self.field = field
        self.others = others

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> dict[str, Any]:
        function = {"type": "no-info", "function": self._read}
        return {"type": "function-wrap", "function": function, "schema": handler(source)}

    def _read(self, value: Any, whole: Callable[[Any], Any]) -> Any:
        if not isinstance(value, str):
            return whole(value)
        field = self.field if isinstance(self.field, str) else self.field(value)
        return replace(whole({field: value}), **self.others)

    def __get_pydantic_json_schema__(self, core: Any, handler: Any) -> dict[str, Any]:
        return {"anyOf": [{"type": "string", "minLength": 1}, handler(core["schema"])]}


def integer(least: int, most: int) -> Parsed:
    """Annotation for a whole number from ``least`` to ``most``."""
    return Parsed(
        integer_parser(least, most), {"type": "integer", "minimum": least, "maximum": most}
    )


def choice(*words: str) -> Parsed:
    """Annotation for one of a few words."""
    return Parsed(choice_parser(words), {"enum": list(words)})


TEMPLATE: dict[str, Any] = {"type": "string", "pattern": r"\{\{.*\}\}"}
"""In place of every value there may be a template, of which an editor cannot know more."""
_STRING: dict[str, Any] = {"type": "string"}
_SCALAR: dict[str, Any] = {"type": ["string", "number", "boolean"]}
_WORDS: dict[str, Any] = {
    "oneOf": [
        {**_STRING, "minLength": 1},
        {"type": "array", "items": _SCALAR, "minItems": 1},
    ]
}


def _pattern(expression: str) -> dict[str, Any]:
    """A string of that form, or one with a template, of which an editor cannot know."""
    return {**_STRING, "pattern": rf"^({expression}|.*\{{\{{.*\}}\}}.*)$"}


Text = Annotated[str, Parsed(parse_text, _SCALAR)]
Name = Annotated[str, Parsed(parse_name, {**_SCALAR, "minLength": 1})]
Path = Annotated[str, Parsed(parse_path, {**_STRING, "minLength": 1})]
Socket = Annotated[str, Parsed(parse_socket, {**_STRING, "minLength": 1})]
Regex = Annotated[str, Parsed(parse_regex, {**_STRING, "format": "regex"})]
Flag = Annotated[bool, Parsed(parse_flag, {"type": "boolean"})]
Number = Annotated[float, Parsed(parse_number, {"type": ["number", "string"]})]
Mode = Annotated[str, Parsed(parse_mode, _pattern("[0-7]{3,4}"))]
Duration = Annotated[float, Parsed(parse_duration, _pattern("[0-9.]+(ms|s|m|h|d)"))]
Size = Annotated[int, Parsed(parse_size, _pattern("[0-9.]+([KMGT]i?)?B"))]
Share = Annotated[
    float,
    Parsed(
        parse_share,
        {"oneOf": [{"type": "number", "minimum": 1}, _pattern(r"[0-9.]+\s*%?")]},
    ),
]
Command = Annotated[tuple[str, ...], Parsed(parse_command, _WORDS)]
Patterns = Annotated[tuple[str, ...], Parsed(parse_patterns, _WORDS)]
Comment = Annotated[
    tuple[str, ...],
    Parsed(
        parse_comment,
        {
            "oneOf": [
                {**_SCALAR, "minLength": 1, "not": {"const": "<!--"}},
                {"type": "array", "items": _STRING, "minItems": 2, "maxItems": 2},
            ]
        },
    ),
]
_COUNT = {"type": "integer", "minimum": 1, "maximum": 9998}
Keep = Annotated[
    tuple[tuple[str, int], ...],
    Parsed(
        parse_keep,
        {
            "oneOf": [
                _COUNT,
                {
                    "type": "object",
                    "properties": {
                        word: {**_COUNT, "description": f"So many of the {words} are kept."}
                        for word, words in KEPT.items()
                    },
                    "minProperties": 1,
                    "additionalProperties": False,
                },
            ]
        },
    ),
]
Signal = Annotated[
    tuple[str, str],
    Parsed(
        parse_signal,
        {
            "oneOf": [
                {**_STRING, "minLength": 1},
                {
                    "type": "object",
                    "properties": {
                        "process": {**_STRING, "description": "The process resource."},
                        "signal": {**_STRING, "description": "The signal, by default HUP."},
                    },
                    "required": ["process"],
                    "additionalProperties": False,
                },
            ]
        },
    ),
]
Variables = Annotated[tuple[str, ...], Parsed(parse_variables, {"type": "object"})]
Environment = Annotated[
    tuple[tuple[str, Secret], ...],
    Parsed(parse_environment, {"type": "object", "additionalProperties": _SCALAR}),
]
