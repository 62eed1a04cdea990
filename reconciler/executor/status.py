"""What an executor is doing, whether it works, and what it has done: status, test and report.
Must not print.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator

from reconciler.base.text import escapes
from reconciler.executor import api, heartbeat, results
from reconciler.executor.home import (
    Layout,
    UntrustedFolder,
    held,
    is_command_name,
    new_id,
    reached,
)
from reconciler.executor.text import stamp
from reconciler.host.remedy import remedy


def status(layout: Layout) -> dict[str, object]:
    """Everything that `ai-cmd-executor status` tells."""
    alive, words = heartbeat.judge(layout)
    beat = heartbeat.read(layout) or {}
    seconds = heartbeat.age(beat)
    oldest = _oldest(layout.pending)
    return {
        "home": layout.home,
        "alive": alive,
        "summary": words,
        "pid": beat.get("pid"),
        "state": beat.get("state"),
        "trouble": heartbeat.trouble_of(beat) if alive else _refused(layout),
        "command": beat.get("command"),
        "command_since": beat.get("command_since"),
        "heartbeat_age": None if seconds is None else round(seconds, 3),
        "pending": _count(layout.pending),
        "running": _count(layout.running),
        "completed": _count(layout.completed),
        "failed": _count(layout.failed, ".reason"),
        "oldest_pending": oldest and oldest[1],
        "oldest_pending_since": oldest and stamp(oldest[0]),
        "oldest_pending_age": oldest and round(max(0.0, time.time() - oldest[0]), 3),
    }


def _refused(layout: Layout) -> str | None:
    """Why a worker would not start: somebody else could decide what it runs."""
    for path in layout.directories():
        try:
            with held(path):
                pass
        except UntrustedFolder as error:
            return str(error)
        except OSError:
            continue
    return None


def newest(layout: Layout, most: int = 50) -> list[str]:
    """The ids of the commands that ended last, and of all that run."""
    found: dict[str, float] = {}
    for folder in (layout.completed, layout.running):
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if is_command_name(entry.name) and entry.name.isprintable():
                    with contextlib.suppress(OSError):
                        at = entry.stat(follow_symlinks=False).st_mtime
                        found[entry.name.removesuffix(".json")] = at
    return sorted(found, key=found.__getitem__, reverse=True)[:most]


def _count(path: str, suffix: str = ".json") -> int | None:
    """None if the directory cannot be read, which is not the same as empty."""
    try:
        return sum(1 for n in os.listdir(path) if n.endswith(suffix) and not n.startswith("."))
    except OSError:
        return None


def _oldest(path: str) -> tuple[float, str] | None:
    found = []
    with contextlib.suppress(OSError), os.scandir(path) as entries:
        for entry in entries:
            if is_command_name(entry.name):
                with contextlib.suppress(FileNotFoundError):
                    found.append((entry.stat(follow_symlinks=False).st_mtime, entry.name))
    return min(found, default=None)


def try_out(layout: Layout, seconds: float, busy_is_well: bool = False) -> tuple[bool, str]:
    """Give the worker an `echo` and wait at most `seconds` for it; how that went, in words.

    `busy_is_well`: so is a worker that is alive and runs another command meanwhile.
    """
    word = f"executor-test-{os.urandom(8).hex()}"
    began = time.monotonic()
    command_id = api.create_bash_command(
        f"echo {word}", new_id("test-"), timeout=seconds, home=layout.home
    )
    try:
        found = api.wait_results(command_id, seconds, home=layout.home)
    except BaseException:
        _withdraw(layout, command_id)
        raise
    took = time.monotonic() - began
    if found is None or not results.is_final(found):
        busy, words = _why_none(layout, command_id)
        if busy and busy_is_well:
            return True, f"works, and runs another command: {words}"
        return False, f"no result within {seconds:g} s: {words}"
    tail = found.get("output_tail")
    if found.get("exit_code") != 0:
        return False, (
            f"the test command {command_id} ended as {found.get('status')}, exit code "
            f"{found.get('exit_code')}: {found.get('reason') or tail}"
        )
    if not isinstance(tail, str) or word not in tail:
        return False, f"the test command {command_id} ran, but its output is not {word}: {tail!r}"
    for path in (layout.result_file(command_id), layout.log_file(command_id)):
        with contextlib.suppress(OSError), reached(os.path.dirname(path)) as folder:
            os.unlink(os.path.basename(path), dir_fd=folder)
    return True, f"works: a test command came back after {took * 1000:.0f} ms"


def _why_none(layout: Layout, command_id: str) -> tuple[bool, str]:
    """Why there is no result, and whether that is because the worker runs another command."""
    withdrawn = _withdraw(layout, command_id)
    alive, words = heartbeat.judge(layout)
    if not alive:
        start = f"start one with: {remedy('ai-cmd-executor', 'start', '--home', layout.home)}"
        return False, f"{words}; {start}"
    if not withdrawn:
        return False, f"{words}; it has taken the test command {command_id}, but not finished it"
    beat = heartbeat.read(layout) or {}
    if trouble := heartbeat.trouble_of(beat):
        return False, f"{words}; but it runs no commands: {trouble}"
    if beat.get("state") == "blocked":
        return False, f"it cannot write the result of {beat.get('command')}: see {layout.event_log}"
    if beat.get("command"):
        since = beat.get("command_since")
        return True, f"{words}; it is busy with {beat['command']} since {since}"
    return False, f"{words}; but it does not take commands: see {layout.event_log}"


def _withdraw(layout: Layout, command_id: str) -> bool:
    """Take a command back that no worker has taken. Afterwards none will."""
    try:
        with reached(layout.pending) as pending:
            os.unlink(f"{command_id}.json", dir_fd=pending)
    except OSError:
        return False
    return True


_LONGEST = 60  # characters of a command
_ENDED = ("succeeded",)
_FILES = re.compile(r"(?s)(?!\.)(.*)\.json"), re.compile(r"(?s)(?!\.)(.*)\.json(\.\d+)?\.reason")
"""Of commands by their ids; and of the reasons why they were refused, of which one id has more."""


def reported(layout: Layout, seconds: float, failed: bool) -> list[results.Result]:
    """The commands that came to an end, or to `stale`, in the last `seconds`; the oldest first.

    `failed`: only those that did not succeed.
    """
    begin = time.time() - seconds
    found = [one for one in _all(layout, begin) if not failed or one[1]["status"] not in _ENDED]
    return [result for _, result in sorted(found, key=lambda one: one[0])]


def _all(layout: Layout, begin: float) -> Iterator[tuple[float, results.Result]]:
    for folder in (layout.completed, layout.failed, layout.stale):
        try:
            with os.scandir(folder) as entries:
                names = [
                    (info.st_mtime if folder != layout.stale else info.st_ctime, found[1], found[0])
                    for entry in entries
                    if (found := _FILES[folder == layout.failed].fullmatch(entry.name))
                    for info in (entry.stat(follow_symlinks=False),)
                ]
        except OSError:
            continue
        for at, ident, name in names:
            if at < begin:
                continue
            with contextlib.suppress(OSError, ValueError):
                # What is refused may have the id of one that has a result.
                if folder == layout.failed:
                    result = results.refused(layout, ident, name.removesuffix(".reason"))
                else:
                    of = results.completed if folder == layout.completed else results.stale
                    result = of(layout, ident)
                if result is not None:
                    yield at, {"status": "unknown", **result, "id": ident, "at": stamp(at)}


def report_text(found: list[results.Result]) -> str:
    """One line for each, and their number."""
    lines = []
    for one in found:
        code, command = one.get("exit_code"), one.get("command")
        status = str(one["status"]) + (f" (exit code {code})" if code else "")
        first = escapes(str(command or one.get("reason") or "").partition("\n")[0])
        cut = first if len(first) <= _LONGEST else f"{first[:_LONGEST]}…"
        lines.append(f"{one['at']}  {escapes(one['id'])}  {escapes(status)}  {cut}\n")
    number = f"{len(found)} command{'' if len(found) == 1 else 's'}\n"
    return "".join(lines) + number
