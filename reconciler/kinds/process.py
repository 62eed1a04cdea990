"""Long-running processes, in a window of a tmux session or as daemons.

It must not start a second one beside one that already runs, nor signal anything that is not
known by boot, process id and start time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from reconciler.fields import Command, Duration, Environment, Flag, Name, Path, Regex, choice, integer


@dataclass(frozen=True, slots=True)
class Match:
    """How a process that we did not start is known: exactly one of the first three."""

    cmdline: Regex | None = None
    exe: Path | None = None
    pidfile: Path | None = None
    user: Name | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    """``signal`` to the process, then KILL to its whole group after ``timeout`` seconds."""

    signal: Name = "TERM"
    timeout: Duration = 10.0


@dataclass(frozen=True, slots=True)
class Process:
    """What a user may write under ``processes``."""

    command: Command
    cwd: Path | None = None
    env: Environment = ()
    user: Name | None = None
    instances: Annotated[int, integer(1, 1000)] = 1
    session: Name | None = None
    log: Path | None = None
    match: Match | None = None
    stop: Stop = Stop()
    stop_extra: Flag = False
