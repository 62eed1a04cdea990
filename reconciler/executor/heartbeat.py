"""The sign of life of a worker: writing it, and judging it from outside.
Must not decide what happens to a worker without one.
"""

from __future__ import annotations

import contextlib
import json
import os
import time

from reconciler.executor.files import read_small, write_whole
from reconciler.executor.layout import Layout
from reconciler.executor.processes import identity, is_alive
from reconciler.executor.text import as_json, shown, stamp

EVERY = 2.0  # seconds between two beats; the promise is 5
FRESH = 15.0  # seconds after which a heartbeat is old


class Heartbeat:
    """Writes the heartbeat file of one worker process."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._me = identity(os.getpid())
        self._started = stamp()
        self._temp = os.path.join(layout.base, f".heartbeat.{os.getpid()}.tmp")

    def beat(self, state: str, command_id: str | None = None, since: str | None = None) -> None:
        """Raises OSError; then at least the file's time was moved if that was possible."""
        now = time.time()
        content = {
            **self._me,
            "time": stamp(now),
            "epoch": round(now, 3),
            "state": state,
            "command": command_id,
            "command_since": since,
            "started": self._started,
            "home": shown(self._layout.home),
        }
        try:
            # Not synced: it is worth nothing after a reboot, and it is written all day.
            write_whole(self._layout.heartbeat, as_json(content).encode(), self._temp, sync=False)
        except OSError:
            with contextlib.suppress(OSError):  # a full disk still takes a time
                os.utime(self._layout.heartbeat)
            raise

    def say_stopped(self) -> None:
        """The last beat, unless another worker of this home has the file now."""
        found = read(self._layout)
        if found is None or found.get("pid") == os.getpid():
            self.beat("stopped")

    def remove_leftovers(self) -> None:
        """Temporary files of workers that were killed while they wrote one."""
        for name in os.listdir(self._layout.base):
            if name.startswith(".heartbeat.") and name.endswith(".tmp"):
                pid = name.removeprefix(".heartbeat.").removesuffix(".tmp")
                if not os.path.exists(f"/proc/{pid}"):
                    with contextlib.suppress(OSError):
                        os.unlink(os.path.join(self._layout.base, name))


def read(layout: Layout) -> dict[str, object] | None:
    """The last heartbeat, or None if there is none that can be read."""
    try:
        found = json.loads(read_small(layout.heartbeat, 65536))
        moved = os.stat(layout.heartbeat).st_mtime
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    if isinstance(found.get("epoch"), int | float):  # on a full disk only the file's time moves
        found["epoch"] = max(found["epoch"], moved)
    return found


def age(found: dict[str, object]) -> float | None:
    """Seconds since the beat, never negative; None if it says no time."""
    at = found.get("epoch")
    if not isinstance(at, int | float):
        return None
    return max(0.0, time.time() - at)


def judge(layout: Layout) -> tuple[bool, str]:
    """Whether a worker is alive with a fresh heartbeat, and the reason in words."""
    found = read(layout)
    if found is None:
        return False, f"no worker: there is no heartbeat at {layout.heartbeat}"
    pid = found.get("pid")
    seconds = age(found)
    if found.get("state") == "stopped":
        return False, f"no worker: the last one (process {pid}) was stopped at {found.get('time')}"
    if not is_alive(found):
        return False, f"no worker: process {pid} of the last heartbeat does not run any more"
    if seconds is None or seconds > FRESH:
        old = "of unknown age" if seconds is None else f"{seconds:.0f} s old"
        return False, f"the worker (process {pid}) hangs: its heartbeat is {old}"
    return True, f"worker {pid}: {found.get('state')}, heartbeat {seconds:.1f} s ago"
