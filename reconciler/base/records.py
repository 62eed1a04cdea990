"""Stands in for `dataclasses`, which takes half a millisecond for each class at every start.

That module writes the methods of a class as source text and compiles it, and loads `inspect` for
that. Here all classes share their methods. What it makes are dataclasses all the same, to
`dataclasses.fields`, to pydantic and to a type checker, and it must not do anything differently.
What it does not know (inheritance, `kw_only`, `compare`, `repr`) is left to `dataclasses` itself.
A class of which very many objects are made gets an `__init__` of its own all the same.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from importlib import import_module
from itertools import count, repeat
from operator import attrgetter
from typing import TYPE_CHECKING, Any

__all__ = [
    "Packer", "class_of", "compile_all", "dataclass", "field", "fields", "is_record", "leaves",
    "name_of", "names", "options", "replace", "unpacked",
]  # fmt: skip


_MANY = 100
"""Objects of a class until it is worth while to compile an `__init__` for it."""


_FLAT = frozenset((type(None), bool, int, float, str))
_made: list[Any] = []
"""The classes that were made here."""


class _Field:
    """What `field` was called with."""

    __slots__ = ("options",)

    def __init__(self, **options: Any) -> None:
        if options.keys() - {"default", "default_factory", "metadata"}:
            raise TypeError(f"a field for dataclasses itself: {', '.join(options)}")
        self.options = options


_REQUIRED = _Field()
"""In place of the default of a field that has none."""


class _FromTwin:
    """Something that `dataclasses` tells of a class, found out for who asks for it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: Any) -> Any:
        return getattr(_twin(owner), self._name)


@cache
def _twin(owner: Any) -> Any:
    """What `dataclasses` would have made of it."""
    import dataclasses

    body = {"__module__": owner.__module__, "__annotations__": owner.__annotations__}
    for name, value in owner.__record_defaults__.items():
        is_field = type(value) is _Field
        body[name] = dataclasses.field(**value.options) if is_field else value
    twin = type(owner.__name__, (), body)
    return dataclasses.dataclass(**owner.__record_options__)(twin)


@cache
def _dataclass(
    *, slots: bool, frozen: bool = False, eq: bool = True, order: bool = False
) -> Callable[[Any], Any]:
    options = {"slots": slots, "frozen": frozen, "eq": eq, "order": order}
    methods = dict(_METHODS)
    for wanted, some in ((frozen, _FROZEN), (eq, _EQUAL), (eq and frozen, _HASH), (order, _ORDER)):
        methods.update(some if wanted else {})

    def made(cls: Any) -> Any:
        if not slots or any(hasattr(base, "__record_defaults__") for base in cls.__bases__):
            raise TypeError(f"{cls.__name__} is a class for dataclasses itself")
        body = dict(vars(cls))
        hints = body["__annotations__"] = cls.__annotations__
        names = tuple(name for name in hints if not hints[name].startswith("ClassVar"))
        for name, method in methods.items():
            if body.get(name) is None:  # __hash__ is None, where there is an __eq__.
                body[name] = method
        for name in ("__dict__", "__weakref__"):
            body.pop(name, None)
        body["__record_defaults__"] = {name: body.pop(name) for name in names if name in body}
        body["__record_tails__"] = _tails(names, body["__record_defaults__"])
        body["__record_options__"] = options
        body["__slots__"] = body["__match_args__"] = names
        body["__record_get__"] = attrgetter(*names) if names else lambda record: ()
        # With slots it is another class, as in dataclasses.
        again = type(cls)(cls.__name__, cls.__bases__, body)
        again.__record_set__ = tuple(vars(again)[name].__set__ for name in names)
        again.__record_count__ = count()
        _made.append(again)
        return again

    return made


def _tails(names: Sequence[str], defaults: Mapping[str, Any]) -> dict[int, tuple[Any, ...]]:
    """The defaults of the last fields, by how many, as long as they are the same each time."""
    found: dict[int, tuple[Any, ...]] = {}
    tail: tuple[Any, ...] = ()
    for name in reversed(names):
        if name not in defaults:
            break
        value = defaults[name]
        if type(value) is _Field:
            if "default" not in value.options:
                break
            value = value.options["default"]
        tail = (value, *tail)
        found[len(tail)] = tail
    return found


