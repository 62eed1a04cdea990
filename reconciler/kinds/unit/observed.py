"""What the host has of the units of a section: their files, and what systemd knows of them.

It must not change anything.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from reconciler.base.errors import HostError, UnknownState
from reconciler.base.records import replace
from reconciler.base.text import redacted
from reconciler.core.model import Observation, Resource, not_known
from reconciler.host.command import SYSTEM_PATH, find
from reconciler.host.managed_file import ManagedFile, makers, managed_file, mark, ours
from reconciler.host.remedy import remedy
from reconciler.host.systemd import is_mask, names_in, seconds
from reconciler.kinds.unit.resource import RUNS_AND_ENDS, Unit, UnitState

if TYPE_CHECKING:
    from reconciler.host import Host

_RUNS = ("active", "reloading", "refreshing")
_ENABLED = ("enabled", "alias")
_PATIENCE = 3.0
"""Seconds within which each unit is asked about alone where a look at all of them failed."""
_FUTURE = 2.0
"""Seconds that a file's time may lie ahead of the clock before the clock is not believed."""


_ManagerAnswer = tuple[str | None, Mapping[str, Mapping[str, str]], Mapping[str, str]]
"""Of one manager: why it says nothing, what it says of each unit, and of which it is not known."""


def look(resources: Sequence[Resource[Unit]], host: Host) -> Sequence[Observation[UnitState]]:
    """One observation for each; each manager is asked once for all of its units."""
    known: dict[str, _ManagerAnswer] = {}
    for scope in sorted({resource.want.scope for resource in resources}):
        wants = [resource.want for resource in resources if resource.want.scope == scope]
        known[scope] = _asked(scope, wants, host)
    return [_UnitObserver(each, host, known[each.want.scope]).observation() for each in resources]


def _asked(scope: str, wants: Sequence[Unit], host: Host) -> _ManagerAnswer:
    systemd = host.systemd
    silent = systemd.silent(scope)
    if silent is not None:
        return silent, {}, {}
    templates = sorted({str(want.unit) for want in wants if want.is_template})
    names = sorted({str(want.unit) for want in wants if not want.is_template})
    units, failed = _shown(scope, names, host)
    # A socket cannot be restarted without the services that it has started.
    sockets = [unit for unit in names if unit.endswith(".socket") and unit in units]
    services = {name for unit in sockets for name in triggered(units[unit])}
    others, unknown = _shown(scope, sorted(services - units.keys()), host)
    failed |= {unit: why for unit in sockets for name, why in unknown.items()
               if name in triggered(units[unit])}  # fmt: skip
    units = others | units
    try:
        states = systemd.file_states(scope, templates)
        units |= {name: {"UnitFileState": states.get(name, "")} for name in templates}
    except UnknownState as error:
        failed |= dict.fromkeys(templates, str(error))
    return None, units, failed


def _shown(
    scope: str, names: Sequence[str], host: Host
) -> tuple[dict[str, Mapping[str, str]], dict[str, str]]:
    """What is known of these units, and of which it is not, with the reason."""
    units: dict[str, Mapping[str, str]] = {}
    failed: dict[str, str] = {}
    begun = host.clock.monotonic()
    todo = [names] if names else []
    while todo:
        some = todo.pop()
        try:
            units |= host.systemd.show(scope, some)
        except UnknownState as error:
            if len(some) > 1 and host.clock.monotonic() - begun < _PATIENCE:
                todo += [[name] for name in some]  # One of them is odd: the others are known.
            else:
                failed |= dict.fromkeys(some, str(error))
    return units, failed


def triggered(known: Mapping[str, str]) -> list[str]:
    """The services that a socket starts by their names."""
    return [word for word in names_in(known.get("Triggers", "")) if "@" not in word]


