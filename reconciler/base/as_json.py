"""Records as JSON, of which `undo.notes` makes records again; of a secret only its digest.

It must not fail: what is no record of ours is noted by its class alone, of which nothing is made.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from reconciler.base.records import is_record, name_of, options
from reconciler.base.values import Secret

CLASS = "is"
"""The name under which the class of a record stands, and ``secret`` for a secret."""
_NOT_GIVEN = (None, False, ())
"""Defaults that say that something is not given, which no version changes."""


def written(value: Any) -> str:
    """A value of records, tuples and what JSON has, without what is not given."""
    return _encoder()(value)


@cache
def _encoder() -> Callable[[Any], str]:
    try:
        # The package `json` takes as long to load as all else that a pass of one step notes.
        from _json import encode_basestring_ascii, make_encoder

        form = None, ":", ",", False, False, True
        encode = make_encoder(None, _plain, encode_basestring_ascii, *form)
        "".join(encode("", 0))
    except (ImportError, TypeError):  # It is CPython's own, and another one may have it otherwise.
        from json import JSONEncoder

        return JSONEncoder(default=_plain, separators=(",", ":")).encode
    return lambda value: "".join(encode(value, 0))


def _plain(value: Any) -> dict[str, Any]:
    cls = type(value)
    if cls is Secret:
        return {CLASS: "secret", "digest": value.digest}
    name, fields = _described(cls)  # type: ignore[arg-type]
    found = {CLASS: name}
    for field, default in fields:
        one = getattr(value, field)
        if one is not default:
            found[field] = one
    return found


@cache
def _described(cls: Any) -> tuple[str, tuple[tuple[str, Any], ...]]:
    """Its name, and its fields, each with the value that need not be noted."""
    if not is_record(cls):
        return name_of(cls), ()
    fields = []
    for name, given in options(cls).items():
        default = given.get("default", CLASS)
        fields.append((name, default if any(default is one for one in _NOT_GIVEN) else CLASS))
    return name_of(cls), tuple(fields)
