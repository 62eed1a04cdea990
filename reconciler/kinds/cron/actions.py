"""What is done to a user's crontab, and what is worth a note about it.

It must not install anything that it did not make from the very bytes that are there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reconciler.base.errors import HostError, Remedy
from reconciler.base.records import dataclass
from reconciler.base.text import redacted
from reconciler.core.batches import in_halves
from reconciler.core.kind import run_one
from reconciler.core.managed_block import lines_of
from reconciler.host.command import find
from reconciler.host.crontab import RefusedTable
from reconciler.host.remedy import hides, remedy, script
from reconciler.kinds.cron.lines import (
    LONGEST,
    Environment,
    misread,
    rendered,
    shown,
    shown_line,
)
from reconciler.kinds.cron.table import CronEntry, changed, table, without

if TYPE_CHECKING:
    from reconciler.host import Host

CRON_PATH = "/usr/bin:/bin"
"""Where cron(8) looks for programs, unless the crontab says otherwise."""
_POSIX_SHELLS = ("sh", "bash", "dash", "ash", "ksh", "ksh93", "mksh", "zsh", "yash", "busybox")
_SPECIAL, _ESCAPED = r"([].*^$/\\[])", r"\\\1"
_BUILTINS = (
    " : . [ alias bg break case cd command continue do done echo elif else esac eval exec exit "
    "export false fc fg fi for getopts hash if in jobs kill printf pwd read readonly return set "
    "shift source test then time times trap true type ulimit umask unalias unset until wait while "
)


@dataclass(frozen=True, slots=True)
class PutLine:
    """Put a line into a user's crontab, or in the place of the one that it has."""

    user: str
    entry: str
    schedule: str
    command: tuple[str, ...]
    env: Environment
    text: str | None = None
    """The line itself, where it comes from a template."""
    secret: bool = False
    replaced: bytes | None = None
    """A person's line that goes."""

    def made(self) -> CronEntry:
        """The entry itself, with all values. Raises HostError."""
        if self.text is not None:
            return CronEntry(self.text.encode("utf-8", "surrogateescape"))
        values = {name: secret.reveal() for name, secret in self.env}
        mailto = values.pop("MAILTO", None)
        line = rendered(self.schedule, self.command, values)
        return CronEntry(line, None if mailto is None else b"MAILTO=" + (mailto.encode() or b'""'))

    def describe(self) -> str:
        words = " in the place of the line that it replaces" if self.replaced is not None else ""
        return f"put into the crontab of {self.user}{words}: {self.shown()}"

    def shown(self) -> str:
        """The line as it may be shown."""
        if self.text is not None:
            return shown_line(self.made().line, self.secret)[0]
        names = {name: "" for name, _ in self.env if name != "MAILTO"}
        return shown(rendered(self.schedule, self.command, names), False)[0]


@dataclass(frozen=True, slots=True)
class DropLine:
    """Take a line of ours out of a user's crontab."""

    user: str
    entry: str

    def describe(self) -> str:
        return f"take the line of {self.entry} out of the crontab of {self.user}"


def run_all(actions: Sequence[Any], host: Host) -> list[Exception | None]:
    """Make all changes of each user's crontab at once; an outcome for each action."""
    others = {at: run_one(x, host) for at, x in enumerate(actions) if hasattr(x, "run")}
    lines = _run_lines([x for at, x in enumerate(actions) if at not in others], host)
    return [others[at] if at in others else lines.pop(0) for at in range(len(actions))]


def _run_lines(actions: Sequence[PutLine | DropLine], host: Host) -> list[HostError | None]:
    failed: dict[tuple[str, str], HostError] = {}
    of_user: dict[str, dict[str, CronEntry | None]] = {}
    replaced: dict[tuple[str, str], bytes] = {}
    secrets: list[str] = []
    for action in actions:
        entries = of_user.setdefault(action.user, {})
        if isinstance(action, DropLine):
            entries[action.entry] = None
            continue
        if action.replaced is not None:
            replaced[action.user, action.entry] = action.replaced
        secrets += [secret.value or "" for _, secret in action.env]
        try:
            made = action.made()
            if misread(made.line):
                raise HostError(f"python-crontab reads another command in {action.shown()!r}")
            entries[action.entry] = made
        except HostError as error:
            failed[action.user, action.entry] = error
    for user, entries in of_user.items():

        def change(names: Sequence[str], user: str = user) -> None:
            goes = {line for (who, name), line in replaced.items() if who == user and name in names}
            _change(user, {name: of_user[user][name] for name in names}, goes, host)

        for entry, refusal in in_halves(list(entries), change, RefusedTable).items():
            failed[user, entry] = type(refusal)(redacted(str(refusal), secrets))
    return [failed.get((action.user, action.entry)) for action in actions]


