"""The nouns that every room shares, as plain frozen data.

It must not do input or output, and it imports no other module of this package.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from reconciler.host import Host

W = TypeVar("W")
S = TypeVar("S")

Json = Any
"""A value that the json module writes: None, bool, int, float, str, list or dict."""


class HostError(Exception):
    """The host refused or failed; the message says what happened, where, and what to do."""


class UnknownState(HostError):
    """The host could not be asked. Never the same as "absent"."""


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
        return cls(value, hashlib.blake2b(value.encode(), digest_size=8).hexdigest())

    def reveal(self) -> str:
        """The value itself. Raises HostError when this copy of the spec was read without it."""
        if self.value is None:
            raise HostError("a secret value was not loaded; this is a bug in the pass")
        return self.value

    def __repr__(self) -> str:
        return "Secret(…)"


@dataclass(frozen=True, slots=True)
class Facts:
    """What templates may ask about the host and the caller; part of the compiled spec's key."""

    user_name: str
    user_home: str
    user_uid: int
    host_name: str
    systemd: bool
    crontab: bool
    tmux: bool
    state_dir: str


@dataclass(frozen=True, slots=True)
class Key:
    """What a resource owns or uses on the host: ``Key("path", "/srv/x")``."""

    sort: str
    value: str


@dataclass(frozen=True, slots=True)
class Claim:
    """A resource manages ``key``. ``asks`` is what it asks of it, field by field.

    Two resources of one section may not claim the same key; two of different sections may, as
    long as no field of ``asks`` differs. ``asks_below`` is what it asks of every directory
    below a path, where it claims a whole tree.
    """

    key: Key
    asks: Mapping[str, str] = field(default_factory=dict)
    asks_below: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Declared:
    """All that one spec declares, for a kind that must know of others.

    ``wants`` maps ids to what was written, or to None where that is not valid. ``claims`` holds
    those of all present resources that are not skipped, by their key.
    """

    wants: Mapping[str, Any]
    claims: Mapping[Key, Sequence[Claim]]


@dataclass(frozen=True, slots=True)
class Resource(Generic[W]):
    """One thing the spec declares, ready to be observed.

    ``id`` is ``kind:name``. ``want`` is the kind's own dataclass. ``needs`` holds written and
    found needs, ``after`` order only; both name ids. ``skip`` is the ``when`` expression that
    was false, or None.
    """

    id: str
    want: W
    present: bool = True
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    skip: str | None = None

    @property
    def kind(self) -> str:
        return self.id.partition(":")[0]

    @property
    def name(self) -> str:
        return self.id.partition(":")[2]


@dataclass(frozen=True, slots=True)
class Spec:
    """A valid spec. ``resources`` stand in an order that respects needs and ``after``.

    ``complete`` is False when secrets were left out of it (it was read from the compiled file).
    ``loop_every`` is in seconds.
    """

    name: str
    path: str
    resources: tuple[Resource[Any], ...]
    loop_every: float = 30.0
    complete: bool = True


@dataclass(frozen=True, slots=True)
class Observation(Generic[S]):
    """Present with a state, absent (no state), or unknown, because …: three different things.

    ``note`` is something worth telling a person that is no drift.
    """

    state: S | None = None
    unknown: str | None = None
    note: str | None = None


ABSENT: Observation[Any] = Observation()


@dataclass(frozen=True, slots=True)
class Change:
    """One field that differs; ``have`` and ``want`` are JSON values in the user's own words."""

    field: str
    have: Json
    want: Json


class Action(Protocol):
    """Frozen data that can say what it would do, and do it. Actions compare by value."""

    def describe(self) -> str: ...

    def run(self, host: Host) -> None:
        """Do it. Raises HostError."""


