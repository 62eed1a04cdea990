"""What a user may write about checks, and how it is read. Pure data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from reconciler.base.records import dataclass, field
from reconciler.base.scalars import (
    InvalidScalar,
    integer_parser,
    parse_command,
    parse_name,
    parse_size,
)
from reconciler.core.fields import (
    Command,
    Duration,
    Environment,
    Name,
    Number,
    Parsed,
    Path,
    Patterns,
    Regex,
    integer,
)

_TEMPLATE = r".*\{\{.*\}\}.*"
_STRING: dict[str, Any] = {"type": "string", "minLength": 1}
_STATUS: dict[str, Any] = {"type": "integer", "minimum": 100, "maximum": 599}
_PERCENT = r"([0-9]{1,3}(?:\.[0-9]{1,3})?) ?%"
_status = integer_parser(100, 599)
_port = integer_parser(1, 65535)


def parse_percent(value: object) -> float:
    """``90%`` as 90.0. Raises ValueError."""
    text = parse_name(value)
    match = re.fullmatch(_PERCENT, text)
    if match is None or not 0 < float(match[1]) < 100:
        raise ValueError(f"{text!r} is not a percentage between 0 and 100, such as 90%")
    return float(match[1])


def parse_level(value: object) -> tuple[str, float]:
    """``10%`` as ("%", 10.0), ``5GiB`` as ("B", bytes). Raises ValueError."""
    text = parse_name(value)
    if text.endswith("%"):
        return "%", parse_percent(value)
    try:
        return "B", float(parse_size(value))
    except ValueError:
        raise ValueError(
            f"{text!r} is neither a size, such as 5GiB, nor a percentage, such as 10%"
        ) from None


def parse_address(value: object) -> tuple[str, int]:
    """``localhost:80`` or ``[::1]:80``. Raises ValueError."""
    text = parse_name(value)
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    if not colon or not host or re.search(r"[\s/@\[\]]", host):
        raise ValueError(f"{text!r} is not HOST:PORT, such as localhost:80 or [::1]:80")
    return host, _port(port)


def parse_request(value: object) -> tuple[str, tuple[int, ...]]:
    """A URL, or ``{url, status}``: the URL and the status codes that are right.

    Raises ValueError, which never holds the URL: there may be a secret in it.
    """
    from urllib.parse import urlsplit

    status: object = "200"
    where = ("url",) if isinstance(value, Mapping) else ()
    if isinstance(value, Mapping):
        wrong = sorted(set(value) - {"url", "status"})
        if wrong or "url" not in value:
            words = f"has no field {wrong[0]!r}" if wrong else "needs 'url'"
            raise InvalidScalar(
                f"{words}; write {{url: URL, status: 200}}", tuple(wrong[:1]), key=True
            )
        status = value.get("status", status)
        value = value["url"]
    url = parse_name(value)
    codes = status if isinstance(status, (list, tuple)) else [status]
    if not codes:
        words = "status: is empty; give it a status code or leave it out"
        raise InvalidScalar(words, ("status",))
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = None
    if not usable or not url.isascii() or " " in url:
        raise InvalidScalar(
            "needs a URL that begins with http:// or https:// and names a host", where
        )
    try:
        return url, tuple(_status(code) for code in codes)
    except ValueError as error:
        raise InvalidScalar(f"status: {error}", ("status",)) from None


def parse_reaction(value: object) -> tuple[str, ...]:
    """``restart process:NAME``, ``run CMD`` or ``notify``, or ``{run: CMD}``, ``{restart: NAME}``.

    Gives ("restart", NAME), ("run", argument…) or ("notify",). Raises ValueError.
    """
    given: object
    if isinstance(value, Mapping):
        if len(value) != 1:
            raise ValueError("needs one of 'restart' and 'run', each in an entry of its own")
        (word, given), *_ = value.items()
    else:
        text = parse_name(value).strip()
        word, _, given = text.partition(" ")
    if word == "notify" and not given:
        return ("notify",)
    if word == "run" and given:
        return ("run", *parse_command(given))
    if word == "restart" and given:
        name = parse_name(given).strip()
        if name.startswith("process:") or ":" not in name:
            return "restart", name.removeprefix("process:")
        raise ValueError(f"restart takes a process, not {name!r}")
    raise ValueError(
        "is none of 'restart process:NAME', 'run COMMAND' and 'notify'"
        if word not in ("run", "restart")
        else f"{word} needs {'a command' if word == 'run' else 'a process'}, "
        f"such as {'run systemctl restart x' if word == 'run' else 'restart process:worker'}"
    )


Percent = Annotated[
    float, Parsed(parse_percent, {**_STRING, "pattern": rf"^([0-9.]+ ?%|{_TEMPLATE})$"})
]
Level = Annotated[
    tuple[str, float],
    Parsed(
        parse_level,
        {**_STRING, "pattern": rf"^([0-9.]+ ?%|[0-9.]+([KMGT]i?)?B|{_TEMPLATE})$"},
    ),
]
Address = Annotated[
    tuple[str, int], Parsed(parse_address, {**_STRING, "pattern": rf"^(.+:[0-9]+|{_TEMPLATE})$"})
]
Request = Annotated[
    tuple[str, tuple[int, ...]],
    Parsed(
        parse_request,
        {
            "oneOf": [
                _STRING,
                {
                    "type": "object",
                    "properties": {
                        "url": {**_STRING, "description": "A URL of http or https."},
                        "status": {
                            "description": "The status that it should have, or a list of them.",
                            "anyOf": [
                                _STATUS,
                                {"type": "string", "pattern": _TEMPLATE},
                                {"type": "array", "items": _STATUS, "minItems": 1},
                            ],
                        },
                    },
                    "required": ["url"],
                    "additionalProperties": False,
                },
            ]
        },
        secrets=True,
    ),
]
Reaction = Annotated[
    tuple[str, ...],
    Parsed(
        parse_reaction,
        {
            "oneOf": [
                {"type": "string", "pattern": rf"^((restart|run) +.+|notify|{_TEMPLATE})$"},
                {
                    "type": "object",
                    "properties": {
                        "restart": {**_STRING, "description": "The process resource."},
                        "run": {
                            "oneOf": [_STRING, {"type": "array", "minItems": 1}],
                            "description": "A list of arguments, or a string for sh -c.",
                        },
                    },
                    "minProperties": 1,
                    "maxProperties": 1,
                    "additionalProperties": False,
                },
            ]
        },
        secrets=True,
    ),
]


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
    tcp: Address | None = None
    """HOST:PORT on which somebody listens."""
    http: Request | None = None
    """A URL that answers GET, as it is or with the status that it should have."""
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
        forms = (self.fresh, self.log, self.queue, self.disk)
        found = [form.path for form in forms if form is not None]
        return (*found, self.cwd) if self.cwd is not None else tuple(found)


OF_HOST = ("load", "memory", "swap", "cpu")
FORMS = ("command", "fresh", "log", "queue", "disk", "tcp", "http", *OF_HOST)
"""The forms of a check; it has exactly one."""
