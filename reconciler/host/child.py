"""Work in forked children: one that answers once, within a time, or one that is talked with.

So it can be killed, and its memory comes back. It must not be used for anything that should outlive
the parent, nor know what is said.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import socket
import struct
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from functools import partial
from types import FrameType, TracebackType
from typing import Any

from reconciler.base.errors import UnknownState
from reconciler.base.text import error_in_words
from reconciler.host.descriptors import close_all_but, let_go_of_streams, usual_limit
from reconciler.host.processes import end_below
from reconciler.host.progress import (
    BEAT,
    extended,
    forget_parent,
    limit_waits,
    readable,
    reap,
    reap_killed,
    still_waiting,
    unwatched,
    working,
)

_CHUNK = 65536
_LENGTH = struct.Struct("!I")
_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>
_library = ctypes.CDLL(None)
_SHARE = 0.85
"""Of the time of a child: so long its programs are waited for, so that it still can tell."""
Answer = bytes | Iterable[bytes]
"""All at once, or piece by piece as it becomes known."""


def answer(work: Callable[[], Answer], timeout: float) -> bytes:
    """What ``work`` gives, done in a forked child that is killed after ``timeout`` seconds.

    Raises UnknownState when it did not end in time, or ended without an answer.
    """
    return Child(work, timeout).wait()


class Child:
    """Work begun in a forked child whose answer is collected without waiting for it.

    It gets a session of its own, without a terminal, and so a process group that is killed after
    ``timeout`` seconds, and when the answer is there, as is all that descends from it by then.
    What it waits for a processor does not count, up to some times as much. It has the descriptors
    ``kept`` as well. Raises OSError where no process can be had.
    """

    def __init__(self, work: Callable[[], Answer], timeout: float, *kept: int) -> None:
        reap_killed()
        self._timeout = timeout
        self._begun = time.monotonic()
        self._end = self._begun + timeout
        self._chunks: list[bytes] = []
        self.descriptor, say = os.pipe()
        """Can be read when there is something to collect."""
        os.set_blocking(self.descriptor, False)
        try:
            self.pid = os.fork()
        except OSError:
            os.close(self.descriptor)
            os.close(say)
            raise
        if self.pid == 0:
            os.setsid()
            _be_child(lambda: _answer(work, say), say, *kept)
        os.close(say)

    def wait(self) -> bytes:
        """Its answer. Raises UnknownState as ``collect`` does."""
        try:
            while True:
                readable([self.descriptor], min(self.left, BEAT))
                found = self.collect()
                if found is not None:
                    return found
                still_waiting()
        except UnknownState:
            raise
        except BaseException:
            self.kill()
            raise

    @property
    def said(self) -> bytes:
        """What has been collected of its answer so far."""
        return b"".join(self._chunks)

    @property
    def left(self) -> float:
        """Seconds until its time is over."""
        return max(0.0, self._end - time.monotonic())

    def collect(self) -> bytes | None:
        """Its answer, or None while there is none yet.

        Raises UnknownState when it did not end in time, or ended without an answer; it is gone
        then, as it is when it has answered.
        """
        with suppress(BlockingIOError):
            while chunk := os.read(self.descriptor, _CHUNK):
                self._chunks.append(chunk)
            status = self._end_all()
            if status != 0:
                words = (
                    "did not end"
                    if status is None
                    else f"status {os.waitstatus_to_exitcode(status)}"
                )
                raise UnknownState(f"a child ended without an answer ({words})")
            return b"".join(self._chunks)
        if self.left <= 0:
            self._end = self._begun + extended(self._timeout, self.pid)
        if self.left > 0:
            return None
        self.kill()
        raise UnknownState(f"a child did not answer within {self._timeout:g} s and was killed")

    def kill(self) -> None:
        """End it and all below it, whatever it does. It must not have been collected."""
        end_below(self.pid)
        self._end_all()

    def _end_all(self) -> int | None:
        """Kill the whole group; how the child has ended, None where even that does not end it."""
        os.close(self.descriptor)
        with suppress(OSError):
            os.killpg(self.pid, signal.SIGKILL)
        os.kill(self.pid, signal.SIGKILL)  # It may not have come to make the group.
        return reap(self.pid)


class WithChild:
    """A part of a loop that has one child at work at a time, or none."""

    _child: Child | None = None

    def descriptors(self) -> Collection[int]:
        """That of the child, while there is one."""
        return () if self._child is None else (self._child.descriptor,)

    def due(self) -> float | None:
        """Seconds until the child has had its time."""
        return None if self._child is None else self._child.left

    def close(self) -> None:
        """The loop ends."""
        if self._child is not None:
            self._child.kill()
            self._child = None


def _be_child(do: Callable[[], None], *kept: int) -> None:
    """The child's side: it has no descriptors of its parent's but ``kept``. Never returns."""
    status = 1
    try:
        unwatched()
        forget_parent()
        # The lock among them, and the store: they must not outlive the one who holds them.
        close_all_but(*kept)
        usual_limit()
        let_go_of_streams(0, 1, 2)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGHUP, signal.SIGUSR1):
            # Meant for the loop; `systemctl kill` sends it to all of the unit, and a spec whose
            # reading ends so is not read again. Unlike SIG_IGN, no program that is run keeps this.
            signal.signal(number, lambda *_: None)
        do()
        status = 0
    finally:
        with suppress(BaseException):
            os._exit(status)


def _answer(work: Callable[[], Answer], say: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    answer = work()
    for piece in (answer,) if isinstance(answer, bytes) else answer:
        view = memoryview(piece)
        while view:
            view = view[os.write(say, view) :]
    end_below(os.getpid())


class Children:
    """The works that were begun; ``answers`` by name, and ``silent`` with why there is none."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.silent: dict[str, str] = {}
        self._running: dict[str, tuple[Child, float]] = {}

    def __enter__(self) -> Children:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def begin(self, name: str, work: Callable[[], Any], seconds: float) -> None:
        """Have ``work`` done, for at most so many seconds. What it gives must be plain data."""
        try:
            child = Child(partial(_answer_of, work, seconds), seconds)
        except OSError as error:
            self.silent[name] = f"no child can be made for it: {error.strerror}"
        else:
            self._running[name] = child, seconds

    def wait(self, names: Collection[str] | None = None) -> None:
        """Wait until these, or all, have answered or had their time."""
        known = len(self._running)
        with working("look and ask", known) as work:
            while left := [child.left for child, _ in self._collect(names)]:
                work.advance(known - len(self._running) - work.done)
                readable((one.descriptor for one, _ in self._running.values()), min(*left, BEAT))

    def _collect(self, names: Collection[str] | None) -> list[tuple[Child, float]]:
        """Take what was said; those of ``names`` that are still at work."""
        for name, (child, seconds) in list(self._running.items()):
            late = child.left <= 0
            try:
                said = child.collect()
            except UnknownState as error:
                words = f"did not answer within {seconds:g} s" if late else str(error)
                self._running.pop(name)
                self.silent[name] = words
                continue
            if said is None:
                continue
            del self._running[name]
            well, value = pickle.loads(said)
            (self.answers if well else self.silent)[name] = value
        return [entry for name, entry in self._running.items() if names is None or name in names]

    def close(self) -> None:
        """End all that is under way."""
        while self._running:
            self._running.popitem()[1][0].kill()


def _answer_of(work: Callable[[], Any], seconds: float) -> bytes:
    """The child's side."""
    limit_waits(seconds * _SHARE)
    try:
        return pickle.dumps((True, work()))
    except Exception as error:
        return pickle.dumps((False, error_in_words(error)))


class Interrupted(BaseException):
    """The child was asked to drop what it is doing. Passes every ``except Exception``."""


class ChildLine:
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

    def __init__(self, work: Callable[[ChildLine, Callable[[], bool]], None]) -> None:
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
            end_with(parent)
            with suppress(OSError):
                os.setpgid(0, 0)
            _be_child(lambda: _talk(work, its), its.fileno())
        its.close()
        with suppress(OSError):
            os.setpgid(self.pid, self.pid)
        self.line = ChildLine(ours)

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


def _talk(work: Callable[[ChildLine, Callable[[], bool]], None], end: socket.socket) -> None:
    asked: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted

    signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    signal.signal(signal.SIGINT, interrupt)
    work(ChildLine(end), lambda: bool(asked))
