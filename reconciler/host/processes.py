"""The processes of this host: who runs, who is who, and how one is ended.

It must not signal a process by number alone: identity is boot id, process id and start time,
and signals go through a pidfd.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from reconciler.base.errors import HostError, UnknownState
from reconciler.base.records import dataclass
from reconciler.host.progress import readable
from reconciler.host.users import run_as

if TYPE_CHECKING:
    from reconciler.host.clock import Clock

_ENDING = 1.0
"""Seconds for which what descends from a process is ended."""
LEADER = "RECONCILE_PID"
"""Environment variable with the number of the process that was started, as its children know
it too. systemd has the same with $SYSTEMD_EXEC_PID, systemd.exec(5). What has it in its
environment when it is started gets its own number."""


@dataclass(frozen=True, slots=True, order=True)
class Identity:
    """One process of this boot: ``start`` is in clock ticks since boot, proc(5) stat field 22."""

    start: int
    pid: int

    @property
    def text(self) -> str:
        """It in one word, for the store."""
        return f"{self.pid}@{self.start}"

    def began(self, boot: float) -> float:
        """When it was started, by the clock by which the host was booted at ``boot``, in s."""
        return boot + self.start / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class ProcessEntry:
    """A line of the process table."""

    identity: Identity
    state: str
    parent: int
    group: int
    session: int


def look_up(pid: int, zombies: bool = False) -> ProcessEntry | None:
    """The process with that number, or None when there is none or, by default, it is a zombie.

    One whose main thread has ended while others go on is none, and has the state of one of these.
    Raises UnknownState where nothing can be read, such as without free descriptors.
    """
    rest = _stat(f"/proc/{pid}")
    if rest is None:
        return None
    state = rest[0].decode()
    if state == "Z" and int(rest[17]) > 1:
        state = (_other_thread(pid) or ("", state))[1]
    if state in "ZXx" and not (zombies and state == "Z"):
        return None
    return ProcessEntry(
        Identity(int(rest[19]), pid), state, int(rest[1]), int(rest[2]), int(rest[3])
    )


def folder(pid: int) -> str:
    """The folder below /proc that tells of that process: proc_pid_task(5), of another thread once
    the main one has ended, and with it what ``/proc/PID`` had to tell."""
    usual = f"/proc/{pid}"
    try:
        threads = os.stat(f"{usual}/task").st_nlink - 2
    except OSError:
        return usual
    if threads == 1:  # As those of the kernel have: no need to read.
        return usual
    rest = _stat(usual)
    if rest is None or rest[0] != b"Z" or int(rest[17]) < 2:
        return usual
    return (_other_thread(pid) or (usual,))[0]


def _other_thread(pid: int) -> tuple[str, str] | None:
    """The folder and the state of a thread of it that has not ended."""
    with suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/task"):
            rest = _stat(f"/proc/{pid}/task/{name}")
            if rest is not None and rest[0] not in (b"Z", b"X", b"x"):
                return f"/proc/{pid}/task/{name}", rest[0].decode()
    return None


def _stat(place: str) -> list[bytes] | None:
    """The fields of proc_pid_stat(5) from the third on, which has the number 0 here.

    Those behind the start, the 19th, are in one: to part them takes as long as all the others.
    """
    raw = _read(f"{place}/stat", 1024)
    # The name in parentheses may hold anything, also ") R 1"; the last parenthesis ends it.
    return raw[raw.rindex(b")") + 2 :].split(None, 20) if raw is not None else None


def ended(pid: int) -> bool:
    """Has the process with that number ended? Also for one that may not be looked at.

    Raises UnknownState.
    """
    if os.path.exists(f"/proc/{pid}/stat"):
        return look_up(pid) is None
    try:
        os.kill(pid, 0)  # Where /proc shows only our own, proc(5) hidepid.
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


def ending(pid: int) -> str | None:
    """How a process ended whose parent has not asked yet: "exit status 3", "killed by SIGKILL".

    None when it runs, is gone, or belongs to somebody else; the status is proc(5) stat field 52.
    """
    rest = _stat(f"/proc/{pid}") or []
    last = rest[20].split() if len(rest) > 20 else []
    if len(last) < 30 or rest[0] != b"Z" or look_up(pid) is not None:
        return None
    status = os.waitstatus_to_exitcode(int(last[29]))
    return f"killed by {signal_name(-status)}" if status < 0 else f"exit status {status}"


def signal_name(number: int) -> str:
    """``SIGKILL``, or the number of one that has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def end_below(pid: int) -> None:
    """KILL all that descends from that process, but not itself, for a second at most.

    Where it adopts orphans, ``kernel.adopt_orphans``, nobody below it gets away.
    """
    with suppress(OSError), open(f"/proc/{pid}/task/{pid}/children", "rb") as file:
        if not file.read(1):
            return  # As nearly always; where the kernel has no such file, all are looked through.
    _end_all(lambda: _below({pid}) - {pid})


