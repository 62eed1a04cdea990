"""What processes use: memory, open files, threads and processor time, alone or with all below them.

It must not judge that, nor signal anybody, and it is imported only where it is asked for. A
process is known by its start in clock ticks: psutil's create_time() follows the wall clock. A
command line is given as it is: its secrets are taken out where it is shown.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psutil

from reconciler.base.records import dataclass, field
from reconciler.host.process_snapshot import ProcessSnapshot
from reconciler.host.processes import Identity, ProcessEntry, folder, look_up, read_proc

if TYPE_CHECKING:
    from reconciler.host import Host

_WATCHED = 0.25
"""Seconds over which the use of the processor is taken."""
_CHILDREN = 20
_SHORTEST = 0.2
"""Seconds that a processor must be watched at least."""
_PAUSE = 0.25
"""Seconds between two looks where there was no earlier one."""


@dataclass(slots=True)
class ResourceUsage:
    """Sums over a process and all its descendants.

    ``memory`` is resident, in bytes. ``cpu`` is in percent of one core, None: not known yet.
    ``unread`` are the numbers of those whose open files may not be counted.
    """

    memory: int = 0
    threads: int = 0
    open_files: int = 0
    cpu: float | None = None
    unread: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Sample:
    """Processor time in seconds as of ``at``, and the percentage over the time before that."""

    at: float
    seconds: float
    percent: float | None = None


def measure(asked: Mapping[Identity, Collection[str]], host: Host) -> dict[Identity, ResourceUsage]:
    """What each of these uses, of what is asked: names of the fields of Usage.

    Processor time is an average since the last look of this call, or over a short pause that all
    share; a loop does not pause. What has ended uses nothing. Raises UnknownState.
    """
    families = _families(asked)
    found = {one: _sums(family, "open_files" in asked[one]) for one, family in families.items()}
    watched = [one for one in asked if "cpu" in asked[one]]
    if watched:
        samples: dict[Identity, _Sample] = host.measured.setdefault("cpu", {})
        for gone in [one for one in samples if not host.processes.alive(one)]:
            del samples[gone]
        new = {one for one in watched if one not in samples}
        _sample(watched, families, samples, host)
        if new and host.patient:
            host.clock.sleep(_PAUSE)
            _sample(new, _families(new), samples, host)
        for one in watched:
            if one in samples:
                found[one].cpu = samples[one].percent
    return found


def _sample(
    watched: Iterable[Identity],
    families: Mapping[Identity, list[ProcessEntry]],
    samples: dict[Identity, _Sample],
    host: Host,
) -> None:
    for one in watched:
        last = samples.get(one)
        now = host.clock.monotonic()
        if last is not None and now - last.at < _SHORTEST:
            continue
        # What ends hands its time to its parent, so that the sum goes on.
        seconds = sum(_times(entry) for entry in families[one])
        if last is None:
            samples[one] = _Sample(now, seconds)
        else:
            percent = max(0.0, seconds - last.seconds) / (now - last.at) * 100
            samples[one] = _Sample(now, seconds, percent)


def _families(roots: Iterable[Identity]) -> dict[Identity, list[ProcessEntry]]:
    """Each with all its descendants, zombies among them; empty for what has ended."""
    table = ProcessSnapshot(zombies=True)
    return {
        root: [table.entries[pid] for pid in table.below([root.pid]) if table.lives(root)]
        for root in roots
    }


def _sums(family: Iterable[ProcessEntry], files: bool) -> ResourceUsage:
    found = ResourceUsage()
    for entry in family:
        if entry.state == "Z":
            continue
        pid = entry.identity.pid
        number = None
        try:
            process = psutil.Process(pid)
            with process.oneshot():
                memory, threads = resident(process), process.num_threads()
            if files:
                with suppress(PermissionError):
                    number = descriptors(process)
        except (psutil.Error, OSError):
            continue
        now = look_up(pid)
        if now is None or now.identity != entry.identity:
            continue  # It has ended, and the number may be somebody else's.
        found.memory += memory
        found.threads += threads
        found.open_files += number or 0
        if files and number is None:
            found.unread.append(pid)
    return found


def since_start(asked: Iterable[Identity], host: Host) -> dict[Identity, dict[str, Any]]:
    """What each has used since it was started, with its descendants, as JSON values.

    ``cpu`` is in seconds; ``memory`` is resident now, ``peak`` the sum of the most that each of
    them ever had, both in bytes. Raises UnknownState.
    """
    return {
        one: {
            "cpu": round(sum(map(_times, family)), 3),
            "memory": _sums(family, False).memory,
            "peak": sum(map(_peak, family)),
        }
        for one, family in _families(asked).items()
    }


def _peak(entry: ProcessEntry) -> int:
    """VmHWM of proc_pid_status(5), in bytes."""
    status = (read_proc(entry.identity.pid, "status", 8192) or b"").splitlines()
    return next((int(line.split()[1]) * 1024 for line in status if line[:6] == b"VmHWM:"), 0)


def _times(entry: ProcessEntry) -> float:
    """Seconds of processor time, with those of its children that have ended."""
    try:
        return sum(psutil.Process(entry.identity.pid).cpu_times()[:4])
    except (psutil.Error, OSError):
        return 0.0


@dataclass(frozen=True, slots=True)
class ChildProcess:
    """One that a process has started, itself or by way of others."""

    pid: int
    state: str
    command: str


@dataclass(frozen=True, slots=True)
class Row:
    """One process. ``memory`` is resident, in bytes; ``uptime`` is in seconds.

    ``cpu`` is in percent of one core. ``open_files`` is None where they may not be counted,
    ``waits_in`` the place in the kernel where one that cannot be interrupted waits.
    """

    identity: Identity
    state: str
    memory: int
    threads: int
    user: str
    uptime: float
    command: str
    open_files: int | None
    waits_in: str | None
    cpu: float
    children: tuple[ChildProcess, ...]


def rows(wanted: Iterable[Identity]) -> list[Row]:
    """Those of them that run. Takes a quarter of a second, in which all are watched."""
    table = ProcessSnapshot()
    watched = {one: _times(table.entries[one.pid]) for one in wanted if table.lives(one)}
    began = time.monotonic()
    if watched:
        time.sleep(_WATCHED)
    passed = time.monotonic() - began
    found = (_row(one, before, passed, table) for one, before in watched.items())
    return [row for row in found if row is not None]


def _row(identity: Identity, before: float, passed: float, table: ProcessSnapshot) -> Row | None:
    entry = look_up(identity.pid)
    if entry is None or entry.identity != identity:
        return None
    uptime = time.clock_gettime(time.CLOCK_BOOTTIME) - identity.start / os.sysconf("SC_CLK_TCK")
    open_files: int | None = None
    try:
        process = psutil.Process(identity.pid)
        with process.oneshot():
            memory, threads = resident(process), process.num_threads()
            user, command = process.username(), _command(process)
        with suppress(PermissionError):
            open_files = descriptors(process)
    except (psutil.Error, OSError):
        return None
    waits_in = None
    if entry.state == "D":
        waits_in = (read_proc(identity.pid, "wchan", 100) or b"").decode("ascii", "replace") or None
    return Row(
        identity=identity,
        state=entry.state,
        memory=memory,
        threads=threads,
        user=user,
        uptime=max(0.0, uptime),
        command=command,
        open_files=open_files,
        waits_in=waits_in,
        cpu=max(0.0, _times(entry) - before) / passed * 100,
        children=tuple(_children(identity.pid, table)),
    )


def resident(process: psutil.Process) -> int:
    """Its resident memory in bytes, also once its main thread has ended. Raises as psutil does."""
    size: int = process.memory_info().rss
    if size:
        return size
    with open(f"{folder(process.pid)}/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors(process: psutil.Process) -> int:
    """How many open files it has, also once its main thread has ended. Raises OSError."""
    return len(os.listdir(f"{folder(process.pid)}/fd"))


def _command(process: psutil.Process) -> str:
    line: list[str] = []
    with suppress(psutil.ZombieProcess):  # So is one whose main thread has ended.
        line = process.cmdline()
    return " ".join(line) or f"[{process.name()}]"


def _children(pid: int, table: ProcessSnapshot) -> Iterator[ChildProcess]:
    for below in sorted(table.below([pid]) - {pid})[:_CHILDREN]:
        with suppress(psutil.Error, OSError):
            command = _command(psutil.Process(below))
            entry = look_up(below)
            if entry is not None:
                yield ChildProcess(below, entry.state, command)
