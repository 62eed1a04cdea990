"""What a retention does about logs that are due: number them, tell their writers, compress.

It must not decide what is due: that is the retention kind's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from reconciler.base.errors import HostError
from reconciler.core.model import Action, Resource
from reconciler.core.run_command import RunCommand, filled_in
from reconciler.host.found import File
from reconciler.kinds.process import KIND as PROCESSES
from reconciler.kinds.process.resource import Process
from reconciler.kinds.retention.due import Due, Log, counted
from reconciler.kinds.retention.resource import Retention

if TYPE_CHECKING:
    from reconciler.host import Host


@dataclass(frozen=True, slots=True)
class RotateLogs:
    """Give the logs the names of rotated ones."""

    takes: ClassVar[str] = "move"
    want: Retention
    files: Sequence[File]
    unfinished: tuple[Log, ...]
    settled: list[File] = field(default_factory=list, compare=False, repr=False)
    """Those that are rotated, or gone, afterwards; how long one is by then says nothing."""
    failed: list[str] | None = field(default=None, compare=False, repr=False)
    """Where what went wrong is put, for the action that is the last one to tell it."""

    def taken(self) -> Iterator[str]:
        """What has another name behind it, and is gone one day."""
        return (f"{self.want.path}/{file.path}" for file in self.files)

    def describe(self) -> str:
        want = self.want
        if not self.files:
            return f"finish the rotation of {counted(len(self.unfinished), 'log')} in {want.path}"
        if len(self.files) == 1:
            what = f"{want.path}/{self.files[0].path}"
        else:
            what = f"{counted(len(self.files), 'log')} in {want.path}"
        words = ["copy and cut" if want.copies else "rename", f"keep {want.names.keep}"]
        if want.name is not None:
            words.insert(1, f"to {want.name}")
        if want.created is not None:
            words.append(
                f"make a new one{''.join(f', {one}' for one in [want.created.describe()] if one)}"
            )
        return f"rotate {what} ({', '.join(words)})"

    def run(self, host: Host) -> None:
        from reconciler.host.rotate import RotationWay, rotate

        want = self.want
        create = None if want.created is None else want.created.numbers(host)
        way = RotationWay(
            want.names, want.copies, want.marks, want.max_file, create, want.every is not None
        )
        self.settled[:], trouble = rotate(want.path, self.files, self.unfinished, way, host.clock)
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
        return f"send {self.signal} to {self.id}"

    def run(self, host: Host) -> None:
        found = PROCESSES.found(Resource(self.id, self.process), host)
        try:
            host.processes.tell([identity for identity, _ in found], self.signal)
        except HostError as error:
            raise HostError(f"the logs are rotated, but {self.id} was not told: {error}") from None


_AS_ANOTHER = ("runuser", "setpriv", "su", "sudo")
"""Programs that become another user before they run a command."""


@dataclass(frozen=True, slots=True)
class RunForEach:
    """Run a command for each rotated log, with its new path for every ``{}``."""

    want: Retention
    logs: tuple[Log, ...]
    settled: Sequence[File] = field(default=(), compare=False, repr=False)
    """Those that were rotated right before."""

    def describe(self) -> str:
        from reconciler.host.remedy import in_words

        command = in_words(self.want.run or ())
        return f"run {command} for {counted(len(self.logs), 'rotated log')}"

    def run(self, host: Host) -> None:
        """Raises HostError after the last one when some failed."""
        from reconciler.host.rotated import rotated_logs

        settled = {(file.below, file.name) for file in self.settled}
        failed = []
        for path in rotated_logs(self.want.path, self.logs, self.want.names, settled):
            try:
                self._refuse_exchangeable(path)
                RunCommand(filled_in(self.want.run or (), path), "the log is rotated").run(host)
            except HostError as error:
                failed.append(str(error))
        if failed:
            more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
            raise HostError(failed[0] + more)

    def _refuse_exchangeable(self, path: str) -> None:
        """Raises HostError where root's command could be given something else by that name."""
        from reconciler.host.trust import is_trusted_way

        program = (self.want.run or ("",))[0].rpartition("/")[2]
        folder = path.rpartition("/")[0]
        if (
            os.geteuid() == 0
            and program not in _AS_ANOTHER
            and not is_trusted_way(folder, services=True)
        ):
            raise HostError(
                f"the log is rotated, but root runs no command with a name in {folder}, where "
                "somebody else may exchange it; write run: [runuser, -u, USER, --, COMMAND, '{}']"
            )


