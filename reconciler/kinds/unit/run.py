"""Actions of many units at once: one program is asked for all of them.

It must not let one unit that is refused keep another one out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from reconciler.base.errors import HostError, UnknownState
from reconciler.core.batches import in_halves
from reconciler.core.kind import run_one
from reconciler.core.model import Action
from reconciler.host.managed_file import managed_file
from reconciler.kinds.unit.actions import Renew, Tell, WriteUnit

if TYPE_CHECKING:
    from reconciler.host import Host

A = TypeVar("A", bound=Action)
Errors = Mapping[str, Exception]
"""What went wrong, by unit."""

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
_SETTLE = 5.0
"""Seconds in which a unit that was started comes up, or fails."""


def run_all(actions: Sequence[Action], host: Host) -> list[Exception | None]:
    """Run actions of different units; an outcome for each."""
    found: list[Exception | None] = [None] * len(actions)
    writes: dict[str, dict[int, WriteUnit]] = {}
    told: dict[tuple[str, str, tuple[str, ...]], dict[int, Tell]] = {}
    renewed: dict[tuple[str, str], dict[int, Renew]] = {}
    for at, action in enumerate(actions):
        if isinstance(action, WriteUnit):
            writes.setdefault(action.scope, {})[at] = action
        elif isinstance(action, Tell):
            told.setdefault((action.scope, action.verb, action.options), {})[at] = action
        elif isinstance(action, Renew):
            # A socket whose services have to wait is an order of its own.
            verb = f"{action.verb} {action.unit}" if action.others else action.verb
            renewed.setdefault((action.scope, verb), {})[at] = action
        else:
            found[at] = run_one(action, host)
    for some in writes.values():
        for at, error in zip(some, _write(list(some.values()), host), strict=True):
            found[at] = error
    for tells in told.values():
        _tell(tells, host, found)
    for renews in renewed.values():
        _renew(renews, host, found)
    return found


# -- files


def _write(actions: Sequence[WriteUnit], host: Host) -> list[Exception | None]:
    """Write those files in which systemd-analyze finds nothing wrong."""
    wrong = _wrong(actions, host) if len(actions) > 1 else dict.fromkeys(actions, True)
    found: list[Exception | None] = []
    for action in actions:
        try:
            if wrong.get(action):
                _refuse_wrong(action, host)
            action.write(host)
            found.append(None)
        except Exception as error:
            found.append(error)
    return found


def _wrong(actions: Sequence[WriteUnit], host: Host) -> dict[WriteUnit, bool]:
    """Those of many in which something may be wrong, so that they have to be checked alone."""
    texts: dict[str, str] = {}
    for action in actions:
        if action.name != action.unit:
            texts.setdefault(action.unit, _base(action, host))
    texts |= {action.name: action.text for action in actions}
    units = sorted({action.unit for action in actions})
    try:
        said, status = _complaints(actions[0].scope, texts, units, host)
    except HostError:
        return dict.fromkeys(actions, True)
    lines: dict[str, list[str]] = {}
    for line in said:
        lines.setdefault(_template(re.split(r"[:\s]", line)[0]), []).append(line)
    wrong: dict[WriteUnit, bool] = {}
    for one in actions:
        about = [*lines.get(_template(one.name), ()), *lines.get(_template(one.unit), ())]
        # A name with a colon is not known again.
        wrong[one] = ":" in one.name or bool(_about(about, one.name, one.unit))
    if status == 0 or lines.keys() & {_template(name) for name in texts}:
        return wrong
    half = len(actions) // 2  # Of whom it complains is not said.
    if half < 2:
        return dict.fromkeys(actions, True)
    return _wrong(actions[:half], host) | _wrong(actions[half:], host)


def _template(name: str) -> str:
    """That of an instance: its complaints are about one, or the other."""
    return re.sub(r"@[^.]*\.", "@.", name)


def _refuse_wrong(action: WriteUnit, host: Host) -> None:
    """Raises HostError where systemd-analyze finds something wrong."""
    said = _check(action, host)
    action.ignored[:] = filter(_UNKNOWN_KEY.search, said)
    wrong = [line for line in said if line not in action.ignored]
    if wrong:
        if action.secret:
            wrong = [line.partition(": ")[0] for line in wrong]
        words = "; ".join(wrong[:5])
        raise HostError(f"systemd-analyze verify refuses it, so it was not installed: {words}")


def _check(action: WriteUnit, host: Host) -> list[str]:
    scope, name, unit = action.scope, action.name, action.unit
    if name == unit:
        return _about(_complaints(scope, {unit: action.text}, [unit], host)[0], name, unit)
    base = {unit: _base(action, host)}
    found = _about(_complaints(scope, {**base, name: action.text}, [unit], host)[0], name, unit)
    if any(line.startswith(unit) for line in found):
        # What is wrong with the unit without us is not ours to judge.
        alone = _complaints(scope, base, [unit], host)[0]
        found = [line for line in found if line not in alone]
    return found


def _complaints(
    scope: str, texts: Mapping[str, str], units: Sequence[str], host: Host
) -> tuple[list[str], int]:
    folder = os.path.join(host.state_dir, "verify")
    return host.systemd.complaints(scope, texts, units, folder) or ([], 0)


def _base(action: WriteUnit, host: Host) -> str:
    """The unit of a drop-in, to be checked with it."""
    systemd = host.systemd
    own = f"{systemd.folder(action.scope)}/{action.unit}"
    for path in (own, systemd.elsewhere(action.scope, action.unit)):
        if path is not None:
            try:
                there = managed_file(os.path.realpath(path))
            except HostError:
                continue
            if there is not None and there.link is None:
                return there.text
    return _STAND_INS[action.unit.rpartition(".")[2]]


def _about(said: Sequence[str], name: str, unit: str) -> list[str]:
    """The complaints about the file ``name`` or its unit; a template's has an instance."""
    stem = unit.partition("@")[0] + "@" if "@." in unit else unit
    found = []
    for line in said:
        of_file = re.match(rf"{re.escape(name)}:\d+: ", line)
        of_unit = line.startswith(stem) and not _OF_OTHERS.search(line)
        if (of_file or of_unit) and not _ADVICE.search(line):
            found.append(line)
    return list(dict.fromkeys(found))


