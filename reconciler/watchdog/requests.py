"""A single pass asks the loop of its spec to make the pass: one message, and the answer.

The socket lies in the state directory, which is its owner's alone; only he is answered, and only he
is believed. Neither side waits for the other without an end, and it must not be needed: whoever
gets no answer looks at the host himself.
"""

from __future__ import annotations

import os

# The module `socket` makes enums of all constants, which takes as long as the whole request.
from _socket import AF_UNIX, SO_PEERCRED, SOCK_SEQPACKET, SOL_SOCKET, socket
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING

from reconciler.base.errors import HostError
from reconciler.base.records import dataclass
from reconciler.host import trust
from reconciler.state.folder import REQUESTS, make_folder

if TYPE_CHECKING:
    import socket as sockets

    from reconciler.core.model import Outcome, Plan
    from reconciler.output.text import Line
    from reconciler.watchdog.passes import Pass

WORDS = ("as declared", "shared", "done", "failed")
_LONGEST = 1 << 20
"""Bytes of a message. The kernel takes fewer: a longer answer is not given."""
_HEARD = b"heard"
_MOST = 16
"""Requests at the same time; whoever comes then is not answered."""
_SECONDS = 2.0
"""Until one who has connected must have asked, and until one who has asked must be heard."""
_PATIENCE = 60.0
"""Seconds that a pass is waited for."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a pass of the loop, which is the process ``pid``, in one word and in lines.

    The word is one of ``WORDS``; ``shared``: nothing was done, and not all is well or known: a part
    of the pass was left to others, or something waits, fails or is unknown.
    """

    pid: int
    word: str
    lines: Sequence[Line]


def request_pass(folder: str, spec: str) -> Answer | None:
    """Have the loop of that state directory make a full pass over the compiled spec ``spec``.

    None: there is no loop, it has another spec, or it does not answer.
    """
    end = monotonic() + _SECONDS
    with suppress(OSError, HostError, ValueError):
        handle = trust.opened(folder, os.O_PATH | os.O_DIRECTORY)
        try:
            made = socket(AF_UNIX, SOCK_SEQPACKET)
            try:
                made.settimeout(_SECONDS)
                made.connect(f"/proc/self/fd/{handle}/{REQUESTS}")
                pid = _peer(made)
                if pid is None:
                    return None
                made.send(spec.encode())
                if made.recv(len(_HEARD)) != _HEARD or monotonic() > end:
                    return None
                made.settimeout(_PATIENCE)
                return _read(pid, made.recv(_LONGEST).decode())
            finally:
                made.close()
        finally:
            os.close(handle)
    return None


def _peer(connected: socket) -> int | None:
    """The process at the other end; None where it is another user's, unix(7)."""
    credentials = memoryview(connected.getsockopt(SOL_SOCKET, SO_PEERCRED, 12)).cast("I")
    pid, uid, _ = credentials
    return pid if uid == os.geteuid() else None


def _written(plan: Plan, outcomes: Sequence[Outcome], whole: bool) -> str:
    """The answer; ``whole`` False: a part of the pass was left to others.

    What is wrong and has no step is seen by who asks, who looks for himself unless all is well.
    """
    from reconciler.output.text import outcome_lines, paused_lines

    results = {one.result for one in outcomes}
    quiet = "as declared" if whole and not plan.trouble else "shared"
    word = "failed" if "failed" in results else "done" if results else quiet
    lines = [*paused_lines(plan), *(line for one in outcomes for line in outcome_lines(one))]
    return "\n".join([word, *(f"{style}\t{text}" for text, style in lines)])


def _read(pid: int, said: str) -> Answer | None:
    word, *lines = said.split("\n")
    if word not in WORDS:
        return None
    return Answer(pid, word, [(text, style) for style, text in (one.split("\t") for one in lines)])


