"""Hard limits for a process with all that it starts: a control group of its own, cgroups(7).

Where systemd runs it makes the group, else we do, in version 2 of the file system. It must not
be taken for done before the kernel says so: systemd passes over what it has no controller for.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress

from reconciler.base.errors import HostError
from reconciler.host import scope
from reconciler.host.walk import closing

_ROOT = "/sys/fs/cgroup"
_PERIOD = 100_000
"""Microseconds in which the processor time of ``cpu.max`` may be used."""
_PROPERTIES = {"memory_max": "MemoryMax", "cpu_max": "CPUQuotaPerSecUSec", "pids_max": "TasksMax"}
"""What systemd calls them, systemd.resource-control(5)."""


def enter(text: str) -> None:
    """Move this process into a group of its own: ``NAME:limit=N,…``, as ``written`` gives it.

    Raises HostError where not all of its limits hold then.
    """
    name, _, words = text.partition(":")
    limits = {key: float(value) for key, value in (one.split("=") for one in words.split(","))}
    if os.path.isdir("/run/systemd/system"):
        scope.enter(
            name, [(_PROPERTIES[key], "t", _for_systemd(key, limits[key])) for key in limits]
        )
    else:
        _make(name, limits)
    missing = [key for key in limits if not _holds(key, limits[key])]
    if missing:
        raise HostError(f"cannot set cgroup.{missing[0]}: {_why_not(missing[0])}")


def written(name: str, limits: tuple[tuple[str, float], ...]) -> str:
    """It as a text without blanks, to be handed to another program."""
    return f"{scope.plain(name)}:" + ",".join(f"{key}={value:.15g}" for key, value in limits)


def _for_systemd(key: str, value: float) -> str:
    return str(int(value * 10_000 if key == "cpu_max" else value))


def _file(key: str) -> str:
    return key.replace("_", ".")


def _for_kernel(key: str, value: float) -> str:
    return f"{int(value * _PERIOD / 100)} {_PERIOD}" if key == "cpu_max" else str(int(value))


def _own() -> str:
    """The folder of our group of version 2."""
    with open("/proc/self/cgroup", encoding="utf-8", errors="replace") as file:
        paths = [line[3:].strip() for line in file if line.startswith("0::")]
    return f"{_ROOT}{paths[0].rstrip('/')}" if paths else _ROOT


def _holds(key: str, value: float) -> bool:
    """Does the kernel say so? Memory is counted in pages."""
    try:
        found = [float(word) for word in _read(f"{_own()}/{_file(key)}").split()]
    except (OSError, ValueError):
        return False
    if key == "cpu_max":
        return abs(found[0] / found[1] * 100 - value) < 1
    return 0 <= value - found[0] < os.sysconf("SC_PAGE_SIZE") if found else False


def _why_not(key: str) -> str:
    controller = key.partition("_")[0]
    if not os.path.exists(f"{_ROOT}/cgroup.controllers"):
        return f"there is no cgroup v2 at {_ROOT}"
    with suppress(OSError):
        if controller not in _read(f"{_ROOT}/cgroup.controllers").split():
            return f"the cgroup v2 of this host has no {controller} controller"
    if os.geteuid() != 0:
        return f"the {controller} controller is not delegated to this user; run as root"
    return "systemd did not set it"


def _make(name: str, limits: dict[str, float]) -> None:
    """Raises HostError."""
    own = _own()
    control = " ".join(f"+{key.partition('_')[0]}" for key in limits)
    for above in dict.fromkeys((own, os.path.dirname(own) if own != _ROOT else own)):
        try:
            _write(f"{above}/cgroup.subtree_control", control)
            for old in os.listdir(above):
                if old.startswith(f"reconcile-{name}-"):
                    with suppress(OSError):  # One of those that have ended.
                        os.rmdir(f"{above}/{old}")
            group = f"{above}/{scope.unit(name, os.getpid()).removesuffix('.scope')}"
            os.mkdir(group)
            for key, value in limits.items():
                _write(f"{group}/{_file(key)}", _for_kernel(key, value))
            _write(f"{group}/cgroup.procs", str(os.getpid()))
        except OSError as error:
            # A group that has processes has none below it that are limited, cgroups(7).
            if error.errno == errno.EBUSY and above == own != _ROOT:
                continue
            first = next(iter(limits))
            why = _why_not(first) if error.errno in (errno.ENOENT, errno.EINVAL) else error.strerror
            raise HostError(f"cannot set cgroup.{first}: {why}") from None
        return


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read()


def _write(path: str, text: str) -> None:
    with closing(os.open(path, os.O_WRONLY | os.O_CLOEXEC)) as handle:
        os.write(handle, text.encode())
