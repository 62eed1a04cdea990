"""What can be done about a unit: its file written or removed, its manager told.

It must not write a file that systemd-analyze refuses.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from reconciler.base.errors import HostError, Remedy, UnknownState
from reconciler.base.records import dataclass
from reconciler.core.model import Action, Change, Resource
from reconciler.host.remedy import hides, in_turn, remedy
from reconciler.kinds.unit import Unit, UnitState

if TYPE_CHECKING:
    from reconciler.host import Host

STAGES = FILES, REMOVED, LINKS, MANAGER = range(4)
"""Of all units: what is stopped, disabled and written; files that go, which nothing may need by
then; the symlinks that enable; what the manager does."""
_STAND_INS = {
    "service": "[Service]\nExecStart=/bin/true\n",
    "timer": "[Timer]\nOnBootSec=1\n",
    "path": "[Path]\nPathExists=/\n",
    "socket": "[Socket]\nListenStream=/run/x\n",
    "target": "[Unit]\n",
}
"""What a drop-in is checked with when the unit itself cannot be read."""
_OF_OTHERS = re.compile(
    r"Unit \S+ (not found|is masked)|\S+ not loaded, \S+ cannot be started|Failed to (load|create)"
)
"""Complaints that other units are missing: they may come later, and need not be there."""
_ADVICE = re.compile(r"not safe|unsafe|deprecated|obsolete|legacy|[Cc]onsider")
"""What systemd says of something that it takes as it is."""
_UNKNOWN_KEY = re.compile(r"Unknown (key|lvalue) ")
"""What it says of a key of a newer systemd, and then goes on without it."""


@dataclasses.dataclass(frozen=True, slots=True)
class WriteUnit:
    """Write the file, if systemd-analyze finds nothing wrong with it."""

    stage: ClassVar[int] = FILES
    scope: str
    unit: str
    name: str
    """Below the folder of units: UNIT, or UNIT.d/NAME.conf."""
    path: str
    text: str
    seen: str | None
    mode: str
    secret: bool
    ignored: list[str] = dataclasses.field(default_factory=list, compare=False, repr=False)
    """Afterwards: what systemd has said of keys that it does not know."""

    def describe(self) -> str:
        """The action in words."""
        return f"write {self.path} (mode {self.mode})"

    def shell(self) -> Remedy:
        """The same for a shell."""
        if self.secret or hides(self.text):
            return remedy(":", f"{self.path} holds a secret and is not shown; make the same pass")
        lines = self.text.removesuffix("\n").split("\n")
        return in_turn(
            remedy("mkdir", "-p", os.path.dirname(self.path)),
            remedy("printf", "%s\\n", *lines, into=self.path),
            remedy("chown", "0:0", self.path),
            remedy("chmod", self.mode, self.path),
        )

    def run(self, host: Host) -> None:
        """Raises HostError; nothing is installed then."""
        from reconciler.host.rewrite import replace_file
        from reconciler.host.systemd import LIMIT

        said = self._wrong(host)
        self.ignored[:] = filter(_UNKNOWN_KEY.search, said)
        wrong = [line for line in said if line not in self.ignored]
        if wrong:
            if self.secret:
                wrong = [line.partition(": ")[0] for line in wrong]
            words = "; ".join(wrong[:5])
            raise HostError(f"systemd-analyze verify refuses it, so it was not installed: {words}")
        seen = None if self.seen is None else _data(self.seen)
        uid, gid = (0, 0) if self.scope == "system" else (os.geteuid(), os.getegid())
        mode = int(self.mode, 8)
        replace_file(self.path, _data(self.text), seen, LIMIT, host.state_dir, mode, uid, gid)
        host.systemd.changed(self.scope, self.unit)

    def _wrong(self, host: Host) -> list[str]:
        folder = os.path.join(host.state_dir, "verify")
        check = host.systemd.complaints
        if self.name == self.unit:
            said = check(self.scope, {self.unit: self.text}, self.unit, folder) or []
            return _about(said, self.name, self.unit)
        base = {self.unit: self._base(host)}
        said = check(self.scope, {**base, self.name: self.text}, self.unit, folder) or []
        found = _about(said, self.name, self.unit)
        if any(line.startswith(self.unit) for line in found):
            # What is wrong with the unit without us is not ours to judge.
            alone = check(self.scope, base, self.unit, folder) or []
            found = [line for line in found if line not in alone]
        return found

    def _base(self, host: Host) -> str:
        systemd = host.systemd
        own = f"{systemd.folder(self.scope)}/{self.unit}"
        for path in (own, systemd.elsewhere(self.scope, self.unit)):
            if path is not None:
                try:
                    there = systemd.unit_file(os.path.realpath(path))
                except HostError:
                    continue
                if there is not None and there.link is None:
                    return there.text
        return _STAND_INS[self.unit.rpartition(".")[2]]


@dataclass(frozen=True, slots=True)
class WriteEnvironment:
    """Write the EnvironmentFile of a unit, which nobody else may read."""

    stage: ClassVar[int] = FILES
    scope: str
    unit: str
    path: str
    text: str
    seen: str | None

    def describe(self) -> str:
        """The action in words."""
        return f"write {self.path} (mode 0600)"

    def shell(self) -> Remedy:
        """The same for a shell."""
        return remedy(":", f"{self.path} holds secrets and is not shown; make the same pass")

    def run(self, host: Host) -> None:
        """Raises HostError."""
        from reconciler.host.rewrite import replace_file
        from reconciler.host.systemd import LIMIT

        uid, gid = os.geteuid(), os.getegid()
        if self.seen == self.text:
            host.files.set_attributes(self.path, 0o600, uid, gid, False)
        else:
            seen = None if self.seen is None else _data(self.seen)
            text = _data(self.text)
            replace_file(self.path, text, seen, LIMIT, host.state_dir, 0o600, uid, gid)
        host.systemd.changed(self.scope, self.unit)


def _about(said: Sequence[str], name: str, unit: str) -> list[str]:
    """The complaints that are about the file ``name`` or its unit; a template's has an instance."""
    stem = unit.partition("@")[0] + "@" if "@." in unit else unit
    found = []
    for line in said:
        of_file = re.match(rf"{re.escape(name)}:\d+: ", line)
        of_unit = line.startswith(stem) and not _OF_OTHERS.search(line)
        if (of_file or of_unit) and not _ADVICE.search(line):
            found.append(line)
    return list(dict.fromkeys(found))


