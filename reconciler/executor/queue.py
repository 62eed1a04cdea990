"""The queue: whose turn it is, who has taken which command, and what dead workers have left.
Must not run a command and must not write a result.

Two locks make sure that a command never runs twice. The one beside the folders is held for
moments, while files move. The one beside a file in running/ is held by its worker as long as the
command runs; the kernel drops it when the worker dies, however it dies. Each is a file that only
the worker's user may open: a flock on anything that others may open would be theirs to hold.
"""

from __future__ import annotations

import contextlib
import math
import os
import stat
import time
from collections.abc import Iterator

from reconciler.base.text import escapes
from reconciler.executor import files
from reconciler.executor.commandfile import MAX_FILE, Command, CommandRefused, Unfinished, parse
from reconciler.executor.eventlog import EventLog
from reconciler.executor.home import BadId, Layout, UntrustedFolder, check_id, held, is_command_name
from reconciler.executor.text import stamp
from reconciler.host import trust
from reconciler.host.place import sync_folder
from reconciler.host.reading import content
from reconciler.host.walk import closing

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
    with closing(fd):
        end = time.monotonic() + 0.5
        while not files.try_lock(fd):
            if time.monotonic() > end:
                path = os.path.join(layout.base, _LOCK)
                raise QueueBusy(
                    f"another process holds the lock {path}; find it with: fuser -v {path}"
                )
            time.sleep(0.002)
        yield


def read_command(folder: int, name: str) -> tuple[os.stat_result, bytes]:
    """A command file's status and content, one byte more than it may have at most.

    Raises Refused if somebody else could have written it, and OSError.
    """
    with closing(files.open_regular(name, folder)) as fd:
        _refuse_foreign(fd)
        return os.fstat(fd), content(fd, MAX_FILE + 1)


