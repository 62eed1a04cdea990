"""Lines in users' crontabs, and files of such lines in /etc/cron.d.

It must not change a byte that people have written there, nor show the value of a variable.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from reconciler.base.errors import HostError, Remedy, UnknownState
from reconciler.base.records import replace
from reconciler.base.values import Secret
from reconciler.core.claims import Claim, Declarations, Key
from reconciler.core.kind import (
    Batched,
    Completed,
    Described,
    Kind,
    Orphans,
    Persistent,
    Prefetched,
    Templated,
)
from reconciler.core.model import (
    ABSENT,
    Action,
    Change,
    Observation,
    Resource,
    diff,
    not_known,
)
from reconciler.host import crondaemon
from reconciler.kinds.cron.actions import by_hand, remarks, run_all, too_long
from reconciler.kinds.cron.changes import (
    base,
    in_words,
    line_actions,
    line_changes,
    put_line,
    put_lines,
)
from reconciler.kinds.cron.lines import job_in, rendered, shown, shown_line
from reconciler.kinds.cron.resource import Cron, CronState
from reconciler.kinds.cron.table import CronTable, table

if TYPE_CHECKING:
    from reconciler.core.templating import Templates
    from reconciler.host import Host
    from reconciler.kinds.cron.file import CronFileState
    from reconciler.kinds.cron.former import FormerState

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


class Crons(
    Kind[Cron, Any],
    Completed,
    Templated,
    Persistent,
    Described,
    Batched,
    Orphans,
    Prefetched,
):
    """The section ``cron``."""

    section = "cron"
    resource = Cron
    together = True

    def named(self, want: Cron, name: str) -> Cron:
        # A text that is folded, as long ones are, ends with a line end that nobody has meant.
        command = want.command
        if command is not None and command[:2] == ("sh", "-c") and len(command) == 3:
            command = ("sh", "-c", command[2].rstrip("\n"))
        env = tuple(
            (key, Secret.of((secret.value or "").rstrip("\n")) if key == "MAILTO" else secret)
            for key, secret in want.env
        )
        return replace(want, command=command, env=env)

    def linked(self, want: Cron, declared: Declarations) -> Cron:
        facts = declared.facts
        schedule, command = want.schedule, want.command
        if schedule is None or command is None or want.text is not None:
            return replace(want, caller=facts.user_name)
        if command[0] in _OWN_COMMANDS and facts.bin:
            # cron's PATH is short, and ours may be in a virtual environment.
            command = (f"{facts.bin}/{command[0]}", *command[1:])
        values = {name: secret.value or "" for name, secret in want.env}
        problem = too_long(schedule, command, values)
        if problem is not None:
            raise ValueError("command", problem)
        return replace(want, command=command, caller=facts.user_name)

    def check(self, want: Cron) -> Iterable[tuple[str, str]]:
        command = want.command or ("",)
        if any(character in word for word in command for character in "\n\r\0"):
            yield "command", "a crontab has one line for each command; put several into a script"
        if (want.schedule or "").startswith("@") and command[-1].lstrip().startswith("="):
            yield "command", "cron would take this line for a variable"
        if want.template is not None and want.content is not None:
            yield "content", "write either template or content, not both"
        lines = want.template is not None or want.content is not None
        if want.vars and not lines:
            yield "vars", "are for a template or content, and there is none"
        for name in ("schedule", "command", "env"):
            if getattr(want, name) and lines:
                what = "template" if want.template else "content"
                yield name, f"cannot stand beside {what}, whose lines have their own"
        if want.file is not None and not lines and (want.schedule or want.command):
            yield "file", "is for lines from a template or content, not for a single one"
        if want.replaces is not None and (lines or want.file or not job_in(want.replaces, False)):
            yield "replaces", "is a line of a crontab, beside schedule and command"
        if want.file is not None and want.user is not None:
            yield "user", "cannot stand beside file, in which each line names its user"
        if want.file is not None and not re.fullmatch(r"[A-Za-z0-9_-]{1,200}", want.file):
            words = "has letters, digits, _ and - alone: cron passes over others, as with dots"
            yield "file", f"is the name of a file in /etc/cron.d, which {words}"
        for name, secret in want.env:
            if name in _REFUSED:
                yield f"env.{name}", f"{name} cannot be set: {_REFUSED[name]}"
            value = secret.value or ""
            if "\r" in value:
                yield f"env.{name}", f"{name} holds a carriage return"
            if name == "MAILTO" and not re.fullmatch(_MAILTO, value):
                yield "env.MAILTO", "MAILTO needs a plain address, without quotes, on one line"

    def rendered(self, want: Cron, templates: Templates) -> Cron:
        from reconciler.kinds.cron.template import filled

        return filled(want, templates)

    def claims(self, want: Cron) -> Iterable[Claim]:
        if want.file is not None:
            asks = {"type": "a file", "content": "lines for cron"}
            return (Claim(Key("path", want.path), asks),)
        lines: Iterable[str] = want.lines().values()
        if want.schedule is not None and want.command is not None:
            line = rendered(want.schedule, want.command, {})
            lines = (line.decode("utf-8", "surrogateescape"),)
        where = f" in the crontab of {want.user}" if want.user else ""
        return [Claim(Key("cron line", f"{line}{where}")) for line in lines]

    def expected(self, want: Cron) -> CronState | CronFileState | FormerState:
        if want.former is not None:
            from reconciler.kinds.cron.former import state_of

            return state_of(want.former) or CronState("")
        if want.file is not None:
            from reconciler.kinds.cron import file

            return file.expected(want)
        if want.text is not None:
            lines = (
                (key, *shown_line(line.encode("utf-8", "surrogateescape"), want.secret))
                for key, line in want.lines().items()
            )
            return CronState("", lines=tuple(lines))
        line = put_line("", want).shown()
        digests = tuple((name, secret.digest) for name, secret in want.env)
        return CronState(line, digests, schedule=want.schedule)

    def begin(self, resources: Sequence[Resource[Cron]], host: Host) -> None:
        for resource in resources:
            if resource.want.file is None:
                host.crontabs.begin(resource.want.whose)

    def observe(
        self, resources: Sequence[Resource[Cron]], host: Host
    ) -> Sequence[Observation[Any]]:
        tables: dict[str, _UserTable | Observation[CronState]] = {}
        first: set[str] = set()
        found: list[Observation[Any]] = []
        idle = crondaemon.missing() if any(one.present for one in resources) else False
        for resource in resources:
            if resource.want.file is not None:
                from reconciler.kinds.cron import file

                found.append(file.look(resource, host, idle))
                continue
            user = resource.want.whose
            if user not in tables:
                tables[user] = self._table(user, resources, host)
            old = tables[user]
            if not isinstance(old, _UserTable):
                found.append(old)
                continue
            if resource.want.former is not None:
                from reconciler.kinds.cron import former

                found.append(former.look(resource, old.table))
                continue
            # What is wrong with the block is told once, and fixed with any of its lines.
            leading = resource.present and user not in first
            if leading:
                first.add(user)
            says_idle = idle and len(first) == 1 and leading
            seen = self._look(resource, old, leading, says_idle)
            if resource.present and _needs_percent(resource.want) and host.crontabs.busybox:
                words = f"{_NO_PERCENT}; {seen.note}" if seen.note else _NO_PERCENT
                seen = replace(seen, note=words)
            found.append(seen)
        return found

    def _table(
        self, user: str, resources: Sequence[Resource[Cron]], host: Host
    ) -> _UserTable | Observation[CronState]:
        from reconciler.host.crontab import NotAllowed

        try:
            host.users.uid(user)
            return _UserTable(table(host.crontabs.read(user), host.owner, user))
        except NotAllowed as error:
            mine = (one for one in resources if one.present and one.want.whose == user)
            lines = [line for one in mine if one.want.file is None for line in put_lines(one)]
            command = by_hand(user, host.owner, lines) if lines else None
            words = str(error)
            if lines:
                way = "do it" if command else "run the same pass (values of env are not shown)"
                words += f"; a user with the rights can {way}"
            return not_known(UnknownState(words, remedy=command))
        except UnknownState as error:
            return not_known(error)

    def _look(
        self, resource: Resource[Cron], old: _UserTable, leading: bool, idle: bool
    ) -> Observation[CronState]:
        want = resource.want
        entry = old.table.entries.get(want.entry or resource.id)
        lines = old.lines_of(resource.id, want.secret) if want.entry is None else ()
        state: CronState | None = None
        values: dict[str, str] = {}
        if entry is not None or lines:
            line, digests = "", {}
            if entry is not None:
                line, values = shown(entry.line, False)
                if want.env and not entry.vouched and line != put_line("", want).shown():
                    # Who has edited it may have put a value anywhere in it.
                    line = shown(b"", True)[0]
                digests = {name: Secret.of(value).digest for name, value in values.items()}
                if entry.mailto is not None:
                    mailto = entry.mailto.partition(b"=")[2].decode(errors="replace")
                    digests["MAILTO"] = Secret.of("" if mailto == '""' else mailto).digest
            block = old.table.trouble if leading and old.table.trouble else "in order"
            state = CronState(line, tuple(sorted(digests.items())), block, want.schedule, lines)
        elif want.entry == "" and old.table.marked:
            state = CronState("")
        if not resource.present:
            return ABSENT if state is None else Observation(state)
        if want.replaced is not None and want.replaced in old.others:
            if state is not None:
                state = replace(state, block="the line that it replaces is there too")
            else:
                same = want.is_replaced()
                line = put_line("", want).shown() if same else str(want.replaces)
                state = CronState(line, schedule=want.schedule)
        path = next((s.value or values.get(n) for n, s in want.env if n == "PATH"), None)
        own_path = any(name == "PATH" for name, _ in want.env)
        commands = [want.command] if want.command else []
        commands += [("sh", "-c", job.command) for job in want.jobs()]
        notes = [
            note
            for command in commands
            if not own_path or path is not None
            for note in remarks(command, old.settings, path)
        ]
        if idle:
            notes.append("no cron daemon runs, so nothing will run it; start cron")
        return Observation(state, note="; ".join(dict.fromkeys(notes)) or None)

    def changes(self, expected: Any, have: Any) -> tuple[Change, ...]:
        if isinstance(expected or have, CronState):
            return line_changes(expected, have)
        if hasattr(expected or have, "crontab"):
            from reconciler.kinds.cron import former

            return former.changes(expected, have)
        return diff(expected, have)

    def words(self, changes: Sequence[Change]) -> str:
        return in_words(changes)

    def by_hand(
        self, resource: Resource[Cron], have: Any, changes: Sequence[Change]
    ) -> Sequence[Remedy]:
        actions = self.actions(resource, have, changes)
        return [action.shell() for action in actions if hasattr(action, "shell")]

    def actions(
        self, resource: Resource[Cron], have: Any, changes: Sequence[Change]
    ) -> Sequence[Action]:
        if resource.want.file is not None:
            from reconciler.kinds.cron import file

            return file.actions(resource, have)
        if resource.want.former is not None:
            from reconciler.kinds.cron import former

            return former.actions(resource, have)
        return line_actions(resource, have, changes)

    def run_all(self, actions: Sequence[Action], host: Host) -> Sequence[Exception | None]:
        return run_all(actions, host)

    def orphans(self, resources: Sequence[Resource[Cron]], host: Host) -> Sequence[Resource[Cron]]:
        caller = host.users.account(None).name
        of_tables = [one for one in resources if one.want.file is None]
        users = [one.want.whose for one in of_tables] or [caller]
        marked = host.marks.of(self.name)
        names = {resource.id for resource in resources}
        found: list[Resource[Cron]] = []
        if any(name.startswith("/") for name in marked):
            from reconciler.kinds.cron import file

            found += file.orphans({str(one.want.file) for one in resources}, host)
        for user in dict.fromkeys([*users, *marked]):
            if user.startswith("/"):
                continue
            declared = [one for one in of_tables if one.want.whose == user]
            try:
                old = table(host.crontabs.read(user), host.owner, user)
            except HostError as error:
                if not declared and "there is no user" not in str(error):
                    found.append(_orphan(f"cron:{_UNREADABLE} ({user})", user, _UNREADABLE))
                continue
            mine = {one.id for one in declared}
            left = [name for name in old.entries if mine.isdisjoint((name, base(name)))]
            if old.marked and not old.entries and not any(one.present for one in declared):
                left = [""]
            for name in left:
                shown_as = name or "cron:markers"
                if shown_as in names:
                    shown_as = f"{shown_as} ({user})"
                names.add(shown_as)
                found.append(_orphan(shown_as, user, name))
        return found


class _UserTable:
    """The crontab of a user, what it sets for our lines, and which of these are of templates."""

    def __init__(self, old: CronTable) -> None:
        self.table = old
        self.settings = old.settings()
        self.others = old.others()
        self._of: dict[str, list[str]] = {}
        for name in sorted(old.entries):
            self._of.setdefault(base(name), []).append(name)

    def lines_of(self, ident: str, secret: bool) -> tuple[tuple[str, str, str], ...]:
        """Those of that resource's template, as a state has them."""
        return tuple(
            (name[len(ident) :], *shown_line(b"\n".join(self.table.entries[name].lines), secret))
            for name in self._of.get(ident, ())
            if name != ident
        )


def _needs_percent(want: Cron) -> bool:
    """Does a ``%`` stand in its line, for what is handed over behind it or as a sign? Pure."""
    return (
        any(name != "MAILTO" for name, _ in want.env)
        or any("%" in word or "\\\\" in word for word in want.command or ())
        or any("%" in job.command for job in want.jobs())
    )


def _orphan(name: str, user: str, entry: str) -> Resource[Cron]:
    return Resource(
        name, Cron("@reboot", (":",), user=user, entry=entry), present=False, orphan=True
    )


KIND = Crons()
