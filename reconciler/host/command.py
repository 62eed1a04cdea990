"""Children that are waited for: run a program, with an end to the wait and to its output.

It must not start anything that should outlive the call; ``launch`` does that.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache

from reconciler.base.errors import HostError, UnknownState
from reconciler.base.records import dataclass
from reconciler.base.text import censored
from reconciler.host.environment import note
from reconciler.host.progress import BEAT, extended, limited, reap, still_waiting
from reconciler.host.trust import Untrusted, refuse_untrusted

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where programs are looked for behind the caller's own PATH; cron's PATH is shorter."""

_PACKAGED = "/usr/bin"
"""Where a package of the distribution links its commands to."""

PASSED = 3
"""The number of a descriptor that is handed to a program beside the standard streams."""

AHEAD = 4
"""Programs of one sort that are begun before somebody waits for them."""

_MOST_OUTPUT = 8 * 2**20
_CHUNK = 65536


@dataclass(frozen=True, slots=True)
class Result:
    """What a program printed, and its exit status (negative: the signal that ended it)."""

    status: int
    output: bytes
    errors: bytes

    @property
    def complaint(self) -> str:
        """What it said on standard error, or else its status, on one line."""
        said = " ".join(self.errors.decode(errors="replace").split())
        return censored(said) or f"exit status {self.status}"


def find(program: str, path: str | None = None) -> str | None:
    """The absolute path of a program, or None. ``path`` is by default the caller's PATH.

    Of the caller's, a program that somebody else may have put there is passed over, with a note,
    and so is one in a relative folder, which would be another wherever we stand.
    """
    if "/" in program:
        return program if _executable(program) else None
    if path is not None:
        whole = (f"{folder}/{program}" for folder in path.split(":") if folder.startswith("/"))
        return next(filter(_executable, whole), None)
    for folder in f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}".split(":"):
        whole_path = f"{folder or '.'}/{program}"
        if _executable(whole_path) and _is_ours(whole_path):
            return whole_path
    return None


def _is_ours(program: str) -> bool:
    """Has nobody but root or the caller put that program there?"""
    why = "a relative folder of PATH depends on the current folder"
    try:
        if program.startswith("/"):
            refuse_untrusted(program, "what it does", notes=[])
            return True
    except Untrusted as error:
        why = error.reason
    except OSError as error:
        why = str(error.strerror)
    note(f"PATH: {program} is skipped: {why}")
    return False


def own_environment(**more: str) -> dict[str, str]:
    """What a tool of ours, such as tmux or systemctl, is run with; what it runs is the system's."""
    environ = {**os.environ, "PATH": SYSTEM_PATH, **more}
    for name in ("DBUS_SESSION_BUS_ADDRESS", "DBUS_SYSTEM_BUS_ADDRESS"):
        environ.pop(name, None)  # systemd's own sockets are asked, sd_bus_default(3).
    return environ


@cache
def program_folder() -> str:
    """Where this program's own commands are installed, whichever of them was called, and how.

    In a virtual environment (venv, uv, pipx) that is beside its interpreter, or, for that of a
    package of the distribution, where everybody finds it. Else it is where the installation scheme
    of this package has its scripts, such as ``~/.local/bin``.
    """
    beside = os.path.dirname(os.path.abspath(sys.executable))
    if _executable(f"{beside}/reconcile"):
        with suppress(OSError):
            if os.path.samefile(f"{beside}/reconcile", f"{_PACKAGED}/reconcile"):
                return _PACKAGED
        return beside
    import sysconfig

    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    for scheme in sysconfig.get_scheme_names():
        if os.path.abspath(sysconfig.get_path("purelib", scheme)) == package:
            scripts = sysconfig.get_path("scripts", scheme)
            if _executable(f"{scripts}/reconcile"):
                return scripts
    return beside


def program_path(name: str) -> str:
    """Where this program's own command of that name is installed: an absolute path.

    It is beside the one that was called; ``pip install --user`` puts them elsewhere than Python.
    """
    beside = f"{os.path.dirname(os.path.abspath(sys.argv[0]))}/{name}"
    return beside if _executable(beside) else f"{program_folder()}/{name}"


def _executable(path: str) -> bool:
    return os.access(path, os.X_OK) and not os.path.isdir(path)


def run(
    argv: Sequence[str],
    *,
    timeout: float,
    send: bytes = b"",
    whole: bool = False,
    environ: Mapping[str, str] | None = None,
    passed: int | None = None,
) -> Result:
    """Run ``argv`` and wait, at most ``timeout`` seconds; in a session of its own, no terminal.

    ``send`` goes to its standard input; with ``whole`` all of it is there before it starts, so
    that it never takes a part for all when we are killed meanwhile. Its whole group is killed
    when the time is over, or when it prints more than 8 MiB. Raises UnknownState for both, and
    HostError when it cannot be started. ``argv[0]`` is an absolute path. ``passed`` is a
    descriptor that it has as number ``PASSED``.
    """
    begun = begin(argv, timeout=timeout, send=send, whole=whole, environ=environ, passed=passed)
    return begun.result()


@cache
def _catchable() -> set[int]:
    """The standard and the real-time signals, signal(7), but for those that nobody can catch."""
    real_time = range(signal.SIGRTMIN, signal.SIGRTMAX + 1)
    return {*range(1, 32), *real_time} - {signal.SIGKILL, signal.SIGSTOP}


