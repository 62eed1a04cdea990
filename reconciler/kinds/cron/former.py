"""Lines of a crontab as they were before a pass, to the byte, which ``--undo`` puts back.

It must not show the value of a variable.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from reconciler.base.records import dataclass
from reconciler.core.model import Action, Change, Observation, Resource
from reconciler.kinds.cron.actions import DropLine
from reconciler.kinds.cron.changes import base
from reconciler.kinds.cron.lines import shown
from reconciler.kinds.cron.resource import Cron
from reconciler.kinds.cron.table import CronEntry, CronTable, table

if TYPE_CHECKING:
    from reconciler.host import Host

FormerLine = tuple[str, str, str | None]
"""The name of a line, the line, and the MAILTO above it."""


@dataclass(frozen=True, slots=True)
class FormerState:
    """The lines of one resource, as they may be shown; ``lines`` are for the actions."""

    crontab: str
    lines: tuple[FormerLine, ...]


@dataclass(frozen=True, slots=True)
class PutFormer:
    """Put a line into a user's crontab again."""

    user: str
    entry: str
    line: str
    mailto: str | None

    @property
    def env(self) -> tuple[()]:
        """See PutLine: what is not to be shown is not in it."""
        return ()

    replaced = None

    def made(self) -> CronEntry:
        """The entry itself."""
        return CronEntry(
            os.fsencode(self.line), None if self.mailto is None else os.fsencode(self.mailto)
        )

    def shown(self) -> str:
        """The line as it may be shown."""
        return shown(os.fsencode(self.line), False)[0]

    def describe(self) -> str:
        return f"put into the crontab of {self.user} again: {self.shown()}"


def entries_of(resource: Resource[Cron], host: Host) -> tuple[FormerLine, ...]:
    """Its lines as they are now. Raises UnknownState."""
    want = resource.want
    return _entries(resource, table(host.crontabs.read(want.whose), host.owner, want.whose))


def _entries(resource: Resource[Cron], now: CronTable) -> tuple[FormerLine, ...]:
    name = resource.want.entry or resource.id
    return tuple(
        (key, os.fsdecode(one.line), None if one.mailto is None else os.fsdecode(one.mailto))
        for key, one in sorted(now.entries.items())
        if name in (key, base(key))
    )


def state_of(lines: Sequence[FormerLine]) -> FormerState | None:
    """What is seen of these lines; None: there are none."""
    if not lines:
        return None
    return FormerState(
        "\n".join(shown(os.fsencode(line), False)[0] for _, line, _ in lines), tuple(lines)
    )


def look(resource: Resource[Cron], now: CronTable) -> Observation[FormerState]:
    """What there is of it."""
    return Observation(state_of(_entries(resource, now)))


def changes(expected: FormerState | None, have: FormerState | None) -> tuple[Change, ...]:
    """How they differ, as it may be shown."""
    if expected == have:
        return ()
    if expected is None:
        return (Change("state", "present", "absent"),)
    texts = (have.crontab if have is not None else "", expected.crontab)
    name = "crontab" if any("\n" in text for text in texts) else "line"
    lines = Change(name, have and have.crontab, expected.crontab)
    return (lines,) if have is not None else (Change("state", "absent", "present"), lines)


def actions(resource: Resource[Cron], have: FormerState | None) -> list[Action]:
    """What makes them as they were."""
    want = resource.want
    are = have.lines if have is not None else ()
    goals = want.former or ()
    kept = {name for name, *_ in goals}
    puts = [PutFormer(want.whose, *one) for one in goals if one not in are]
    return [*puts, *(DropLine(want.whose, name) for name, *_ in are if name not in kept)]
