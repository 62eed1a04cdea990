"""What is seen of a process resource: who of it runs, from what, and who has finished.

It must not decide what is done about that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from reconciler.base.errors import HostError, UnknownState
from reconciler.base.records import dataclass, replace
from reconciler.core.model import ABSENT, LATE, Ailment, Observation, Resource, not_known
from reconciler.host.start_records import READY, RENEWED
from reconciler.kinds.process.match import (
    ended_in_words,
    finished,
    in_background,
    left,
    running,
    version_now,
)
from reconciler.kinds.session import not_ours

if TYPE_CHECKING:
    from reconciler.host import Host
    from reconciler.host.processes import Identity
    from reconciler.kinds.process.resource import Process


HOLDS = 0.5
"""Seconds for which a start must hold to count as done."""

_NEVER = "restart.when is never, so it is not started again"


@dataclass(frozen=True, slots=True)
class ProcessState:
    """How many run, and whether from what the spec says now.

    ``found`` is oldest first. What is ``stopping`` already counts as running until it is gone.
    ``left`` is what ended launches have left behind, which have the numbers ``launches``.
    ``finished`` have ended, count as well, and are not started again. ``unready`` is not known to
    be ready, and of that was not in time what is ``late``. No more than ``at_once`` may be down.
    """

    running: int
    definition: str = "current"
    found: tuple[tuple[Identity, str | None], ...] | None = None
    stopping: int | None = None
    left: tuple[Identity, ...] | None = None
    launches: tuple[int, ...] | None = None
    finished: tuple[Identity, ...] | None = None
    unready: tuple[Identity, ...] | None = None
    late: tuple[Identity, ...] | None = None
    at_once: int | None = None


def look(resource: Resource[Process], host: Host) -> Observation[ProcessState]:
    """Who of it runs, is being stopped, or has finished."""
    want = resource.want
    stopping = host.stops.of(resource.id) if host.stops is not None else []
    behind: list[Identity] = []
    ended_before: tuple[int, ...] = ()
    try:
        seen = running(resource, host)
        found = list(seen.found)
        if not found and resource.present and want.place is not None:
            place = want.place
            panes = host.tmux.session(place.socket, place.session, host.owner)
            if panes and panes[0].owner != host.owner:
                return not_ours(place.session, place.socket, host.owner)
        few = not resource.present or len(found) < want.instances
        if few and want.kill_tree and not stopping:
            behind, ended_before = left(resource, host, seen.launches)
    except UnknownState as error:
        return not_known(error)
    found = [one for one in found if one[0] not in stopping]
    note = unsure = failing = None
    if stopping:
        pids = ", ".join(str(identity.pid) for identity in stopping)
        note = f"pid {pids} is being stopped"
    waiting = len(stopping) if resource.present else 0
    waiting = max(0, min(waiting, want.instances - len(found)))
    digest = want.digest()
    over: list[tuple[Identity, str | None]] = []
    if want.env_file is not None or want.restart.when != "always":
        try:
            now = version_now(want, host)
            # What was started with another content of the file is of an older version.
            found = [(one, digest if seen == now else seen) for one, seen in found]
            if resource.present:
                over = finished(resource, host, now)[
                    : max(0, want.instances - len(found) - waiting)
                ]
        except HostError as error:
            unsure = str(error)
            found = [(one, seen and seen.partition(".")[0]) for one, seen in found]
    if not found and not waiting and not behind and not over:
        return Observation(note=note, ending=note) if note else ABSENT
    older = any(one not in (None, digest) for _, one in found)
    extra = len(found) - want.instances
    number = len(found) + waiting + len(over)
    if resource.present and extra > 0 and not want.stop_extra:
        pids = ", ".join(str(identity.pid) for identity, _ in found[want.instances :])
        note = f"{note}; " if note else ""
        note += f"{extra} more than wanted run (pid {pids}); stop_extra: true would stop them"
        number = want.instances
    definition = "older" if older else "current"
    state = ProcessState(number, definition, tuple(found), waiting)
    if behind:
        state = replace(state, left=tuple(behind), launches=ended_before)
    if over:
        state = replace(state, finished=tuple(one for one, _ in over))
        words = ", ".join(dict.fromkeys(ended_in_words(status) for _, status in over))
        if all(status in want.restart.success for _, status in over):
            note = f"{note}; finished ({words})" if note else f"finished ({words})"
        else:
            failing = f"{words}; {_NEVER}"
    lives_on = None
    if not found and not stopping and not over:
        lives_on = in_background(resource, host, behind, seen.launches)
    ailments: list[Ailment] = []
    pending = None
    more = False
    if want.rolling is not None and resource.present:
        # Those that are to be started anew are as good as older ones.
        asked = [host.start_records.noted(resource.id, one, RENEWED) for one, _ in found]
        found = [
            (one, f"{version or ''}{RENEWED}" if word else version)
            for (one, version), word in zip(found, asked, strict=True)
        ]
        state = replace(
            state, found=tuple(found), definition="older" if any(asked) else state.definition
        )
        old = sum(version not in (None, digest) for _, version in found)
        more = bool(found)
        if 0 < old < want.instances:
            words = f"rolling restart: {want.instances - old} of {want.instances} begun"
            note = f"{note}; {words}" if note else words
        # Without word of it, it counts as ready once it has held for a moment.
        young = [one for one, _ in found if host.processes.age(one) < HOLDS]
        state = replace(state, unready=tuple(young) or None, at_once=want.rolling.at_once)
    if want.ready is not None and resource.present:
        noted = {
            one: host.start_records.noted(resource.id, one, READY)
            for one, version in found
            if version in (None, digest)
        }
        unready = tuple(one for one, word in noted.items() if word != "ready")
        if unready:
            state = replace(state, unready=unready)
            pids = ", ".join(str(one.pid) for one in unready)
            pending = f"not ready yet (pid {pids})"
        words = f"was not ready within {want.ready.timeout:g} s"
        late = tuple(one for one, word in noted.items() if word == "late")
        ailments = [Ailment(LATE, words, 0.0, one.text) for one in late]
        state = replace(state, late=late or None)
    return Observation(
        state,
        note=note,
        unsure=unsure,
        failing=failing,
        lives_on=lives_on,
        ailments=tuple(ailments),
        pending=pending,
        more=more,
    )


def killed(want: Process) -> Observation[ProcessState]:
    """What would be seen of it once one of it was killed. Pure."""
    if want.restart.when == "never":
        return Observation(ProcessState(want.instances), failing=f"killed by SIGKILL; {_NEVER}")
    return Observation(ProcessState(want.instances - 1)) if want.instances > 1 else ABSENT


def may_go_down(want: Process, have: ProcessState) -> int:
    """How many more may be restarted now, of those that are restarted one after the other."""
    serving = len(have.found or ()) - len(have.unready or ())
    return max(0, (have.at_once or want.instances) - max(0, want.instances - serving))
