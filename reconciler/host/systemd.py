"""systemd: asked about its units, and told what to do with them.

It must not decide anything, and it is the only place that runs systemctl, systemd-analyze and
journalctl. What a user wrote is never given to a shell.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from reconciler.base.errors import HostError, UnknownState
from reconciler.base.text import censored
from reconciler.host.clock import Clock
from reconciler.host.command import Result, find, own_environment, run
from reconciler.host.environment import runtime_folder
from reconciler.host.remedy import remedy
from reconciler.host.users import Users
from reconciler.host.walk import reason

_ASK = 10.0
"""Seconds for what only looks; a start may take longer."""
_ACT = 45.0
_EACH = 0.2
"""Seconds that each further unit may take."""
_ENDED = ("inactive", "failed")
_UNIT_NAME = re.compile(r"[A-Za-z0-9:_.\\@-]+")
_PROPERTIES = (
    "Id", "Names", "LoadState", "LoadError", "ActiveState", "SubState", "UnitFileState",
    "FragmentPath", "NeedDaemonReload", "Result", "ExecMainStatus", "ExecMainCode",
    "ActiveEnterTimestamp", "StateChangeTimestamp", "NRestarts", "Job", "Type",
    "RemainAfterExit", "Triggers", "MainPID",
)  # fmt: skip
_VENDOR = {
    "system": (
        "/run/systemd/system", "/run/systemd/transient", "/run/systemd/generator",
        "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system",
    ),
    "user": (
        "/etc/systemd/user", "/run/systemd/user", "/usr/local/share/systemd/user",
        "/usr/share/systemd/user", "/usr/local/lib/systemd/user", "/usr/lib/systemd/user",
    ),
}  # fmt: skip


_ROUTINE = re.compile(
    r"(?:(?:Start|Stopp)(?:ing|ed)|Finished|Failed to start) UNIT\b"
    r"|UNIT: (?:Main process exited|Failed with result|Scheduled restart|Deactivated|Consumed)"
)


def is_routine(line: str, unit: str) -> bool:
    """Is it what systemd logs of every start and end of that unit? Pure."""
    return _ROUTINE.match(line.replace(unit, "UNIT")) is not None


class Systemd:
    """The managers of the system and of the caller; a scope is ``system`` or ``user``."""

    def __init__(self, users: Users, clock: Clock) -> None:
        self._users = users
        self._clock = clock
        self._reloaded: set[str] = set()
        self._restarted: set[tuple[str, str]] = set()

    def folder(self, scope: str) -> str:
        """Where the units are kept that people make, systemd.unit(5)."""
        if scope == "system":
            return "/etc/systemd/system"
        base = os.environ.get("XDG_CONFIG_HOME", "")
        if not base.startswith("/"):
            base = os.path.join(self._users.account(None).home, ".config")
        return os.path.join(os.path.abspath(base), "systemd/user")

    def environment_file(self, scope: str, name: str) -> str:
        """Where the EnvironmentFile of that name is that we make."""
        root = "/etc" if scope == "system" else self.folder(scope).removesuffix("/systemd/user")
        return f"{root}/reconcile/env/{name}"

    def elsewhere(self, scope: str, unit: str) -> str | None:
        """Where a unit of that name stands that one in ``folder`` would hide.

        A mask of the running system is none: it goes with the next boot.
        """
        for folder in _VENDOR[scope]:
            path = f"{folder}/{unit}"
            if os.path.lexists(path) and not (path.startswith("/run/") and is_mask(path)):
                return path
        return None

    def masked_until_boot(self, scope: str, unit: str) -> bool:
        """Is it masked in the running system alone, with ``--runtime``?"""
        run = "/run/systemd/system" if scope == "system" else f"{runtime_folder()}/systemd/user"
        return is_mask(f"{run}/{unit}")

    def silent(self, scope: str) -> str | None:
        """Why the manager of that scope cannot be asked, or None when it can."""
        if not os.path.isdir("/run/systemd/system"):
            return "systemd is not running here"
        if find("systemctl") is None:
            return "there is no systemctl here"
        if scope == "user" and not os.path.exists(f"{runtime_folder()}/systemd/private"):
            name = self._users.account(None).name
            return (
                f"no systemd of user {name} is running; it does after a login, or always after: "
                f"{remedy('loginctl', 'enable-linger', name)}"
            )
        return None

    def lingers(self) -> bool:
        """Does the caller's systemd run without a login, too?"""
        name = self._users.account(None).name
        return os.path.exists(f"/var/lib/systemd/linger/{name}")

    def show(self, scope: str, units: Sequence[str]) -> dict[str, dict[str, str]]:
        """What the manager knows of each unit, by its name. Raises UnknownState."""
        if not units:
            return {}
        asked = self._ask(
            scope, "show", "--timestamp=us+utc", f"--property={','.join(_PROPERTIES)}",
            "--", *units,
        )  # fmt: skip
        blocks = [
            dict(line.partition("=")[::2] for line in block.splitlines() if "=" in line)
            for block in asked.split("\n\n")
            if block.strip()
        ]
        if len(blocks) != len(units):
            raise UnknownState(f"systemctl reported {len(blocks)} units instead of {len(units)}")
        found = dict(zip(units, blocks, strict=True))
        for unit, block in found.items():
            if unit not in names_in(block.get("Names", "")):
                raise UnknownState(f"systemctl reported {block.get('Id')!r} instead of {unit!r}")
        return found

    def file_states(self, scope: str, units: Sequence[str]) -> dict[str, str]:
        """Of templates, which ``show`` does not know: ``enabled``, ``disabled`` and so on."""
        if not units:
            return {}
        said = self._ask(scope, "list-unit-files", "--full", "--no-legend", "--", *units)
        rows = [line.split() for line in said.splitlines()]
        return {row[0]: row[1] for row in rows if len(row) > 1}

    def _ask(self, scope: str, *words: str) -> str:
        result = self._run("systemctl", scope, words, _ASK)
        if result.status != 0 and not (words[0] == "list-unit-files" and not result.errors):
            raise UnknownState(f"systemctl {words[0]}: {result.complaint}")
        return result.output.decode("utf-8", "replace")

    def tell(self, scope: str, verb: str, *words: str) -> None:
        """Run ``systemctl VERB``. Raises HostError with what it says, or when it takes too long."""
        result = self._run("systemctl", scope, (verb, *words), _ACT)
        if result.status != 0:
            raise HostError(f"systemctl {verb} {' '.join(words)}: {result.complaint}")

    def tell_all(
        self, scope: str, verb: str, units: Sequence[str], *options: str
    ) -> dict[str, HostError]:
        """``tell`` for units of which each is started or stopped by itself; what went wrong.

        What takes too long is looked at: a start goes on, and so does what has been stopped.
        """
        if not units:
            return {}
        timeout = _ACT + _EACH * len(units)
        words = (verb, *options, "--", *units)
        try:
            result = self._run("systemctl", scope, words, timeout)
        except UnknownState as error:
            if verb != "stop":
                return {}
            known = self.show(scope, units)
            left = (one for one in units if known[one].get("ActiveState") not in _ENDED)
            return dict.fromkeys(left, error)
        if result.status == 0:
            return {}
        said: dict[str, list[str]] = {}
        for line in result.errors.decode("utf-8", "replace").splitlines():
            for name in {word.rstrip(".:") for word in _UNIT_NAME.findall(line)}:
                said.setdefault(name, []).append(censored(line.strip()))
        named = [unit for unit in units if unit in said]
        if len(units) == 1:
            named, said = list(units), {units[0]: [result.complaint]}
        elif not named:  # Of whom it complains is not said.
            return {
                unit: error
                for one in units
                for unit, error in self.tell_all(scope, verb, [one], *options).items()
            }
        return {
            unit: HostError(f"systemctl {verb} -- {unit}: {' '.join(said[unit])}") for unit in named
        }

    def changed(self, scope: str, unit: str) -> None:
        """Remember that a file of the unit is another one now."""
        self._reloaded.discard(scope)
        self._restarted.discard((scope, unit))

    def reload(self, scope: str) -> None:
        """Make the manager read its files, once for all that changed. Raises HostError."""
        if scope not in self._reloaded:
            self.tell(scope, "daemon-reload")
            self._reloaded.add(scope)

    def renew(self, scope: str, verb: str, units: Sequence[str]) -> dict[str, HostError]:
        """Restart or reload units, each once however many of its files changed; what went wrong."""
        todo = [unit for unit in units if (scope, unit) not in self._restarted]
        # Whoever waits for the end of the unit that it runs in waits for its own.
        ours = [unit for unit in todo if self.holds_us(unit)]
        errors = self.tell_all(scope, verb, [unit for unit in todo if unit not in ours])
        errors |= self.tell_all(scope, verb, ours, "--no-block")
        self._restarted |= {(scope, unit) for unit in todo if unit not in errors}
        return errors

    def settled(self, scope: str, units: Sequence[str], seconds: float) -> None:
        """Wait until none of these units is on its way any more, or until that time is over."""
        end = self._clock.monotonic() + seconds
        while units:
            known = self.show(scope, units)
            units = [
                unit
                for unit in units
                if known[unit].get("ActiveState") in ("activating", "deactivating", "reloading")
                and known[unit].get("SubState") != "auto-restart"
            ]
            if not units or self._clock.monotonic() > end:
                return
            self._clock.sleep(0.1)

    def holds_us(self, unit: str) -> bool:
        """Do we run in that unit? By the control group, proc_pid_cgroup(5)."""
        try:
            with open("/proc/self/cgroup", encoding="utf-8", errors="replace") as file:
                return any(unit in line.strip().split("/") for line in file)
        except OSError:
            return False

    def unit_of(self, pid: int) -> tuple[str, str] | None:
        """Scope and name of the unit whose main process that is, proc_pid_cgroup(5)."""
        try:
            with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="replace") as file:
                names = file.read().strip().split("/")
        except OSError:
            return None
        scope = "user" if any(name.startswith("user@") for name in names) else "system"
        unit = names[-1]
        if not unit.endswith(".service") or unit.startswith("user@") or self.silent(scope):
            return None
        is_main = self.show(scope, [unit])[unit].get("MainPID") == str(pid)
        return (scope, unit) if is_main else None

    def journal(self, scope: str, unit: str, words: Sequence[str]) -> list[str]:
        """What journalctl says of a unit with these options, by line. Raises HostError."""
        flag = "--unit" if scope == "system" else "--user-unit"
        known = (f"{flag}={unit}", "--output=short-iso", "--quiet", *words)
        result = self._run("journalctl", "", known, _ASK)
        if result.status != 0:
            raise HostError(f"journalctl does not tell of {unit}: {result.complaint}")
        return result.output.decode("utf-8", "replace").splitlines()

    def last_words(self, scope: str, unit: str, lines: int = 5) -> list[str]:
        """The last lines that a unit logged; none when they cannot be had.

        What systemd says of each start and end is left out: the unit's result says the same.
        """
        flag = "--unit" if scope == "system" else "--user-unit"
        words = (f"{flag}={unit}", f"--lines={4 * lines}", "--output=cat", "--quiet")
        try:
            result = self._run("journalctl", "", words, _ASK)
        except HostError:
            return []
        said = result.output.decode("utf-8", "replace").splitlines()
        said = [line for line in said if line.strip() and not is_routine(line, unit)]
        return [censored(line)[:500] for line in said][-lines:]

    def complaints(
        self, scope: str, files: Mapping[str, str], units: Sequence[str], folder: str
    ) -> tuple[list[str], int] | None:
        """What systemd-analyze says of ``units``, with its status; all ``files`` are by name.

        They are put into ``folder``, which is ours alone, and taken away again. None when it
        cannot be had here. Raises HostError.
        """
        if find("systemd-analyze") is None:
            return None
        _remove(folder)
        try:
            from reconciler.host.place import put_at

            os.makedirs(folder, mode=0o700)
            for name, text in files.items():
                path = f"{folder}/{name}"
                os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
                put_at(path, text.encode("utf-8", "surrogateescape"), 0o644, sync=False)
            words = ("verify", "--man=no", *(f"{folder}/{unit}" for unit in units))
            timeout = _ACT + _EACH * len(units)
            result = self._run(
                "systemd-analyze", scope, words, timeout, {"XDG_RUNTIME_DIR": folder}
            )
        except OSError as error:
            raise HostError(
                f"cannot check {', '.join(units)} in {folder}: {reason(error)}"
            ) from None
        finally:
            _remove(folder)
        said = result.errors.decode("utf-8", "replace").splitlines()
        if any("Failed to initialize manager" in line for line in said):
            return None
        return [line.removeprefix(f"{folder}/").strip() for line in said], result.status

    def _run(
        self,
        program: str,
        scope: str,
        words: Iterable[str],
        timeout: float,
        more: Mapping[str, str] | None = None,
    ) -> Result:
        path = find(program)
        if path is None:
            raise UnknownState(f"there is no {program} here")
        environ = own_environment(
            LC_ALL="C.UTF-8", SYSTEMD_COLORS="0", SYSTEMD_PAGER="cat",
            SYSTEMD_LOG_LEVEL="notice", SYSTEMD_LOG_TARGET="console",
            **(more or {}),
        )  # fmt: skip
        flags = [f"--{scope}"] if scope else []
        if program == "systemctl":
            flags += ["--no-pager", "--no-ask-password"]
            if scope == "user":
                environ["XDG_RUNTIME_DIR"] = runtime_folder() or ""
        return run([path, *flags, *words], timeout=timeout, environ=environ)


def is_mask(path: str) -> bool:
    """Does that path mask a unit, systemctl(1)?"""
    try:
        return os.readlink(path) == "/dev/null"
    except OSError:
        return False


def names_in(value: str) -> list[str]:
    """The names in a property; systemctl quotes those that hold a backslash, and doubles it."""
    return [word.strip('"').replace("\\\\", "\\") for word in value.split()]


def seconds(stamp: str | None) -> float | None:
    """``Wed 2022-11-23 10:11:12.123456 UTC`` since the epoch, or None when there is none."""
    from datetime import datetime

    words = (stamp or "").split()
    if len(words) != 4 or words[3] != "UTC":
        return None
    try:
        return datetime.fromisoformat(f"{words[1]} {words[2]}+00:00").timestamp()
    except ValueError:
        return None


def _remove(folder: str) -> None:
    """Take away a folder of ours with files and folders of files in it."""
    with suppress(FileNotFoundError, NotADirectoryError):
        for entry in list(os.scandir(folder)):
            if entry.is_dir(follow_symlinks=False):
                _remove(entry.path)
            else:
                os.unlink(entry.path)
        os.rmdir(folder)
