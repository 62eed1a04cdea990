"""Single processes as psutil sees them: state, memory, age, command line, and their children.

It must not signal any, nor judge them; it is imported only where it is asked for. A command
line is given as it is: whoever shows it takes its secrets out.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import suppress

import psutil

from reconciler.base.records import dataclass
from reconciler.host.processes import Identity, folder, look_up

_WATCHED = 0.25
"""Seconds over which the use of the processor is taken."""
_CHILDREN = 20


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
    watched: list[tuple[Identity, psutil.Process, float]] = []
    for one in wanted:
        entry = look_up(one.pid)
        if entry is None or entry.identity != one:
            continue
        try:
            process = psutil.Process(one.pid)
            watched.append((one, process, _seconds(process)))
        except psutil.Error:
            continue
    began = time.monotonic()
    if watched:
        time.sleep(_WATCHED)
    passed = time.monotonic() - began
    found = (_row(process, one, before, passed) for one, process, before in watched)
    return [row for row in found if row is not None]


def _row(process: psutil.Process, identity: Identity, before: float, passed: float) -> Row | None:
    entry = look_up(identity.pid)
    if entry is None or entry.identity != identity:
        return None
    uptime = time.clock_gettime(time.CLOCK_BOOTTIME) - identity.start / os.sysconf("SC_CLK_TCK")
    try:
        with process.oneshot():
            memory, threads = resident(process), process.num_threads()
            user, command = process.username(), _command(process)
    except (psutil.Error, OSError):
        return None
    open_files: int | None = None
    with suppress(psutil.Error, OSError):
        open_files = descriptors(process)
    waits_in = _waits_in(identity.pid) if entry.state == "D" else None
    try:
        used = max(0.0, _seconds(process) - before)
    except psutil.Error:
        used = 0.0
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
        cpu=used / passed * 100,
        children=tuple(_children(process)),
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


def _seconds(process: psutil.Process) -> float:
    return sum(process.cpu_times()[:4])


def _command(process: psutil.Process) -> str:
    line: list[str] = []
    with suppress(psutil.ZombieProcess):  # So is one whose main thread has ended.
        line = process.cmdline()
    return " ".join(line) or f"[{process.name()}]"


def _children(process: psutil.Process) -> list[ChildProcess]:
    found = []
    try:
        below = process.children(recursive=True)[:_CHILDREN]
    except psutil.Error:
        return []
    for child in below:
        entry = look_up(child.pid)
        try:
            command = _command(child)
        except (psutil.Error, OSError):
            continue
        if entry is not None:
            found.append(ChildProcess(child.pid, entry.state, command))
    return found


def _waits_in(pid: int) -> str | None:
    try:
        with open(f"/proc/{pid}/wchan", encoding="ascii", errors="replace") as file:
            return file.read(100) or None
    except OSError:
        return None
