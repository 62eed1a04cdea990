"""Users and groups of the host, who calls this program, and what is theirs here.

It must not change them, nor run anything: this is read at every start. Each account is asked for
once; a process that runs for long calls ``forget``.
"""

from __future__ import annotations

import os
import pwd

from reconciler.base.errors import HostError, UnknownState
from reconciler.base.records import dataclass


@dataclass(frozen=True, slots=True)
class Account:
    """A user to run something as."""

    name: str
    uid: int
    gid: int
    home: str
    shell: str


class Users:
    """Look-ups in the host's user and group databases, remembered."""

    def __init__(self) -> None:
        self._uids: dict[str, int | None] = {}
        self._gids: dict[str, int | None] = {}
        self._user_names: dict[int, str] = {}
        self._group_names: dict[int, str] = {}

    def forget(self) -> None:
        """Ask the host again from now on."""
        self.__init__()  # type: ignore[misc]

    def uid(self, name: str) -> int:
        """The number of a user given by name or number. Raises UnknownState."""
        if name not in self._uids:
            self._uids[name] = _user_number(name)
        uid = self._uids[name]
        if uid is None:
            raise UnknownState(f"there is no user {name!r} on this host; make it with useradd")
        return uid

    def gid(self, name: str) -> int:
        """The number of a group given by name or number. Raises UnknownState."""
        if name not in self._gids:
            self._gids[name] = _group_number(name)
        gid = self._gids[name]
        if gid is None:
            raise UnknownState(f"there is no group {name!r} on this host; make it with groupadd")
        return gid

    def user_name(self, uid: int) -> str:
        """The name of a user, or its number where it has none."""
        if uid not in self._user_names:
            try:
                self._user_names[uid] = pwd.getpwuid(uid).pw_name
            except (KeyError, OverflowError):
                self._user_names[uid] = str(uid)
        return self._user_names[uid]

    def group_name(self, gid: int) -> str:
        """The name of a group, or its number where it has none."""
        if gid not in self._group_names:
            import grp

            try:
                self._group_names[gid] = grp.getgrgid(gid).gr_name
            except (KeyError, OverflowError):
                self._group_names[gid] = str(gid)
        return self._group_names[gid]

    def account(self, name: str | None) -> Account:
        """The account of that name or number, or the caller's. Raises HostError."""
        uid = os.geteuid() if name is None else self.uid(name)
        try:
            entry = pwd.getpwuid(uid)
        except KeyError:
            if name is not None:
                raise HostError(f"user {name!r} has no entry in the user database") from None
            home = os.environ.get("HOME", "/")
            return Account(str(uid), uid, os.getegid(), home, "/bin/sh")
        home = entry.pw_dir
        if name is None:
            # As every shell does: the caller's own $HOME wins over the database.
            home = os.environ.get("HOME") or home
        return Account(entry.pw_name, uid, entry.pw_gid, home or "/", entry.pw_shell or "/bin/sh")

    def expanded(self, path: str) -> str:
        """A path with the caller's home in place of a ~ at its beginning."""
        return self.account(None).home + path[1:] if (path + "/").startswith("~/") else path


def _user_number(name: str) -> int | None:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return _number(name)


def _group_number(name: str) -> int | None:
    import grp

    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return _number(name)


def _number(name: str) -> int | None:
    # 2**32 - 1 means "leave it" to chown(2).
    return int(name) if name.isascii() and name.isdigit() and int(name) < 2**32 - 1 else None


def run_as(whom: str) -> str:
    """What to do about a right that the caller lacks. Root, who lacks it, is not sent to root."""
    if os.geteuid() != 0:
        return "run as root" if whom == "root" else f"run as {whom} or as root"
    return "root may not do that here, as in a container, or where the file is immutable"


def overflow_uid() -> int | None:
    """The uid of every owner whom this user namespace does not know; None where it knows all.

    Where that number is an account of the namespace as well, it is that account's.
    """
    try:
        with open("/proc/self/uid_map", "rb") as file:
            rows = [line.split() for line in file]
        with open("/proc/sys/kernel/overflowuid", "rb") as file:
            overflow = int(file.read())
        known = any(int(row[0]) <= overflow < int(row[0]) + int(row[2]) for row in rows)
    except (OSError, ValueError, IndexError):
        return None
    return None if known else overflow


def state_directory(chosen: str | None, users: Users) -> str:
    """Where state is kept: ``chosen``, else ``$STATE_DIRECTORY``, else the user's own place.

    Raises ValueError.
    """
    if chosen is not None:
        if not chosen:
            raise ValueError("--state-dir takes a folder, not ''")
        return os.path.abspath(users.expanded(chosen))
    # systemd.exec(5): several are separated by colons.
    given = users.expanded(os.environ.get("STATE_DIRECTORY", "").partition(":")[0])
    if given:
        # It holds for commands in whatever folder: each would come to a state of its own.
        if not given.startswith("/"):
            raise ValueError(f"$STATE_DIRECTORY must be an absolute path, not {given!r}")
        return os.path.abspath(given)
    if os.geteuid() == 0:
        return "/var/lib/reconcile"
    base = os.environ.get("XDG_STATE_HOME", "")
    if not base.startswith("/"):
        base = os.path.join(users.account(None).home, ".local/state")
    return os.path.join(base, "reconcile")


_CRONS = ("cron", "crond", "anacron", "busybox")


def caller() -> str:
    """``person``, ``cron``, ``systemd`` or ``program``."""
    fields = _stat("self")[1]
    # Does a terminal wait for us, wherever our own output goes? proc(5), ``tpgid``.
    in_foreground = len(fields) > 5 and fields[2] == fields[5]
    if in_foreground or any(_is_terminal(number) for number in (0, 1, 2)):
        return "person"
    pid = os.getppid()
    for _ in range(16):
        name, fields = _stat(pid)
        if name in _CRONS:
            return "cron"
        pid = int(fields[1]) if fields else 0
        if pid <= 1:
            break
    # systemd.exec(5): set for all that a service starts.
    return "systemd" if "INVOCATION_ID" in os.environ else "program"


def _is_terminal(number: int) -> bool:
    try:
        return os.isatty(number)
    except OSError:
        return False


def _stat(pid: int | str) -> tuple[str, list[bytes]]:
    """The name of a process and its other fields in proc(5), ``stat``; none where it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            name, _, rest = file.read().partition(b"(")[2].rpartition(b")")
    except OSError:
        return "", []
    return os.fsdecode(name).lower(), rest.split()


def refuse_other(account: Account) -> None:
    """Raises HostError where only root may start something as that user."""
    if account.uid != os.geteuid() and os.geteuid() != 0:
        raise HostError(f"only root may start a process as {account.name}")
