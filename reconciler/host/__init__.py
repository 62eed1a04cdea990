"""The one edge to the operating system, one module for each thing of it.

It must not know what a spec, a plan or a kind is.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

from reconciler.base.records import replace
from reconciler.base.values import Facts
from reconciler.host import trust
from reconciler.host.clock import Clock
from reconciler.host.users import Users
from reconciler.host.walk import reported

if TYPE_CHECKING:
    from reconciler.base.values import ProbeHistory
    from reconciler.core.model import Resource
    from reconciler.host.clock import WallTime
    from reconciler.host.crontab import Crontabs
    from reconciler.host.files import Files
    from reconciler.host.openfiles import OpenFiles
    from reconciler.host.process_search import ProcessSearch
    from reconciler.host.process_snapshot import CarrierCache, ProcessSnapshot
    from reconciler.host.processes import Identity, Processes
    from reconciler.host.start_records import StartRecords
    from reconciler.host.stops import Stopping, StopUnderWay
    from reconciler.host.systemd import Systemd
    from reconciler.host.tmux import Tmux


class Host:
    """This machine, as seen by one spec.

    ``owner`` is the spec's name, which marks what is ours; ``state_dir`` is that spec's own
    folder. What a pass does not use is not imported.
    """

    def __init__(
        self,
        owner: str,
        state_dir: str,
        clock: Clock | None = None,
        measured: dict[Any, Any] | None = None,
        carriers: CarrierCache | None = None,
    ) -> None:
        self.measured = measured if measured is not None else {}
        """What earlier looks of the same call have measured, for what is a rate."""
        self.said: Mapping[str, ProbeHistory] = {}
        """What probes have said last, by the id of what was probed."""
        self.stops: Stopping | None = None
        """Makes the stops that a loop does not wait for; None: whoever stops something waits."""
        self.stop_by: Mapping[str, float] = {}
        """When each of these ids must have been stopped, by the monotonic clock."""
        self.declared: Sequence[Resource[Any]] = ()
        """All resources of the spec, for a kind that must not take one of them for another."""
        self.remembers = False
        """May looks be written down? Only for one who holds the lock of the state directory."""
        self.restless = False
        """Is what a signal has stopped to be started anew? It may be meant to be stopped."""
        self.owner = owner
        self.spec_path = ""
        """The file that says how it should be."""
        self.state_dir = state_dir
        self.clock = clock or Clock()
        self.users = Users()
        self.log_ends: dict[str, os.stat_result] = {}
        """A daemon's log as this pass opened it to start it, by its path."""
        self._carriers: CarrierCache = carriers if carriers is not None else {}
        self.notes: dict[str, Any] = {}
        """What a kind has worked out for all resources at once, until ``forget``."""
        self.last: list[Callable[[], None]] = []
        """What would end ourselves, and is therefore done when all else is."""

    @property
    def patient(self) -> bool:
        """May what takes its time be waited for? Not in a loop."""
        return self.stops is None

    @cached_property
    def files(self) -> Files:
        """Entries of file systems."""
        from reconciler.host.files import Files

        return Files()

    @cached_property
    def processes(self) -> Processes:
        """The process table."""
        from reconciler.host.processes import Processes

        return Processes(self.clock)

    @cached_property
    def table(self) -> ProcessSnapshot:
        """All processes, as they were when they were first asked for since ``forget``."""
        return self.another_table()

    @cached_property
    def search(self) -> ProcessSearch:
        """Searches in that table."""
        from reconciler.host.process_search import ProcessSearch

        return ProcessSearch(self.table)

    def another_table(self) -> ProcessSnapshot:
        """All processes as they are now."""
        from reconciler.host.process_snapshot import ProcessSnapshot

        return ProcessSnapshot(self._carriers)

    @cached_property
    def start_records(self) -> StartRecords:
        """The daemons that were started, as they were when it was first asked since ``forget``."""
        from reconciler.host.start_records import StartRecords

        return StartRecords(self.state_dir)

    @cached_property
    def open_files(self) -> OpenFiles:
        """What other processes have open."""
        from reconciler.host.openfiles import OpenFiles

        return OpenFiles(self.clock)

    @cached_property
    def systemd(self) -> Systemd:
        """The managers of units, of the system and of the caller."""
        from reconciler.host.systemd import Systemd

        return Systemd(self.users, self.clock)

    @cached_property
    def tmux(self) -> Tmux:
        """The caller's tmux servers."""
        from reconciler.host.tmux import Tmux

        return Tmux(self.state_dir, self.remembers)

    @cached_property
    def crontabs(self) -> Crontabs:
        """The users' crontabs."""
        from reconciler.host.crontab import Crontabs

        return Crontabs(self.users, self.clock, self.state_dir)

    @cached_property
    def walltime(self) -> WallTime:
        """Whether the wall clock can be believed."""
        from reconciler.host.clock import WallTime

        return WallTime(self.state_dir, self.clock, self.remembers)

    @cached_property
    def marks(self) -> Marks:
        """What this spec has left outside of its own folder."""
        return Marks(self.state_dir)

    def gone_on_with(self, ident: str, stop: StopUnderWay) -> StopUnderWay:
        """The stop, or what is left of it where a loop that has ended had begun it."""
        stop = self._begun_stops.get(stop.identity, stop)
        if ident in self.stop_by:
            left = max(0.0, self.stop_by[ident] - self.clock.monotonic())
            stop = replace(stop, timeout=min(stop.timeout, left))
        return stop

    def time_to_stop(self, seconds: float) -> float:
        """So many seconds, or what is left until all must have been stopped."""
        if not self.stop_by:
            return seconds
        return min(seconds, max(0.0, max(self.stop_by.values()) - self.clock.monotonic()))

    @cached_property
    def _begun_stops(self) -> Mapping[Identity, StopUnderWay]:
        from reconciler.host.stops import handed_on

        return {one.identity: one for _, _, one in handed_on(self.state_dir)}

    def forget(self) -> None:
        """Drop what was seen, so that the next look is a fresh one."""
        if "files" in self.__dict__:
            self.files.forget()
        for name in ("table", "search", "start_records", "_begun_stops"):
            self.__dict__.pop(name, None)
        self.notes.clear()
        if "tmux" in self.__dict__:
            self.tmux.forget()
        if "crontabs" in self.__dict__:
            self.crontabs.forget()

    def let_go(self) -> None:
        """Nobody waits any more for what was begun and not asked for."""
        if "tmux" in self.__dict__:
            self.tmux.let_go()
        if "crontabs" in self.__dict__:
            self.crontabs.let_go()


