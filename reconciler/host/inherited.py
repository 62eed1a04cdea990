"""What a process inherits, made the same whoever starts it: as process 1 has it, or as declared.

What is as process 1 has it must not raise: as far as we may not, it stays as the caller has it.
"""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Sequence
from contextlib import suppress

from reconciler.base.errors import HostError
from reconciler.host.users import run_as

Settings = Sequence[tuple[str, str]]
"""What is declared, by name, each as text, so that it can be handed to another program: ``umask``,
``nice``, ``oom_score_adj``, ``cpus`` (numbers), ``cgroup`` (as that module writes it) and the names
of setrlimit(2) (``soft:hard``)."""
_OPEN_FILES = 7
"""RLIMIT_NOFILE, the place of "Max open files" in /proc/PID/limits."""


def scheduled_as_process_1() -> None:
    """Its policy and nice value, as far as we may. A fork may lose them, sched(7)."""
    with suppress(OSError):
        os.sched_setscheduler(0, os.sched_getscheduler(1), os.sched_getparam(1))
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 1))


def limited_as_process_1() -> None:
    """What else is inherited, as it has it, as far as we may; so it is the same from everywhere.

    Its umask is not: that of systemd is 0.
    """
    with suppress(OSError), open("/proc/1/limits", "rb") as file:
        # Behind a head, one line for each in the order of their numbers, getrlimit(2).
        for number, line in enumerate(file.read().splitlines()[1:]):
            soft, hard = (
                -1 if word == b"unlimited" else int(word) for word in line[26:].split()[:2]
            )
            if number == _OPEN_FILES and os.path.isdir("/run/systemd/system"):
                # It raises its own; its services get these, systemd-system.conf(5).
                soft, hard = 1024, _least(hard, 524288)
            _set_limit(number, soft, hard)
    with suppress(OSError):
        with open("/proc/1/oom_score_adj", "rb") as file:
            score = file.read()
        with open("/proc/self/oom_score_adj", "wb", buffering=0) as mine:
            mine.write(score)
    with suppress(OSError):
        os.sched_setaffinity(0, os.sched_getaffinity(1))


def _set_limit(number: int, soft: int, hard: int) -> None:
    with suppress(OSError, ValueError):
        try:
            resource.setrlimit(number, (soft, hard))
        except (OSError, ValueError):
            hard = _least(hard, resource.getrlimit(number)[1])  # Only root may raise it.
            resource.setrlimit(number, (_least(soft, hard), hard))


def _least(one: int, other: int) -> int:
    """Of two limits; -1 is RLIM_INFINITY."""
    return max(one, other) if -1 in (one, other) else min(one, other)


def as_declared(settings: Settings) -> None:
    """Set what is declared, with the rights of the caller. Raises HostError."""
    for name, value in settings:
        try:
            if name == "umask":
                os.umask(int(value, 8))
            elif name == "nice":
                os.setpriority(os.PRIO_PROCESS, 0, int(value))
            elif name == "oom_score_adj":
                with open("/proc/self/oom_score_adj", "wb", buffering=0) as file:
                    file.write(value.encode())
            elif name == "cgroup":
                from reconciler.host import cgroup

                cgroup.enter(value)
            elif name == "cpus":
                os.sched_setaffinity(0, map(int, value.split(",")))
            else:
                soft, hard = map(int, value.split(":"))
                resource.setrlimit(getattr(resource, f"RLIMIT_{name.upper()}"), (soft, hard))
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            hint = f"; {run_as('root')}" if isinstance(error, PermissionError) else ""
            raise HostError(f"cannot set {name} to {value}: {why}{hint}") from None


def usual_signals() -> None:
    """None ignored, none handled, none blocked."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        with suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
