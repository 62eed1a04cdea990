"""Who has which command: taking files out of pending/, and finding what dead workers left.
Must not run a command and must not write a result.

Two locks make sure that a command never runs twice. The flock on running/ itself is held for
moments, while files move. The flock on a file in running/ is held by its worker as long as the
command runs; the kernel drops it when the worker dies, however it dies.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

from reconciler.executor import files
from reconciler.executor.commandfile import MAX_FILE, Command, Refused, parse
from reconciler.executor.layout import BadId, Layout, check_id
from reconciler.executor.text import shown, stamp


class Busy(OSError):
    """Another worker is moving files right now; try again."""


class Gone(Exception):
    """The file is not in pending/ any more: somebody else was faster."""


class Claim:
    """A file in running/ that this process has locked."""

    def __init__(self, layout: Layout, command_id: str, fd: int) -> None:
        self.id = command_id
        self.fd = fd
        self._layout = layout

    def read(self) -> bytes:
        return files.read_at_most(self.fd, MAX_FILE)

    def finish(self) -> None:
        """The result is written: take the file away, then the lock."""
        try:
            for path in (self._layout.process_file(self.id), self._layout.running_file(self.id)):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
        finally:
            self.leave()

    def leave(self) -> None:
        """Give up the lock only; the next recovery takes care of the file."""
        os.close(self.fd)


@contextlib.contextmanager
def moving(layout: Layout) -> Iterator[None]:
    """The only one who moves command files, for the length of the block. Raises Busy."""
    fd = os.open(layout.running, os.O_RDONLY | os.O_DIRECTORY)
    try:
        end = time.monotonic() + 0.5
        while not files.try_lock(fd):
            if time.monotonic() > end:
                raise Busy("another worker holds the lock on running/")
            time.sleep(0.002)
        yield
    finally:
        os.close(fd)


def take(layout: Layout, name: str, command: Command) -> tuple[Claim, Command]:
    """Move pending/`name`, which was read as `command`, to running/ and lock it.

    Returns what the file said when it was ours. Raises Gone, Busy, OSError, and Refused: then the
    file is in failed/ already.
    """
    source = os.path.join(layout.pending, name)
    target = layout.running_file(command.id)
    with moving(layout):
        # In this order: a worker that finishes writes its result before it leaves running/.
        if os.path.lexists(target):
            reason = f"a command with the id {command.id} is running"
        elif os.path.lexists(layout.result_file(command.id)):
            reason = f"a result of this id exists: {layout.result_file(command.id)}"
        else:
            reason = ""
        if reason:
            _to_failed(layout, source, name, reason)
            raise Refused(reason)
        try:
            os.rename(source, target)
        except FileNotFoundError:
            os.stat(layout.pending)  # tells a missing directory from a missing file
            os.stat(layout.running)
            raise Gone from None
        fd = -1
        try:
            fd = files.open_regular(target)
            if not files.try_lock(fd):
                raise Refused("somebody else holds a lock on the file")
            current = parse(files.read_at_most(fd, MAX_FILE), name.removesuffix(".json"))
            if current.id != command.id:
                raise Refused("the file's id changed while the file was taken")
        except (Refused, OSError) as error:
            if fd >= 0:
                os.close(fd)
            _to_failed(layout, target, name, str(error))
            raise Refused(str(error)) from None
    with contextlib.suppress(OSError):  # without it, a power cut could put it back into pending/
        files.sync_directory(layout.running)
    return Claim(layout, current.id, fd), current


def refuse(layout: Layout, name: str, reason: str) -> None:
    """Move pending/`name` to failed/, the reason beside it. Raises Gone, Busy and OSError."""
    with moving(layout):
        _to_failed(layout, os.path.join(layout.pending, name), name, reason)


def adopt(layout: Layout, name: str) -> Claim | None:
    """Running/`name`, if its worker is dead. None if it is alive or done."""
    path = os.path.join(layout.running, name)
    with moving(layout):
        try:
            fd = files.open_regular(path)
        except FileNotFoundError:
            return None
        if not files.try_lock(fd) or not files.same_file(fd, path):
            os.close(fd)
            return None
        try:
            return Claim(layout, check_id(name.removesuffix(".json")), fd)
        except BadId as error:
            os.close(fd)
            _to_failed(layout, path, name, f"no worker put this into running/: {error}")
            return None


def _to_failed(layout: Layout, source: str, name: str, reason: str) -> None:
    """Under the lock of `moving`, so the name that is free now is free at the rename."""
    try:
        info = os.lstat(source)
    except FileNotFoundError:
        raise Gone from None
    target = _free_name(layout, name, info.st_ino)
    note = f"{shown(reason)}\nrefused at {stamp()}; the file was {shown(name)}\n"
    beside = f"{target}.reason"
    temp = os.path.join(layout.failed, f".{os.path.basename(target)}.tmp")
    files.write_whole(beside, note.encode("utf-8", "backslashreplace"), temp)
    try:
        os.rename(source, target)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        if isinstance(error, FileNotFoundError) and not os.path.lexists(source):
            raise Gone from None
        raise


def _free_name(layout: Layout, name: str, inode: int) -> str:
    if len(os.fsencode(name)) > 200:  # room for .reason, .tmp and a number
        name = f"{os.fsdecode(os.fsencode(name)[:150])}~{inode}.json"
    path = os.path.join(layout.failed, name)
    number = 2
    while os.path.lexists(path) or os.path.lexists(f"{path}.reason"):
        path = os.path.join(layout.failed, f"{name}.{number}")
        number += 1
    return path
