"""The way from us to a program that is not ours, and perhaps another user's.

Daemons, panes, checks and every other command of a spec begin here, in one order: a new session
and session keyring, no descriptor but those that are meant, signals and umask, the limits of
process 1; then groups, ids and capabilities; and only then, with the rights of its user, its
folder, its environment and the program. From the change of ids on it is its user's, who may stop
it, and whose folder may never answer: so it is waited for with an end, and holds nothing of ours.

It must not start the programs that we ask something for ourselves; ``command`` does that.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, NoReturn

from reconciler.base.errors import HostError
from reconciler.base.records import dataclass, replace
from reconciler.host.command import Begun, Result, find
from reconciler.host.descriptors import close_all_but
from reconciler.host.inherited import (
    Settings,
    as_declared,
    limited_as_process_1,
    scheduled_as_process_1,
    usual_signals,
)
from reconciler.host.not_started import not_found, not_run, reason
from reconciler.host.processes import LEADER, Identity, end_marked, look_up
from reconciler.host.progress import reap, still_waiting
from reconciler.host.refusals import enter
from reconciler.host.users import Account, refuse_other
from reconciler.host.walk import closing

if TYPE_CHECKING:
    from reconciler.host.waiter import Waiter

_LONGEST = 5.0
"""Seconds from the new process to its program."""
_HASTY = 0.5
"""The same for a user one of whose processes has used all of that up within the last minute."""
_GLANCE = 0.1
"""Seconds between two looks whether its user has stopped it meanwhile."""
_RUN = "RECONCILE_RUN"
"""Environment variable by which all that a command has started is known, if it must be ended."""


@dataclass(frozen=True, slots=True)
class Program:
    """What to run: ``argv`` as the spec has it, for whom, where and with which environment.

    Without ``cwd`` it stands in the home of its user, or in / where that cannot be entered.
    ``settings`` are set instead of what process 1 has.
    """

    argv: Sequence[str]
    environ: Mapping[str, str]
    account: Account
    cwd: str | None = None
    settings: Settings = ()


class NotStarted(HostError):
    """The program does not run; ``pid`` is what the new process was called, if that is known."""

    def __init__(self, words: str, pid: int | None) -> None:
        super().__init__(words)
        self.pid = pid


def begin(program: Program, streams: Sequence[int], session: bool = True) -> int:
    """Start it as a child of ours; its number. ``streams`` are its descriptors 0, 1 and 2.

    Without ``session`` it stays in the session of the caller, who has made one for it, and so in
    the process group that is killed in the end. Raises NotStarted, and OSError where no process
    can be had.
    """
    return _fork(program, streams, session).pid


@dataclass(frozen=True, slots=True)
class Detached:
    """A program that is to outlive us as a child of init. ``streams`` are ours, and closed then.

    ``born`` is called by the new process itself, as soon as it has its number and before anybody
    else can reach it, and ``unborn`` by us where it has not become the program. It is the child of
    a ``waiter`` where one is given.
    """

    program: Program
    streams: Sequence[int]
    born: Callable[[Identity], None]
    unborn: Callable[[int], None]
    waiter: Waiter | None = None


def detach(wanted: Sequence[Detached]) -> list[Identity | NotStarted]:
    """Start them together, and wait until each is its program, or why it is not.

    All are forked by one process in between, at whose end they are children of init. Raises
    OSError where not even that can be had.
    """
    import reconciler.host.kernel  # noqa: F401  Once here, not in each child.

    pipes: list[tuple[int, int]] = []
    launcher = -1
    try:
        pipes += (os.pipe() for _ in wanted)
        launcher = os.fork()
        if launcher == 0:
            _launch(wanted, pipes)
    finally:
        for said, say in pipes:
            os.close(say)
            if launcher == -1:
                os.close(said)
        for stream in {stream for one in wanted for stream in one.streams}:
            os.close(stream)
    os.waitpid(launcher, 0)
    found: list[Identity | NotStarted] = []
    for one, (said, _) in zip(wanted, pipes, strict=True):
        try:
            found.append(_started(one.program, said, None))
        except NotStarted as error:
            # Where it hangs in the kernel it is still there, but will never be the program.
            if error.pid is not None:
                one.unborn(error.pid)
            found.append(error)
    return found


def run(
    program: Program,
    *,
    timeout: float,
    send: bytes = b"",
    born: Callable[[Identity], None] | None = None,
) -> Result:
    """Run it and wait, at most ``timeout`` seconds; see ``command.run``. Raises HostError.

    When its time is over, all that it has started is killed with it, in whichever session, unless
    it is to be a server with ``born``, which is as for ``detach``.
    """
    mark = f"{os.getpid()}.{time.monotonic_ns()}" if born is None else ""
    if mark:
        program = replace(program, environ={**program.environ, _RUN: mark})
    ends: list[int] = []
    try:
        for _ in range(3):
            ends += os.pipe()
        stdin, feed, output, stdout, errors, stderr = ends
        pid = _fork(program, (stdin, stdout, stderr), True, born).pid
    except BaseException as error:
        for end in ends:
            os.close(end)
        if isinstance(error, OSError):
            raise HostError(f"cannot run {program.argv[0]}: {error.strerror}") from None
        raise
    for end in (stdin, stdout, stderr):
        os.close(end)
    try:
        return Begun(pid, program.argv[0], feed, output, errors, send, timeout).result()
    except BaseException:
        if mark:
            end_marked(_RUN, mark)
        raise


def _fork(
    program: Program,
    streams: Sequence[int],
    session: bool,
    born: Callable[[Identity], None] | None = None,
) -> Identity:
    """A new child of ours; once it is the program."""
    import reconciler.host.kernel  # noqa: F401  Once here, not in each child.

    refuse_other(program.account)
    said, say = os.pipe()
    child = -1
    try:
        child = os.fork()
        if child == 0:
            _new_process(program, streams, say, born, session=session, launched=False)
    finally:
        os.close(say)
        if child == -1:
            os.close(said)
    return _started(program, said, child)


def _started(program: Program, said: int, child: int | None) -> Identity:
    """Wait until a new process, a ``child`` of ours or not, is the program. Raises NotStarted."""
    words = bytearray()
    try:
        late = _hear(said, words, program.account.uid)
    except BaseException:
        _kill(_number(words), child)
        raise
    finally:
        os.close(said)
    # First the number, once it is known; then, after a blank, what went wrong.
    identity = _number(words)
    rest = words.partition(b" ")[2] if identity is not None else words
    complaint = late or rest.decode(errors="replace")
    if identity is not None and not complaint:
        return identity
    _kill(identity, child)
    raise NotStarted(
        f"cannot start {program.argv[0]}: {complaint or 'the new process was killed'}",
        identity.pid if identity is not None else None,
    )


_hung: dict[int, float] = {}
"""When a process of that user has not become its program in time, by the monotonic clock."""


def _hear(said: int, words: bytearray, uid: int) -> str | None:
    """What the new process says until it is the program, which closes its end; why not for long.

    Its user can stop it, and what it enters or runs may be on a file system that never answers.
    """
    now = time.monotonic()
    hasty = uid != os.geteuid() and now - _hung.get(uid, -60.0) < 60.0
    longest = _HASTY if hasty else _LONGEST
    end = now + _LONGEST
    poller = select.poll()
    poller.register(said, select.POLLIN)
    while (left := end - time.monotonic()) > 0:
        if poller.poll(min(left, _GLANCE) * 1000):
            chunk = os.read(said, 4096)
            if not chunk:
                return None
            words += chunk
            end = time.monotonic() + longest  # Until it has said its number, it is ours.
            continue
        still_waiting()
        identity = _number(words)
        entry = look_up(identity.pid) if identity is not None else None
        if entry is not None and entry.state in "Tt":
            return "a signal stopped the new process before the program started"
    _hung[uid] = time.monotonic()
    return f"the program did not start within {longest:g} s, and was killed"


def _number(words: bytes | bytearray) -> Identity | None:
    pid, _, start = words.partition(b" ")[0].partition(b":")
    return Identity(int(start), int(pid)) if pid.isdigit() and start.isdigit() else None


def _kill(identity: Identity | None, child: int | None) -> None:
    """End what has not become the program; where it hangs in the kernel, nobody waits for it."""
    if child is not None:
        os.kill(child, signal.SIGKILL)
        reap(child)
    elif identity is not None:
        with suppress(OSError), closing(os.pidfd_open(identity.pid)) as handle:
            entry = look_up(identity.pid)
            if entry is not None and entry.identity == identity:
                signal.pidfd_send_signal(handle, signal.SIGKILL)


# -- in the new process


def _launch(wanted: Sequence[Detached], pipes: Sequence[tuple[int, int]]) -> NoReturn:
    """Fork all of them, and end: init is their parent then."""
    try:
        for said, _ in pipes:
            os.close(said)
        inherit()
        for at, (one, (_, say)) in enumerate(zip(wanted, pipes, strict=True)):
            try:
                if os.fork() == 0:
                    for _, others in pipes[at + 1 :]:
                        os.close(others)  # Whose end must not wait for this one.
                    _new_process(one.program, one.streams, say, one.born, one.waiter)
            except OSError as error:
                os.write(say, reason(error).encode(errors="replace"))
            os.close(say)
    finally:
        os._exit(0)


def _new_process(
    program: Program,
    streams: Sequence[int],
    say: int,
    born: Callable[[Identity], None] | None,
    waiter: Waiter | None = None,
    session: bool = True,
    launched: bool = True,
) -> NoReturn:
    try:
        if not launched:
            inherit()
        if waiter is not None:
            listener = waiter.listen()
            child = os.fork()
            if child != 0:
                _become_waiter(waiter.arguments(child, listener), listener)
        if session:
            os.setsid()
        pid = os.getpid()
        me = look_up(pid)
        identity = Identity(me.identity.start if me is not None else 0, pid)
        if born is not None:
            born(identity)
        os.write(say, f"{pid}:{identity.start} ".encode())
        # Not in place of one that is still to be copied, though nobody hands us such.
        copies = [os.dup(stream) for stream in streams]
        for number, copy in enumerate(copies):
            os.dup2(copy, number)
        become(program, say)
    except BaseException as error:
        with suppress(OSError):
            os.write(say, reason(error).encode(errors="replace"))
    finally:
        os._exit(127)


def _become_waiter(argv: Sequence[str], listener: int) -> NoReturn:
    """It has a session of its own, and nothing of ours: not even our environment."""
    try:
        os.setsid()
        close_all_but(max(2, listener))
        if listener != -1:
            os.set_inheritable(listener, True)
        null = os.open("/dev/null", os.O_RDWR)
        for number in range(3):
            os.dup2(null, number)
        usual_signals()
        os.chdir("/")
        os.execve(argv[0], list(argv), {})
    finally:
        os._exit(127)


def inherit() -> None:
    """Be as every program of a spec begins; what is forked from here is, too."""
    usual_signals()
    os.umask(0o022)
    limited_as_process_1()


def become(program: Program, last: int) -> NoReturn:
    """Turn into the program; descriptor ``last`` is kept until then. Raises what is in the way.

    The caller has called ``inherit``. Nothing is imported behind the change of ids: our own files
    may be out of reach.
    """
    from reconciler.host import kernel

    account = program.account
    root = os.geteuid() == 0
    kernel.new_session_keyring()
    groups = os.getgrouplist(account.name, account.gid) if root else []
    close_all_but(last)
    scheduled_as_process_1()
    kernel.usual_io_priority()
    as_declared(program.settings)
    if root:
        kernel.usual_securebits()
        try:
            os.setgroups(groups)
        except PermissionError:
            if account.uid != 0:  # A user namespace may forbid it, user_namespaces(7).
                raise
        os.setgid(account.gid)
        os.setuid(account.uid)
        with suppress(OSError) if account.uid == 0 else nullcontext():
            kernel.drop_capabilities(inheritable_only=account.uid == 0)
    enter(program.cwd, account.home)
    path = program.environ.get("PATH", "")
    file = find(program.argv[0], path)
    if file is None:
        raise HostError(not_found(program.argv[0], path))
    environ = dict(program.environ)
    if LEADER in environ:
        environ[LEADER] = str(os.getpid())
    try:
        os.execve(file, [file, *program.argv[1:]], environ)
    except OSError as error:
        raise HostError(not_run(file, error)) from None
