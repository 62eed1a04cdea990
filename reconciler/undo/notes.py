"""Records as JSON, and back again, without what is secret."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from reconciler.base.records import class_of
from reconciler.base.text import censored, redacted, redacted_json
from reconciler.base.values import Secret, secrets, strings
from reconciler.core.model import Resource
from reconciler.state.store.journal import CLASS
from reconciler.undo import Irreversible

NotedResource = tuple[str, bool, Any]
"""Its id, whether it is present, and what it wants."""
_BETWEEN = ";"
"""Stands, as a line, between texts of different ones: no form of a secret goes on behind it."""
_TOGETHER = 1 << 16
"""Characters of several texts that are looked through at once."""


def from_plain(value: Any, known: Mapping[str, Secret] | None) -> Any:
    """The value again, with those secrets that are ``known``, by digest; None: without.

    Raises Irreversible.
    """
    if isinstance(value, list):
        return tuple(from_plain(one, known) for one in value)
    if not isinstance(value, dict):
        return value
    name = str(value.get(CLASS))
    if name == "secret":
        if known is None:
            return Secret(None, value["digest"])
        if value["digest"] not in known:
            raise Irreversible("a value of its environment is another one now, and is not kept")
        return known[value["digest"]]
    fields = {key: from_plain(one, known) for key, one in value.items() if key != CLASS}
    try:
        if name.startswith("reconciler."):
            return class_of(name)(**fields)
    except (AttributeError, ImportError, KeyError, TypeError):
        pass
    raise Irreversible("it was noted by another version of this program")


def noted_resource(one: Resource[Any]) -> NotedResource:
    """A resource of a reversal, as it is written."""
    return one.id, one.present, one.want


def from_plain_resource(noted: Sequence[Any], secrets: Mapping[str, Secret]) -> Resource[Any]:
    """The resource again. Raises Irreversible, and ValueError and the like for anything else."""
    ident, present, want = noted
    return Resource(str(ident), from_plain(want, secrets), bool(present))


def secrets_in(value: Any) -> dict[str, Secret]:
    """All secrets of a value that have their value, by digest."""
    return {one.digest: one for one in secrets(value) if one.value is not None}


def holds_secret(resources: Iterable[NotedResource]) -> bool:
    """Does one of these hold a known secret?"""
    nothing: list[Any] = []
    if redacted_json(nothing) is nothing:
        return False  # None is known.
    return any(redacted(text) != text for text in _joined(resources))


def looks_secret(resources: Iterable[NotedResource]) -> bool:
    """Does a command or another text of one look as if it held a secret?"""
    text = "\n".join(strings(tuple(one for _, _, want in resources for one in (want, _BETWEEN))))
    return bool(text) and censored(text, most=None) != text


def _joined(resources: Iterable[NotedResource]) -> Iterator[str]:
    """All their texts, some together: to look through one takes very many times its room."""
    some: list[str] = []
    room = 0
    for text in chain.from_iterable(map(strings, resources)):
        if room + len(text) > _TOGETHER:
            yield "\n".join(some)
            some, room = [], 0
        some.append(text)
        room += len(text)
    yield "\n".join(some)
