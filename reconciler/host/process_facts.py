"""What can be seen of one process of this host, for a spec that is to name it.

It must not show anything that only its owner may know to others: what may not be read is None.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from reconciler.base.errors import UnknownState
from reconciler.base.records import dataclass
from reconciler.host.processes import environment, owner_of, read_proc, started_by


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """How a process was started, and how it runs.

    ``output`` and ``errors`` are the files to which it writes, None for anything but a file;
    ``unit`` is the service of systemd whose it is; ``ports`` are ``ADDRESS:PORT``.
    """

    pid: int
    uid: int
    gid: int
    arguments: tuple[str, ...]
    program: str | None
    folder: str | None
    environ: dict[str, str]
    umask: str
    nice: int
    oom_score_adj: int
    output: str | None
    errors: str | None
    unit: str | None


def facts(pid: int) -> ProcessFacts:
    """Raises UnknownState where there is no such process of this host, or it may not be seen."""
    uid = owner_of(pid)
    said = (read_proc(pid, "status", 8192) or b"").decode(errors="replace")
    lines = dict(line.split(":\t", 1) for line in said.splitlines() if ":\t" in line)
    raw = read_proc(pid, "cmdline", 2**20) or b""
    if uid is None and raw:
        raise UnknownState(
            f"process {pid} is a container's, or acts as another user than the one who started it"
        )
    if uid is None or "Gid" not in lines:
        raise UnknownState(f"there is no process {pid} on this host")
    if not raw:
        raise UnknownState(f"process {pid} has no command line: it is the kernel's, or has ended")
    try:
        nice = os.getpriority(os.PRIO_PROCESS, pid)
    except OSError:
        nice = 0
    return ProcessFacts(
        pid,
        uid,
        # The group of a program is nothing that its user could have again.
        starter[1] if (starter := started_by(pid)) else int(lines["Gid"].split()[1]),
        tuple(os.fsdecode(raw).removesuffix("\0").split("\0")),
        _link(pid, "exe"),
        _link(pid, "cwd"),
        environment(pid),
        lines.get("Umask", "0022").strip(),
        nice,
        int(read_proc(pid, "oom_score_adj", 16) or b"0"),
        _file(pid, 1),
        _file(pid, 2),
        _unit(pid),
    )


def listening(pids: Iterable[int]) -> dict[int, str]:
    """The ports at which these take connections by TCP, each with the address that leads there."""
    import psutil

    found: dict[int, str] = {}
    for pid in pids:
        with suppress(psutil.Error, OSError):
            process: Any = psutil.Process(pid)
            asked = getattr(process, "net_connections", None) or process.connections  # psutil 5.
            for one in asked("tcp"):
                if one.status == psutil.CONN_LISTEN:
                    found[one.laddr.port] = _host(one.laddr.ip)
    return found


def _host(address: str) -> str:
    from ipaddress import ip_address

    if ip_address(address).is_unspecified:
        return "127.0.0.1"
    return f"[{address}]" if ":" in address else address


def _link(pid: int, name: str) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/{name}")
    except OSError:
        return None


def _file(pid: int, number: int) -> str | None:
    path = _link(pid, f"fd/{number}") or ""
    try:
        status = os.stat(f"/proc/{pid}/fd/{number}")
    except OSError:
        return None
    # Everybody may have open for reading what only root writes to.
    flags = re.search(rb"flags:\t[0-7]*([0-7])\n", read_proc(pid, f"fdinfo/{number}", 512) or b"")
    written = flags is not None and int(flags[1]) & os.O_ACCMODE != os.O_RDONLY
    here = written and path.startswith("/") and not path.endswith(" (deleted)")
    return path if here and stat.S_ISREG(status.st_mode) else None


def _unit(pid: int) -> str | None:
    for line in (read_proc(pid, "cgroup", 65536) or b"").decode(errors="replace").splitlines():
        path = line.split(":", 2)[-1]
        if not path.startswith("/user.slice/") and re.search(r"\.service(/|$)", path):
            return str(re.findall(r"[^/]+\.service", path)[-1])
    return None
