"""Processes of this host, by number or by what their command lines hold, for a spec."""

from __future__ import annotations

import functools
import os
import re
from typing import TYPE_CHECKING

from reconciler.base.errors import HostError
from reconciler.base.text import censored, printable
from reconciler.host.command import SYSTEM_PATH, find
from reconciler.host.launch import MARK
from reconciler.host.process_facts import ProcessFacts, facts, listening
from reconciler.host.processes import owner_of, pids, read_proc
from reconciler.migrate.document import Origin, SpecBlock
from reconciler.migrate.draft import LeftOut, SpecDraft

if TYPE_CHECKING:
    from reconciler.host import Host

_OF_LOGIN = re.compile(
    r"HOME|USER|LOGNAME|SHELL|PWD|OLDPWD|SHLVL|_|TERM|TERM_PROGRAM.*|MAIL|LANG|LANGUAGE|LC_.*|TZ|"
    r"LS_COLORS|LESS.*|DISPLAY|WAYLAND.*|XDG_.*|SSH_.*|SUDO_.*|DBUS_.*|TMUX.*|STY|WINDOW|COLORTERM|"
    r"INVOCATION_ID|JOURNAL_STREAM|SYSTEMD_.*|MANAGERPID|NOTIFY_SOCKET|LISTEN_.*|WATCHDOG_.*|"
    r"RECONCILE_.*|AI_.*|HOSTNAME|LINES|COLUMNS|EDITOR|PAGER|PS1|HIST.*"
)
"""Variables that a login or a supervisor has set, and that belong to no program."""
_SECRET = re.compile(r"(?i)pass|secret|token|key|credential|auth")
_INTERPRETER = re.compile(r"(python|perl|ruby|node|bash|sh|dash|java|php)[0-9.]*$")


def leave(draft: SpecDraft, holder: SpecBlock, origin: Origin, reason: str) -> None:
    """Something is not taken: a comment in its place, and a line for people."""
    holder.say(printable(f"left out: {reason}", 500))
    draft.left.append(LeftOut(origin, reason))


class _AllProcesses:
    """Of each process of this host its user, its command line and its parent, read once."""

    def __init__(self) -> None:
        self.lines: dict[int, str] = {}
        self.parents: dict[int, int] = {}
        self.alike: dict[tuple[int, str], list[int]] = {}
        """Those of one user with one command line."""
        self.children: dict[int, list[int]] = {}
        for pid in sorted(pids()):
            uid = owner_of(pid)
            if uid is None:
                continue
            raw = read_proc(pid, "cmdline", 32768) or b""
            line = os.fsdecode(raw.rstrip(b"\0").replace(b"\0", b" "))
            stat = (read_proc(pid, "stat", 4096) or b"").rpartition(b")")[2].split()
            self.lines[pid] = line
            self.parents[pid] = parent = int(stat[1]) if len(stat) > 1 else 0
            self.alike.setdefault((uid, line), []).append(pid)
            self.children.setdefault(parent, []).append(pid)

    def with_line(self, pattern: str) -> list[int]:
        """Those whose command line it fits, but for what has called us. Raises HostError."""
        try:
            matches = re.compile(pattern).search
        except re.error as error:
            raise HostError(f"is no number, and no pattern: {error}") from None
        ours, pid = set(), os.getpid()
        while pid and pid not in ours:
            ours.add(pid)
            pid = self.parents.get(pid, 0)
        return [pid for pid, line in self.lines.items() if pid not in ours and matches(line)]


def add_processes(name: str, origin: Origin, draft: SpecDraft, host: Host) -> None:
    """That process, or those whose command line a pattern fits. Raises HostError."""
    every = _AllProcesses()
    if name.isdigit():
        found = [int(name)]
    else:
        found = every.with_line(name)
        if not found:
            raise HostError("no process has such a command line")
        # What a process that fits has forked is a part of it.
        found = [pid for pid in found if every.parents[pid] not in found]
    done: set[tuple[int, tuple[str, ...]]] = set()
    for one in map(facts, found):
        if one.environ.get(MARK):
            raise HostError(f"process {one.pid} is of {one.environ[MARK]} already")
        if (one.uid, one.arguments) not in done:
            done.add((one.uid, one.arguments))
            _add(one, every, origin, draft, host)