class PassRequests:
    """A part of the loop: has a pass made for whoever asks, and answers when it is over.

    ``is_kept`` says whether a compiled spec is the very one that the loop keeps.
    """

    def __init__(self, folder: str, is_kept: Callable[[str], bool]) -> None:
        self._is_kept = is_kept
        self._folder: int | None = None
        self._listener: sockets.socket | None = None
        self._deaf = 0.0
        """Until when nobody can connect, for want of a descriptor."""
        self._unread: dict[socket, float] = {}
        """Who has not asked yet, and until when he may."""
        self._waiting: list[socket] = []
        """Who waits for a pass that is yet to begin."""
        self._served: dict[Pass, list[socket]] = {}
        self._seen: dict[Pass, tuple[Plan, bool]] = {}
        self._done: dict[Pass, list[Outcome]] = {}
        with suppress(OSError, HostError):  # Single passes look for themselves then.
            self._listen(folder)

    def _listen(self, folder: str) -> None:
        import socket as sockets

        make_folder(folder)
        self._folder = trust.opened(folder, os.O_PATH | os.O_DIRECTORY)
        with suppress(FileNotFoundError):  # Of a loop that was killed.
            os.unlink(REQUESTS, dir_fd=self._folder)
        made = sockets.socket(AF_UNIX, SOCK_SEQPACKET)
        before = os.umask(0o177)
        try:
            made.bind(f"/proc/self/fd/{self._folder}/{REQUESTS}")
        finally:
            os.umask(before)
        made.setblocking(False)
        made.listen(_MOST)
        self._listener = made

    # -- the passes

    @property
    def waiting(self) -> bool:
        """Has anybody asked for a pass that has not begun?"""
        return bool(self._waiting)

    def begun(self, one: Pass) -> None:
        """A full pass has begun: it is for all who have asked by now."""
        if self._waiting:
            self._served[one], self._waiting = self._waiting, []
            self._done[one] = []

    def looked(self, one: Pass, plan: Plan, steps: Sequence[str], whole: bool) -> None:
        """A pass has looked; ``whole``: it leaves nothing to others.

        Who asked need not wait for the end of one that has nothing to do.
        """
        if one in self._served:
            self._seen[one] = plan, whole
            if whole and not steps:
                self._answer(one)

    def did(self, one: Pass, outcome: Outcome) -> None:
        """A pass has come to the end of a step."""
        self._done.get(one, []).append(outcome)

    def over(self, one: Pass) -> None:
        """A pass has come to its end."""
        if one.result is None:
            self._seen.pop(one, None)
        self._answer(one)

    def _answer(self, one: Pass) -> None:
        seen, outcomes = self._seen.pop(one, None), self._done.pop(one, [])
        for asker in self._served.pop(one, ()):
            with suppress(OSError):  # He is gone, or it is too long for one message.
                if seen is not None:
                    asker.send(_written(seen[0], outcomes, seen[1]).encode())
            asker.close()

    # -- a part of the loop

    def descriptors(self) -> Collection[int]:
        """Where somebody connects, and who is to ask."""
        asking = [one.fileno() for one in self._unread]
        if self._listener is None or monotonic() < self._deaf:
            return asking
        return [self._listener.fileno(), *asking]

    def due(self) -> float | None:
        """Seconds until somebody has connected and not asked for too long."""
        now = monotonic()
        return min((max(0.0, end - now) for end in self._unread.values()), default=None)

    def tend(self, ready: Collection[int]) -> Collection[str]:
        """Hear who asks; whether a full pass is wanted."""
        if self._listener is not None and self._listener.fileno() in ready:
            self._accept(self._listener)
        wanted = [self._hear(one, end) for one, end in list(self._unread.items())]
        from reconciler.watchdog.events import EVERYTHING

        return (EVERYTHING,) if any(wanted) else ()

    def _accept(self, listener: sockets.socket) -> None:
        while True:
            try:
                made, _ = listener.accept()
            except BlockingIOError:
                return
            except OSError:
                self._deaf = monotonic() + _SECONDS
                return
            made.setblocking(False)
            served = sum(map(len, self._served.values()))
            known = len(self._unread) + len(self._waiting) + served
            if _peer(made) is None or known >= _MOST:
                made.close()
            else:
                self._unread[made] = monotonic() + _SECONDS

    def _hear(self, one: socket, end: float) -> bool:
        """Take what he asks for, if he has; whether that is a pass."""
        try:
            asked = one.recv(256).decode()
            kept = self._is_kept(asked)
            if kept:
                one.send(_HEARD)
        except BlockingIOError:
            if monotonic() < end:
                return False
            kept = False
        except (OSError, ValueError):
            kept = False
        del self._unread[one]
        if kept:
            self._waiting.append(one)
        else:
            one.close()
        return kept

    def close(self) -> None:
        """The loop ends."""
        served = (one for askers in self._served.values() for one in askers)
        for one in (*self._unread, *self._waiting, *served):
            one.close()
        if self._listener is not None and self._folder is not None:
            self._listener.close()
            with suppress(OSError):
                os.unlink(REQUESTS, dir_fd=self._folder)
