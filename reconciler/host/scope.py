"""A unit of systemd's for what outlives us, so that it does not end with the unit that we run in.

All that a service has started shares its control group, and ends when the service is stopped
unless that has KillMode=process, systemd.kill(5). A scope, systemd.scope(5), is a control group
for processes that somebody else has started. It must not be relied upon: where no systemd
answers, a process stays where it is.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from contextlib import suppress

from reconciler.base.errors import HostError
from reconciler.host.command import find, own_environment, run
from reconciler.host.environment import runtime_folder

_ASK = 2.0
"""Seconds for systemd's answer, and for the move behind it."""
_STOP = 10_000_000
"""Microseconds from TERM to KILL when the host is shut down."""


def enter(name: str, more: Sequence[tuple[str, str, str]] = ()) -> None:
    """Move this process into a scope of its own, named after ``name`` and its number.

    ``more`` are properties of it. As
    https://www.freedesktop.org/wiki/Software/systemd/ControlGroupInterface has it.
    """
    if not os.path.isdir("/run/systemd/system"):
        return
    busctl = find("busctl")
    environ = own_environment()
    manager = "--system"
    if os.geteuid() != 0:
        manager = "--user"
        environ["XDG_RUNTIME_DIR"] = runtime_folder() or ""
    if busctl is None:
        return
    pid = str(os.getpid())
    unit_of_us = unit(name, os.getpid())
    properties = (
        ("PIDs", "au", "1", pid),
        ("Description", "s", f"{name}, kept by reconcile"),
        ("CollectMode", "s", "inactive-or-failed"),
        ("TimeoutStopUSec", "t", str(_STOP)),
        *more,
    )
    where = "org.freedesktop.systemd1", "/org/freedesktop/systemd1"
    argv = [
        *(busctl, manager, "call", *where, "org.freedesktop.systemd1.Manager"),
        *("StartTransientUnit", "ssa(sv)a(sa(sv))", unit_of_us, "fail", str(len(properties))),
        *(word for one in properties for word in one),
        "0",
    ]
    with suppress(HostError):
        end = time.monotonic() + _ASK
        # It answers before it has moved us, and what is started until then would stay behind.
        if run(argv, timeout=_ASK, environ=environ).status == 0:
            while not _is_in(unit_of_us) and time.monotonic() < end:
                time.sleep(0.005)


def unit(name: str, pid: int) -> str:
    """What the scope is called of the process with that number that was started as ``name``."""
    return f"reconcile-{plain(name)}-{pid}.scope"


def plain(name: str) -> str:
    """The name as it stands there."""
    return re.sub("[^A-Za-z0-9_]", "_", name)[:100]


def _is_in(unit: str) -> bool:
    try:
        with open("/proc/self/cgroup", encoding="utf-8", errors="replace") as file:
            return unit in file.read()
    except OSError:
        return True
