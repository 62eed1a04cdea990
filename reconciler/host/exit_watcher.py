"""Learns at once of the end of any process, child or not, by pidfd_open(2).

It must not decide what follows from an end, and it never waits.
"""

from __future__ import annotations

import os
import resource
import select
from collections.abc import Callable, Collection, Iterable, Mapping

from reconciler.base.errors import UnknownState
from reconciler.host.clock import Clock
from reconciler.host.processes import Identity, ended, look_up

_REST = 5.0
"""Seconds between two calls for one thing that has no pauses of its own."""
_TOGETHER, _LONGEST = 0.001, 0.01
"""Seconds until no more end with those that have ended, and seconds at most."""
_SPARE = 64
"""Descriptors that are left for all else; without any, not even a process could be looked at."""


class ExitWatcher:
    """The processes that are watched, each with the ids that its end concerns.

    ``paced``: has it pauses of its own between attempts? What has none, and ends again and
    again, calls for a look only so often. ``short`` is told, once, where not all can be watched.
    """

    def __init__(self, clock: Clock, short: Callable[[str], None] = lambda words: None) -> None:
        self._clock = clock
        self._short = short
        self._watched: dict[Identity, int] = {}
        # One to wait for, however many there are.
        self._ended = select.epoll()
        self._concerns: dict[Identity, set[str]] = {}
        self._paced: set[str] = set()
        self.called: dict[str, float] = {}
        """When a look at each was called for last, because something had ended."""
        self._waiting: dict[str, float] = {}
        self.last: dict[str, Identity] = {}
        """By id the process that was watched last for it, whether it has ended or not."""

    def watch(self, wanted: Mapping[str, Iterable[Identity]], paced: Collection[str]) -> None:
        """Watch these from now on for these ids; what is watched for other ids stays.

        One that has ended already is noticed with the next ``tend``.
        """
        for ident in wanted:
            (self._paced.add if ident in paced else self._paced.discard)(ident)
        for ids in self._concerns.values():
            ids -= {one for one in ids if one in wanted}
        for ident, identities in wanted.items():
            for identity in identities:
                self._concerns.setdefault(identity, set()).add(ident)
                self.last[ident] = identity
        for identity in [one for one, ids in self._concerns.items() if not ids]:
            self._drop(identity)
        missed = 0
        for identity in self._concerns.keys() - self._watched.keys():
            missed += not self._open(identity)
        if missed:
            soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            words = f"the end of {missed} processes is noticed only at the next full pass: no more "
            words += f"than {soft} files may be open; raise that limit (ulimit -n, or "
            self._short(f"{words}LimitNOFILE= of the unit)")
            self._short = lambda words: None

    def are_watched(self, identities: Iterable[Identity]) -> bool:
        """Is the end of each of these noticed?"""
        return self._watched.keys() >= set(identities)

    def only(self, ids: Collection[str]) -> None:
        """Watch for no other ids than these."""
        gone = {one for known in self._concerns.values() for one in known} - set(ids)
        self.watch(dict.fromkeys(gone, ()), self._paced)
        for ident in self.last.keys() - set(ids):
            del self.last[ident]
        for ident in self.called.keys() - set(ids):
            del self.called[ident]
            self._waiting.pop(ident, None)

    def _open(self, identity: Identity) -> bool:
        """Watch it; False: there is no room for it."""
        try:
            handle = os.pidfd_open(identity.pid)
        except OSError:
            # It has ended, or there are no descriptors left: the next full pass will see.
            ids = self._concerns.pop(identity)
            if not _surely_ended(identity):
                return False
            self.call(ids)
            return True
        if handle >= _highest():
            os.close(handle)
            del self._concerns[identity]
            return False
        self._watched[identity] = handle
        self._ended.register(handle, select.EPOLLIN)
        try:
            entry = look_up(identity.pid)
        except UnknownState:
            return True  # It is looked at when it fires.
        if entry is None or entry.identity != identity:
            # The number may have gone to somebody else before it was opened.
            ids = self._concerns[identity]
            self._drop(identity)
            self.call(ids)
        return True

    def _drop(self, identity: Identity) -> None:
        self._concerns.pop(identity, None)
        handle = self._watched.pop(identity, None)
        if handle is not None:
            # Closed alone it would stay: children that were forked meanwhile may have it as well.
            self._ended.unregister(handle)
            os.close(handle)

    def call(self, ids: Iterable[str]) -> None:
        """Something that these are about has ended."""
        now = self._clock.monotonic()
        for ident in ids:
            last = self.called.get(ident)
            rests = ident not in self._paced and last is not None
            self._waiting[ident] = max(now, last + _REST) if rests and last is not None else now

    def descriptors(self) -> Collection[int]:
        """Readable once a process that is watched has ended."""
        return (self._ended.fileno(),)

    def tend(self, ready: Collection[int]) -> Collection[str]:
        """The ids that should be looked at now."""
        if self._ended.fileno() in ready:
            fired = self._fired()
            for identity in [one for one, fd in self._watched.items() if fd in fired]:
                ids = self._concerns[identity]
                self._drop(identity)
                self.call(ids)
        now = self._clock.monotonic()
        found = [ident for ident, at in self._waiting.items() if at <= now]
        for ident in found:
            del self._waiting[ident]
            self.called[ident] = now
        return found

    def _fired(self) -> set[int]:
        """The descriptors of those that have ended; what ends together is one pass's work."""
        before, fired = -1, {descriptor for descriptor, _ in self._ended.poll(0)}
        end = self._clock.monotonic() + _LONGEST
        while before < len(fired) and self._clock.monotonic() < end:
            self._clock.sleep(_TOGETHER)
            before, fired = len(fired), {descriptor for descriptor, _ in self._ended.poll(0)}
        return fired

    def due(self) -> float | None:
        """Seconds until something that ended too often is to be looked at."""
        if not self._waiting:
            return None
        return max(0.0, min(self._waiting.values()) - self._clock.monotonic())

    def close(self) -> None:
        """Watch nothing any more."""
        for identity in list(self._watched):
            self._drop(identity)
        self._ended.close()


def _surely_ended(identity: Identity) -> bool:
    try:
        return ended(identity.pid)
    except UnknownState:
        return False


def _highest() -> int:
    """The first descriptor that is too many, setrlimit(2)."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return 2**30
    return soft - min(_SPARE, soft // 2)
