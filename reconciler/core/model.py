"""The nouns that every room shares, as plain frozen data.

It must not do input or output, and of this package it imports only digests and records.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from reconciler.base.errors import Remedy
from reconciler.base.records import dataclass, field, names, replace
from reconciler.base.values import Notify, Secret
from reconciler.core.restart_policy import Hold

if TYPE_CHECKING:
    from reconciler.core.policy import PlanPolicy

W = TypeVar("W")
S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Resource(Generic[W]):
    """One thing the spec declares, ready to be observed.

    ``id`` is ``kind:name``. ``want`` is the kind's own dataclass. ``needs`` holds written and
    found needs, ``after`` order only; both name ids. ``skip`` is the ``when`` expression that
    was false, or None. ``held``: why it is left alone, since another one has as good a claim to
    what it is about. ``orphan``: no spec declares it any more, it was found on the host.
    """

    id: str
    want: W
    present: bool = True
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    skip: str | None = None
    held: str | None = None
    orphan: bool = False

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
    ``loop_every`` is in seconds. ``secrets`` are values of the environment that were read for
    it and must be shown to nobody; they are never kept with it. ``files`` are the absolute
    paths of all files that it was made from.
    ``empty`` names the kinds whose section declares nothing. ``last_good``: its files are not
    valid now, and this is what goes on of it as it was compiled last. ``variables`` are those
    that were set to something else than the file says, but for secrets and ``state``. ``metrics``
    is the file that the watchdog writes for Prometheus, ``stop_timeout`` how many seconds it has to
    end all as process 1 of a container.
    """

    name: str
    path: str
    resources: tuple[Resource[Any], ...]
    loop_every: float = 30.0
    complete: bool = True
    secrets: tuple[Secret, ...] = ()
    files: tuple[str, ...] = ()
    empty: tuple[str, ...] = ()
    notify: Notify = Notify()
    last_good: bool = False
    variables: tuple[tuple[str, str], ...] = ()
    metrics: str | None = None
    stop_timeout: float | None = None
    policy: PlanPolicy | None = None


LATE = "ready"
"""What ails of a thing that was not ready in time."""


@dataclass(frozen=True, slots=True)
class Ailment:
    """Something is wrong with a thing that is there, so that it must be started anew.

    ``what`` names it (``memory``), ``words`` tell it to people. It counts once it has lasted for
    ``lasting`` seconds; ``of`` says which one of them ails: another one is counted anew.
    """

    what: str
    words: str
    lasting: float = 0.0
    of: str = ""


@dataclass(frozen=True, slots=True)
class Observation(Generic[S]):
    """Present with a state, absent (no state), or unknown, because …: three different things.

    ``note`` is something worth telling a person that is no drift. ``unsure`` says what could
    not be known beside the state; the state is acted on all the same. ``denied`` says why the
    caller may not change it, where that is known beforehand. ``failing`` says what is wrong that
    no change could fix; it ``demands`` that others, by their ids, are started anew. ``remedy``
    is the command that makes it known. ``more``: one step does only a part, and others follow it
    in the same pass. ``ending`` says what goes on until it is gone, for which others wait.
    ``lives_on`` says what is there of it although it counts as ended. ``pending``: it is there, and
    not ready for those that need it, in words.
    """

    state: S | None = None
    unknown: str | None = None
    note: str | None = None
    unsure: str | None = None
    denied: str | None = None
    ailments: tuple[Ailment, ...] = ()
    failing: str | None = None
    demands: tuple[str, ...] = ()
    remedy: Remedy | None = None
    more: bool = False
    ending: str | None = None
    lives_on: str | None = None
    pending: str | None = None


ABSENT: Observation[Any] = Observation()


def not_known(error: Exception) -> Observation[Any]:
    """What was seen where looking failed."""
    return Observation(unknown=str(error), remedy=getattr(error, "remedy", None))


@dataclass(frozen=True, slots=True)
class Change:
    """One field that differs; ``have`` and ``want`` are JSON values in the user's own words."""

    field: str
    have: Any
    want: Any


def diff(expected: Any, have: Any) -> tuple[Change, ...]:
    """Field by field; a field that ``expected`` leaves None is left alone.

    Present against absent is one change of ``state``, followed by what it would be made with.
    """
    if expected == have:
        return ()
    if expected is None:
        return (Change("state", "present", "absent"),)
    found = [] if have is not None else [Change("state", "absent", "present")]
    for name in names(expected):
        want = getattr(expected, name)
        if want is None:
            continue
        is_now = None if have is None else getattr(have, name)
        if is_now != want:
            found.append(Change(name, is_now, want))
    return tuple(found)


def verb(expected: Any, have: Any) -> str:
    """What to call the step that removes the difference."""
    return "delete" if expected is None else "create" if have is None else "update"


def in_words(changes: Sequence[Change]) -> str:
    """The changes in words, for people: "mode is 0700, should be 0755"."""
    words = []
    for change in changes:
        if change.field == "state" and change.have == "absent":
            return "missing"
        if change.field == "state":
            words.append(f"{change.have}, should be {change.want}")
        elif change.have is None:
            words.append(f"{change.field} should be {change.want}")
        else:
            words.append(f"{change.field} is {change.have}, should be {change.want}")
    return "; ".join(words)


