"""Work that may hang on a file system whose server does not answer: done in a child, with an end.

A process that waits for such a server may not even be killed. So the child holds nothing that
others need: neither the lock, nor a pipe to whose end somebody reads. Where the child hangs, what
is mounted there counts as silent from then on, and another child does the work again without it.

It must not know what the work is.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from math import inf
from typing import Any

from reconciler.base.errors import TROUBLE
from reconciler.host import filesystems
from reconciler.host.descriptors import is_awaited, let_go_of_streams
from reconciler.host.progress import forget_parent, on_entering, reap

SILENCE = 5.0
"""Seconds that a process which has entered such a file system may spend in one single wait."""
_LONGEST = 30.0
"""The same for one that has entered none as far as is known."""
_GLANCE = 0.5
_WAITS_FOR_SERVER = (b"request_wait_answer", b"fuse_get_req")
"""Where in the kernel a process waits for a server of FUSE, proc_pid_wchan(5)."""
_MOST = 15.0
"""Seconds of waits together, however short each is, that another user's server may cost a pass."""


class StallDetector:
    """How long a process has done nothing at all, and has waited for a server, seen from outside.

    To be asked at least each second.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._switches = b""
        self._since = self._looked = time.monotonic()
        self._waited = 0.0

    def is_hung(self, entered: str | None) -> bool:
        """Does it hang, or is it held up again and again, on what it has ``entered`` last?

        Whoever answers just in time, each time, holds it up as well as who does not answer.
        """
        now = time.monotonic()
        if now - self._looked >= _GLANCE:
            self._look(now)
        if now - self._since >= (SILENCE if entered else _LONGEST):
            return True
        return bool(entered) and self._waited >= _MOST and filesystems.is_of_user(str(entered))

    def _look(self, now: float) -> None:
        found, waits = b"", False
        with suppress(OSError):  # It is gone, which is told by its end.
            with open(f"/proc/{self._pid}/status", "rb") as file:
                for line in file:
                    # A process that runs at all is switched to and from, proc(5).
                    if b"ctxt_switches" in line:
                        found += line
                    elif line.startswith(b"State:"):
                        waits = b"D" in line
            with open(f"/proc/{self._pid}/wchan", "rb") as file:
                waits = waits or file.read() in _WAITS_FOR_SERVER
        if found != self._switches:
            self._switches, self._since = found, now
        if waits:
            self._waited += now - self._looked
        self._looked = now


_to_parent: socket.socket | None = None
_told: list[Any] = []


def tell(what: Any) -> None:
    """Have ``told`` give it as well where the work is done again; only plain data."""
    if _to_parent is not None:
        # One message of a socket may be too small for it.
        with open(os.memfd_create("told"), "w+b") as file:
            pickle.dump(what, file)
            file.seek(0)
            _send(_to_parent, "told", None, (file.fileno(),))


def told() -> tuple[Any, ...]:
    """What was done, and told, by those that hung before this one."""
    return tuple(_told)


def give_away(lock: int) -> Callable[[], None]:
    """Have the parent hold what this descriptor holds by flock(2); gives what ends that."""
    assert _to_parent is not None
    line = _to_parent
    _send(line, "lock", None, (lock,))
    os.close(lock)

    def take_back() -> None:
        _send(line, "unlock", None)
        line.recv(1)

    return take_back


def go_on_in_child() -> bool:
    """Return in a child where some file system may hang; this process ends as the child does.

    False: there is none any more, and this is the same process.

    It must be called before anything is held.
    """
    while filesystems.served():
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sys.stdout.flush()
        sys.stderr.flush()
        relays = _relays()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            ours.close()
            _be_child(its, parent, relays)
            return True
        its.close()
        for _, feed, _ in relays:
            os.close(feed)
        end = _Watch(pid, ours, relays).end()
        if end is not None:
            os._exit(end)
    return False


def _relays() -> list[tuple[int, int, list[int]]]:
    """For what the child must not hold, lest its reader waits for it: a pipe for each.

    Its two ends, and the numbers of the standard streams that it stands for.
    """
    found: dict[tuple[int, int], tuple[int, int, list[int]]] = {}
    for number in (1, 2):
        status = os.fstat(number)
        if is_awaited(status):
            which = status.st_dev, status.st_ino
            if which not in found:
                found[which] = (*os.pipe(), [])
            found[which][2].append(number)
    return list(found.values())


def _be_child(line: socket.socket, parent: int, relays: list[tuple[int, int, list[int]]]) -> None:
    global _to_parent
    from reconciler.host.child import end_with

    end_with(parent)
    forget_parent()
    for source, feed, numbers in relays:
        for number in numbers:
            os.dup2(feed, number)
        os.close(source)
        os.close(feed)
    let_go_of_streams(0)
    _to_parent = line
    on_entering(lambda point: _send(line, "entered", point))


def _send(line: socket.socket, what: str, value: Any, handles: tuple[int, ...] = ()) -> None:
    socket.send_fds(line, [pickle.dumps((what, value))], handles)


class _Watch:
    """The parent's side: what the child says goes on, and where it hangs it is left."""

    def __init__(
        self, pid: int, line: socket.socket, relays: list[tuple[int, int, list[int]]]
    ) -> None:
        self._pid = pid
        self._line = line
        self._locks: list[int] = []
        self._entered: str | None = None
        self._goals = {source: numbers[0] for source, _, numbers in relays}
        self._poller = select.poll()
        # Not only the line: a process that the child has forked may hang, and hold its end of it.
        self._ended = os.pidfd_open(pid)
        for descriptor in (self._ended, line.fileno(), *self._goals):
            self._poller.register(descriptor, select.POLLIN)

    def end(self) -> int | None:
        """The exit status of the child; None: it hung, and all is to be done again."""
        stillness = StallDetector(self._pid)
        try:
            while True:
                ready = {descriptor for descriptor, _ in self._poller.poll(_GLANCE * 1000)}
                for source in ready & self._goals.keys():
                    self._pass_on(source)
                heard = self._line.fileno() in ready and self._hear()
                if self._ended in ready and not heard:
                    self._pass_on_the_rest()
                    return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1]) & 0xFF
                if not stillness.is_hung(self._entered):
                    continue
                os.kill(self._pid, signal.SIGKILL)
                reap(self._pid)
                self._pass_on_the_rest()
                return None if _blamed(self._entered, self._pid) else TROUBLE
        except KeyboardInterrupt:
            return _interrupted(self._pid)
        finally:
            self._line.close()
            for handle in (self._ended, *self._locks, *self._goals):
                os.close(handle)

    def _hear(self) -> bool:
        """Take what the child tells; False: its end of the line is closed."""
        data, handles, _, _ = socket.recv_fds(self._line, 1 << 20, 1)
        if not data:
            self._poller.unregister(self._line)
            return False
        what, value = pickle.loads(data)
        if what == "entered":
            self._entered = value
        elif what == "lock":
            self._locks += handles
        elif what == "told":
            with open(handles[0], "rb") as file:
                _told.append(pickle.load(file))
        elif what == "unlock":
            os.close(self._locks.pop())
            self._line.send(b".")
        return True

    def _pass_on(self, source: int) -> bool:
        """Write what the child has written; False: there is nothing, or nobody reads it."""
        try:
            data = os.read(source, 65536)
            view = memoryview(data)
            while view:
                view = view[os.write(self._goals[source], view) :]
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._poller.unregister(source)
            del self._goals[source]
            os.close(source)
        return bool(data)

    def _pass_on_the_rest(self) -> None:
        for source in list(self._goals):
            os.set_blocking(source, False)
            while self._pass_on(source):
                pass


def _blamed(entered: str | None, pid: int) -> bool:
    """Count what it hung on as silent; False: there is nothing left that it could be."""
    points = {entered} if entered and not filesystems.is_silent(entered) else set()
    points = points or {one for one in filesystems.served() if not filesystems.is_silent(one)}
    for point in points:
        filesystems.silence(point, pid, inf)  # This pass may take longer than a minute.
    where = ", ".join(sorted(points)) or "this host"
    what = "starting again without it" if points else "ended"
    sys.stderr.write(f"reconcile: the file system on {where} does not answer; {what}\n")
    return bool(points)


def _interrupted(pid: int) -> int:
    """A terminal interrupts the child as well; where it hangs, or only we were, it is ended."""
    for number in (0, signal.SIGINT, signal.SIGKILL):
        os.kill(pid, number)
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            status = reap(pid)
            if status is not None:
                return os.waitstatus_to_exitcode(status) & 0xFF
    return 130
