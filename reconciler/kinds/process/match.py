"""Which processes of the host are which resource, and what of it was left behind.

It must not decide what is done about them, nor take one resource's for another's.
"""

from __future__ import annotations

import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from reconciler.base.errors import HostError
from reconciler.base.records import dataclass, replace
from reconciler.core.claims import Key
from reconciler.core.model import Resource
from reconciler.host.processes import Identity, ending, look_up
from reconciler.host.start_records import STOPPED

if TYPE_CHECKING:
    from reconciler.host import Host
    from reconciler.host.descendants import Started
    from reconciler.host.process_snapshot import ProcessSnapshot
    from reconciler.host.tmux import Pane
    from reconciler.kinds.process.resource import Process

PANE_MARK = "process"
"""Mark of the pane in which a process was started."""
_EXECUTOR = ("ai-cmd-executor", "reconciler.executor")
"""What the command of a worker has in it."""
_LOOKS, _GLANCE = 20, 0.05
"""How often tmux is asked for the status of what has ended, with so many seconds in between."""
_FORKED = 0.5
"""Seconds for what was just forked to leave the session of its parent, which has ended."""


@dataclass(frozen=True, slots=True)
class RunningProcesses:
    """The processes that are one resource, oldest first, each with its digest if that is known.

    ``launches`` are the numbers of the first processes of all launches that they come from.
    """

    found: tuple[tuple[Identity, str | None], ...]
    launches: tuple[int, ...]


def runs(pane: Pane, mark: str) -> bool:
    """Was the process of that mark started in this pane?"""
    return pane.window_mark == mark and pane.mark == PANE_MARK


def known_as(mark: str, host: Host) -> str:
    """What a process is marked with. Its name alone would be that of anybody's spec."""
    return f"{host.state_dir}/{mark}"


def running(resource: Resource[Process], host: Host) -> RunningProcesses:
    """Those of that resource. Raises UnknownState."""
    want, mark = resource.want, known_as(resource.id, host)
    found: dict[Identity, str | None] = {}
    if want.place is not None:
        place = want.place
        for pane in host.tmux.made_for(place.socket, place.session, host.owner):
            if runs(pane, resource.id) and not pane.dead and not pane.replaced:
                entry = look_up(pane.pid)
                if entry is not None:
                    found[entry.identity] = pane.launch
    else:
        records = host.start_records.of(resource.id, alive=True)
        found.update((one.identity, one.digest) for one in records)
    parts: dict[Identity, tuple[int, int]] = {}
    for identity in matching(want, host):
        if identity in found or want.match is None:
            continue
        from reconciler.host.process_snapshot import carrier

        one = carrier(identity.pid, host.users.account(want.match.user or want.user).uid)
        first = one is not None and one.launch == identity.pid
        if first and one is not None and one.mark != mark:
            continue  # It belongs to another resource, or to another spec.
        launch = one.launch if one is not None and one.mark == mark and not first else 0
        if launch and launch in (known for known, _ in parts.values()):
            continue  # Another one stands for all of that launch.
        entry = host.table.entry(identity.pid)
        parts[identity] = launch, entry.session if entry is not None else 0
        found[identity] = None
    unsure = any(digest is None for digest in found.values())
    if len(_whole(found, parts)) < want.instances or not resource.present or unsure:
        for one in host.table.marked(host.users.account(want.user).uid, mark).values():
            # Its children know the mark as well; it alone has its own number there.
            if one.launch == one.identity.pid:
                found[one.identity] = one.version
    launches = {one.pid for one in found} | {launch for launch, _ in parts.values()}
    return RunningProcesses(tuple(sorted(_whole(found, parts))), tuple(sorted(launches)))


def ended(
    resource: Resource[Process], host: Host, version: str
) -> list[tuple[Identity, str | None]]:
    """Which processes that were started from that version have ended, each with how: an exit
    status, the name of a signal, or None where nobody knows. Raises UnknownState."""
    want = resource.want
    if want.place is None:
        records = host.start_records
        old = [one for one in records.of(resource.id, alive=False) if one.digest == version]
        return [(one.identity, records.status(resource.id, one.identity)) for one in old]
    place = want.place
    for _ in range(_LOOKS):
        panes = [
            pane
            for pane in host.tmux.made_for(place.socket, place.session, host.owner)
            if runs(pane, resource.id)
            and pane.launch == version
            and (pane.dead or look_up(pane.pid) is None)
        ]
        if all(pane.ending for pane in panes):
            break
        host.clock.sleep(_GLANCE)  # tmux has not asked yet how it has ended.
        host.tmux.forget()
    # Sometimes tmux 3.3 never asks; it is a zombie then.
    words = [(pane.pid, pane.ending or ending(pane.pid) or "") for pane in panes]
    return [(Identity(0, pid), how.rpartition(" ")[2] or None) for pid, how in words]