def names(of: Any) -> tuple[str, ...]:
    """The names of the fields of a dataclass or of one of its instances, in their order."""
    cls = of if isinstance(of, type) else type(of)
    if hasattr(cls, "__record_defaults__"):
        found: tuple[str, ...] = cls.__slots__  # type: ignore[attr-defined]
        return found
    return tuple(entry.name for entry in _fields(of))


def options(cls: Any) -> dict[str, Mapping[str, Any]]:
    """The fields of a dataclass, each with what `field` was called with."""
    if not hasattr(cls, "__record_defaults__"):
        from dataclasses import MISSING

        given = ("default", "default_factory", "metadata")
        return {
            one.name: {key: got for key in given if (got := getattr(one, key)) is not MISSING}
            for one in _fields(cls)
        }
    found: dict[str, Mapping[str, Any]] = {}
    for name in cls.__slots__:
        value = cls.__record_defaults__.get(name, _REQUIRED)
        found[name] = value.options if type(value) is _Field else {"default": value}
    return found


def leaves(value: Any, whole: type) -> Iterator[Any]:
    """What is in records and tuples, however deep, but for numbers, truth values and None; those of
    the class ``whole`` are one each. What is in one and the same record in several places comes
    once."""
    todo, known = [value], set()
    while todo:
        one = todo.pop()
        cls = type(one)
        if cls is str or cls is whole:
            yield one
        elif isinstance(one, tuple):
            todo += reversed(one)
        elif cls in _FLAT or id(one) in known:
            continue
        elif is_record(cls):
            known.add(id(one))
            values = [getattr(one, name) for name in names(cls)]
            todo += [one for one in reversed(values) if one is not None]
        else:
            yield one


def _fields(of: Any) -> tuple[Any, ...]:
    import dataclasses

    return dataclasses.fields(of)


def _replace(record: Any, /, **changes: Any) -> Any:
    for name in type(record).__slots__:
        changes.setdefault(name, getattr(record, name))
    return type(record)(**changes)


def _init(self: Any, /, *values: Any, **named: Any) -> None:
    cls = type(self)
    setters = cls.__record_set__
    if next(cls.__record_count__) == _MANY:
        _compile_init(cls)
    if named or len(values) != len(setters):
        tail = None if named else cls.__record_tails__.get(len(setters) - len(values))
        values = _all_values(cls, values, named) if tail is None else values + tail
    for put, value in zip(setters, values, strict=True):
        put(self, value)


def compile_all() -> None:
    """Give each class made so far an `__init__` of its own: for who goes on, and has children that
    each make some objects of them."""
    for cls in _made:
        _compile_init(cls)


def _compile_init(cls: Any) -> None:
    """Give the class what `dataclasses` would, four times as fast: each value is set by name."""
    defaults = cls.__record_defaults__
    fields = [one for one in defaults.values() if type(one) is _Field]
    if vars(cls)["__init__"] is not _init or any("default" not in one.options for one in fields):
        return
    names = cls.__slots__
    scope = {f"set_{name}": put for name, put in zip(names, cls.__record_set__, strict=True)}
    for name, one in defaults.items():
        scope[f"default_{name}"] = _value(one) if type(one) is _Field else one
    given = [f"{name}=default_{name}" if name in defaults else name for name in names]
    body = "".join(f"\n    set_{name}(self, {name})" for name in names)
    exec(f"def __init__(self, {', '.join(given)}):{body or ' pass'}", scope)
    cls.__init__ = scope["__init__"]


def _all_values(cls: Any, values: Sequence[Any], named: Mapping[str, Any]) -> tuple[Any, ...]:
    """A value for each field, in their order. Raises TypeError."""
    found = dict(zip(cls.__slots__, values, strict=False))
    odd = found.keys() & named or named.keys() - set(cls.__slots__)
    if odd or len(values) > len(found):
        odd_ones = ", ".join(sorted(odd)) or "more values than fields"
        raise TypeError(f"{cls.__qualname__}() takes no such value, or not twice: {odd_ones}")
    found.update(named)
    for name, default in cls.__record_defaults__.items():
        if name not in found:
            found[name] = _value(default) if type(default) is _Field else default
    missing = [name for name in cls.__slots__ if name not in found]
    if missing:
        raise TypeError(f"{cls.__qualname__}() lacks values: {', '.join(missing)}")
    return tuple([found[name] for name in cls.__slots__])


def _value(default: _Field) -> Any:
    options = default.options
    return options["default_factory"]() if "default_factory" in options else options["default"]


def _eq(self: Any, other: Any) -> Any:
    get = type(self).__record_get__
    return get(self) == get(other) if type(other) is type(self) else NotImplemented


