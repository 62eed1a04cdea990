"""What a kind of resource must be able to say and do; plan and apply know kinds by this alone.

Every kind is a ``Kind``. What only some need is a class of its own below, which such a kind
inherits as well, and which the core asks for with ``isinstance``. It must not name a kind, nor
look at the host.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic

from reconciler.base.errors import HostError, Remedy
from reconciler.base.records import dataclass
from reconciler.base.values import Verdict
from reconciler.core.claims import Claim, Declarations, Key
from reconciler.core.model import (
    ABSENT,
    Action,
    Change,
    Observation,
    Resource,
    S,
    W,
    diff,
    in_words,
    verb,
)
from reconciler.core.restart_policy import Policy

if TYPE_CHECKING:
    from reconciler.core.templating import Templates
    from reconciler.host import Host
    from reconciler.host.processes import Identity


class Kind(Generic[W, S]):
    """One section of the spec. A kind is one module in ``kinds/`` with ``KIND = TheKind()``.

    ``W`` is what the user may write, a frozen dataclass; ``S`` is what is seen on the host, a
    frozen dataclass whose fields hold JSON values in the user's words (a mode is ``"0755"``).
    """

    section: ClassVar[str]
    """The key in the YAML: ``directories``."""
    resource: type[W]

    @property
    def name(self) -> str:
        """The id's prefix, which is also the module's name: ``directory``."""
        return self.resource.__name__.lower()

    def check(self, want: W) -> Iterable[tuple[str, str]]:
        """Rules across fields that a valid ``want`` may still break: (field, message). Pure."""
        return ()

    def uses(self, want: W) -> Iterable[Key]:
        """What must be in place before it: a path means its nearest declared ancestor. Pure."""
        return ()

    def claims(self, want: W) -> Iterable[Claim]:
        """What it manages, for the one-owner rule and for others' found needs. Pure."""
        return ()

    def expected(self, want: W) -> S:
        """The state wanted; a field that is None is left alone. Pure."""
        raise NotImplementedError

    def observe(self, resources: Sequence[Resource[W]], host: Host) -> Sequence[Observation[S]]:
        """Look at the whole section at once, without changing anything.

        One observation for each resource, in their order. Raises UnknownState when nothing of
        the section can be known.
        """
        raise NotImplementedError

    def changes(self, expected: S | None, have: S | None) -> tuple[Change, ...]:
        """The fields that differ. Pure."""
        return diff(expected, have)

    def actions(
        self, resource: Resource[W], have: S | None, changes: Sequence[Change]
    ) -> Sequence[Action]:
        """What removes the changes, in order. Pure."""
        raise NotImplementedError


GetKind = Callable[[str], Kind[Any, Any]]
"""The registry: a kind by its name."""


# -- what the configuration asks for


class Completed:
    """Fields of it follow from its name or from other resources.

    What others give goes into fields whose metadata says ``written: False``, which no user may
    write.
    """

    def named(self, want: Any, name: str) -> Any:
        """``want`` with what follows from the resource's name. Pure."""
        return want

    def linked(self, want: Any, declared: Declarations) -> Any:
        """``want`` with what follows from others. Pure. Raises ValueError with (field, message)."""
        return want

    def disputed(self, want: Any) -> Iterable[tuple[str, str]]:
        """What is wrong with it but was once accepted: (field, message). Pure.

        Asked of what is linked. ``--check`` refuses it; elsewhere it is left alone, as unknown,
        so that the others of a spec that is in use go on.
        """
        return ()


class Templated:
    """Some of its fields are templates."""

    def rendered(self, want: Any, templates: Templates) -> Any:
        """``want`` with what they give. Pure; not asked of an absent one.

        It goes into fields whose metadata says ``written: False``. Raises BadValue.
        """
        raise NotImplementedError


class Persistent:
    """It brings all the rest back after a reboot."""


# -- what plan and apply ask for


