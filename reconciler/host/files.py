"""Files and directories: looked at by name, changed only through descriptors.

It must not follow a symlink that somebody else could have made, and it never changes anything
through a name that can be swapped between the check and the change.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress

from reconciler.host.progress import working
from reconciler.host.walk import (
    MOST_LINKS,
    entry_in,
    mount_of,
    opened,
    reason,
    refuse_foreign_link,
    refuse_hard_link,
    reported,
    set_on,
    shared,
    sort_of,
)
from reconciler.model import HostError, UnknownState
from reconciler.records import dataclass


@dataclass(frozen=True, slots=True)
class _Folder:
    """A directory on the way to something: its path without links, and who may write to it."""

    real: str
    shared: bool
    sticky: bool


def _folder(real: str, status: os.stat_result) -> _Folder:
    return _Folder(real, shared(status), bool(status.st_mode & stat.S_ISVTX))


def _overlaid(folder: int, name: str, status: os.stat_result) -> bool:
    """Is a file of another device than its folder on the same mount all the same?

    On overlayfs with layers on several file systems it is.
    """
    if not stat.S_ISREG(status.st_mode):
        return False
    try:
        handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return False
    try:
        return mount_of(handle) == mount_of(folder)
    finally:
        os.close(handle)


class Files:
    """What this host has at which path. ``forget`` before every new look."""

    def __init__(self) -> None:
        self._folders: dict[str, _Folder | str | None] = {}

    def forget(self) -> None:
        """Drop what was seen, so that the next look is a fresh one."""
        self._folders.clear()

    def status(self, path: str) -> os.stat_result | None:
        """The status of what stands at ``path``, or None when there is nothing.

        A symlink is followed where nobody else could have made it. Raises UnknownState when
        that cannot be known.
        """
        found = self._found(path)
        return None if found is None else found[0]

    def is_link(self, path: str) -> bool:
        """Does a symlink stand at ``path`` itself? Raises UnknownState as ``status`` does."""
        parent, _, name = path.rpartition("/")
        folder = self._folder(parent, 0)
        try:
            return folder is not None and stat.S_ISLNK(os.lstat(f"{folder.real}/{name}").st_mode)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise UnknownState(f"cannot look at {path}: {reason(error)}") from None

    def real(self, path: str) -> str | None:
        """Where ``path`` leads to, without symlinks, or None when there is nothing.

        Raises UnknownState as ``status`` does.
        """
        found = self._found(path)
        return None if found is None else found[1]

    def _found(self, path: str) -> tuple[os.stat_result, str] | None:
        parent, _, name = path.rpartition("/")
        folder = self._folder(parent, 0)
        return None if folder is None else self._entry(folder, name, path, 0)

    def _folder(self, path: str, links: int) -> _Folder | None:
        try:
            known = self._folders[path]
        except KeyError:
            known = self._folders[path] = self._walk(path, links)
        if isinstance(known, str):
            raise UnknownState(known)
        return known

    def _walk(self, path: str, links: int) -> _Folder | str | None:
        if not path:
            return _folder("", os.lstat("/"))
        parent, _, name = path.rpartition("/")
        try:
            folder = self._folder(parent, links)
            found = None if folder is None else self._entry(folder, name, path, links)
        except UnknownState as error:
            return str(error)
        if found is None:
            return None
        status, real = found
        if not stat.S_ISDIR(status.st_mode):
            return f"{path} is {sort_of(status)}, not a directory"
        return _folder(real, status)

    def _entry(
        self, folder: _Folder, name: str, path: str, links: int
    ) -> tuple[os.stat_result, str] | None:
        real = f"{folder.real}/{name}"
        try:
            status = os.lstat(real)
            if not stat.S_ISLNK(status.st_mode):
                return status, real
            target = os.readlink(real)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise UnknownState(f"cannot look at {path}: {reason(error)}") from None
        refuse_foreign_link(folder.shared, folder.sticky, status, path)
        if links >= MOST_LINKS:
            raise UnknownState(f"{path} is a symlink to a symlink, without end")
        parts = [part for part in target.split("/") if part not in ("", ".")]
        if ".." in [part for at, part in enumerate(parts) if any(p != ".." for p in parts[:at])]:
            raise UnknownState(
                f"{path} is a symlink that goes down and up again; write the real path"
            )
        goal = os.path.normpath(os.path.join(folder.real or "/", target))
        parent, _, last = goal.rpartition("/")
        above = self._folder(parent, links + 1)
        found = self._entry(above, last, goal, links + 1) if above and last else None
        if not last:
            found = os.lstat("/"), ""
        if found is None:
            raise UnknownState(f"{path} is a symlink to {target}, where nothing is")
        return found

    def entries(self, path: str) -> set[str]:
        """The paths of all that a directory holds. Raises UnknownState when it cannot be read."""
        try:
            return {f"{path.rstrip('/')}/{name}" for name in os.listdir(path)}
        except FileNotFoundError:
            return set()
        except OSError as error:
            raise UnknownState(f"cannot read {path}: {reason(error)}") from None

    def matching(self, pattern: str) -> list[str]:
        """The paths that match a glob, sorted; a name that begins with a dot must be asked for.

        Raises UnknownState.
        """
        found = [""]
        for part in pattern.split("/")[1:]:
            if any(character in part for character in "*?["):
                found = [f"{path}/{name}" for path in found for name in self._names(path, part)]
            else:
                found = [f"{path}/{part}" for path in found]
        return sorted(path for path in found if self._is_there(path))

    def _is_there(self, path: str) -> bool:
        """Is there something other than a symlink? A glob passes over those, as find(1) does."""
        try:
            return not stat.S_ISLNK(os.lstat(path).st_mode) and self.status(path) is not None
        except FileNotFoundError:
            return False
        except OSError as error:
            raise UnknownState(f"cannot look at {path}: {reason(error)}") from None

    def _names(self, path: str, pattern: str) -> list[str]:
        status = self.status(path or "/")
        if status is None or not stat.S_ISDIR(status.st_mode):
            return []
        from fnmatch import filter as matching

        try:
            names = matching(os.listdir(path or "/"), pattern)
        except OSError as error:
            raise UnknownState(f"cannot read {path}: {reason(error)}") from None
        return [name for name in names if pattern.startswith(".") or not name.startswith(".")]

    def tree(
        self, path: str, excluded: Callable[[str], bool]
    ) -> Iterator[tuple[str, os.stat_result]]:
        """Everything below a directory but symlinks and other file systems.

        What is excluded is not entered. Raises UnknownState for a folder that cannot be read.
        """
        todo = [path]
        try:
            with opened(path) as top:
                device = os.fstat(top).st_dev
            with working(f"look through {path}", None) as work:
                while todo:
                    folder = todo.pop()
                    with opened(folder) as handle:
                        readable = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=handle)
                    try:
                        names = sorted(os.listdir(readable))
                        work.advance(len(names))
                        for name in names:
                            below = f"{folder}/{name}"
                            if excluded(below):
                                continue
                            try:
                                status = os.stat(name, dir_fd=readable, follow_symlinks=False)
                            except FileNotFoundError:
                                continue
                            if stat.S_ISLNK(status.st_mode) or (
                                status.st_dev != device and not _overlaid(readable, name, status)
                            ):
                                continue
                            yield below, status
                            if stat.S_ISDIR(status.st_mode):
                                todo.append(below)
                    finally:
                        os.close(readable)
        except UnknownState:
            raise
        except HostError as error:
            raise UnknownState(str(error)) from None
        except OSError as error:
            raise UnknownState(f"cannot read below {path}: {reason(error)}") from None

    def make_directory(self, path: str, mode: int | None, uid: int, gid: int) -> None:
        """Make ``path`` and its missing parents; ``uid`` or ``gid`` -1 is the caller's.

        A directory that stands there already is kept and given what was asked for.
        Raises HostError.
        """
        parent, _, name = path.rpartition("/")
        with reported(f"cannot make the directory {path}"), opened(parent, make=True) as folder:
            with suppress(FileExistsError):
                if mode is not None:
                    from reconciler.host.place import make_folder

                    os.close(make_folder(folder, name, mode, uid, gid))
                    return
                os.mkdir(name, 0o777, dir_fd=folder)
            with entry_in(folder, name, path) as entry:
                status = os.fstat(entry)
                if not stat.S_ISDIR(status.st_mode):
                    raise HostError(f"{path} is {sort_of(status)}, not a directory; move it away")
                set_on(entry, mode, uid, gid)

    def remove_directory(self, path: str) -> None:
        """Remove an empty directory. Raises HostError."""
        parent, _, name = path.rpartition("/")
        with reported(f"cannot remove the directory {path}"), opened(parent) as folder:
            os.rmdir(name, dir_fd=folder)

    def set_attributes(
        self, path: str, mode: int | None, uid: int, gid: int, directory: bool | None = None
    ) -> None:
        """Set what is not None or -1, on the inode itself. Raises HostError.

        ``directory`` says what must stand there: what is right for one sort is a hole for another.
        """
        parent, _, name = path.rpartition("/")
        with (
            reported(f"cannot change {path}"),
            opened(parent) as folder,
            entry_in(folder, name or ".", path) as entry,
        ):
            status = os.fstat(entry)
            if directory not in (None, stat.S_ISDIR(status.st_mode)):
                raise HostError(f"{path} has become {sort_of(status)} since it was looked at")
            refuse_hard_link(folder, status, path)
            set_on(entry, mode, uid, gid)

    def open_log(self, path: str, uid: int, gid: int) -> int:
        """A descriptor that appends to ``path``; made, for that user, if missing.

        Raises HostError, also when something other than a regular file stands there, or a file
        that is not the user's in a folder where others decide which file has that name: what is
        written to it would be written with the caller's rights. ``uid`` -1: it is for the caller.
        """
        parent, _, name = path.rpartition("/")
        with reported(f"cannot open the log {path}"), opened(parent, make=True) as folder:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            try:
                log = os.open(name, flags, dir_fd=folder)
            except FileNotFoundError:
                from reconciler.host.place import new_log

                log = new_log(folder, name, 0o640, uid, gid)
            status = os.fstat(log)
            if not stat.S_ISREG(status.st_mode):
                os.close(log)
                raise HostError(f"the log {path} is {sort_of(status)}, not a file; move it away")
            try:
                refuse_hard_link(folder, status, path)
                if uid not in (-1, status.st_uid):
                    _refuse_log_of_another(path, uid, status)
            except HostError:
                os.close(log)
                raise
            os.set_blocking(log, True)
            return log

    def read(self, path: str, limit: int) -> bytes | None:
        """The first ``limit`` bytes of a regular file, or None when there is none.

        Raises UnknownState when it cannot be read.
        """
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise UnknownState(f"cannot read {path}: {reason(error)}") from None
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise UnknownState(f"cannot read {path}: it is {sort_of(status)}, not a file")
            return os.read(handle, limit)
        except OSError as error:
            raise UnknownState(f"cannot read {path}: {reason(error)}") from None
        finally:
            os.close(handle)

    def tail(self, path: str, limit: int, start: int = 0) -> bytes:
        """The whole lines in the last ``limit`` bytes of a regular file, none before ``start``.

        The rest of a line that begins before them is left out: it may be a piece of a secret.
        Empty when there is none to be read.
        """
        parent, _, name = path.rpartition("/")
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
        try:
            # What a process has put in the place of its log is not to be shown to people.
            with opened(parent) as folder:
                handle = os.open(name, flags, dir_fd=folder)
        except (OSError, HostError):
            return b""
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                return b""
            begin = max(start, status.st_size - limit)
            data = os.pread(handle, limit, begin)
            return data if begin == start else data.partition(b"\n")[2]
        finally:
            os.close(handle)


def _refuse_log_of_another(path: str, uid: int, status: os.stat_result) -> None:
    from reconciler.host.trust import Untrusted, is_trusted

    if not is_trusted(path.rpartition("/")[0] or "/"):
        raise Untrusted(
            path,
            f"the log {path} belongs to user {status.st_uid}, in a folder that others may write "
            f"to, and is not opened for user {uid}",
            ("chown", str(uid), path),
        )
