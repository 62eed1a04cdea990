"""Process 1 of a container: reaps what is left to it, and hands signals on to the loop, its child.

So a loop waits for its own children only, and one that is busy or hangs lets no dead pile up. It
must not do anything else: with it all end that run in the container, pid_namespaces(7).
"""

from __future__ import annotations

import os
import signal
from typing import NoReturn

from reconciler.host.environment import called

_STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
_HANDED_ON = (signal.SIGHUP, signal.SIGUSR1)
SIGNALS = (*_STOPS, *_HANDED_ON)
"""Those that it must have blocked from its start on: what it has no handler for is dropped."""


def go_on_as_child() -> None:
    """Return in a child, which is the loop; this process, process 1, ends with its exit status."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # Ignored, it would leave nobody to wait for.
    signal.pthread_sigmask(signal.SIG_BLOCK, (*SIGNALS, signal.SIGCHLD))
    child = os.fork()
    if child != 0:
        _reap(child)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (*_STOPS, signal.SIGCHLD))


def is_parent() -> bool:
    """Is process 1 one of these, or an init that was given this loop, in whichever version?

    As ``docker run --init`` has it: with this one it ends, and with it all others.
    """
    return os.getppid() == 1 and _loop_of(1) == _loop_of(os.getpid()) != []


def _loop_of(pid: int) -> list[bytes]:
    words = called(pid)
    return words[words.index(b"--loop") :] if b"--loop" in words else []


def _reap(child: int) -> NoReturn:
    stopping = False
    while True:
        number = signal.sigwait((*SIGNALS, signal.SIGCHLD))
        # Asked for anything more it would end before what it manages.
        if number in SIGNALS and not stopping:
            stopping = number in _STOPS
            os.kill(child, signal.SIGTERM if stopping else number)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                os._exit(1)
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
                os._exit(code if code >= 0 else 128 - code)  # As a shell, and Docker, say it.
            if pid == 0:
                break