def finished(
    resource: Resource[Process], host: Host, version: str
) -> list[tuple[Identity, str | None]]:
    """Of these, who is not to be started again. Raises UnknownState."""
    restart = resource.want.restart
    if restart.when == "always":
        return []
    return [
        (one, status)
        for one, status in ended(resource, host, version)
        if status in restart.success or (restart.when == "never" and status != STOPPED)
    ]


def ended_in_words(status: str | None) -> str:
    """How it has ended."""
    if status is None:
        return "exit status unknown"
    return f"exit status {status}" if status.isdigit() else f"killed by {status}"


def version_now(want: Process, host: Host) -> str:
    """The digest of what would be started now. Raises HostError where ``env_file`` is not read."""
    digest = want.digest()
    if want.env_file is None:
        return digest
    from reconciler.host import env_file
    from reconciler.host.launch import with_file

    uid = host.users.account(want.user).uid
    key = f"env_file {uid} {want.env_file}"
    if key not in host.notes:
        host.notes[key] = env_file.read(want.env_file, uid)
    return with_file(digest, host.notes[key])


def _whole(
    found: Mapping[Identity, str | None], parts: Mapping[Identity, tuple[int, int]]
) -> list[tuple[Identity, str | None]]:
    """Without the ``parts``, by launch and session, of what we have started ourselves."""
    first = {one.pid for one, digest in found.items() if digest is not None}
    return [
        (one, digest)
        for one, digest in found.items()
        if digest is not None or not first.intersection(parts.get(one, ()))
    ]


def left(
    resource: Resource[Process],
    host: Host,
    launches: Collection[int],
    table: ProcessSnapshot | None = None,
) -> tuple[list[Identity], tuple[int, ...]]:
    """What other launches of it than these have left behind, and their numbers.

    ``table`` is that of the pass, if there is no other. Raises UnknownState.
    """
    from reconciler.host.descendants import Descendants

    ours = started(resource.id, resource.want.user, host, but=launches)
    found = Descendants(ours, but=launches)
    behind = found.look(table or host.table)
    if not behind and any(host.processes.age(one) < 2 * _FORKED for one, _ in ours.ended):
        # A list that is read while one forks and ends may lack both of them.
        if "second look" not in host.notes:
            host.notes["second look"] = host.another_table()
        behind = found.look(host.notes["second look"])
    return behind, found.seen


def in_background(
    resource: Resource[Process], host: Host, behind: Sequence[Identity], launches: Collection[int]
) -> str | None:
    """What to say where a program that is to run has put itself into the background instead.

    That is what has left the session in which it was started, as daemon(3) does it, or was sent
    there by a shell; what was only just forked gets a moment for that. What else is left
    ``behind`` by other than these ``launches`` is only that. Raises UnknownState.
    """
    from reconciler.host.process_snapshot import ProcessSnapshot, carrier

    want = resource.want
    if not resource.present or want.match is not None:
        return None
    uid = host.users.account(want.user).uid
    sent = want.command[-1].rstrip().endswith("&")
    end = host.clock.monotonic() + _FORKED
    while behind:
        young = False
        for one in behind:
            known, entry = carrier(one.pid, uid), look_up(one.pid)
            version = known.version.partition(".")[0] if known is not None else ""
            if known is None or entry is None or version != want.digest():
                continue
            if sent or entry.session != known.launch:
                return (
                    f"it puts itself into the background, where pid {one.pid} runs; have it stay "
                    "in the foreground, or say in match which process it is (cmdline or pidfile)"
                )
            young = young or host.processes.age(one) < 2 * _FORKED
        gone = all(look_up(one.pid) is None for one in behind)
        if not (young or gone) or host.clock.monotonic() >= end:
            break
        # The whole table is read again when one of these has moved, or at the end.
        before = _sessions(behind)
        host.clock.sleep(0.02)
        while any(before) and _sessions(behind) == before and host.clock.monotonic() < end:
            host.clock.sleep(0.02)
        behind, _ = left(resource, host, launches, ProcessSnapshot())
    return None


