"""Probes of what belongs to this program: results of its executor, its state, what a reboot brings.

They may block where a file system does, and must not change anything.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

from reconciler.base.errors import HostError, UnknownState
from reconciler.base.text import amount, printable
from reconciler.base.values import Verdict
from reconciler.host.folders import listed, regular_files
from reconciler.host.probe import span
from reconciler.host.reading import PRIVATE, is_private, read_in, reading

if TYPE_CHECKING:
    from reconciler.host import Host
    from reconciler.host.clock import WallTime

_LARGEST = 16 * 2**20
_SMALL = 2**18
_FOLDERS = {"pending": ".json", "running": ".json", "completed": ".json", "failed": ".reason"}
"""Of an executor, with how the name of a command's file ends there."""
MOST_COMMANDS, _FEW = 20_000, 5
"""That are counted in a folder, and that are named."""


def results(home: str, most: int, within: float) -> Verdict:
    """Have at most ``most`` commands of that executor failed ``within`` so many seconds?

    A result that cannot be read is none of a command that succeeded. Raises UnknownState, OSError.
    """
    path = f"{home}/ai_commands/completed"
    failed: list[tuple[float, str]] = []
    since = time.time() - within
    try:
        with listed(path) as folder:
            hidden = is_private(folder)
            for name, status in regular_files(folder):
                if name.startswith(".") or not name.endswith(".json") or status.st_mtime < since:
                    continue
                with suppress(HostError, ValueError, RecursionError, AttributeError):
                    found = read_in(folder, name, f"{path}/{name}", _LARGEST)
                    if found is None or json.loads(found[0]).get("status") == "succeeded":
                        continue
                failed.append((status.st_mtime, name.removesuffix(".json")))
    except FileNotFoundError:
        raise UnknownState(f"there is no {path}") from None
    number = len(failed)
    count = {0: "no command", 1: "1 command"}.get(number, f"{number:,} commands")
    words = f"{count} failed within {span(within)}"
    if number <= most:
        return Verdict(True, words)
    last = PRIVATE if hidden else printable(max(failed)[1])
    return Verdict(False, f"{words}, more than {most:,}; last: {last}")


def commands(home: str, walltime: WallTime) -> dict[str, Any]:
    """What that executor has to do, does, and has done, as plain data; ``None``: it is not known.

    ``oldest`` is the age in seconds of what waits for the longest. Of a command there is its id,
    as in the sign of life that everybody may read, and nothing that it says or was told.
    """
    found: dict[str, Any] = {"oldest": None, "now": [], "last": []}
    for state, suffix in _FOLDERS.items():
        path, found[state] = f"{home}/ai_commands/{state}", None
        with suppress(OSError, HostError), listed(path) as folder:
            hidden = is_private(folder)
            entries = list(islice(regular_files(folder), MOST_COMMANDS))
            seen = [
                (status, PRIVATE if hidden else name.removesuffix(suffix), name)
                for name, status in entries
                if name.endswith(suffix) and not name.startswith(".")
            ]
            found[state] = MOST_COMMANDS if len(entries) == MOST_COMMANDS else len(seen)
            if state == "pending" and seen:
                oldest, _, name = min(seen, key=lambda one: one[0].st_mtime)
                found["oldest"] = max(0.0, walltime.age(f"{path}/{name}", oldest.st_mtime))
            elif state == "running":  # Its file was moved there when it was taken.
                seen.sort(key=lambda one: one[0].st_ctime)
                found["now"] = [[ident, at.st_ctime] for at, ident, _ in seen[:_FEW]]
            elif state == "completed":
                seen.sort(key=lambda one: one[0].st_mtime, reverse=True)
                found["last"] = [
                    [ident, at.st_mtime, *_result(folder, name, path)]
                    for at, ident, name in seen[:_FEW]
                ]
    return found


def _result(folder: int, name: str, path: str) -> tuple[str, int | None]:
    """The status of a command that has ended, and its exit code."""
    with (
        suppress(OSError, HostError, ValueError, RecursionError),
        reading(folder, name, f"{path}/{name}", _SMALL) as found,
    ):
        if found is not None and not is_private(folder, found.handle):
            result = json.loads(found.data)
            if isinstance(result, dict):
                status, code = result.get("status"), result.get("exit_code")
                known = isinstance(code, int) and abs(code) < 2**31
                return str(status), code if known else None
    return "unknown", None


def state(path: str, most: int) -> Verdict:
    """Does the state directory take at most ``most`` bytes? Raises HostError and OSError."""
    from reconciler.host.tree import Tree

    size, folders = 0, [""]
    with Tree(path) as tree:
        while folders:
            below = folders.pop()
            with tree.folder(below) as handle, os.scandir(handle) as entries:
                for entry in entries:
                    with suppress(FileNotFoundError):
                        size += entry.stat(follow_symlinks=False).st_blocks * 512
                        if entry.is_dir(follow_symlinks=False):
                            folders.append(f"{below}/{entry.name}" if below else entry.name)
    words = f"{amount(size)} of state in {path}"
    return Verdict(size <= most, words if size <= most else f"{words}, more than {amount(most)}")


def persistence(host: Host, state_dir: str) -> Verdict:
    """Does something bring the spec back after a reboot, and all that is meant to?

    Raises UnknownState.
    """
    from reconciler.host.persistence import cron_daemon, differences, look

    found = look(host, host.spec_path, state_dir)
    idle, command = cron_daemon(found, os.geteuid())
    remedy = f"{idle}; fix it with: {command}"
    good, wrong = [], []
    for one in found["runners"]:
        if one["sort"] == "cron" and command is not None:
            wrong.append(("cron", remedy))
        elif not one["works"]:
            wrong.append((one["sort"], f"{one['what']}: {one['why']}"))
        elif not one["at_boot"]:
            wrong.append((one["sort"], f"{one['what']} starts it at the next login only"))
        else:
            good.append(one["what"])
    if not good and found["unseen"]:
        raise UnknownState("; ".join(found["unseen"]))
    # Who has a unit that works needs no cron daemon; a unit that does not work is never meant.
    told = [words for sort, words in wrong if not good or sort not in ("cron", "login")]
    for one in differences(found, tmux=False):
        if one["matters"]:
            told.append(f"{one['what']} would keep its state in {one['state_dir']}")
    if good and not told:
        return Verdict(True, f"brought back after a reboot by {', '.join(dict.fromkeys(good))}")
    lost = "" if good else "nothing brings it back after a reboot"
    return Verdict(False, "; ".join(dict.fromkeys(word for word in (lost, *told) if word)))
