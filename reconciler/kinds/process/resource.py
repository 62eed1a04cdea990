"""What a user may write about a process. Pure."""

from __future__ import annotations

from typing import Annotated

from reconciler.base.digests import blake2b
from reconciler.base.records import dataclass, field
from reconciler.core.fields import (
    Command,
    Duration,
    Environment,
    Flag,
    Name,
    Number,
    Path,
    Regex,
    integer,
)
from reconciler.kinds.process.actions import Place
from reconciler.kinds.process.limits import HeartbeatLimit, Limits


@dataclass(frozen=True, slots=True)
class Match:
    """How a process that we did not start is known: exactly one of the first three."""

    cmdline: Regex | None = None
    exe: Path | None = None
    pidfile: Path | None = None
    user: Name | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    """``signal`` to the process and what it has started, then KILL after ``timeout`` seconds."""

    signal: Name = "TERM"
    timeout: Duration = 10.0


@dataclass(frozen=True, slots=True)
class Backoff:
    """The pauses between attempts, from ``initial`` by ``factor`` to ``max``, in seconds."""

    initial: Duration = 1.0
    factor: Number = 2.0
    max: Duration = 300.0


@dataclass(frozen=True, slots=True)
class Restart:
    """After so many failed ``attempts`` it is given up, and tried every ``retry_every`` seconds.

    An attempt is forgiven when it has run for ``healthy_after`` seconds.
    """

    attempts: Annotated[int, integer(1, 1000)] = 10
    backoff: Backoff = Backoff()
    healthy_after: Duration = 60.0
    retry_every: Duration = 900.0


@dataclass(frozen=True, slots=True)
class Process:
    """A process that must run: in a window of ``session``, or as a daemon that writes ``log``.
    Unless ``kill_tree`` is false, what it has started ends with it, and before it is started anew.
    """

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
    kill_tree: Flag = True
    restart: Restart = Restart()
    limits: Limits | None = None
    heartbeat: HeartbeatLimit | None = None
    place: Place | None = field(default=None, metadata={"written": False})

    def digest(self) -> str:
        """Of all that a running process was started with; another digest is another process."""
        parts = (self.command, self.cwd, self.user, self.place, self.log)
        secrets = [(name, secret.digest) for name, secret in self.env]
        return blake2b(repr((parts, secrets)).encode(), digest_size=8).hexdigest()
