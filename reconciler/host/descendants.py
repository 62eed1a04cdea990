"""What has come of what we start, wherever it went, and how all of it is ended.

A child may leave the group and the session in which it was started, and has another parent once its
own has ended. Four things still tell: the mark in its environment, the session and the group of the
first process of its launch, and the scope that systemd has made for that one. It must not take a
number for proof where it may have been reused, nor signal anybody by a number.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence

from reconciler.base.errors import HostError
from reconciler.base.records import dataclass
from reconciler.host import scope
from reconciler.host.launch import MARK
from reconciler.host.process_snapshot import Carrier, ProcessSnapshot, carrier
from reconciler.host.processes import (
    Identity,
    Processes,
    environment,
    look_up,
    owner_of,
    read_proc,
    session_tag,
)

_KILLING = 5.0
"""Seconds in which what is left must have ended of SIGKILL."""
_REFUSED = 0.5
"""The same where one may not be signalled."""
_WATCHED = 64
"""Processes whose end is waited for at the same time; each takes a descriptor."""
_GLANCE = 0.1
"""Seconds until the others are looked at as well."""
_TOGETHER = 0.005
_COMMAND = "AI_COMMAND_ID"
"""Environment variable of the executor's commands, which outlive its worker."""
_OF_PANE = ("TMUX", "TMUX_PANE")


@dataclass(frozen=True, slots=True)
class Started:
    """What one resource has started: its ``mark``, the users that it runs as, its ``name``.

    ``ended`` are the first processes of launches that do not run any more, each with the
    ``session_tag`` that it had. ``spared`` are something else of the spec, with all below them.
    ``executor``: it is one by its declaration, whose commands outlive it.
    """

    mark: str
    uids: tuple[int, ...]
    name: str
    ended: tuple[tuple[Identity, str], ...] = ()
    spared: tuple[Identity, ...] = ()
    executor: bool = False