def _sessions(some: Sequence[Identity]) -> list[int]:
    """Of each its session, 0 when it has ended."""
    entries = (look_up(one.pid) for one in some)
    return [0 if entry is None else entry.session for entry in entries]


def started(
    ident: str,
    user: str | None,
    host: Host,
    leader: Identity | None = None,
    launches: Collection[int] = (),
    but: Collection[int] = (),
) -> Started:
    """By what is known what that resource has started: see ``Descendants``.

    What another resource names as its own, or may name, is spared. Raises UnknownState.
    """
    from reconciler.host.descendants import Descendants, Started
    from reconciler.host.processes import owner_of

    records = host.start_records.of(ident, alive=False)
    ended = tuple((one.identity, one.tag) for one in records)
    # Before the spec was changed it may have run as another one.
    before = owner_of(leader.pid) if leader is not None else None
    uids = {host.users.account(user).uid} | ({before} if before is not None else set())
    if "processes" not in host.notes:
        declared = [one for one in host.declared if one.kind == "process"]
        host.notes["processes"] = {one.id: one.want for one in declared}
        host.notes["matched"] = [one for one in declared if one.want.match is not None]
    want = host.notes["processes"].get(ident)
    executor = want is not None and _is_executor(want)
    name = ident.partition(":")[2]
    ours = Started(known_as(ident, host), tuple(uids), name, ended, executor=executor)
    others = [one.want for one in host.notes["matched"] if one.id != ident]
    if not others:
        return ours
    descendants = Descendants(ours, leader, launches, but)
    found = descendants.look(host.table)
    within = {*launches, *descendants.seen}
    if leader is not None and (entry := host.table.entry(leader.pid)) is not None:
        within.add(entry.session)
    theirs = {one for want in others for one in _named(want, host, found, within)} if found else ()
    return replace(ours, spared=tuple(sorted(theirs)))


def _named(
    want: Process, host: Host, some: Sequence[Identity], within: Collection[int]
) -> Sequence[Identity]:
    """Of these the processes that the ``match`` of a resource names.

    Where that is not known, its trouble holds up no other one: these are then those of its user
    that have left the sessions in which they were started, as one that stands for itself does.
    """
    try:
        return matching(want, host, {one.pid for one in some})
    except HostError:
        match, uid = want.match, None
        with suppress(HostError):
            pidfile = host.files.status(match.pidfile) if match and match.pidfile else None
            if pidfile is not None and not stat.S_ISREG(pidfile.st_mode):
                return ()  # No number stands in it.
        with suppress(HostError):
            uid = host.users.account((match and match.user) or want.user).uid
    entries = {one: host.table.entry(one.pid) for one in some}
    return [
        one
        for one, entry in entries.items()
        if entry is not None
        and entry.session not in within
        and uid in (None, host.table.owner(one.pid))
    ]


def matching(want: Process, host: Host, among: Collection[int] | None = None) -> Sequence[Identity]:
    """Those that the ``match`` of a resource names, of all or of these. Raises UnknownState."""
    match = want.match
    if match is None:
        return ()
    uid = host.users.account(match.user or want.user).uid
    if match.cmdline is not None:
        return host.search.with_command_line(match.cmdline, uid, among)
    if match.exe is not None:
        return host.search.with_program(match.exe, uid, among)
    born, gained = host.processes.started, host.walltime.gained
    found = host.search.from_file(match.pidfile or "", uid, host.files, born, gained)
    return [one for one in found if among is None or one.pid in among]


def _is_executor(want: Process) -> bool:
    return any(program in word for word in want.command for program in _EXECUTOR)


def executors(want: Process, host: Host) -> Iterator[Key]:
    """The command executor that this is, if it is one whose home is known, by that."""
    words = want.command
    if not _is_executor(want) or "worker" not in words:
        return
    home = ""
    for at, word in enumerate(words):
        if word == "--home" or word.startswith("--home="):
            home = word.partition("=")[2] or next(iter(words[at + 1 :]), "")
    if not home:
        given = dict(want.env).get("AI_CO_HOME")
        try:  # A spec from the cache has no secrets, and its user may be unknown.
            home = given.reveal() if given is not None else ""
            home = home or f"{host.users.account(want.user).home}/ai_co"
        except HostError:
            return
    if home.startswith("/"):
        yield Key("executor", home.rstrip("/"))