class Action(Protocol):
    """Frozen data that can say what it would do. Actions compare by value.

    Where the kind does not run many at once, each has ``run(host)``, which raises HostError. One
    that takes files away ``takes`` them (``delete`` or ``move``), and ``taken()`` are their paths.
    One that reaches another resource has its id as ``other``.
    """

    def describe(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Step:
    """What would be done about one resource, and why.

    ``denied`` says why the caller may not do it; ``by_hand`` then holds the shell commands for
    somebody who may. ``demanded``: nothing differs, and these have asked for a new start, by
    their ids; ``of`` says which of them ail, empty means that all are meant. ``final`` says why it
    cannot be undone, where somebody has asked that.
    """

    id: str
    verb: str
    changes: tuple[Change, ...]
    actions: Sequence[Action]
    why: str
    needs: tuple[str, ...]
    denied: str | None = None
    by_hand: tuple[Remedy, ...] = ()
    demanded: tuple[str, ...] = ()
    of: tuple[str, ...] = ()
    final: str | None = None


@dataclass(frozen=True, slots=True)
class Past:
    """What a plan must know of earlier passes.

    ``holds`` and ``paused`` (with the reason) are by id. ``lasting`` has the seconds that an
    ailment has lasted, by id, what and of.
    """

    holds: Mapping[str, Hold] = field(default_factory=dict)
    paused: Mapping[str, str] = field(default_factory=dict)
    lasting: Mapping[tuple[str, str, str], float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Remark:
    """Something said about a resource: why it is unknown or skipped, or a note.

    ``gist`` is what stays the same where the figures in it change; empty: all of it. ``remedy``
    is the command that settles it, where there is one.
    """

    id: str
    reason: str
    gist: str = ""
    remedy: Remedy | None = None


_REMARKS = ("unknown", "skipped", "notes", "held", "failing")
"""The fields of a plan that hold remarks."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The difference between spec and host, in the order in which it would be removed.

    ``held`` names what differs and is left for now, and says why: starts of it have failed;
    ``given_up`` are those of them that were tried often enough. ``failing`` names what is wrong
    that no step can fix.
    """

    spec_name: str
    spec_path: str
    host: str
    resources: int
    steps: tuple[Step, ...] = ()
    unknown: tuple[Remark, ...] = ()
    skipped: tuple[Remark, ...] = ()
    notes: tuple[Remark, ...] = ()
    held: tuple[Remark, ...] = ()
    failing: tuple[Remark, ...] = ()
    given_up: tuple[str, ...] = ()

    def without(self, ids: Collection[str]) -> Plan:
        """The plan for all but these ids."""
        left: dict[str, Any] = {
            name: tuple(one for one in getattr(self, name) if one.id not in ids)
            for name in ("steps", *_REMARKS)
        }
        given_up = tuple(ident for ident in self.given_up if ident not in ids)
        return replace(self, given_up=given_up, **left)

    @property
    def trouble(self) -> bool:
        """Is something unknown or failing, or held since starts of it have failed?"""
        return bool(self.unknown or self.held or self.failing)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a step: ``done``, ``failed``, ``skipped``, ``dropped``; time in seconds.

    ``begun``: something that must end first has been asked to, and is not waited for. ``note``
    is what is worth a word although nothing failed. ``lives_on``: see Observation.
    """

    step: Step
    result: str
    error: str | None = None
    seconds: float = 0.0
    note: str | None = None
    lives_on: str | None = None

    @property
    def moved(self) -> bool:
        """Was it, or a part of it, left alone because the host had moved since the plan?"""
        why = self.note if self.error is None else self.error
        return self.result in ("done", "dropped") and why is not None


@dataclass(frozen=True, slots=True)
class Report:
    """A plan and what became of each of its steps."""

    plan: Plan
    outcomes: tuple[Outcome, ...] = ()

    @property
    def failed(self) -> bool:
        """Did something fail, or was it dropped for another reason than that it was done?"""
        return any(
            outcome.result == "failed" or (outcome.result == "dropped" and outcome.error)
            for outcome in self.outcomes
        )

    @property
    def changed(self) -> bool:
        return any(outcome.result == "done" for outcome in self.outcomes)

    @property
    def failed_ids(self) -> set[str]:
        """What has failed, but for what left something alone: it is tried once in a pass."""
        return {one.step.id for one in self.outcomes if one.result == "failed" and not one.moved}

    def without(self, dropped: Collection[str]) -> Report:
        """Without those steps that were dropped and are planned anew."""
        gone = [o.step for o in self.outcomes if o.result == "dropped" and o.step.id in dropped]
        return Report(
            replace(self.plan, steps=tuple(s for s in self.plan.steps if s not in gone)),
            tuple(one for one in self.outcomes if one.step not in gone),
        )

    def followed(self, more: Report, seen: Collection[str]) -> Report:
        """With a shorter pass behind it over what that has ``seen``, of which it knows better."""
        first, second, rest = self.plan, more.plan, self.plan.without(seen)
        joined: dict[str, Any] = {
            name: (*getattr(rest, name), *getattr(second, name)) for name in (*_REMARKS, "given_up")
        }
        plan = replace(first, steps=(*first.steps, *second.steps), **joined)
        return Report(plan, (*self.outcomes, *more.outcomes))
