"""After a step: did it help, has it held, and if not, why? It must not act."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reconciler.base.errors import HostError
from reconciler.base.records import replace
from reconciler.base.text import error_in_words
from reconciler.core.kind import Diagnosed, GetKind, Supervised, Verified
from reconciler.core.messages import EXITED
from reconciler.core.model import Observation, Outcome, Resource, Step
from reconciler.core.observe import observe
from reconciler.core.plan import told

if TYPE_CHECKING:
    from reconciler.host import Host


def failure(error: Exception) -> str:
    """Why a step has failed, in words."""
    if isinstance(error, OSError) and not isinstance(error, HostError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}"
    return error_in_words(error)


Wrong = tuple[str, str | None]
"""What is wrong after a step, and what lives on of it all the same."""


def still_wrong(
    steps: Sequence[tuple[Step, Resource[Any]]],
    seen: Mapping[str, Observation[Any]],
    get_kind: GetKind,
    host: Host,
) -> dict[str, Wrong | None]:
    """Of each, what is still not as it should be, with what the host tells about it; or None."""
    found: dict[str, Wrong | None] = {}
    for step, resource in steps:
        try:
            found[step.id] = _what_is_wrong(step, resource, seen[step.id], get_kind, host)
        except Exception as error:
            found[step.id] = f"done, but cannot look at it any more: {failure(error)}", None
    return found


def _what_is_wrong(
    step: Step, resource: Resource[Any], seen: Observation[Any], get_kind: GetKind, host: Host
) -> Wrong | None:
    kind = get_kind(resource.kind)
    if seen.unknown is not None:
        return f"done, but cannot look at it any more: {seen.unknown}", None
    expected = kind.expected(resource.want) if resource.present else None
    left = kind.changes(expected, seen.state)
    if isinstance(kind, Verified):
        left = kind.left(step.actions, left, seen.state)
    failing = seen.failing if isinstance(kind, Supervised) else None
    if not left and failing is None:
        return None
    evidence = seen.lives_on
    if evidence is None and isinstance(kind, Diagnosed):
        evidence = kind.evidence(resource, host)
    if failing is not None:
        words = failing
    elif resource.present and seen.state is None and isinstance(kind, Supervised):
        words = EXITED
    else:
        words = f"no effect: {told(kind, left)}"
    return f"{words}: {evidence}" if evidence else words, seen.lives_on


def proved(
    outcomes: Sequence[tuple[Outcome, Resource[Any]]], get_kind: GetKind, host: Host
) -> list[Outcome]:
    """The outcomes of steps that were done, after another look whether they have held."""
    seen = observe([resource for _, resource in outcomes], get_kind, host)
    steps = [(outcome.step, resource) for outcome, resource in outcomes]
    wrong = still_wrong(steps, seen, get_kind, host)
    found = []
    for outcome, _ in outcomes:
        problem = wrong[outcome.step.id]
        if problem is not None:
            words, lives_on = problem
            outcome = replace(outcome, result="failed", error=words, lives_on=lives_on)
        found.append(outcome)
    return found
