"""Users and groups of the host, by name and by number.

It must not change them. Each is asked for once; a process that runs for long calls ``forget``.
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
