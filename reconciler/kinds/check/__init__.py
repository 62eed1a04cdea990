"""Health beyond existence: what is asked of the host now and then, beside the passes.

It must not be probed by a pass, which only looks at what the last probes have said.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from reconciler.base.digests import blake2b
from reconciler.base.errors import Remedy
from reconciler.base.records import dataclass, replace
from reconciler.core.claims import Declarations, Key
from reconciler.core.kind import (
    Completed,
    Described,
    Diagnosed,
    Kind,
    Probed,
    Rhythm,
    Verified,
)
from reconciler.core.model import (
    ABSENT,
    Action,
    Change,
    Observation,
    Resource,
)
from reconciler.core.restart_policy import in_words
from reconciler.host.filesystems import leads_to_server
from reconciler.kinds.check.resource import FILES, FORMS, OF_HOST, Check

if TYPE_CHECKING:
    from reconciler.base.values import ProbeHistory, Verdict
    from reconciler.host import Host

_IN_PATTERNS = frozenset(r".^$*+?{}[]()\|")
"""What has a meaning of its own in a regular expression."""
_ALL = f"{', '.join(FORMS[:-1])} and {FORMS[-1]}"


@dataclass(frozen=True, slots=True)
class CheckState:
    """What the last probes have said: ``ok``, ``shaky`` or ``failing``, and the words.

    ``run``: the commands of ``on_failure`` are to be run now.
    """

    result: str = "ok"
    run: bool = False
    words: str = ""


class Checks(Kind[Check, CheckState], Completed, Described, Verified, Probed, Diagnosed):
    """The section ``checks``."""

    section = "checks"
    resource = Check
    forms = FORMS

    def linked(self, want: Check, declared: Declarations) -> Check:
        found: list[str] = []
        for reaction in want.on_failure:
            if reaction[0] == "restart":
                found += _processes(reaction[1], declared)
        state = want.state and replace(want.state, path=declared.facts.state_dir)
        return replace(want, restarts=tuple(found), state=state)

    def check(self, want: Check) -> Iterable[tuple[str, str]]:
        forms = [name for name in FORMS if getattr(want, name) is not None]
        if not forms:
            yield "command", f"a check needs exactly one of {_ALL}"
        for name in forms[1:]:
            yield name, f"a check has exactly one of {_ALL}; this one has {forms[0]} already"
        if want.command is None:
            for name in ("expect", "cwd", "env", "user"):
                if getattr(want, name):
                    yield name, "is for a check with a command"
        elif "/" in want.command[0] and not want.command[0].startswith("/"):
            yield "command", f"{want.command[0]!r} is not absolute; write its whole path"
        queue, disk = want.queue, want.disk
        if queue is not None and queue.max_age is None and queue.max_count is None:
            yield "queue", "says nothing of how much is too much; give it max_age or max_count"
        if queue is not None and any("/" in pattern for pattern in queue.match):
            yield (
                "queue.match",
                "a pattern with '/' matches nothing: only the folder itself is looked at",
            )
        if want.persistence is False:
            yield "persistence", "is true, or left out"
        if want.tcp is not None and (want.tcp.address is None) is (want.tcp.unix is None):
            yield "tcp", "needs one of address (HOST:PORT) and unix (the path of a socket)"
        if want.http is not None and want.http.ca_file and not want.http.url.startswith("https:"):
            yield "http.ca_file", "is for a URL of https"
        for name, room in (("disk", disk), ("memory", want.memory), ("swap", want.swap)):
            if room is not None and room.min_free is None and room.max_used is None:
                yield name, "says nothing of how much is too little; give it min_free or max_used"
        for at, reaction in enumerate(want.on_failure):
            if reaction in want.on_failure[:at]:
                yield f"on_failure[{at}]", f"{' '.join(reaction)!r} stands there twice"
            program = reaction[1] if reaction[0] == "run" else ""
            if "/" in program and not program.startswith("/"):
                yield f"on_failure[{at}]", f"{program!r} is not absolute; write its whole path"

    def uses(self, want: Check) -> Iterable[Key]:
        for path in want.paths:
            yield Key("path", path)
        for reaction in want.on_failure:
            if reaction[0] == "restart":
                yield Key("id", f"process:{reaction[1]}")
        for name in want.restarts:
            yield Key("id", name)

    def shows(self, resource: Resource[Check], host: Host) -> Iterable[Key]:
        want = resource.want
        if want.queue is not None:
            folder = want.queue.path.rstrip("/")
            yield from (Key("queue", f"{folder}/{pattern}") for pattern in want.queue.match)
        if want.log is not None:
            yield Key("log", want.log.path)
        if want.results is not None:
            yield Key("executor", want.results.home)

    def version(self, want: Check) -> str:
        """Of what is asked; what was said about another question does not count."""
        # As older versions have it: what they have asked is no other question.
        asked = [getattr(want, name) for name in ("command", *FILES)]
        asked += [one and one.asked for one in (want.tcp, want.http)]
        more = FORMS[len(asked) :]
        asked += [(name, one) for name in more if (one := getattr(want, name)) is not None]
        secrets = [(name, secret.digest) for name, secret in want.env]
        parts = (asked, want.expect, want.cwd, want.user, secrets)
        return blake2b(repr(parts).encode(), digest_size=8).hexdigest()

    def expected(self, want: Check) -> CheckState:
        return CheckState()

    def observe(
        self, resources: Sequence[Resource[Check]], host: Host
    ) -> Sequence[Observation[CheckState]]:
        wall = host.clock.wall()
        return [self._look(resource, host.said.get(resource.id), wall) for resource in resources]

    def _look(
        self, resource: Resource[Check], said: ProbeHistory | None, wall: float
    ) -> Observation[CheckState]:
        want = resource.want
        if not resource.present:
            return ABSENT
        if said is None or said.version != self.version(want):
            return Observation(CheckState(), pending="not asked yet")
        if said.result == "shaky":
            words = f"failed {said.failures} of {want.failures} times in a row: {said.reason}"
            return Observation(CheckState("shaky", False, words), note=words)
        if said.result != "failing":
            return Observation(CheckState())
        words = said.reason
        if wall - said.since >= 60:
            words += f" (for {in_words(wall - said.since)})"
        due = said.failures >= want.failures
        runs = any(reaction[0] == "run" for reaction in want.on_failure)
        demands = want.restarts if due else ()
        state = CheckState("failing", due and runs, said.reason)
        return Observation(state, failing=words, demands=demands)

    def changes(self, expected: CheckState | None, have: CheckState | None) -> tuple[Change, ...]:
        # There is nothing that a pass could change but to do what on_failure says.
        if expected is None or have is None or not have.run:
            return ()
        return (Change("result", f"failing: {have.words}", "ok"),)

    def words(self, changes: Sequence[Change]) -> str:
        return "; ".join(str(change.have) for change in changes)

    def left(
        self, planned: Sequence[Action], found: Sequence[Change], have: CheckState | None
    ) -> Sequence[Change]:
        return ()  # Whether it has helped is said by the next probes.

    def rhythm(self, want: Check) -> Rhythm:
        acts = any(reaction[0] != "notify" for reaction in want.on_failure)
        return Rhythm(want.every, want.timeout, want.failures, acts, want.user or "")

    def is_brief(self, want: Check) -> bool:
        if want.form not in FILES:
            return False
        # A pattern may take any time, and nothing interrupts it.
        plain = want.log is None or _IN_PATTERNS.isdisjoint(want.log.match)
        return plain and not any(map(leads_to_server, want.paths))

    def inspect(self, want: Check) -> Remedy | None:
        from urllib.parse import urlsplit

        from reconciler.host.remedy import in_words, piped, remedy

        if want.command is not None:
            return in_words(want.command)
        if want.fresh is not None:
            return remedy("ls", "-ld", "--full-time", want.fresh.path)
        last = ("tail", "-n", "20")
        if want.log is not None:
            return piped(("grep", "-nP", "-e", want.log.match, want.log.path), last)
        if want.queue is not None:
            return piped(("ls", "-ltr", want.queue.path), ("head", "-n", "20"))
        if want.disk is not None:
            return piped(("du", "-xh", want.disk.path), ("sort", "-h"), last)
        if want.form in OF_HOST:
            by = "-pcpu" if want.form in ("load", "cpu") else "-rss"
            return piped(("ps", "aux", f"--sort={by}"), ("head",))
        if want.results is not None:
            home = ("--home", want.results.home)
            return remedy("ai-cmd-executor", "report", "--failed", *home)
        if want.state is not None:
            return piped(("du", "-ah", want.state.path), ("sort", "-h"), last)
        asked = want.tcp or want.http
        if asked is None:
            return None
        if asked.unix is not None:
            return remedy("ls", "-l", asked.unix)
        if want.tcp is not None and want.tcp.address is not None:
            port = want.tcp.address[1]
        elif want.http is not None:
            # The rest of a URL may hold a secret.
            parts = urlsplit(want.http.url)
            port = parts.port or (443 if parts.scheme == "https" else 80)
        return remedy("ss", "-ltnp", f"sport = :{port}")

    def actions(
        self, resource: Resource[Check], have: CheckState | None, changes: Sequence[Change]
    ) -> Sequence[Action]:
        from reconciler.core.run_command import RunCommand

        runs = (one[1:] for one in resource.want.on_failure if one[0] == "run")
        return tuple(RunCommand(argv) for argv in runs)

    def probe(self, resource: Resource[Check], host: Host, parent: int | None) -> Verdict:
        from reconciler.base.errors import HostError
        from reconciler.base.values import Verdict
        from reconciler.host.probe import bounded
        from reconciler.kinds.check.ask import ask

        try:
            account = host.users.account(resource.want.user)
        except HostError as error:
            return Verdict(False, f"cannot be known: {error}")
        want = resource.want
        words = "it did not end" if want.command is not None else "no answer"
        return bounded(lambda: ask(want, account, host), want.timeout, parent, words)


def _processes(name: str, declared: Declarations) -> list[str]:
    """The ids of the processes of that name: one, or all that ``for_each`` has made of it."""
    known = [other for other in declared.wants if other.startswith("process:")]
    found = [other for other in known if other == f"process:{name}"]
    found = found or [other for other in known if other.startswith(f"process:{name}[")]
    if found:
        return found
    from difflib import get_close_matches

    near = get_close_matches(name, [other.partition(":")[2] for other in known], 1)
    hint = f"did you mean {near[0]!r}?" if near else "declare it under processes"
    raise ValueError("on_failure", f"there is no process {name!r} to restart; {hint}")


KIND = Checks()
