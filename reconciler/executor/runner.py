"""One command's process, from its start to its end.
Must not move command files and must not write results; it waits only through its pulse.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Any, Protocol

from reconciler.base.errors import HostError
from reconciler.base.text import escapes
from reconciler.executor import files
from reconciler.executor.commandfile import Command
from reconciler.executor.home import Layout, held
from reconciler.executor.log_limit import MAX_LOG, Output, cut_log
from reconciler.executor.processes import end_tree, identity
from reconciler.executor.results import tail_of
from reconciler.executor.text import as_json, stamp
from reconciler.host.launch import MARKS
from reconciler.host.place import write_all
from reconciler.host.progress import reap
from reconciler.host.start import Program, begin
from reconciler.host.users import Users

# The command's text is on standard input, since everybody may read the arguments of a process.
_SHELL = """IFS= read -rd '' && exec </dev/null && eval "unset REPLY;$REPLY\""""


class BeatsWhileRunning(Protocol):
    """How the worker waits, so that it stays alive to others while a command runs."""

    stopping: bool

    def wait(self, fd: int | None, seconds: float) -> None:
        """Until `fd` is readable, a signal came or the time is over; keeps the heartbeat."""


def run(layout: Layout, command: Command, bash: str, pulse: BeatsWhileRunning) -> dict[str, Any]:
    """Run the command to its end; fields of its result. Whatever goes wrong is in them."""
    start, began = stamp(), time.monotonic()
    log_fd, status, code = -1, "failed", None
    reason: str | None = None
    try:
        try:
            log_fd = _new_log(layout, command.id)
            pid = _start(layout, command, bash, log_fd)
        except (OSError, ValueError, HostError) as error:
            reason = f"not started: {escapes(error)}"
            if log_fd >= 0:
                with contextlib.suppress(OSError):
                    write_all(log_fd, f"{escapes(reason)}\n".encode())
        else:
            status, reason, code = _ended(pid, command, log_fd, pulse)
        return {
            "status": status,
            "exit_code": code if code is not None and code >= 0 else None,
            "signal": -code if code is not None and code < 0 else None,
            "reason": reason,
            "timed_out": status == "timed_out",
            "start": start,
            "end": stamp(),
            "seconds": round(time.monotonic() - began, 3),
            "output_tail": tail_of(log_fd) if log_fd >= 0 else "",
        }
    finally:
        if log_fd >= 0:
            os.close(log_fd)


def _ended(
    pid: int, command: Command, log_fd: int, pulse: BeatsWhileRunning
) -> tuple[str, str | None, int | None]:
    """Wait for its end, or make one: the status, why, and the code, negative for a signal.

    No code is that of a process that even KILL did not end.
    """
    cause = _watch(pid, command.timeout, log_fd, pulse)
    if cause:
        how = end_tree(pid, True, log_fd, lambda seconds: pulse.wait(None, seconds))
    left = reap(pid)
    code = None if left is None else os.waitstatus_to_exitcode(left)
    if cause == "output":
        cut_log(log_fd)
    if cause:
        why = {
            "output": f"output over {MAX_LOG} bytes",
            "timed_out": f"timeout of {command.timeout:g} s",
            "interrupted": "the worker was stopped",
        }[cause]
        status = "failed" if cause == "output" else cause
        return status, f"{why}; its processes were ended {how}", code
    if code is None or code < 0:
        return "failed", "killed" + (f" by {signal.Signals(-code).name}" if code else ""), code
    return ("failed" if code else "succeeded"), None, code


def _new_log(layout: Layout, command_id: str) -> int:
    """A log of its own: what a namesake left in the background keeps writing to the old file."""
    name = f"{command_id}.log"
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with held(layout.logs, make=True) as logs:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=logs)
        fd = os.open(name, flags, 0o600, dir_fd=logs)
    os.fchmod(fd, layout.file_mode)
    return fd


def _start(layout: Layout, command: Command, bash: str, log_fd: int) -> int:
    """Start the command's shell, a child of ours; its number. Raises OSError and HostError."""
    cwd = layout.home if command.cwd is None else os.path.expanduser(command.cwd)
    if not os.path.isdir(cwd):
        raise NotADirectoryError(f"the working directory {escapes(cwd)} is not there")
    # It may outlive the worker, and must not be ended with it.
    own = {name: value for name, value in os.environ.items() if name not in MARKS}
    env = {**own, "AI_CO_HOME": layout.home, "AI_COMMAND_ID": command.id, **command.env}
    text = os.memfd_create("command")
    # For writing only: what the command runs as another user must not read what came before.
    output = os.open(f"/proc/self/fd/{log_fd}", os.O_WRONLY | os.O_APPEND)
    try:
        write_all(text, command.command.encode() + b"\0")
        os.lseek(text, 0, os.SEEK_SET)
        # The log itself is the output: nothing has to be copied, nothing is lost when the worker
        # dies, and what the command leaves in the background can hold up nobody.
        program = Program([bash, "-c", _SHELL], env, Users().account(None), cwd)
        pid = begin(program, (text, output, output))
    finally:
        os.close(text)
        os.close(output)
    who = as_json({**identity(pid), "start": stamp(), "worker": os.getpid()}).encode()
    name = f"{command.id}.pid"
    # Only recovery after a kill needs it: its absence must not stop a command that runs.
    with contextlib.suppress(OSError), held(layout.running) as running:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=running)
        files.put(running, name, who, layout.file_mode, sync=False)
    return pid


def _watch(pid: int, timeout: float, log_fd: int, pulse: BeatsWhileRunning) -> str:
    """Wait for the end of the process; why it must be ended, or nothing."""
    end = time.monotonic() + timeout
    with Output(log_fd, MAX_LOG, pid) as output:
        while not _has_exited(pid):
            left = end - time.monotonic()
            if pulse.stopping:
                return "interrupted"
            if left <= 0:
                return "timed_out"
            tick = output.look()
            if tick is None:
                return "output"
            pulse.wait(output.wakes, min(left, tick))
    # A command that ended by itself in the same moment has a result of its own.
    return "output" if os.fstat(log_fd).st_size > MAX_LOG else ""


def _has_exited(pid: int) -> bool:
    """Without reaping it: as long as the zombie is there, its group's number stays its own."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
