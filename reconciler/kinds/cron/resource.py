"""What a user may write of lines for cron, and what is seen of those in a crontab. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from reconciler.base.records import dataclass, field
from reconciler.core.fields import Command, Environment, Name, Parsed, Text, Variables
from reconciler.kinds.cron.lines import CronJob, job_in, rendered, shown_text

_SCHEDULE = {
    "type": "string",
    "pattern": r"^(@(hourly|daily|midnight|weekly|monthly|yearly|annually|reboot)"
    r"|\s*\S+\s+\S+\s+\S+\s+\S+\s+\S+\s*|.*\{\{.*\}\}.*)$",
}
FOLDER = "/etc/cron.d"


def _schedule(value: object) -> str:
    # Where nothing differs there is nothing to be read.
    from reconciler.kinds.cron.schedule import parse_schedule

    return parse_schedule(value)


@dataclass(frozen=True, slots=True)
class Cron:
    """A line in the crontab of ``user``, by default the caller, or lines from a template.

    Those from a template stand there too, or with ``file`` in a file of /etc/cron.d.
    """

    schedule: Annotated[str, Parsed(_schedule, _SCHEDULE)] | None = None
    """Five fields as in crontab(5), or a word such as @daily or @reboot."""
    command: Command | None = None
    """A list of arguments, or a string for the shell."""
    env: Environment = ()
    """Variables of the command's environment; MAILTO says where cron sends its output."""
    user: Name | None = None
    """In whose crontab; another user's needs root."""
    replaces: Name | None = None
    """A line of that crontab for which it stands; it is left there while both say the same."""
    template: Name | None = field(default=None, metadata={"template": "file"})
    """The template that gives lines for cron."""
    content: Text | None = field(default=None, metadata={"template": "text"})
    """Lines for cron, which may hold templates."""
    vars: Variables = field(default=(), metadata={"template": "values"})
    """Values for the template."""
    file: Name | None = None
    """The file in /etc/cron.d, in place of a crontab; a name without dots."""
    caller: str = field(default="", metadata={"written": False})
    entry: str | None = field(default=None, metadata={"written": False})
    text: str | None = field(default=None, metadata={"written": False})
    """What the template gave: lines of a crontab, or the whole file."""
    secret: bool = field(default=False, metadata={"written": False})
    former: tuple[tuple[str, str, str | None], ...] | None = field(
        default=None, metadata={"written": False}
    )
    """Lines as they were before a pass, with their names and MAILTO, and no others."""

    @property
    def whose(self) -> str:
        """The user in whose crontab it stands."""
        return self.user or self.caller

    @property
    def path(self) -> str:
        """Its file in /etc/cron.d."""
        return f"{FOLDER}/{self.file}"

    @property
    def _lines(self) -> list[str]:
        # Only LF ends a line of cron; str.splitlines() knows others.
        return self.text.removesuffix("\n").split("\n") if self.text else []

    def lines(self) -> dict[str, str]:
        """The lines from its template, by what tells them apart behind the resource's id."""
        return {f"[{number:02}]": line for number, line in enumerate(self._lines, 1)}

    def jobs(self) -> Iterator[CronJob]:
        """What its template has cron run."""
        for line in self._lines:
            found = job_in(line, self.file is not None)
            if found is not None:
                yield found

    @property
    def replaced(self) -> bytes | None:
        """The line that it stands for."""
        return None if self.replaces is None else self.replaces.encode("utf-8", "surrogateescape")

    def is_replaced(self) -> bool:
        """Does that line say the same?"""
        if self.replaces is None or self.env or self.schedule is None or self.command is None:
            return False
        own = rendered(self.schedule, self.command, {}).decode("utf-8", "surrogateescape")
        return job_in(own, False) == job_in(self.replaces, False)

    def shown(self, text: str) -> str:
        """Its text, or a line of that, as it may be shown."""
        return shown_text(text) if self.secret else text


@dataclass(frozen=True, slots=True)
class CronState:
    """The line as it may be shown, the digests of its variables, and its place among others.

    ``lines`` are those from a template: what tells each apart, how it is shown, and its digest.
    """

    line: str
    env: tuple[tuple[str, str], ...] = ()
    block: str = "in order"
    schedule: str | None = None
    lines: tuple[tuple[str, str, str], ...] = ()
