"""A command that a resource runs, as an action of its step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from reconciler.base.errors import HostError

if TYPE_CHECKING:
    from reconciler.host import Host

_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class RunCommand:
    """Run a command with the environment of managed processes; ``done`` is what was done before."""

    argv: tuple[str, ...]
    done: str = ""

    def describe(self) -> str:
        """The action in words."""
        from reconciler.host.remedy import in_words

        return f"run {in_words(self.argv)}"

    def run(self, host: Host) -> None:
        """Raises HostError when it cannot be run, fails, or takes longer than a minute."""
        from reconciler.host.launch import environment
        from reconciler.host.start import Program, run

        account = host.users.account(None)
        try:
            ended = run(Program(self.argv, environment(account, ()), account), timeout=_TIMEOUT)
            complaint = None if ended.status == 0 else ended.complaint
        except HostError as error:
            complaint = str(error)
        if complaint is not None:
            before = f"{self.done}, but " if self.done else ""
            raise HostError(f"{before}{self.describe()} failed: {complaint}")
