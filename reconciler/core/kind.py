"""What a kind of resource must be able to say and do; plan and apply know kinds by this alone.

It must not name a kind, nor look at the host.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol

from reconciler.base.errors import Remedy
from reconciler.base.records import dataclass, names
from reconciler.base.values import Verdict
from reconciler.core.model import (
    Action,
    Change,
    Claim,
    Declared,
    Json,
    Key,
    Observation,
    Resource,
    S,
    W,
)
from reconciler.core.restart_policy import Policy

if TYPE_CHECKING:
    from reconciler.host import Host
    from reconciler.host.processes import Identity


@dataclass(frozen=True, slots=True)
class Value:
    """What a ``{{ … }}`` of a template gave, and the line of the template where it stands.

    ``raw``: it is to be put in as it is, without escaping.
    """

    value: Json
    raw: bool
    line: int


@dataclass(frozen=True, slots=True)
class Rendered:
    """A template with its values, which are not yet text: how they are escaped is for the kind.

    ``secret``: some value is one of the environment, which must not be shown.
    """

    pieces: tuple[str | Value, ...]
    secret: bool


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How a thing is probed beside the passes: ``every`` so many seconds, for ``timeout`` at most.

    So many ``failures`` in a row count. ``acts``: something is then done about it by a step.
    ``user`` is whose program is run, empty for the caller and for what runs none.
    """

    every: float
    timeout: float
    failures: int
    acts: bool
    user: str = ""


