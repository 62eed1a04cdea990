"""What a user may write of a line for cron, and what is seen of it. Pure."""

from __future__ import annotations

from typing import Annotated

from reconciler.base.records import dataclass, field
from reconciler.core.fields import Command, Environment, Name, Parsed

_SCHEDULE = {
    "type": "string",
    "pattern": r"^(@(hourly|daily|midnight|weekly|monthly|yearly|annually|reboot)"
    r"|\s*\S+\s+\S+\s+\S+\s+\S+\s+\S+\s*|.*\{\{.*\}\}.*)$",
}


def _schedule(value: object) -> str:
    # Where nothing differs there is nothing to be read.
    from reconciler.kinds.cron.schedule import parse_schedule

    return parse_schedule(value)


@dataclass(frozen=True, slots=True)
class Cron:
    """A line in the crontab of ``user``, by default the caller."""

    schedule: Annotated[str, Parsed(_schedule, _SCHEDULE)]
    """Five fields as in crontab(5), or a word such as @daily or @reboot."""
    command: Command
    """A list of arguments, or a string for the shell."""
    env: Environment = ()
    """Variables of the command's environment; MAILTO says where cron sends its output."""
    user: Name | None = None
    """In whose crontab; another user's needs root."""
    caller: str = field(default="", metadata={"written": False})
    entry: str | None = field(default=None, metadata={"written": False})

    @property
    def whose(self) -> str:
        """The user in whose crontab it stands."""
        return self.user or self.caller


@dataclass(frozen=True, slots=True)
class CronState:
    """The line as it may be shown, the digests of its variables, and its place among others."""

    line: str
    env: tuple[tuple[str, str], ...] = ()
    block: str = "in order"
    schedule: str | None = None
