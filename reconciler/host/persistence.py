"""What comes back after a reboot: who brings it, and in which surroundings.

It must not change anything, nor read the host by itself. ``look`` is called in a child of its own;
the rest is pure.
"""

from __future__ import annotations

import glob
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reconciler.base.errors import Remedy, UnknownState
from reconciler.host import crondaemon, reading
from reconciler.host.environment import container_loop
from reconciler.host.remedy import remedy
from reconciler.host.spec_files import names

if TYPE_CHECKING:
    from reconciler.host import Host

_HOOKS = (".profile", ".bash_profile", ".bash_login", ".bashrc", ".zprofile", ".zshrc")
_ENABLED = "/etc/systemd/system"
_TEMPLATE = "/usr/lib/systemd/system/reconcile@.service"
_TABLES = ("/etc/crontab", "/etc/cron.d")
_MODES = ("--loop", "--once", "--repair")
_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_WATCHED = ("TMUX_TMPDIR", "HOME", "PATH")


def look(host: Host, spec_path: str, state_dir: str) -> dict[str, Any]:
    """Who would run the reconciler on this spec after a reboot, and how.

    ``runners``: each with ``what``, ``sort`` (unit, user unit, cron, login, container),
    ``works`` (False, with ``why``), ``at_boot``, ``state_dir`` and ``environ`` as it would have
    them.
    """
    runners: list[dict[str, Any]] = []
    unseen: list[str] = []
    account = host.users.account(None)
    systemd = os.path.isdir("/run/systemd/system")
    idle = crondaemon.missing()
    try:
        text = (host.crontabs.read(account.name) or b"").decode(errors="replace")
    except UnknownState as error:
        unseen.append(f"crontab: {error}")
        text = ""
    base = {"HOME": account.home, "PATH": "/usr/bin:/bin"}
    tables = [(f"a line in the crontab of {account.name}", text, False)]
    tables += [(name, told, True) for name, told in reading.texts(_TABLES)]
    for what, told, system in tables:
        for times, command, given in of_crontab(told, spec_path, system):
            runners.append(_cron(what, times, command, {**base, **given}, account.uid, idle))
    lingers = host.systemd.lingers()
    for scope in ("system", "user") if systemd else ():
        folder = host.systemd.folder(scope)
        for name, told in reading.texts([folder]):
            if name.endswith(".service") and runs(told, spec_path):
                enabled = crondaemon.wanted(os.path.basename(name), folder)
                runners.append(_unit(name, told, scope, enabled, lingers, account.uid))
    for name, told in _instances() if systemd else ():
        if runs(told, spec_path):
            runners.append(_unit(name, told, "system", True, lingers, account.uid))
    if runs(container_loop(), spec_path):
        what = "process 1 of this container"
        runners.append({**_hook(what, "--loop"), "sort": "container", "at_boot": True})
    for name in _HOOKS:
        path = os.path.join(account.home, name)
        told = reading.text(path) or ""
        if runs(told, spec_path):
            runners.append(_hook(path, told))
    return {
        "runners": runners,
        "unseen": unseen,
        "systemd": systemd,
        "cron_runs": not idle,
        "cron_enabled": crondaemon.starts_at_boot() if systemd else None,
        "cron_installed": crondaemon.installed(),
        "lingers": lingers,
        "user": account.name,
        "here": {
            "state_dir": state_dir,
            "environ": {name: os.environ.get(name, "") for name in _WATCHED},
        },
    }


def _instances() -> Iterator[tuple[str, str]]:
    """The enabled instances of the package's unit, each with its text."""
    template = reading.text(_TEMPLATE)
    if template is None:
        return
    begin, _, end = os.path.basename(_TEMPLATE).partition(".")
    for path in glob.glob(f"{_ENABLED}/*.wants/{begin}*.{end}"):
        name = os.path.basename(path)
        yield name, template.replace("%i", name.removeprefix(begin).removesuffix(f".{end}"))


def _hook(path: str, text: str) -> dict[str, Any]:
    return {
        "what": path,
        "sort": "login",
        "works": True,
        "at_boot": False,
        "loop": "--loop" in text,
        "state_dir": None,
        "environ": {},
    }


