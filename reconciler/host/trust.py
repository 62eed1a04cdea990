"""Whether a path may be believed: may anybody but root and the caller decide what stands there?

It is asked for everything that is run, obeyed or remembered: specs and what they include, files
with a URL or an environment, the state directory, queues, folders of PATH, this program itself.
The way is walked through descriptors, so that what was looked at is what is then opened. It must
not change anything on the way, nor read a file.

The rule, for every folder, symlink and file on the way:

- it belongs to root, to the caller, or to an account of ``--trust``;
- nobody else may write to it, by its mode or by an access list, also that of NFSv4, whose names are
  those of this host, as idmapd(8) has them. A group may where it has no
  other member, as OpenSSH of Debian has it for user-private groups;
- a sticky folder (/tmp) may be writable by all, where the entry on the way is one of ours;
- nobody else has mounted the file system and answers for it himself (FUSE).

For a caller who is not root, a folder on the way that belongs to somebody else is only noted: who
administers a home on NFS is often not root. A folder that belongs to the overflow uid counts as
root's in a user namespace that does not know its owner, user_namespaces(7).
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Collection, Iterator
from contextlib import suppress

from reconciler.base.errors import HostError, UnknownState

_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_LINKS = 40
"""Symlinks on one way, path_resolution(7)."""
_ON_THE_WAY = 0o755
"""The mode of folders that are made on the way."""

# acl(5), and <linux/posix_acl_xattr.h>: a version, then a tag, rights and an id for each entry.
_ACL = "system.posix_acl_access"
_ACL_VERSION = 2
_ACL_ENTRY = 8
"""Bytes of an entry: two of the tag, two of the rights, four of the id."""
_ACL_USER, _ACL_GROUP_OBJ, _ACL_GROUP = 0x02, 0x04, 0x08
_WRITE = 2
# RFC 7530, section 6.2.1, as nfs4_acl(5) has it in the attribute: a number of entries, each with
# a type, flags, a mask and who it is for, in the order of the network.
_NFS_ACL = "system.nfs4_acl"
_NFS_ALLOW, _NFS_INHERIT_ONLY, _NFS_GROUP = 0, 0x8, 0x40
_NFS_WRITE = 0x2 | 0x4 | 0x40 | 0x40000 | 0x80000
"""To write, to append, to delete what is in it, to change the list or the owner."""
_FIRST_PERSON = 1000
"""The first uid of a person, login.defs(5)."""
_GROUPS_FOR = 60.0
"""Seconds for which the members of a group are remembered."""

_more_owners: set[int] = set()
_groups: dict[tuple[int, frozenset[int], bool], tuple[float, bool]] = {}
_nfs: dict[int, tuple[float, bool]] = {}
"""Has a device such lists, and when that was asked, by the monotonic clock."""


class Untrusted(HostError):
    """Somebody else could decide what stands at a path.

    ``path`` is what is wrong on the way to it, ``reason`` says how, and ``command`` has the words
    of what would settle it, empty where there is nothing.
    """

    def __init__(self, path: str, reason: str, command: tuple[str, ...] = ()) -> None:
        super().__init__(path, reason, command)
        self.path = path
        self.reason = reason
        if command:
            from reconciler.host.remedy import remedy

            self.remedy = remedy(*command)

    def __str__(self) -> str:
        return f"{self.reason}; fix it with: {self.remedy}" if self.remedy else self.reason


def trust_owner(uid: int) -> None:
    """Believe one more account from now on, for ``--trust``."""
    _more_owners.add(uid)


def trusted_owners() -> tuple[int, ...]:
    """The accounts that were named with ``--trust``, sorted."""
    return tuple(sorted(_more_owners))


def opened(
    path: str,
    flags: int = os.O_RDONLY,
    *,
    what: str = "what it says",
    also: Collection[int] = (),
    make: int | None = None,
    shared: bool = False,
    notes: list[Untrusted] | None = None,
) -> int:
    """A descriptor of ``path``, opened with ``flags``, that nobody else has put there.

    It never waits for the other end of a FIFO. With O_NOFOLLOW, what stands at the very end must
    not be a symlink. ``what`` somebody else could change is for the
    message. ``also`` are owners that are believed here besides. ``make`` is the mode of a
    folder that is made where it is missing. ``shared`` is for what people who are not root may
    want to share: then only what everybody may write to is refused, and the rest is noted; for
    root it changes nothing. ``notes`` takes what is only noted. Raises Untrusted, and OSError as
    open(2) has it.
    """
    owners = frozenset((0, os.geteuid(), *_more_owners, *also))
    way = _Way(path, what, owners, make, notes, shared)
    entry = way.walked(not flags & os.O_NOFOLLOW)
    if flags & os.O_PATH:
        return entry
    try:
        # The very thing that was looked at, whatever has its name by now.
        flags = flags & ~os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        return os.open(f"/proc/self/fd/{entry}", flags)
    finally:
        os.close(entry)


def refuse_untrusted(
    path: str,
    what: str = "what it says",
    *,
    also: Collection[int] = (),
    notes: list[Untrusted] | None = None,
) -> bool:
    """Raise Untrusted where somebody else could decide what stands at ``path``; is it there?

    As ``opened`` has it. What cannot be looked at raises OSError, but for what is missing.
    """
    try:
        os.close(opened(path, os.O_PATH, what=what, also=also, notes=notes))
    except FileNotFoundError:
        return False
    return True


def is_trusted(path: str, *, also: Collection[int] = ()) -> bool:
    """Is it there, and can nobody else decide what? A foreign folder on the way counts as well."""
    notes: list[Untrusted] = []
    try:
        return refuse_untrusted(path, also=also, notes=notes) and not notes
    except (Untrusted, OSError):
        return False


def own_file(path: str, flags: int = os.O_RDONLY) -> int:
    """A descriptor of a file in a folder of ours, which was looked at before.

    It follows no symlink and never waits, whatever stands there. Raises HostError where it is no
    regular file or somebody else's, and OSError as open(2) has it.
    """
    always = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    handle = os.open(path, flags | always)
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode) or status.st_uid not in (0, os.geteuid(), *_more_owners):
        os.close(handle)
        raise HostError(f"{path} is not a regular file of ours; move it away")
    return handle


def is_trusted_way(folder: str, *, services: bool = False) -> bool:
    """Can nobody else exchange what is ours in that folder? It may be sticky, as /tmp is.

    ``services``: a group that has only accounts of services is nobody else, as that of syslog
    with /var/log on Ubuntu.
    """
    owners = frozenset((0, os.geteuid(), *_more_owners))
    notes: list[Untrusted] = []
    try:
        way = _Way(folder, "what stands there", owners, None, notes, False, True, services)
        os.close(way.walked(True))
    except (Untrusted, OSError):
        return False
    return not notes


def refuse_untrusted_way(folder: str, what: str) -> None:
    """Raise Untrusted where somebody else could exchange what is ours in that folder.

    It may be sticky; people may share it, as ``opened`` has it. Raises OSError as well.
    """
    owners = frozenset((0, os.geteuid(), *_more_owners))
    way = _Way(folder, what, owners, None, None, shared=True, through=True)
    os.close(way.walked(True))


def only_ours(
    status: os.stat_result, handle: int, *, also: Collection[int] = (), services: bool = False
) -> bool:
    """May only root, the caller and ``also`` write to what is open as ``handle``, by itself?

    ``services`` as for ``is_trusted_way``.
    """
    owners = frozenset((0, os.geteuid(), *_more_owners, *also))
    if status.st_uid not in owners:
        return False
    return next(_writers(handle, status, owners, services), None) is None


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


class _Way:
    """One walk from the root folder to a path."""

    def __init__(
        self,
        path: str,
        what: str,
        owners: frozenset[int],
        make: int | None,
        notes: list[Untrusted] | None,
        shared: bool,
        through: bool = False,
        services: bool = False,
    ) -> None:
        self._services = services
        self._through = through
        """Is it a folder, and looked at for what is in it?"""
        # Not abspath: what stands before a ".." may be a link.
        self._path = path if path.startswith("/") else os.path.join(os.getcwd(), path)
        self._what = what
        self._owners = owners
        self._make = make
        self._notes = notes
        self._shared = shared
        self._lenient = shared and os.geteuid() != 0

    def walked(self, follow: bool) -> int:
        """A path-only descriptor of what stands at the end. Raises Untrusted and OSError.

        ``follow`` False: it must not be a symlink itself.
        """
        from reconciler.host.filesystems import served

        servers = served()
        todo = _parts(self._path)
        links = 0
        # What is open: the folder that we stand in, and what is looked at in it.
        handles = [os.open("/", _LOOK | os.O_DIRECTORY)]
        where = "/"
        try:
            status = os.fstat(handles[0])
            device = status.st_dev
            self._check(where, handles[0], status, None, not (todo or self._through))
            while todo:
                name = todo.pop()
                handles.append(self._entry(handles[0], name, bool(todo)))
                step = os.path.dirname(where) if name == ".." else f"{where.rstrip('/')}/{name}"
                if step in servers:
                    # Before anything is asked of it: he need not answer.
                    self._refuse_server(step, handles[1])
                above, status = (None if name == ".." else status), os.fstat(handles[1])
                if status.st_dev != device:
                    device = status.st_dev
                    # What lies on a block device is for nobody to answer for, but for root.
                    if os.major(device) == 0:
                        self._refuse_server(step, handles[1])
                self._check(step, handles[1], status, above, not (todo or self._through))
                if not stat.S_ISLNK(status.st_mode):
                    os.close(handles.pop(0))
                    where = step
                    continue
                links += 1
                if links > _MOST_LINKS or not (follow or todo):
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), self._path)
                target = os.readlink("", dir_fd=handles[1])
                todo += _parts(target)
                os.close(handles.pop())
                if target.startswith("/"):
                    os.close(handles.pop())
                    handles.append(os.open("/", _LOOK | os.O_DIRECTORY))
                    where = "/"
                status = os.fstat(handles[0])
            return handles.pop()
        finally:
            for handle in handles:
                os.close(handle)

    def _entry(self, here: int, name: str, folder: bool) -> int:
        """What stands under that name: a descriptor. With ``folder``, of what is on the way."""
        try:
            # A folder as one, so that it is mounted where an automounter waits for that.
            return os.open(name, _LOOK | os.O_DIRECTORY if folder else _LOOK, dir_fd=here)
        except NotADirectoryError:
            return os.open(name, _LOOK, dir_fd=here)
        except FileNotFoundError:
            if self._make is None:
                raise
        with suppress(FileExistsError):  # Made meanwhile: looked at like any other.
            os.mkdir(name, _ON_THE_WAY if folder else self._make, dir_fd=here)
        return os.open(name, _LOOK, dir_fd=here)

    def _refuse_server(self, step: str, entry: int) -> None:
        """Raises Untrusted where somebody else may say of what stands there what he likes.

        Raises OSError where one who is believed does not answer.
        """
        from reconciler.host.filesystems import refuse_silent, server
        from reconciler.host.walk import mount_of

        uid = server(mount_of(entry))
        if uid in self._owners:
            try:
                refuse_silent(step, exactly=True)
            except UnknownState as error:
                raise OSError(errno.EIO, str(error)) from None
        elif uid is not None:
            what = f"the file system of {step} is mounted by user {uid}, who answers for it"
            who = f"and could change {self._what}"
            raise Untrusted(step, f"not trusted by {_caller()}: {what} {who}")

    def _check(
        self,
        step: str,
        entry: int,
        status: os.stat_result,
        above: os.stat_result | None,
        last: bool,
    ) -> None:
        """Raises Untrusted. ``above`` is the folder that it is in, if its name was looked up."""
        alone = status.st_uid in self._owners and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if alone and not _has_nfs_lists(entry, status.st_dev):
            return
        link = stat.S_ISLNK(status.st_mode)
        if status.st_uid not in self._owners:
            in_sticky = above is not None and above.st_mode & stat.S_ISVTX
            overflow = not last and not link and status.st_uid == _overflow_uid()
            noted = os.geteuid() != 0 and not in_sticky and (link or not last or self._lenient)
            if not overflow:
                self._owner(step, status, noted)
        sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
        device = stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)
        if link or device or (sticky and not last):
            return  # In a sticky folder others may add entries, but not replace ours, inode(7).
        writer = next(_writers(entry, status, self._owners, self._services), None)
        if writer is not None:
            who, remedy = writer
            text = f"{who} may write to {step}"
            # What is sticky is meant to be everybody's, but for a queue.
            meant = sticky and not self._shared
            settled = () if meant or not remedy else (*remedy, step)
            if not self._lenient or status.st_mode & stat.S_IWOTH:
                raise Untrusted(step, f"not trusted by {_caller()}: {text}", settled)
            if self._notes is not None:
                self._notes.append(Untrusted(step, text, settled))

    def _owner(self, step: str, status: os.stat_result, noted: bool) -> None:
        """It belongs to somebody else: raised, or only noted."""
        sorts = {stat.S_IFDIR: "the directory ", stat.S_IFLNK: "the symbolic link "}
        sort = sorts.get(stat.S_IFMT(status.st_mode), "")
        by = f"{sort}{step} belongs to user {status.st_uid}, who could change {self._what}"
        if noted:
            if self._notes is not None:
                self._notes.append(Untrusted(step, by))
            return
        flag = ("-h",) if stat.S_ISLNK(status.st_mode) else ()
        # A folder that is somebody's stays his: what is to be believed is better kept elsewhere.
        takes = os.geteuid() == 0 and (self._shared or not stat.S_ISDIR(status.st_mode))
        remedy = ("chown", *flag, "root", step) if takes else ()
        hint = (
            ""
            if remedy or self._shared
            else f"; keep it in a folder of your own, or, to believe that account, add: "
            f"--trust {status.st_uid}"
        )
        raise Untrusted(step, f"not trusted by {_caller()}: {by}{hint}", remedy)


def _parts(path: str) -> list[str]:
    """The names in a path, the first one last."""
    return [part for part in path.split("/") if part not in ("", ".")][::-1]


def _caller() -> str:
    uid = os.geteuid()
    return "root" if uid == 0 else f"user {uid}"


def _writers(
    handle: int, status: os.stat_result, owners: frozenset[int], services: bool = False
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Who may write to it besides its owner and ``owners``, and what takes that right away."""
    if _has_nfs_lists(handle, status.st_dev):
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


def _has_nfs_lists(handle: int, device: int) -> bool:
    """May what is on that device have a list that its mode does not show? Asked once a minute."""
    if os.major(device):
        return False  # A block device.
    now = time.monotonic()
    known = _nfs.get(device)
    if known is None or not 0 <= now - known[0] < _GROUPS_FOR:
        known = now, _nfs_list(handle) is not None
        _nfs[device] = known
    return known[1]


def _nfs_list(handle: int) -> bytes | None:
    try:
        return os.getxattr(f"/proc/self/fd/{handle}", _NFS_ACL)
    except OSError:
        return None


def _nfs_writers(handle: int, owners: frozenset[int], services: bool) -> Iterator[str]:
    """Who is named in the list and may write. The owner, the group and all are in the mode."""
    import grp
    import pwd

    data = _nfs_list(handle) or b""

    def number(at: int) -> int:
        return int.from_bytes(data[at : at + 4], "big")

    at = 4
    for _ in range(number(0)):
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


def _overflow_uid() -> int | None:
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
