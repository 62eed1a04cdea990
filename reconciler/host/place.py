"""Everything that gets a name in the file system gets it here: whole, and with its rights settled.

A new file has no name while it is written (open(2), O_TMPFILE), and is linked by its descriptor.
What is to replace something, a folder, and a file where a file system has no unnamed ones, is
made in a folder that only we may enter, and renamed. So whoever else may write to the goal's
folder cannot exchange it before it is in place, and what that folder would hand down (a default
ACL, the group of a set-group-ID folder) is taken away before it has a name.

It must not resolve a name that somebody else can change twice, leave half a file under the real
name, nor open what it makes to more people than was asked for.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from reconciler.base.errors import HostError
from reconciler.host.private_folder import ACL, NEW, private_folder, take_away
from reconciler.host.progress import still_waiting
from reconciler.host.walk import closing, credible, foreign_server, gives_rights

_NO_UNNAMED = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT)
"""A file system or kernel without O_TMPFILE, open(2)."""
NO_EXCHANGE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
"""A file system or kernel without RENAME_EXCHANGE, rename(2)."""
_TRIES = 10
_NOT_COPIED: tuple[str, ...] = ("security.ima", "security.evm")
"""Attributes that are made of the content of a file, and so are wrong for any other."""
_NOT_TAKEN = (errno.EPERM, errno.EACCES, errno.EOPNOTSUPP)
"""Attributes that are the kernel's, or that another file system does not have."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Draft:
    """A new file that has no name yet; ``handle`` is open for reading and writing.

    It is the caller's own, of the caller's group and of mode 0600, whatever its folder hands
    down. Raises OSError.
    """

    def __init__(self, folder: int, name: str, handle: int, private: int | None) -> None:
        self.handle = handle
        self._folder = folder
        self._name = name
        self._private = private
        """The folder that only we may enter, where it was made in one; its name there is new."""
        take_away(handle, ACL)
        if os.fstat(handle).st_gid != os.getegid():
            os.fchown(handle, -1, os.getegid())

    def settle(self, mode: int, uid: int = -1, gid: int = -1, like: int | None = None) -> None:
        """Give it its owner, group and mode; -1 is the caller's.

        ``like`` is a descriptor of a file of which it gets owner, group, ACL and extended
        attributes, as far as the caller may; ``uid`` and ``gid`` come before that. What cannot be
        kept makes the mode narrower: nobody may read or run it who could not do so with ``like``.
        """
        if like is not None:
            mode = _likened(self.handle, like, mode)
        if (uid, gid) != (-1, -1):
            os.fchown(self.handle, uid, gid)
        # Behind chown(2), which clears the set-ID bits.
        os.fchmod(self.handle, mode)

    def publish(self, name: str | None = None, mark: str | None = None, sync: bool = True) -> None:
        """Give it its real name, or another; ``sync``: see that all of it is on the disk.

        Raises FileExistsError when something has that name. ``mark`` is a second name that it
        gets before, where the file system has hard links; what has that name is taken away.
        """
        name = self._name if name is None else name
        if sync:
            os.fsync(self.handle)
        if mark is not None:
            with suppress(FileNotFoundError):
                os.unlink(mark, dir_fd=self._folder)
            with suppress(PermissionError):
                link(self.handle, self._folder, mark)
        if self._private is None:
            link(self.handle, self._folder, name)
        else:
            from reconciler.host.kernel import rename_new

            rename_new(self._private, NEW, self._folder, name)
        self._compare(name)
        if sync:
            sync_folder(self._folder)

    def replace(self, sync: bool = True) -> None:
        """Give it its real name, whatever has that name now; ``sync``: see that it is on the disk.

        It is for files that are ours alone. For what people may write to there is ``rewrite``.
        """
        if sync:
            os.fsync(self.handle)
        if self._private is not None:
            self._rename(self._private)
        else:
            with private_folder(self._folder, self._name) as private:
                link(self.handle, private.handle, NEW)
                self._rename(private.handle)
        self._compare(self._name)
        if sync:
            sync_folder(self._folder)

    def exchange(
        self,
        same: Callable[[os.stat_result], bool] | None,
        check: Callable[[str], None] = lambda name: None,
    ) -> bool:
        """Give it its real name, in place of a file that still is the ``same``; None: of nothing.

        False when it is not; all is as it was then. All of it is on the disk. Without
        RENAME_EXCHANGE, rename(2), what is done to that name in between is lost. ``check`` is
        asked before, with a path below the folder by which only we get to it.
        """
        from reconciler.host import kernel

        ours = os.fstat(self.handle)
        with private_folder(self._folder, self._name) as private:
            self.name_in(private.handle, NEW)
            check(f"{private.name}/{NEW}")
            try:
                if same is None:
                    kernel.rename_new(private.handle, NEW, self._folder, self._name)
                else:
                    kernel.exchange(private.handle, NEW, self._folder, self._name)
            except FileExistsError:
                return False
            except OSError as error:
                if same is None or error.errno not in NO_EXCHANGE:
                    raise
                if not same(os.stat(self._name, dir_fd=self._folder, follow_symlinks=False)):
                    return False
                self._rename(private.handle)
            else:
                if same and not same(os.stat(NEW, dir_fd=private.handle, follow_symlinks=False)):
                    put_back(private.handle, NEW, self._folder, self._name, ours)
                    return False
            sync_folder(self._folder)
        return True

    def name_in(self, private: int, name: str) -> None:
        """Give it a name in a folder that only we may enter; all of it is on the disk then."""
        os.fsync(self.handle)
        if self._private is None:
            link(self.handle, private, name)
        else:
            os.rename(NEW, name, src_dir_fd=self._private, dst_dir_fd=private)

    def _rename(self, private: int) -> None:
        os.rename(NEW, self._name, src_dir_fd=private, dst_dir_fd=self._folder)

    def _compare(self, name: str) -> None:
        """Raises HostError when it is something else that has the name now."""
        try:
            there = os.stat(name, dir_fd=self._folder, follow_symlinks=False)
        except FileNotFoundError:
            return  # It had its name; whoever waits for such files has taken it already.
        if not os.path.samestat(there, os.fstat(self.handle)):
            raise HostError(
                f"{name} was replaced by somebody else while it was put into place; take away the "
                "right of others to write to its folder"
            )


