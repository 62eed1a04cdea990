"""What goes wrong, with what helps, and the exit codes that say so.

It must not import anything of this program.
"""

from __future__ import annotations

from typing import NewType

DONE, TROUBLE, CHANGED, USAGE, INVALID, BUSY = 0, 1, 2, 64, 65, 75
"""Exit codes; the numbers from 64 up are those of sysexits.h."""

Remedy = NewType("Remedy", str)
"""A command that a person may paste into a shell. Only ``host.remedy`` makes one."""


class HostError(Exception):
    """The host refused or failed; the message says what happened, where, and what to do.

    ``remedy`` is the command that settles it, where there is one; the message ends in it.
    """

    def __init__(self, *words: object, remedy: Remedy | None = None) -> None:
        super().__init__(*words)
        self.remedy = remedy

    def __str__(self) -> str:
        words = super().__str__()
        return f"{words}; fix it with: {self.remedy}" if self.remedy else words


class UnknownState(HostError):
    """The host could not be asked. Never the same as "absent"."""


class BeingWritten(HostError):
    """Somebody is still writing the spec. Nothing was done; the message says who."""
