"""Where a tmux server has its socket, and whether that place may be believed, tmux(1).

It must not start a server, nor ask one for anything.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from reconciler.base.errors import UnknownState
from reconciler.host.command import PASSED
from reconciler.host.environment import note, runtime_folder
from reconciler.host.remedy import remedy
from reconciler.host.trust import Untrusted, opened

_ANSWER = 5.0
"""Seconds in which a server takes a connection."""
_LISTENS = b" 00010000 "
"""The flags of a socket that listens in /proc/net/unix, proc_net(5): __SO_ACCEPTCON."""
_DEFAULT = "default"
_USUAL = "/tmp"


class Sockets:
    """The folder below ``base`` where tmux keeps the caller's sockets, and one of them, tmux(1).

    ``handle`` is the folder, which nobody else can exchange, once it was looked at; None where it
    is not there yet. ``spare``: the usual folder is not believed, so this one serves instead.
    """

    def __init__(self, base: str, name: str, spare: bool = False) -> None:
        self.base = base
        self.name = name
        self.path = f"{base}/tmux-{os.geteuid()}"
        self.spare = spare
        self.handle: int | None = None
        self.enter()

    def enter(self) -> None:
        """Take hold of the folder, if it is there. Raises UnknownState where it is not ours."""
        try:
            self.handle = opened(
                self.path, os.O_PATH | os.O_DIRECTORY, what="the tmux server there", notes=[]
            )
            status = os.fstat(self.handle)
        except FileNotFoundError:
            return
        except Untrusted as error:
            raise UnknownState(error.reason, remedy=error.remedy) from None
        except OSError as error:
            raise UnknownState(f"cannot look at {self.path}: {error.strerror}") from None
        # Whoever owns it could put a server of his own there, and a tmux client obeys its server.
        if status.st_uid != os.geteuid() or status.st_mode & 0o027:
            self.close()
            raise UnknownState(f"{self.path} is not a folder that is only ours")

    @property
    def bound(self) -> str:
        """The name that a server gives to its socket, which has no symlinks before the last two."""
        return f"{os.path.realpath(self.base)}/tmux-{os.geteuid()}/{self.name}"

    @property
    def names(self) -> list[str]:
        """The same for all places where a server may have been begun that would now be this one."""
        bases = [self.base, os.environ.get("TMUX_TMPDIR") or ""]
        if self.spare or self.base == _USUAL:
            bases += [_USUAL, _spare() or ""]
        user = os.geteuid()
        return [f"{os.path.realpath(one)}/tmux-{user}/{self.name}" for one in bases if one]

    def has_others(self, answers: bool) -> bool:
        """May more listen under these names than the one server that ``answers``?

        A quick look: others can add to what /proc/net/unix says, but hide nothing in it.
        """
        ends = tuple(os.fsencode(f" {one}") for one in self.names)
        try:
            with open("/proc/net/unix", "rb") as file:
                lines = [line for line in file.read().split(b"\n") if _LISTENS in line]
        except OSError:
            return True
        broken = any(b"\n" in one for one in ends)
        return broken or sum(line.endswith(ends) for line in lines) > answers

    @property
    def server(self) -> tuple[str, ...]:
        """The words that make a tmux client talk to this server, through the folder we hold."""
        return ("-u", "-S", f"/proc/self/fd/{PASSED}/{self.name}")

    @property
    def client(self) -> list[str]:
        """The beginning of a command line for people."""
        if self.spare:
            return ["tmux", "-S", f"{self.path}/{self.name}"]
        return ["tmux"] if self.name == _DEFAULT else ["tmux", "-L", self.name]

    def exists(self) -> bool:
        """Is there a socket? Raises UnknownState where there is something else."""
        if self.handle is None:
            return False
        place = f"{self.path}/{self.name}"
        try:
            status = os.stat(self.name, dir_fd=self.handle)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise UnknownState(f"cannot look at {place}: {error.strerror}") from None
        if not stat.S_ISSOCK(status.st_mode):
            raise UnknownState(f"{place} is not tmux's socket; move it away")
        return True

    def answering(self) -> int | None:
        """The number of the server that listens there; 0 where it is hidden, None without one."""
        if not self.exists():
            return None
        from socket import AF_UNIX, SO_PEERCRED, SOL_SOCKET, socket

        with socket(AF_UNIX) as made:
            made.settimeout(_ANSWER)
            if made.connect_ex(f"/proc/self/fd/{self.handle}/{self.name}") != 0:
                return None
            # struct ucred, unix(7), begins with it.
            return int.from_bytes(made.getsockopt(SOL_SOCKET, SO_PEERCRED, 12)[:4], sys.byteorder)

    def tell(self) -> None:
        """Say how to attach to a server that is not where people look for it."""
        if self.spare:
            note(f"tmux runs in {self.path}; attach with: {remedy(*self.client, 'attach')}")

    def in_words(self, text: str) -> str:
        """What tmux has said, with the folder's own name."""
        return text.replace(f"/proc/self/fd/{PASSED}/", f"{self.path}/")

    def close(self) -> None:
        """Let go of the folder."""
        if self.handle is not None:
            os.close(self.handle)
            self.handle = None


def _spare() -> str | None:
    """Where a server lives that the usual folder is not believed for."""
    return "/run" if os.geteuid() == 0 else runtime_folder()


@contextmanager
def sockets(socket: str | None) -> Iterator[Sockets]:
    """The server's place of that ``-L`` name. Raises UnknownState where none may be believed.

    Where somebody else could exchange the usual folder, or has made it, the server lives in
    ``/run``, or in the caller's own runtime directory. One that was begun there since ``/tmp`` was
    not believed stays until it ends.
    """
    name = socket or _DEFAULT
    base = os.environ.get("TMUX_TMPDIR") or ""
    if not os.path.isdir(base):
        base = _USUAL
    spare = _spare()
    place = None
    if base == _USUAL and spare and os.path.lexists(f"{spare}/tmux-{os.geteuid()}/{name}"):
        place = Sockets(spare, name, spare=True)
        if not place.answering() is not None:
            place.close()
            place = None
    try:
        place = place or Sockets(base, name)
    except UnknownState as error:
        words = f"{error}; no tmux server there is believed"
        if spare is None:
            raise UnknownState(words) from None
        note(words)
        place = Sockets(spare, name, spare=True)
    try:
        yield place
    finally:
        place.close()