def _change(
    user: str, entries: Mapping[str, CronEntry | None], replaced: Collection[bytes], host: Host
) -> None:
    if any(entries.values()):
        # Where a pass is killed in between, the mark says too much, which does no harm.
        host.marks.add("cron", user)

    def edit(text: bytes | None) -> bytes | None:
        return changed(without(table(text, host.owner, user), replaced), entries)

    made = table(host.crontabs.change(user, edit), host.owner, user).entries
    for name, entry in entries.items():
        if entry is not None and (name not in made or misread(made[name].line)):
            raise HostError(f"crontab of {user}: the line of {name} came back as another one")
    if not made:
        host.marks.remove("cron", user)


def too_long(schedule: str, command: tuple[str, ...], env: Mapping[str, str]) -> str | None:
    """Why cron would refuse the line, or None."""
    values = {name: value for name, value in env.items() if name != "MAILTO"}
    size = len(rendered(schedule, command, values)) - len(schedule.encode()) - 1
    if size <= LONGEST:
        return None
    what = "command and env" if values else "the command"
    return (
        f"{what} would take {size} bytes in the crontab, and cron takes at most {LONGEST}; put "
        "them into a script"
    )


def by_hand(user: str, spec: str, lines: Sequence[PutLine]) -> Remedy | None:
    """A shell command with which root does all that is declared for that user.

    It takes out nothing but lines that are exactly ours, and may be run again. None where it
    would show a secret.
    """
    if any(line.env or line.secret for line in lines):
        return None
    text = changed(table(b"", spec, user), {line.entry: line.made() for line in lines})
    ours = [shown(line, False)[0] for line in lines_of(text or b"")]
    # Not grep: that leaves out all the rest when a line holds bytes that are no text to it.
    without = [word for x in ours for word in ("-e", f"/^{re.sub(_SPECIAL, _ESCAPED, x)}$/d")]
    crontab = remedy("crontab", "-u", user)
    left, made = remedy("sed", *without), remedy("printf", "%s\\n", *ours)
    if any(map(hides, ours)):
        return None
    return script(f"({crontab} -l 2>/dev/null | LC_ALL=C {left}; {made}) | {crontab} -")


def remarks(
    command: tuple[str, ...], settings: Mapping[bytes, bytes], path: str | None
) -> list[str]:
    """What a person should know about a line that is no drift.

    ``settings`` is what the crontab sets for it, ``path`` the line's own PATH.
    """
    found = []
    shell = settings.get(b"SHELL", b"/bin/sh").decode(errors="replace")
    if os.path.basename(shell) not in _POSIX_SHELLS:
        found.append(f"the crontab sets SHELL={shell}, no POSIX shell, for this line too")
    word = _first_word(command)
    if path is None:
        path = settings.get(b"PATH", CRON_PATH.encode()).decode(errors="replace")
    if word is not None and find(word, path) is None:
        if "/" in word:
            found.append(f"{word} is missing or not executable")
        else:
            found.append(f"cron would not find {word!r} in its PATH, {path}; write its whole path")
    return found


def _first_word(command: tuple[str, ...]) -> str | None:
    """The program that a command begins with, where that is easily known."""
    if len(command) != 3 or command[:2] != ("sh", "-c"):
        word = command[0]
    else:
        rest = command[2].split()
        while rest and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*=[A-Za-z0-9_./:@%+,-]*", rest[0]):
            rest.pop(0)
        word = rest[0].rstrip(";") if rest else ""
        if not re.fullmatch(r"[A-Za-z0-9_./+@:-]+", word) or f" {word} " in _BUILTINS:
            return None
    return None if "/" in word and not word.startswith("/") else word