class Described:
    """Its steps are described in words of its own."""

    def verb(self, expected: Any, have: Any) -> str:
        """What to call the step that removes the difference. Pure."""
        return verb(expected, have)

    def words(self, changes: Sequence[Change]) -> str:
        """The changes in words, for people: "mode is 0700, should be 0755". Pure."""
        return in_words(changes)

    def by_hand(
        self, resource: Resource[Any], have: Any, changes: Sequence[Change]
    ) -> Sequence[Remedy]:
        """Shell commands that do what ``actions`` would, for somebody who has the rights. Pure."""
        return ()


class Verified:
    """What a later look means for its step is not only whether something differs."""

    def stale(self, planned: Sequence[Action], now: Sequence[Action]) -> bool:
        """Has the host moved so far since the plan that the step must not be done? Pure."""
        return tuple(planned) != tuple(now)

    def left(self, planned: Sequence[Action], found: Sequence[Change], have: Any) -> Any:
        """Of what is ``found`` to differ after the step, the changes it should have made. Pure."""
        return found

    def spared(self, actions: Sequence[Action]) -> tuple[str | None, bool]:
        """What these left alone when they were run, in words, and whether that was all. Pure."""
        return None, False


class Modifying:
    """It changes what something else has made, and makes nothing itself."""


class Following(Modifying):
    """It sets what others make, so it is looked at again when something was made.

    Its actions have nothing to do with one another: all are tried, and each looks by itself
    whether it still is about what was seen.
    """

    def touched(self, have: Any) -> Iterable[tuple[str, bool]]:
        """The paths that differ, and whether each is a directory, where it is about many. Pure."""
        return ()


class Ageing(Modifying):
    """It goes by the age of files, so that the wall clock matters."""

    def looks_itself(self, want: Any) -> bool:
        """Does a file's own age alone decide, so that no look before and after is needed? Pure."""
        return False

    def rest(self, want: Any, actions: Sequence[Action]) -> Any:
        """What it may still do in the same pass behind these actions; None: nothing. Pure."""
        return want

    def freed(self, actions: Sequence[Action]) -> int | None:
        """The bytes that these have freed, after they were done. Pure."""
        return None


def run_one(action: Any, host: Host) -> Exception | None:
    """Run it; what went wrong."""
    try:
        action.run(host)
    except Exception as error:
        return error
    return None


class Batched:
    """Its steps that follow one another are done as one, stage by stage."""

    together: ClassVar[bool] = False
    """Are all actions of a stage done at once? Else the first ones are before the second ones."""

    def stages(self, actions: Sequence[Action]) -> Sequence[Sequence[Action]]:
        """The actions of one step, parted into stages. Pure."""
        return (actions,)

    def run_all(self, actions: Sequence[Action], host: Host) -> Sequence[Exception | None]:
        """Run actions of different steps, none of which needs another; an outcome for each."""
        return [run_one(action, host) for action in actions]


class Running:
    """It runs, and may end. A step about it must hold for ``settle`` seconds to count as done."""

    settle: ClassVar[float] = 0.0

    def ended(self, want: Any) -> Observation[Any]:
        """What is seen once it, or one of several, was killed. Pure."""
        return ABSENT

    def watch(self, resource: Resource[Any], have: Any, host: Host) -> Iterable[Identity]:
        """The processes whose end should wake the loop before its next pass. Read only.

        ``have`` was seen in this pass, or None. Raises UnknownState.
        """
        return ()


class Supervised(Running):
    """It is started again whenever it ends, by a restart policy."""

    def policy(self, want: Any) -> Policy:
        """How often, and with which pauses, a start is tried. Pure."""
        raise NotImplementedError

    def version(self, want: Any) -> str:
        """Of what is started; attempts with another one do not count. Pure."""
        raise NotImplementedError

    def renews(self, changes: Sequence[Change]) -> bool:
        """Is it only another version, so that nothing has failed that was started? Pure."""
        return False

    def ends(self, resource: Resource[Any], have: Any, of: Collection[str]) -> Sequence[Action]:
        """What ends these of it, as ``restart`` does before it starts others. Pure."""
        raise NotImplementedError

    def restart(self, resource: Resource[Any], have: Any, of: Collection[str]) -> Sequence[Action]:
        """What restarts it although nothing differs: it is unhealthy, or a check asks. Pure.

        ``of`` says which of them, as ailments do; empty: all.
        """
        raise NotImplementedError

    def awaits(
        self, steps: Sequence[tuple[Resource[Any], Sequence[Action]]], host: Host
    ) -> Sequence[str | HostError | None]:
        """Ask what must end before these actions to end, where that is not waited for.

        For each in words what is still to end, or why it cannot be ended; None: they can be done.
        """
        raise NotImplementedError


