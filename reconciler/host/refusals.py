"""What is not done to somebody's entry, and why: unsafe transitions, systemd-tmpfiles(8).

It must not change anything.
"""

from __future__ import annotations

import os
import stat
from array import array
from bisect import bisect_left
from heapq import merge

from reconciler.base.digests import blake2b
from reconciler.base.errors import HostError
from reconciler.base.records import dataclass
from reconciler.host.trust import PATH_ONLY, shared
from reconciler.host.walk import shown

_UNSORTED = 20_000
_SET_ID = stat.S_ISUID | stat.S_ISGID


@dataclass(frozen=True, slots=True)
class Refused:
    """What is not done to somebody's entry, why, and the command that would settle it.

    ``owner`` is whose it should be, where it is another's.
    """

    reason: str
    remedy: tuple[str, ...]
    owner: str | None = None


def refused(
    path: str,
    status: os.stat_result,
    folder: os.stat_result,
    mode: int | None,
    uid: int,
    gid: int,
    named: bool,
) -> Refused | None:
    """Why that is not done to an entry of a ``folder`` that somebody else may write to.

    He could have given its name to something else: unsafe transitions, systemd-tmpfiles(8).
    ``named``: it is declared by itself, and so must be its owner's already. ``mode`` None, ``uid``
    and ``gid`` -1 are left alone.
    """
    where = "in a folder that somebody else may write to"
    ours = status.st_uid == os.geteuid() == 0
    right = (uid,) if uid != -1 else (folder.st_uid, 0, os.geteuid())
    if named and status.st_uid not in right:
        owner = user(right[0])
        reason = f"{shown(path)} belongs to {user(status.st_uid)}, not to {owner}, {where}"
        return Refused(reason, ("chown", owner, path), owner)
    if ours and (uid not in (-1, 0) or gid not in (-1, status.st_gid)):
        reason = f"{shown(path)} is root's own {where}, so it gets no other owner or group"
        return Refused(reason, ("chown", _owners(uid, gid), path))
    if mode is None:
        return None
    added = mode & ~kept_mode(status, uid, gid)
    if added & _SET_ID:
        reason = f"{shown(path)} is {where}, so it gets no set-user-ID or set-group-ID bit"
        return Refused(reason, ("chmod", f"{mode:04o}", path))
    if ours and added & 0o777:
        reason = f"{shown(path)} is root's own {where}, so its mode is not made wider"
        if folder.st_uid != 0:
            return Refused(reason, ("chown", user(folder.st_uid), path))
        return Refused(reason, ("chmod", f"{mode:04o}", path))
    return None


def refused_set_id(
    path: str, status: os.stat_result, mode: int | None, uid: int, gid: int
) -> Refused | None:
    """Why a file that was somebody's gets no set-ID bit along with a new owner: it is his work."""
    same = uid in (-1, status.st_uid) and gid in (-1, status.st_gid)
    none = mode is None or not mode & _SET_ID or stat.S_ISDIR(status.st_mode)
    if same or none or status.st_uid == 0:
        return None
    reason = (
        f"{shown(path)} belongs to {user(status.st_uid)}, who decides what it does, so it gets "
        "no set-user-ID or set-group-ID bit along with a new owner or group"
    )
    return Refused(reason, ("chown", _owners(uid, gid), path))


def _owners(uid: int, gid: int) -> str:
    """As chown(1) takes them; -1 is left alone."""
    return (user(uid) if uid != -1 else "") + (f":{_group(gid)}" if gid != -1 else "")


def refuse(found: Refused | None) -> None:
    """Raises HostError where it is refused."""
    if found is not None:
        from reconciler.host.remedy import remedy

        raise HostError(found.reason, remedy=remedy(*found.remedy))


def kept_mode(status: os.stat_result, uid: int, gid: int) -> int:
    """The mode that is left by chown(2), which takes the set-ID bits away from files."""
    owned = uid in (-1, status.st_uid) and gid in (-1, status.st_gid)
    mode = stat.S_IMODE(status.st_mode)
    return mode if owned or stat.S_ISDIR(status.st_mode) else mode & ~_SET_ID


