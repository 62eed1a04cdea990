"""Records as JSON, and back again, without what is secret."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from reconciler.base.records import class_of, is_record, name_of, options
from reconciler.base.text import censored, redacted, redacted_json
from reconciler.base.values import Secret, secrets
from reconciler.core.model import Resource
from reconciler.undo import Irreversible

_FLAT = frozenset((type(None), bool, int, float, str))
_CLASS = "is"
_NOT_GIVEN = (None, False, ())
"""Defaults that say that something is not given, which no version changes."""
_BETWEEN = "\n;\n"
"""Stands between texts of different ones: no form of a secret goes on behind it."""
_TOGETHER = 1 << 16
"""Characters of several texts that are looked through at once."""


def plain(value: Any) -> Any:
    """A value of records and tuples as JSON, without what is not given; of a secret its digest.

    Raises TypeError.
    """
    cls = type(value)
    if cls in _FLAT:
        return value
    if cls is tuple:
        return [one if type(one) in _FLAT else plain(one) for one in value]
    if cls is Secret:
        return {_CLASS: "secret", "digest": value.digest}
    if isinstance(value, tuple):
        return [plain(one) for one in value]
    known, fields = _described(cls)  # type: ignore[arg-type]
    found = {_CLASS: known}
    for name, default in fields:
        one = getattr(value, name)
        if one is not default:
            found[name] = one if type(one) in _FLAT else plain(one)
    return found


@cache
def _described(cls: Any) -> tuple[str, tuple[tuple[str, Any], ...]]:
    """Its name, and its fields, each with the value that need not be noted."""
    if not is_record(cls):
        raise TypeError(f"no way to keep a {cls.__name__}")
    fields = []
    for name, given in options(cls).items():
        default = given.get("default", _CLASS)
        fields.append((name, default if any(default is one for one in _NOT_GIVEN) else _CLASS))
    return name_of(cls), tuple(fields)


def from_plain(value: Any, known: Mapping[str, Secret] | None) -> Any:
    """The value again, with those secrets that are ``known``, by digest; None: without.

    Raises Irreversible.
    """
    if isinstance(value, list):
        return tuple(from_plain(one, known) for one in value)
    if not isinstance(value, dict):
        return value
    name = str(value.get(_CLASS))
    if name == "secret":
        if known is None:
            return Secret(None, value["digest"])
        if value["digest"] not in known:
            raise Irreversible("a value of its environment is another one now, and is not kept")
        return known[value["digest"]]
    fields = {key: from_plain(one, known) for key, one in value.items() if key != _CLASS}
    try:
        if name.startswith("reconciler."):
            return class_of(name)(**fields)
    except (AttributeError, ImportError, KeyError, TypeError):
        pass
    raise Irreversible("it was noted by another version of this program")


def plain_resource(one: Resource[Any]) -> list[Any]:
    """A resource of a reversal. Raises TypeError."""
    return [one.id, one.present, plain(one.want)]


def from_plain_resource(noted: Sequence[Any], secrets: Mapping[str, Secret]) -> Resource[Any]:
    """The resource again. Raises Irreversible, and ValueError and the like for anything else."""
    ident, present, want = noted
    return Resource(str(ident), from_plain(want, secrets), bool(present))


def secrets_in(value: Any) -> dict[str, Secret]:
    """All secrets of a value that have their value, by digest."""
    return {one.digest: one for one in secrets(value) if one.value is not None}


def holds_secret(noted: Sequence[Any]) -> bool:
    """Does one of these resources, as JSON, hold a known secret?"""
    nothing: list[Any] = []
    if redacted_json(nothing) is nothing:
        return False  # None is known.
    return any(redacted(text) != text for text in _joined(noted))


def looks_secret(noted: Sequence[Any]) -> bool:
    """Does a command or another text of one look as if it held a secret?"""
    text = _BETWEEN.join("\n".join(_texts(one[2])) for one in noted)
    return bool(text) and censored(text, most=None) != text


def _joined(noted: Sequence[Any]) -> Iterator[str]:
    """All their texts, some together: to look through one takes very many times its room."""
    some: list[str] = []
    room = 0
    for text in _texts(noted):
        if room + len(text) > _TOGETHER:
            yield "\n".join(some)
            some, room = [], 0
        some.append(text)
        room += len(text)
    yield "\n".join(some)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)
    elif isinstance(value, dict) and value[_CLASS] != "secret":
        for name, one in value.items():
            if name != _CLASS:
                yield from _texts(one)
