"""The parent of a process: waits for its end or for word that it is ready, and writes that down.

It is a program of its own, so that it is small, and goes on while ours is replaced. It must not
hold anything of ours, nor be a part of what it waits for.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from reconciler.host import scope

_PROGRAM = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from reconciler.host import waiter; waiter.wait(*sys.argv[2:])"
)
_CREDENTIALS = struct.Struct("3i")


class Waiter:
    """Who is to wait for a process of the resource ``name``, whose files begin with ``record``.

    ``uid`` is whose processes, of those that have come of it, may say that it is ready,
    sd_notify(3), on a socket that nobody else has.
    """

    def __init__(self, name: str, record: str, uid: int | None) -> None:
        self._name = name
        self._record = record
        self._uid = uid
        # In no file system, so that a process of any user reaches it, unix(7).
        self.address = f"@reconcile/{os.getpid()}.{os.urandom(8).hex()}"

    def listen(self) -> int:
        """A descriptor to receive on, or -1 where nothing is to be heard. Raises OSError."""
        if self._uid is None:
            return -1
        made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        made.bind("\0" + self.address[1:])
        return made.detach()

    def arguments(self, pid: int, listener: int) -> list[str]:
        """The command line of the one who waits for that child."""
        root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        words = (str(pid), self._name, self._record, str(listener), str(self._uid))
        return [sys.executable, "-I", "-S", "-c", _PROGRAM, root, *words]


def wait(child: str, name: str, record: str, listener: str, uid: str) -> NoReturn:
    """Wait for the child, and write what becomes of it beside its ``record``."""
    from reconciler.host.place import put_at
    from reconciler.host.processes import look_up, signal_name
    from reconciler.host.start_records import ENDED, READY, note_of

    scope.enter(f"{name} waiter")
    pid = int(child)
    entry = look_up(pid, zombies=True)

    def note(of: str, word: str) -> None:
        if entry is not None:
            with suppress(FileExistsError):  # Whoever has stopped it has written that down.
                content = note_of(entry.identity, word)
                put_at(f"{record}.{pid}{of}", content, replace=False, sync=False)

    if listener != "-1":
        _hear(int(listener), int(uid), pid, lambda: note(READY, "ready"))
    # It stays a zombie until that is written: who looks meanwhile knows that there is more to come.
    found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    if found is not None:
        exited = found.si_code == os.CLD_EXITED
        note(ENDED, str(found.si_status) if exited else signal_name(found.si_status))
    os._exit(0)


def _hear(listener: int, uid: int, pid: int, ready: Callable[[], None]) -> None:
    """Until it has ended. Others may say what they like."""
    heard = socket.socket(fileno=listener)
    ended = os.pidfd_open(pid)
    poller = select.poll()
    poller.register(heard, select.POLLIN)
    poller.register(ended, select.POLLIN)
    while heard.fileno() in (found := dict(poller.poll())):
        if ended in found:
            heard.shutdown(socket.SHUT_RD)  # Nothing more comes: else whoever talks on keeps us.
        said, attached, _, _ = heard.recvmsg(4096, socket.CMSG_SPACE(_CREDENTIALS.size))
        if not attached:
            break
        senders = [
            _CREDENTIALS.unpack(data)
            for level, sort, data in attached
            if (level, sort) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS)
        ]
        if b"READY=1" in said.split(b"\n") and any(
            _is_of(sender, pid) if of == uid else of == 0 for sender, of, _ in senders
        ):
            ready()
    heard.close()
    os.close(ended)


def _is_of(sender: int, pid: int) -> bool:
    """Is it that process, or has it come of it, as with NotifyAccess=all, systemd.service(5)?

    One that has ended since it spoke is believed: it may have been a helper of a shell script.
    """
    from reconciler.host.processes import LEADER, environment, look_up

    entry = look_up(sender, zombies=True)
    if entry is None or entry.session == pid or environment(sender).get(LEADER) == str(pid):
        return True
    while entry is not None and entry.parent > 1:
        if entry.parent == pid:
            return True
        entry = look_up(entry.parent)
    return False
