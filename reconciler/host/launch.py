"""Processes that outlive us: how a daemon is started, and what it is started with.

It must not wait for what it has started, nor leave a descriptor of ours in it.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Sequence
from typing import NoReturn

from reconciler.host.command import SYSTEM_PATH, find, program_folder
from reconciler.host.place import put_at
from reconciler.host.processes import Identity, boot_id, look_up
from reconciler.host.users import Account
from reconciler.model import HostError, Secret
from reconciler.records import dataclass

MARK = "RECONCILE_PROCESS"
"""Environment variable that says which process of which spec's state folder this one is."""
LEADER = "RECONCILE_PID"
"""Environment variable with the number of the process that was started, as its children know
it too. systemd has the same with $SYSTEMD_EXEC_PID, systemd.exec(5)."""
VERSION = "RECONCILE_LAUNCH"
"""Environment variable with the digest of what it was started from."""


@dataclass(frozen=True, slots=True)
class Launch:
    """What to start: the program's arguments, its surroundings, and who it will be known as.

    ``mark`` is the resource's id, ``digest`` that of all the rest.
    """

    mark: str
    digest: str
    argv: tuple[str, ...]
    environ: tuple[tuple[str, Secret], ...]
    cwd: str | None
    user: str | None


def environment(account: Account, extra: Sequence[tuple[str, Secret]]) -> dict[str, str]:
    """The environment of a managed process: the same whoever starts it, shell, cron or systemd.

    Only the locale, the time zone and the place of tmux's sockets are taken over from the
    caller. Commands that are installed beside this program are found too.
    """
    environ = {
        "HOME": account.home,
        "USER": account.name,
        "LOGNAME": account.name,
        "SHELL": account.shell,
        "PATH": f"{program_folder()}:{SYSTEM_PATH}",
    }
    for name, value in os.environ.items():
        if name in ("LANG", "LANGUAGE", "TZ", "TMUX_TMPDIR") or name.startswith("LC_"):
            environ[name] = value
    environ.update((name, secret.reveal()) for name, secret in extra)
    return environ


def resolve(argv: Sequence[str], environ: dict[str, str]) -> list[str]:
    """``argv`` with the program's absolute path. Raises HostError when it cannot be found."""
    program = find(argv[0], environ["PATH"])
    if program is None:
        if "/" in argv[0]:
            raise HostError(f"the program {argv[0]!r} is not there or may not be run; install it")
        raise HostError(f"no program {argv[0]!r} in its PATH; install it or write its path")
    return [program, *argv[1:]]


def start(launch: Launch, account: Account, log: int, known_as: str, record: str) -> Identity:
    """Start a daemon: its own session, standard input empty, output to the descriptor ``log``.

    Before it runs, the new process itself writes the file ``record.PID``, so that a kill of ours
    at any moment leaves no process that nobody knows. ``known_as`` goes into its environment
    under ``MARK``. Raises HostError.
    """
    environ = environment(account, launch.environ)
    environ[MARK] = known_as
    environ[VERSION] = launch.digest
    argv = resolve(launch.argv, environ)
    if account.uid != os.geteuid() and os.geteuid() != 0:
        raise HostError(f"only root may start a process as {account.name}")
    _make_room(record)
    said, say = os.pipe()
    try:
        child = os.fork()
        if child == 0:
            _become(launch, account, log, record, environ, argv, say)
        os.close(say)
        say = -1
        os.waitpid(child, 0)
        # Ends when the program runs: every descriptor but 0, 1 and 2 is closed by execve(2).
        words = b""
        while chunk := os.read(said, 4096):
            words += chunk
    finally:
        os.close(said)
        if say >= 0:
            os.close(say)
    text = words.decode(errors="replace")
    # First the number, once it is known; then, after a blank, what went wrong.
    number, _, complaint = text.partition(" ") if text[:1].isdigit() else ("", "", text)
    pid, _, start_ticks = number.partition(":")
    if complaint or not start_ticks:
        raise HostError(f"cannot start {argv[0]}: {complaint or 'the new process was killed'}")
    return Identity(int(start_ticks), int(pid))


def _become(
    launch: Launch,
    account: Account,
    log: int,
    record: str,
    environ: dict[str, str],
    argv: list[str],
    say: int,
) -> NoReturn:
    """The child's side: fork once more, so that init is the parent, then turn into the program."""
    try:
        if os.fork() != 0:
            os._exit(0)
        os.setsid()
        pid = os.getpid()
        me = look_up(pid)
        start = me.identity.start if me is not None else 0
        _write_record(record, f"{boot_id()} {pid} {start} {launch.digest}\n")
        os.write(say, f"{pid}:{start} ".encode())
        for number in signal.valid_signals():
            with contextlib.suppress(OSError, ValueError):
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.umask(0o022)
        null = os.open("/dev/null", os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        if account.uid != os.geteuid():
            os.initgroups(account.name, account.gid)
            os.setgid(account.gid)
            os.setuid(account.uid)
        if launch.cwd is None and not os.path.isdir(account.home):
            os.chdir("/")
        else:
            os.chdir(launch.cwd or account.home)
        environ[LEADER] = str(pid)
        # Whatever the caller has left open, too: cron and shells hand down descriptors.
        os.closerange(3, say)
        os.closerange(say + 1, min(os.sysconf("SC_OPEN_MAX"), 65536))
        os.execve(argv[0], argv, environ)
    except BaseException as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        where = f" ({error.filename})" if isinstance(error, OSError) and error.filename else ""
        with contextlib.suppress(OSError):
            os.write(say, f"{reason}{where}".encode())
    finally:
        os._exit(127)


def _make_room(record: str) -> None:
    """The folder for records, without those of this name whose process has ended."""
    folder, _, prefix = record.rpartition("/")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    for name in os.listdir(folder):
        pid = name.removeprefix(f"{prefix}.").removeprefix(f"{prefix}:")
        if pid != name and not (pid.isdigit() and look_up(int(pid))):
            os.unlink(f"{folder}/{name}")


def _write_record(path: str, text: str) -> None:
    put_at(f"{path}.{os.getpid()}", text.encode(), replace=False, sync=False)