# -- the manager


def _tell(actions: Mapping[int, Tell], host: Host, found: list[Exception | None]) -> None:
    """Tell the manager the same of all these units."""
    systemd = host.systemd
    first = next(iter(actions.values()))
    scope, verb = first.scope, first.verb
    units = list(dict.fromkeys(action.unit for action in actions.values()))
    errors: dict[str, Exception] = {}
    if verb == "stop":
        ours = [unit for unit in units if systemd.holds_us(unit)]
        if ours:
            host.last.append(lambda: systemd.tell(scope, "stop", "--no-block", "--", *ours))
        errors |= systemd.tell_all(scope, verb, [unit for unit in units if unit not in ours])
    else:
        # These would reload the manager each by itself.
        options = ("--no-reload", *first.options)

        def tell(some: Sequence[str]) -> None:
            systemd.tell(scope, verb, *options, "--", *some)
            if verb == "disable":
                # Without the option it leaves what is enabled until the next boot.
                systemd.tell(scope, verb, *options, "--runtime", "--", *some)

        errors |= in_halves(units, tell)
        for unit in units:
            systemd.changed(scope, unit)
    for at, action in actions.items():
        found[at] = errors.get(action.unit)


def _renew(actions: Mapping[int, Renew], host: Host, found: list[Exception | None]) -> None:
    """Start, restart or reload all these units, and wait until each has come up or failed."""
    systemd = host.systemd
    first = next(iter(actions.values()))
    scope = first.scope
    units = list(dict.fromkeys(action.unit for action in actions.values()))
    errors: dict[str, Exception] = {}
    try:
        if first.others:
            # Together: a client that waits would have the socket start its service again.
            systemd.tell(scope, "stop", "--", *units, *first.others)
        if first.verb == "start" or first.others:
            known = _known(scope, units, host)
            failed = [unit for unit in units if known.get(unit, {}).get("ActiveState") == "failed"]
            if failed:
                # One that failed too often is not started again by itself, systemd.unit(5).
                systemd.tell(scope, "reset-failed", "--", *failed)
            errors |= systemd.tell_all(scope, "start", units)
        else:
            errors |= systemd.renew(scope, first.verb, units)
        for unit, error in errors.items():
            words = cause(host, scope, unit)
            errors[unit] = HostError(f"{error}; {words}") if words else error
        if first.others and not errors:
            systemd.tell(scope, "start", "--", *first.others)
        systemd.settled(scope, [one for one in units if not systemd.holds_us(one)], _SETTLE)
    except UnknownState:
        pass  # It takes long. How far it is by now is seen when it is looked at.
    except HostError as error:
        errors |= {unit: error for unit in units if unit not in errors}
    for at, action in actions.items():
        found[at] = errors.get(action.unit)


def _known(scope: str, units: Sequence[str], host: Host) -> Mapping[str, Mapping[str, str]]:
    """What is known of them; nothing where one of them is odd, which is started all the same."""
    try:
        return host.systemd.show(scope, units)
    except UnknownState:
        return {}


def cause(
    host: Host, scope: str, unit: str, known: Mapping[str, str] | None = None, words: bool = True
) -> str:
    """How a unit has ended, and what it said last where ``words`` may be shown."""
    try:
        known = known or host.systemd.show(scope, [unit])[unit]
    except UnknownState as error:
        return str(error)
    result = known.get("Result")
    found = [f"result {result}"] if result != "success" else []
    status = known.get("ExecMainStatus", "0")
    if status != "0":
        # CLD_EXITED is 1, wait(2); else it is the signal that ended it.
        ended = "exit status" if known.get("ExecMainCode") == "1" else "signal"
        found.append(f"{ended} {status}")
    if known.get("NRestarts", "0") not in ("0", ""):
        times = known["NRestarts"]
        found.append("restarted once" if times == "1" else f"restarted {times} times")
    if known.get("LoadState") in ("error", "bad-setting"):
        found.append(known.get("LoadError", ""))
    said = host.systemd.last_words(scope, unit) if words else []
    last = f"it said last: {' | '.join(said)}" if said else ""
    return "; ".join(filter(None, (", ".join(found), last)))