def _refuse_foreign(fd: int) -> None:
    info = os.fstat(fd)
    if os.geteuid() != 0:
        if info.st_mode & stat.S_IWOTH:
            raise CommandRefused("everybody may write to the file; take that away: chmod o-w")
    elif not trust.only_ours(info, fd):
        raise CommandRefused(
            f"user {info.st_uid} owns the file or somebody else may write to it, and root runs "
            "only what root has written; to run it all the same, copy it to pending/ as root"
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
    with closing(fd):
        return files.try_lock(fd)


def _to_failed(layout: Layout, source: int, there: str, name: str, reason: str) -> None:
    """Move what is called `there` in a folder. Under the lock of `moving`, so the name that is
    free now is free at the rename."""
    try:
        info = os.stat(there, dir_fd=source, follow_symlinks=False)
    except FileNotFoundError:
        raise Gone from None
    with held(layout.failed, make=True) as failed:
        target = _free_name(failed, name, info.st_ino)
        note = f"{escapes(reason)}\nrefused at {stamp()}; the file was {escapes(name)}\n"
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


SETTLE = 1.0  # seconds without a change, after which a broken file is not being written any more
SETTLE_MOST = 30.0  # seconds that a file may keep changing without becoming a command
AGAIN = 2.0  # seconds until a file that could not be moved is tried again


class _Unsettled:
    """A file that is no command yet: what it looked like, since when, and the first look at it."""

    __slots__ = ("first", "looks", "since")

    def __init__(self, looks: tuple[int, ...], now: float) -> None:
        self.looks = looks
        self.since = now
        self.first = now


class Pending:
    """Hands out the commands in pending/, oldest first."""

    def __init__(self, layout: Layout, log: EventLog) -> None:
        self._layout = layout
        self._log = log
        self._queue: list[str] = []  # the next one last
        self._unsettled: dict[str, _Unsettled] = {}
        self._wake: dict[str, float] = {}  # names that are left alone until then
        self.dirty = True

    def take_next(self) -> tuple[QueueClaim, Command] | None:
        """The next command, claimed; None if there is none now. Raises OSError."""
        if self.dirty:
            self._scan()
        while self._queue:
            name = self._queue.pop()
            if self._wake.get(name, 0.0) > time.monotonic():
                continue
            try:
                taken = self._try(name)
            except Gone:
                self._forget(name)
                continue
            except (QueueBusy, UntrustedFolder):
                self._queue.append(name)
                raise
            except OSError as error:
                self._wake[name] = time.monotonic() + AGAIN
                self._log.error_once(f"pending/{name}", f"pending/{name} stays there: {error}")
                continue
            if taken is not None:
                return taken
        return None

    def wake_in(self) -> float:
        """Seconds until a file that waits has to be looked at again; infinite if none waits."""
        return max(0.0, min(self._wake.values(), default=math.inf) - time.monotonic())

    def look_again(self, happened: bool) -> None:
        """Have the directory read again if something happened in it or a file's time has come."""
        now = time.monotonic()
        if happened:
            self._wake.update((name, now) for name in self._unsettled)
        if happened or any(at <= now for at in self._wake.values()):
            self.dirty = True

    def _scan(self) -> None:
        found = []
        with held(self._layout.pending, readable=True) as pending, os.scandir(pending) as entries:
            for entry in entries:
                if is_command_name(entry.name):
                    try:
                        at = entry.stat(follow_symlinks=False).st_mtime_ns
                    except FileNotFoundError:
                        continue
                    found.append((at, entry.name))
        self.dirty = False
        found.sort(reverse=True)
        self._queue = [name for _, name in found]
        present = set(self._queue)
        for name in [name for name in self._wake if name not in present]:
            self._forget(name)
        for name in [name for name in self._unsettled if name not in present]:
            self._forget(name)

    def _forget(self, name: str) -> None:
        self._wake.pop(name, None)
        self._unsettled.pop(name, None)

    def _try(self, name: str) -> tuple[QueueClaim, Command] | None:
        try:
            command = self._read(name)
        except CommandRefused as error:
            refuse(self._layout, name, str(error))
            self._refused(name, error)
            return None
        if command is None:
            return None
        try:
            taken = take(self._layout, name, command)
        except CommandRefused as error:
            # What has that name by now is another one.
            self._refused(name, error)
            return None
        self._forget(name)
        return taken

    def _refused(self, name: str, why: CommandRefused) -> None:
        self._forget(name)
        self._log.error(f"refused {name}: {why}")

    def _read(self, name: str) -> Command | None:
        """The command; None if the file may still be being written. Raises Refused, Gone."""
        with held(self._layout.pending) as pending:
            return self._read_in(pending, name)

    def _read_in(self, pending: int, name: str) -> Command | None:
        try:
            info, data = read_command(pending, name)
            return parse(data, name.removesuffix(".json"))
        except FileNotFoundError:
            raise Gone from None
        except files.NotRegular as error:
            raise CommandRefused(str(error)) from None
        except Unfinished as error:
            if self._settled(name, info):
                raise CommandRefused(str(error)) from None
        except PermissionError as error:  # whoever writes it may be about to give it away
            info = os.stat(name, dir_fd=pending, follow_symlinks=False)
            if self._settled(name, info):
                raise CommandRefused(f"it cannot be read: {error.strerror}") from None
        return None

    def _settled(self, name: str, info: os.stat_result) -> bool:
        """Whether the file has been the same for long enough, or has changed for too long."""
        now = time.monotonic()
        looks = (info.st_ino, info.st_size, info.st_mtime_ns)
        # The file's own time saves the wait for old files; one from the future is not believed.
        if time.time() - looks[2] / 1e9 > SETTLE:
            return True
        known = self._unsettled.setdefault(name, _Unsettled(looks, now))
        if known.looks != looks:
            known.looks, known.since = looks, now
        if now - known.since >= SETTLE or now - known.first >= SETTLE_MOST:
            return True
        self._wake[name] = min(known.since + SETTLE, known.first + SETTLE_MOST)
        return False
