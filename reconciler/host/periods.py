"""Days, weeks and months of the local calendar, and the newest file of each. No I/O."""

from __future__ import annotations

import time
from bisect import insort
from collections.abc import Iterator, Sequence
from typing import Any

from reconciler.host.found import File


def period_start(every: str, now: int) -> int:
    """When the local day, week (on Monday) or month began, both in nanoseconds since the epoch."""
    local = time.localtime(now // 10**9)
    day = local.tm_mday
    if every != "day":
        day = day - local.tm_wday if every == "week" else 1
    began = time.mktime((local.tm_year, local.tm_mon, day, 0, 0, 0, 0, 0, -1))
    return int(began) * 10**9


class Backups:
    """Of each sort (last, daily, weekly, monthly) the newest of so many periods that have any.

    A period of ``last`` is a file itself.
    """

    def __init__(self, kept: Sequence[tuple[str, int]]) -> None:
        self._sorts = [_Periods(sort, number) for sort, number in kept]

    def offer(self, file: File) -> Iterator[File]:
        """One more; those that no sort keeps then."""
        for one in {file, *filter(None, [sort.offer(file) for sort in self._sorts])}:
            if not any(sort.holds(one) for sort in self._sorts):
                yield one

    def files(self) -> set[File]:
        """All that are kept."""
        return {file for sort in self._sorts for file in sort.newest.values()}


class _Periods:
    def __init__(self, sort: str, number: int) -> None:
        self._sort = sort
        self._number = number
        self._periods: list[Any] = []
        """Sorted, so that the oldest is known at once."""
        self.newest: dict[Any, File] = {}

    def offer(self, file: File) -> File | None:
        """One more; the one that goes for it."""
        period = self._period(file)
        there = self.newest.get(period)
        if there is not None:
            self.newest[period] = max(there, file)
            return min(there, file)
        insort(self._periods, period)
        self.newest[period] = file
        return self.newest.pop(self._periods.pop(0)) if len(self.newest) > self._number else None

    def holds(self, file: File) -> bool:
        return self.newest.get(self._period(file)) == file

    def _period(self, file: File) -> Any:
        if self._sort == "last":
            return file
        local = time.localtime(file.time // 10**9)
        if self._sort == "monthly":
            return local.tm_year, local.tm_mon
        day = (file.time // 10**9 + local.tm_gmtoff) // 86400
        return day if self._sort == "daily" else day - local.tm_wday
