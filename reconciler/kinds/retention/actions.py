"""What a retention does about files that are due: its actions.

It must not decide what is due: that is the retention kind's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from reconciler.base.errors import HostError
from reconciler.core.model import Resource
from reconciler.host.found import File
from reconciler.kinds.process import KIND as PROCESSES
from reconciler.kinds.process.resource import Process
from reconciler.kinds.retention.due import Log, counted

if TYPE_CHECKING:
    from reconciler.host import Host
    from reconciler.host.openfiles import OpenFiles

_RUN_TIMEOUT = 60.0


def _spared() -> list[File]:
    return []


def _open_files(host: Host, asked: bool) -> OpenFiles:
    from reconciler.host.openfiles import OpenFiles

    return host.open_files if asked else OpenFiles(host.clock, asked=False)


@dataclass(frozen=True, slots=True)
class _OnFiles:
    """Something done to files below ``path``, each of which must still be what it was.

    ``spared`` tells afterwards which were left alone; it is no part of what the action is, and
    neither is ``ended``.
    """

    path: str
    files: Sequence[File]
    skip_open: bool
    spared: list[File] = field(default_factory=_spared, compare=False, repr=False, kw_only=True)
    ended: list[bool] = field(default_factory=list, compare=False, repr=False, kw_only=True)
    """Not empty once it has come to its end."""

    def what(self) -> str:
        """The files, for people."""
        if len(self.files) == 1:
            return f"{self.path}/{self.files[0].path}"
        return f"{counted(len(self.files), 'file')} from {self.path}"


@dataclass(frozen=True, slots=True)
class DeleteFiles(_OnFiles):
    """Delete them."""

    def describe(self) -> str:
        """The action in words."""
        return f"delete {self.what()}"

    def run(self, host: Host) -> None:
        """Raises HostError."""
        from reconciler.host.remove import delete

        files = _open_files(host, self.skip_open)
        self.spared[:] = delete(self.path, self.files, files)
        self.ended.append(True)


@dataclass(frozen=True, slots=True)
class MoveFiles(_OnFiles):
    """Move them below another directory."""

    to: str

    def describe(self) -> str:
        """The action in words."""
        return f"move {self.what()} to {self.to}"

    def run(self, host: Host) -> None:
        """Raises HostError."""
        from reconciler.host.remove import move

        files = _open_files(host, self.skip_open)
        self.spared[:] = move(self.path, self.files, self.to, files)


@dataclass(frozen=True, slots=True)
class ArchiveFiles(_OnFiles):
    """Add them to an archive, and then delete them."""

    goal: str
    grown: list[int] = field(default_factory=list, compare=False, repr=False, kw_only=True)
    """By how many bytes, afterwards."""

    def describe(self) -> str:
        """The action in words."""
        return f"add {self.what()} to {self.goal}, then delete"

    def run(self, host: Host) -> None:
        """Raises HostError."""
        from reconciler.host.archive import archive, size

        files = _open_files(host, self.skip_open)
        before = size(self.goal)
        self.spared[:] = archive(self.path, self.files, self.goal, files)
        self.grown.append(size(self.goal) - before)
        self.ended.append(True)


@dataclass(frozen=True, slots=True)
class RotateLogs:
    """Number the logs anew; ``mark`` that the writer is still to be told."""

    path: str
    files: Sequence[File]
    unfinished: tuple[Log, ...]
    keep: int
    copy: bool
    mark: bool
    largest: int | None = None
    settled: list[File] = field(default_factory=_spared, compare=False, repr=False)
    """Those that are rotated, or gone, afterwards; how long one is by then says nothing."""
    failed: list[str] | None = field(default=None, compare=False, repr=False)
    """Where what went wrong is put, for the action that is the last one to tell it."""

    def describe(self) -> str:
        """The action in words."""
        how = "copy and cut" if self.copy else "rename"
        if not self.files:
            return f"finish the rotation of {counted(len(self.unfinished), 'log')} in {self.path}"
        if len(self.files) == 1:
            what = f"{self.path}/{self.files[0].path}"
        else:
            what = f"{counted(len(self.files), 'log')} in {self.path}"
        return f"rotate {what} ({how}, keep {self.keep})"

    def run(self, host: Host) -> None:
        """Raises HostError."""
        from reconciler.host.rotate import rotate

        self.settled[:], trouble = rotate(
            self.path,
            self.files,
            self.unfinished,
            self.keep,
            self.copy,
            self.mark,
            self.largest,
            host.clock,
        )
        if not trouble:
            return
        number = f"{len(trouble)} of {counted(len(self.files), 'log')}"
        words = f"cannot rotate {number}: {trouble[0]}"
        # The writers of those that were renamed are to be told whatever became of the others.
        if self.failed is None or (len(trouble) == len(self.files) and not self.unfinished):
            raise HostError(words)
        self.failed.append(words)


@dataclass(frozen=True, slots=True)
class TellProcess:
    """Signal the running processes of a resource. None that runs is none to be told."""

    id: str
    process: Process
    signal: str

    def describe(self) -> str:
        """The action in words."""
        return f"send {self.signal} to {self.id}"

    def run(self, host: Host) -> None:
        """Raises HostError."""
        found = PROCESSES.found(Resource(self.id, self.process), host)
        try:
            host.processes.tell([identity for identity, _ in found], self.signal)
        except HostError as error:
            raise HostError(f"the logs are rotated, but {self.id} was not told: {error}") from None


@dataclass(frozen=True, slots=True)
class RunCommand:
    """Run a command after a rotation, with the environment of managed processes."""

    argv: tuple[str, ...]

    def describe(self) -> str:
        """The action in words."""
        from reconciler.host.remedy import in_words

        return f"run {in_words(self.argv)}"

    def run(self, host: Host) -> None:
        """Raises HostError when it cannot be run, fails, or takes longer than a minute."""
        from reconciler.host.launch import environment
        from reconciler.host.start import Program, run

        account = host.users.account(None)
        program = Program(self.argv, environment(account, ()), account)
        try:
            done = run(program, timeout=_RUN_TIMEOUT)
            complaint = None if done.status == 0 else done.complaint
        except HostError as error:
            complaint = str(error)
        if complaint is not None:
            raise HostError(f"the logs are rotated, but {self.describe()} failed: {complaint}")


@dataclass(frozen=True, slots=True)
class FinishRotation:
    """Take the marks of ``marked`` logs away, and compress what is rotated and not open."""

    path: str
    marked: tuple[Log, ...]
    rotated: tuple[Log, ...]
    compress: bool
    also: tuple[Log, ...] = ()
    """Names under which some of the rotated may still be, where a number was free."""
    spared: list[Log] = field(default_factory=list, compare=False, repr=False)
    failed: Sequence[str] = field(default=(), compare=False, repr=False)
    """What went wrong before, and is told at last."""

    def describe(self) -> str:
        """The action in words."""
        if not self.compress:
            return f"finish the rotation in {self.path}"
        if len(self.rotated) == 1:
            return "compress " + "/".join(part for part in (self.path, *self.rotated[0]) if part)
        return f"compress {counted(len(self.rotated), 'rotated log')} in {self.path}"

    def run(self, host: Host) -> None:
        """Raises HostError."""
        from reconciler.host.rotate import finish

        try:
            logs = dict.fromkeys((*self.rotated, *self.also))
            still = finish(self.path, self.marked, tuple(logs), self.compress, host.open_files)
        except HostError as error:
            raise HostError("; ".join((*self.failed, str(error)))) from None
        self.spared[:] = still
        if self.failed:
            raise HostError("; ".join(self.failed))
