"""What is wrong with a process that runs: it uses too much, is too old, or its heart has stopped.

It must not decide what is done about that, nor for how long it may be so.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

from reconciler.base.errors import UnknownState
from reconciler.base.records import dataclass, field
from reconciler.core.fields import Duration, Path, Share, Size, integer
from reconciler.core.model import Ailment
from reconciler.host.processes import look_up
from reconciler.host.walk import sort_of

if TYPE_CHECKING:
    from reconciler.host import Host
    from reconciler.host.processes import Identity
    from reconciler.host.usage import ResourceUsage

_AGAIN = 5.0
"""Seconds after which a loop looks again at a heart that seems to have stopped."""


@dataclass(frozen=True, slots=True)
class Limits:
    """It is restarted when it, with its descendants, was over one of them ``for`` so long.

    ``cpu`` is in percent of one core. It is restarted at once when it is older than ``age``.
    """

    memory: Size | None = None
    """The most memory, without what is shared."""
    cpu: Share | None = None
    """The most processor time, in percent of one core."""
    open_files: Annotated[int, integer(1, 10**9)] | None = None
    """The most open files."""
    threads: Annotated[int, integer(1, 10**9)] | None = None
    """The most threads."""
    age: Duration | None = None
    """It is restarted when it is older."""
    lasting: Duration = field(default=60.0, metadata={"alias": "for"})
    """For how long it must be over a limit."""

    @property
    def used(self) -> frozenset[str]:
        """Those that must be measured."""
        names = ("memory", "cpu", "open_files", "threads")
        return frozenset(name for name in names if getattr(self, name) is not None)


@dataclass(frozen=True, slots=True)
class HeartbeatLimit:
    """``file`` is written again and again; older than ``max_age`` means that the process hangs."""

    file: Path
    """The file that the process writes again and again."""
    max_age: Duration
    """When the file is older, the process hangs."""


@dataclass(frozen=True, slots=True)
class Health:
    """What ails, and what could not be known; ``note`` says what matters less of that."""

    ailments: tuple[Ailment, ...] = ()
    unsure: str | None = None
    note: str | None = None


def health(
    limits: Limits | None,
    heartbeat: HeartbeatLimit | None,
    identities: Sequence[Identity],
    usages: Mapping[Identity, ResourceUsage],
    host: Host,
) -> Health:
    """How they are, each for itself."""
    found: list[Ailment] = []
    unsure: list[str] = []
    notes: list[str] = []
    several = len(identities) > 1

    def ails(identity: Identity, what: str, words: str, lasting: float) -> None:
        words = f"pid {identity.pid} {words}" if several else words
        found.append(Ailment(what, words, lasting, identity.text))

    for identity in identities:
        age = host.processes.age(identity)
        if limits is not None and limits.age is not None and age > limits.age:
            words = f"has run for {_time(age)}, longer than {_time(limits.age)}"
            ails(identity, "age", words, 0.0)
        usage = usages.get(identity)
        if limits is not None and usage is not None:
            over = _over(limits, usage)
            for what, words in over.items():
                ails(identity, what, words, limits.lasting)
            if usage.unread and "open_files" not in over:
                words = f"may not count the open files of pid {_numbers(usage.unread)}"
                (unsure if identity.pid in usage.unread else notes).append(words)
        if heartbeat is not None:
            try:
                words = _stopped(heartbeat, age, host) or ""
            except UnknownState as error:
                if str(error) not in unsure:
                    unsure.append(str(error))
                continue
            if words:
                # A clock that leaps, or a host that has slept, makes every heartbeat look old.
                ails(identity, "heartbeat", words, 0.0 if host.patient else _AGAIN)
    return Health(tuple(found), "; ".join(unsure) or None, "; ".join(notes) or None)


def held(identities: Sequence[Identity]) -> Iterator[Ailment]:
    """Those that a signal has stopped; not those that a debugger has."""
    for identity in identities:
        entry = look_up(identity.pid)
        if entry is not None and entry.identity == identity and entry.state == "T":
            yield Ailment("stopped", "it is stopped (SIGSTOP)", 0.0, identity.text)


def _over(limits: Limits, usage: ResourceUsage) -> dict[str, str]:
    """The limits that it is over, each with words."""
    found = {}
    if limits.memory is not None and usage.memory > limits.memory:
        words = f"uses {_size(usage.memory)}, more than {_size(limits.memory)}"
        found["memory"] = words
    if limits.cpu is not None and usage.cpu is not None and usage.cpu > limits.cpu:
        found["cpu"] = f"uses {usage.cpu:.0f}% of a core, more than {limits.cpu:g}%"
    if limits.open_files is not None and usage.open_files > limits.open_files:
        found["open_files"] = f"has {usage.open_files} open files, more than {limits.open_files}"
    if limits.threads is not None and usage.threads > limits.threads:
        found["threads"] = f"has {usage.threads} threads, more than {limits.threads}"
    return found


def _stopped(heartbeat: HeartbeatLimit, age: float, host: Host) -> str | None:
    """Why it seems to hang; ``age`` is that of the process, which has that time for a first beat.

    Raises UnknownState.
    """
    status = host.files.status(heartbeat.file)
    if status is not None and not stat.S_ISREG(status.st_mode):
        raise UnknownState(f"the heartbeat {heartbeat.file} is {sort_of(status)}, not a file")
    old = age
    if status is not None:
        # In a rehearsal, what beats now goes on beating.
        old = host.walltime.age(heartbeat.file, status.st_mtime) - host.clock.ahead
        old = min(age, old)
    if old <= heartbeat.max_age:
        return None
    limit = f"longer than {_time(heartbeat.max_age)}"
    if status is None:
        return f"has run for {_time(age)} without a heartbeat {heartbeat.file}, {limit}"
    if status.st_mtime > host.clock.wall():
        return f"its heartbeat {heartbeat.file} has a time in the future, which does not change"
    return f"has had no heartbeat for {_time(old)}, {limit}"


def _numbers(pids: Sequence[int]) -> str:
    more = f" and {len(pids) - 3} more" if len(pids) > 3 else ""
    return ", ".join(map(str, pids[:3])) + more


def _size(size: int) -> str:
    for unit, word in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size >= unit:
            return f"{size / unit:.1f}".removesuffix(".0") + f" {word}"
    return f"{size} B"


def _time(seconds: float) -> str:
    for size, word in ((86400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {word}"
    return f"{seconds:.3g} s"