def end_marked(name: str, value: str) -> None:
    """KILL all that was started with ``name=value``, and what descends from it, as ``end_below``.

    What may not be looked at, or has dropped the mark, is not found.
    """
    mark = f"{name}={value}".encode()

    def found() -> set[int]:
        environs = ((one, _read(f"/proc/{one}/environ", 2**20) or b"") for one in pids())
        marked = {one for one, environ in environs if mark in environ.split(b"\0")}
        return _below(marked - {os.getpid()})

    _end_all(found)


def _below(tops: set[int]) -> set[int]:
    """These and all that descend from them, by one look at the process table."""
    entries = {pid: look_up(pid) for pid in pids()}
    parents = {pid: entry.parent for pid, entry in entries.items() if entry is not None}
    found = set(tops)
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found & parents.keys()


def _end_all(members: Callable[[], set[int]]) -> None:
    """KILL them as long as there are any, and time; where we cannot look, there is no more."""
    handles: dict[int, int] = {}
    end = time.monotonic() + _ENDING
    try:
        # Again, since one may have been forked meanwhile.
        while (found := members()) and time.monotonic() < end:
            for pid in found - handles.keys():
                with suppress(OSError):
                    handles[pid] = os.pidfd_open(pid)
            # A descriptor is of whoever had the number then; is it one of them still?
            for pid in members() & handles.keys():
                handle = handles.pop(pid)
                with suppress(OSError):
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                os.close(handle)
            time.sleep(0.005)
    except UnknownState:
        pass
    finally:
        for handle in handles.values():
            os.close(handle)


def pids() -> list[int]:
    """The numbers of all processes. Raises UnknownState."""
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError as error:
        raise UnknownState(f"cannot read /proc: {error.strerror}") from None


