"""One command's process, from its start to its end.
Must not move command files and must not write results; it waits only through its pulse.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from reconciler.executor import files
from reconciler.executor.commandfile import Command
from reconciler.executor.layout import Layout
from reconciler.executor.processes import group_members, identity, signal_group
from reconciler.executor.results import tail_of
from reconciler.executor.text import as_json, shown, stamp
from reconciler.host.command import reap
from reconciler.host.start import Program, begin
from reconciler.host.users import Users
from reconciler.model import HostError

MAX_LOG = 100 * 1024 * 1024  # bytes of output; a command with more is ended
GRACE = 3.0  # seconds between TERM and KILL
TICK = 0.25  # seconds between two looks at the size of the log
_DEATH = 5.0  # seconds to wait for a killed process; longer means that the kernel holds it


class Pulse(Protocol):
    """How the worker waits, so that it stays alive to others while a command runs."""

    stopping: bool

    def wait(self, fd: int | None, seconds: float) -> None:
        """Until `fd` is readable, a signal came or the time is over; keeps the heartbeat."""


class Outcome(NamedTuple):
    status: str
    exit_code: int | None
    signal: int | None
    reason: str | None
    timed_out: bool
    start: str
    end: str
    seconds: float
    output_tail: str


def run(layout: Layout, command: Command, bash: str, pulse: Pulse) -> Outcome:
    """Run the command to its end. Whatever goes wrong is in the outcome."""
    start, began = stamp(), time.monotonic()
    log_fd, pid, reason = -1, None, ""
    try:
        log_fd = _new_log(layout.log_file(command.id))
        pid = _start(layout, command, bash, log_fd)
    except OSError as error:
        reason = f"not started: {error}"
    except (ValueError, HostError) as error:
        reason = f"not started: {shown(error)}"
    try:
        if pid is None:
            if log_fd >= 0:
                with contextlib.suppress(OSError):
                    files.write_all(log_fd, f"{shown(reason)}\n".encode())
            return _outcome("failed", None, reason, start, began, log_fd)
        cause = _watch(pid, command.timeout, log_fd, pulse)
        if cause:
            reason = _end_group(pid, pulse)
        code = _reap(pid)
        if cause == "output":
            reason = f"output over {MAX_LOG} bytes; its process group was ended {reason}".strip()
            _cut_log(log_fd)
            return _outcome("failed", code, reason, start, began, log_fd)
        if cause == "timed_out":
            reason = f"timeout of {command.timeout:g} s; its process group was ended {reason}"
            return _outcome("timed_out", code, reason.strip(), start, began, log_fd)
        if cause == "interrupted":
            reason = f"the worker was stopped; the process group was ended {reason}".strip()
            return _outcome("interrupted", code, reason, start, began, log_fd)
        if code is None or code < 0:
            name = "" if code is None else f" by {signal.Signals(-code).name}"
            return _outcome("failed", code, f"killed{name}", start, began, log_fd)
        return _outcome("failed" if code else "succeeded", code, None, start, began, log_fd)
    finally:
        if log_fd >= 0:
            os.close(log_fd)


def _new_log(path: str) -> int:
    """A log of its own: what a namesake left in the background keeps writing to the old file."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    try:
        return os.open(path, flags, 0o644)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
        return os.open(path, flags, 0o644)


def _start(layout: Layout, command: Command, bash: str, log_fd: int) -> int:
    """The number of the new process. Raises OSError, ValueError and HostError."""
    env = {**os.environ, "AI_CO_HOME": layout.home, "AI_COMMAND_ID": command.id, **command.env}
    cwd = layout.home if command.cwd is None else os.path.expanduser(command.cwd)
    argv = (bash, "-c", "--", command.command)
    null = os.open(os.devnull, os.O_RDWR)
    try:
        # The log itself is the output: nothing has to be copied, nothing is lost when the worker
        # dies, and what the command leaves in the background can hold up nobody.
        pid = begin(Program(argv, env, Users().account(None), cwd), (null, log_fd, log_fd))
    finally:
        os.close(null)
    who = as_json({**identity(pid), "start": stamp(), "worker": os.getpid()})
    temp = os.path.join(layout.running, f".{command.id}.pid.tmp")
    # Only recovery after a kill needs it: its absence must not stop a command that runs.
    with contextlib.suppress(OSError):
        files.write_whole(layout.process_file(command.id), who.encode(), temp, sync=False)
    return pid


def _watch(pid: int, timeout: float, log_fd: int, pulse: Pulse) -> str:
    """Wait for the end of the process; why it must be ended, or nothing."""
    end = time.monotonic() + timeout
    with _pidfd(pid) as pidfd:
        size = 0
        while not _has_exited(pid):
            left = end - time.monotonic()
            if pulse.stopping:
                return "interrupted"
            if left <= 0:
                return "timed_out"
            before, size = size, os.fstat(log_fd).st_size
            if size > MAX_LOG:
                return "output"
            tick = TICK if size == before else TICK / 10  # much can come in a moment
            pulse.wait(pidfd, min(left, tick if pidfd is not None else 0.02))
    # A command that ended by itself in the same moment has a result of its own.
    return "output" if os.fstat(log_fd).st_size > MAX_LOG else ""


@contextlib.contextmanager
def _pidfd(pid: int) -> Iterator[int | None]:
    """None on a kernel or at a limit that does not give one: then the process is asked often."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)


def _has_exited(pid: int) -> bool:
    """Without reaping it: as long as the zombie is there, its group's number stays its own."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _end_group(pid: int, pulse: Pulse) -> str:
    """TERM to the whole group, KILL to what is left of it after GRACE. Returns how it went."""
    signal_group(pid, signal.SIGTERM)
    signal_group(pid, signal.SIGCONT)  # a stopped process gets its TERM only when it goes on
    end = time.monotonic() + GRACE
    while time.monotonic() < end:
        if _has_exited(pid) and not group_members(pid):
            return "by TERM"
        pulse.wait(None, 0.05)
    signal_group(pid, signal.SIGKILL)
    end = time.monotonic() + _DEATH
    while not _has_exited(pid) and time.monotonic() < end:
        pulse.wait(None, 0.02)
    return "by KILL"


def _reap(pid: int) -> int | None:
    """The return code, negative for a signal; None for a process that even KILL did not end."""
    status = reap(pid)
    return None if status is None else os.waitstatus_to_exitcode(status)


def _cut_log(fd: int) -> None:
    note = f"\n[output over {MAX_LOG} bytes: cut here, and the command was ended]\n"
    with contextlib.suppress(OSError):
        os.ftruncate(fd, MAX_LOG)
        files.write_all(fd, note.encode())


def _outcome(
    status: str, code: int | None, reason: str | None, start: str, began: float, log_fd: int
) -> Outcome:
    return Outcome(
        status=status,
        exit_code=code if code is not None and code >= 0 else None,
        signal=-code if code is not None and code < 0 else None,
        reason=reason,
        timed_out=status == "timed_out",
        start=start,
        end=stamp(),
        seconds=round(time.monotonic() - began, 3),
        output_tail=tail_of(log_fd) if log_fd >= 0 else "",
    )