class Descendants:
    """Those of one launch, by its ``leader`` or what is taken for it, or of the ``launches`` with
    these numbers, or of all ``but`` these. Without ``started`` only who leads whom is known.
    """

    def __init__(
        self,
        started: Started | None,
        leader: Identity | None = None,
        launches: Collection[int] = (),
        but: Collection[int] = (),
    ) -> None:
        self._started = started
        self._leader = leader
        self._but = but
        self._leads: set[int] = set()
        self._launches = set(launches)
        self.seen: tuple[int, ...] = ()
        """The numbers of the launches of which the last look has found something."""
        if leader is not None:
            self._led_by(leader)
            self._launches |= {leader.pid}
            for uid in started.uids if started is not None else ():
                one = carrier(leader.pid, uid)
                if one is not None and started is not None and one.mark == started.mark:
                    self._launches.add(one.launch)

    def look(self, table: ProcessSnapshot) -> list[Identity]:
        """Those that live, the oldest first, and the leader among them. Raises UnknownState."""
        started, leader = self._started, self._leader
        marked: dict[int, Carrier] = {}
        users: dict[int, int] = {}
        ended: dict[int, str] = {}
        if started is not None:
            for uid in started.uids:
                for pid, one in table.marked(uid, started.mark).items():
                    if self._means(one.launch):
                        marked[pid], users[pid] = one, uid
            ended = {one.pid: tag for one, tag in started.ended if self._means(one.pid)}
        self.seen = tuple(sorted({one.launch for one in marked.values()} | ended.keys()))
        if leader is None and not marked and not ended:
            return []
        entries = table.entries
        numbers = self._led_by(leader) if leader is not None else set()
        claimed: dict[int, int] = {}
        for pid in marked.keys() & entries.keys():
            # As long as it is in there, that number is given to nobody else.
            number = marked[pid].launch
            if number not in (entries[pid].session, entries[pid].group):
                continue
            if users[pid] == os.geteuid():
                numbers.add(number)
            else:
                # He may have been let into somebody else's session, or ours into his group, and
                # says that it is his.
                claimed[number] = users[pid]
        for session, tag in ended.items():
            members = table.members.get(session, ()) if tag else ()
            inside = (pid for pid in members if entries[pid].session == session)
            if any(session_tag(pid) == tag for pid in inside):
                numbers.add(session)
        numbers.discard(0)  # What stands for one of another PID namespace.
        found = marked.keys() & entries.keys()
        for number in numbers:
            found |= table.members.get(number, set())
        for number, whose in claimed.items():
            found |= {pid for pid in table.members.get(number, ()) if owner_of(pid) == whose}
        if started is not None:
            found |= self._in_scopes(table, started)
        more = table.led(found) - found
        if started is not None and os.geteuid() not in started.uids:
            more = {pid for pid in more if owner_of(pid) in started.uids}
        found = (found | more) - table.ours
        if started is not None and found:
            found -= self._others(found, table, started)
        if leader is None and os.geteuid() != 0:
            found &= set(table.of_user(os.geteuid()))  # Others we could not end.
        return sorted(entries[pid].identity for pid in found if pid in entries)

    def _means(self, launch: int) -> bool:
        return launch in self._launches if self._launches else launch not in self._but

    def _led_by(self, leader: Identity) -> set[int]:
        """The number of the session or group that it leads, or has led until it ended."""
        entry = look_up(leader.pid, zombies=True)
        if entry is not None:
            # A number is reused only once no session or group has it any more.
            same = entry.identity == leader
            self._leads = {leader.pid} & {entry.session, entry.group} if same else set()
        return set(self._leads)

    def _in_scopes(self, table: ProcessSnapshot, started: Started) -> set[int]:
        """Those in the scopes of launches; a scope has the name of a process that has ended."""
        if not os.path.isdir("/run/systemd/system"):
            return set()
        launches = self._launches or {one.pid for one, _ in started.ended if self._means(one.pid)}
        launches = {n for n in launches if n not in table.entries or n in self._leads}
        found: set[int] = set()
        for number in launches:
            found |= table.scopes.get(scope.unit(started.name, number), set())
        return found

    def _others(self, found: Collection[int], table: ProcessSnapshot, started: Started) -> set[int]:
        """Of these, what is somebody else's all the same."""
        from reconciler.host.tmux import SESSION

        entries = table.entries
        theirs = {
            one.pid
            for one in started.spared
            if one.pid in entries and entries[one.pid].identity == one
        }
        environs = {pid: environment(pid) for pid in found}
        within = {pid for pid, environ in environs.items() if SESSION in environ}
        # A tmux server that was first started by it may have panes of other resources by now.
        panes = {pid for pid in within if entries[pid].parent in environs.keys() - within}
        servers = {entries[pid].parent for pid in panes}
        for uid in started.uids:
            servers |= {pid for pid in found if table.marks_below(uid, pid) - {started.mark}}
        # What tmux runs for itself, as utempter(8), or has forked and is no pane's program yet.
        tmux = {pid for pid in servers if (read_proc(pid, "comm", 64) or b"").startswith(b"tmux")}
        for pid in environs.keys() & entries.keys():
            parent = entries[pid].parent
            if parent in tmux and _place(environs[pid]) in (_place(environs[parent]), _place({})):
                theirs.add(pid)
        theirs |= panes
        theirs = table.led(table.below(theirs)) | servers if theirs else servers
        for pid, environ in environs.items():
            # Anybody can put that name into the environment of a process of his.
            command = started.executor and _COMMAND in environ
            if environ.get(MARK, started.mark) != started.mark or command:
                theirs.add(pid)
        return theirs - ({self._leader.pid} if self._leader is not None else set())


def _place(environ: Mapping[str, str]) -> tuple[str | None, ...]:
    """What tmux says to the programs of its panes: where they are."""
    return tuple(map(environ.get, _OF_PANE))


