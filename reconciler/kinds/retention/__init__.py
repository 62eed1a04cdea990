"""How long files are kept: what is too old, too many or too large is deleted, moved, archived
or, where it is a live log, rotated.

It must not touch what no rule names, nor anything beyond a symlink or a mount point.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from reconciler.base.errors import HostError
from reconciler.base.records import replace
from reconciler.core.claims import Claim, Declarations, Key
from reconciler.core.kind import Ageing, Completed, Described, Diagnosed, Kind, Verified
from reconciler.core.model import (
    Action,
    Change,
    Observation,
    Resource,
    not_known,
)
from reconciler.core.patterns import as_matched, below
from reconciler.host.choose import Rule
from reconciler.host.filesystems import leads_to_server
from reconciler.host.found import DEVICE, SIZE, TAKEN, Packed
from reconciler.host.periods import period_start
from reconciler.host.scan import SeenFiles, Wanted, scan
from reconciler.host.walk import reason
from reconciler.kinds.process import KIND as PROCESSES
from reconciler.kinds.process.resource import Process
from reconciler.kinds.retention.due import Due, Log, counted, in_words, size
from reconciler.kinds.retention.resource import Retention, wrong

if TYPE_CHECKING:
    from reconciler.host import Host


_LATER = "for the next passes (max_files_per_pass)"


class Retentions(Kind[Retention, Due], Completed, Described, Verified, Ageing, Diagnosed):
    """The section ``retention``."""

    section = "retention"
    resource = Retention

    def named(self, want: Retention, name: str) -> Retention:
        return replace(want, exclude=tuple(map(as_matched, want.exclude)))

    def linked(self, want: Retention, declared: Declarations) -> Retention:
        if want.rotates and not want.copies:
            logs = (
                log
                for ident, one in declared.wants.items()
                if isinstance(one, Process) and ident in declared.present
                for log in one.logs
            )
            want = replace(want, streams=tuple(log for log in logs if _may_be_about(want, log)))
        if want.signal is None:
            return want
        name = f"process:{want.signal[1]}"
        if name not in declared.wants:
            words = f"there is no process {want.signal[1]!r}; declare it under processes"
            raise ValueError("signal", words)
        process = declared.wants[name]
        if not isinstance(process, Process):
            return want  # It is declared, but wrong; that has been said.
        # Its environment has no bearing on who it is, and secrets are not for us to keep.
        return replace(want, told=replace(PROCESSES.linked(process, declared), env=()))

    def disputed(self, want: Retention) -> Iterable[tuple[str, str]]:
        for log in filter(want.is_about, want.streams):
            yield "method" if want.method else "action", _renamed(log)

    def check(self, want: Retention) -> Iterable[tuple[str, str]]:
        return wrong(want)

    def claims(self, want: Retention) -> Iterable[Claim]:
        return (Claim(Key("files", f"{want.path}/{', '.join(sorted(want.match))}")),)

    def uses(self, want: Retention) -> Iterable[Key]:
        yield Key("path", want.path)
        if want.action == "move" and want.to is not None:
            yield Key("path", want.to)
        elif want.to is not None:
            yield Key("path", want.to.rpartition("/")[0] or "/")
        if want.signal is not None:
            yield Key("id", f"process:{want.signal[1]}")

    def shows(self, resource: Resource[Retention], host: Host) -> Iterable[Key]:
        want = resource.want
        return [Key("logs", f"{want.path}/{one}") for one in want.match] if want.rotates else []

    def says(self, resource: Resource[Retention], host: Host) -> Iterable[Key]:
        """The logs that it rotates, as they are there now."""
        from reconciler.host.folders import matching

        for key in self.shows(resource, host):
            yield from (Key("log", path) for path in matching(key.value))

    def expected(self, want: Retention) -> Due:
        return Due()

    def observe(
        self, resources: Sequence[Resource[Retention]], host: Host
    ) -> Sequence[Observation[Due]]:
        return [self._look(resource.want, host) for resource in resources]

    def _look(self, want: Retention, host: Host) -> Observation[Due]:
        stream = _stream(want, host) if want.rotates and not want.copies else None
        if stream is not None:
            return Observation(unknown=_renamed(stream))
        now = int(host.clock.wall() * 10**9)
        try:
            if want.returned is not None:
                from reconciler.kinds.retention.returned import look

                return look(want, now)
            if want.action == "move" and _as_seen(want) == want.path:
                return Observation(unknown=f"{want.to} leads to {want.path}, where the files are")
            seen = scan(_wanted(want, now))
            due, held, later = _due(want, seen, now, host)
        except FileNotFoundError:
            return Observation(Due(), note=f"{want.path} is not there, so nothing is due")
        except OSError as error:
            return Observation(unknown=f"cannot look through {want.path}: {reason(error)}")
        except HostError as error:
            return not_known(error)
        by_time = want.older_than is not None or want.every is not None
        doubt = host.walltime.doubt() if (due.files or due.empty) and by_time else None
        if doubt is not None:
            return not_known(doubt)
        unsure = None
        if seen.unread:
            number = counted(len(seen.unread), "folder")
            unsure = f"{number} below {want.path} cannot be read: {seen.unread[0]}"
        notes = [*_notes(want, seen, held), *later]
        if want.dry and due:
            notes.insert(0, f"dry: {in_words(due.changes())}; nothing is done")
            due = Due()
        more = _goes_on(want, seen) and bool(due) and not later
        return Observation(due, note="; ".join(notes) or None, unsure=unsure, more=more)

    def changes(self, expected: Due | None, have: Due | None) -> tuple[Change, ...]:
        return have.changes() if expected is not None and have is not None else ()

    def words(self, changes: Sequence[Change]) -> str:
        return in_words(changes)

    def verb(self, expected: Due | None, have: Due | None) -> str:
        return "update"

    def stale(self, planned: Sequence[Action], now: Sequence[Action]) -> bool:
        # Each file is looked at again right before it is touched. That others have become due
        # since is for the next pass.
        return False

    def left(
        self, planned: Sequence[Action], found: Sequence[Change], have: Due | None
    ) -> Sequence[Change]:
        from reconciler.kinds.retention.actions import left

        return () if have is None else left(planned, have)

    def spared(self, actions: Sequence[Action]) -> tuple[str | None, bool]:
        from reconciler.kinds.retention.actions import spared

        return spared(actions)

    def looks_itself(self, want: Retention) -> bool:
        return want.only_old and not want.rotates

    def rest(self, want: Retention, actions: Sequence[Action]) -> Retention | None:
        from reconciler.kinds.retention.actions import rest

        return rest(want, actions)

    def freed(self, actions: Sequence[Action]) -> int | None:
        from reconciler.kinds.retention.actions import freed

        return freed(actions)

    def actions(
        self, resource: Resource[Retention], have: Due | None, changes: Sequence[Change]
    ) -> Sequence[Action]:
        # What acts is not loaded where nothing is to be done.
        from reconciler.kinds.retention.actions import actions

        return () if have is None else actions(resource.want, have)


def _may_be_about(want: Retention, log: str) -> bool:
    """Could it be about that file, if some folder of either is a symlink?"""
    there = replace(want, path=log.rpartition("/")[0] or "/")
    return there.is_about(log) or want.is_about(log) or any("/" in one for one in want.match)


def _stream(want: Retention, host: Host) -> str | None:
    """What it would rename though a daemon writes to it, as the host has it: symlinks as well."""
    top = os.path.realpath(want.path)
    folders: dict[str, str] = {}
    # Those of daemons without a log of their own may have any name.
    ours = os.path.join(host.state_dir, "log", "x.log")
    for log in (*want.streams, ours):
        folder, _, name = log.rpartition("/")
        if folder not in folders:
            folders[folder] = os.path.realpath(folder or "/")
        real = f"{folders[folder].rstrip('/')}/{name}"
        inside = real.removeprefix(f"{top.rstrip('/')}/")
        rule = replace(want, match=("*",)) if log is ours else want
        if inside != real and rule.is_about(f"{want.path.rstrip('/')}/{inside}"):
            return folder if log is ours else log
    return None


def _renamed(log: str) -> str:
    return (
        f"would rename {log}, the standard output of a daemon, which goes on writing to the "
        "renamed file whatever it is told; write method: copytruncate"
    )


def _wanted(want: Retention, now: int) -> Wanted:
    before = None if want.older_than is None else now - int(want.older_than * 10**9)
    never = shun = since = None
    if want.every is not None:
        since = period_start(want.every, now)
    if want.action == "archive" and want.to is not None:
        never = _any_time(_as_seen(want))
    if want.action == "move":
        shun = _as_seen(want)
    return Wanted(
        want.path,
        Rule(want.keep_last, before, want.max_total, want.most, want.backups),
        want.match,
        tuple(below(want.path, pattern) for pattern in want.exclude),
        want.recursive,
        want.age_by or "mtime",
        want.max_file,
        since,
        want.names if want.rotates else None,
        never,
        shun,
        want.remove_empty is True,
    )


def _as_seen(want: Retention) -> str:
    """``to`` as it is called below ``path``, where it is there, whatever links lead to it."""
    to = want.to or ""
    fixed, sign, rest = to.partition("%")
    folder, slash, name = fixed.rpartition("/") if want.action == "archive" else (to, "", "")
    if any(map(leads_to_server, (want.path, folder))):
        return to  # Neither is asked anything before the look that has an end.
    top, real = os.path.realpath(want.path), os.path.realpath(folder or "/")
    inside = f"{real}/".removeprefix(f"{top}/")
    if inside == f"{real}/":
        return to
    return f"{want.path}/{inside}".rstrip("/") + (f"{slash}{name}{sign}{rest}" if slash else "")


def _any_time(path: str) -> str:
    """A pattern for the path with any values of its strftime fields, and for its further parts."""
    path = path.removesuffix(".tar.gz")
    parts = (
        "%" if part == "%%" else ".*" if part.startswith("%") else re.escape(part)
        for part in re.split(r"(%[-_0^#]?[a-zA-Z%])", path)
    )
    return "".join(parts) + r"(\.part[0-9]+)?\.tar\.gz"


def _due(want: Retention, seen: SeenFiles, now: int, host: Host) -> tuple[Due, int, list[str]]:
    """What is due of what was seen, how much of it is held open, and notes on what is left."""
    files = seen.chosen.files
    held = 0
    if files and not want.rotates and want.skip_open is not False:
        from reconciler.host.remove import free

        found = free(want.path, files, host.open_files)
        files, held = found, len(files) - len(found)
    uncompressed: tuple[Log, ...] = ()
    if want.compresses and seen.rotated:
        from reconciler.host.compress import compressible

        rotated = seen.rotated
        if want.delay_compress:
            now_older = {(file.below, file.name) for file in files}
            rotated = [
                log for log in rotated if log not in seen.newest or _of(want, log) in now_older
            ]
        # Somebody else may make as many names as he likes that look like logs of ours.
        rotated = sorted(rotated)[: want.most]
        closed, still = compressible(want.path, rotated, seen.newest, host.open_files)
        uncompressed, held = tuple(closed), len(still)
    unfinished = tuple(sorted(seen.passing)[: want.most])
    files, later = _bounded(want, files)
    goal = None
    if want.action == "archive" and want.to is not None:
        goal = time.strftime(want.to, time.localtime(now / 10**9))
    return Due(files, unfinished, uncompressed, now, goal, tuple(seen.empty)), held, later


def _of(want: Retention, rotated: Log) -> Log:
    """The log of which that is a rotated one."""
    parsed = want.names.parsed(rotated[1])
    return rotated[0], parsed.log if parsed is not None else ""


def _bounded(want: Retention, files: Packed) -> tuple[Packed, list[str]]:
    """Of those that are due, what one pass can read and write, and notes on the rest."""
    if not files or not (want.copies or want.action in ("archive", "move")):
        return files, []
    from reconciler.host.work import MOST, affordable, hollow, room

    notes: list[str] = []
    to, whole = want.to or want.path, want.action == "archive"
    if whole:
        # An archive holds holes as zeros, every one of them.
        if any(map(hollow, files.column(SIZE), files.column(TAKEN))):
            holes = [file.path for file in files if hollow(file.size, file.taken)]
            number = counted(len(holes), "file")
            notes.append(f"{number} of holes, too long to be archived ({min(holes)})")
            files = Packed([file for file in files if not hollow(file.size, file.taken)])
        to = to.partition("%")[0].rpartition("/")[0]
    try:
        device, free = room(to)
    except OSError:
        return files, notes  # Who writes there will tell what is wrong.
    if want.action == "move" and all(one == device for one in files.column(DEVICE)):
        return files, notes
    most = min(MOST, free)
    if sum(files.column(SIZE if whole else TAKEN)) <= most:
        return files, notes
    taken, rest = affordable(sorted(files), lambda file: file.size if whole else file.taken, most)
    if rest:
        why = f"one reads {size(MOST)}" if free >= MOST else f"there is room for {size(free)}"
        notes.append(f"{counted(len(rest), 'file')} more due, for the next passes ({why})")
    return Packed(taken), notes


def _goes_on(want: Retention, seen: SeenFiles) -> bool:
    """Is there more than one step does, and no brake on it? A log is rotated once in a pass."""
    more = seen.chosen.more or seen.chosen.more_bytes
    return bool(more) and want.max_files_per_pass is None and not want.rotates


def _notes(want: Retention, seen: SeenFiles, held: int) -> Iterable[str]:
    if held:
        yield f"{counted(held, 'file')} held open by a process, left alone for now"
    chosen = seen.chosen
    if chosen.more or chosen.more_bytes:
        more = counted(chosen.more, "file") if chosen.more else size(chosen.more_bytes)
        when = "for further steps" if _goes_on(want, seen) else _LATER
        yield f"{more} more due, {when}"
    if seen.left_out:
        yield f"{counted(len(seen.left_out), 'folder')} left out: {seen.left_out[0]}"
    left = max(len(seen.rotated), len(seen.passing)) - want.most
    if left > 0:
        yield f"{counted(left, 'log')} more to finish, {_LATER}"
    if seen.ageless:
        yield f"{counted(seen.ageless, 'file')} without a believable time, taken for new"


KIND = Retentions()
