"""The parent of a process whose exit status matters: waits for its end, and writes that down.

It is a program of its own, so that it is small, and goes on while ours is replaced. It must not
hold anything of ours, nor be a part of what it waits for.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import NoReturn

from reconciler.host import scope

_PROGRAM = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from reconciler.host import waiter; waiter.wait(int(sys.argv[2]), sys.argv[3], sys.argv[4])"
)


def arguments(name: str, record: str, pid: int) -> list[str]:
    """The command line of the one who waits for that child; ``name`` is the resource's."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return [sys.executable, "-I", "-S", "-c", _PROGRAM, root, str(pid), name, record]


def wait(pid: int, name: str, record: str) -> NoReturn:
    """Wait for the child, and write how it has ended beside its ``record``."""
    from reconciler.host.place import put_at
    from reconciler.host.processes import look_up, signal_name
    from reconciler.host.start_records import ENDED, ended_as

    scope.enter(f"{name} waiter")
    # It stays a zombie until that is written: who looks meanwhile knows that there is more to come.
    found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    entry = look_up(pid, zombies=True)
    if found is not None and entry is not None:
        exited = found.si_code == os.CLD_EXITED
        status = str(found.si_status) if exited else signal_name(found.si_status)
        path = f"{record}.{pid}{ENDED}"
        with suppress(FileExistsError):  # Whoever has stopped it has written that down.
            put_at(path, ended_as(entry.identity, status), replace=False, sync=False)
    os._exit(0)
