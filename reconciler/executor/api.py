"""Giving commands to an executor and asking for what became of them, for other programs.
Must not print, and must not run anything itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping

from reconciler.executor import files, results
from reconciler.executor.commandfile import CommandRefused, parse
from reconciler.executor.home import BadId, Layout, check_id, new_id, provide, reached, resolve_home

_LETS_GO = 5.0  # seconds


def create_bash_command(
    command: str,
    id: str | None = None,
    overwrite: bool = False,
    *,
    timeout: float | None = None,
    cwd: str | None = None,
    env: Mapping[str, str] | None = None,
    home: str | None = None,
) -> str:
    """Put a command into pending/ and return its id (a new one that sorts by time, unless given).

    `timeout` is in seconds (3600 unless given), `cwd` absolute or with ~ (the home unless given).
    `overwrite`: instead of an earlier command of that id, whose result is removed, unless it runs.
    Raises ValueError if the worker would refuse it, FileExistsError if the id is taken, OSError.
    """
    command_id = new_id() if id is None else check_id(id)
    asked: dict[str, object] = {"id": command_id, "command": command}
    optional = {"timeout": timeout, "cwd": cwd, "env": None if env is None else dict(env)}
    asked.update((key, value) for key, value in optional.items() if value is not None)
    try:
        data = json.dumps(asked, indent=2).encode() + b"\n"
        parse(data, command_id)
    except TypeError as error:
        raise ValueError(f"not a command: {error}") from None
    except CommandRefused as error:
        raise ValueError(str(error)) from None
    layout = Layout(resolve_home(home))
    provide(layout.directories())
    if overwrite:
        _forget(layout, command_id)
    _refuse_known(layout, command_id)
    _put(layout, command_id, data)
    return command_id


def _forget(layout: Layout, command_id: str) -> None:
    """Remove an earlier command of that id, which no worker runs. What runs stays."""
    end = time.monotonic() + _LETS_GO
    while os.path.lexists(layout.running_file(command_id)):
        # A worker that has written the result is about to let go of the command.
        if not os.path.lexists(layout.result_file(command_id)) or time.monotonic() >= end:
            return
        time.sleep(0.01)
    name = f"{command_id}.json"
    for folder in (layout.pending, layout.failed, layout.stale, layout.completed):
        with contextlib.suppress(FileNotFoundError), reached(folder) as handle:
            for each in (name, f"{name}.reason"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(each, dir_fd=handle)


def _refuse_known(layout: Layout, command_id: str) -> None:
    replaced = "replace it with overwrite=True (submit --overwrite)"
    ended = "overwrite=True (submit --overwrite) once it has ended"
    # Looked for in the order of its way, so that none is missed while it moves on; of those that
    # were seen the last one counts: a worker writes the result before it lets go.
    way = (
        (os.path.join(layout.failed, f"{command_id}.json"), "was refused before", replaced),
        (layout.pending_file(command_id), "is waiting already", replaced),
        (layout.running_file(command_id), "is running", ended),
        (layout.result_file(command_id), "has a result already", replaced),
    )
    for path, words, instead in reversed([one for one in way if os.path.lexists(one[0])]):
        raise FileExistsError(
            f"the command '{command_id}' {words}: {path}; use another id, or {instead}"
        )


def _put(layout: Layout, command_id: str, data: bytes) -> None:
    from reconciler.base.errors import HostError
    from reconciler.host import place

    path = layout.pending_file(command_id)
    with reached(layout.pending) as pending:
        mode, uid, gid = _rights(layout, os.fstat(pending))
        try:
            with place.draft(pending, os.path.basename(path)) as made:
                place.write_all(made.handle, data)
                # The clock's full resolution: files of one kernel tick would have no order.
                now = time.time_ns()
                os.utime(made.handle, ns=(now, now))
                made.settle(mode, uid, gid)
                made.publish()
        except FileExistsError:
            raise FileExistsError(
                f"the command '{command_id}' is waiting already: {path}"
            ) from None
        except HostError as error:
            raise OSError(str(error)) from None


def _rights(layout: Layout, pending: os.stat_result) -> tuple[int, int, int]:
    """Mode, owner and group with which the worker can read what is put into its folder."""
    if pending.st_uid == os.geteuid() or layout.file_mode & 0o004:
        return layout.file_mode, -1, -1
    if os.geteuid() == 0:
        return layout.file_mode, pending.st_uid, pending.st_gid
    if pending.st_gid in (os.getegid(), *os.getgroups()):
        return layout.file_mode | 0o040, -1, pending.st_gid
    raise PermissionError(
        f"the worker of {layout.home} could not read the command, as you are not in the group of "
        f"{layout.pending}; AI_CO_FILE_MODE=0644 opens it to everybody"
    )


def check_results(id: str, *, home: str | None = None) -> results.Result | None:
    """What has become of a command, as a dict with a `status`; None if no such id is known.

    `waiting`, `running`, `stale` (put aside, since no worker took it) and `refused` (with a
    `reason`) have no `exit_code`, nor has what was ended by a signal: so that
    `found.get("exit_code", 1)` says whether it went well. Raises BadId (a ValueError), and OSError
    or ValueError for a result that cannot be read.
    """
    found = results.read(Layout(resolve_home(home)), id)
    if found is not None and found.get("exit_code") is None:
        found.pop("exit_code", None)
    return found


def wait_results(
    id: str, timeout: float | None = None, *, home: str | None = None
) -> results.Result | None:
    """As `check_results`, once it will not change any more, or after `timeout` seconds."""
    end = None if timeout is None else time.monotonic() + timeout
    pause = 0.01
    while True:
        found = check_results(id, home=home)
        left = pause if end is None else end - time.monotonic()
        if found is None or results.is_final(found) or left <= 0:
            return found
        time.sleep(min(pause, left))
        pause = min(pause * 1.2, 0.2)


def find_log(id: str | None = None, *, home: str | None = None) -> str | None:
    """The path of a command's log; of the one written to last if no id is given."""
    layout = Layout(resolve_home(home))
    if id is not None:
        path = layout.log_file(check_id(id))
        return path if os.path.isfile(path) and not os.path.islink(path) else None
    newest: tuple[int, str] | None = None
    try:
        with os.scandir(layout.logs) as entries:
            for entry in entries:
                if entry.name.endswith(".log") and entry.is_file(follow_symlinks=False):
                    with contextlib.suppress(FileNotFoundError):
                        at = entry.stat(follow_symlinks=False).st_mtime_ns
                        newest = max(newest or (at, entry.path), (at, entry.path))
    except FileNotFoundError:
        return None
    return newest[1] if newest else None


def get_latest_log(
    id: str | None = None, *, home: str | None = None, limit: int = 1024 * 1024
) -> str | None:
    """The output of a command, of the latest if no id is given; its last `limit` bytes.

    None if there is no log, in the archives neither. Bytes that are not UTF-8 become U+FFFD.
    Raises BadId and OSError.
    """
    path = find_log(id, home=home)
    with contextlib.suppress(FileNotFoundError):
        if path is not None:
            with os.fdopen(files.open_shown(path), "rb") as file:
                size = os.fstat(file.fileno()).st_size
                file.seek(max(0, size - limit))
                return file.read(limit).decode("utf-8", "replace")
    from reconciler.executor.logs import archived_log

    with archived_log(Layout(resolve_home(home)), id) as found:
        if found is None:
            return None
        last = b""
        while data := found[1].read(65536):
            last = (last + data)[-limit:]
        return last.decode("utf-8", "replace")


__all__ = [
    "BadId",
    "check_results",
    "create_bash_command",
    "find_log",
    "get_latest_log",
    "wait_results",
]
