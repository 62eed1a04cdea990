"""Long-running processes, in a window of a tmux session or as daemons.

It must not start a second one, nor signal what is not known by boot, process id and start time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from reconciler.base.errors import HostError
from reconciler.base.records import replace
from reconciler.core.claims import Declarations, Key
from reconciler.core.kind import (
    Batched,
    Completed,
    Described,
    Diagnosed,
    Kind,
    Readied,
    Supervised,
    Verified,
    run_one,
)
from reconciler.core.model import Action, Change, Observation, Resource, in_words
from reconciler.core.restart_policy import Policy
from reconciler.host.launch import STREAMS, Launch
from reconciler.host.start_records import READY
from reconciler.kinds.process.actions import (
    Place,
    RestartInTurn,
    StartDaemon,
    StartInWindow,
    StopLeft,
    StopProcess,
    log_path,
    start_all,
)
from reconciler.kinds.process.limits import health, held
from reconciler.kinds.process.match import executors, running, runs
from reconciler.kinds.process.observed import HOLDS, ProcessState, killed, look, may_go_down
from reconciler.kinds.process.resource import Process
from reconciler.kinds.session.resource import Session

if TYPE_CHECKING:
    from reconciler.base.values import Verdict
    from reconciler.host import Host
    from reconciler.host.processes import Identity
    from reconciler.host.stops import WantedStops
    from reconciler.host.usage import ResourceUsage


class ProcessKind(
    Kind[Process, ProcessState],
    Completed,
    Described,
    Verified,
    Supervised,
    Readied,
    Batched,
    Diagnosed,
):
    """The section ``processes``."""

    section = "processes"
    resource = Process
    settle = HOLDS

    def linked(self, want: Process, declared: Declarations) -> Process:
        if want.session is None:
            return want
        name = f"session:{want.session}"
        if name not in declared.wants:
            words = f"there is no session {want.session!r}; declare it under sessions"
            plain = want.session.removeprefix("session:")
            if f"session:{plain}" in declared.wants:
                words = f"names a session without its kind; write {plain!r}"
            raise ValueError("session", words)
        session = declared.wants[name]
        if not isinstance(session, Session):
            return want  # It is declared, but wrong; that has been said.
        return replace(want, place=Place(session.socket, session.tmux_name))

    def check(self, want: Process) -> Iterable[tuple[str, str]]:
        from reconciler.kinds.process.rules import wrong_in

        return wrong_in(want)

    def policy(self, want: Process) -> Policy:
        restart, backoff = want.restart, want.restart.backoff
        return Policy(
            restart.attempts,
            backoff.initial,
            backoff.factor,
            backoff.max,
            restart.healthy_after + (self.readiness(want) or 0.0),
            restart.retry_every,
        )

    def version(self, want: Process) -> str:
        return want.digest()

    def uses(self, want: Process) -> Iterable[Key]:
        if want.session is not None:
            yield Key("id", f"session:{want.session}")
        if want.cwd is not None:
            yield Key("path", want.cwd)
        for path in (*want.logs, *filter(None, (want.env_file,))):
            yield Key("path", path.rpartition("/")[0] or "/")
        if want.heartbeat is not None:
            yield Key("path", want.heartbeat.file.rpartition("/")[0] or "/")

    def expected(self, want: Process) -> ProcessState:
        return ProcessState(want.instances)

    def observe(
        self, resources: Sequence[Resource[Process]], host: Host
    ) -> Sequence[Observation[ProcessState]]:
        seen = [look(resource, host) for resource in resources]
        asked: dict[Identity, frozenset[str]] = {}
        for resource, one in zip(resources, seen, strict=True):
            if resource.want.limits is not None and resource.want.limits.used:
                asked |= dict.fromkeys(_judged(resource, one.state), resource.want.limits.used)
        usages: Mapping[Identity, ResourceUsage] = {}
        if asked:
            from reconciler.host.usage import measure

            usages = measure(asked, host)
        return [
            self._judge(resource, one, usages, host)
            for resource, one in zip(resources, seen, strict=True)
        ]

    def _judge(
        self,
        resource: Resource[Process],
        seen: Observation[ProcessState],
        usages: Mapping[Identity, ResourceUsage],
        host: Host,
    ) -> Observation[ProcessState]:
        """How those are that run, as far as somebody wants to know."""
        want = resource.want
        if resource.present and want.unexpanded is not None:
            seen = replace(seen, note="; ".join(filter(None, (seen.note, want.unexpanded))))
        identities = _judged(resource, seen.state)
        stopped = (*seen.ailments, *(held(identities) if host.restless else ()))
        if not identities or (want.limits is None and want.heartbeat is None):
            return replace(seen, ailments=stopped) if stopped else seen
        found = health(want.limits, want.heartbeat, identities, usages, host)
        notes = "; ".join(note for note in (seen.note, found.note) if note) or None
        return replace(seen, ailments=stopped + found.ailments, unsure=found.unsure, note=notes)

    def ended(self, want: Process) -> Observation[ProcessState]:
        return killed(want)

    def found(self, resource: Resource[Process], host: Host) -> list[tuple[Identity, str | None]]:
        """The processes that are this resource, oldest first, each with its digest if known.

        Raises UnknownState.
        """
        return list(running(resource, host).found)

    def changes(
        self, expected: ProcessState | None, have: ProcessState | None
    ) -> tuple[Change, ...]:
        # Of what is not running it matters little what it has left.
        dead = expected is not None and have is not None and not have.running
        found = super().changes(expected, None if dead else have)
        if found and have is not None and have.late and have.at_once is not None:
            found = (*found, Change("start", "late", "ready in time"))
        return found

    def renews(self, changes: Sequence[Change]) -> bool:
        return [one.field for one in changes] == ["definition"]

    def stale(self, planned: Sequence[Action], now: Sequence[Action]) -> bool:
        # What was left behind may start and end others all the time.
        def plain(actions: Sequence[Action]) -> list[Action]:
            left = (one for one in actions if not isinstance(one, StopLeft))
            return [
                *left,
                *(replace(one, found=()) for one in actions if isinstance(one, StopLeft)),
            ]

        return plain(planned) != plain(now)

    def verb(self, expected: ProcessState | None, have: ProcessState | None) -> str:
        if expected is not None and have is not None and have.definition == "current":
            return "start" if have.running < expected.running else "stop"
        return "stop" if expected is None else "start" if have is None else "restart"

    def words(self, changes: Sequence[Change]) -> str:
        state = next((one for one in changes if one.field == "state"), None)
        if state is None:
            return in_words(changes)
        return "not running" if state.have == "absent" else "running, should be stopped"

    def actions(
        self, resource: Resource[Process], have: ProcessState | None, changes: Sequence[Change]
    ) -> Sequence[Action]:
        want = resource.want
        found = have.found or () if have is not None else ()
        left = [self._stop_left(resource, have)] if have is not None and have.left else []
        if not resource.present:
            return [*(self._stop(resource, identity) for identity, _ in found), *left]
        digest = want.digest()
        older = [identity for identity, seen in found if seen not in (None, digest)]
        kept = [identity for identity, seen in found if seen in (None, digest)]
        extra = kept[want.instances :] if want.stop_extra else []
        stopping = have.stopping or 0 if have is not None else 0
        finished = len(have.finished or ()) if have is not None else 0
        ended = older
        if have is not None and have.at_once is not None:
            # Those that were late first: as long as one is, no other is restarted.
            late = [one for one in kept if one in (have.late or ())]
            ended = [*late, *older[: may_go_down(want, have)]]
        goes_on = len(older) + len(kept) - len(ended)
        missing = max(0, want.instances - goes_on - stopping - finished)
        stops = [self._stop(resource, identity) for identity in [*ended, *extra]]
        return [*stops, *left, *([self._start(resource, digest)] * missing)]

    def left(
        self, planned: Sequence[Action], found: Sequence[Change], have: ProcessState | None
    ) -> Sequence[Change]:
        if have is None or have.at_once is None:
            return found
        # The others have their turn when these are ready.
        ended = {one.identity for one in planned if isinstance(one, StopProcess)}
        over = ended.isdisjoint(one for one, _ in have.found or ())
        return [one for one in found if one.field not in ("definition", "start") or not over]

    def readiness(self, want: Process) -> float | None:
        return want.ready.timeout if want.ready is not None else None

    def unready(self, have: ProcessState) -> Sequence[Identity]:
        return have.unready or ()

    def ask_ready(
        self, resource: Resource[Process], have: ProcessState, host: Host
    ) -> Mapping[Identity, Verdict]:
        from reconciler.kinds.process.readiness import ask

        asked = self.unready(have)
        others = [one for one, _ in have.found or () if one not in asked or len(asked) > 1]
        return ask(resource, asked, others, host)

    def note_ready(
        self, resource: Resource[Process], one: Identity, ready: bool, host: Host
    ) -> None:
        host.start_records.note(resource.id, one, READY, "ready" if ready else "late")

    def watch(
        self, resource: Resource[Process], have: ProcessState | None, host: Host
    ) -> Iterable[Identity]:
        if have is None:
            return ()
        return [*(identity for identity, _ in have.found or ()), *(have.left or ())]

    def shows(self, resource: Resource[Process], host: Host) -> Iterable[Key]:
        want = resource.want
        paths = dict.fromkeys((want.log_path, want.error_path or want.log_path))
        logs = [Key("log", log_path(resource.id, one, host)) for one in paths if one not in STREAMS]
        return [*(logs if want.place is None else ()), *executors(want, host)]

    def restart(
        self, resource: Resource[Process], have: ProcessState, of: Collection[str]
    ) -> Sequence[Action]:
        stops = self.ends(resource, have, of)
        if have.at_once is not None and not of:
            # They are older ones from now on, which have their turn one after the other.
            asked = RestartInTurn(resource.id, tuple(_judged(resource, have)))
            return [asked] if stops else []
        start = self._start(resource, resource.want.digest())
        return [*stops, *([start] * len(stops))]

    def ends(
        self, resource: Resource[Process], have: ProcessState, of: Collection[str]
    ) -> Sequence[Action]:
        ours = [one for one in _judged(resource, have) if not of or one.text in of]
        if have.at_once is not None and of:
            ours.sort(key=lambda one: one not in (have.late or ()))
            ours = ours[: max(may_go_down(resource.want, have), len(have.late or ()))]
        return [self._stop(resource, identity) for identity in ours]

    def awaits(
        self, steps: Sequence[tuple[Resource[Process], Sequence[Action]]], host: Host
    ) -> Sequence[str | HostError | None]:
        found: list[str | HostError | None] = [None] * len(steps)
        if host.stops is None:
            return found
        wanted: dict[int, WantedStops] = {}
        for at, (resource, actions) in enumerate(steps):
            stops = (one for one in actions if isinstance(one, (StopProcess, StopLeft)))
            try:
                wanted[at] = resource.id, [one.stop(host) for one in stops], not resource.present
            except HostError as error:
                found[at] = error
        making = {at: one for at, one in wanted.items() if one[1]}
        if making:
            for at, result in zip(making, host.stops.make(list(making.values())), strict=True):
                found[at] = result
        return found

    def run_all(self, actions: Sequence[Action], host: Host) -> Sequence[Exception | None]:
        """All stops at the same time, then all starts."""
        found: list[Exception | None] = [None] * len(actions)
        numbers, endings = [], []
        for at, action in enumerate(actions):
            if isinstance(action, RestartInTurn):
                found[at] = run_one(action, host)
            elif isinstance(action, (StopProcess, StopLeft)):
                try:
                    endings.append(action.stop(host).ending(host.processes))
                    numbers.append(at)
                except HostError as error:
                    found[at] = error
        if endings:
            from reconciler.host.descendants import end_all

            for at, failed in end_all(host.processes, endings):
                found[numbers[at]] = failed
        daemons: dict[int, StartDaemon] = {}
        for at, action in enumerate(actions):
            if isinstance(action, StartInWindow):
                host.tmux.forget()  # The one before may have taken the window that is free.
                found[at] = run_one(action, host)
            elif isinstance(action, StartDaemon):
                daemons[at] = action
        if daemons:
            failures = start_all(list(daemons.values()), host)
            for at, unstarted in zip(daemons, failures, strict=True):
                found[at] = unstarted
        return found

    def _stop(self, resource: Resource[Process], identity: Identity) -> Action:
        want = resource.want
        how = want.stop.signal, want.stop.timeout
        # As it should, or not: where we end it, it has not finished.
        noted = resource.present and want.restart.when != "always"
        place = want.place if noted else None
        return StopProcess(resource.id, want.user, want.kill_tree, identity, *how, noted, place)

    def _stop_left(self, resource: Resource[Process], have: ProcessState) -> Action:
        want = resource.want
        how = want.stop.signal, want.stop.timeout
        return StopLeft(resource.id, want.user, have.left or (), have.launches or (), *how)

    def _start(self, resource: Resource[Process], digest: str) -> Action:
        want = resource.want
        launch = Launch(
            resource.id, digest, want.command, want.env, want.cwd, want.user,
            want.group, want.env_file, want.settings, want.restart.when != "always",
            want.ready is not None and bool(want.ready.notify),
            self._ready_log(want),
            want.cgroup.limits if want.cgroup is not None else (),
        )  # fmt: skip
        if want.place is not None:
            return StartInWindow(launch, want.place, resource)
        return StartDaemon(launch, resource)

    def says(self, resource: Resource[Process], host: Host) -> Iterable[Key]:
        place = resource.want.place
        if place is None:
            return (key for key in self.shows(resource, host) if key.sort == "log")
        panes = host.tmux.made_for(place.socket, place.session, host.owner)
        ours = (pane for pane in panes if runs(pane, resource.id))
        return (Key("pane", f"{pane.id} {place.socket or ''}") for pane in ours)

    def _ready_log(self, want: Process) -> str | None:
        """The log in which it says that it is ready; empty for its own default one."""
        line = want.ready.log if want.ready is not None else None
        return None if line is None else line.path or want.log_path or ""

    def evidence(self, resource: Resource[Process], host: Host) -> str | None:
        """What the process said last, and how it ended, as far as that can be known."""
        from reconciler.kinds.process.last_words import last_words

        want = resource.want
        secrets = [secret.value or "" for _, secret in want.env]
        if want.env_file is not None:
            from reconciler.host import env_file

            with suppress(HostError):
                text = env_file.read(want.env_file, host.users.account(want.user).uid)
                secrets += [value for _, value in env_file.variables(text)]
        logs = dict.fromkeys((want.error_path or want.log_path, want.log_path))
        return last_words(resource.id, want.place, tuple(logs), want.user, host, secrets)


def _judged(resource: Resource[Process], have: ProcessState | None) -> list[Identity]:
    """Those of what runs that are wanted: their health matters."""
    if have is None or not resource.present:
        return []
    return [identity for identity, _ in (have.found or ())[: resource.want.instances]]


KIND = ProcessKind()