def _add(
    one: ProcessFacts, every: _AllProcesses, origin: Origin, draft: SpecDraft, host: Host
) -> None:
    account = host.users.account(None)
    user = host.users.user_name(one.uid)
    command, exact = _command(one)
    # Those that it has forked from itself are a part of it.
    line = every.lines.get(one.pid, "")
    same = set(every.alike.get((one.uid, line), ()))
    first = [pid for pid in same if every.parents[pid] not in same]
    if censored(" ".join(command)) != " ".join(command):
        reason = "its command line holds what looks like a secret; write it by hand"
        leave(draft, draft.document, origin, f"process {one.pid}: {reason}")
        return
    made = draft.add("processes", _name(one), origin)
    made.put("command", command, origin)
    if one.unit is not None:
        made.say(f"{one.unit} starts it too: take it from there, or name unit:{one.unit} instead")
    if exact:
        made.put("match", {"cmdline": f"^{_quoted(line)}$"}, origin)
    elif one.program is not None:
        made.say("it has written something else over its arguments; they are not known")
        made.put("match", {"exe": one.program}, origin)
    if len(first) > 1:
        made.put("instances", len(first), origin)
    if one.uid != account.uid:
        made.put("user", user, origin)
    owner = host.users.account(user)
    if one.gid != owner.gid:
        made.put("group", host.users.group_name(one.gid), origin)
    if one.folder is not None and one.folder != owner.home and os.path.isdir(one.folder):
        made.put("cwd", one.folder, origin)
    _environment(one, made, origin)
    if one.output is not None:
        made.put("log", one.output, origin)
    if one.errors is not None and one.errors != one.output:
        made.put("stderr", one.errors, origin)
    for name, value, usual in (
        ("umask", one.umask.zfill(4), "0022"),
        ("nice", one.nice, 0),
        ("oom_score_adj", one.oom_score_adj, 0),
    ):
        if value != usual:
            made.put(name, value, origin)
    below = [child for pid in same for child in every.children.get(pid, ())]
    for port, address in sorted(listening([one.pid, *same, *below]).items()):
        check = draft.add("checks", f"{_name(one)}-{port}", origin)
        check.put("tcp", f"{address}:{port}", origin)


def _command(one: ProcessFacts) -> tuple[list[str], bool]:
    """What starts it, and whether its command line is still what it was started with."""
    called, *rest = one.arguments
    program = called
    if "/" in called and not called.startswith("/"):
        program = os.path.normpath(os.path.join(one.folder or "/", called))
    path = find(program, SYSTEM_PATH) if "/" not in program else program
    if path is not None and os.path.isfile(path):
        return [program if "/" in program else called, *rest], True
    exe = (one.program or "").removesuffix(" (deleted)")
    if " " in called or ":" in called or not exe:
        return [exe or called], False
    return [exe, *rest], True  # Such as -bash, or of a PATH that we do not have.


def _environment(one: ProcessFacts, made: SpecBlock, origin: Origin) -> None:
    if not one.environ:
        made.say("its environment is empty, or may not be read")
    env = {}
    for name, value in sorted(one.environ.items()):
        if _OF_LOGIN.fullmatch(name) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            continue
        if name == "PATH" and set(value.split(":")) <= set(SYSTEM_PATH.split(":")):
            continue
        if _is_secret(name, value):
            made.say(f"env: {name} looks like a secret and is left out; see env_file")
        else:
            env[name] = value
    if env:
        made.put("env", env, origin)


@functools.cache
def _is_secret(name: str, value: str) -> bool:
    """Kept, since most processes of a host have most of their variables in common."""
    return bool(_SECRET.search(name)) or censored(f"{name}={value}") != f"{name}={value}"


def _name(one: ProcessFacts) -> str:
    words = [os.path.basename(word.lstrip("-")) for word in one.arguments]
    scripts = [word for word in one.arguments[1:] if not word.startswith("-")]
    if _INTERPRETER.fullmatch(words[0]) and scripts:
        script = scripts[0].split()[:1] if "-c" in one.arguments else scripts[:1]
        return os.path.splitext(os.path.basename("".join(script)))[0] or words[0]
    return words[0].split()[0].rstrip(":") if words[0].split() else "process"


def _quoted(text: str) -> str:
    """For a regular expression, with nothing escaped that needs it not."""
    return re.sub(r"([.^$*+?{}\[\]\\|()])", r"\\\1", text)
