"""Changes files that people edit too, so that nothing that they save meanwhile is lost.

The new file is exchanged with the one that has its name (renameat2(2), RENAME_EXCHANGE), and what
came out is looked at. Where it is not what was read, it is put back, and the edit starts again.
What came out is kept beside the file as long as somebody has it open for writing, and for people
to look at where it was written to since; see ``replaced``.

It must not decide what a file is to hold, nor delete what it has not read.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from reconciler.base.errors import HostError
from reconciler.host import kernel
from reconciler.host.filesystems import mount_of
from reconciler.host.place import (
    NO_EXCHANGE,
    Draft,
    draft,
    put_back,
    sync_folder,
    write_all,
)
from reconciler.host.private_folder import Private, private_folder, private_name
from reconciler.host.reading import Content, content, reading
from reconciler.host.refusals import refuse_file_of_another
from reconciler.host.replaced import Aside, KeptFolders, being_written
from reconciler.host.users import run_as
from reconciler.host.walk import closing, opened, reported

Edit = Callable[[bytes | None], bytes | None]
"""From what a file holds to what it is to hold; None is no file. It may be called repeatedly."""

_TRIES = 10
_PATIENCE = 1.0
"""Seconds for which somebody who has it open for writing is waited for."""
_PAUSE = 0.02
_AGAIN = "has changed since it was looked at; the next pass looks again"


def rewrite(
    path: str,
    edit: Edit,
    limit: int,
    state_dir: str,
    mode: int | None = None,
    uid: int = -1,
    gid: int = -1,
    born: int = 0o644,
    of_anybody: bool = False,
) -> None:
    """Make the file at ``path`` hold what ``edit`` makes of it; None takes it away.

    ``path`` has no symlink at its end (Files.real gives such a path). Missing parents are made.
    Of a file that is there ACL, extended attributes and whatever of mode, owner and group is
    None or -1 are kept; a new one gets mode ``born`` then, and is the caller's. ``limit`` is how
    many bytes are read. ``of_anybody``: it does not matter whose it is, as in a spool; else see
    ``refusals.refuse_file_of_another``. Raises HostError, also where the owner cannot be kept, and
    whatever ``edit`` raises; the file is as it was then.
    """
    parent, _, name = path.rpartition("/")
    with reported(f"cannot write {path}"), opened(parent, make=True) as folder:
        file = _Edit(folder, parent, name, limit, KeptFolders(state_dir))
        for _ in range(_TRIES):
            file.wait()
            with reading(folder, name, path, limit) as seen:
                held = None if seen is None else seen.data
                new = edit(held)
                if new == held:
                    return
                if seen is not None and not of_anybody:
                    refuse_file_of_another(folder, parent, seen.status, path)
                if seen is None:
                    done = file.make(new or b"", born if mode is None else mode, uid, gid)
                elif new is None:
                    done = file.remove(seen)
                else:
                    done = file.replace(seen, new, mode, uid, gid)
                if done:
                    return
    raise HostError(f"{path} is saved by others all the time; the next pass tries again")


def replace_file(
    path: str,
    data: bytes | None,
    seen: bytes | None,
    limit: int,
    state_dir: str,
    mode: int | None = None,
    uid: int = -1,
    gid: int = -1,
) -> None:
    """The same for a file that still holds ``seen``. Raises HostError when it does not."""

    def edit(now: bytes | None) -> bytes | None:
        if now != seen:
            raise HostError(f"{path} {_AGAIN}")
        return data

    rewrite(path, edit, limit, state_dir, mode, uid, gid)


class _Edit:
    """One try to change a file. Each method is False when somebody has saved it meanwhile."""

    def __init__(self, folder: int, parent: str, name: str, limit: int, kept: KeptFolders) -> None:
        self._folder = folder
        self._parent = parent
        self._name = name
        self._limit = limit
        self._kept = kept
        self._patient = time.monotonic() + _PATIENCE

    def wait(self) -> None:
        """As long as somebody is writing to it, but not for ever."""
        with suppress(OSError):
            while self._is_saved(self._folder, self._name):
                time.sleep(_PAUSE)

    def _is_saved(self, folder: int, name: str) -> bool:
        return time.monotonic() < self._patient and being_written(folder, name)

    def make(self, data: bytes, mode: int, uid: int, gid: int) -> bool:
        """A new one, where none was."""
        with draft(self._folder, self._name) as made:
            write_all(made.handle, data)
            made.settle(mode, uid, gid)
            try:
                made.publish()
            except FileExistsError:
                return False
        return True

    def replace(self, seen: Content, data: bytes, mode: int | None, uid: int, gid: int) -> bool:
        """Another one in place of what was ``seen``."""
        if mount_of(seen.handle) != mount_of(self._folder):
            return self._write_in_place(seen, data)
        with self._aside() as private:
            with draft(self._folder, self._name) as made:
                write_all(made.handle, data)
                self._settle(made, seen, mode, uid, gid)
                ours = os.fstat(made.handle)
                aside = Aside.of(seen, ours)
                made.name_in(private.handle, aside.name)
            # From here on nobody has it open for writing, unless he has found it at its place.
            try:
                kernel.exchange(private.handle, aside.name, self._folder, self._name)
            except OSError as error:
                try:
                    return self._replace_otherwise(error, private, aside, seen, data)
                finally:
                    with suppress(FileNotFoundError):
                        os.unlink(aside.name, dir_fd=private.handle)
            same = self._is(private, aside.name, seen)
            done = same and not self._is_saved(private.handle, aside.name)
            if done:
                sync_folder(self._folder)
            else:
                put_back(private.handle, aside.name, self._folder, self._name, ours)
            aside.let_go(private)
            return done

    def _replace_otherwise(
        self, error: OSError, private: Private, aside: Aside, seen: Content, data: bytes
    ) -> bool:
        """What was made as ``aside`` could not be exchanged. Raises that error if it is final."""
        if error.errno == errno.ENOENT:
            return False  # Somebody has removed it.
        if error.errno == errno.EBUSY:
            return self._write_in_place(seen, data)
        if error.errno in NO_EXCHANGE:
            return self._rename(private, aside, seen)
        raise error

    def remove(self, seen: Content) -> bool:
        """None in place of what was ``seen``."""
        with self._aside() as private:
            aside = Aside.of(seen, None)
            try:
                kernel.rename_new(self._folder, self._name, private.handle, aside.name)
            except FileNotFoundError:
                return False
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                path = f"{self._parent}/{self._name}"
                raise HostError(f"{path} is a mount point, so it is not removed") from None
            if self._is(private, aside.name, seen):
                sync_folder(self._folder)
                aside.let_go(private)
                return True
            with suppress(FileExistsError):  # There is a newer one already: this one is told.
                kernel.rename_new(private.handle, aside.name, self._folder, self._name)
            return False

    @contextmanager
    def _aside(self) -> Iterator[Private]:
        """A private folder that is found again, whatever happens."""
        usual = private_name(self._name)
        self._kept.add(f"{self._parent}/{usual}")
        try:
            with private_folder(self._folder, self._name) as private:
                if private.name != usual:
                    self._kept.add(f"{self._parent}/{private.name}")
                yield private
        finally:
            self._kept.forget()

    def _settle(self, made: Draft, seen: Content, mode: int | None, uid: int, gid: int) -> None:
        was = seen.status
        made.settle(stat.S_IMODE(was.st_mode) if mode is None else mode, uid, gid, seen.handle)
        now = os.fstat(made.handle)
        wanted = was.st_uid if uid == -1 else uid, was.st_gid if gid == -1 else gid
        if (now.st_uid, now.st_gid) != wanted:
            raise HostError(
                f"{self._parent}/{self._name} belongs to user {was.st_uid} and group "
                f"{was.st_gid}, which only root, or that user as one of that group, can keep when "
                f"it is replaced; {run_as('its owner')}"
            )

    def _is(self, folder: Private, name: str, seen: Content) -> bool:
        """Is that file the one that was ``seen``, unchanged?"""
        try:
            with reading(folder.handle, name, self._name, self._limit) as there:
                return there is not None and _same(there, seen)
        except HostError:
            return False

    def _rename(self, private: Private, aside: Aside, seen: Content) -> bool:
        """Without exchange: what is renamed to this name from now on until it is done is lost."""
        old = Aside.of(seen, None)
        linked = True
        try:
            os.link(
                self._name,
                old.name,
                src_dir_fd=self._folder,
                dst_dir_fd=private.handle,
                follow_symlinks=False,
            )
        except PermissionError:
            linked = False  # No hard links either.
        where, name = (private.handle, old.name) if linked else (self._folder, self._name)
        if not self._is(Private(where, ""), name, seen):
            if linked:
                os.unlink(old.name, dir_fd=private.handle)
            return False
        os.rename(aside.name, self._name, src_dir_fd=private.handle, dst_dir_fd=self._folder)
        sync_folder(self._folder)
        if linked:
            old.let_go(private)
        return True

    def _write_in_place(self, seen: Content, data: bytes) -> bool:
        """It is a mount point, as /etc/hosts is in a container: nothing can be put in its place."""
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        handle = os.open(self._name, flags, dir_fd=self._folder)
        with closing(handle):
            now = Content(content(handle, self._limit + 1), os.fstat(handle), handle)
            if not _same(now, seen):
                return False
            os.lseek(handle, 0, os.SEEK_SET)
            write_all(handle, data)
            os.ftruncate(handle, len(data))
            os.fsync(handle)
        return True


def _same(one: Content, other: Content) -> bool:
    """The same file, with the same content, mode, owner and group?"""
    a, b = one.status, other.status
    rights = (a.st_mode, a.st_uid, a.st_gid) == (b.st_mode, b.st_uid, b.st_gid)
    return os.path.samestat(a, b) and rights and one.data == other.data
