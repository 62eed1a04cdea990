"""What a retention does about logs that are due: number them, tell their writers, compress.

It must not decide what is due: that is the retention kind's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from reconciler.base.errors import HostError
from reconciler.core.model import Action, Resource
from reconciler.core.run_command import RunCommand
from reconciler.host.found import File
from reconciler.kinds.process import KIND as PROCESSES
from reconciler.kinds.process.resource import Process
from reconciler.kinds.retention.due import Due, Log, counted
from reconciler.kinds.retention.resource import Retention

if TYPE_CHECKING:
    from reconciler.host import Host


@dataclass(frozen=True, slots=True)
class RotateLogs:
    """Number the logs; ``mark``: the writer is yet to be signalled."""

    path: str
    files: Sequence[File]
    unfinished: tuple[Log, ...]
    keep: int
    copy: bool
    mark: bool
    largest: int | None = None
    settled: list[File] = field(default_factory=list, compare=False, repr=False)
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
        from reconciler.host.compress import finish

        try:
            logs = dict.fromkeys((*self.rotated, *self.also))
            still = finish(self.path, self.marked, tuple(logs), self.compress, host.open_files)
        except HostError as error:
            raise HostError("; ".join((*self.failed, str(error)))) from None
        self.spared[:] = still
        if self.failed:
            raise HostError("; ".join(self.failed))


def rotation(want: Retention, have: Due) -> list[Action]:
    """Rotate, tell the writer, then compress: in this order a kill leaves the rest to be seen."""
    found: list[Action] = []
    failed: list[str] = []
    tells = want.signal is not None or want.run is not None
    logs: tuple[Log, ...] = tuple((file.below, file.name) for file in have.files)
    unfinished = have.unfinished
    if have.files or unfinished:
        if want.signal is not None and want.told is not None:
            found.append(TellProcess(f"process:{want.signal[1]}", want.told, want.signal[0]))
        elif want.run is not None:
            found.append(RunCommand(want.run, "the logs are rotated"))
    marked = (*unfinished, *(logs if tells else ()))
    fresh = tuple((below, f"{name}.1") for below, name in logs)
    # What has a number already gets the next one when its log is rotated, unless there is a gap.
    rotated = tuple(_moved(log) if _moves(log, logs) else log for log in have.uncompressed)
    last = None
    if marked or want.compresses:
        names = tuple(dict.fromkeys((*fresh, *rotated)))
        also = tuple(log for log in have.uncompressed if _moves(log, logs))
        last = FinishRotation(want.path, marked, names, want.compresses, also, failed=failed)
    if have.files or (unfinished and want.copies):
        found.insert(
            0,
            RotateLogs(
                want.path, have.files, unfinished, want.kept, want.copies, tells, want.max_file,
                failed=None if last is None else failed,
            ),
        )  # fmt: skip
    return found if last is None else [*found, last]


def _moves(log: Log, logs: Sequence[Log]) -> bool:
    return (log[0], log[1].rpartition(".")[0]) in logs


def _moved(log: Log) -> Log:
    name, _, number = log[1].rpartition(".")
    return log[0], f"{name}.{int(number) + 1}"