class _UnitObserver:
    """A look at one unit."""

    def __init__(self, resource: Resource[Unit], host: Host, known: _ManagerAnswer) -> None:
        self.resource = resource
        self.want = resource.want
        self.host = host
        self.systemd = host.systemd
        self.unit = str(self.want.unit)
        self.silent, self._units, failed = known
        self.failed = failed.get(self.unit)
        self.known = self._units.get(self.unit, {})
        self.path = f"{self.systemd.folder(self.want.scope)}/{self.want.file}"
        self._environment: ManagedFile | None = None
        self.notes: list[str] = []
        self.unsure: str | None = None

    def observation(self) -> Observation[UnitState]:
        """What is seen, or why it cannot be known."""
        if self.failed is not None:
            return Observation(unknown=self.failed)
        try:
            file = managed_file(self.path)
            state = self._state(file) if self.resource.present else self._left_over(file)
        except HostError as error:
            return not_known(error)
        denied = None
        if self.want.scope == "system" and os.geteuid() != 0:
            denied = "only root may change units of the system"
        note = "; ".join(self.notes) or None
        return Observation(state, note=note, unsure=self.unsure, denied=denied)

    def _left_over(self, file: ManagedFile | None) -> UnitState | None:
        """What there is of one that should be absent, as far as it is ours."""
        if file is not None and (file.link is not None or not ours(file.text, self.host.owner)):
            self.notes.append(f"{self.path} was not made by this spec, so it is left alone")
            return None
        if file is None:
            # The file is gone already, and only the manager has not heard of it.
            gone = self.known.get("FragmentPath") == self.path and not self._runs()
            if gone and self.known.get("NeedDaemonReload") == "yes":
                return UnitState(loaded="older", path=self.path)
            return self._undone() if self.want.text is None else None
        path = self._environment_path()
        environment = managed_file(path)
        if environment is not None and not ours(environment.text, self.host.owner):
            environment = None
        return UnitState(
            environment_path=path,
            environment_text=environment.text if environment is not None else None,
            content=self.want.shown(file.text),
            enabled=self.known.get("UnitFileState", "").startswith("enabled"),
            active=self._runs() or self.known.get("ActiveState") in ("activating", "deactivating"),
            text=file.text,
            path=self.path,
            others=self._others(),
        )

    def _undone(self) -> UnitState | None:
        """Of a unit that somebody else brings: whether it still is what it was made to be."""
        enabled = bool(self.want.enabled) and self.known.get("UnitFileState") == "enabled"
        active = bool(self.want.active) and self._runs()
        return UnitState(enabled=enabled, active=active) if enabled or active else None

    def _state(self, file: ManagedFile | None) -> UnitState:
        masks = self._masks(file)
        if self.want.text is None and not self.silent and not masks and not self.want.templated:
            missing = self.known.get("LoadState") == "not-found"
            if missing or (self.want.is_template and not self.known.get("UnitFileState")):
                words = "give it a template or content, or install what brings it"
                raise UnknownState(f"there is no unit {self.unit} on this host; {words}")
        state = UnitState(
            masked=bool(masks), loaded="current", path=self.path, masks=masks,
            others=self._others(),
        )  # fmt: skip
        if self.want.text is not None:
            state = self._with_file(state, file)
        return self._with_run(state, file)

    def _masks(self, file: ManagedFile | None) -> tuple[tuple[str, ...], ...]:
        """The options with which it can be unmasked; none when it is not masked."""
        state = self.known.get("UnitFileState", "")
        masked = not self.want.drop_in and file is not None and file.link == "/dev/null"
        if not masked and not state.startswith("masked"):
            return ()
        found: list[tuple[str, ...]] = []
        path = f"{self.systemd.folder(self.want.scope)}/{self.unit}"
        if masked or os.path.lexists(path):
            found.append(())
        if self.systemd.masked_until_boot(self.want.scope, self.unit):
            self.notes.append(f"{self.unit} is masked in /run, until the next boot")
            found.append(("--runtime",))
        if not found:
            where = self.known.get("FragmentPath") or "a file elsewhere"
            raise UnknownState(f"{where} masks it, which systemctl unmask leaves; it has to go")
        return tuple(found)

    def _with_file(self, state: UnitState, file: ManagedFile | None) -> UnitState:
        want = self.want
        self._note_what_it_runs()
        state = self._with_environment(state)
        if want.hides and redacted(str(want.text)) != want.text:
            self.notes.append(
                "it holds a secret outside of Environment=, which systemctl show shows to everybody"
            )
        if file is not None and file.link is not None and not state.masked:
            words = f"{self.path} is a symlink to {file.link}, which this spec did not make"
            raise UnknownState(f"{words}; move it away")
        made_by = makers(file.text) if file is not None and file.link is None else [self.host.owner]
        if self.host.owner not in made_by and not (want.adopt and not made_by):
            instead = "use another drop_in" if want.drop_in else "use drop_in"
            raise UnknownState(
                f"{self.path} is there but was not made by this spec, so it is left alone; rename "
                f"yours, {instead}, or hand it over by putting this line at its top: "
                f"{mark(self.host.owner)}"
            )
        if file is None or file.link is not None:
            if not want.drop_in:
                self._refuse_hiding()
            return replace(state, there=bool(state.masked) or self._runs())
        owner = "root" if want.scope == "system" else "the caller"
        if file.uid != (0 if want.scope == "system" else os.geteuid()):
            owner = self.host.users.user_name(file.uid)
        return replace(
            state,
            content=want.shown(want.taken(file.text)), mode=f"{file.mode:04o}", owner=owner,
            text=file.text, started="current",
        )  # fmt: skip

    def _with_environment(self, state: UnitState) -> UnitState:
        """With what is seen of its EnvironmentFile; one of somebody else is only in the way."""
        path = self._environment_path()
        there = managed_file(path)
        if there is not None and (there.link is not None or not ours(there.text, self.host.owner)):
            if self.want.environment is not None:
                raise UnknownState(f"{path} was not made by this spec; move it away")
            there = None
        if there is None:
            return replace(state, environment="", environment_path=path)
        self._environment = there
        closed = there.mode == 0o600 and there.uid == os.geteuid()
        words = self.want.hidden(there.text) if closed else f"(readable: mode {there.mode:04o})"
        return replace(state, environment=words, environment_path=path, environment_text=there.text)

    def _environment_path(self) -> str:
        return self.systemd.environment_file(self.want.scope, self.want.environment_name)

    def _refuse_hiding(self) -> None:
        path = self.systemd.elsewhere(self.want.scope, self.unit)
        loaded = self.known.get("FragmentPath", "")
        # An instance is loaded from its template, which it does not hide.
        template = f"/{self.unit.partition('@')[0]}@.{self.unit.rpartition('.')[2]}"
        seen = loaded in ("", self.path) or loaded.endswith(template) or is_mask(loaded)
        if path is None and not seen:
            path = loaded if os.path.basename(loaded) == self.unit else None
        if path is not None:
            raise UnknownState(
                f"{path} is a unit of that name already, which {self.path} would hide; rename "
                "yours, or change that one with drop_in"
            )

    def _note_what_it_runs(self) -> None:
        lines = (self.want.text or "").split("\n")
        starts = [line for line in lines if line.startswith("ExecStart=") and "--loop" in line]
        if any("reconcile" in line for line in starts) and "KillMode=process" not in lines:
            self.notes.append(
                "when it is stopped or restarted, systemd ends what it has started as well; "
                "write KillMode=process (kill_mode: process in the vars of worker.service)"
            )
        for program in self.want.programs:
            if find(program, SYSTEM_PATH) is None:
                self.notes.append(f"the program {program} cannot be found from a unit")

    def _with_run(self, state: UnitState, file: ManagedFile | None) -> UnitState:
        """With all that the manager knows; what is not known counts as wanted."""
        want = self.want
        if self.silent is not None:
            asked = [
                words
                for words, value in (("is enabled", want.enabled), ("runs", want.active))
                if value is not None
            ]
            if asked:
                words = " and whether it ".join(asked)
                self.unsure = f"{self.silent}, so it is not known whether it {words}"
            enabled, active = want.enabled, want.active
            return replace(state, enabled=enabled, active=active, started="current", silent=True)
        if self.known.get("LoadState") in ("error", "bad-setting"):
            self.notes.append(f"systemd cannot load it: {self.known.get('LoadError')}")
        if self.known.get("NeedDaemonReload") == "yes":
            state = replace(state, loaded="older")
        return replace(
            state,
            enabled=self._enabled(),
            active=self._active(),
            started=self._started(file),
        )

    def _enabled(self) -> bool:
        word = self.known.get("UnitFileState", "")
        want = self.want
        if want.enabled and word in ("static", "generated", "transient") and want.text is None:
            raise UnknownState(f"{self.unit} is {word}, so that it cannot be enabled")
        if want.enabled and want.scope == "user" and not self.systemd.lingers():
            name = self.host.users.account(None).name
            linger = remedy("loginctl", "enable-linger", name)
            self.notes.append(f"it waits for a login; to start it at boot: {linger}")
        if word.startswith("enabled") and want.enabled is False and want.text is None:
            self._refuse_linked()
        if word == "alias" and want.enabled is False:
            raise UnknownState(f"{self.unit} is another name of a unit; declare that one instead")
        if word == "indirect":
            return self._enabled_by_others()
        if word == "enabled-runtime":
            return not want.enabled  # What is enabled until the next boot is so neither way.
        if word not in _ENABLED:
            return False
        folder = self.systemd.folder(want.scope)
        return not want.enabled or all(os.path.lexists(f"{folder}/{link}") for link in want.links)

    def _enabled_by_others(self) -> bool:
        """Of what systemd calls ``indirect``: has enabling it been done, systemctl(1)?

        It has where it is about other units alone, by ``Also=``, and these are enabled; and where
        it is a template that names no instance, and some instance is enabled.
        """
        from reconciler.kinds.unit.text import settings

        text = self.want.text if not self.want.drop_in else None
        path = self.known.get("FragmentPath") or self.path
        file = managed_file(os.path.realpath(path)) if text is None else None
        lines = list(settings(text or (file.text if file is not None else "")))
        keys = {key for section, key, _ in lines if section == "Install"}
        if self.want.is_template:
            return "DefaultInstance" not in keys
        also = [name for _, key, value in lines if key == "Also" for name in names_in(value)]
        if not also or keys & {"WantedBy", "RequiredBy", "UpheldBy", "Alias"}:
            return False
        known = self.systemd.show(self.want.scope, sorted(set(also)))
        return all(each.get("UnitFileState") in _ENABLED for each in known.values())

    def _refuse_linked(self) -> None:
        """Raise UnknownState where disabling would take the unit itself away."""
        path = self.known.get("FragmentPath", "")
        own = self.systemd.folder(self.want.scope)
        if path.startswith((f"{own}/", "/run/")) and os.path.islink(path):
            raise UnknownState(
                f"{path} is a symlink to {os.readlink(path)}, which systemctl disable would remove "
                "as well; put the file itself there, or disable it by hand"
            )

    def _runs(self) -> bool:
        return self.known.get("ActiveState") in _RUNS

    def _active(self) -> bool:
        way, sub = self.known.get("ActiveState"), self.known.get("SubState")
        if way == "failed" or sub == "auto-restart":
            from reconciler.kinds.unit.run import cause

            words = cause(
                self.host, self.want.scope, self.unit, self.known, words=not self.want.hides
            )
            what = "failed" if way == "failed" else "fails and is restarted by systemd"
            self.notes.append(f"{what}: {words}" if words else what)
            return False
        if way == "deactivating" and self._is_being_done():
            return True
        if way == "activating":
            self.notes.append("starting")
            return True
        if self._runs():
            return True
        ends = self.known.get("Type") == "oneshot" and self.known.get("RemainAfterExit") != "yes"
        if self.want.active and ends and self.known.get("LoadState") == "loaded":
            self.notes.append(RUNS_AND_ENDS)
            return True
        return False

    def _is_being_done(self) -> bool:
        """Is it being stopped or started anew, which will end us too?"""
        return self.systemd.holds_us(self.unit) and self.known.get("Job", "") not in ("", "0")

    def _started(self, file: ManagedFile | None) -> str:
        """Has what runs been started, or reloaded, since the file is as it is?"""
        if file is None or file.link is not None or not self._runs():
            return "current"
        if self._is_being_done():
            return "current"
        restarts = self.want.on_change == "restart"
        stamp = seconds(
            self.known.get("ActiveEnterTimestamp" if restarts else "StateChangeTimestamp")
        )
        changed = file.modified
        if self._environment is not None:
            changed = max(changed, self._environment.modified)
        if changed > self.host.clock.wall() + _FUTURE:
            self.notes.append(f"the time of {self.path} lies in the future and is ignored")
            return "current"
        return "older" if stamp is not None and changed > stamp else "current"

    def _others(self) -> tuple[str, ...]:
        """The running services of a socket: it cannot be restarted without them."""
        if not self.unit.endswith(".socket"):
            return ()
        found = {name: self._units.get(name, {}) for name in triggered(self.known)}
        return tuple(name for name, known in found.items() if known.get("ActiveState") in _RUNS)
