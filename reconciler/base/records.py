"""Stands in for `dataclasses`, which takes half a millisecond for each class at every start.

That module writes the methods of a class as source text and compiles it, and loads `inspect` for
that. Here all classes share their methods. What it makes are dataclasses all the same, to
`dataclasses.fields`, to pydantic and to a type checker, and it must not do anything differently.
What it does not know (inheritance, `kw_only`, `compare`, `repr`) is left to `dataclasses` itself.
A class of which very many objects are made gets an `__init__` of its own all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import count
from operator import attrgetter
from typing import TYPE_CHECKING, Any

__all__ = ["dataclass", "field", "fields", "names", "replace", "strings"]


_MANY = 1000
"""Objects of a class until it is worth while to compile an `__init__` for it."""


class _Field:
    """What `field` was called with."""

    __slots__ = ("options",)

    def __init__(self, **options: Any) -> None:
        if options.keys() - {"default", "default_factory", "metadata"}:
            raise TypeError(f"a field for dataclasses itself: {', '.join(options)}")
        self.options = options


class _Told:
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


def strings(value: Any) -> Iterator[str]:
    """Every text in a record, however deep, but for what is secret."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, tuple):
        for one in value:
            yield from strings(one)
    elif hasattr(type(value), "__dataclass_fields__"):
        for name in names(value):
            if name not in ("value", "digest"):
                yield from strings(getattr(value, name))


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
    "__dataclass_fields__": _Told("__dataclass_fields__"),
    "__dataclass_params__": _Told("__dataclass_params__"),
}
_FROZEN: dict[str, Any] = {"__setattr__": _setattr, "__delattr__": _delattr}
_EQUAL: dict[str, Any] = {"__eq__": _eq, "__hash__": None}
_HASH: dict[str, Any] = {"__hash__": _hash}
_ORDER: dict[str, Any] = {"__lt__": _lt, "__le__": _le}  # Python finds the others by these.

if TYPE_CHECKING:
    from dataclasses import dataclass, field, fields, replace
else:
    dataclass, field, fields, replace = _dataclass, _Field, _fields, _replace
