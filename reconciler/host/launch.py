"""Processes that outlive us: what a daemon is started with, and what is written down of it.

It must not wait for what it has started.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress

from reconciler.base.errors import HostError
from reconciler.base.records import dataclass
from reconciler.base.values import Secret
from reconciler.host.clock import boot_id
from reconciler.host.command import SYSTEM_PATH, program_folder
from reconciler.host.environment import search_path
from reconciler.host.processes import LEADER, Identity, session_tag
from reconciler.host.users import Account
from reconciler.host.walk import NoSpace, reported

MARK = "RECONCILE_PROCESS"
"""Environment variable that says which process of which spec's state folder this one is."""
VERSION = "RECONCILE_LAUNCH"
"""Environment variable with the digest of what it was started from."""

MARKS = (MARK, VERSION, LEADER)
"""What only those have in their environment that come of a launch, and end with it."""


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
    caller. Commands that are installed beside this program are found too. Folders of a ``PATH`` in
    ``extra`` that somebody else may write to are left out.
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
    for name, secret in extra:
        value = secret.reveal()
        environ[name] = search_path(value, account.uid) if name == "PATH" else value
    return environ


def begin(
    launch: Launch, account: Account, log: int, known_as: str, record: str
) -> Callable[[], Identity]:
    """Begin to start a daemon: standard input empty, output to the descriptor ``log``.

    Gives what waits until it runs, and raises HostError, so that several come up together.

    Before it runs, the new process itself writes the file ``record.PID``, so that a kill of ours
    at any moment leaves no process that nobody knows. ``known_as`` goes into its environment
    under ``MARK``. Raises HostError.
    """
    from reconciler.host import scope
    from reconciler.host.place import put_at
    from reconciler.host.start import NotStarted, Program, detach

    environ = environment(account, launch.environ)
    environ[MARK] = known_as
    environ[VERSION] = launch.digest
    environ[LEADER] = ""
    what = f"cannot write {record}"

    def remember(identity: Identity) -> None:
        what_it_is = f"{boot_id()} {identity.pid} {identity.start} {launch.digest}"
        text = f"{what_it_is} {session_tag()}\n"
        # A start without a record is better than none.
        with suppress(NoSpace), reported(what):
            os.makedirs(os.path.dirname(record), mode=0o700, exist_ok=True)
            path = f"{record}.{identity.pid}"
            with suppress(FileNotFoundError):
                os.unlink(path)  # Of one that had this number before.
            put_at(path, text.encode(), replace=False, sync=False)
        scope.enter(launch.mark.partition(":")[2])

    null = os.open("/dev/null", os.O_RDWR)
    try:
        program = Program(launch.argv, environ, account, launch.cwd)
        wait = detach(program, (null, log, log), remember)
    except OSError as error:
        raise HostError(f"cannot start {launch.argv[0]}: {error.strerror}") from None
    finally:
        os.close(null)

    def started() -> Identity:
        try:
            return wait()
        except NotStarted as error:
            # Where it hangs in the kernel it is still there, but will never be the program.
            if error.pid is not None:
                with suppress(OSError):
                    os.unlink(f"{record}.{error.pid}")
            raise

    return started