Ending = Generator[tuple[Collection[Identity], float], ProcessSnapshot, None]
"""Yields whom it waits for, and until when by the monotonic clock; goes on with the processes as
they are once these have ended, or that time is over."""


def ending(
    processes: Processes,
    found: Descendants,
    leader: Identity | None,
    name: str,
    timeout: float,
    begun: float | None = None,
) -> Ending:
    """Signal the ``leader``, then, once it has ended, all that is ``found`` beside it; then KILL.

    They have ``timeout`` seconds together until then. ``begun``: they were signalled already, and
    have until then, by the monotonic clock. Raises HostError where one may not be signalled, or
    does not die.
    """
    clock, number = processes.clock, signal.Signals[f"SIG{name}"]
    until = clock.monotonic() + timeout
    if begun is not None:
        until = min(until, begun)
    refused: list[HostError] = []
    known: dict[Identity, None] = {}

    def left(table: ProcessSnapshot) -> list[Identity]:
        known.update(dict.fromkeys(found.look(table)))
        return [one for one in known if processes.alive(one)]

    def ask(identities: Collection[Identity], number: signal.Signals) -> None:
        try:
            processes.ask(identities, number)
        except HostError as error:
            refused.append(error)

    asked = begun is not None
    waits: list[Identity] = []
    if leader is not None and processes.alive(leader):
        if not asked:
            processes.ask([leader], number)
        asked = False  # Not the others, which are asked once it has ended.
        known[leader] = None
        waits = [leader]
    alive = left((yield waits, until))
    if alive and leader not in alive:
        if not asked:
            ask(alive, number)
        alive = left((yield alive, until))
    until = clock.monotonic() + _KILLING
    while alive:
        # Again and again, since one may have been forked meanwhile.
        ask(alive, signal.SIGKILL)
        # One that may not be signalled does not end.
        alive = left((yield alive, min(until, clock.monotonic() + _REFUSED) if refused else until))
        if alive and (refused or clock.monotonic() >= until):
            raise refused[0] if refused else HostError(_undying(alive[0]))


def end_all(
    processes: Processes, endings: Sequence[Ending]
) -> Iterator[tuple[int, HostError | None]]:
    """Make them all at the same time; the number of each as it is over, and what went wrong.

    The process table is read once for all that go on.
    """
    waits: dict[int, tuple[Collection[Identity], float]] = {}
    ready, table = list(range(len(endings))), None
    while ready or waits:
        for at in ready:
            try:
                # A generator that has not begun takes nothing.
                waits[at] = endings[at].send(table) if table else next(endings[at])
            except StopIteration:
                yield at, None
            except HostError as error:
                yield at, error
        _wait(processes, waits)
        now = processes.clock.monotonic()
        ready = [
            at
            for at, (whom, until) in waits.items()
            if now >= until or not any(map(processes.alive, whom))
        ]
        for at in ready:
            del waits[at]
        table = ProcessSnapshot()


def _wait(processes: Processes, waits: Mapping[int, tuple[Collection[Identity], float]]) -> None:
    """Until some of them have ended, or had their time."""
    whom = [one for identities, _ in waits.values() for one in identities]
    if not all(identities for identities, _ in waits.values()):
        return
    end = min((until for _, until in waits.values()), default=0.0)
    if len(waits) == 1:
        processes.wait(whom, end)
    elif waits:
        now = processes.clock.monotonic()
        processes.wait_for_one(whom[:_WATCHED], min(end, now + _GLANCE))
        # Those that were asked together end soon after one another.
        processes.clock.sleep(_TOGETHER)


def _undying(one: Identity) -> str:
    entry = look_up(one.pid)
    if entry is not None and entry.state == "D":
        return f"process {one.pid} does not die of SIGKILL; it hangs in the kernel"
    return f"process {one.pid} still runs: others are started faster than they can be ended"
