"""Probes of what belongs to this program: results of its executor, its state, what a reboot brings.

They may block where a file system does, and must not change anything.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from reconciler.base.errors import HostError, UnknownState
from reconciler.base.text import amount, printable
from reconciler.base.values import Verdict
from reconciler.host.folders import listed, regular_files
from reconciler.host.probe import span
from reconciler.host.reading import PRIVATE, is_private, read_in

if TYPE_CHECKING:
    from reconciler.host import Host

_LARGEST = 16 * 2**20


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
