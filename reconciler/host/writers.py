"""Who may write to, or read, what is open: by its mode, an access list, and who is in its group.

It must not walk a path; ``trust`` does. It is loaded only where a mode says that others may.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator

from reconciler.host.filesystems import has_nfs_lists, nfs_list

# acl(5), and <linux/posix_acl_xattr.h>: a version, then a tag, rights and an id for each entry.
_ACL = "system.posix_acl_access"
_ACL_VERSION = 2
_ACL_ENTRY = 8
"""Bytes of an entry: two of the tag, two of the rights, four of the id."""
_ACL_USER, _ACL_GROUP_OBJ, _ACL_GROUP = 0x02, 0x04, 0x08
_WRITE = 2
# RFC 7530, section 6.2.1, as nfs4_acl(5) has it in the attribute: a number of entries, each with
# a type, flags, a mask and who it is for, in the order of the network.
_NFS_ALLOW, _NFS_INHERIT_ONLY, _NFS_GROUP = 0, 0x8, 0x40
_NFS_ENTRY = 16
"""Bytes of one, at least."""
_NFS_WRITE = 0x2 | 0x4 | 0x40 | 0x40000 | 0x80000
"""To write, to append, to delete what is in it, to change the list or the owner."""
_FIRST_PERSON = 1000
"""The first uid of a person, login.defs(5)."""
_GROUPS_FOR = 60.0
"""Seconds for which the members of a group are remembered."""

_groups: dict[tuple[int, frozenset[int], bool], tuple[float, bool]] = {}


def writers(
    handle: int, status: os.stat_result, owners: frozenset[int], services: bool = False
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Who may write to it besides its owner and ``owners``, and what takes that right away."""
    if has_nfs_lists(handle, status.st_dev):
        for who in _nfs_writers(handle, owners, services):
            yield f"{who}, by an NFSv4 access list,", ()
    others = bool(status.st_mode & stat.S_IWOTH)
    # With an access list, what stands for the group in the mode is the mask, acl(5): without
    # this bit nobody may write by the list either.
    group = bool(status.st_mode & stat.S_IWGRP)
    entries = _access_list(handle) if group else None
    for tag, number in entries or ():
        if tag == _ACL_USER and number not in owners:
            yield f"user {number}", ("setfacl", "-x", f"u:{number}")
        elif tag == _ACL_GROUP and _has_others(number, owners, services):
            yield f"group {number}", ("setfacl", "-x", f"g:{number}")
        elif tag == _ACL_GROUP_OBJ and _has_others(status.st_gid, owners, services):
            yield f"group {status.st_gid}", ("setfacl", "-m", "g::r-X")
    group = group and entries is None and _has_others(status.st_gid, owners, services)
    if group or others:
        who = "everybody" if others else f"group {status.st_gid}"
        yield who, ("chmod", f"{'g' if group else ''}{'o' if others else ''}-w")


def _access_list(handle: int) -> list[tuple[int, int]] | None:
    """The entries that may write, as tag and id, of what is open as ``handle``; None: no list.

    Those of the owner and of all others are left out: the mode has them.
    """
    try:
        # A path-only descriptor has no attributes, open(2); what it stands for has.
        data = os.getxattr(f"/proc/self/fd/{handle}", _ACL)
    except OSError:
        return None
    if len(data) % _ACL_ENTRY != 4 or int.from_bytes(data[:4], "little") != _ACL_VERSION:
        return None
    found = []
    for at in range(4, len(data), _ACL_ENTRY):
        # By hand: the module struct would take longer to load than all else here.
        tag = int.from_bytes(data[at : at + 2], "little")
        rights = int.from_bytes(data[at + 2 : at + 4], "little")
        if rights & _WRITE and tag in (_ACL_USER, _ACL_GROUP_OBJ, _ACL_GROUP):
            found.append((tag, int.from_bytes(data[at + 4 : at + 8], "little")))
    return found


def _nfs_writers(handle: int, owners: frozenset[int], services: bool) -> Iterator[str]:
    """Who is named in the list and may write. The owner, the group and all are in the mode."""
    import grp
    import pwd

    data = nfs_list(handle) or b""

    def number(at: int) -> int:
        return int.from_bytes(data[at : at + 4], "big")

    at = 4
    # Who serves it says of the number what he likes; no entry is shorter.
    for _ in range(min(number(0), len(data) // _NFS_ENTRY)):
        sort, flags, mask, length = (number(at + step) for step in (0, 4, 8, 12))
        who = data[at + 16 : at + 16 + length].decode(errors="replace")
        at += 16 + (length + 3) // 4 * 4
        named = who and not who.endswith("@")
        if sort != _NFS_ALLOW or flags & _NFS_INHERIT_ONLY or not mask & _NFS_WRITE or not named:
            continue
        name = who.partition("@")[0]
        group = bool(flags & _NFS_GROUP)
        try:
            if group:
                gid = int(name) if name.isdigit() else grp.getgrnam(name).gr_gid
                known = not _has_others(gid, owners, services)
            else:
                uid = int(name) if name.isdigit() else pwd.getpwnam(name).pw_uid
                known = uid in owners
        except (KeyError, ValueError, OverflowError):
            known = False
        if not known:
            yield f"{'group' if group else 'user'} {who!r}"


def _has_others(gid: int, owners: frozenset[int], services: bool = False) -> bool:
    """Has the group a member who is none of ``owners``? True where that cannot be known."""
    known = _groups.get((gid, owners, services))
    now = time.monotonic()
    if known is None or not 0 <= now - known[0] < _GROUPS_FOR:
        _groups[gid, owners, services] = known = now, _looked_up(gid, owners, services)
    return known[1]


def _looked_up(gid: int, owners: frozenset[int], services: bool) -> bool:
    import grp
    import pwd

    try:
        group = grp.getgrgid(gid)
        names, title = group.gr_mem, group.gr_name
    except KeyError:
        names, title = [], ""
    members = gid == 0
    for name in names:
        try:
            member = pwd.getpwnam(name).pw_uid
        except KeyError:
            continue  # No account, so nobody who could use it.
        if member not in owners and not (services and member < _FIRST_PERSON):
            return True
        members = True
    for account in pwd.getpwall():
        if account.pw_gid != gid:
            continue
        # On some systems sync, halt and operator have the group of root.
        system = (gid == 0 or services) and account.pw_uid < _FIRST_PERSON
        if account.pw_uid not in owners and not system:
            return True
        members = True
    if members:
        return False
    # A directory service does not list all accounts, but a group of somebody's name is his alone.
    for owner in owners:
        try:
            account = pwd.getpwuid(owner)
        except KeyError:
            continue
        if account.pw_gid == gid and account.pw_name == title:
            return False
    return True


def readers(path: str) -> str | None:
    """Who else may read the file at ``path``, by its mode and those of the folders above it.

    In words; None where only its owner, root and the caller may, or where that is not known.
    """
    path = os.path.realpath(path)
    try:
        status = os.stat(path)
        gid = status.st_gid
        everybody = bool(status.st_mode & stat.S_IROTH)
        group = bool(status.st_mode & stat.S_IRGRP)
        while (everybody or group) and path != "/":
            path = os.path.dirname(path)
            above = os.stat(path)
            passed = bool(above.st_mode & stat.S_IXOTH)
            everybody = everybody and passed
            group = group and (passed or bool(above.st_gid == gid and above.st_mode & stat.S_IXGRP))
    except OSError:
        return None
    if everybody:
        return "everybody"
    owners = frozenset((0, os.geteuid(), status.st_uid))
    return f"group {gid}" if group and _has_others(gid, owners) else None
