"""Work that is done in a child of its own: so that it can be killed, and its memory comes back.

It must not be used for anything that should outlive the call.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable
from contextlib import suppress

from reconciler.host.command import still_waiting
from reconciler.model import UnknownState

_CHUNK = 65536
_BEAT = 1.0


def answer(work: Callable[[], bytes], timeout: float) -> bytes:
    """What ``work`` gives, done in a forked child that is killed after ``timeout`` seconds.

    Raises UnknownState when it did not end in time, or ended without an answer.
    """
    said, say = os.pipe()
    pid = os.fork()
    if pid == 0:
        _work(work, say)
    os.close(say)
    chunks: list[bytes] = []
    end = time.monotonic() + timeout
    poller = select.poll()
    poller.register(said, select.POLLIN)
    try:
        while True:
            left = end - time.monotonic()
            if left <= 0:
                raise UnknownState(f"a child did not answer within {timeout:g} s and was killed")
            if not poller.poll(min(left, _BEAT) * 1000):
                still_waiting()
                continue
            chunk = os.read(said, _CHUNK)
            if not chunk:
                break
            chunks.append(chunk)
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise
    finally:
        os.close(said)
        _, status = os.waitpid(pid, 0)
    if status != 0:
        code = os.waitstatus_to_exitcode(status)
        raise UnknownState(f"a child ended without an answer (status {code})")
    return b"".join(chunks)


class Child:
    """Work that goes on in a child, a process group of its own, while others go on here."""

    def __init__(self, work: Callable[[], bytes], timeout: float) -> None:
        self._timeout = timeout
        self._end = time.monotonic() + timeout
        self._chunks: list[bytes] = []
        self.descriptor, say = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            with suppress(OSError):
                os.setpgid(0, 0)
            _work(work, say)
        with suppress(OSError):
            os.setpgid(self._pid, self._pid)
        os.close(say)
        os.set_blocking(self.descriptor, False)

    @property
    def left(self) -> float:
        """Seconds until its time is over."""
        return max(0.0, self._end - time.monotonic())

    def collect(self) -> bytes | None:
        """What the work gives, or None as long as it goes on. Raises UnknownState."""
        try:
            while chunk := os.read(self.descriptor, _CHUNK):
                self._chunks.append(chunk)
        except BlockingIOError:
            if self.left <= 0:
                self.kill()
                raise UnknownState(
                    f"a child did not answer within {self._timeout:g} s and was killed"
                ) from None
            return None
        status = self.kill()
        if status != 0:
            raise UnknownState(f"a child ended without an answer (status {status})")
        return b"".join(self._chunks)

    def kill(self) -> int:
        """End it with its whole group, unless it has ended; its status."""
        with suppress(OSError):
            os.close(self.descriptor)
        os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        with suppress(OSError):
            os.killpg(self._pid, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])


def _work(work: Callable[[], bytes], say: int) -> None:
    """The child's side; never returns."""
    status = 1
    try:
        # The lock among them: it must not outlive the one who holds it.
        os.closerange(3, say)
        os.closerange(say + 1, min(os.sysconf("SC_OPEN_MAX"), 65536))
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, signal.SIG_DFL)
        view = memoryview(work())
        while view:
            view = view[os.write(say, view) :]
        status = 0
    finally:
        with suppress(BaseException):
            os._exit(status)
