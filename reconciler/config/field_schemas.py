"""What pydantic-core, the engine of pydantic, is to read: a schema for each dataclass of a spec.

pydantic would make the same ones from the same annotations; to load it and to have them made takes
longer than all else that a first pass over a spec does. It must not understand more annotations
than specs have: those make their own schemas, or are dataclasses, tuples, mappings and None.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from reconciler.base.records import is_record, options

_Schema = dict[str, Any]


def of_record(cls: type[Any]) -> _Schema:
    """The schema for what is written as that dataclass; a key that no field has is an error."""
    hints = get_type_hints(cls, include_extras=True)
    fields = options(cls)
    return {
        "type": "dataclass",
        "cls": cls,
        "fields": [*fields],
        "slots": hasattr(cls, "__slots__"),
        "config": {"extra_fields_behavior": "forbid"},
        "schema": {
            "type": "dataclass-args",
            "dataclass_name": cls.__name__,
            "fields": [_field(name, hints[name], one) for name, one in fields.items()],
        },
    }


def _field(name: str, hint: Any, options: Mapping[str, Any]) -> _Schema:
    metadata = options.get("metadata", {})
    written = metadata.get("written", True)
    schema = _of(hint) if written else {"type": "any"}
    defaults = {key: value for key, value in options.items() if key != "metadata"}
    if defaults:
        schema = {"type": "default", "schema": schema, **defaults}
    field = {"type": "dataclass-field", "name": name, "schema": schema, "init": written}
    return field | ({"validation_alias": metadata["alias"]} if "alias" in metadata else {})


def _of(hint: Any) -> _Schema:
    origin, words = get_origin(hint), get_args(hint)
    if origin is Annotated:
        made: _Schema = words[1].__get_pydantic_core_schema__(words[0], _of)
        return made
    if len(words) == 2 and words[1] is type(None):
        return {"type": "nullable", "schema": _of(words[0])}
    if origin is tuple and words[1:] == (...,):
        return {"type": "tuple", "items_schema": [_of(words[0])], "variadic_item_index": 0}
    if origin is dict:
        return {"type": "dict", "keys_schema": {"type": "str"}, "values_schema": _of(words[1])}
    if not is_record(hint):
        raise TypeError(f"no field of a spec is {hint}")
    return of_record(hint)
