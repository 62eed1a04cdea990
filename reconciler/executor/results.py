"""What a result looks like, and how it is written and read.
Must not start, stop or wait for a command.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress

from reconciler.executor import files
from reconciler.executor.commandfile import MAX_FILE, Command, CommandRefused, parse
from reconciler.executor.home import Layout, check_id, held, reached
from reconciler.executor.text import as_json, stamp

TAIL = 4096  # bytes of output that a result repeats
_MAX_RESULT = 16 * 1024 * 1024

Result = dict[str, object]
_UNKNOWN: Result = {
    **dict.fromkeys(("status", "exit_code", "signal", "reason")),
    "timed_out": False,
    **dict.fromkeys(("start", "end", "seconds", "log_path", "output_tail")),
}


class ResultExists(Exception):
    """There is a result of this id already; it stays as it is."""


def make(layout: Layout, command_id: str, command: Command | None, **known: object) -> Result:
    """A result with all its keys. What is not `known` is null; of `env` only the names are told."""
    return {
        "id": command_id,
        **_UNKNOWN,
        **known,
        "log_path": layout.log_file(command_id),
        "output_tail": known.get("output_tail", ""),
        "command": command.command if command else None,
        "timeout": command.timeout if command else None,
        "cwd": (command.cwd or layout.home) if command else None,
        "env": sorted(command.env) if command else [],
        "extra": command.extra if command else {},
        "recorded": stamp(),
        "worker": os.getpid(),
    }


def tail_of(fd: int) -> str:
    """The last TAIL bytes of an open log, as text."""
    size = os.fstat(fd).st_size
    data = os.pread(fd, TAIL, max(0, size - TAIL))
    if size > TAIL:  # the cut may have gone through a character of several bytes
        skip = 0
        while skip < 3 and skip < len(data) and data[skip] & 0xC0 == 0x80:
            skip += 1
        data = data[skip:]
    return data.decode("utf-8", "replace")


def write(layout: Layout, command_id: str, result: Result) -> None:
    """Raises ResultExists, and OSError if it cannot be written."""
    data = as_json(result).encode()
    with held(layout.completed, make=True) as completed:
        try:
            files.put(completed, f"{command_id}.json", data, layout.file_mode)
        except FileExistsError:
            path = layout.result_file(command_id)
            raise ResultExists(f"a result of this id exists: {path}") from None


def read(layout: Layout, command_id: str) -> Result | None:
    """The result, or what the command is at; None if no command of that id is known.

    Until there is a result, there are only `id`, `status` (`waiting` or `running`) and, where
    there never will be one (`refused`, `stale`), `reason` and `file`. Raises BadId, and OSError or
    ValueError if a result is there but cannot be read.
    """
    check_id(command_id)
    found = completed(layout, command_id)
    if found is not None:
        return found
    # Looked for before the reason: an old refusal says nothing about a new command of this id.
    for path, status in (
        (layout.pending_file(command_id), "waiting"),
        (layout.running_file(command_id), "running"),
    ):
        if os.path.lexists(path):
            return {"id": command_id, "status": status}
    if _waits_under_another_name(layout, command_id):
        return {"id": command_id, "status": "waiting"}
    # It may have been taken between the first look into running/ and the one at the names.
    if os.path.lexists(layout.running_file(command_id)):
        return {"id": command_id, "status": "running"}
    return ended(layout, command_id)


def _waits_under_another_name(layout: Layout, command_id: str) -> bool:
    """Has somebody put a file there that is called otherwise, and has this id in it?"""
    with suppress(OSError), reached(layout.pending) as pending:
        for name in os.listdir(f"/proc/self/fd/{pending}"):
            with suppress(OSError, CommandRefused):
                if name.endswith(".json"):
                    data = files.read_small(name, MAX_FILE, pending)
                    if parse(data, name.removesuffix(".json")).id == command_id:
                        return True
    return False


def ended(layout: Layout, command_id: str) -> Result | None:
    """The same of what will not change any more."""
    found = refused(layout, command_id) or stale(layout, command_id)
    # A result may have come between the first look and the second.
    return completed(layout, command_id) or found


def is_final(found: Result | None) -> bool:
    """Will this not change by itself any more?"""
    return found is not None and found.get("status") not in ("waiting", "running")


def stale(layout: Layout, command_id: str) -> Result | None:
    """What was put aside, if it was."""
    path = os.path.join(layout.stale, f"{command_id}.json")
    if not os.path.lexists(path):
        return None
    reason = "no worker took it in time, so it was put aside and has not run"
    return {"id": command_id, "status": "stale", "reason": reason, "file": path}


def completed(layout: Layout, command_id: str) -> Result | None:
    """The result, if there is one. Raises OSError and ValueError."""
    path = layout.result_file(command_id)
    try:
        with reached(layout.completed) as completed:
            data = files.read_small(os.path.basename(path), _MAX_RESULT, completed)
    except FileNotFoundError:
        return None
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise ValueError(f"{path} is not a result: it holds no JSON") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} is not a result: it holds no JSON object")
    return found


def refused(layout: Layout, command_id: str, name: str | None = None) -> Result | None:
    """Why it was refused, if it was; ``name`` is that of its file, where others had its own."""
    path = os.path.join(layout.failed, name or f"{command_id}.json")
    try:
        with reached(layout.failed) as failed:
            data = files.read_small(f"{os.path.basename(path)}.reason", 65536, failed)
    except FileNotFoundError:
        return None
    return {
        "id": command_id,
        "status": "refused",
        "exit_code": None,
        "signal": None,
        "reason": data.decode("utf-8", "replace").partition("\n")[0],
        "file": path,
    }


def exit_code_of(result: Result) -> int:
    """The exit code for a program that waited for this result, as a shell would say it."""
    code, number = result.get("exit_code"), result.get("signal")
    if result.get("timed_out") is True:
        return 124  # as timeout(1)
    if result.get("status") == "interrupted" or (code == 0 and result.get("status") == "failed"):
        return 1
    if isinstance(code, int):
        return code
    return 128 + number if isinstance(number, int) else 1
