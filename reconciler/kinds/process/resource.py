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
    Parsed,
    Path,
    Regex,
    Short,
    choice,
    integer,
)
from reconciler.host.launch import STREAMS
from reconciler.kinds.check.fields import address_or_socket
from reconciler.kinds.check.resource import Fresh, HttpRequest, Listener
from reconciler.kinds.process.actions import Place
from reconciler.kinds.process.limits import HeartbeatLimit, Limits
from reconciler.kinds.process.surroundings import Cgroup, Log, Processors, Rlimits, Status, Umask

READY_FORMS = ("tcp", "http", "fresh", "log", "command", "notify")
"""What says that a process is ready."""


def parse_notify(value: object) -> bool:
    """``notify`` or ``true``. Raises ValueError."""
    if value not in ("notify", "true"):
        words = f"{value!r} does not say when it is ready; write notify, or one of "
        raise ValueError(f"{words}{', '.join(READY_FORMS[:-1])} with its fields")
    return True


@dataclass(frozen=True, slots=True)
class Match:
    """How a process that we did not start is known: exactly one of the first three."""

    cmdline: Regex | None = None
    """A regular expression that is found in its arguments, joined by blanks."""
    exe: Path | None = None
    """Its program."""
    pidfile: Path | None = None
    """A file that holds its process id."""
    user: Name | None = None
    """Who runs it."""


@dataclass(frozen=True, slots=True)
class Stop:
    """``signal`` to the process and what it has started, then KILL after ``timeout`` seconds."""

    signal: Name = "TERM"
    """The signal that is sent first, to the process and to what it has started."""
    timeout: Duration = 10.0
    """The time until KILL is sent."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """The pauses between attempts, from ``initial`` by ``factor`` to ``max``, in seconds."""

    initial: Duration = 1.0
    """The pause after the first attempt."""
    factor: Number = 2.0
    """By which each pause is longer than the one before."""
    max: Duration = 300.0
    """The longest pause."""


@dataclass(frozen=True, slots=True)
class Restart:
    """After so many failed ``attempts`` it is given up, and tried every ``retry_every`` seconds.

    An attempt counts no more when it has run for ``healthy_after`` seconds.
    """

    when: Annotated[str, choice("always", "on_failure", "never")] = "always"
    """When it is started again: always, after a failure, or never, so that it runs once."""
    success: tuple[Status, ...] = ("0",)
    """The exit statuses, and the signals, with which it has ended as it should."""
    attempts: Annotated[int, integer(1, 1000)] = 10
    """So many failed attempts until it is given up."""
    backoff: Backoff = Backoff()
    """The pauses between attempts."""
    healthy_after: Duration = 60.0
    """When it has run for so long, earlier attempts no longer count."""
    retry_every: Duration = 900.0
    """How often it is tried after it was given up."""


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of a log in which a regular expression is found, written since the start."""

    match: Regex
    """The regular expression."""
    path: Path | None = None
    """The log; by default that of the process."""


@dataclass(frozen=True, slots=True)
class Ready:
    """When it is ready: exactly one of these, within ``timeout``. Those that need it wait."""

    tcp: Annotated[Listener, Short(address_or_socket)] | None = None
    """HOST:PORT, or the path of a Unix socket, on which it takes connections."""
    http: Annotated[HttpRequest, Short("url")] | None = None
    """A URL that answers GET as it should."""
    fresh: Fresh | None = None
    """A file that it has changed not too long ago."""
    log: Annotated[LogLine, Short("match")] | None = None
    """A line of its log in which a regular expression is found."""
    command: Command | None = None
    """A command, run as it is, that ends with status 0."""
    notify: Annotated[bool, Parsed(parse_notify, {"enum": [True, "notify"]})] | None = None
    """It says READY=1 on $NOTIFY_SOCKET, as sd_notify(3) does."""
    timeout: Duration = 30.0
    """A start that is not ready within that time has failed."""

    @property
    def forms(self) -> list[str]:
        """Those that are there."""
        return [name for name in READY_FORMS if getattr(self, name) is not None]


