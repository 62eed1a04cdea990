"""Processes that are being stopped while others go on: a child of ours makes each stop.

It must not decide who is stopped, and it waits for none of them for longer than a moment.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Any, Protocol

from reconciler.base.errors import HostError, UnknownState
from reconciler.base.records import dataclass, replace
from reconciler.host import trust
from reconciler.host.child import Child
from reconciler.host.clock import Clock
from reconciler.host.descendants import Descendants, Started, end
from reconciler.host.processes import Identity, Processes, boot_id

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

    def make(self, processes: Processes) -> None:
        """Raises HostError."""
        leader = None if self.launches else self.identity
        found = Descendants(self.started, leader, self.launches)
        end(processes, found, leader, self.signal, self.timeout, self.until)


class Stopping(Protocol):
    """Who makes the stops that a pass does not wait for: see ``Stops``."""

    def of(self, ident: str) -> list[Identity]: ...

    def make(self, ident: str, stops: Sequence[StopUnderWay], last: bool) -> str | None: ...


class Stops:
    """A part of the loop. ``everything`` is the id that asks for a look at all there is.

    When the loop ends, the stops that go on are written down in its ``folder``, where the next
    loop, or pass, finds what was begun and goes on with it.
    """

    def __init__(self, clock: Clock, everything: str, folder: str) -> None:
        self._clock = clock
        self._everything = everything
        self._folder = folder
        self._going: dict[Identity, tuple[Child, str, str]] = {}
        self._begun: dict[Identity, StopUnderWay] = {}
        self._failed: dict[Identity, str] = {}
        self._wanted: set[str] = set()

    def go_on(self) -> None:
        """Go on with what the loop before this one has begun."""
        for ident, wakes, stop in handed_on(self._folder):
            with suppress(OSError):
                self._begin(ident, wakes, stop)
        with suppress(OSError):
            os.unlink(f"{self._folder}/{_FILE}")

    def _begin(self, ident: str, wakes: str, stop: StopUnderWay) -> None:
        self._going[stop.identity] = (_stopping(stop), ident, wakes)
        until = self._clock.monotonic() + stop.timeout
        self._begun[stop.identity] = stop if stop.until is not None else replace(stop, until=until)

    def of(self, ident: str) -> list[Identity]:
        """Those that are being stopped for that id, or what was left of whose group is."""
        return [identity for identity, whose in self.going().items() if whose == ident]

    def going(self) -> dict[Identity, str]:
        """All that are being stopped, each with the id for which it is."""
        return {identity: whose for identity, (_, whose, _) in self._going.items()}

    def make(self, ident: str, stops: Sequence[StopUnderWay], last: bool) -> str | None:
        """Stop them all at the same time, for that id; None: they have ended.

        Else the words for what goes on; once that has ended, ``ident`` wants a look. ``last``:
        everything does, since what it needs may go as well. Raises HostError when one could not
        be stopped, now or the time before.
        """
        for stop in stops:
            if stop.identity in self._failed:
                raise HostError(self._failed.pop(stop.identity))
        for stop in stops:
            if stop.identity not in self._going:
                wakes = self._everything if last else ident
                try:
                    self._begin(ident, wakes, stop)
                except OSError as error:
                    pid = stop.identity.pid
                    raise HostError(f"cannot stop process {pid}: {error.strerror}") from None
        self._wait([stop.identity for stop in stops])
        failed = [self._failed.pop(one.identity) for one in stops if one.identity in self._failed]
        left = [stop for stop in stops if stop.identity in self._going]
        if left and len(left) < len(stops):
            self._wanted.add(ident)  # For those that have ended others can be started at once.
        if failed:
            raise HostError(failed[0])
        if not left:
            return None
        pids = ", ".join(str(stop.identity.pid) for stop in left)
        return f"pid {pids} is being stopped ({left[0].signal}, after {left[0].timeout:g} s KILL)"

    def _wait(self, identities: Collection[Identity]) -> None:
        end = self._clock.monotonic() + _MOMENT
        while going := [self._going[one][0] for one in identities if one in self._going]:
            left = end - self._clock.monotonic()
            if left <= 0:
                return
            poller = select.poll()
            for child in going:
                poller.register(child.descriptor, select.POLLIN)
            poller.poll(left * 1000 + 1)
            for identity in identities:
                self._collect(identity)

    def _collect(self, identity: Identity) -> bool:
        """Has its stop come to an end?"""
        if identity not in self._going:
            return False
        child = self._going[identity][0]
        try:
            answer = child.collect()
        except UnknownState as error:
            answer = f"cannot stop process {identity.pid}: {error}".encode()
        if answer is None:
            return False
        del self._going[identity]
        self._begun.pop(identity, None)
        if answer:
            self._failed[identity] = answer.decode(errors="replace")
        return True

    def descriptors(self) -> Collection[int]:
        """One for each stop; readable once it has come to its end."""
        return [child.descriptor for child, _, _ in self._going.values()]

    def tend(self, ready: Collection[int]) -> Collection[str]:
        """The ids for which a stop has come to its end."""
        wanted, self._wanted = self._wanted, set()
        for identity, (child, _, wakes) in list(self._going.items()):
            if (child.descriptor in ready or not child.left) and self._collect(identity):
                wanted.add(wakes)
        return wanted

    def due(self) -> float | None:
        """Seconds until something may be collected whose end does not tell itself."""
        if self._wanted:
            return 0.0
        return min((child.left for child, _, _ in self._going.values()), default=None)

    def close(self) -> None:
        """The loop ends."""
        for child, _, _ in self._going.values():
            child.kill()
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
    try:
        with os.fdopen(trust.own_file(f"{folder}/{_FILE}"), "rb") as file:
            text = file.read(_MOST)
    except (OSError, HostError):
        return []
    import json

    try:
        known = json.loads(text)
        if known["boot"] != boot_id():
            return []
        return [(ident, wakes, _stop(*values)) for ident, wakes, *values in known["stops"]]
    except (ValueError, TypeError, KeyError):
        return []  # It is damaged: what still runs is stopped anew.


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


def _stopping(stop: StopUnderWay) -> Child:
    def work() -> bytes:
        try:
            stop.make(Processes(Clock()))
        except HostError as error:
            return str(error).encode()
        return b""

    left = stop.timeout if stop.until is None else max(0.0, stop.until - time.monotonic())
    return Child(work, left + _LONGER)
