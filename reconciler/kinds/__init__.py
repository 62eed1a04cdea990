"""The kinds of resource, one module for each section of the spec.

A kind is found by being a file in this folder; nothing else names it. This module must not
import a kind before somebody asks for it.
"""

from __future__ import annotations

import os
from functools import cache
from importlib import import_module
from typing import Any

from reconciler.core.kind import Kind


@cache
def names() -> tuple[str, ...]:
    """The name of every kind there is, which is also its module's name, sorted."""
    found = (entry.partition(".") for entry in os.listdir(os.path.dirname(__file__)))
    return tuple(sorted(n for n, _, ending in found if ending in ("", "py") and n[0] != "_"))


@cache
def get(name: str) -> Kind[Any, Any]:
    """The kind of that name. Raises KeyError when there is no such kind."""
    if name not in names():
        raise KeyError(name)
    kind: Kind[Any, Any] = import_module(f"{__name__}.{name}").KIND
    return kind


def all_kinds() -> tuple[Kind[Any, Any], ...]:
    """Every kind, by name."""
    return tuple(get(name) for name in names())
