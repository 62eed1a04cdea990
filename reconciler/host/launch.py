"""Processes that outlive us: what a daemon is started with, and what is written down of it.

It must not wait for what it has started.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from reconciler.base.digests import blake2b
from reconciler.base.errors import HostError
from reconciler.base.records import dataclass, replace
from reconciler.base.values import Secret
from reconciler.host.clock import boot_id
from reconciler.host.command import SYSTEM_PATH, program_folder
from reconciler.host.environment import search_path
from reconciler.host.processes import LEADER, Identity, session_tag
from reconciler.host.users import Account, Users, refuse_other
from reconciler.host.walk import NoSpace, reported

if TYPE_CHECKING:
    from reconciler.host.start import Detached, Program

MARK = "RECONCILE_PROCESS"
"""Environment variable that says which process of which spec's state folder this one is."""
VERSION = "RECONCILE_LAUNCH"
"""Environment variable with the digest of what it was started from."""

STREAMS = {"/dev/stdout": "/proc/1/fd/1", "/dev/stderr": "/proc/1/fd/2"}
"""Logs that are no files but what process 1 of a container prints, which its runtime keeps."""

MARKS = (MARK, VERSION, LEADER)
"""What only those have in their environment that come of a launch, and end with it."""


@dataclass(frozen=True, slots=True)
class Launch:
    """What to start: the program's arguments, its surroundings, and who it will be known as.

    ``mark`` is the resource's id, ``digest`` that of all the rest but what ``env_file`` holds.
    ``waited``: how it ends is written down; ``notifies``: it says itself when it is ready.
    ``ready_log`` is where it writes that it is, empty for its own log.
    """

    mark: str
    digest: str
    argv: tuple[str, ...]
    environ: tuple[tuple[str, Secret], ...]
    cwd: str | None
    user: str | None
    group: str | None = None
    env_file: str | None = None
    settings: tuple[tuple[str, str], ...] = ()
    waited: bool = False
    notifies: bool = False
    ready_log: str | None = None
    cgroup: tuple[tuple[str, float], ...] = ()

    def account(self, users: Users) -> Account:
        """Whom it runs as. Raises HostError."""
        account = users.account(self.user)
        if self.group is None:
            return account
        gid = users.gid(self.group)
        if os.geteuid() != 0 and gid not in (os.getegid(), account.gid):
            raise HostError(f"only root may start a process with the group {self.group}")
        return replace(account, gid=gid)

    def program(self, environ: Mapping[str, str], account: Account) -> Program:
        """What is to be run for that account."""
        from reconciler.host.start import Program

        settings = self.settings
        if self.cgroup:
            from reconciler.host.cgroup import written

            # First, so that what comes then holds in it.
            settings = (("cgroup", written(self.mark.partition(":")[2], self.cgroup)), *settings)
        return Program(self.argv, environ, account, self.cwd, settings)

    def surroundings(self, account: Account) -> tuple[str, dict[str, str]]:
        """The digest of all that it is started with, and its environment. Raises HostError.

        Of a variable that stands in both, the value of ``env_file`` counts, systemd.exec(5).
        """
        if self.env_file is None:
            return self.digest, environment(account, self.environ)
        from reconciler.host import env_file

        text = env_file.read(self.env_file, account.uid)
        read = [(name, Secret.of(value)) for name, value in env_file.variables(text)]
        return with_file(self.digest, text), environment(account, [*self.environ, *read])


def with_file(digest: str, text: str) -> str:
    """The digest of what is started with a file of variables that holds ``text``."""
    return f"{digest}.{blake2b(text.encode(), digest_size=8).hexdigest()}"


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


def prepared(
    launch: Launch, account: Account, logs: tuple[int, int], known_as: str, record: str
) -> Detached:
    """A daemon that is to be started: standard input empty, output and errors to the ``logs``.

    Before it runs, the new process itself writes the file ``record.PID``, so that a kill of ours
    at any moment leaves no process that nobody knows. ``known_as`` goes into its environment
    under ``MARK``. Raises HostError.
    """
    from reconciler.host import scope
    from reconciler.host.place import put_at
    from reconciler.host.start import Detached

    digest, environ = launch.surroundings(account)
    environ |= {MARK: known_as, VERSION: digest, LEADER: ""}
    name = launch.mark.partition(":")[2]
    what = f"cannot write {record}"

    def remember(identity: Identity) -> None:
        what_it_is = f"{boot_id()} {identity.pid} {identity.start} {digest}"
        text = f"{what_it_is} {session_tag()}\n"
        # A start without a record is better than none.
        with suppress(NoSpace), reported(what):
            os.makedirs(os.path.dirname(record), mode=0o700, exist_ok=True)
            path = f"{record}.{identity.pid}"
            with suppress(FileNotFoundError):
                os.unlink(path)  # Of one that had this number before.
            put_at(path, text.encode(), replace=False, sync=False)
        if not launch.cgroup:
            scope.enter(name)

    def forget(pid: int) -> None:
        with suppress(OSError):
            os.unlink(f"{record}.{pid}")

    waiter = None
    if launch.waited or launch.notifies:
        from reconciler.host.waiter import Waiter

        waiter = Waiter(name, record, account.uid if launch.notifies else None)
        if launch.notifies:
            environ["NOTIFY_SOCKET"] = waiter.address
    program = launch.program(environ, account)
    refuse_other(account)
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    return Detached(program, (null, *logs), remember, forget, waiter)
