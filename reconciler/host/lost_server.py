"""tmux servers that nobody reaches, since somebody has taken their socket away.

A cleaner of /tmp does that, and a socket that is gone is not a server that is gone: it runs on
with all of its panes, and makes the socket anew on SIGUSR1, tmux(1). It must not signal anything
but a process of the caller's that listens on a socket of just that name.
"""

from __future__ import annotations

import os
import socket
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from reconciler.base.errors import HostError, UnknownState
from reconciler.host.clock import Clock
from reconciler.host.environment import note
from reconciler.host.processes import Identity, Processes, environment, look_up, owner_of, pids
from reconciler.host.remedy import in_turn, remedy
from reconciler.host.trust import opened

if TYPE_CHECKING:
    from reconciler.host.tmux_socket import Sockets

_ANSWER = 5.0
"""Seconds until a server has made its socket anew."""
_END = 0.2
"""Seconds in which one ends that has been told to."""
_LISTENS = "00010000"
"""The flags of a socket that listens in /proc/net/unix, proc_net(5): __SO_ACCEPTCON."""
_SOCK_DIAG, _ERROR, _DONE = 4, 2, 3  # NETLINK_SOCK_DIAG, NLMSG_ERROR, NLMSG_DONE, netlink(7)
_LISTENING = struct.pack("=IHHII BBHIIIII", *(40, 20, 0x301, 1, 0), *(1, 0, 0, 1 << 10, 0, 1, 0, 0))
"""Asks for all sockets of AF_UNIX that listen (TCP_LISTEN), each with its name, sock_diag(7)."""


def made_reachable(place: Sockets, mend: bool) -> bool:
    """Has a server got back the socket that it had lost? Only where none answers.

    Raises UnknownState where one runs that cannot be reached, or, without ``mend``, may not be
    made so.
    """
    clock = Clock()
    processes = Processes(clock)
    found = _servers(place, False)
    # One that is about to end has first taken its socket away.
    processes.wait([server for server, _ in found], clock.monotonic() + _END)
    servers = [one for one in found if processes.alive(one[0])]
    if not servers:
        return False
    server, path = min(servers, key=lambda one: one[1] != place.bound)
    folder = os.path.dirname(path)
    words = f"the tmux server {server.pid} runs, but its socket {path} is gone"
    way = in_turn(
        remedy("mkdir", "-p", "-m", "700", folder), remedy("kill", "-USR1", str(server.pid))
    )
    if path != place.bound or not mend:
        raise UnknownState(words, remedy=way)
    try:
        if place.handle is None:
            what = "the tmux server there"
            os.close(opened(place.path, os.O_PATH | os.O_DIRECTORY, what=what, make=0o700))
            place.enter()
        processes.tell([server], "USR1")
    except (HostError, OSError) as error:
        raise UnknownState(f"{words}: {error}", remedy=way) from None
    end = clock.monotonic() + _ANSWER
    while processes.alive(server) and clock.monotonic() < end:
        if place.answering() is not None:
            note(f"{words}; it was recreated")
            return True
        clock.sleep(0.01)
    if processes.alive(server):
        raise UnknownState(f"{words}, and it did not recreate it within {_ANSWER:g} s", remedy=way)
    return False


def refuse_lost(place: Sockets, state_dir: str, answers: bool) -> None:
    """What is missing on the server, if one ``answers``, may be on one that does not.

    Raises UnknownState where a server that has lost its socket has a pane of ours.
    """
    for server, path in _servers(place, answers):
        if _has_ours(server.pid, state_dir):
            raise UnknownState(
                f"the tmux server {server.pid} has panes of ours, but its socket {path} is gone, "
                "or is another server's now, which the socket would be taken from",
                remedy=remedy("kill", "-USR1", str(server.pid)),
            )


def _servers(place: Sockets, answers: bool) -> list[tuple[Identity, str]]:
    """The caller's servers of that name but for the one that answers, each with its socket."""
    listening = _listening(place.names)
    if len(listening) <= answers:
        return []
    answering = place.answering()
    found = []
    space = os.readlink("/proc/self/ns/mnt")
    for pid in pids():
        try:
            with open(f"/proc/{pid}/comm", "rb") as file:
                is_tmux = file.read().startswith(b"tmux")
            entry = look_up(pid) if is_tmux and pid != answering else None
            if entry is None or owner_of(pid) != os.geteuid():
                continue
            # In another mount namespace the same name is that of another file.
            if os.readlink(f"/proc/{pid}/ns/mnt") != space:
                continue
            held = {os.readlink(f"/proc/{pid}/fd/{one}") for one in os.listdir(f"/proc/{pid}/fd")}
        except OSError:
            continue
        found += [(entry.identity, path) for one, path in listening.items() if one in held]
    return found


def _has_ours(server: int, state_dir: str) -> bool:
    """Has one of its panes been made by the spec with that state directory?"""
    for pid in pids():
        entry = look_up(pid)
        if entry is not None and entry.parent == server:
            values = environment(entry.identity.pid).values()
            if any(value.startswith(f"{state_dir}/") for value in values):
                return True
    return False


def _listening(names: Sequence[str]) -> dict[str, str]:
    """The sockets that listen under one of these names, as /proc/PID/fd names them."""
    try:
        every = list(_asked())
    except (OSError, struct.error):
        every = list(_written())  # As ss(8) does where the kernel does not know the question.
    return {f"socket:[{inode}]": name for inode, name in every if name in names}


def _asked() -> Iterator[tuple[str, str]]:
    """The number and the name of each socket that listens, by sock_diag(7). Raises OSError."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as line:
        line.settimeout(_ANSWER)
        line.sendall(_LISTENING)
        while data := line.recv(1 << 18):
            while data:
                size, kind = struct.unpack_from("=IH", data)
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    raise OSError(-struct.unpack_from("=i", data, 16)[0], "sock_diag")
                (inode,) = struct.unpack_from("=I", data, 20)
                length, sort = struct.unpack_from("=HH", data, 32) if size >= 36 else (0, 1)
                if sort == 0:  # UNIX_DIAG_NAME
                    yield str(inode), os.fsdecode(data[36 : 32 + length].removesuffix(b"\0"))
                data = data[-(-size // 4) * 4 :]


def _written() -> Iterator[tuple[str, str]]:
    """The same of /proc/net/unix, without those that have two lines there. Raises UnknownState.

    A name may hold a line break, so that anybody writes a line of his own.
    """
    try:
        with open("/proc/net/unix", encoding="utf-8", errors="surrogateescape") as file:
            lines = [line.rstrip("\n").split(maxsplit=7) for line in file]
    except (FileNotFoundError, PermissionError):
        return  # Some sandboxes have no such file; there a name is all that is known.
    except OSError as error:
        raise UnknownState(f"cannot read /proc/net/unix: {error.strerror}") from None
    counts = Counter(words[6] for words in lines if len(words) > 6)
    for words in lines:
        if len(words) == 8 and words[3] == _LISTENS and counts[words[6]] == 1:
            yield words[6], words[7]
