"""A spec as plain values that marshal can write, and back, by the fields of its dataclasses.

It must not keep the value of a secret unless asked to, nor make anything but dataclasses.

A record is ``{class: values}``. Records in a tuple are a list: the number of each one's table, and
the tables, which are a class, the number of its records, and a column for each field. So loading
needs little more memory than the records do. Columns are pairs: is there a record in it, and the
values, or one that stands for all.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from itertools import repeat
from typing import Any

from reconciler.base.records import names
from reconciler.base.values import Secret

_FLAT = frozenset((type(None), bool, int, float, str))


class Packer:
    """Packs values; equal texts become one object, which marshal writes once."""

    def __init__(self, secrets: bool = False) -> None:
        self.complete = True
        """Was nothing left out?"""
        self._secrets = secrets
        self._shared: dict[str, str] = {}

    def packed(self, value: Any) -> Any:
        """The value in plain ones. Raises TypeError."""
        cls = type(value)
        if cls is str:
            return self._shared.setdefault(value, value)
        if cls in _FLAT:
            return value
        if cls is tuple:
            if value and all(map(_is_record, map(type, value))):
                return self._records(value)
            return tuple(map(self.packed, value))
        if not _is_record(cls):
            raise TypeError(f"no way to keep a {cls.__name__}")
        value = self._bare(value)
        return {_name(cls): tuple(self.packed(getattr(value, name)) for name in names(cls))}

    def _bare(self, record: Any) -> Any:
        if type(record) is not Secret or self._secrets:
            return record
        self.complete = False
        return Secret(None, record.digest)

    def _records(self, records: Sequence[Any]) -> list[Any]:
        found: dict[type, list[Any]] = {}
        for one in records:
            found.setdefault(type(one), []).append(self._bare(one))
        numbers = {cls: number for number, cls in enumerate(found)}
        tables = []
        for cls, its in found.items():
            columns = [self._column([getattr(one, name) for one in its]) for name in names(cls)]
            tables.append((_name(cls), len(its), columns))
        return [self._column([numbers[type(one)] for one in records]), tables]

    def _column(self, values: Sequence[Any]) -> tuple[bool, Any]:
        first = values[0]
        flat = type(first) in _FLAT
        alike = (flat and type(one) is type(first) and one == first for one in values)
        if all(same or one is first for same, one in zip(alike, values, strict=True)):
            values = (first,)
        packed = self.packed(tuple(values))
        return packed != tuple(values), packed


def unpacked(value: Any) -> Any:
    """What was packed. Raises all sorts of errors for anything else."""
    if type(value) is tuple:
        return tuple(map(unpacked, value))
    if type(value) is list:
        numbers, tables = value
        rows, total = [], 0
        for name, count, columns in tables:
            rows.append(map(_class(name), *(_values(column, count) for column in columns)))
            total += count
        return tuple([next(rows[number]) for number in _values(numbers, total)])
    if type(value) is dict:
        ((name, values),) = value.items()
        return _class(name)(*map(unpacked, values))
    return value


def _values(column: tuple[bool, Any], count: int) -> Iterator[Any]:
    deep, values = column
    values = unpacked(values) if deep else values
    return repeat(values[0], count) if len(values) == 1 else iter(values)


def _is_record(cls: type) -> bool:
    return "__dataclass_fields__" in vars(cls)  # To ask for it loads `dataclasses`.


def _name(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def _class(name: str) -> Any:
    module, _, word = name.partition(":")
    if module not in sys.modules and module.startswith("reconciler."):
        import_module(module)
    cls = getattr(sys.modules[module], word)
    if not _is_record(cls):
        raise TypeError(f"{name} is no record")
    return cls
