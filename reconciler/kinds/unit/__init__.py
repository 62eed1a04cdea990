"""Units of systemd: their files, rendered from templates, and whether they are enabled and run.

It must not overwrite, hide or remove a unit file that is not ours, nor start a unit only
because its file has changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from reconciler.base.errors import Remedy
from reconciler.base.records import replace
from reconciler.core.claims import Claim, Declarations, Key
from reconciler.core.kind import (
    Batched,
    Completed,
    Described,
    Diagnosed,
    Kind,
    Persistent,
    Running,
    Templated,
    Verified,
)
from reconciler.core.model import (
    Action,
    Change,
    Observation,
    Resource,
    diff,
    in_words,
)
from reconciler.core.templating import Templates
from reconciler.host.managed_file import differs
from reconciler.kinds.unit.resource import Unit, UnitState

if TYPE_CHECKING:
    from reconciler.host import Host

_UNIT = r"[A-Za-z0-9:_.\\-]+(@[A-Za-z0-9:_.\\-]*)?\.(service|timer|path|socket|target)"
_SUFFIXES = ".service, .timer, .path, .socket or .target"


class Units(
    Kind[Unit, UnitState],
    Completed,
    Templated,
    Persistent,
    Described,
    Verified,
    Batched,
    Running,
    Diagnosed,
):
    """The section ``units``."""

    section = "units"
    resource = Unit
    settle = 0.5

    def named(self, want: Unit, name: str) -> Unit:
        return want if want.unit is not None else replace(want, unit=name)

    def check(self, want: Unit) -> Iterable[tuple[str, str]]:
        unit = str(want.unit)
        if not unit.endswith(tuple(_SUFFIXES.replace(" or", ",").split(", "))):
            yield "unit", f"{unit!r} does not end in {_SUFFIXES}"
        elif not re.fullmatch(_UNIT, unit) or len(unit) > 255:
            yield (
                "unit",
                f"{unit!r} is no name of a unit; it has letters, digits and :_.-\\ and one @",
            )
        if want.template is not None and want.content is not None:
            yield "content", "write either template or content, not both"
        if want.vars and want.template is None and want.content is None:
            yield "vars", "are for a template or content, and there is none"
        for name in want.secret:
            if name not in want.vars:
                from difflib import get_close_matches

                near = get_close_matches(name, want.vars, 1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                yield "secret", f"{name!r} is no variable of vars{hint}"
        if want.is_template and want.active is not None:
            instance = unit.replace("@.", "@NAME.")
            yield "active", f"{unit} is a template, which does not run itself; declare {instance}"
        if want.drop_in is not None and (
            not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}", want.drop_in)
            or want.drop_in.endswith(".conf")
        ):
            yield "drop_in", "is a name of letters, digits and _.- without .conf, such as 10-limits"

    def rendered(self, want: Unit, templates: Templates) -> Unit:
        from reconciler.kinds.unit.file import filled

        return filled(want, templates)

    def claims(self, want: Unit) -> Iterable[Claim]:
        more = f" drop-in {want.drop_in}" if want.drop_in else ""
        return (Claim(Key("unit", f"{want.unit} ({want.scope}){more}")),)

    def linked(self, want: Unit, declared: Declarations) -> Unit:
        templated = any(key in declared.claims for key in _template(want))
        return replace(want, templated=True) if templated else want

    def uses(self, want: Unit) -> Iterable[Key]:
        return _template(want) if want.templated else ()

    def expected(self, want: Unit) -> UnitState:
        if want.text is None:
            return UnitState(masked=False, enabled=want.enabled, active=want.active)
        return UnitState(
            want.shown(want.text),
            want.mode,
            "root" if want.scope == "system" else "the caller",
            want.hidden(want.environment) if want.environment else "",
            # A mask hides the unit, not a drop-in of it.
            None if want.drop_in and (want.enabled, want.active) == (None, None) else False,
            "current",
            want.enabled,
            want.active,
            None if want.on_change == "none" else "current",
        )

    def observe(
        self, resources: Sequence[Resource[Unit]], host: Host
    ) -> Sequence[Observation[UnitState]]:
        from reconciler.kinds.unit.observed import look

        return look(resources, host)

    def ended(self, want: Unit) -> Observation[UnitState]:
        return Observation(replace(self.expected(want), active=False))

    def changes(self, expected: UnitState | None, have: UnitState | None) -> tuple[Change, ...]:
        found = diff(expected, have)
        # No EnvironmentFile is wanted, and there is none: not worth a word in what is made.
        found = tuple(one for one in found if one.field != "environment" or one.have or one.want)
        if have is not None and have.there is False and expected is not None:
            return Change("state", "absent", "present"), *found
        return found

    def verb(self, expected: UnitState | None, have: UnitState | None) -> str:
        if have is not None and have.there is False:
            have = None if expected is not None else have
        changed = {change.field for change in diff(expected, have)}
        if expected is not None and have is not None:
            if changed == {"active"}:
                return "start" if expected.active else "stop"
            if changed == {"started"}:
                return "restart"
        return super().verb(expected, have)

    def words(self, changes: Sequence[Change]) -> str:
        if any(change.field == "state" for change in changes):
            return in_words(changes)
        return "; ".join(map(_in_words, changes))

    def stages(self, actions: Sequence[Action]) -> Sequence[Sequence[Action]]:
        """Files first, of all units; what needs the manager to know them comes last."""
        from reconciler.kinds.unit.actions import FILES, STAGES

        return [
            [action for action in actions if getattr(action, "stage", FILES) == stage]
            for stage in STAGES
        ]

    def run_all(self, actions: Sequence[Action], host: Host) -> Sequence[Exception | None]:
        from reconciler.kinds.unit.run import run_all

        return run_all(actions, host)

    def spared(self, actions: Sequence[Action]) -> tuple[str | None, bool]:
        said = [line for action in actions for line in getattr(action, "ignored", ())]
        return "; ".join(said) or None, False

    def by_hand(
        self, resource: Resource[Unit], have: UnitState | None, changes: Sequence[Change]
    ) -> Sequence[Remedy]:
        actions = self.actions(resource, have, changes)
        return [action.shell() for action in actions if hasattr(action, "shell")]

    def says(self, resource: Resource[Unit], host: Host) -> Iterable[Key]:
        want = resource.want
        return () if want.is_template else (Key("journal", f"{want.scope} {want.unit}"),)

    def evidence(self, resource: Resource[Unit], host: Host) -> str | None:
        want = resource.want
        if want.is_template or host.systemd.silent(want.scope) is not None:
            return None
        from reconciler.kinds.unit.run import cause

        return cause(host, want.scope, str(want.unit), words=not want.hides) or None

    def actions(
        self, resource: Resource[Unit], have: UnitState | None, changes: Sequence[Change]
    ) -> Sequence[Action]:
        # What acts is not loaded where nothing is to be done.
        from reconciler.kinds.unit.actions import actions

        return actions(resource, have, changes)


def _template(want: Unit) -> tuple[Key, ...]:
    """The claim of the template that it is an instance of, if it is one."""
    template = want.template_unit
    return (Key("unit", f"{template} ({want.scope})"),) if template else ()


def _in_words(change: Change) -> str:
    if change.field == "content":
        if change.have is None:
            return "its file is missing"
        return differs(str(change.have), str(change.want))
    if change.field == "environment":
        return "its EnvironmentFile differs" if change.have else "its EnvironmentFile is missing"
    words = {
        ("masked", False): "masked",
        ("loaded", "current"): "changed since systemd has read it",
        ("started", "current"): "not restarted since its file changed",
        ("enabled", True): "not enabled",
        ("enabled", False): "enabled, should be disabled",
        ("active", True): "not running",
        ("active", False): "running, should be stopped",
    }
    return words.get((change.field, change.want)) or in_words((change,))


KIND = Units()
