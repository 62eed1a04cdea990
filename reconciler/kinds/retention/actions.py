"""What a retention does about files that are due, and what is still due after that.

It must not decide what is due: that is the retention kind's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from reconciler.base.records import replace
from reconciler.core.model import Action, Change
from reconciler.host.found import TAKEN, File, Packed
from reconciler.kinds.retention.due import Due, counted
from reconciler.kinds.retention.resource import Retention
from reconciler.kinds.retention.rotation import (
    FinishRotation,
    RotateLogs,
    rotation,
)

if TYPE_CHECKING:
    from reconciler.host import Host
    from reconciler.host.openfiles import OpenFiles


def _spared() -> list[File]:
    return []


@dataclass(frozen=True, slots=True)
class _OnFiles:
    """Something done to files below ``path``, each of which must still be what it was.

    ``spared`` tells afterwards which were left alone; it is no part of what the action is, and
    neither is ``ended``.
    """

    takes: ClassVar[str] = "move"
    path: str
    files: Packed
    skip_open: bool
    spared: list[File] = field(default_factory=_spared, compare=False, repr=False, kw_only=True)
    ended: list[bool] = field(default_factory=list, compare=False, repr=False, kw_only=True)
    """Not empty once it has come to its end."""

    def run(self, host: Host) -> None:
        """Where there is no such folder any more, its files are left alone."""
        from reconciler.host.openfiles import OpenFiles

        if host.files.status(self.path) is None:
            self.spared[:] = self.files
            return
        asked = host.open_files if self.skip_open else OpenFiles(host.clock, asked=False)
        self.spared[:] = self.act(asked)
        self.ended.append(True)

    def act(self, open_files: OpenFiles) -> Sequence[File]:
        """Do it; those that were left alone."""
        raise NotImplementedError

    def taken(self) -> Iterator[str]:
        """The paths that are gone behind it: see Action."""
        return (f"{self.path}/{file.path}" for file in self.files)

    def what(self) -> str:
        """The files, for people."""
        if len(self.files) == 1:
            return f"{self.path}/{next(iter(self.files)).path}"
        return f"{counted(len(self.files), 'file')} from {self.path}"


@dataclass(frozen=True, slots=True)
class DeleteFiles(_OnFiles):
    """Delete them."""

    takes: ClassVar[str] = "delete"

    def describe(self) -> str:
        return f"delete {self.what()}"

    def act(self, open_files: OpenFiles) -> Sequence[File]:
        from reconciler.host.remove import delete

        return delete(self.path, self.files, open_files)


@dataclass(frozen=True, slots=True)
class MoveFiles(_OnFiles):
    """Move them below another directory; ``called``: see ``remove.move``."""

    to: str
    called: tuple[tuple[str, str], ...] = ()

    def describe(self) -> str:
        return f"move {self.what()} to {self.to}"

    def act(self, open_files: OpenFiles) -> Sequence[File]:
        from reconciler.host.remove import move

        return move(self.path, self.files, self.to, open_files, dict(self.called))


@dataclass(frozen=True, slots=True)
class ArchiveFiles(_OnFiles):
    """Add them to an archive, and then delete them."""

    goal: str
    grown: list[int] = field(default_factory=list, compare=False, repr=False, kw_only=True)
    """By how many bytes, afterwards."""

    def describe(self) -> str:
        return f"add {self.what()} to {self.goal}, then delete"

    def act(self, open_files: OpenFiles) -> Sequence[File]:
        from reconciler.host.archive import archive, size

        before = size(self.goal)
        spared = archive(self.path, self.files, self.goal, open_files)
        self.grown.append(size(self.goal) - before)
        return spared


@dataclass(frozen=True, slots=True)
class RemoveFolders:
    """Remove folders that are ``empty``, and those that are so without these ``files``."""

    takes: ClassVar[str] = "delete"
    path: str
    empty: tuple[str, ...]
    files: Packed

    def taken(self) -> Iterator[str]:
        """As for files."""
        return (f"{self.path}/{one}" for one in self.empty)

    def describe(self) -> str:
        if not self.files:
            return f"remove {counted(len(self.empty), 'empty folder')} below {self.path}"
        return f"remove the folders below {self.path} that are empty then"

    def run(self, host: Host) -> None:
        from reconciler.host.tree import remove_empty

        if host.files.status(self.path) is not None:
            remove_empty(self.path, {*self.empty, *(file.below for file in self.files)})


def left(planned: Sequence[Action], have: Due) -> tuple[Change, ...]:
    """Of what is due now, that which was planned and not left alone for a good reason."""
    if not have:
        return ()
    files, logs = set(), set()
    for action in planned:
        if isinstance(action, RotateLogs):
            # One that goes on as the same file may have grown beyond its limit again meanwhile.
            failed = {file[3:5] for file in set(action.files) - set(action.settled)}
            files |= {file for file in have.files if file[3:5] in failed}
        elif isinstance(action, _OnFiles):
            files |= set(action.files) - set(action.spared)
        elif isinstance(action, FinishRotation):
            logs |= set(action.marked)
            logs |= set(action.rotated) - set(action.spared)
    return replace(
        have,
        files=Packed([file for file in have.files if file in files]),
        unfinished=tuple(log for log in have.unfinished if log in logs),
        uncompressed=tuple(log for log in have.uncompressed if log in logs),
        empty=(),
    ).changes()


def spared(actions: Sequence[Action]) -> tuple[str | None, bool]:
    """What was left alone, for people, and whether that was all."""
    of = alone = 0
    for action in actions:
        if isinstance(action, _OnFiles):
            of += len(action.files)
            alone += len(action.spared)
        elif not isinstance(action, RemoveFolders) or action.empty:
            return None, False
    if not alone:
        return None, False
    which = counted(of, "file") if alone == of else f"{alone:,} of {counted(of, 'file')}"
    words = f"{which} left alone, changed, open or gone since the plan"
    return words, alone == of


def rest(want: Retention, actions: Sequence[Action]) -> Retention | None:
    """What may still be done in the same pass, if only told; None: a log is rotated once."""
    if want.rotates or want.max_files_per_pass is None:
        return None if want.rotates else want
    left = want.most - sum(len(one.files) for one in actions if isinstance(one, _OnFiles))
    return replace(want, max_files_per_pass=max(0, left))


def freed(actions: Sequence[Action]) -> int:
    """The bytes of the files that are gone, without what their archive has grown by."""
    found = 0
    for action in actions:
        if isinstance(action, (DeleteFiles, ArchiveFiles)) and action.ended:
            found += sum(action.files.column(TAKEN))
            found -= sum(file.taken for file in action.spared)
        if isinstance(action, ArchiveFiles):
            found -= sum(action.grown)
    return max(0, found)


def actions(want: Retention, have: Due) -> Sequence[Action]:
    """What is done about all that is due."""
    if want.rotates:
        return rotation(want, have)
    found: list[Action] = []
    skip_open = want.skip_open is not False
    if not have.files:
        pass
    elif want.action == "move":
        found.append(MoveFiles(want.path, have.files, skip_open, want.to or "", have.called))
    elif want.action == "archive":
        goal = have.goal or want.to or ""
        found.append(ArchiveFiles(want.path, have.files, skip_open, goal))
    else:
        found.append(DeleteFiles(want.path, have.files, skip_open))
    if want.remove_empty:
        found.append(RemoveFolders(want.path, have.empty, have.files))
    return found
