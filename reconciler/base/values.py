"""Values that a look at the host takes and gives. Plain data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from reconciler.base.digests import blake2b
from reconciler.base.errors import HostError
from reconciler.base.records import dataclass, leaves


@dataclass(frozen=True, slots=True)
class Secret:
    """A value that may be handed to a process and to nobody else.

    ``value`` is None when it was left out of the compiled spec on disk; ``digest`` is always
    there, so that a change of the value is seen without the value.
    """

    value: str | None
    digest: str

    @classmethod
    def of(cls, value: str) -> Secret:
        return cls(value, blake2b(value.encode(), digest_size=8).hexdigest())

    def reveal(self) -> str:
        """The value itself. Raises HostError when this copy of the spec was read without it."""
        if self.value is None:
            raise HostError("a secret value was not loaded; this is a bug in the pass")
        return self.value

    def __repr__(self) -> str:
        return "Secret(…)"


def secrets(value: Any) -> Iterator[Secret]:
    """Every secret in a record, however deep."""
    return (one for one in leaves(value, Secret) if isinstance(one, Secret))


def strings(value: Any) -> Iterator[str]:
    """Every text in a record, however deep, but for what is secret."""
    return (one for one in leaves(value, Secret) if isinstance(one, str))


class Remembered(str):
    """The value of a variable from an earlier pass; the spec need not have it any more."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Facts:
    """What templates may ask about the host and the caller; part of the compiled spec's key.

    ``linger``: does systemd run the caller's own units from boot on? ``container``: is process 1
    a watchdog?
    ``bin`` is the folder where this program's own commands are installed, and ``bin_refused`` why
    root must not have it run again later, if so. ``trust`` are the options ``--trust``.
    """

    user_name: str
    user_home: str
    user_uid: int
    host_name: str
    systemd: bool
    crontab: bool
    tmux: bool
    state_dir: str
    bin: str = ""
    bin_refused: str = ""
    trust: tuple[str, ...] = ()
    linger: bool = False
    container: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a probe says: is it well? ``words`` tell people why."""

    ok: bool
    words: str


@dataclass(frozen=True, slots=True)
class ProbeHistory:
    """What the probes of a check have said last.

    ``version`` is that of what was asked. ``result`` is ``ok``, ``failing``, or ``shaky``: not
    well, but not often enough in a row. ``failures`` are those in a row since something was done
    about it, which was ``acted`` times. ``since`` and ``wall`` are in seconds since the epoch:
    since when it is so, and when it was asked last; ``age`` is how long ago that was, in seconds,
    None: before this boot. The last probe took ``seconds``.
    """

    version: str
    result: str
    failures: int
    acted: int
    reason: str
    since: float
    wall: float
    age: float | None = None
    seconds: float = 0.0


def due_in(said: ProbeHistory | None, version: str, every: float, wall: float) -> float:
    """Seconds until it is to be asked again; 0 for now. No I/O.

    By the monotonic clock. What was said before this boot has no age by it; there the wall
    clock must do, and where that was set back, it is due.
    """
    if said is None or said.version != version:
        return 0.0
    age = said.age if said.age is not None else wall - said.wall
    return max(0.0, every - age) if age >= 0 else 0.0


@dataclass(frozen=True, slots=True)
class Target:
    """Somebody who is told of the events in ``on``.

    Where, stands in ``url`` or in the file ``url_file``; a url that is empty switches it off.
    ``written_in`` is the file of the spec in which the url stands, unless it comes from outside.
    """

    name: str
    on: tuple[str, ...] = ("failed", "gave_up", "recovered", "report")
    url: Secret | None = None
    url_file: str | None = None
    written_in: str | None = None

    @property
    def secret_file(self) -> str | None:
        """The file that nobody else should be able to read."""
        return self.url_file or self.written_in


@dataclass(frozen=True, slots=True)
class Alive:
    """A service elsewhere that is told, once in ``every`` seconds, that passes come to their end.

    Its URL stands in ``url_file``.
    """

    url_file: str
    every: float

    @property
    def target(self) -> Target:
        """It is looked after like the others, but gets no messages."""
        return Target("alive", (), url_file=self.url_file)


@dataclass(frozen=True, slots=True)
class Notify:
    """Who is told of what, and when.

    ``remind_every`` is in seconds, ``quiet`` holds two times of the local day in minutes.
    ``report_every`` are the periods that are summed up, in seconds, the shortest first.
    """

    targets: tuple[Target, ...] = ()
    remind_every: float | None = None
    quiet: tuple[int, int] | None = None
    title: str | None = None
    report_every: tuple[float, ...] = ()
    alive: Alive | None = None

    @property
    def addressed(self) -> tuple[Target, ...]:
        """All that have a URL."""
        return (*self.targets, self.alive.target) if self.alive is not None else self.targets
