"""How a process is started and stopped: the actions of a process.

It must not decide whether to: that is the process kind's.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING

from reconciler.base.errors import HostError
from reconciler.base.records import dataclass
from reconciler.base.text import count_of
from reconciler.host.launch import MARK, VERSION, Launch, prepared
from reconciler.host.processes import LEADER, Identity
from reconciler.host.start_records import ENDED, RENEWED, STOPPED, file_name
from reconciler.host.walk import NoSpace
from reconciler.kinds.process.match import (
    PANE_MARK,
    finished,
    known_as,
    runs,
    started,
    version_now,
)
from reconciler.kinds.session.resource import holder

if TYPE_CHECKING:
    from reconciler.core.model import Resource
    from reconciler.host import Host
    from reconciler.host.start import Detached
    from reconciler.host.stops import StopUnderWay
    from reconciler.host.users import Account
    from reconciler.kinds.process.resource import Process

_MOST = 5
"""Processes that are named of those that were left."""
_TOGETHER = 64
"""Daemons at most that are started at the same time,"""
_TAKES, _SPARE = 6, 40
"""for each takes so many descriptors, of those that all else leaves."""


@dataclass(frozen=True, slots=True)
class Place:
    """A tmux session: the server's ``-L`` name and the session's."""

    socket: str | None
    session: str


@dataclass(frozen=True, slots=True)
class StartDaemon:
    """Start it in the background, its output appended to its log.

    What is written down of those that have finished by then stays.
    """

    launch: Launch
    resource: Resource[Process]

    def describe(self) -> str:
        return f"start {in_words(self.launch)} as a daemon"

    def run(self, host: Host) -> None:
        (failed,) = start_all([self], host)
        if failed is not None:
            raise failed

    def prepared(self, host: Host) -> Detached:
        """It with all that it needs opened. Raises HostError."""
        launch, want = self.launch, self.resource.want
        account = launch.account(host.users)
        records = host.start_records
        with ExitStack() as ends:
            log = self._opened(want.log_path, account, host)
            ends.callback(os.close, log)
            errors = log
            if want.error_path is not None:
                errors = self._opened(want.error_path, account, host)
                ends.callback(os.close, errors)
            records.make_room(launch.mark, partial(_finished, self.resource, host))
            if launch.ready_log is not None:
                own = log_path(launch.mark, launch.ready_log or None, host)
                records.note_log(launch.mark, own)
            record = f"{records.folder}/{file_name(launch.mark)}"
            made = prepared(launch, account, (log, errors), known_as(launch.mark, host), record)
            ends.pop_all()
            return made

    def _opened(self, declared: str | None, account: Account, host: Host) -> int:
        """A descriptor of a log. Raises HostError."""
        from reconciler.host.daemon_log import open_log

        log = log_path(self.launch.mark, declared, host)
        ours = account.uid == os.geteuid()
        owner = (-1, -1) if ours else (account.uid, account.gid)
        try:
            if declared is None:
                _leave_to_its_owner(log, account.uid)
            descriptor = open_log(log, *owner)
        except NoSpace:
            if declared is not None:
                raise
            # A start without our log of it is better than none.
            descriptor = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        host.log_ends[log] = os.fstat(descriptor)
        return descriptor


def _finished(resource: Resource[Process], host: Host) -> set[int]:
    """The numbers of those that are not to be started again. Raises HostError."""
    found = finished(resource, host, version_now(resource.want, host))
    return {one.pid for one, _ in found}


def start_all(actions: Sequence[StartDaemon], host: Host) -> list[Exception | None]:
    """Start them, so many at the same time; of each why it does not run."""
    from reconciler.host.start import detach

    failed: list[Exception | None] = [None] * len(actions)
    room = (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _SPARE) // _TAKES
    together = max(1, min(_TOGETHER, room))
    for begin in range(0, len(actions), together):
        wanted = {}
        for at in range(begin, min(begin + together, len(actions))):
            try:
                wanted[at] = actions[at].prepared(host)
            except Exception as error:
                failed[at] = error
        if not wanted:
            continue
        try:
            for at, result in zip(wanted, detach(list(wanted.values())), strict=True):
                failed[at] = result if isinstance(result, HostError) else None
        except OSError as error:
            for at in wanted:
                program = actions[at].launch.argv[0]
                failed[at] = HostError(f"cannot start {program}: {error.strerror}")
    return failed


@dataclass(frozen=True, slots=True)
class RestartInTurn:
    """These instances are restarted by the next steps, one after the other."""

    mark: str
    found: tuple[Identity, ...]

    def describe(self) -> str:
        pids = ", ".join(str(one.pid) for one in self.found)
        return f"restart {count_of(len(self.found), 'instance')} one after the other (pid {pids})"

    def run(self, host: Host) -> None:
        for one in self.found:
            host.start_records.note(self.mark, one, RENEWED, "asked")


@dataclass(frozen=True, slots=True)
class StartInWindow:
    """Start it in a window of its own, or in the one where it has run before.

    Those of what has finished by then stay as they are.
    """

    launch: Launch
    place: Place
    resource: Resource[Process]

    def describe(self) -> str:
        return f"start {in_words(self.launch)} in tmux session {self.place.session}"

    def run(self, host: Host) -> None:
        from reconciler.host.pane import for_pane
        from reconciler.host.tmux import (
            LAUNCH_MARK,
            WINDOW_MARK,
            environment_options,
            home_of,
            literal,
            mark_pane,
            newest,
        )

        launch, place = self.launch, self.place
        if launch.ready_log:
            host.start_records.note_log(launch.mark, launch.ready_log)
        panes = host.tmux.session(place.socket, place.session, host.owner)
        if not panes or panes[0].owner != host.owner:
            raise HostError(f"tmux session {place.session} is not there, or not ours")
        account = launch.account(host.users)
        digest, environ = launch.surroundings(account)
        environ |= {MARK: known_as(launch.mark, host), VERSION: digest, LEADER: ""}
        first, argv = for_pane(launch.program(environ, account))
        options = [*environment_options(first), "-c", "/", "--", *argv]
        name = literal(launch.mark.partition(":")[2])
        mine = host.tmux.made_for(place.socket, place.session, host.owner)
        done = _finished(self.resource, host)
        dead = (p for p in mine if runs(p, launch.mark) and p.dead and p.pid not in done)
        old = next(dead, None) or holder(mine)
        if old is not None:
            here = old.id
            script = [["respawn-pane", "-k", "-t", here, *options]]
            script.append(["rename-window", "-t", here, name])
            # Older versions marked it; a person's panes there are none of ours.
            script.append(["set-option", "-w", "-u", "-t", here, WINDOW_MARK])
        else:
            here = newest(f"{panes[0].session_id}:")
            script = [["new-window", "-d", "-a", "-t", here, "-n", name, *options]]
        script += [
            *mark_pane(here, home_of(host.owner, place.session), launch.mark, PANE_MARK),
            ["set-option", "-p", "-t", here, LAUNCH_MARK, digest],
            # Keeps the session, the last words and the exit status when it dies.
            ["set-option", "-p", "-t", here, "remain-on-exit", "on"],
        ]
        host.tmux.command(place.socket, script)


@dataclass(frozen=True, slots=True)
class StopProcess:
    """Stop it, with all that has come of it, or, without ``tree``, with its group only.

    ``id`` is the resource's, ``user`` who it runs as. ``noted``: it is written down that it was
    stopped by us, at its pane where it has a ``place``.
    """

    id: str
    user: str | None
    tree: bool
    identity: Identity
    signal: str
    timeout: float
    noted: bool = False
    place: Place | None = None

    def describe(self) -> str:
        return f"stop pid {self.identity.pid} ({self.signal}, after {self.timeout:g} s KILL)"

    def stop(self, host: Host) -> StopUnderWay:
        """It as something that can be waited for. Raises UnknownState."""
        from reconciler.host.stops import StopUnderWay

        ours = started(self.id, self.user, host, self.identity) if self.tree else None
        if self.noted:
            self._note(host)
        stop = StopUnderWay(self.identity, self.signal, self.timeout, ours)
        return host.gone_on_with(self.id, stop)

    def _note(self, host: Host) -> None:
        """Raises HostError."""
        if self.place is None:
            with suppress(HostError):  # A stop without a word of it is better than none.
                host.start_records.note(self.id, self.identity, ENDED, STOPPED)
            return
        from reconciler.host.tmux import LAUNCH_MARK

        panes = host.tmux.session(self.place.socket, self.place.session, host.owner)
        script = [
            ["set-option", "-p", "-t", one.id, LAUNCH_MARK, STOPPED]
            for one in panes
            if runs(one, self.id) and one.pid == self.identity.pid
        ]
        if script:
            host.tmux.command(self.place.socket, script)

    def run(self, host: Host) -> None:
        self.stop(host).make(host.processes)


@dataclass(frozen=True, slots=True)
class StopLeft:
    """Stop what has come of earlier starts, and was left behind when they ended.

    ``found`` was left when it was looked, the oldest first, by the launches with these numbers.
    """

    id: str
    user: str | None
    found: tuple[Identity, ...]
    launches: tuple[int, ...]
    signal: str
    timeout: float

    def describe(self) -> str:
        pids = ", ".join(str(one.pid) for one in self.found[:_MOST])
        more = f" and {len(self.found) - _MOST} more" if len(self.found) > _MOST else ""
        how = f"({self.signal}, after {self.timeout:g} s KILL)"
        return f"stop what an earlier start has left: pid {pids}{more} {how}"

    def stop(self, host: Host) -> StopUnderWay:
        """It as something that can be waited for. Raises UnknownState."""
        from reconciler.host.stops import StopUnderWay

        ours = started(self.id, self.user, host, launches=self.launches)
        stop = StopUnderWay(self.found[0], self.signal, self.timeout, ours, self.launches)
        return host.gone_on_with(self.id, stop)

    def run(self, host: Host) -> None:
        self.stop(host).make(host.processes)


def in_words(launch: Launch) -> str:
    """The command as a person would type it."""
    from reconciler.host.remedy import in_words as line

    return repr(line(launch.argv))


def log_path(mark: str, log: str | None, host: Host) -> str:
    """Where a daemon's output goes: ``log``, or a file of its own in the state directory."""
    return log or f"{host.state_dir}/log/{file_name(mark)}.log"


def bounds(resources: Iterable[Resource[Process]], host: Host) -> dict[str, tuple[int, int]]:
    """The logs that have a bound of their own, by path: the most bytes, and how many files stay."""
    found = {}
    for one in resources:
        log = one.want.log
        if log is not None and log.max_size is not None:
            for path in dict.fromkeys((log.path, one.want.error_path or log.path)):
                found[log_path(one.id, path, host)] = log.max_size, log.keep
    return found


def _leave_to_its_owner(log: str, uid: int) -> None:
    """A log in our state directory that was another user's until now is not written on.

    He may have it open, and would read what is said from now on. Raises HostError.
    """
    try:
        owner = os.lstat(log).st_uid
    except OSError:
        return
    # On some file systems nothing is ours that we make.
    if owner == uid or (uid == os.geteuid() and owner == os.lstat(os.path.dirname(log)).st_uid):
        return
    from reconciler.host.daemon_log import KEEP
    from reconciler.host.rotate import put_aside

    put_aside(log, KEEP)
