"""A child that is talked with while it works: forked from us, and gone when we are.

It must not know what is said; it holds nothing of ours but its end of the line.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import FrameType
from typing import Any

from reconciler.host.command import forget_parent, reap, reap_killed
from reconciler.host.environment import let_go_of_streams, usual_limit
from reconciler.host.progress import unwatched

_LENGTH = struct.Struct("!I")
_CHUNK = 1 << 16
_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>
_library = ctypes.CDLL(None)


class Interrupted(BaseException):
    """The child was asked to drop what it is doing. Passes every ``except Exception``."""


class Line:
    """One end of the line between parent and child: plain values, sent whole."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._read = b""

    @property
    def descriptor(self) -> int:
        """Can be read when there is something to ``hear``."""
        return self._end.fileno()

    def say(self, value: Any) -> None:
        """Send a value. Raises OSError when nobody is at the other end."""
        data = pickle.dumps(value)
        self._end.sendall(_LENGTH.pack(len(data)) + data)

    def hear(self) -> Iterator[Any]:
        """What has come by now, without waiting. Raises EOFError once the other end is gone."""
        gone = False
        with suppress(BlockingIOError):
            while chunk := self._end.recv(_CHUNK, socket.MSG_DONTWAIT):
                self._read += chunk
            gone = True
        while len(self._read) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(self._read)[0]
            if len(self._read) < end:
                break
            data, self._read = self._read[_LENGTH.size : end], self._read[end:]
            yield pickle.loads(data)
        if gone:
            raise EOFError

    def wait(self) -> Any:
        """Wait for the next value. Raises EOFError when the other end is gone."""
        (length,) = _LENGTH.unpack(self._exactly(_LENGTH.size))
        return pickle.loads(self._exactly(length))

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            chunk = self._end.recv(size - len(data))
            if not chunk:
                raise EOFError
            data += chunk
        return data

    def close(self) -> None:
        """Let go of it."""
        self._end.close()


class Forked:
    """A child that does ``work``, seen from its parent. Raises OSError when none can be made.

    It has a process group of its own. ``work`` gets its end of the line, and a callable that says
    whether it was asked to come to an end.
    """

    def __init__(self, work: Callable[[Line, Callable[[], bool]], None]) -> None:
        reap_killed()
        ours, its = socket.socketpair()
        parent = os.getpid()
        try:
            self.pid = os.fork()
        except OSError:
            ours.close()
            its.close()
            raise
        if self.pid == 0:
            _work(work, its, parent)
        its.close()
        with suppress(OSError):
            os.setpgid(self.pid, self.pid)
        self.line = Line(ours)

    def ask_to_end(self) -> None:
        """Have it begin nothing more."""
        os.kill(self.pid, signal.SIGTERM)

    def interrupt(self) -> None:
        """Have it drop what it is doing."""
        os.kill(self.pid, signal.SIGINT)

    def kill(self) -> str:
        """Kill it with its group, whatever it does; how it has ended, in words.

        One that hangs in the kernel is waited for by nobody.
        """
        with suppress(OSError):
            os.killpg(self.pid, signal.SIGKILL)
        status = reap(self.pid)
        if status is None:
            return "killed, and not ended yet"
        code = os.waitstatus_to_exitcode(status)
        return f"signal {-code}" if code < 0 else f"exit status {code}"


def end_with(parent: int) -> None:
    """From now on this process is killed when its parent ends.

    Whoever held the lock is gone then, and another one may hold it.
    """
    _library.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _work(
    work: Callable[[Line, Callable[[], bool]], None], end: socket.socket, parent: int
) -> None:
    """The child's side; never returns."""
    status = 1
    try:
        end_with(parent)
        with suppress(OSError):
            os.setpgid(0, 0)
        unwatched()
        forget_parent()
        # The lock among them, and the store.
        os.closerange(3, end.fileno())
        os.closerange(end.fileno() + 1, min(os.sysconf("SC_OPEN_MAX"), 65536))
        usual_limit()
        let_go_of_streams(0, 1, 2)
        signal.set_wakeup_fd(-1)
        asked = False

        def ask(number: int, frame: FrameType | None) -> None:
            nonlocal asked
            asked = True

        def interrupt(number: int, frame: FrameType | None) -> None:
            raise Interrupted

        signal.signal(signal.SIGTERM, ask)
        signal.signal(signal.SIGINT, interrupt)
        for number in (signal.SIGHUP, signal.SIGUSR1):
            # They are for the parent; unlike SIG_IGN, no program that is run keeps this.
            signal.signal(number, lambda *_: None)
        work(Line(end), lambda: asked)
        status = 0
    finally:
        with suppress(BaseException):
            os._exit(status)