def put_link(folder: int, name: str, target: str, old: str | None) -> bool:
    """A symlink to ``target``, in place of one to ``old`` or, for None, of nothing; else False."""
    from reconciler.host import kernel

    with private_folder(folder, name) as private:
        os.symlink(target, NEW, dir_fd=private.handle)
        ours = os.stat(NEW, dir_fd=private.handle, follow_symlinks=False)
        try:
            if old is None:
                kernel.rename_new(private.handle, NEW, folder, name)
                return True
            kernel.exchange(private.handle, NEW, folder, name)
        except (FileExistsError, FileNotFoundError):
            return False
        out = None
        with suppress(OSError):  # It is no symlink.
            out = os.readlink(NEW, dir_fd=private.handle)
        if out != old:
            put_back(private.handle, NEW, folder, name, ours)
        return out == old


def put_back(private: int, name: str, folder: int, goal: str, ours: os.stat_result) -> None:
    """Take back an exchange of ``name`` in a private folder for what was called ``goal``.

    What is ``ours`` is in the private folder again then. When ``goal`` was replaced once more
    meanwhile, the newest keeps that name, and what came out first stays in the private folder; so
    it does when there is no ``goal`` any more.
    """
    from reconciler.host import kernel

    first = os.stat(name, dir_fd=private, follow_symlinks=False)
    for _ in range(_TRIES):
        try:
            kernel.exchange(private, name, folder, goal)
        except FileNotFoundError:
            return
        out = os.stat(name, dir_fd=private, follow_symlinks=False)
        if os.path.samestat(out, ours) or os.path.samestat(out, first):
            return


@contextmanager
def draft(folder: int, name: str) -> Iterator[Draft]:
    """A new file for ``name`` in the directory ``folder``; nothing stays unless it is published.

    Raises OSError, or HostError when no private folder can be made.
    """
    try:
        flags = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC
        handle = os.open(".", flags, 0o600, dir_fd=folder)
    except OSError as error:
        if error.errno not in _NO_UNNAMED:
            raise
        with private_folder(folder, name) as private:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with closing(os.open(NEW, flags, 0o600, dir_fd=private.handle)) as handle:
                yield Draft(folder, name, handle, private.handle)
        return
    with closing(handle):
        yield Draft(folder, name, handle, None)


def link(handle: int, folder: int, name: str) -> None:
    """Give the file that is open there one more name; the descriptor may be path-only.

    By its descriptor, since link(2) of a name takes whatever has that name by then. Raises
    FileExistsError, PermissionError where there are no hard links or not for us, OSError.
    """
    os.link(f"/proc/self/fd/{handle}", name, dst_dir_fd=folder, follow_symlinks=True)


def put(
    folder: int,
    name: str,
    data: bytes,
    mode: int = 0o600,
    uid: int = -1,
    gid: int = -1,
    replace: bool = True,
    sync: bool = True,
) -> None:
    """A whole file of ours as ``name`` in the directory ``folder``, in place of what is there.

    Without ``replace`` it raises FileExistsError when something has that name. ``sync`` False
    leaves it to the kernel when it reaches the disk. Raises OSError or HostError.
    """
    with draft(folder, name) as made:
        write_all(made.handle, data)
        made.settle(mode, uid, gid)
        if replace:
            made.replace(sync)
        else:
            made.publish(sync=sync)