def of_crontab(
    text: str, spec_path: str, system: bool = False
) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Times, command and variables of each line that runs the reconciler on this spec. No I/O.

    ``system``: it is a table with a column for the user, as those of /etc are.
    """
    import logging

    from crontab import CronTab

    # It knows fewer schedules than cron does, and fails at a variable without a value.
    logging.getLogger("crontab").setLevel(logging.CRITICAL)
    text = re.sub(r"(?m)^([ \t]*\w+[ \t]*=)[ \t\r]*$", r'\1""', text)
    # It raises TypeError at times that cron takes, such as fri-7, in whosever line.
    lines = [x for x in text.splitlines() if "reconcile" in x or re.match(r"[ \t]*\w+[ \t]*=", x)]
    try:
        jobs = list(CronTab(tab="\n".join([*lines, ""]), user=False if system else None))
    except TypeError:
        return
    for job in jobs:
        if job.is_enabled() and runs(str(job.command), spec_path):
            yield str(job.slices), str(job.command), dict(job.env.all())


def runs(text: str, spec_path: str) -> bool:
    """Does a text run the reconciler on the spec at that path? Pure."""
    return "reconcile" in text and any(mode in text for mode in _MODES) and names(text, spec_path)


def _cron(
    what: str, times: str, command: str, environ: dict[str, str], uid: int, idle: bool
) -> dict[str, Any]:
    found = surroundings(command, environ, uid)
    row: dict[str, Any] = {
        "what": f"{what} ({times})", "sort": "cron", "works": not idle, "at_boot": True,
        "loop": "--loop" in command, **found,
    }  # fmt: skip
    if idle:
        row["why"] = "no cron daemon runs"
    if times != "@reboot":
        row["every"] = times
    return row


def _unit(
    name: str, text: str, scope: str, enabled: bool, lingers: bool, uid: int
) -> dict[str, Any]:
    environ: dict[str, str] = {}
    command = ""
    for line in text.replace("\\\n", " ").splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "Environment":
            environ |= dict(word.partition("=")[::2] for word in _words(value))
        elif key.strip() == "ExecStart":
            command = value.replace("%%", "%").replace("$$", "$")
    if scope == "user":
        environ.setdefault("HOME", os.environ.get("HOME", ""))
    row: dict[str, Any] = {
        "what": f"unit {os.path.basename(name)}" + (" of the user" if scope == "user" else ""),
        "sort": "user unit" if scope == "user" else "unit",
        "works": enabled, "at_boot": scope == "system" or lingers, "loop": "--loop" in command,
        **surroundings(command, environ, uid),
    }  # fmt: skip
    if not enabled:
        row["why"] = "it is not enabled"
    return row


def setup(
    look: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], apply: Remedy
) -> list[dict[str, Any]]:
    """What keeps the spec, and brings it back after a reboot, with what is missing of it. No I/O.

    ``rows`` are the declared resources that run the reconciler on this spec: ``id``, ``state``
    and ``scope`` (of a unit, else None); ``apply`` is the command that makes them. Each that is
    told has ``what``, ``state`` (set up or missing), ``words`` and ``remedy``, or None.
    """
    found = []

    def tell(what: str, is_there: bool, words: str, command: Remedy | None = None) -> None:
        state = "set up" if is_there else "missing"
        found.append({"what": what, "state": state, "words": words,
                      "remedy": None if is_there else command})  # fmt: skip

    for row in rows:
        is_there = row["state"] in ("ok", "paused", "failing")
        unknown = row["reason"] if row["state"] == "unknown" else ""
        tell(row["id"], is_there, unknown, apply)
    if any(row["id"].startswith("cron:") for row in rows):
        words, command = cron_daemon(look, os.geteuid())
        tell("cron daemon", command is None, words, command)
    if any(row["scope"] == "user" for row in rows):
        words = "" if look["lingers"] else "its units start at the first login only"
        linger = remedy("loginctl", "enable-linger", look["user"])
        tell(f"user {look['user']}", look["lingers"], words, linger)
    if not rows and not any(one["sort"] == "container" for one in look["runners"]):
        tell("watchdog", False, "the spec declares nothing that runs reconcile at boot")
    return found


def cron_daemon(look: Mapping[str, Any], uid: int) -> tuple[str, Remedy | None]:
    """How the cron daemon stands, and the command by which ``uid`` sets it up. No I/O."""
    root = () if uid == 0 else ("sudo",)
    if not look["cron_runs"]:
        start: tuple[str, ...] = ("apt-get", "install", "cron")
        if look["cron_installed"]:
            systemd = ("systemctl", "enable", "--now", "cron")
            start = systemd if look["systemd"] else ("service", "cron", "start")
        return "no cron daemon runs", remedy(*root, *start)
    if look["cron_enabled"] is False:
        words = "the cron daemon would not start at boot"
        return words, remedy(*root, "systemctl", "enable", "cron")
    return "", None


def surroundings(command: str, environ: Mapping[str, str], uid: int) -> dict[str, Any]:
    """Which state directory and variables that command would have. No I/O."""
    environ = dict(environ)
    words = _words(command)
    at = next((i for i, word in enumerate(words) if "reconcile" in os.path.basename(word)), 0)
    for word in words[:at]:
        match = _VARIABLE.fullmatch(word)
        if match is not None:
            environ[match[1]] = match[2]
    state_dir = None
    rest = words[at:]
    for i, word in enumerate(rest):
        if word == "--state-dir" and i + 1 < len(rest):
            state_dir = rest[i + 1]
        elif word.startswith("--state-dir="):
            state_dir = word.partition("=")[2]
    if state_dir is None:
        state_dir = environ.get("STATE_DIRECTORY", "").partition(":")[0] or None
    if (state_dir or "").startswith("~/"):
        state_dir = f"{environ.get('HOME', '')}{(state_dir or '')[1:]}"
    if state_dir is None and uid == 0:
        state_dir = "/var/lib/reconcile"
    if state_dir is None:
        home = environ.get("XDG_STATE_HOME") or f"{environ.get('HOME', '')}/.local/state"
        state_dir = f"{home}/reconcile"
    return {
        "state_dir": state_dir,
        "environ": {name: environ.get(name, "") for name in _WATCHED},
    }


def differences(look: Mapping[str, Any], tmux: bool) -> list[dict[str, Any]]:
    """Where a runner would come to another state directory, or other tmux servers. No I/O."""
    here = look["here"]
    found = []
    for runner in look["runners"]:
        if runner["state_dir"] is None:
            continue
        row = {"what": runner["what"], "state_dir": None, "environ": []}
        if os.path.normpath(runner["state_dir"]) != os.path.normpath(here["state_dir"]):
            row["state_dir"] = runner["state_dir"]
        for name in _WATCHED:
            mine, theirs = here["environ"][name], runner["environ"][name]
            if mine != theirs and (theirs or name == "TMUX_TMPDIR"):
                row["environ"].append({"name": name, "here": mine, "there": theirs})
        row["matters"] = row["state_dir"] is not None or (
            tmux and any(one["name"] == "TMUX_TMPDIR" for one in row["environ"])
        )
        if row["state_dir"] is not None or row["environ"]:
            found.append(row)
    return found


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()
