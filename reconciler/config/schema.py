"""The JSON Schema of a spec file, so that editors complete and check it, by pydantic. No I/O.

It must not be stricter than the spec itself: a template may stand wherever a value may.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from reconciler.base.records import fields
from reconciler.config.documents import LoopFields
from reconciler.config.notify import NotifyFields
from reconciler.config.scope import FIXED
from reconciler.core.fields import TEMPLATE
from reconciler.core.kind import Kind, Probed
from reconciler.core.policy import PlanPolicy
from reconciler.host.spec_files import NAME

_IDS = {"type": "array", "items": {"type": "string", "pattern": r"^[^:]+:.+|\{\{"}}
_COMMON: dict[str, Any] = {
    "state": {
        "anyOf": [{"enum": ["present", "absent"]}, TEMPLATE],
        "default": "present",
        "description": "absent removes what is ours.",
    },
    "needs": {**_IDS, "description": "Ids; when one failed or is unknown, this is skipped."},
    "after": {**_IDS, "description": "Ids that come before this one; order only."},
    "when": {
        "type": ["string", "boolean"],
        "description": "An expression; when it is false, this is skipped.",
    },
    "for_each": {
        "anyOf": [{"type": "array"}, TEMPLATE],
        "description": "One resource for each value, which is {{ each }}.",
    },
}
"""The fields that every resource has."""


class _Generator(GenerateJsonSchema):
    """As pydantic does it, but without titles, defaults (which are no text of a spec) and null."""

    def dataclass_schema(self, schema: Any) -> dict[str, Any]:
        ours = {one.name for one in fields(schema["cls"]) if not one.metadata.get("written", True)}
        inner: Any = dict(schema["schema"])
        inner["fields"] = [one for one in inner["fields"] if one["name"] not in ours]
        found = super().dataclass_schema(schema | {"schema": inner})
        found.pop("title", None)
        if "description" in found:
            found["description"] = _first_paragraph(found["description"])
        return found

    def default_schema(self, schema: Any) -> dict[str, Any]:
        return self.generate_inner(schema["schema"])

    def nullable_schema(self, schema: Any) -> dict[str, Any]:
        return self.generate_inner(schema["schema"])

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def json_schema(kinds: Sequence[Kind[Any, Any]]) -> dict[str, Any]:
    """The schema, draft 2020-12, for a file with the sections of ``kinds``."""
    nested: dict[str, Any] = {}
    notify = _of(NotifyFields, nested)
    notify["type"] = ["object", "null"]  # targets may stand in another file of the same spec.
    targets = notify["properties"]["targets"]
    targets["type"] = ["object", "null"]
    targets["propertyNames"] = {"pattern": "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$"}
    nested["TargetFields"]["oneOf"] = [{"required": ["url"]}, {"required": ["url_file"]}]
    head = {
        "version": {"const": 1, "description": "The version of this format. Required."},
        "name": {
            "type": "string",
            "pattern": f"^{NAME}$",
            "description": "Marks what is ours and names the state folder. Required.",
        },
        "include": {
            "type": "array",
            "items": {"type": "string"},
            "description": "Files of the same format, relative to this one; patterns for their "
            "names; or a bare name of what comes with the program, such as watchdog.",
        },
        "vars": {
            "type": ["object", "null"],
            "propertyNames": {
                "pattern": "^[A-Za-z_][A-Za-z0-9_]{0,63}$",
                "not": {"enum": list(FIXED)},
            },
            "description": "Values for templates; strings may use others, --set overrides.",
        },
        "loop": _of(LoopFields, nested),
        "notify": notify,
        "policy": _of(PlanPolicy, nested),
    }
    sections = {kind.section: _section(kind, nested) for kind in kinds}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:reconcile:spec:1",
        "title": "reconcile spec",
        "description": "How a Linux host should be.",
        "type": "object",
        "properties": {**head, **sections},
        "additionalProperties": False,
        "$defs": {"resource": {"properties": _COMMON}, **nested},
    }


def _of(cls: Any, nested: dict[str, Any]) -> dict[str, Any]:
    """The schema of a dataclass; those of the ones in it go to ``nested``."""
    cls.__pydantic_config__ = {"extra": "forbid", "use_attribute_docstrings": True}
    schema = TypeAdapter(cls).json_schema(schema_generator=_Generator)
    nested.update(schema.pop("$defs", {}))
    return schema


def _section(kind: Kind[Any, Any], nested: dict[str, Any]) -> dict[str, Any]:
    body = _of(kind.resource, nested)
    common: dict[str, Any] = {
        name: {"$ref": f"#/$defs/resource/properties/{name}"} for name in _COMMON
    }
    # A mapping in the place of a word is the kind's own.
    both = common.keys() & body["properties"].keys()
    for name in both:
        own = body["properties"][name]
        common[name] = {"description": own["description"], "anyOf": [common[name], own]}
    body["properties"].update(common)
    if isinstance(kind, Probed):
        body["oneOf"] = [
            {"required": [name], "properties": {name: {**common[name], "type": "object"}}}
            if name in both
            else {"required": [name]}
            for name in kind.forms
        ]
    elif not body.get("required"):
        body["type"] = ["object", "null"]
    about = inspect.getmodule(type(kind))
    return {
        "type": ["object", "null"],
        "additionalProperties": body,
        "description": _first_paragraph((about and about.__doc__) or ""),
    }


def _first_paragraph(text: str) -> str:
    return " ".join(text.split("\n\n")[0].split())
