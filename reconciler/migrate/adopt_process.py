"""Processes of this host, by number or by what their command lines hold, for a spec."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from reconciler.base.errors import HostError
from reconciler.base.text import censored
from reconciler.host.command import SYSTEM_PATH, find
from reconciler.host.launch import MARK
from reconciler.host.process_facts import ProcessFacts, facts, listening
from reconciler.host.processes import owner_of, pids, read_proc
from reconciler.migrate.document import Origin, SpecBlock
from reconciler.migrate.draft import SpecDraft

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


def add_processes(name: str, origin: Origin, draft: SpecDraft, host: Host) -> None:
    """That process, or those whose command line a pattern fits. Raises HostError."""
    if name.isdigit():
        found = [facts(int(name))]
    else:
        found = _matching(name)
        if not found:
            raise HostError("no process has such a command line")
    for one in found:
        if one.environ.get(MARK):
            raise HostError(f"process {one.pid} is of {one.environ[MARK]} already")
    done: set[tuple[int, tuple[str, ...]]] = set()
    for one in found:
        if (one.uid, one.arguments) not in done:
            done.add((one.uid, one.arguments))
            _add(one, origin, draft, host)


def _matching(pattern: str) -> list[ProcessFacts]:
    try:
        matches = re.compile(pattern).search
    except re.error as error:
        raise HostError(f"is no number, and no pattern: {error}") from None
    ours = {os.getpid()}
    while (parent := _parent(min(ours))) > 1 and parent not in ours:
        ours.add(parent)
    found = []
    for pid in sorted(pids()):
        if pid in ours or owner_of(pid) is None:
            continue
        if matches(_line(pid)):
            found.append(pid)
    # What a process that fits has forked is a part of it.
    return [facts(pid) for pid in found if _parent(pid) not in found]


def _line(pid: int) -> str:
    raw = read_proc(pid, "cmdline", 32768) or b""
    return os.fsdecode(raw.rstrip(b"\0").replace(b"\0", b" "))


def _parent(pid: int) -> int:
    raw = (read_proc(pid, "stat", 4096) or b"").rpartition(b")")[2].split()
    return int(raw[1]) if len(raw) > 1 else 0


def _add(one: ProcessFacts, origin: Origin, draft: SpecDraft, host: Host) -> None:
    account = host.users.account(None)
    user = host.users.user_name(one.uid)
    command, exact = _command(one)
    # Those that it has forked from itself are a part of it.
    same = [pid for pid in pids() if owner_of(pid) == one.uid and _line(pid) == _line(one.pid)]
    first = [pid for pid in same if _parent(pid) not in same]
    made = draft.add("processes", _name(one), origin)
    if censored(" ".join(command)) != " ".join(command):
        raise HostError("its command line holds what looks like a secret; write it by hand")
    made.put("command", command, origin)
    if one.unit is not None:
        made.say(f"{one.unit} starts it too: take it from there, or name unit:{one.unit} instead")
    if exact:
        made.put("match", {"cmdline": f"^{_quoted(_line(one.pid))}$"}, origin)
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
    below = [pid for pid in pids() if _parent(pid) in same]
    for address in listening([one.pid, *same, *below]):
        check = draft.add("checks", f"{_name(one)}-{address.rpartition(':')[2]}", origin)
        check.put("tcp", address, origin)


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
    env = {}
    for name, value in sorted(one.environ.items()):
        if _OF_LOGIN.fullmatch(name) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            continue
        if name == "PATH" and set(value.split(":")) <= set(SYSTEM_PATH.split(":")):
            continue
        if _SECRET.search(name) or censored(f"{name}={value}") != f"{name}={value}":
            made.say(f"env: {name} looks like a secret and is left out; see env_file")
        else:
            env[name] = value
    if env:
        made.put("env", env, origin)


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
