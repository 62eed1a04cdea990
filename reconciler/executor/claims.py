"""Who has which command: taking files out of pending/, and finding what dead workers left.
Must not run a command and must not write a result.

Two locks make sure that a command never runs twice. The one beside the folders is held for
moments, while files move. The one beside a file in running/ is held by its worker as long as the
command runs; the kernel drops it when the worker dies, however it dies. Each is a file that only
the worker's user may open: a flock on anything that others may open would be theirs to hold.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Iterator

from reconciler.executor import files
from reconciler.executor.commandfile import MAX_FILE, Command, CommandRefused, parse
from reconciler.executor.folders import held
from reconciler.executor.layout import BadId, Layout, check_id
from reconciler.executor.text import shown, stamp

_LOCK = ".lock"  # in ai_commands/


class QueueBusy(OSError):
    """Another worker is moving files right now; try again."""


class Gone(Exception):
    """The file is not in pending/ any more: somebody else was faster."""


class QueueClaim:
    """A file in running/ whose lock this process holds."""

    def __init__(self, running: int, command_id: str, lock: int) -> None:
        self.id = command_id
        self._lock = lock
        self._running = os.dup(running)

    def read(self) -> bytes:
        return files.read_small(f"{self.id}.json", MAX_FILE, self._running)

    def finish(self) -> None:
        """The result is written: take the file away, then the lock."""
        try:
            for name in (f"{self.id}.pid", f"{self.id}.json", _lock_of(self.id)):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=self._running)
        finally:
            self.leave()

    def leave(self) -> None:
        """Give up the lock only; the next recovery takes care of the file."""
        os.close(self._lock)
        os.close(self._running)


@contextlib.contextmanager
def moving(layout: Layout) -> Iterator[None]:
    """The only one who moves command files, for the length of the block. Raises Busy."""
    with held(layout.base) as base:
        fd = files.open_lock(base, _LOCK)
    try:
        end = time.monotonic() + 0.5
        while not files.try_lock(fd):
            if time.monotonic() > end:
                path = os.path.join(layout.base, _LOCK)
                raise QueueBusy(
                    f"another process holds the lock {path}; find it with: fuser -v {path}"
                )
            time.sleep(0.002)
        yield
    finally:
        os.close(fd)


def read_command(folder: int, name: str) -> tuple[os.stat_result, bytes]:
    """A command file's status and content, one byte more than it may have at most.

    Raises Refused if somebody else could have written it, and OSError.
    """
    fd = files.open_regular(name, folder)
    try:
        _refuse_foreign(fd)
        return os.fstat(fd), files.read_at_most(fd, MAX_FILE)
    finally:
        os.close(fd)


def _refuse_foreign(fd: int) -> None:
    from reconciler.host import trust

    info = os.fstat(fd)
    if os.geteuid() != 0:
        if info.st_mode & stat.S_IWOTH:
            raise CommandRefused("everybody may write to the file; take that away: chmod o-w")
    elif not trust.only_ours(info, fd):
        raise CommandRefused(
            f"user {info.st_uid} owns the file or somebody else may write to it, and root runs "
            "only what root has written; if it is meant, put a copy of root's into pending/"
        )


def take(layout: Layout, name: str, command: Command) -> tuple[QueueClaim, Command]:
    """Move pending/`name`, which was read as `command`, to running/ and lock it.

    Returns what the file said when it was ours. Raises Gone, Busy, OSError, and Refused: then the
    file is in failed/ already.
    """
    target = f"{command.id}.json"
    with (
        moving(layout),
        held(layout.pending) as pending,
        held(layout.running, make=True) as running,
    ):
        # In this order: a worker that finishes writes its result before it leaves running/.
        reason = ""
        if files.is_there(running, target):
            reason = f"a command with the id {command.id} is running"
        elif os.path.lexists(layout.result_file(command.id)):
            reason = f"a result of this id exists: {layout.result_file(command.id)}"
        if reason:
            _to_failed(layout, pending, name, name, reason)
            raise CommandRefused(reason)
        with _new_lock(running, command.id) as lock:
            try:
                os.rename(name, target, src_dir_fd=pending, dst_dir_fd=running)
            except FileNotFoundError:
                raise Gone from None
            try:
                _, data = read_command(running, target)
                current = parse(data, name.removesuffix(".json"))
                if current.id != command.id:
                    raise CommandRefused("the file's id changed while the file was taken")
                # It may hold secrets in its environment, whoever has written it.
                files.narrow(running, target, layout.file_mode)
            except (CommandRefused, OSError) as error:
                _to_failed(layout, running, target, name, str(error))
                raise CommandRefused(str(error)) from None
        with contextlib.suppress(OSError):  # a power cut could put it back into pending/
            from reconciler.host.place import sync_folder

            sync_folder(running)
        return QueueClaim(running, current.id, lock), current


@contextlib.contextmanager
def _new_lock(running: int, command_id: str) -> Iterator[int]:
    """The lock of a command that is being taken; it stays only if the block ends well."""
    lock = files.open_lock(running, _lock_of(command_id))
    try:
        if not files.try_lock(lock):  # its worker has taken away the file, but not yet the lock
            raise QueueBusy(f"another worker still holds the lock of {command_id}")
        yield lock
    except BaseException:
        os.unlink(_lock_of(command_id), dir_fd=running)
        os.close(lock)
        raise


def _lock_of(command_id: str) -> str:
    return f"{command_id}.lock"


def refuse(layout: Layout, name: str, reason: str) -> None:
    """Move pending/`name` to failed/, the reason beside it. Raises Gone, Busy and OSError."""
    with moving(layout), held(layout.pending) as pending:
        _to_failed(layout, pending, name, name, reason)


def adopt(layout: Layout, name: str) -> QueueClaim | None:
    """Running/`name`, if its worker is dead. None if it is alive or done."""
    try:
        command_id = check_id(name.removesuffix(".json"))
    except BadId as error:
        with moving(layout), held(layout.running) as running, contextlib.suppress(Gone):
            reason = f"no worker put this into running/: {error}"
            _to_failed(layout, running, name, name, reason)
        return None
    with moving(layout), held(layout.running) as running:
        lock = files.open_lock(running, _lock_of(command_id))
        if not files.try_lock(lock):
            os.close(lock)
            return None
        # That of a worker that has just finished may be open and free, but is not there any more.
        if files.same_file(lock, _lock_of(command_id), running):
            if _is_left(running, name):
                return QueueClaim(running, command_id, lock)
            os.unlink(_lock_of(command_id), dir_fd=running)
        os.close(lock)
        return None


def _is_left(running: int, name: str) -> bool:
    """Is the file there, and not held by a worker of an older version, which locks it itself?"""
    try:
        fd = files.open_regular(name, running)
    except FileNotFoundError:
        return False
    try:
        return files.try_lock(fd)
    finally:
        os.close(fd)


def _to_failed(layout: Layout, source: int, there: str, name: str, reason: str) -> None:
    """Move what is called `there` in a folder. Under the lock of `moving`, so the name that is
    free now is free at the rename."""
    try:
        info = os.stat(there, dir_fd=source, follow_symlinks=False)
    except FileNotFoundError:
        raise Gone from None
    with held(layout.failed, make=True) as failed:
        target = _free_name(failed, name, info.st_ino)
        note = f"{shown(reason)}\nrefused at {stamp()}; the file was {shown(name)}\n"
        beside = f"{target}.reason"
        files.put(failed, beside, note.encode("utf-8", "backslashreplace"), layout.file_mode)
        try:
            os.rename(there, target, src_dir_fd=source, dst_dir_fd=failed)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(beside, dir_fd=failed)
            if isinstance(error, FileNotFoundError):
                raise Gone from None
            raise
        files.narrow(failed, target, layout.file_mode)


def _free_name(failed: int, name: str, inode: int) -> str:
    if len(os.fsencode(name)) > 200:  # room for .reason and a number
        name = f"{os.fsdecode(os.fsencode(name)[:150])}~{inode}.json"
    free = name
    number = 2
    while files.is_there(failed, free) or files.is_there(failed, f"{free}.reason"):
        free = f"{name}.{number}"
        number += 1
    return free
