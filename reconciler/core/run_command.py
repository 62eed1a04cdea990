"""A command that a resource runs, as an action of its step."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from reconciler.base.errors import HostError
from reconciler.base.records import dataclass

if TYPE_CHECKING:
    from reconciler.host import Host

_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class RunCommand:
    """Run a command with the environment of managed processes; ``done`` is what was done before."""

    argv: tuple[str, ...]
    done: str = ""

    def describe(self) -> str:
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


def filled_in(argv: tuple[str, ...], path: str) -> tuple[str, ...]:
    """The command with that path for every ``{}``; no shell takes it for a part of its program."""
    if argv[:2] == ("sh", "-c") and len(argv) == 3:
        return ("sh", "-c", re.sub(r"""(["']?)\{\}\1""", '"$1"', argv[2]), "sh", path)
    return tuple(word.replace("{}", path) for word in argv)


def wrong_place(argv: Sequence[str]) -> str | None:
    """What is wrong with where a ``{}`` stands, in words."""
    for before, argument in pairwise(argv):
        if before == "-c" and "{}" in argument and (len(argv) > 3 or argv[0] != "sh"):
            words = 'a name in a program text could be taken for a part of it; write "$1" there'
            return f"{words}, and then the arguments x and {{}}"
    return None