def user(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    import grp

    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def refuse_hard_link(folder: int, status: os.stat_result, path: str) -> None:
    # A hard link to a file of another folder would carry the change there, systemd-tmpfiles(8).
    if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode) and shared(os.fstat(folder)):
        raise HostError(
            f"{path} has {status.st_nlink} hard links in a folder that somebody else may write "
            "to, so it is not changed; replace it by a copy"
        )


def refuse_file_of_another(
    folder: int, parent: str, status: os.stat_result, path: str, uid: int = -1
) -> None:
    """Raise Untrusted where somebody else may have made that file in our place.

    What is written to it would be his to read, and he would write to it. It must be that user's
    (``uid``) in a folder, ``parent``, that somebody else may write to; for -1 the folder's
    owner's, root's or the caller's, as a declared path without an owner; the folder's owner does
    not count where he has taken that name, see ``taken_by``. For an ordinary caller only what
    everybody may write to counts.
    """
    above = os.fstat(folder)
    taken = taken_by(folder)
    right = [uid] if uid != -1 else [0, os.geteuid(), *([above.st_uid] if taken is None else [])]
    if status.st_uid in right:
        return
    from reconciler.host.trust import Untrusted, is_trusted

    root = os.geteuid() == 0
    if is_trusted(parent or "/") if root else taken is None and not above.st_mode & stat.S_IWOTH:
        return
    owner = os.geteuid() if uid == -1 else uid
    raise Untrusted(
        path,
        f"{path} belongs to user {status.st_uid}, in a folder that others may write to, so "
        f"nothing is written to it for user {owner}{'' if root else '; name another path'}",
        ("chown", str(owner), path) if root else (),
    )


def taken_by(folder: int) -> int | None:
    """Who has made that folder, or one above it, where everybody may: in /tmp, before us.

    None where it is root's, the caller's, or stands where only they could have put it.
    """
    here = os.dup(folder)
    try:
        status = os.fstat(here)
        while status.st_uid not in (0, os.geteuid()):
            try:
                above = os.open("..", PATH_ONLY | os.O_DIRECTORY, dir_fd=here)
            except PermissionError:
                return None
            os.close(here)
            here = above
            owner, status = status.st_uid, os.fstat(here)
            if status.st_mode & stat.S_IWOTH:
                return owner
    finally:
        os.close(here)
    return None


class KnownEntries:
    """What stood at a path, by device and inode, where nobody else could have put it.

    Of very many paths: of each it keeps eight bytes, a digest with a key of its own.
    """

    def __init__(self) -> None:
        self._key = os.urandom(16)
        self._new: set[int] = set()
        self._sorted = array("Q")

    def learn(self, path: str, status: os.stat_result) -> None:
        """So it is now."""
        self._new.add(self._digest(path, status))
        if len(self._new) > max(_UNSORTED, len(self._sorted) // 4):
            self._sorted = array("Q", merge(self._sorted, sorted(self._new)))
            self._new.clear()

    def has(self, path: str, status: os.stat_result) -> bool:
        """Was it so?"""
        digest = self._digest(path, status)
        at = bisect_left(self._sorted, digest)
        return digest in self._new or digest in self._sorted[at : at + 1]

    def _digest(self, path: str, status: os.stat_result) -> int:
        what = b"%d %d %s" % (status.st_dev, status.st_ino, os.fsencode(path))
        return int.from_bytes(blake2b(what, digest_size=8, key=self._key).digest(), "big")


def enter(cwd: str | None, home: str) -> None:
    """Stand in that folder, or at home. Raises HostError."""
    if cwd is None:
        try:
            os.chdir(home)
        except OSError:
            os.chdir("/")
        return
    try:
        os.chdir(cwd)
    except FileNotFoundError:
        words = "is not there; declare it under directories"
    except OSError as error:
        words = f"cannot be entered: {(error.strerror or str(error)).lower()}"
    else:
        here = os.open(".", os.O_PATH | os.O_CLOEXEC)
        owner = taken_by(here)
        os.close(here)
        if owner is None:
            return
        words = f"was made by user {owner} where everybody may write; move it away"
    raise HostError(f"the folder {cwd} to start in {words}")