def _lt(self: Any, other: Any) -> Any:
    get = type(self).__record_get__
    return get(self) < get(other) if type(other) is type(self) else NotImplemented


def _le(self: Any, other: Any) -> Any:
    get = type(self).__record_get__
    return get(self) <= get(other) if type(other) is type(self) else NotImplemented


def _hash(self: Any) -> int:
    return hash(type(self).__record_get__(self))


def _repr(self: Any) -> str:
    words = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__slots__)
    return f"{type(self).__qualname__}({words})"


def _reduce(self: Any) -> tuple[Any, tuple[Any, ...]]:
    return type(self), tuple(getattr(self, name) for name in self.__slots__)


def _setattr(self: Any, name: str, value: Any) -> None:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _delattr(self: Any, name: str) -> None:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot delete field {name!r}")


_METHODS: dict[str, Any] = {
    "__init__": _init,
    "__repr__": _repr,
    "__reduce__": _reduce,
    "__dataclass_fields__": _FromTwin("__dataclass_fields__"),
    "__dataclass_params__": _FromTwin("__dataclass_params__"),
}
_FROZEN: dict[str, Any] = {"__setattr__": _setattr, "__delattr__": _delattr}
_EQUAL: dict[str, Any] = {"__eq__": _eq, "__hash__": None}
_HASH: dict[str, Any] = {"__hash__": _hash}
_ORDER: dict[str, Any] = {"__lt__": _lt, "__le__": _le}  # Python finds the others by these.

if TYPE_CHECKING:
    from dataclasses import dataclass, field, fields, replace
else:
    dataclass, field, fields, replace = _dataclass, _Field, _fields, _replace


class Packer:
    """A record as plain values that marshal can write; ``bare`` may give another one for it.

    A record is ``{class: values}``. Records in a tuple are a list: the number of each one's table,
    and the tables, which are a class, the number of its records, and a column for each field. So
    loading needs little more memory than the records do. Columns are pairs: is there a record in
    it, and the values, or one that stands for all. Equal texts become one object, which marshal
    writes once.
    """

    def __init__(self, bare: Callable[[Any], Any] = lambda record: record) -> None:
        self._bare = bare
        self._shared: dict[str, str] = {}

    def packed(self, value: Any) -> Any:
        """The value in plain ones. Raises TypeError."""
        cls = type(value)
        if cls is str:
            return self._shared.setdefault(value, value)
        if cls in _FLAT:
            return value
        if cls is tuple:
            if value and all(map(is_record, map(type, value))):
                return self._records(value)
            return tuple(map(self.packed, value))
        if not is_record(cls):
            raise TypeError(f"no way to keep a {cls.__name__}")
        value = self._bare(value)
        return {name_of(cls): tuple(self.packed(getattr(value, name)) for name in names(cls))}

    def _records(self, records: Sequence[Any]) -> list[Any]:
        found: dict[type, list[Any]] = {}
        for one in records:
            found.setdefault(type(one), []).append(self._bare(one))
        numbers = {cls: number for number, cls in enumerate(found)}
        tables = []
        for cls, its in found.items():
            columns = [self._column([getattr(one, name) for one in its]) for name in names(cls)]
            tables.append((name_of(cls), len(its), columns))
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
            rows.append(map(class_of(name), *(_values(column, count) for column in columns)))
            total += count
        return tuple([next(rows[number]) for number in _values(numbers, total)])
    if type(value) is dict:
        ((name, values),) = value.items()
        return class_of(name)(*map(unpacked, values))
    return value


def _values(column: tuple[bool, Any], count: int) -> Iterator[Any]:
    deep, values = column
    values = unpacked(values) if deep else values
    return repeat(values[0], count) if len(values) == 1 else iter(values)


def is_record(cls: type) -> bool:
    """Is it a class of dataclasses?"""
    return "__dataclass_fields__" in vars(cls)  # To ask for it loads `dataclasses`.


def name_of(cls: type) -> str:
    """What ``class_of`` knows it by."""
    return f"{cls.__module__}:{cls.__qualname__}"


def class_of(name: str) -> Any:
    """The record class of that name. Raises all sorts of errors where there is none."""
    module, _, word = name.partition(":")
    if module not in sys.modules and module.startswith("reconciler."):
        import_module(module)
    cls = getattr(sys.modules[module], word)
    if not is_record(cls):
        raise TypeError(f"{name} is no record")
    return cls
