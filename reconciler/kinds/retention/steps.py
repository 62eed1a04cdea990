"""Which actions a retention takes about what is due, and what is still due after them. Pure.

It must not look at the host.
"""

from __future__ import annotations

from collections.abc import Sequence

from reconciler.base.records import replace
from reconciler.core.model import Action, Change
from reconciler.kinds.retention.actions import (
    ArchiveFiles,
    DeleteFiles,
    FinishRotation,
    MoveFiles,
    RotateLogs,
    RunCommand,
    TellProcess,
)
from reconciler.kinds.retention.due import Due, Log, counted
from reconciler.kinds.retention.resource import Retention


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
        elif isinstance(action, (DeleteFiles, MoveFiles, ArchiveFiles)):
            files |= set(action.files) - set(action.spared)
        elif isinstance(action, FinishRotation):
            logs |= set(action.marked)
            logs |= set(action.rotated) - set(action.spared) if action.compress else set()
    return replace(
        have,
        files=tuple(file for file in have.files if file in files),
        unfinished=tuple(log for log in have.unfinished if log in logs),
        uncompressed=tuple(log for log in have.uncompressed if log in logs),
    ).changes()


def spared(actions: Sequence[Action]) -> tuple[str | None, bool]:
    """What was left alone, for people, and whether that was all."""
    of = alone = 0
    for action in actions:
        if isinstance(action, (DeleteFiles, MoveFiles, ArchiveFiles)):
            of += len(action.files)
            alone += len(action.spared)
        elif isinstance(action, (RotateLogs, FinishRotation, TellProcess, RunCommand)):
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
    acts = (DeleteFiles, MoveFiles, ArchiveFiles)
    left = want.most - sum(len(one.files) for one in actions if isinstance(one, acts))
    return replace(want, max_files_per_pass=max(0, left))


def freed(actions: Sequence[Action]) -> int:
    """The bytes of the files that are gone, without what their archive has grown by."""
    found = 0
    for action in actions:
        if isinstance(action, (DeleteFiles, ArchiveFiles)) and action.ended:
            spared = set(action.spared)
            found += sum(file.taken for file in action.files if file not in spared)
        if isinstance(action, ArchiveFiles):
            found -= sum(action.grown)
    return max(0, found)


def actions(want: Retention, have: Due) -> Sequence[Action]:
    """What is done about all that is due."""
    skip_open = want.skip_open is not False
    if want.rotates:
        return _rotation(want, have)
    if want.action == "move":
        return (MoveFiles(want.path, have.files, skip_open, want.to or ""),)
    if want.action == "archive":
        return (ArchiveFiles(want.path, have.files, skip_open, have.goal or want.to or ""),)
    return (DeleteFiles(want.path, have.files, skip_open),)


def _rotation(want: Retention, have: Due) -> list[Action]:
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
            found.append(RunCommand(want.run))
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