def begin(
    argv: Sequence[str],
    *,
    timeout: float,
    send: bytes = b"",
    whole: bool = False,
    environ: Mapping[str, str] | None = None,
    passed: int | None = None,
) -> Begun:
    """The same as ``run``, but for the wait. Raises HostError when it cannot be started."""
    timeout = limited(timeout)
    opened: list[int] = []
    try:
        for _ in range(3):
            opened += os.pipe()
        stdin, feed, output, stdout, errors, stderr = opened
        if whole:
            opened.append(filled := _filled(send))
            os.dup2(filled, stdin, inheritable=False)
            os.close(opened.pop())
            send = b""
    except OSError as error:
        # Those that could be had go back, or what is short for a moment would be so for good.
        for descriptor in opened:
            os.close(descriptor)
        raise HostError(f"cannot run {argv[0]}: {error.strerror}") from None
    try:
        pid = os.posix_spawn(
            argv[0],
            list(argv),
            own_environment() if environ is None else environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, stdin, 0),
                (os.POSIX_SPAWN_DUP2, stdout, 1),
                (os.POSIX_SPAWN_DUP2, stderr, 2),
                *(() if passed is None else ((os.POSIX_SPAWN_DUP2, passed, PASSED),)),
            ],
            setsid=True,
            setsigmask=(),
            setsigdef=_catchable(),
        )
    except OSError as error:
        for descriptor in (feed, output, errors):
            os.close(descriptor)
        raise HostError(f"cannot run {argv[0]}: {error.strerror}") from None
    finally:
        for descriptor in (stdin, stdout, stderr):
            os.close(descriptor)
    return Begun(pid, argv[0], feed, output, errors, send, timeout)


def _filled(data: bytes) -> int:
    """A file without a name that holds ``data``, to be read from its beginning."""
    handle = os.memfd_create("stdin", os.MFD_CLOEXEC)
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]
    os.lseek(handle, 0, os.SEEK_SET)
    return handle


class Begun:
    """A program that runs. Either its ``result`` is waited for, or it is dropped."""

    def __init__(
        self,
        pid: int,
        name: str,
        feed: int,
        output: int,
        errors: int,
        send: bytes,
        timeout: float,
    ) -> None:
        self._pid, self._name, self._feed, self._send = pid, name, feed, send
        self._timeout = timeout
        self._texts: dict[int, list[bytes]] = {output: [], errors: []}
        self._size = 0
        self._open = [feed, output, errors]

    def drop(self) -> None:
        """Nobody wants to know any more: kill it with its whole group."""
        os.killpg(self._pid, signal.SIGKILL)
        reap(self._pid)
        for descriptor in self._open:
            os.close(descriptor)

    def result(self) -> Result:
        """Wait for its end; see ``run``."""
        import select

        poller = select.poll()
        begun = time.monotonic()
        end = begun + self._timeout
        try:
            ended = os.pidfd_open(self._pid)
            self._open.append(ended)
            os.set_blocking(self._feed, False)
            for descriptor in self._open:
                poller.register(
                    descriptor, select.POLLOUT if descriptor == self._feed else select.POLLIN
                )
            ready: set[int] = set()
            # What a grandchild may still hold open is not waited for.
            while ended not in ready:
                for descriptor in ready:
                    if not self._goes_on(descriptor):
                        poller.unregister(descriptor)
                        self._open.remove(descriptor)
                        os.close(descriptor)
                left = end - time.monotonic()
                if left <= 0:
                    end = begun + extended(self._timeout, self._pid)
                    left = end - time.monotonic()
                if left <= 0:
                    raise UnknownState(
                        f"{self._name} did not end within {round(self._timeout, 1):g} s and was "
                        "killed"
                    )
                ready = {descriptor for descriptor, _ in poller.poll(min(left, BEAT) * 1000)}
                if not ready:
                    still_waiting()
            for descriptor in self._texts.keys() & self._open:
                self._texts[descriptor].append(_rest(descriptor))
            _, status = os.waitpid(self._pid, 0)
        except BaseException:
            self.drop()
            raise
        for descriptor in self._open:
            os.close(descriptor)
        output, errors = (b"".join(text) for text in self._texts.values())
        return Result(os.waitstatus_to_exitcode(status), output, errors)

    def _goes_on(self, descriptor: int) -> bool:
        """Write or read what can be; False: there is no more. Raises UnknownState."""
        if descriptor == self._feed:
            try:
                self._send = self._send[os.write(descriptor, self._send) :] if self._send else b""
            except BrokenPipeError:
                self._send = b""
            return bool(self._send)
        chunk = os.read(descriptor, _CHUNK)
        self._texts[descriptor].append(chunk)
        self._size += len(chunk)
        if self._size > _MOST_OUTPUT:
            raise UnknownState(f"{self._name} printed more than 8 MiB and was killed")
        return bool(chunk)


def _rest(descriptor: int) -> bytes:
    """What is in the pipe now, without waiting for whoever may still hold its other end."""
    os.set_blocking(descriptor, False)
    chunks = []
    try:
        for _ in range(_MOST_OUTPUT // _CHUNK):
            chunk = os.read(descriptor, _CHUNK)
            if not chunk:
                break
            chunks.append(chunk)
    except BlockingIOError:
        pass
    return b"".join(chunks)