class Refused(ValueError):
    """A kind refuses what a template gave.

    ``line`` is one of the template that ``field`` names or holds, None is the field itself.
    """

    def __init__(self, field: str, line: int | None, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.line = line


class Templates(Protocol):
    """Renders the templates of one resource.

    A field of the resource is one by its metadata: ``template: "text"`` holds a template
    itself, ``template: "file"`` the name of one, ``template: "values"`` further values for both.
    The first and the last reach the kind as they were written.
    """

    spec: str
    """The name of the spec."""
    id: str
    """The resource's id."""

    def render(self, field: str) -> Rendered:
        """What the template in that field gives."""


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
    one_of: ClassVar[tuple[str, ...]] = ()
    """Fields of which each resource has exactly one; ``check`` sees to it."""
    trails: ClassVar[bool] = False
    """Is it about what others make, so that it is looked at again when something was made?"""
    settle: ClassVar[float] = 0.0
    """Seconds that a step must hold before it counts as done."""
    together: ClassVar[bool] = False
    """Are the steps of this kind that follow one another done as one, stage by stage?"""

    apart: ClassVar[bool] = False
    """Have the actions of a step nothing to do with one another? Then all are tried, and each
    looks by itself whether it still is about what was seen."""

    entire: ClassVar[bool] = False
    """Does what is seen of one depend on the others of its kind? Then all are looked at."""

    persists: ClassVar[bool] = False
    """Is it there so that all the rest comes back after a reboot?"""
    by_age: ClassVar[bool] = False
    """Does it go by the age of files, so that the wall clock matters?"""

    def named(self, want: W, name: str) -> W:
        """``want`` with defaults that follow from the resource's name filled in. Pure."""
        return want

    def linked(self, want: W, declared: Declared) -> W:
        """``want`` with what follows from other resources filled in. Pure.

        It goes into fields whose metadata says ``written: False``, which no user may write.
        Raises ValueError with (field, message).
        """
        return want

    def rendered(self, want: W, templates: Templates) -> W:
        """``want`` with what its templates give filled in. Pure; not asked of an absent one.

        It goes into fields whose metadata says ``written: False``. Raises Refused.
        """
        return want

    def check(self, want: W) -> Iterable[tuple[str, str]]:
        """Rules across fields that a valid ``want`` may still break: (field, message). Pure."""
        return ()

    def disputed(self, want: W) -> Iterable[tuple[str, str]]:
        """What is wrong with it but was taken once: (field, message). Pure.

        Asked of what is linked. ``--check`` refuses it; elsewhere it is left alone, as unknown,
        so that the others of a spec that is in use go on.
        """
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

    def begin(self, resources: Sequence[Resource[W]], host: Host) -> None:
        """Begin what takes its time in looking at them, so that all kinds wait at once.

        Read only, and it need not do anything. What goes wrong is told by ``observe``.
        """

    def observe(self, resources: Sequence[Resource[W]], host: Host) -> Sequence[Observation[S]]:
        """Look at the whole section at once, without changing anything.

        One observation for each resource, in their order. Raises UnknownState when nothing of
        the section can be known.
        """
        raise TypeError(f"kind {self.name} cannot observe")

    def orphans(self, resources: Sequence[Resource[W]], host: Host) -> Sequence[Resource[W]]:
        """What is ours on the host and declared no more, as absent resources. Read only.

        ``resources`` are all of this kind, the skipped ones too: what they have made is left.
        Raises UnknownState.
        """
        return ()

    def changes(self, expected: S | None, have: S | None) -> tuple[Change, ...]:
        """The fields that differ. Pure."""
        return diff(expected, have)

    def verb(self, expected: S | None, have: S | None) -> str:
        """What to call the step that removes the difference. Pure."""
        create, update, delete = self.verbs
        return delete if expected is None else create if have is None else update

    def words(self, changes: Sequence[Change]) -> str:
        """The changes in words, for people: "mode is 0700, should be 0755". Pure."""
        return in_words(changes)

    def stages(self, actions: Sequence[Action]) -> Sequence[Sequence[Action]]:
        """The actions of one step, parted into stages. Pure; see ``together``."""
        return (actions,)

    def run_all(self, actions: Sequence[Action], host: Host) -> Sequence[Exception | None]:
        """Run actions of different steps, none of which needs another; an outcome for each."""
        return [_outcome(action, host) for action in actions]

    def stale(self, planned: Sequence[Action], now: Sequence[Action]) -> bool:
        """Has the host moved so far since the plan that its step must not be done? Pure."""
        return tuple(planned) != tuple(now)

    def left(
        self, planned: Sequence[Action], expected: S | None, have: S | None
    ) -> tuple[Change, ...]:
        """What is still wrong after the planned actions were done. Pure."""
        return self.changes(expected, have)

    def rest(self, want: W, actions: Sequence[Action]) -> W | None:
        """What it may still do in the same pass behind these actions; None: nothing. Pure.

        It is asked of what goes ``by_age``.
        """
        return want

    def freed(self, actions: Sequence[Action]) -> int | None:
        """The bytes that these have freed, after they were done; None: it is not about that."""
        return None

    def touched(self, have: S) -> Iterable[tuple[str, bool]]:
        """The paths that differ, and whether each is a directory, where it is about many. Pure."""
        return ()

    def by_hand(
        self, resource: Resource[W], have: S | None, changes: Sequence[Change]
    ) -> Sequence[Remedy]:
        """Shell commands that do what ``actions`` would, for somebody who has the rights. Pure."""
        return ()

    def policy(self, want: W) -> Policy | None:
        """How often, and with which pauses, a start is tried; None: at every pass. Pure."""
        return None

    def version(self, want: W) -> str:
        """Of what is started; attempts with another one do not count. Pure."""
        return ""

    def evidence(self, resource: Resource[W], host: Host) -> str | None:
        """Why a step may have failed, as the host tells it; for people."""
        return None

    def shows(self, resource: Resource[W], host: Host) -> Iterable[Key]:
        """What a diagnosis should look into. Pure, but for the places that ``host`` names.

        ``log`` is a file, ``logs`` and ``queue`` are a folder and a shell pattern of its files
        (``/srv/in/*.json``), ``folder`` is one whose files are counted.
        """
        return ()

    def watch(self, resource: Resource[W], have: S | None, host: Host) -> Iterable[Identity]:
        """The processes whose end should wake the loop before its next pass. Read only.

        ``have`` was seen in this pass, or None. Raises UnknownState.
        """
        return ()

    def again(self, resource: Resource[W], have: S, of: Collection[str]) -> Sequence[Action]:
        """What starts it anew, although nothing differs: it ails, or a check asks for it. Pure.

        ``of`` says which of them, as ailments do; empty: all.
        """
        return ()

    def ends(self, resource: Resource[W], have: S, of: Collection[str]) -> Sequence[Action]:
        """What ends these of it, as ``again`` does before it starts others. Pure."""
        return ()

    def rhythm(self, want: W) -> Rhythm | None:
        """How it is probed, if it is; a pass then sees what was said (host.said). Pure."""
        return None

    def probe(self, resource: Resource[W], host: Host, parent: int) -> Verdict:
        """Ask now. Only in a child of its own, of the process ``parent``; it may block.

        Never raises for the host: what cannot be known is not well.
        """
        raise TypeError(f"kind {self.name} is not probed")

    def inspect(self, want: W) -> Remedy | None:
        """The shell command with which a person looks into it, where no pass mends it. Pure."""
        return None

    def spared(self, actions: Sequence[Action]) -> tuple[str | None, bool]:
        """What these left alone when they were run, in words, and whether that was all. Pure."""
        return None, False

    def awaits(self, resource: Resource[W], actions: Sequence[Action], host: Host) -> str | None:
        """Ask what must end before these actions to end, where that is not waited for.

        In words what is still to end; None: they can be done now. Raises HostError.
        """
        return None

    def actions(
        self, resource: Resource[W], have: S | None, changes: Sequence[Change]
    ) -> Sequence[Action]:
        """What removes the changes, in order. Pure."""
        raise TypeError(f"kind {self.name} cannot act")


def _outcome(action: Action, host: Host) -> Exception | None:
    try:
        action.run(host)
    except Exception as error:
        return error
    return None


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


def in_words(changes: Sequence[Change]) -> str:
    """The changes in words, for people: "mode is 0700, should be 0755"."""
    words = []
    for change in changes:
        if change.field == "state" and change.have == "absent":
            return "it is absent"
        if change.field == "state":
            words.append(f"it is {change.have}, should be {change.want}")
        elif change.have is None:
            words.append(f"{change.field} should be {change.want}")
        else:
            words.append(f"{change.field} is {change.have}, should be {change.want}")
    return "; ".join(words)


GetKind = Callable[[str], Kind[Any, Any]]
"""The registry: a kind by its name."""
