"""The JSON Schema of a spec file, so that editors complete and check it. Pure.

It must not be stricter than the spec itself: a template may stand wherever a value may.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, get_args

from reconciler.config.scope import FIXED
from reconciler.config.shapes import Leaf, Record, Shape, record
from reconciler.core.fields import Duration, Parsed
from reconciler.core.kind import Kind, Probed
from reconciler.core.model import EVENTS, Target

_TEMPLATE = {"type": "string", "pattern": r"\{\{.*\}\}"}
_TIME = "([01][0-9]|2[0-3]):[0-5][0-9]"
_QUIET = rf"^{_TIME}-{_TIME}$|\{{\{{"
_IDS = {"type": "array", "items": {"type": "string", "pattern": r"^[^:]+:.+|\{\{"}}


def json_schema(kinds: Sequence[Kind[Any, Any]]) -> dict[str, Any]:
    """The schema, draft 2020-12, for a file with the sections of ``kinds``."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "reconcile spec",
        "description": "How a Linux host should be.",
        "type": "object",
        "properties": {**_head(), **{kind.section: _section(kind) for kind in kinds}},
        "additionalProperties": False,
        "$defs": {"resource": _common()},
    }


def _head() -> dict[str, Any]:
    every = _duration()
    return {
        "version": {"const": 1, "description": "The version of this format. Required."},
        "name": {
            "type": "string",
            "pattern": "^[a-z0-9][a-z0-9_-]{0,63}$",
            "description": "Marks what is ours and names the state folder. Required.",
        },
        "include": {
            "type": "array",
            "items": {"type": "string"},
            "description": "Files of the same format, relative to this one.",
        },
        "vars": {
            "type": ["object", "null"],
            "propertyNames": {
                "pattern": "^[A-Za-z_][A-Za-z0-9_]{0,63}$",
                "not": {"enum": list(FIXED)},
            },
            "description": "Values for templates; strings may use others, --set overrides.",
        },
        "loop": {
            "type": "object",
            "properties": {"every": {**every, "description": "Time between passes."}},
            "additionalProperties": False,
        },
        "notify": _notify(),
    }


def _notify() -> dict[str, Any]:
    event = {"anyOf": [{"enum": list(EVENTS)}, _TEMPLATE]}
    place = {"type": "string", "minLength": 1}
    target = {
        "type": "object",
        "properties": {
            "url": {**place, "description": "Any URL of apprise. Better: url_file."},
            "url_file": {
                **place,
                "description": "A file with the URL on its first line. Not there: switched off.",
            },
            "on": {
                "anyOf": [{"type": "array", "items": event, "minItems": 1}, event],
                "default": list(Target("").on),
                "description": "The events that are told.",
            },
        },
        "additionalProperties": False,
        "oneOf": [{"required": ["url"]}, {"required": ["url_file"]}],
    }
    return {
        "type": ["object", "null"],
        "description": "Who is told when something goes wrong, and when it is well again.",
        "properties": {
            "targets": {
                "type": ["object", "null"],
                "propertyNames": {"pattern": "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$"},
                "additionalProperties": target,
            },
            "remind_every": {
                **_duration(),
                "description": "Time after which what is still wrong is told again.",
            },
            "report_every": {
                "anyOf": [
                    _duration(),
                    {"type": "array", "items": _duration(), "minItems": 1, "maxItems": 10},
                ],
                "description": "How often a report sums up what was: 1d, or [1d, 7d, 30d].",
            },
            "quiet": {
                "type": "string",
                "pattern": _QUIET,
                "description": "Held back meanwhile, then sent as one digest; gave_up passes.",
            },
            "title": {"type": ["string", "number"], "description": "Above every message."},
        },
        # targets may stand in another file of the same spec.
        "additionalProperties": False,
    }


def _duration() -> dict[str, Any]:
    (parsed,) = (extra for extra in get_args(Duration)[1:] if isinstance(extra, Parsed))
    return dict(parsed.schema)


def _common() -> dict[str, Any]:
    """The fields that every resource has."""
    return {
        "properties": {
            "state": {
                "anyOf": [{"enum": ["present", "absent"]}, _TEMPLATE],
                "default": "present",
                "description": "absent removes what is ours.",
            },
            "needs": {
                **_IDS,
                "description": "Ids; when one failed or is unknown, this is skipped.",
            },
            "after": {**_IDS, "description": "Ids that come before this one; order only."},
            "when": {
                "type": ["string", "boolean"],
                "description": "An expression; when it is false, this is skipped.",
            },
            "for_each": {
                "anyOf": [{"type": "array"}, _TEMPLATE],
                "description": "One resource for each value, which is {{ each }}.",
            },
        }
    }


def _section(kind: Kind[Any, Any]) -> dict[str, Any]:
    shape = record(kind.resource)
    body = _record(shape)
    body["properties"].update(
        {name: {"$ref": f"#/$defs/resource/properties/{name}"} for name in _common()["properties"]}
    )
    if isinstance(kind, Probed):
        body["oneOf"] = [{"required": [name]} for name in kind.forms]
    elif not shape.required:
        body["type"] = ["object", "null"]
    section: dict[str, Any] = {"type": ["object", "null"], "additionalProperties": body}
    about = inspect.getmodule(type(kind))
    said = _first_paragraph(about.__doc__ if about else None)
    if said:
        section["description"] = said
    return section


def _record(shape: Record) -> dict[str, Any]:
    result: dict[str, Any] = {
        "type": "object",
        "properties": {name: _value(inner) for name, inner in shape.fields.items()},
        "additionalProperties": False,
    }
    if shape.required:
        result["required"] = list(shape.required)
    said = _first_paragraph(shape.cls.__doc__)
    if said and not said.startswith(f"{shape.cls.__name__}("):
        result["description"] = said
    return result


def _value(shape: Shape) -> dict[str, Any]:
    if isinstance(shape, Record):
        return _record(shape)
    if not isinstance(shape, Leaf):
        return {"type": "array", "items": _value(shape.item)}
    if shape.parsed is None:
        return {}
    schema = dict(shape.parsed.schema)
    schema.pop("format", None)  # A templated regular expression need not be one.
    return schema if _takes_templates(schema) else {"anyOf": [schema, dict(_TEMPLATE)]}


def _takes_templates(schema: dict[str, Any]) -> bool:
    if "{" in schema.get("pattern", ""):
        return True
    kind = schema.get("type", ())
    free = kind == "string" or "string" in kind or kind == "object"
    free = free or any(_takes_templates(other) for other in schema.get("oneOf", ()))
    return free and "enum" not in schema and "pattern" not in schema


def _first_paragraph(text: str | None) -> str:
    return " ".join((text or "").split("\n\n")[0].split())
