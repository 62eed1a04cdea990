"""A Spec as plain values that marshal can write, which ``cache`` unpacks.

It must not keep a secret for the disk: of those only the digest is packed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reconciler.base.values import Secret
from reconciler.core.model import Spec

# The body is (tables, count, columns, notify). A table has the wants of one kind: (name,
# positions of the fields that hold more than plain values, number of wants, columns), a column
# for each field. The columns of the body are those of the resources: the number of the table
# that its want is next in, then what Resource takes. A column is a tuple of values, or a list of
# one for all. Among values, a list stands for a dataclass, [name, field values...]; no want holds
# a list. Columns need no object of their own for each row, so that loading takes little memory.

_FLAT = frozenset((type(None), bool, int, float, str))


def _column(values: Sequence[Any]) -> Any:
    first = values[0]
    plain = type(first) in _FLAT
    same = all(
        value is first or (plain and type(value) is type(first) and value == first)
        for value in values
    )
    return [first] if same else tuple(values)


def packed(spec: Spec, secrets: bool = False) -> tuple[Any, bool]:
    """The body, and whether it holds all there is: secrets are left out, unless asked for."""
    coder = _Encoder(secrets)
    wants: dict[str, list[tuple[Any, ...]]] = {}
    deep: dict[str, set[int]] = {}
    numbers: dict[str, int] = {}
    rows = []
    for resource in spec.resources:
        kind = coder.shared(resource.kind)
        number = numbers.setdefault(kind, len(numbers))
        row, positions = coder.fields(resource.want)
        wants.setdefault(kind, []).append(row)
        deep.setdefault(kind, set()).update(positions)
        ids = tuple(map(coder.shared, resource.needs)), tuple(map(coder.shared, resource.after))
        rows.append(
            (number, coder.shared(resource.id), resource.present, *map(coder.shared, ids),
             resource.skip, resource.held)
        )  # fmt: skip
    tables = tuple(
        (kind, tuple(sorted(deep[kind])), len(its), tuple(map(_column, zip(*its, strict=True))))
        for kind, its in wants.items()
    )
    columns = tuple(map(_column, zip(*rows, strict=True)))
    return (tables, len(rows), columns, coder.value(spec.notify)), coder.complete


class _Encoder:
    """Values that marshal can write. Equal ones become one object, which it writes once."""

    def __init__(self, secrets: bool) -> None:
        self.complete = True
        self._secrets = secrets
        self._shared: dict[Any, Any] = {}

    def shared(self, value: Any) -> Any:
        return self._shared.setdefault(value, value)

    def fields(self, want: Any) -> tuple[tuple[Any, ...], list[int]]:
        """The values of a want's fields, and the positions of those that are not plain."""
        plain = [getattr(want, name) for name in type(want).__slots__]
        coded = tuple(map(self.value, plain))
        return coded, [
            at for at, (new, old) in enumerate(zip(coded, plain, strict=True)) if new != old
        ]

    def value(self, value: Any) -> Any:
        if type(value) is str:
            return self.shared(value)
        if type(value) in _FLAT:
            return value
        if type(value) is tuple:
            return tuple(map(self.value, value))
        if type(value) is Secret:
            if self._secrets:
                return [_name(Secret), value.value, value.digest]
            self.complete = False
            return [_name(Secret), None, value.digest]
        if hasattr(type(value), "__dataclass_fields__"):
            names = type(value).__slots__
            return [_name(type(value)), *(self.value(getattr(value, name)) for name in names)]
        raise TypeError(f"no way to keep a {type(value).__name__}")


def _name(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"
