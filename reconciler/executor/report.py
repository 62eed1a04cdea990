"""What has become of the commands of the last hours or days: `report`.
Must not print.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator

from reconciler.executor import results
from reconciler.executor.layout import BadId, Layout, is_command_name
from reconciler.executor.text import shown, stamp

_LONGEST = 60  # characters of a command
_ENDED = ("succeeded",)


def since(layout: Layout, seconds: float, failed: bool) -> list[results.Result]:
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
                    (info.st_mtime if folder != layout.stale else info.st_ctime, entry.name)
                    for entry in entries
                    if is_command_name(entry.name)
                    for info in (entry.stat(follow_symlinks=False),)
                ]
        except OSError:
            continue
        for at, name in names:
            if at < begin:
                continue
            with contextlib.suppress(OSError, ValueError, BadId, json.JSONDecodeError):
                result = results.ended(layout, name.removesuffix(".json"))
                if result is not None:
                    yield at, {**result, "at": stamp(at)}


def text(found: list[results.Result]) -> str:
    """One line for each, and their number."""
    lines = []
    for one in found:
        code, command = one.get("exit_code"), one.get("command")
        status = str(one["status"]) + (f" (exit code {code})" if code else "")
        first = shown(str(command or one.get("reason") or "").partition("\n")[0])
        cut = first if len(first) <= _LONGEST else f"{first[:_LONGEST]}…"
        lines.append(f"{one['at']}  {shown(one['id'])}  {shown(status)}  {cut}\n")
    number = f"{len(found)} command{'' if len(found) == 1 else 's'}\n"
    return "".join(lines) + number
