"""What a user may write about checks. Pure data."""

from __future__ import annotations

from typing import Annotated

from reconciler.base.records import dataclass, field
from reconciler.core.fields import (
    Command,
    Duration,
    Environment,
    Flag,
    Name,
    Number,
    Path,
    Patterns,
    Regex,
    Short,
    Size,
    Socket,
    integer,
)
from reconciler.kinds.check.fields import (
    Address,
    Headers,
    Level,
    Percent,
    Reaction,
    Statuses,
    Url,
    address_or_socket,
)


@dataclass(frozen=True, slots=True)
class Fresh:
    """``path`` was changed within ``max_age``, such as the heartbeat of a process."""

    path: Path
    """A file or directory."""
    max_age: Duration
    """The longest time since it was last changed."""


@dataclass(frozen=True, slots=True)
class Lines:
    """At most ``max`` lines of the log ``path`` match, of those written ``within`` that time."""

    path: Path
    """The log."""
    match: Regex
    """A regular expression; lines in which it is found count."""
    max: Annotated[int, integer(0, 1_000_000)] = 0
    """So many lines may match."""
    within: Duration = 600.0
    """The time that is looked back."""


@dataclass(frozen=True, slots=True)
class Queue:
    """Of the files in the folder ``path`` none waits for too long, or there are not too many."""

    path: Path
    """The folder in which files wait."""
    match: Patterns = ("*",)
    """A glob for their names, or a list of globs."""
    max_age: Duration | None = None
    """The longest time that a file may wait."""
    max_count: Annotated[int, integer(0, 100_000_000)] | None = None
    """The most files that may wait."""


@dataclass(frozen=True, slots=True)
class Disk:
    """The file system of ``path`` has room: a size or a percentage free, or not too much used."""

    path: Path
    """A path on the file system."""
    min_free: Level | None = None
    """A size or a percentage; that much, and that share of the inodes, must be free."""
    max_used: Percent | None = None
    """A percentage; no more of the space and of the inodes may be used."""


@dataclass(frozen=True, slots=True)
class Load:
    """The load of the host is not too high."""

    max: Number
    """The highest average of five minutes."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Enough memory is available, or enough swap is free, or not too much is used."""

    min_free: Level | None = None
    """A size or a percentage that must be free."""
    max_used: Percent | None = None
    """A percentage; no more may be used."""


@dataclass(frozen=True, slots=True)
class Processors:
    """The processors are not too busy."""

    max_used: Percent
    """A percentage; no more may be used during one second."""


@dataclass(frozen=True, slots=True)
class Listener:
    """Somebody takes connections at HOST:PORT, or at a Unix socket; one of the two."""

    address: Address | None = None
    """HOST:PORT on which somebody listens."""
    unix: Socket | None = None
    """The path of a Unix socket."""

    @property
    def asked(self) -> object:
        """What tells it from another question."""
        return self.address if self.unix is None else self.unix


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """``url`` answers GET with the status that it should have, and with the right body."""

    url: Url
    """A URL of http or https."""
    status: Statuses = (200,)
    """The status that it should have, or a list of them."""
    match: Regex | None = None
    """A regular expression that is found in a line of the body, of which 1 MiB is read."""
    headers: Headers = ()
    """Headers of the request."""
    ca_file: Path | None = None
    """A file with the certificates (PEM) that are believed, instead of those of the system."""
    unix: Socket | None = None
    """The path of the Unix socket through which it is asked."""

    @property
    def asked(self) -> object:
        """What tells it from another question."""
        more = self.match, self.ca_file, self.unix
        digests = tuple((name, secret.digest) for name, secret in self.headers)
        plain = self.url, self.status
        return (*plain, *more, digests) if any(more) or digests else plain


@dataclass(frozen=True, slots=True)
class Results:
    """Not too many commands of a command executor have failed ``within`` that time."""

    home: Path
    """The home of the executor."""
    max: Annotated[int, integer(0, 1_000_000)] = 0
    """So many commands may fail."""
    within: Duration = 86400.0
    """The time that is looked back."""


@dataclass(frozen=True, slots=True)
class OwnState:
    """What this program keeps itself does not take too much room."""

    max: Size
    """The most that the state directory may take."""
    path: str = field(default="", metadata={"written": False})


@dataclass(frozen=True, slots=True)
class Check:
    """Exactly one of ``FORMS``, asked ``every`` so often.

    After so many ``failures`` in a row it counts, and what ``on_failure`` says is done.
    """

    command: Command | None = None
    """A list of arguments, or a string for sh -c, that ends with status 0."""
    expect: Regex | None = None
    """A regular expression that is found in a line of the command's output."""
    cwd: Path | None = None
    """The folder in which the command runs."""
    env: Environment = ()
    """Variables of the command's environment."""
    user: Name | None = None
    """Who runs the command; another user needs root."""
    fresh: Fresh | None = None
    """What was changed not too long ago."""
    log: Lines | None = None
    """A log in which not too many lines match."""
    queue: Queue | None = None
    """A folder in which files do not wait too long."""
    disk: Disk | None = None
    """A file system with room."""
    load: Load | None = None
    """The load of the host."""
    memory: Memory | None = None
    """Memory of the host that is available."""
    swap: Memory | None = None
    """Swap of the host that is free; none at all is enough."""
    cpu: Processors | None = None
    """The processors of the host."""
    tcp: Annotated[Listener, Short(address_or_socket)] | None = None
    """HOST:PORT, or the path of a Unix socket, on which somebody listens."""
    http: Annotated[HttpRequest, Short("url")] | None = None
    """A URL that answers GET, as it is or with the status and body that it should have."""
    results: Results | None = None
    """The home of a command executor, of whose commands not too many fail."""
    persistence: Flag | None = None
    """true: something brings this spec back after a reboot."""
    state: OwnState | None = None
    """The room that our own state takes; as a word it is present or absent, as of any resource."""
    every: Duration = 60.0
    """The time from one probe to the next."""
    timeout: Duration = 10.0
    """The longest time that a probe may take."""
    failures: Annotated[int, integer(1, 1000)] = 1
    """So many failures in a row count."""
    on_failure: tuple[Reaction, ...] = ()
    """What is done then: restart process:NAME, run COMMAND, or notify."""
    restarts: tuple[str, ...] = field(default=(), metadata={"written": False})

    @property
    def form(self) -> str:
        """Which of the forms it is."""
        return next((name for name in FORMS if getattr(self, name) is not None), "")

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths that it looks at or stands in."""
        tcp, http, results = self.tcp, self.http, self.results
        found = [one.path for one in (self.fresh, self.log, self.queue, self.disk) if one]
        found += [tcp.unix] if tcp and tcp.unix else []
        found += [path for path in (http.unix, http.ca_file) if path] if http else []
        found += [f"{results.home}/ai_commands/completed"] if results else []
        return (*found, self.cwd) if self.cwd is not None else tuple(found)


FILES = ("fresh", "log", "queue", "disk")
OF_HOST = ("load", "memory", "swap", "cpu")
FORMS = ("command", *FILES, "tcp", "http", *OF_HOST, "results", "persistence", "state")
"""The forms of a check; it has exactly one."""