def _data(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class SetUnitAttributes:
    """Give a unit's file its mode and its owner."""

    stage: ClassVar[int] = FILES
    scope: str
    path: str
    mode: str

    def describe(self) -> str:
        """The action in words."""
        return f"set owner and mode {self.mode} on {self.path}"

    def shell(self) -> Remedy:
        """The same for a shell."""
        return in_turn(remedy("chown", "0:0", self.path), remedy("chmod", self.mode, self.path))

    def run(self, host: Host) -> None:
        """Raises HostError."""
        uid, gid = (0, 0) if self.scope == "system" else (os.geteuid(), -1)
        host.files.set_attributes(self.path, int(self.mode, 8), uid, gid, False)


@dataclass(frozen=True, slots=True)
class RemoveUnit:
    """Remove the file; the folder of drop-ins too, when nothing is left in it."""

    stage: ClassVar[int] = REMOVED
    scope: str
    unit: str
    path: str
    seen: str

    def describe(self) -> str:
        """The action in words."""
        return f"remove {self.path}"

    def shell(self) -> Remedy:
        """The same for a shell."""
        command = remedy("rm", "-f", self.path)
        if not self._in_folder:
            return command
        return in_turn(
            command,
            remedy("rmdir", "--ignore-fail-on-non-empty", os.path.dirname(self.path)),
        )

    @property
    def _in_folder(self) -> bool:
        return os.path.dirname(self.path).endswith(f"/{self.unit}.d")

    def run(self, host: Host) -> None:
        """Raises HostError."""
        from reconciler.host.rewrite import replace_file
        from reconciler.host.systemd import LIMIT

        replace_file(self.path, None, _data(self.seen), LIMIT, host.state_dir)
        if self._in_folder:
            folder = os.path.dirname(self.path)
            if not host.files.entries(folder):
                host.files.remove_directory(folder)
        host.systemd.changed(self.scope, self.unit)


@dataclass(frozen=True, slots=True)
class Reload:
    """Make the manager read its files again, once for all steps that stand together."""

    stage: ClassVar[int] = MANAGER
    scope: str

    def describe(self) -> str:
        """The action in words."""
        return "reload systemd" + (" of the user" if self.scope == "user" else "")

    def shell(self) -> Remedy:
        """The same for a shell."""
        return remedy("systemctl", *_flag(self.scope), "daemon-reload")

    def run(self, host: Host) -> None:
        """Raises HostError. Where no manager runs there is nothing to be told."""
        if host.systemd.silent(self.scope) is None:
            host.systemd.reload(self.scope)


@dataclass(frozen=True, slots=True)
class Tell:
    """Tell the manager one thing about the unit: enable, reenable, disable, stop, unmask."""

    scope: str
    unit: str
    verb: str
    options: tuple[str, ...] = ()

    @property
    def stage(self) -> int:
        """Enabling reads the files, and the manager has to read what it has made."""
        return LINKS if self.verb in ("enable", "reenable") else FILES

    def describe(self) -> str:
        """The action in words."""
        return " ".join((self.verb, self.unit, *self.options))

    def shell(self) -> Remedy:
        """The same for a shell."""
        command = ("systemctl", *_flag(self.scope), self.verb, *self.options)
        if self.verb != "disable":
            return remedy(*command, "--", self.unit)
        return in_turn(
            remedy(*command, "--", self.unit), remedy(*command, "--runtime", "--", self.unit)
        )

    def run(self, host: Host) -> None:
        """Raises HostError."""
        if self.verb == "stop" and host.systemd.holds_us(self.unit):
            words = ("--no-block", "--", self.unit)
            host.last.append(lambda: host.systemd.tell(self.scope, "stop", *words))
            return
        # These would reload the manager each by itself.
        quiet = () if self.verb == "stop" else ("--no-reload",)
        host.systemd.tell(self.scope, self.verb, *quiet, *self.options, "--", self.unit)
        if self.verb == "disable":
            # Without the option it leaves what is enabled until the next boot.
            host.systemd.tell(self.scope, self.verb, *quiet, "--runtime", "--", self.unit)
        host.systemd.changed(self.scope, self.unit)


@dataclass(frozen=True, slots=True)
class Renew:
    """Start, restart or reload the unit, and wait until it has come up or failed.

    ``others`` run and have to wait meanwhile: a socket cannot come up while its service runs.
    """

    stage: ClassVar[int] = MANAGER
    scope: str
    unit: str
    verb: str
    others: tuple[str, ...] = ()

    def describe(self) -> str:
        """The action in words."""
        words = f"{self.verb} {self.unit}"
        return words + (f" with {', '.join(self.others)} stopped meanwhile" if self.others else "")

    def shell(self) -> Remedy:
        """The same for a shell."""
        command = ("systemctl", *_flag(self.scope))
        if not self.others:
            return remedy(*command, self.verb, "--", self.unit)
        return in_turn(
            remedy(*command, "stop", "--", self.unit, *self.others),
            remedy(*command, "start", "--", self.unit),
            remedy(*command, "start", "--", *self.others),
        )

    def run(self, host: Host) -> None:
        """Raises HostError, with the cause where the unit fails."""
        systemd = host.systemd
        if self.others:
            # Together: a client that waits would have the socket start its service again.
            systemd.tell(self.scope, "stop", "--", self.unit, *self.others)
        try:
            self._renew(host)
        except UnknownState:
            pass  # It takes long. How far it is by now is seen when it is looked at.
        except HostError as error:
            raise HostError(f"{error}; {cause(host, self.scope, self.unit)}") from None
        if self.others:
            systemd.tell(self.scope, "start", "--", *self.others)
        if not systemd.holds_us(self.unit):
            systemd.settled(self.scope, self.unit, 5)

    def _renew(self, host: Host) -> None:
        systemd = host.systemd
        if self.verb != "start" and not self.others:
            systemd.renew(self.scope, self.verb, self.unit)
            return
        known = systemd.show(self.scope, [self.unit])[self.unit]
        if known.get("ActiveState") == "failed":
            # One that failed too often is not started again by itself, systemd.unit(5).
            systemd.tell(self.scope, "reset-failed", "--", self.unit)
        systemd.tell(self.scope, "start", "--", self.unit)


def _flag(scope: str) -> tuple[str, ...]:
    return ("--user",) if scope == "user" else ()


def cause(
    host: Host, scope: str, unit: str, known: Mapping[str, str] | None = None, words: bool = True
) -> str:
    """How a unit has ended, and what it said last where ``words`` may be shown."""
    try:
        known = known or host.systemd.show(scope, [unit])[unit]
    except UnknownState as error:
        return str(error)
    found = [f"result {known.get('Result')}"]
    status = known.get("ExecMainStatus", "0")
    if status != "0":
        # CLD_EXITED is 1, wait(2); else it is the signal that ended it.
        ended = "exit status" if known.get("ExecMainCode") == "1" else "signal"
        found.append(f"{ended} {status}")
    if known.get("NRestarts", "0") not in ("0", ""):
        found.append(f"{known['NRestarts']} restarts")
    if known.get("LoadState") in ("error", "bad-setting"):
        found.append(known.get("LoadError", ""))
    said = host.systemd.last_words(scope, unit) if words else []
    return ", ".join(found) + (f"; it said last: {' | '.join(said)}" if said else "")


def actions(
    resource: Resource[Unit], have: UnitState | None, changes: Sequence[Change]
) -> Sequence[Action]:
    """What removes the changes of a unit, in order."""
    want, scope, unit = resource.want, resource.want.scope, str(resource.want.unit)
    now = have or UnitState()
    if not resource.present:
        return list(_removal(want, now))
    changed = {change.field for change in changes}
    writes = want.text is not None and (have is None or "content" in changed)
    found: list[Action] = []
    if "masked" in changed:
        found += [Tell(scope, unit, "unmask", options) for options in now.masks or ()]
    path = now.path or want.file
    environment = _environment_path(want, now)
    if want.environment is not None and (have is None or "environment" in changed):
        seen = now.environment_text
        found.append(WriteEnvironment(scope, unit, environment, want.environment, seen))
    if writes:
        path, text = _path(want, now), str(want.text)
        found.append(
            WriteUnit(scope, unit, want.file, path, text, now.text, want.mode, want.secret)
        )
    elif changed & {"mode", "owner"}:
        found.append(SetUnitAttributes(scope, path, want.mode))
    if want.text is not None and want.environment is None and now.environment_text is not None:
        found.append(RemoveUnit(scope, unit, environment, now.environment_text))
    if "enabled" in changed and want.enabled:
        # It counts as not enabled too when some of its symlinks are missing, or are old ones.
        # Disabling somebody else's may remove it: a unit file can be a symlink as well.
        anew = have is not None and want.text is not None and not want.drop_in
        found.append(Tell(scope, unit, "reenable" if anew else "enable"))
    elif "enabled" in changed and have is not None:
        found.append(Tell(scope, unit, "disable"))
    if now.silent:
        return found
    if writes or changed & {"masked", "loaded", "enabled"}:
        found.append(Reload(scope))
    if "active" in changed and want.active:
        found.append(Renew(scope, unit, "start", now.others or ()))
    elif "active" in changed and have is not None:
        found.append(Tell(scope, unit, "stop"))
    elif (
        now.active and want.on_change != "none" and (writes or changed & {"started", "environment"})
    ):
        found.append(Renew(scope, unit, want.on_change, now.others or ()))
    return found


def _removal(want: Unit, have: UnitState) -> Iterable[Action]:
    scope, unit = want.scope, str(want.unit)
    if not want.drop_in:
        if have.active:
            yield Tell(scope, unit, "stop")
        if have.enabled:
            yield Tell(scope, unit, "disable")
    if have.text is not None:
        yield RemoveUnit(scope, unit, _path(want, have), have.text)
    if have.environment_text is not None:
        yield RemoveUnit(scope, unit, _environment_path(want, have), have.environment_text)
    yield Reload(scope)
    if want.drop_in and have.active and want.on_change != "none":
        yield Renew(scope, unit, want.on_change, have.others or ())


def _environment_path(want: Unit, have: UnitState) -> str:
    """Where its EnvironmentFile is. Only the host knows the user's folder."""
    return have.environment_path or want.environment_file.replace("%E", "~/.config")


def _path(want: Unit, have: UnitState) -> str:
    """Where its file is. Only the host knows the user's folder; observing has asked it."""
    if have.path is not None:
        return have.path
    if want.scope == "system":
        return f"/etc/systemd/system/{want.file}"
    return f"~/.config/systemd/user/{want.file}"
