"""Lines in users' crontabs.

It must not change a byte that people have written there, nor show the value of a variable.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

from reconciler.base.errors import HostError, UnknownState
from reconciler.base.records import replace
from reconciler.base.values import Secret
from reconciler.core.kind import (
    Batched,
    Completed,
    Described,
    Kind,
    Orphans,
    Persistent,
    Prefetched,
)
from reconciler.core.model import (
    ABSENT,
    Action,
    Change,
    Claim,
    Declarations,
    Key,
    Observation,
    Resource,
    not_known,
)
from reconciler.host import crondaemon
from reconciler.kinds.cron.actions import (
    DropLine,
    PutLine,
    by_hand,
    remarks,
    run_all,
    too_long,
)
from reconciler.kinds.cron.lines import rendered, shown
from reconciler.kinds.cron.resource import Cron, CronState
from reconciler.kinds.cron.table import CronTable, table

if TYPE_CHECKING:
    from reconciler.host import Host

_OWN_COMMANDS = ("reconcile", "ai-cmd-executor")
_REFUSED = {
    "SHELL": "a line with env is always run by /bin/sh; name another shell in the command",
    "CRON_TZ": "not every cron knows it, and it would hold for other lines too",
    "RANDOM_DELAY": "not every cron knows it, and it would hold for other lines too",
    "MAILFROM": "not every cron knows it, and it would hold for other lines too",
    "CONTENT_TYPE": "not every cron knows it, and it would hold for other lines too",
    "CONTENT_TRANSFER_ENCODING": "not every cron knows it, and it would hold for other lines too",
    "LOGNAME": "cron sets it to the user of the crontab",
    "USER": "cron sets it to the user of the crontab",
}
_MAILTO = r"(?:[^\s'\"\\%](?:[^'\"\\%\r\n]{0,298}[^\s'\"\\%])?)?"
_UNREADABLE = "*"
_NO_PERCENT = (
    "busybox's crond gives the whole line to sh, with all that has a meaning behind % to other "
    "crons, so that it fails there; put what needs a % or env into a script"
)


class Crons(Kind[Cron, CronState], Completed, Persistent, Described, Batched, Orphans, Prefetched):
    """The section ``cron``."""

    section = "cron"
    resource = Cron

    def named(self, want: Cron, name: str) -> Cron:
        # A text that is folded, as long ones are, ends with a line end that nobody has meant.
        command = want.command
        if command[:2] == ("sh", "-c") and len(command) == 3:
            command = ("sh", "-c", command[2].rstrip("\n"))
        env = tuple(
            (key, Secret.of((secret.value or "").rstrip("\n")) if key == "MAILTO" else secret)
            for key, secret in want.env
        )
        return replace(want, command=command, env=env)

    def linked(self, want: Cron, declared: Declarations) -> Cron:
        facts = declared.facts
        command = want.command
        if command[0] in _OWN_COMMANDS and facts.bin:
            # cron's PATH is short, and ours may be in a virtual environment.
            command = (f"{facts.bin}/{command[0]}", *command[1:])
        values = {name: secret.value or "" for name, secret in want.env}
        problem = too_long(want.schedule, command, values)
        if problem is not None:
            raise ValueError("command", problem)
        return replace(want, command=command, caller=facts.user_name)

    def check(self, want: Cron) -> Iterable[tuple[str, str]]:
        if any(character in word for word in want.command for character in "\n\r\0"):
            yield "command", "a crontab has one line for each command; put several into a script"
        if want.schedule.startswith("@") and want.command[-1].lstrip().startswith("="):
            yield "command", "cron would take this line for a variable"
        for name, secret in want.env:
            if name in _REFUSED:
                yield f"env.{name}", f"{name} cannot be set: {_REFUSED[name]}"
            value = secret.value or ""
            if "\r" in value:
                yield f"env.{name}", f"{name} holds a carriage return"
            if name == "MAILTO" and not re.fullmatch(_MAILTO, value):
                yield "env.MAILTO", "MAILTO needs a plain address, without quotes, on one line"

    def claims(self, want: Cron) -> Iterable[Claim]:
        line = rendered(want.schedule, want.command, {}).decode("utf-8", "surrogateescape")
        where = f" in the crontab of {want.user}" if want.user else ""
        return (Claim(Key("cron line", f"{line}{where}")),)

    def expected(self, want: Cron) -> CronState:
        line = PutLine(want.whose, "", want.schedule, want.command, want.env).shown()
        digests = tuple((name, secret.digest) for name, secret in want.env)
        return CronState(line, digests, schedule=want.schedule)

    def begin(self, resources: Sequence[Resource[Cron]], host: Host) -> None:
        for resource in resources:
            host.crontabs.begin(resource.want.whose)

    def observe(
        self, resources: Sequence[Resource[Cron]], host: Host
    ) -> Sequence[Observation[CronState]]:
        tables: dict[str, CronTable | Observation[CronState]] = {}
        settings: dict[str, Mapping[bytes, bytes]] = {}
        for resource in resources:
            user = resource.want.whose
            if user not in tables:
                seen_table = tables[user] = self._table(user, resources, host)
                if isinstance(seen_table, CronTable):
                    settings[user] = seen_table.settings()
        first: set[str] = set()
        found = []
        idle = crondaemon.missing() if any(one.present for one in resources) else False
        for resource in resources:
            old = tables[resource.want.whose]
            if not isinstance(old, CronTable):
                found.append(old)
                continue
            # What is wrong with the block is told once, and fixed with any of its lines.
            leading = resource.present and old.user not in first
            if leading:
                first.add(old.user)
            told = idle and len(first) == 1 and leading
            seen = self._look(resource, old, settings[old.user], leading, told)
            if resource.present and _needs_percent(resource.want) and host.crontabs.busybox:
                words = f"{_NO_PERCENT}; {seen.note}" if seen.note else _NO_PERCENT
                seen = replace(seen, note=words)
            found.append(seen)
        return found

    def _table(
        self, user: str, resources: Sequence[Resource[Cron]], host: Host
    ) -> CronTable | Observation[CronState]:
        from reconciler.host.crontab import NotAllowed

        try:
            host.users.uid(user)
            return table(host.crontabs.read(user), host.owner, user)
        except NotAllowed as error:
            lines = [_line(one) for one in resources if one.present and one.want.whose == user]
            command = by_hand(user, host.owner, lines) if lines else None
            words = str(error)
            if lines:
                way = "do it" if command else "run the same pass (values of env are not shown)"
                words += f"; a user with the rights can {way}"
            return not_known(UnknownState(words, remedy=command))
        except UnknownState as error:
            return not_known(error)

    def _look(
        self,
        resource: Resource[Cron],
        old: CronTable,
        settings: Mapping[bytes, bytes],
        leading: bool,
        idle: bool,
    ) -> Observation[CronState]:
        want = resource.want
        entry = old.entries.get(want.entry or resource.id)
        state: CronState | None = None
        values: dict[str, str] = {}
        if entry is not None:
            line, values = shown(entry.line, False)
            if want.env and not entry.vouched and line != self.expected(want).line:
                # Who has edited it may have put a value anywhere in it.
                line = shown(b"", True)[0]
            digests = {name: Secret.of(value).digest for name, value in values.items()}
            if entry.mailto is not None:
                mailto = entry.mailto.partition(b"=")[2].decode(errors="replace")
                digests["MAILTO"] = Secret.of("" if mailto == '""' else mailto).digest
            block = old.trouble if leading and old.trouble else "in order"
            state = CronState(line, tuple(sorted(digests.items())), block, want.schedule)
        elif want.entry == "" and old.marked:
            state = CronState("")
        if not resource.present:
            return ABSENT if state is None else Observation(state)
        path = next((s.value or values.get(n) for n, s in want.env if n == "PATH"), None)
        own_path = any(name == "PATH" for name, _ in want.env)
        notes = [] if own_path and path is None else remarks(want.command, settings, path)
        if idle:
            notes.append("no cron daemon runs, so nothing will run it; start cron")
        return Observation(state, note="; ".join(notes) or None)

    def changes(self, expected: CronState | None, have: CronState | None) -> tuple[Change, ...]:
        if expected is None or have is None:
            if expected is have:
                return ()
            if expected is None:
                return (Change("state", "present", "absent"),)
            names = ", ".join(name for name, _ in expected.env)
            env = (Change("env", None, names),) if names else ()
            line = Change("line", None, expected.line)
            return (Change("state", "absent", "present"), line, *env, _runs(expected))
        found = []
        if have.line != expected.line:
            found.append(Change("line", have.line, expected.line))
            found.append(_runs(expected))
        if have.env != expected.env:
            differ = dict(set(have.env) ^ set(expected.env))
            found.append(Change("env", "differs", f"{', '.join(sorted(differ))} as declared"))
        if have.block != expected.block:
            found.append(Change("block", have.block, expected.block))
        return tuple(found)

    def words(self, changes: Sequence[Change]) -> str:
        """With the next run by the clock: for people only, and no part of any comparison."""
        told = []
        line = next((one.want for one in changes if one.field == "line"), "")
        for change in changes:
            if change.field == "state":
                told.append("missing" if change.have == "absent" else "present, should be absent")
            elif change.field == "runs":
                told.append(f"runs {change.want}{_next(line)}")
            elif change.field == "env" and change.have is None:
                told.append(f"with {change.want} in its environment")
            elif change.field == "env":
                told.append(f"env differs: {change.want}")
            elif change.field == "block":
                told.append(f"the block is damaged: {change.have}")
            elif change.have is not None:
                told.append(f"line is {change.have!r}, should be {change.want!r}")
        return "; ".join(told)

    def actions(
        self, resource: Resource[Cron], have: CronState | None, changes: Sequence[Change]
    ) -> Sequence[Action]:
        if resource.present:
            return (_line(resource),)
        name = resource.want.entry
        return (DropLine(resource.want.whose, resource.id if name is None else name),)

    def run_all(self, actions: Sequence[Action], host: Host) -> Sequence[Exception | None]:
        return run_all(cast("Sequence[PutLine | DropLine]", actions), host)

    def orphans(self, resources: Sequence[Resource[Cron]], host: Host) -> Sequence[Resource[Cron]]:
        caller = host.users.account(None).name
        users = [resource.want.whose for resource in resources] or [caller]
        marked = host.marks.of(self.name)
        names = {resource.id for resource in resources}
        found: list[Resource[Cron]] = []
        for user in dict.fromkeys([*users, *marked]):
            declared = [one for one in resources if one.want.whose == user]
            try:
                old = table(host.crontabs.read(user), host.owner, user)
            except HostError as error:
                if not declared and "there is no user" not in str(error):
                    found.append(_orphan(f"cron:{_UNREADABLE} ({user})", user, _UNREADABLE))
                continue
            mine = {one.id for one in declared}
            left = [name for name in old.entries if name not in mine]
            if old.marked and not old.entries and not any(one.present for one in declared):
                left = [""]
            for name in left:
                shown_as = name or "cron:markers"
                if shown_as in names:
                    shown_as = f"{shown_as} ({user})"
                names.add(shown_as)
                found.append(_orphan(shown_as, user, name))
        return found


def _needs_percent(want: Cron) -> bool:
    """Does a ``%`` stand in its line, for what is handed over behind it or as a sign? Pure."""
    return any(name != "MAILTO" for name, _ in want.env) or any(
        "%" in word or "\\\\" in word for word in want.command
    )


def _orphan(name: str, user: str, entry: str) -> Resource[Cron]:
    return Resource(
        name, Cron("@reboot", (":",), user=user, entry=entry), present=False, orphan=True
    )


def _line(resource: Resource[Cron]) -> PutLine:
    want = resource.want
    return PutLine(want.whose, resource.id, want.schedule, want.command, want.env)


def _runs(state: CronState) -> Change:
    from reconciler.kinds.cron.schedule import in_words

    return Change("runs", None, in_words(state.schedule or "@reboot"))


def _next(line: str) -> str:
    from reconciler.kinds.cron.schedule import next_run

    words = line.split(" ")
    schedule = words[0] if line.startswith("@") else " ".join(words[:5])
    at = next_run(schedule, time.time()) if line else None
    return "" if at is None else time.strftime(", next %Y-%m-%d %H:%M", time.localtime(at))


KIND = Crons()
