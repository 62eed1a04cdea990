"""How a user writes what a process is started with: its log, limits and processors. Pure."""

from __future__ import annotations

import re
from typing import Annotated, Any

from reconciler.base.records import dataclass
from reconciler.base.scalars import (
    InvalidScalar,
    integer_parser,
    parse_mode,
    parse_name,
    parse_size,
)
from reconciler.core.fields import Parsed, Path, Share, Short, Size, integer

RLIMITS = (
    "as", "core", "cpu", "data", "fsize", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss",
    "rtprio", "rttime", "sigpending", "stack",
)  # fmt: skip
"""The limits of setrlimit(2), as limits.conf(5) and Limit…= of systemd.exec(5) have them."""
_NUMBER = r"[0-9]{1,18}"
_MOST_CPUS = 4096
_exit_status = integer_parser(0, 255)


def parse_rlimits(value: object) -> tuple[tuple[str, str], ...]:
    """A mapping of names to ``N``, ``SIZE``, ``unlimited`` or ``SOFT:HARD``; sorted pairs, with
    numbers. Raises ValueError."""
    if not isinstance(value, dict):
        raise ValueError("needs a mapping of names to limits, such as {nofile: 65536, core: 0}")
    found = []
    for name, text in value.items():
        if name not in RLIMITS:
            words = f"has no limit {name!r}; there are {', '.join(RLIMITS)}"
            raise InvalidScalar(words, (name,), near=(name, RLIMITS), key=True)
        try:
            soft, colon, hard = parse_name(text).partition(":")
            pair = _limit(soft), _limit(hard if colon else soft)
        except ValueError as error:
            raise InvalidScalar(f"{name}: {error}", (name,)) from None
        if pair[1] != -1 and (pair[0] == -1 or pair[0] > pair[1]):
            raise InvalidScalar(f"{name}: the soft limit is above the hard one", (name,))
        found.append((str(name), f"{pair[0]}:{pair[1]}"))
    return tuple(sorted(found))


def _limit(text: str) -> int:
    if text in ("unlimited", "infinity"):
        return -1
    try:
        return int(text) if re.fullmatch(_NUMBER, text) else parse_size(text)
    except ValueError:
        words = f"{text!r} is no limit; write a number, a size, unlimited or SOFT:HARD"
        raise ValueError(words) from None


def parse_cpus(value: object) -> str:
    """``0``, ``0-3,6`` or a list of these: the numbers, sorted, with commas. Raises ValueError."""
    words = [parse_name(one) for one in value] if isinstance(value, (list, tuple)) else None
    text = ",".join(words) if words is not None else parse_name(value)
    found: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,4})(?:-([0-9]{1,4}))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last or last >= _MOST_CPUS:
            raise ValueError(f"{text!r} is not a list of processors, such as 0-3,6")
        found.update(range(first, last + 1))
    return ",".join(map(str, sorted(found)))


def parse_status(value: object) -> str:
    """An exit status from 0 to 255, or the name of a signal, as text. Raises ValueError."""
    from signal import Signals

    text = parse_name(value)
    name = f"SIG{text.upper().removeprefix('SIG')}"
    if name in Signals.__members__:
        return name
    try:
        return str(_exit_status(value))
    except ValueError:
        words = f"{text!r} is neither an exit status from 0 to 255 nor a signal, such as TERM"
        raise ValueError(words) from None


def parse_umask(value: object) -> str:
    """Raises ValueError."""
    text = parse_mode(value)
    if int(text, 8) > 0o777:
        raise ValueError(f"{text!r} takes more than permissions away; write three digits")
    return text


_WORD: dict[str, Any] = {"type": ["string", "integer"]}
Rlimits = Annotated[
    tuple[tuple[str, str], ...],
    Parsed(
        parse_rlimits,
        {
            "type": "object",
            "propertyNames": {"enum": list(RLIMITS)},
            "additionalProperties": _WORD,
        },
    ),
]
Processors = Annotated[
    str, Parsed(parse_cpus, {"oneOf": [_WORD, {"type": "array", "items": _WORD, "minItems": 1}]})
]
Status = Annotated[str, Parsed(parse_status, _WORD)]
Umask = Annotated[str, Parsed(parse_umask, {"type": "string", "pattern": "^(0?[0-7]{3}|.*{.*)$"})]


@dataclass(frozen=True, slots=True)
class LogFile:
    """A file to which output goes, with a bound: what is more goes to ``path.1`` and so on."""

    path: Path | None = None
    """The file; by default one in the state directory."""
    max_size: Size | None = 50 << 20
    """What is more is taken out of it, into files of that size."""
    keep: Annotated[int, integer(1, 1000)] = 5
    """How many of these stay."""
    stderr: Path | None = None
    """A second file, for its errors, with the same bound."""


Log = Annotated[LogFile, Short("path", max_size=None)]


@dataclass(frozen=True, slots=True)
class Cgroup:
    """Hard limits for it with all that it starts, which the kernel keeps."""

    memory_max: Size | None = None
    """The most memory; who needs more is killed."""
    cpu_max: Share | None = None
    """The most processor time, in percent of one core."""
    pids_max: Annotated[int, integer(1, 4194304)] | None = None
    """The most processes and threads."""

    @property
    def limits(self) -> tuple[tuple[str, float], ...]:
        """Those that are there, by name."""
        found = ((name, getattr(self, name)) for name in ("memory_max", "cpu_max", "pids_max"))
        return tuple((name, float(one)) for name, one in found if one is not None)
