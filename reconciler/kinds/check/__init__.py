"""Health beyond existence: what is asked of the host now and then, beside the passes.

It must not be probed by a pass, which only looks at what the last probes have said.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from reconciler.base.digests import blake2b
from reconciler.base.errors import Remedy
from reconciler.base.records import dataclass, replace
from reconciler.core.kind import (
    Completed,
    Described,
    Diagnosed,
    Kind,
    Probed,
    Rhythm,
    Verified,
)
from reconciler.core.model import ABSENT, Action, Change, Declarations, Key, Observation, Resource
from reconciler.core.restart_policy import in_words
from reconciler.host.filesystems import leads_to_server
from reconciler.kinds.check.resource import FORMS, OF_HOST, Check

if TYPE_CHECKING:
    from reconciler.base.values import Verdict
    from reconciler.core.model import ProbeHistory
    from reconciler.host import Host
    from reconciler.host.users import Account

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
        return replace(want, restarts=tuple(found))

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

    def version(self, want: Check) -> str:
        """Of what is asked; what was said about another question does not count."""
        # As older versions have it: what they have asked is no other question.
        asked = [getattr(want, name) for name in FORMS[: -len(OF_HOST)]]
        asked += [(name, one) for name in OF_HOST if (one := getattr(want, name)) is not None]
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
            return Observation(CheckState())  # It was not asked yet.
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
        if want.form in ("command", "tcp", "http", *OF_HOST):
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
        port = want.tcp[1] if want.tcp is not None else None
        if want.http is not None:
            # The rest of a URL may hold a secret.
            parts = urlsplit(want.http[0])
            port = parts.port or (443 if parts.scheme == "https" else 80)
        return remedy("ss", "-ltnp", f"sport = :{port}") if port is not None else None

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

        try:
            account = host.users.account(resource.want.user)
        except HostError as error:
            return Verdict(False, f"cannot be known: {error}")
        want = resource.want
        words = "it did not end" if want.command is not None else "no answer"
        return bounded(lambda: _probe(want, account, host), want.timeout, parent, words)


def _probe(want: Check, account: Account, host: Host) -> Verdict:
    """The verdict; it may block, and raises HostError and OSError."""
    from reconciler.host import probe as files

    if want.fresh is not None:
        fresh = want.fresh
        return files.fresh(fresh.path, fresh.max_age, host.walltime)
    if want.queue is not None:
        queue = want.queue
        return files.queue(queue.path, queue.match, queue.max_age, queue.max_count, host.walltime)
    if want.disk is not None:
        disk = want.disk
        return files.disk(disk.path, disk.min_free, disk.max_used)
    if want.load is not None:
        return files.load(want.load.max)
    if want.cpu is not None:
        return files.cpu(want.cpu.max_used)
    room = want.memory or want.swap
    if room is not None:
        return files.memory(want.swap is not None, room.min_free, room.max_used)
    if want.log is not None:
        from reconciler.host.probe_log import log

        lines = want.log
        return log(lines.path, lines.match, lines.max, lines.within)
    if want.command is not None:
        from reconciler.host.probe_command import command

        argv = want.command
        return command(argv, want.expect, want.cwd, want.env, account)
    from reconciler.host import probe_net as net

    if want.tcp is not None:
        name, port = want.tcp
        return net.tcp(name, port, want.timeout)
    assert want.http is not None
    url, right = want.http
    return net.http(url, right, want.timeout)


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
