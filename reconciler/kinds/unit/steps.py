"""Which actions remove what differs of a unit, in which order. Pure.

It must not look at the host: what it needs to know was seen when the unit was looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from reconciler.core.model import Action, Change, Resource
from reconciler.kinds.unit.actions import (
    Reload,
    RemoveUnit,
    Renew,
    SetUnitAttributes,
    Tell,
    WriteEnvironment,
    WriteUnit,
)
from reconciler.kinds.unit.resource import Unit, UnitState


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
