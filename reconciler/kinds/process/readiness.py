"""Is a process ready? Asked in a child, as a check is.

It must not decide what follows, nor take the answer of another instance for its own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from reconciler.base.errors import HostError
from reconciler.base.text import printable
from reconciler.base.values import Verdict
from reconciler.core.model import Resource
from reconciler.host.start_records import READY
from reconciler.kinds.process.actions import log_path

if TYPE_CHECKING:
    from reconciler.host import Host
    from reconciler.host.processes import Identity
    from reconciler.kinds.process.resource import Process

_LONGEST = 5.0
"""Seconds for one answer."""
_MOST = 2**20
_LISTENS = " 0A "
"""The state of a socket, in /proc/net/tcp."""


def ask(
    resource: Resource[Process], asked: Sequence[Identity], others: Sequence[Identity], host: Host
) -> Mapping[Identity, Verdict]:
    """Are these ready, of which there are ``others`` as well? It may block. Never raises."""
    from reconciler.host.probe import bounded

    ready = resource.want.ready
    assert ready is not None
    if ready.notify:
        noted = host.start_records.noted
        said = {one: noted(resource.id, one, READY) == "ready" for one in asked}
        return {one: Verdict(well, "has not said READY=1 yet") for one, well in said.items()}
    listener = ready.tcp or ready.http
    port = _port(resource.want) if listener is not None and others else None
    sockets: set[str] = set()

    def answer() -> Verdict:
        found = _verdict(resource, host)
        if found.ok and port is not None:
            sockets.update(_listening(port))
        return found

    verdict = bounded(answer, min(ready.timeout, _LONGEST))
    # Instances may share a port: whose answer was that?
    if not verdict.ok or not any(_holds(other, sockets, host) for other in others):
        return dict.fromkeys(asked, verdict)
    waits = Verdict(False, f"does not listen on port {port} yet, where another instance answers")
    return {one: verdict if _holds(one, sockets, host) else waits for one in asked}


def _verdict(resource: Resource[Process], host: Host) -> Verdict:
    """Raises HostError and OSError."""
    from reconciler.kinds.check.ask import ask as ask_check
    from reconciler.kinds.check.resource import Check

    want = resource.want
    ready = want.ready
    assert ready is not None
    if ready.log is not None:
        return _logged(resource, ready.log.path, ready.log.match, host)
    check = Check(
        command=ready.command,
        cwd=want.cwd,
        env=want.env if ready.command is not None else (),
        fresh=ready.fresh,
        tcp=ready.tcp,
        http=ready.http,
        timeout=min(ready.timeout, _LONGEST),
    )
    return ask_check(check, host.users.account(want.user), host)


def _logged(resource: Resource[Process], path: str | None, match: str, host: Host) -> Verdict:
    """Is there such a line, of those that it has written since it was started?"""
    from reconciler.host.reading import regular_file

    log = path or log_path(resource.id, resource.want.log_path, host)
    try:
        with regular_file(log) as (handle, _):
            status = os.fstat(handle)
            start = host.start_records.log_start(resource.id, status)
            text = os.pread(handle, _MOST, max(start, status.st_size - _MOST))
    except FileNotFoundError:
        return Verdict(False, f"there is no {log}")
    found = re.search(match, text.decode(errors="replace"), re.MULTILINE) is not None
    return Verdict(found, f"no line of {log} matches {printable(match)!r} yet")


def _port(want: Process) -> int | None:
    from urllib.parse import urlsplit

    ready = want.ready
    assert ready is not None
    if ready.tcp is not None:
        return ready.tcp.address[1] if ready.tcp.address is not None else None
    if ready.http is None or ready.http.unix is not None:
        return None
    parts = urlsplit(ready.http.url)
    return parts.port or (443 if parts.scheme == "https" else 80)


def _listening(port: int) -> Iterator[str]:
    """The sockets on which somebody takes connections on that port, as /proc/PID/fd names them.

    psutil reads all connections of the host again for each process, or names one process of those
    that share a socket.
    """
    for name in ("tcp", "tcp6"):
        with suppress(OSError), open(f"/proc/net/{name}", encoding="ascii") as file:
            for fields in (line.split() for line in file if _LISTENS in line):
                if int(fields[1].rpartition(":")[2], 16) == port:
                    yield f"socket:[{fields[9]}]"


def _holds(identity: Identity, sockets: Collection[str], host: Host) -> bool:
    """Has it, or something below it, one of these open?"""
    if not sockets:
        return False
    try:
        pids: Collection[int] = host.table.below([identity.pid])
    except HostError:
        pids = [identity.pid]
    for pid in pids:
        with suppress(OSError):
            for handle in os.listdir(f"/proc/{pid}/fd"):
                with suppress(OSError):
                    if os.readlink(f"/proc/{pid}/fd/{handle}") in sockets:
                        return True
    return False