@dataclass(frozen=True, slots=True)
class Rolling:
    """Its instances are restarted one after the other, each ready before the next."""

    at_once: Annotated[int, integer(1, 1000)] = 1
    """So many at the same time."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process that must run: in a window of ``session``, or as a daemon that writes ``log``.
    Unless ``kill_tree`` is false, what it has started ends with it, and before it is started anew.
    """

    command: Command
    """A list of arguments, or a string for sh -c."""
    cwd: Path | None = None
    """Its folder; by default the home of its user."""
    env: Environment = ()
    """Variables of its environment."""
    env_file: Path | None = None
    """A file of variables, as EnvironmentFile of systemd, read whenever it is started."""
    secret: tuple[Name, ...] = ()
    """Those variables of env whose values are shown nowhere."""
    user: Name | None = None
    """Who runs it; another user needs root."""
    group: Name | None = None
    """The group that it has in place of its user's own; another one needs root."""
    umask: Umask | None = None
    """The permissions that new files of it do not get; by default 022."""
    nice: Annotated[int, integer(-20, 19)] | None = None
    """Its nice value."""
    rlimits: Rlimits = ()
    """Limits of setrlimit(2): a number, a size, unlimited, or SOFT:HARD."""
    cpus: Processors | None = None
    """The processors that it may use, such as 0-3,6."""
    oom_score_adj: Annotated[int, integer(-1000, 1000)] | None = None
    """How early the kernel ends it when memory is short; -1000 is never."""
    cgroup: Cgroup | None = None
    """Hard limits that the kernel keeps, for it with all that it starts."""
    instances: Annotated[int, integer(1, 1000)] = 1
    """How many of them run."""
    rolling: Rolling | None = None
    """They are restarted one after the other, and not all at once."""
    session: Name | None = None
    """The session resource in which it gets a window; without it, it is a daemon."""
    log: Log | None = None
    """The file to which a daemon's output goes: its path, or with a bound."""
    stderr: Path | None = None
    """A second file, for a daemon's errors."""
    match: Match | None = None
    """How one is known that was not started here, so that it is adopted."""
    stop: Stop = Stop()
    """How it is stopped."""
    stop_extra: Flag = False
    """Of more than instances, the younger ones are stopped."""
    kill_tree: Flag = True
    """All that came of a start ends with it."""
    ready: Annotated[Ready, Short("notify")] | None = None
    """When it is ready, for which those wait that need it; by default as soon as it runs."""
    restart: Restart = Restart()
    """How often, and with which pauses, a start is tried."""
    limits: Limits | None = None
    """It is restarted when it uses more than that."""
    heartbeat: HeartbeatLimit | None = None
    """It is restarted when a file was not written for too long."""
    place: Place | None = field(default=None, metadata={"written": False})

    @property
    def log_path(self) -> str | None:
        """The declared log."""
        return self.log.path if self.log is not None else None

    @property
    def error_path(self) -> str | None:
        """The declared log of its errors."""
        return self.stderr or (self.log.stderr if self.log is not None else None)

    @property
    def logs(self) -> tuple[str, ...]:
        """The declared paths of its logs that are files."""
        paths = (self.log_path, self.error_path)
        return tuple(path for path in paths if path and path not in STREAMS)

    @property
    def unexpanded(self) -> str | None:
        """A note on a word of its command that would mean a home to a shell alone."""
        words = self.command if self.command[1:2] != ("-c",) else ()
        word = next((one for one in words if one.startswith("~/")), None)
        home = '"{{ user.home }}'
        return word and f'no shell reads {word} of its command; write {home}{word[1:]}"'

    @property
    def looks_briefly(self) -> bool:
        """Is it known by our own record and the number of its process alone, and has no log of it a
        bound? A look at it starts nothing then, and cannot hang."""
        others = (
            self.place, self.match, self.user, self.env_file, self.limits, self.heartbeat,
            self.ready, self.rolling, self.log and self.log.max_size,
        )  # fmt: skip
        return self.restart.when == "always" and all(one is None for one in others)

    @property
    def settings(self) -> tuple[tuple[str, str], ...]:
        """What it has otherwise than process 1."""
        found = (
            ("umask", self.umask), ("nice", self.nice),
            ("oom_score_adj", self.oom_score_adj), ("cpus", self.cpus),
        )  # fmt: skip
        return (*[(name, str(one)) for name, one in found if one is not None], *self.rlimits)

    def digest(self) -> str:
        """Of all that a running process was started with; another digest is another process."""
        parts = (self.command, self.cwd, self.user, self.place, self.log_path)
        # As older versions have it: what they have started is no other process.
        notifies = self.ready is not None and bool(self.ready.notify)
        limits = self.cgroup.limits if self.cgroup is not None else ()
        more = (self.settings, self.group, self.env_file, self.error_path, notifies, limits)
        secrets = [(name, secret.digest) for name, secret in self.env]
        all_of_it = (parts, secrets, more) if any(more) else (parts, secrets)
        return blake2b(repr(all_of_it).encode(), digest_size=8).hexdigest()
