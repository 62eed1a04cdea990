"""What can be done about a unit: its file written or removed, its manager told.

It must not write a file that systemd-analyze refuses.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar

from reconciler.base.errors import Remedy
from reconciler.base.records import dataclass
from reconciler.core.model import Action, Change, Resource
from reconciler.host.managed_file import LIMIT
from reconciler.host.remedy import file_of_root, in_turn, remedy
from reconciler.host.rewrite import replace_file
from reconciler.kinds.unit.resource import Unit, UnitState

if TYPE_CHECKING:
    from reconciler.host import Host

STAGES = FILES, REMOVED, LINKS, MANAGER = range(4)
"""Of all units: what is stopped, disabled and written; files that go, which nothing may need by
then; the symlinks that enable; what the manager does."""


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
        return f"write {self.path} (mode {self.mode})"

    def shell(self) -> Remedy:
        folder = remedy("mkdir", "-p", os.path.dirname(self.path))
        return file_of_root(self.path, self.text, self.mode, self.secret, folder)

    def write(self, host: Host) -> None:
        """Without asking systemd-analyze. Raises HostError."""
        seen = None if self.seen is None else os.fsencode(self.seen)
        uid, gid = (0, 0) if self.scope == "system" else (os.geteuid(), os.getegid())
        mode = int(self.mode, 8)
        replace_file(self.path, os.fsencode(self.text), seen, LIMIT, host.state_dir, mode, uid, gid)
        host.systemd.changed(self.scope, self.unit)


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
        return f"write {self.path} (mode 0600)"

    def shell(self) -> Remedy:
        return remedy(":", f"{self.path} holds secrets and is not shown; make the same pass")

    def run(self, host: Host) -> None:
        uid, gid = os.geteuid(), os.getegid()
        if self.seen == self.text:
            host.files.set_attributes(self.path, 0o600, uid, gid, False)
        else:
            seen = None if self.seen is None else os.fsencode(self.seen)
            text = os.fsencode(self.text)
            replace_file(self.path, text, seen, LIMIT, host.state_dir, 0o600, uid, gid)
        host.systemd.changed(self.scope, self.unit)


@dataclass(frozen=True, slots=True)
class SetUnitAttributes:
    """Give a unit's file its mode and its owner."""

    stage: ClassVar[int] = FILES
    scope: str
    path: str
    mode: str

    def describe(self) -> str:
        return f"set owner and mode {self.mode} on {self.path}"

    def shell(self) -> Remedy:
        return in_turn(remedy("chown", "0:0", self.path), remedy("chmod", self.mode, self.path))

    def run(self, host: Host) -> None:
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
        return f"remove {self.path}"

    def shell(self) -> Remedy:
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
        replace_file(self.path, None, os.fsencode(self.seen), LIMIT, host.state_dir)
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
        return "reload systemd" + (" of the user" if self.scope == "user" else "")

    def shell(self) -> Remedy:
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
        return " ".join((self.verb, self.unit, *self.options))

    def shell(self) -> Remedy:
        command = ("systemctl", *_flag(self.scope), self.verb, *self.options)
        if self.verb != "disable":
            return remedy(*command, "--", self.unit)
        return in_turn(
            remedy(*command, "--", self.unit), remedy(*command, "--runtime", "--", self.unit)
        )


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
        words = f"{self.verb} {self.unit}"
        return words + (f" with {', '.join(self.others)} stopped meanwhile" if self.others else "")

    def shell(self) -> Remedy:
        command = ("systemctl", *_flag(self.scope))
        if not self.others:
            return remedy(*command, self.verb, "--", self.unit)
        return in_turn(
            remedy(*command, "stop", "--", self.unit, *self.others),
            remedy(*command, "start", "--", self.unit),
            remedy(*command, "start", "--", *self.others),
        )


def _flag(scope: str) -> tuple[str, ...]:
    return ("--user",) if scope == "user" else ()


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
        found.append(WriteUnit(scope, unit, want.file, path, text, now.text, want.mode, want.hides))
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
