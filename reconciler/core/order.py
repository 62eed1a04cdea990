"""Dependencies to one stable order. No I/O: names in, names out."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter


class Cycle(Exception):
    """The dependencies form a circle. ``ids`` names it; its first and last are the same."""

    def __init__(self, ids: Sequence[str]) -> None:
        super().__init__(" -> ".join(ids))
        self.ids = tuple(ids)


def in_order(ids: Sequence[str], before: Mapping[str, Iterable[str]]) -> list[str]:
    """``ids`` so that each stands behind all of ``before[id]``, else as they were given.

    Names in ``before`` that are not among ``ids`` are passed over. Raises Cycle.
    """
    position = {name: index for index, name in enumerate(ids)}
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for name in ids:
        sorter.add(name, *(other for other in before.get(name, ()) if other in position))
    try:
        sorter.prepare()
    except CycleError as error:
        # graphlib lists each before the one that needs it; people read "a needs b".
        raise Cycle(list(reversed(error.args[1]))) from None
    ready: list[int] = []
    ordered: list[str] = []
    while sorter.is_active():
        for name in sorter.get_ready():
            heapq.heappush(ready, position[name])
        name = ids[heapq.heappop(ready)]
        ordered.append(name)
        sorter.done(name)
    return ordered