class Readied(Running):
    """It runs before it is ready, for which those wait that need it.

    Whether it is, is asked again and again, beside the passes or at the end of a single one, and
    noted: once it was ready, or late, it counts as that.
    """

    def readiness(self, want: Any) -> float | None:
        """Within so many seconds it must be ready; None: as soon as it runs. Pure."""
        raise NotImplementedError

    def unready(self, have: Any) -> Sequence[Identity]:
        """Those of it that are not known to be ready. Pure."""
        raise NotImplementedError

    def ask_ready(
        self, resource: Resource[Any], have: Any, host: Host
    ) -> Mapping[Identity, Verdict]:
        """Ask these now. It may block: only in a child of its own."""
        raise NotImplementedError

    def note_ready(self, resource: Resource[Any], one: Identity, ready: bool, host: Host) -> None:
        """Note that it is ready, or late. Raises HostError."""
        raise NotImplementedError


class Orphans:
    """It leaves things on the host that are known as ours when no spec declares them any more.

    What is seen of one depends on all others of its kind, so that all are looked at.
    """

    def orphans(self, resources: Sequence[Resource[Any]], host: Host) -> Sequence[Resource[Any]]:
        """What is ours on the host and no longer declared, as absent resources. Read only.

        ``resources`` are all of this kind, the skipped ones too: what they have made is left.
        Raises UnknownState.
        """
        raise NotImplementedError


class Prefetched:
    """Looking at it takes its time, which all kinds can wait for at once."""

    def begin(self, resources: Sequence[Resource[Any]], host: Host) -> None:
        """Begin to look, read only. What goes wrong is told by ``observe``."""
        raise NotImplementedError


# -- what goes on beside the passes


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


class Probed:
    """It is asked now and then; a pass only sees what was said last (host.said)."""

    forms: ClassVar[tuple[str, ...]]
    """Fields of which each resource has exactly one, which ``check`` ensures."""

    def rhythm(self, want: Any) -> Rhythm:
        """How it is probed. Pure."""
        raise NotImplementedError

    def version(self, want: Any) -> str:
        """Of what is asked; what was said about another question does not count. Pure."""
        raise NotImplementedError

    def probe(self, resource: Resource[Any], host: Host, parent: int | None) -> Verdict:
        """Ask now. It may block: only in a child of its own, of the process ``parent``, unless it
        ``is_brief``.

        Never raises for the host: what cannot be known is not well.
        """
        raise NotImplementedError

    def is_brief(self, want: Any) -> bool:
        """May it be asked in any process? It starts nothing, and what it looks at cannot hang."""
        return False

    def inspect(self, want: Any) -> Remedy | None:
        """The shell command with which a person looks into it, where no pass fixes it. Pure."""
        return None


class Diagnosed:
    """It can tell people more than whether something differs."""

    def says(self, resource: Resource[Any], host: Host) -> Iterable[Key]:
        """Where its own output can be read. Raises UnknownState.

        ``log`` is a file, ``journal`` a scope and a unit, ``pane`` the id of one of tmux and the
        name of the server's socket, each with a blank between them.
        """
        return ()

    def evidence(self, resource: Resource[Any], host: Host) -> str | None:
        """Why a step may have failed, as the host tells it; for people."""
        return None

    def shows(self, resource: Resource[Any], host: Host) -> Iterable[Key]:
        """What a diagnosis should look into. Pure, but for the places that ``host`` names.

        ``log`` is a file, ``logs`` and ``queue`` are a folder and a shell pattern of its files
        (``/srv/in/*.json``), ``folder`` is one whose files are counted, ``executor`` the home of a
        command executor.
        """
        return ()