@dataclass(frozen=True, slots=True)
class Step:
    """What would be done about one resource, and why."""

    id: str
    verb: str
    changes: tuple[Change, ...]
    actions: tuple[Action, ...]
    why: str
    needs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Remark:
    """Something said about a resource: why it is unknown or skipped, or a note."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The difference between spec and host, in the order in which it would be removed."""

    spec_name: str
    spec_path: str
    host: str
    resources: int
    steps: tuple[Step, ...] = ()
    unknown: tuple[Remark, ...] = ()
    skipped: tuple[Remark, ...] = ()
    notes: tuple[Remark, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a step: ``done``, ``failed``, ``skipped`` or ``dropped``; time in seconds."""

    step: Step
    result: str
    error: str | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Report:
    """A plan and what became of each of its steps."""

    plan: Plan
    outcomes: tuple[Outcome, ...] = ()

    @property
    def failed(self) -> bool:
        return any(outcome.result == "failed" for outcome in self.outcomes)

    @property
    def changed(self) -> bool:
        return any(outcome.result == "done" for outcome in self.outcomes)


class Kind(Generic[W, S]):
    """One section of the spec. A kind is one module in ``kinds/`` with ``KIND = TheKind()``.

    ``W`` is what the user may write, a frozen dataclass; ``S`` is what is seen on the host, a
    frozen dataclass whose fields hold JSON values in the user's words (a mode is ``"0755"``).
    """

    name: ClassVar[str]
    """The id's prefix, which is also the module's name: ``directory``."""
    section: ClassVar[str]
    """The key in the YAML: ``directories``."""
    resource: type[W]
    verbs: ClassVar[tuple[str, str, str]] = ("create", "update", "delete")
    """What to call a step that makes, changes or removes the thing."""
    creates: ClassVar[bool] = True
    """False for a kind that only changes what something else has made."""
    settle: ClassVar[float] = 0.0
    """Seconds that a step must hold before it counts as done."""

    def named(self, want: W, name: str) -> W:
        """``want`` with defaults that follow from the resource's name filled in. Pure."""
        return want

    def linked(self, want: W, declared: Declared) -> W:
        """``want`` with what follows from other resources filled in. Pure.

        It goes into fields whose metadata says ``written: False``, which no user may write.
        Raises ValueError with (field, message).
        """
        return want

    def check(self, want: W) -> Iterable[tuple[str, str]]:
        """Rules across fields that a valid ``want`` may still break: (field, message). Pure."""
        return ()

    def claims(self, want: W) -> Iterable[Claim]:
        """What it manages, for the one-owner rule and for others' found needs. Pure."""
        return ()

    def uses(self, want: W) -> Iterable[Key]:
        """What must be in place before it: a path means its nearest declared ancestor. Pure."""
        return ()

    def expected(self, want: W) -> S:
        """The state wanted; a field that is None is left alone. Pure."""
        raise TypeError(f"kind {self.name} does not say what it expects")

    def observe(self, resources: Sequence[Resource[W]], host: Host) -> Sequence[Observation[S]]:
        """Look at the whole section at once, without changing anything.

        One observation for each resource, in their order. Raises UnknownState when nothing of
        the section can be known.
        """
        raise TypeError(f"kind {self.name} cannot observe")

    def changes(self, expected: S | None, have: S | None) -> tuple[Change, ...]:
        """The fields that differ. Pure."""
        return diff(expected, have)

    def verb(self, expected: S | None, have: S | None) -> str:
        """What to call the step that removes the difference. Pure."""
        create, update, delete = self.verbs
        return delete if expected is None else create if have is None else update

    def evidence(self, resource: Resource[W], host: Host) -> str | None:
        """Why a step may have failed, as the host tells it; for people."""
        return None

    def actions(
        self, resource: Resource[W], have: S | None, changes: Sequence[Change]
    ) -> Sequence[Action]:
        """What removes the changes, in order. Pure."""
        raise TypeError(f"kind {self.name} cannot act")


def diff(expected: Any, have: Any) -> tuple[Change, ...]:
    """Field by field; a field that ``expected`` leaves None is left alone.

    Present against absent is one change of ``state``, followed by what it would be made with.
    """
    if expected == have:
        return ()
    if expected is None:
        return (Change("state", "present", "absent"),)
    found = [] if have is not None else [Change("state", "absent", "present")]
    for entry in fields(expected):
        want = getattr(expected, entry.name)
        if want is None:
            continue
        is_now = None if have is None else getattr(have, entry.name)
        if is_now != want:
            found.append(Change(entry.name, is_now, want))
    return tuple(found)
