"""What processes have used in the last hour: samples in memory, a bounded number of each.

It must not look at the host; times are of the monotonic clock.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from math import nan
from typing import Any

from reconciler.base.records import dataclass, field

EVERY = 30.0
"""Seconds between two samples."""
MOST = 120
HOUR = EVERY * MOST
_SLACK = 0.9


@dataclass(slots=True)
class Series:
    """Samples, each with when it was taken: percent of one core since the sample before, and bytes
    of memory. Not a number: it was not running, or it is not known yet.

    ``now`` has the same as of the last look.
    """

    at: array[float] = field(default_factory=lambda: array("d"))
    cpu: array[float] = field(default_factory=lambda: array("d"))
    memory: array[float] = field(default_factory=lambda: array("d"))
    now: tuple[float, float] = (nan, nan)

    def add(self, at: float, cpu: float, memory: float) -> None:
        """The oldest goes when there are too many."""
        for values, value in ((self.at, at), (self.cpu, cpu), (self.memory, memory)):
            values.append(value)
            del values[:-MOST]


@dataclass(frozen=True, slots=True)
class _Reading:
    """Seconds of processor time that these processes had used."""

    at: float
    who: Any
    cpu: float


class Samples:
    """The samples of all processes, by the id of the resource."""

    def __init__(self) -> None:
        self.series: dict[str, Series] = {}
        self._sampled: dict[str, _Reading] = {}
        self._seen: dict[str, _Reading] = {}

    def take(self, usage: Mapping[str, Mapping[str, Any]], at: float) -> bool:
        """Take note of what a look has seen; is there a new sample?"""
        for ident in self.series.keys() - usage.keys():
            del self.series[ident]
            self._sampled.pop(ident, None)
            self._seen.pop(ident, None)
        added = False
        for ident, one in usage.items():
            series = self.series.setdefault(ident, Series())
            now = _Reading(at, one["who"], one["cpu"])
            memory = one["memory"] if one["who"] else nan
            series.now = _percent(self._seen.get(ident), now), memory
            self._seen[ident] = now
            last = self._sampled.get(ident)
            if last is None or at - last.at >= EVERY * _SLACK:
                series.add(at, _percent(last, now), memory)
                self._sampled[ident] = now
                added = True
        return added


def _percent(before: _Reading | None, now: _Reading) -> float:
    if before is None or not now.who or now.who != before.who or now.at <= before.at:
        return nan
    return max(0.0, now.cpu - before.cpu) / (now.at - before.at) * 100