class Processes:
    """Single processes, each looked at when asked for."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def alive(self, identity: Identity) -> bool:
        """Does exactly this process still run?"""
        entry = look_up(identity.pid)
        return entry is not None and entry.identity == identity

    def started(self, identity: Identity) -> float:
        """When it started, in seconds since the epoch."""
        uptime = float((_read("/proc/uptime", 64) or b"0").split()[0])
        age = uptime - identity.start / os.sysconf("SC_CLK_TCK")
        return self.clock.wall() - age

    def age(self, identity: Identity) -> float:
        """Seconds since it started, whatever the wall clock has done meanwhile."""
        return self.clock.since_boot() - identity.start / os.sysconf("SC_CLK_TCK")

    def kill(self, identity: Identity) -> None:
        """KILL exactly this process, not its group. Raises HostError when it does not die."""
        self._signal([identity], signal.SIGKILL)
        self.wait([identity], self.clock.monotonic() + 5.0)
        if self.alive(identity):
            raise HostError(f"process {identity.pid} does not die of SIGKILL")

    def end(self, identity: Identity, timeout: float) -> None:
        """Ask exactly this process to end; KILL it after so many seconds. Raises HostError."""
        self.ask([identity], signal.SIGTERM)
        self.wait([identity], self.clock.monotonic() + timeout)
        self.kill(identity)

    def tell(self, identities: Iterable[Identity], name: str) -> None:
        """Send a signal, such as ``HUP``; those that have ended are passed over.

        Raises HostError when one may not be signalled.
        """
        self._signal(identities, signal.Signals[f"SIG{name}"])

    def ask(self, identities: Collection[Identity], number: signal.Signals) -> None:
        """Send them a signal, which they get also where they are stopped. Raises HostError."""
        self._signal(identities, number)
        # One that is stopped, or is stopped just now, takes it only when it goes on, signal(7).
        self._signal(identities, signal.SIGCONT)

    def _signal(self, identities: Iterable[Identity], number: signal.Signals) -> None:
        refused = None
        for identity in identities:
            try:
                handle = os.pidfd_open(identity.pid)
            except ProcessLookupError:
                continue
            try:
                # The descriptor is of whoever has the number now; only then look who that is.
                if self.alive(identity):
                    signal.pidfd_send_signal(handle, number)
            except ProcessLookupError:
                continue
            except PermissionError:
                words = f"may not send {number.name} to process {identity.pid}"
                refused = HostError(f"{words}; {run_as('its user')}")
            finally:
                os.close(handle)
        if refused is not None:
            raise refused

    def wait(self, identities: Iterable[Identity], end: float) -> None:
        """Until all have ended, or until ``end`` by the monotonic clock, in seconds."""
        for identity in identities:
            self.wait_for_one([identity], end)

    def wait_for_one(self, identities: Collection[Identity], end: float) -> None:
        """Until one of them has ended, or until ``end``."""
        handles: list[int] = []
        try:
            for identity in identities:
                try:
                    handles.append(os.pidfd_open(identity.pid))
                except ProcessLookupError:
                    return
                if not self.alive(identity):
                    return
            if handles:
                readable(handles, end - self.clock.monotonic())
        finally:
            for handle in handles:
                os.close(handle)


def owner_of(pid: int) -> int | None:
    """The user of a process of our PID namespace; None when it has ended, is the kernel's, or not.

    One that runs a set-user-ID program acts as another user than the one who controls it, and one
    in a namespace below ours is a container's: it has a number there as well, proc_pid_status(5).
    """
    raw = _read(f"/proc/{pid}/status", 4096) or b""
    if b"\nVmSize:" not in raw and b"\nThreads:\t1\n" not in raw:
        # A thread that has ended has none, as the kernel's own.
        raw = _read(f"{folder(pid)}/status", 4096) or b""
    lines = dict(line.partition(b":")[::2] for line in raw.split(b"\n"))
    uids = set(lines.get(b"Uid", b"").split()[:3])
    contained = len(lines.get(b"NSpid", b"").split()) > 1
    if len(uids) != 1 or b"VmSize" not in lines or contained:
        return None
    uid, starter = int(uids.pop()), started_by(pid)
    return uid if starter is None or starter[0] in (0, uid) else None


def started_by(pid: int) -> tuple[int, int] | None:
    """User and group of who started a set-ID program, such as sudo, and so said what its arguments
    are; None for any other program."""
    said = read_proc(pid, "auxv", 4096) or b""
    raw = memoryview(said[: len(said) & ~15] or bytes(16))
    words = raw.cast("I" if raw.cast("Q")[0] >> 32 else "Q")  # The first is a small number.
    values = dict(zip(words[::2], words[1::2], strict=True))
    # AT_UID, AT_GID and AT_SECURE, getauxval(3).
    return (values.get(11, 0), values.get(13, 0)) if values.get(23) else None


def session_tag(pid: int | str = "self") -> str:
    """What tells its session from every other one of this boot; "" where the kernel says nothing.

    Each setsid(2) makes a new autogroup, sched(7), which a fork keeps.
    """
    raw = _read(f"/proc/{pid}/autogroup", 64) or b""
    return b"".join(raw.split()[:1]).decode("ascii", "replace")


def read_proc(pid: int, name: str, limit: int) -> bytes | None:
    """What that file of /proc/PID holds, also once the main thread has ended."""
    raw = _read(f"/proc/{pid}/{name}", limit)
    place = folder(pid) if raw is None else ""
    return _read(f"{place}/{name}", limit) if place not in ("", f"/proc/{pid}") else raw


def environment(pid: int) -> dict[str, str]:
    """The environment it was started with; empty when that may not be read."""
    return variables_in(read_proc(pid, "environ", 2**20) or b"")


def variables_in(raw: bytes, names: Collection[str] | None = None) -> dict[str, str]:
    """What stands in an ``environ`` of /proc, or of it these names."""
    pairs = (one.partition(b"=") for one in raw.split(b"\0"))
    wanted = None if names is None else {os.fsencode(name) for name in names}
    return {
        os.fsdecode(name): os.fsdecode(value)
        for name, _, value in pairs
        if wanted is None or name in wanted
    }


_USUAL = 8192
"""Bytes at most of what is usually read, which cost no memory of their own."""
_OUT_OF = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


def _read(path: str, limit: int) -> bytes | None:
    """None: it is not there, or may not be read. Raises UnknownState where we cannot look."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _OUT_OF:
            # Whoever took that for an end would start a second one.
            raise UnknownState(f"cannot read {path}: {error.strerror}") from None
        return None
    try:
        raw = os.read(handle, min(limit, _USUAL))
        if len(raw) == _USUAL < limit:
            raw += os.read(handle, limit - _USUAL)
        return raw or None
    except OSError:
        return None
    finally:
        os.close(handle)
