"""Resources as JSON values, and back. It must not keep a secret, nor be code."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Any

from reconciler.base.records import is_record, names
from reconciler.base.values import Secret, secrets
from reconciler.core.model import Resource
from reconciler.undo import Irreversible

_FLAT = frozenset((type(None), bool, int, float, str))
_CLASS = "is"


def plain(value: Any) -> Any:
    """A value of records and tuples as JSON; of a secret its digest. Raises TypeError."""
    cls = type(value)
    if cls in _FLAT:
        return value
    if isinstance(value, tuple):
        return [plain(one) for one in value]
    if cls is Secret:
        return {_CLASS: "secret", "digest": value.digest}
    known, fields = _described(cls)  # type: ignore[arg-type]
    found = {_CLASS: known}
    for name in fields:
        one = getattr(value, name)
        found[name] = one if type(one) in _FLAT else plain(one)
    return found


@cache
def _described(cls: type) -> tuple[str, tuple[str, ...]]:
    if not is_record(cls):
        raise TypeError(f"no way to keep a {cls.__name__}")
    return f"{cls.__module__}:{cls.__qualname__}", names(cls)


def from_plain(value: Any, secrets: Mapping[str, Secret] | None) -> Any:
    """The value again, with those ``secrets``, by digest; None: without. Raises Irreversible."""
    if isinstance(value, list):
        return tuple(from_plain(one, secrets) for one in value)
    if not isinstance(value, dict):
        return value
    name = str(value.get(_CLASS))
    if name == "secret":
        if secrets is None:
            return Secret(None, value["digest"])
        if value["digest"] not in secrets:
            raise Irreversible("a value of its environment is another one now, and is not kept")
        return secrets[value["digest"]]
    fields = {key: from_plain(one, secrets) for key, one in value.items() if key != _CLASS}
    try:
        return _class(name)(**fields)
    except (AttributeError, ImportError, KeyError, TypeError):
        raise Irreversible("it was noted by another version of this program") from None


def secrets_in(value: Any) -> dict[str, Secret]:
    """All secrets of a value that have their value, by digest."""
    return {one.digest: one for one in secrets(value) if one.value is not None}


def digests_in(value: Any) -> set[str]:
    """The digests of all secrets of a value."""
    return {one.digest for one in secrets(value)}


def plain_resource(one: Resource[Any]) -> list[Any]:
    """A resource of a reversal."""
    return [one.id, one.present, plain(one.want)]


def _class(name: str) -> Any:
    module, _, word = name.partition(":")
    if not module.startswith("reconciler."):
        raise TypeError(name)
    cls = getattr(sys.modules.get(module) or import_module(module), word)
    if not is_record(cls):
        raise TypeError(name)
    return cls
