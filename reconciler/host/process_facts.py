"""What can be seen of one process of this host, for a spec that is to name it.

It must not show anything that only its owner may know to others: what may not be read is None.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Iterable

from reconciler.base.errors import UnknownState
from reconciler.base.records import dataclass
from reconciler.host.processes import environment, owner_of, read_proc

_LISTENS = "0A"
"""Of a TCP socket in /proc/net/tcp, proc_net(5)."""


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
        int(lines["Gid"].split()[1]),
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


def listening(pids: Iterable[int]) -> list[str]:
    """Where these accept connections by TCP, each as ``ADDRESS:PORT`` that reaches it from here."""
    sockets: set[str] = set()
    some = list(pids)
    for pid in some:
        try:
            names = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue
        links = (_link(pid, f"fd/{name}") or "" for name in names)
        sockets |= {link[8:-1] for link in links if link.startswith("socket:[")}
    found = {}
    for name in ("net/tcp", "net/tcp6") if sockets else ():
        for line in (read_proc(some[0], name, 2**22) or b"").decode().splitlines()[1:]:
            words = line.split()
            if words[3] == _LISTENS and words[9] in sockets:
                address, _, port = words[1].rpartition(":")
                found[int(port, 16)] = f"{_host(address)}:{int(port, 16)}"
    return [found[port] for port in sorted(found)]


def _host(address: str) -> str:
    """Of the kernel's hexadecimal form, which has words of four bytes in this machine's order."""
    from ipaddress import IPv6Address, ip_address

    words = (bytes.fromhex(address[at : at + 8]) for at in range(0, len(address), 8))
    found = ip_address(b"".join(w[::-1] if sys.byteorder == "little" else w for w in words))
    if found.is_unspecified:
        return "127.0.0.1"
    return f"[{found}]" if isinstance(found, IPv6Address) else str(found)


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
    here = path.startswith("/") and not path.endswith(" (deleted)")
    return path if here and stat.S_ISREG(status.st_mode) else None


def _unit(pid: int) -> str | None:
    for line in (read_proc(pid, "cgroup", 65536) or b"").decode(errors="replace").splitlines():
        path = line.split(":", 2)[-1]
        if not path.startswith("/user.slice/") and re.search(r"\.service(/|$)", path):
            return str(re.findall(r"[^/]+\.service", path)[-1])
    return None
