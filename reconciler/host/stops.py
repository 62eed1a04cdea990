"""Processes that are being stopped while others go on: a child of ours makes each stop.

It must not decide who is stopped, and it waits for none of them for longer than a moment.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from typing import Any, Protocol

from reconciler.base.errors import HostError, UnknownState
from reconciler.base.records import dataclass, replace
from reconciler.host import trust
from reconciler.host.child import Child
from reconciler.host.clock import Clock, boot_id
from reconciler.host.descendants import Descendants, Ending, Started, end_all, ending
from reconciler.host.processes import Identity, Processes
from reconciler.host.progress import readable

_MOMENT = 0.2
"""Seconds in which most processes end that are asked to."""
_LONGER = 10.0
"""Seconds that a stop may take beyond its own time."""
_FILE = "stops"
_MOST = 2**20


@dataclass(frozen=True, slots=True)
class StopUnderWay:
    """``signal`` to the process, then to what has come of it, and KILL after ``timeout`` seconds.

    Without ``started`` that is who is in a group or session that it leads. With ``launches`` all is
    meant that launches with these numbers have left behind. ``until``: the signal was sent already,
    and KILL is due then, by the monotonic clock of this boot.
    """

    identity: Identity
    signal: str
    timeout: float
    started: Started | None = None
    launches: tuple[int, ...] = ()
    until: float | None = None

    def ending(self, processes: Processes) -> Ending:
        """It as one of several that are made at the same time."""
        leader = None if self.launches else self.identity
        found = Descendants(self.started, leader, self.launches)
        return ending(processes, found, leader, self.signal, self.timeout, self.until)

    def make(self, processes: Processes) -> None:
        """Make it alone. Raises HostError."""
        for _, error in end_all(processes, [self.ending(processes)]):
            if error is not None:
                raise error


WantedStops = tuple[str, Sequence[StopUnderWay], bool]
"""For which id, which stops, and whether all that needs it may go as well then."""


class Stopping(Protocol):
    """Who makes the stops that a pass does not wait for: see ``Stops``."""

    def of(self, ident: str) -> list[Identity]: ...

    def make(self, wanted: Sequence[WantedStops]) -> Sequence[str | HostError | None]: ...


@dataclass(slots=True, eq=False)
class _Batch:
    """Stops that one child makes; it tells of each as it is over. ``heard`` counts these."""

    child: Child
    stops: Sequence[StopUnderWay]
    heard: int = 0


class Stops:
    """A part of the loop. ``everything`` is the id that asks for a look at all there is.

    When the loop ends, the stops that go on are written down in its ``folder``, where the next
    loop, or pass, finds what was begun and goes on with it.
    """

    def __init__(self, clock: Clock, everything: str, folder: str) -> None:
        self._clock = clock
        self._everything = everything
        self._folder = folder
        self._making: list[_Batch] = []
        """Those whose child has not come to its end, also where all of its stops are over."""
        self._going: dict[Identity, tuple[_Batch, str, str]] = {}
        self._begun: dict[Identity, StopUnderWay] = {}
        self._failed: dict[Identity, str] = {}
        self._wanted: set[str] = set()

    def go_on(self) -> None:
        """Go on with what the loop before this one has begun."""
        with suppress(OSError):
            self._begin(handed_on(self._folder))
        with suppress(OSError):
            os.unlink(f"{self._folder}/{_FILE}")

    def _begin(self, new: Sequence[tuple[str, str, StopUnderWay]]) -> None:
        """Raises OSError."""
        if not new:
            return
        stops = [stop for _, _, stop in new]
        batch = _Batch(_stopping(stops), stops)
        self._making.append(batch)
        for ident, wakes, stop in new:
            self._going[stop.identity] = batch, ident, wakes
            until = self._clock.monotonic() + stop.timeout
            known = stop if stop.until is not None else replace(stop, until=until)
            self._begun[stop.identity] = known

    def of(self, ident: str) -> list[Identity]:
        """Those that are being stopped for that id, or what was left of whose group is."""
        return [identity for identity, whose in self.going().items() if whose == ident]

    def going(self) -> dict[Identity, str]:
        """All that are being stopped, each with the id for which it is."""
        return {identity: whose for identity, (_, whose, _) in self._going.items()}

    def make(self, wanted: Sequence[WantedStops]) -> list[str | HostError | None]:
        """Stop them all at the same time; for each id: None where all of its have ended.

        Else the words for what goes on; once that has ended, the id wants a look, or, as what it
        needs may go as well, everything does. Or why one could not be stopped, now or the time
        before.
        """
        found: list[str | HostError | None] = [self._refusal(stops) for _, stops, _ in wanted]
        new = [
            (ident, self._everything if last else ident, stop)
            for (ident, stops, last), refusal in zip(wanted, found, strict=True)
            if refusal is None
            for stop in stops
            if stop.identity not in self._going
        ]
        try:
            self._begin(new)
        except OSError as error:
            words = f"cannot stop process {new[0][2].identity.pid}: {error.strerror}"
            return [HostError(words) if one is None else one for one in found]
        self._wait([stop.identity for _, stops, _ in wanted for stop in stops])
        return [
            self._result(ident, stops) if refusal is None else refusal
            for (ident, stops, _), refusal in zip(wanted, found, strict=True)
        ]

    def _refusal(self, stops: Sequence[StopUnderWay]) -> HostError | None:
        """Why one of them could not be stopped; told once."""
        failed = [self._failed.pop(one.identity) for one in stops if one.identity in self._failed]
        return HostError(failed[0]) if failed else None

    def _result(self, ident: str, stops: Sequence[StopUnderWay]) -> str | HostError | None:
        left = [stop for stop in stops if stop.identity in self._going]
        if left and len(left) < len(stops):
            self._wanted.add(ident)  # For those that have ended others can be started at once.
        refusal = self._refusal(stops)
        if refusal is not None or not left:
            return refusal
        pids = ", ".join(str(stop.identity.pid) for stop in left)
        return f"pid {pids} is being stopped ({left[0].signal}, after {left[0].timeout:g} s KILL)"

    def _wait(self, identities: Collection[Identity]) -> None:
        end = self._clock.monotonic() + _MOMENT
        while batches := self._batches(identities):
            left = end - self._clock.monotonic()
            if left <= 0:
                return
            readable((batch.child.descriptor for batch in batches), left)
            for batch in batches:
                self._collect(batch)

    def _batches(self, identities: Collection[Identity]) -> list[_Batch]:
        """Those in which any of these is being stopped."""
        return list({self._going[one][0]: None for one in identities if one in self._going})

    def _collect(self, batch: _Batch) -> list[str]:
        """Hear which of its stops are over; the ids that want a look for that."""
        why = "its child ended before it"
        try:
            over = batch.child.collect() is not None
        except UnknownState as error:
            over, why = True, str(error)
        if over:
            self._making.remove(batch)
        *lines, _ = batch.child.said.split(b"\n")
        wakes = []
        for line in lines[batch.heard :]:
            at, _, words = line.partition(b" ")
            wakes += self._over(batch.stops[int(at)], words.decode(errors="replace"))
        batch.heard = len(lines)
        for stop in batch.stops if over else ():
            wakes += self._over(stop, f"cannot stop process {stop.identity.pid}: {why}")
        return wakes

    def _over(self, stop: StopUnderWay, failed: str) -> list[str]:
        if stop.identity not in self._going:
            return []
        _, _, wakes = self._going.pop(stop.identity)
        self._begun.pop(stop.identity, None)
        if failed:
            self._failed[stop.identity] = failed
        return [wakes]

    def descriptors(self) -> Collection[int]:
        """One for each batch of stops; readable once one of it has come to its end."""
        return [batch.child.descriptor for batch in self._making]

    def tend(self, ready: Collection[int]) -> Collection[str]:
        """The ids for which a stop has come to its end."""
        wanted, self._wanted = self._wanted, set()
        for batch in list(self._making):
            if batch.child.descriptor in ready or not batch.child.left:
                wanted.update(self._collect(batch))
        return wanted

    def due(self) -> float | None:
        """Seconds until something may be collected whose end does not tell itself."""
        if self._wanted:
            return 0.0
        return min((batch.child.left for batch in self._making), default=None)

    def close(self) -> None:
        """The loop ends."""
        for batch in self._making:
            batch.child.kill()
        self._making.clear()
        left = [(who, wakes, self._begun[one]) for one, (_, who, wakes) in self._going.items()]
        self._going.clear()
        if left:
            with suppress(OSError, HostError):
                _hand_on(self._folder, left)


def _hand_on(folder: str, begun: Sequence[tuple[str, str, StopUnderWay]]) -> None:
    import json

    from reconciler.host.place import put_at

    known = [
        [*whose, [*_plain(one.identity), one.signal, one.timeout, one.launches, one.until],
         None if one.started is None else [
             one.started.mark, one.started.uids, one.started.name,
             [[*_plain(ended), tag] for ended, tag in one.started.ended],
             [_plain(spared) for spared in one.started.spared],
             # Older versions know only those before.
             *([True] if one.started.executor else []),
         ]]
        for *whose, one in begun
    ]  # fmt: skip
    put_at(f"{folder}/{_FILE}", json.dumps({"boot": boot_id(), "stops": known}).encode())


def handed_on(folder: str) -> list[tuple[str, str, StopUnderWay]]:
    """The stops that a loop had begun when it ended, each with its id and the id that it wakes."""
    text = trust.own_bytes(f"{folder}/{_FILE}", _MOST)
    if text is None:
        return []
    import json

    try:
        known = json.loads(text)
        if known["boot"] != boot_id():
            return []
        return [(ident, wakes, _stop(*values)) for ident, wakes, *values in known["stops"]]
    except (ValueError, TypeError, KeyError):
        return []  # It is damaged: what still runs is stopped again.


def _plain(identity: Identity) -> tuple[int, int]:
    return identity.start, identity.pid


def _stop(one: list[Any], started: list[Any] | None) -> StopUnderWay:
    start, pid, signal, timeout, launches, until = one
    ours = None
    if started is not None:
        mark, uids, name, ended, spared, *executor = started
        gone = tuple((Identity(start, pid), tag) for start, pid, tag in ended)
        others = tuple(Identity(*each) for each in spared)
        ours = Started(mark, tuple(uids), name, gone, others, bool(executor))
    return StopUnderWay(Identity(start, pid), signal, timeout, ours, tuple(launches), until)


def _stopping(stops: Sequence[StopUnderWay]) -> Child:
    def work() -> Iterator[bytes]:
        processes = Processes(Clock())
        for at, error in end_all(processes, [stop.ending(processes) for stop in stops]):
            words = "" if error is None else str(error).replace("\n", " ")
            yield f"{at} {words}\n".encode("utf-8", "surrogateescape")

    now = time.monotonic()
    left = max(stop.timeout if stop.until is None else stop.until - now for stop in stops)
    return Child(work, max(0.0, left) + _LONGER)