@dataclass(frozen=True, slots=True)
class FinishRotation:
    """Take the marks of ``marked`` logs away, and compress what is ``rotated`` and not open.

    ``fresh`` are the logs that were rotated right before, of which the newest rotated is meant.
    """

    want: Retention
    marked: tuple[Log, ...]
    rotated: tuple[Log, ...]
    fresh: tuple[Log, ...] = ()
    also: tuple[Log, ...] = ()
    """Names under which some of the rotated may still be, where a number was free."""
    spared: list[Log] = field(default_factory=list, compare=False, repr=False)
    failed: Sequence[str] = field(default=(), compare=False, repr=False)
    """What went wrong before, and is told at last."""

    def describe(self) -> str:
        logs = self.rotated
        if self.want.name is None:
            logs += tuple((below, f"{name}.1") for below, name in self.fresh)
        number = len(self.rotated) + len(self.fresh)
        if number == 0:
            return f"finish the rotation in {self.want.path}"
        if number == len(logs) == 1:
            return "compress " + "/".join(part for part in (self.want.path, *logs[0]) if part)
        return f"compress {counted(number, 'rotated log')} in {self.want.path}"

    def run(self, host: Host) -> None:
        from reconciler.host.compress import finish

        try:
            logs = dict.fromkeys((*self.rotated, *self.also))
            want = self.want
            still = finish(
                want.path, self.marked, tuple(logs), self.fresh, want.names, host.open_files
            )
        except HostError as error:
            raise HostError("; ".join((*self.failed, str(error)))) from None
        self.spared[:] = still
        if self.failed:
            raise HostError("; ".join(self.failed))


def rotation(want: Retention, have: Due) -> list[Action]:
    """Rotate, tell the writer, then compress: in this order a kill leaves the rest to be seen."""
    found: list[Action] = []
    failed: list[str] = []
    logs: tuple[Log, ...] = tuple((file.below, file.name) for file in have.files)
    unfinished = have.unfinished
    last = None
    fresh = logs if want.compresses and not want.delay_compress else ()
    # What has a number already gets the next one when its log is rotated, unless there is a gap.
    moving = () if want.name else tuple(log for log in have.uncompressed if _moves(log, logs))
    rotated = tuple(_moved(log) if log in moving else log for log in have.uncompressed)
    marked = (*unfinished, *(logs if want.marks else ()))
    if marked or fresh or rotated:
        also = tuple(log for log in moving if fresh or not log[1].endswith(".1"))
        last = FinishRotation(want, marked, rotated, fresh, also, failed=failed)
    rotate = RotateLogs(want, have.files, unfinished, failed=None if last is None else failed)
    if have.files or (unfinished and (want.copies or want.create is not None)):
        found.append(rotate)
    if have.files or unfinished:
        if want.signal is not None and want.told is not None:
            found.append(TellProcess(f"process:{want.signal[1]}", want.told, want.signal[0]))
        elif want.run is not None and any("{}" in word for word in want.run):
            found.append(RunForEach(want, marked, rotate.settled))
        elif want.run is not None:
            found.append(RunCommand(want.run, "the logs are rotated"))
    return found if last is None else [*found, last]


def _moves(log: Log, logs: Sequence[Log]) -> bool:
    return (log[0], log[1].rpartition(".")[0]) in logs


def _moved(log: Log) -> Log:
    name, _, number = log[1].rpartition(".")
    return log[0], f"{name}.{int(number) + 1}"