def put_at(
    path: str, data: bytes, mode: int = 0o600, replace: bool = True, sync: bool = True
) -> None:
    """The same in a folder of ours, such as the state directory. Raises OSError or HostError."""
    parent, _, name = path.rpartition("/")
    with closing(os.open(parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as folder:
        put(folder, name, data, mode, replace=replace, sync=sync)


def own_file(path: str) -> int:
    """A descriptor for reading of a file in a folder of ours; made, empty, if it is missing.

    Raises HostError, also where something else stands there or it is somebody else's, or OSError.
    """
    from reconciler.host import trust

    try:
        return trust.own_file(path)
    except FileNotFoundError:
        with suppress(FileExistsError):
            put_at(path, b"", replace=False, sync=False)
        return trust.own_file(path)


def new_log(folder: int, name: str, mode: int, uid: int = -1, gid: int = -1) -> int:
    """A descriptor that appends to a new, empty file. Raises FileExistsError, OSError, HostError.

    Only those may open it whom ``mode`` and owner let, whatever its folder hands down.
    """
    with draft(folder, name) as made:
        made.settle(mode, uid, gid)
        made.publish()
        # Opened by its name, which /proc/PID/fd shows then, and compared.
        flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        log = os.open(name, flags, dir_fd=folder)
        if os.path.samestat(os.fstat(log), os.fstat(made.handle)):
            return log
    os.close(log)
    raise HostError(f"the log {name} was replaced by somebody else while it was made")


def make_folder(
    folder: int, name: str, mode: int, uid: int = -1, gid: int = -1, like: int | None = None
) -> int:
    """Make a directory, and return a descriptor of it.

    It has exactly that mode and no ACL, whatever ``folder`` hands down; ``uid`` or ``gid`` -1 is
    what mkdir(2) gives. ``like`` as for ``Draft.settle``. Raises FileExistsError when something
    has that name, OSError or HostError.
    """
    from reconciler.host.kernel import rename_new

    with private_folder(folder, name) as private:
        os.mkdir(NEW, 0o700, dir_fd=private.handle)
        there = os.open(NEW, _FOLDER, dir_fd=private.handle)
        try:
            if like is not None:
                mode = _likened(there, like, mode)
            if (uid, gid) != (-1, -1):
                os.fchown(there, uid, gid)
            # rename(2) changes its "..", for which its owner must be able to write to it.
            os.fchmod(there, mode | 0o300)
            rename_new(private.handle, NEW, folder, name)
            os.fchmod(there, mode)
        except BaseException:
            os.close(there)
            raise
    return there


def _likened(handle: int, like: int, mode: int) -> int:
    """Owner, group, ACL and attributes of ``like``; returns the mode that then opens no more."""
    was = os.fstat(like)
    user, group, without = was.st_uid, was.st_gid, _NOT_COPIED
    if was.st_dev != os.fstat(handle).st_dev:
        server = foreign_server(like)
        bits, user, group = credible(like, was, server)
        mode &= bits | 0o1777
        if not gives_rights(like, server):
            without = (*_NOT_COPIED, "security.capability")
    for uid, gid in ((-1, group), (user, -1)):
        with suppress(PermissionError):
            os.fchown(handle, uid, gid)
    now = os.fstat(handle)
    same_group = now.st_gid == group
    if not same_group:
        # Who was in its group is one of all others now, and may do no more than before.
        mode = mode & 0o700 | mode & mode >> 3 & 0o007
    elif now.st_uid != user:
        mode &= 0o777
    for name in _attributes(like):
        if name in without or (name == ACL and not same_group):
            continue
        try:
            os.setxattr(handle, name, os.getxattr(like, name))
        except OSError as error:
            if error.errno not in _NOT_TAKEN:
                raise
    if has_acl(like) and not has_acl(handle):
        mode &= 0o700  # The bits of its group are those of the ACL's mask, acl(5).
    return mode


def has_acl(handle: int) -> bool:
    """Do more people than its mode says have rights, or fewer? Its group bits are a mask then."""
    return ACL in _attributes(handle)


def _attributes(handle: int) -> list[str]:
    try:
        return os.listxattr(handle)
    except OSError as error:
        if error.errno not in _NOT_TAKEN:
            raise
        return []


def sync_folder(folder: int) -> None:
    """See that the names in a directory are on the disk; the descriptor may be path-only."""
    handle = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    with closing(handle):
        os.fsync(handle)


def write_all(handle: int, data: bytes) -> None:
    """Write all of ``data``, in as many calls as it takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]
    still_waiting()