_LIMIT = 2**20


class Marks:
    """The marks of one spec, in the folder ``marks`` of its state directory."""

    def __init__(self, state_dir: str) -> None:
        self._folder = os.path.join(state_dir, "marks")

    def kinds(self) -> list[str]:
        """The kinds that have left something; one system call when there is nothing."""
        try:
            return sorted(name for name in os.listdir(self._folder) if name.isidentifier())
        except OSError:
            return []

    def of(self, kind: str) -> tuple[str, ...]:
        """What that kind has left."""
        return tuple((self._read(kind) or b"").decode(errors="replace").splitlines())

    def add(self, kind: str, name: str) -> None:
        """Note it, unless that is done already. Raises HostError."""
        seen = self._read(kind)
        names = (seen or b"").decode(errors="replace").splitlines()
        if name not in names:
            os.makedirs(self._folder, mode=0o700, exist_ok=True)
            self._write(kind, sorted([*names, name]))

    def remove(self, kind: str, name: str) -> None:
        """It is gone. Raises HostError."""
        seen = self._read(kind)
        names = (seen or b"").decode(errors="replace").splitlines()
        if seen is None or name not in names:
            return
        left = [one for one in names if one != name]
        if left:
            self._write(kind, left)
        else:
            with suppress(OSError):
                os.unlink(self._path(kind))
                os.rmdir(self._folder)

    def _write(self, kind: str, names: list[str]) -> None:
        from reconciler.host.place import put_at

        path = self._path(kind)
        with reported(f"cannot write {path}"):
            put_at(path, "".join(f"{one}\n" for one in names).encode())

    def _path(self, kind: str) -> str:
        return os.path.join(self._folder, kind)

    def _read(self, kind: str) -> bytes | None:
        return trust.own_bytes(self._path(kind), _LIMIT)


def facts(users: Users, state_dir: str) -> Facts:
    """What templates may ask about this host and its user, as it is now."""
    from reconciler.host.command import find, program_folder
    from reconciler.host.environment import container_loop

    account = users.account(None)
    return Facts(
        user_name=account.name,
        user_home=os.path.abspath(account.home),
        user_uid=account.uid,
        host_name=os.uname().nodename,
        # sd_booted(3)
        systemd=os.path.isdir("/run/systemd/system"),
        crontab=find("crontab") is not None,
        tmux=find("tmux") is not None,
        state_dir=state_dir,
        bin=program_folder(),
        bin_refused=_program_refused() if os.geteuid() == 0 else "",
        container=bool(container_loop()),
        linger=os.path.exists(f"/var/lib/systemd/linger/{account.name}"),
        trust=tuple(word for uid in trust.trusted_owners() for word in ("--trust", str(uid))),
    )


def _program_refused() -> str:
    """Why root cannot trust this program: its command, its interpreter, and its own files."""
    from reconciler.host.command import program_folder

    try:
        for path in (f"{program_folder()}/reconcile", sys.executable, __file__):
            trust.refuse_untrusted(path, "this program")
    except trust.Untrusted as error:
        return str(error)
    except OSError as error:
        return f"this program cannot be looked at: {error}"
    return ""
