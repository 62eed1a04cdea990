"""How lines for cron differ from what is declared, in words, and what removes that. Pure."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from typing import cast

from reconciler.core.model import Action, Change, Resource
from reconciler.host.clock import spoken
from reconciler.host.managed_file import differs
from reconciler.kinds.cron.actions import DropLine, PutLine
from reconciler.kinds.cron.resource import Cron, CronState
from reconciler.kinds.cron.table import BELOW


def base(name: str) -> str:
    """The id of the resource of whose template a line of that name is; else the name."""
    found = re.fullmatch(r"(.+)\[\d+\]", name, re.DOTALL)
    return found[1] if found else name


def put_line(entry: str, want: Cron) -> PutLine:
    """What puts the one line there that is no template's."""
    schedule, command = cast("str", want.schedule), cast("tuple[str, ...]", want.command)
    return PutLine(want.whose, entry, schedule, command, want.env, replaced=want.replaced)


def put_lines(resource: Resource[Cron]) -> list[PutLine]:
    """What puts all lines there."""
    want = resource.want
    if want.text is None:
        return [put_line(resource.id, want)]
    return [
        PutLine(want.whose, resource.id + key, "", (), (), line, want.secret)
        for key, line in want.lines().items()
    ]


def line_changes(expected: CronState | None, have: CronState | None) -> tuple[Change, ...]:
    """What differs in a crontab."""
    if expected is None or have is None:
        if expected is have:
            return ()
        if expected is None:
            return (Change("state", "present", "absent"),)
        made = Change("state", "absent", "present")
        if expected.lines:
            return made, *_of_template(expected, CronState(""))
        names = ", ".join(name for name, _ in expected.env)
        env = (Change("env", None, names),) if names else ()
        line = Change("line", None, expected.line)
        return (made, line, *env, _runs(expected))
    found = []
    if have.line != expected.line:
        found.append(Change("line", have.line or None, expected.line or None))
        if expected.line:
            found.append(_runs(expected))
    if have.env != expected.env:
        differ = dict(set(have.env) ^ set(expected.env))
        found.append(Change("env", "differs", f"{', '.join(sorted(differ))} as declared"))
    found += _of_template(expected, have)
    if have.block != expected.block:
        found.append(Change("block", have.block, expected.block))
    return tuple(found)


def _of_template(expected: CronState, have: CronState) -> Iterator[Change]:
    are, goals = ({key: words for key, *words in state.lines} for state in (have, expected))
    for key in sorted(are.keys() | goals.keys()):
        now, goal = are.get(key), goals.get(key)
        if now != goal:
            shown = now and now[0]
            if now and goal and shown == goal[0]:
                shown = f"{shown} (another where it is not shown)"
            yield Change(f"line {int(key[1:-1])}", shown, goal and goal[0])


def line_actions(
    resource: Resource[Cron], have: CronState | None, changes: Sequence[Change]
) -> list[Action]:
    """What makes the lines of a crontab as declared, or takes them out."""
    want = resource.want
    are = [key for key, *_ in have.lines] if have is not None else []
    if have is not None and (have.line or not are):
        are.append("")
    name = resource.id if want.entry is None else want.entry
    if not resource.present:
        return [DropLine(want.whose, name + key) for key in are]
    puts = put_lines(resource)
    wanted = {put.entry for put in puts}
    drops = [DropLine(want.whose, name + key) for key in are if name + key not in wanted]
    if want.text is not None:
        changed = {one.field for one in changes}
        differ = [put for at, put in enumerate(puts, 1) if f"line {at}" in changed]
        puts = differ or puts[: not drops]
    return [*puts, *drops]


def in_words(changes: Sequence[Change]) -> str:
    """With the next run by the clock: for people only, and no part of any comparison."""
    line = next((one.want for one in changes if one.field == "line"), "")
    lines = [one for one in changes if one.field.startswith("line ")]
    if lines and changes[0].field == "state":
        return f"missing; {len(lines)} {'line' if len(lines) == 1 else 'lines'}"
    fields = [one.field for one in changes]
    told = []
    for change in changes:
        if change.field == "state" and change.have == "absent" and "content" in fields:
            return "missing"
        if change.field == "content":
            told.append(differs(str(change.have), str(change.want)))
        elif change.field == "state":
            told.append("missing" if change.have == "absent" else "present, should be absent")
        elif change.field == "runs":
            told.append(f"runs {change.want}{_next(line)}")
        elif change.field == "env" and change.have is None:
            told.append(f"with {change.want} in its environment")
        elif change.field == "env":
            told.append(f"env differs: {change.want}")
        elif change.field == "block":
            below = change.have == BELOW
            wrong = "the block must stand last" if below else "the block is damaged"
            told.append(f"{wrong}: {change.have}")
        elif change.want is None:
            told.append(f"{change.field} should not be there: {change.have!r}")
        elif change.have is not None:
            told.append(f"{change.field} is {change.have!r}, should be {change.want!r}")
        elif change.field != "line":
            told.append(f"{change.field} is missing: {change.want!r}")
    return "; ".join(told)


def _runs(state: CronState) -> Change:
    from reconciler.kinds.cron.schedule import in_words

    return Change("runs", None, in_words(state.schedule or "@reboot"))


def _next(line: str) -> str:
    from reconciler.kinds.cron.schedule import next_run

    words = line.split(" ")
    schedule = words[0] if line.startswith("@") else " ".join(words[:5])
    at = next_run(schedule, spoken()) if line else None
    return "" if at is None else time.strftime(", next %Y-%m-%d %H:%M", time.localtime(at))
