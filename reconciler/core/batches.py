"""Running the actions of several steps at once. It must not decide which belong together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from reconciler.base.errors import HostError, UnknownState

T = TypeVar("T")
_MOST_REFUSALS = 100
"""After so many it is no longer one of them that is refused."""


def in_halves(
    items: Sequence[T],
    act: Callable[[Sequence[T]], None],
    refused: type[HostError] = HostError,
) -> dict[T, HostError]:
    """Do for all at once what is refused for all where it is for one; what went wrong, by item.

    Where most are refused, not all that is left is tried one by one.
    """
    errors: dict[T, HostError] = {}
    todo = [items] if items else []
    refusals = 0
    while todo:
        some = todo.pop()
        try:
            act(some)
        except HostError as error:
            half = len(some) // 2
            refusals += 1
            splits = isinstance(error, refused) and not isinstance(error, UnknownState)
            if half and splits and refusals < _MOST_REFUSALS:
                todo += [some[half:], some[:half]]
            else:
                errors |= dict.fromkeys(some, error)
    return errors
