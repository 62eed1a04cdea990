"""The sign of life of a worker: writing it, and judging it from outside.
Must not decide what happens to a worker without one.
"""

from __future__ import annotations

import contextlib
import json
import os
import time

from reconciler.base.text import escapes
from reconciler.executor.files import put, read_small
from reconciler.executor.home import Layout, UntrustedFolder, opened
from reconciler.executor.processes import identity, is_alive
from reconciler.executor.text import as_json, stamp

EVERY = 2.0  # seconds between two beats; the promise is 5
FRESH = 15.0  # seconds after which a heartbeat is old
_NAME = "heartbeat"


class Heartbeat:
    """Writes the heartbeat file of one worker process."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._me = identity(os.getpid())
        self._started = stamp()
        self._folder = -1

    def beat(
        self,
        state: str,
        command_id: str | None = None,
        since: str | None = None,
        trouble: str | None = None,
    ) -> None:
        """`trouble` is why no command is run. Raises OSError; then at least the file's time was
        moved if that was possible."""
        self._find_folder()
        now = time.time()
        content = {
            **self._me,
            "time": stamp(now),
            "epoch": round(now, 3),
            "state": state,
            "command": command_id,
            "command_since": since,
            "trouble": trouble and escapes(trouble),
            "started": self._started,
            "home": escapes(self._layout.home),
        }
        try:
            # Not synced: it is worth nothing after a reboot, and it is written all day. Readable
            # for all: it says no more of a command than its id.
            put(self._folder, _NAME, as_json(content).encode(), 0o644, replace=True, sync=False)
        except OSError:
            with contextlib.suppress(OSError):  # a full disk still takes a time
                os.utime(_NAME, dir_fd=self._folder, follow_symlinks=False)
            raise

    def _find_folder(self) -> None:
        """Where the file goes now. While others may write there, still where it went before: that
        the worker does not run anything for it has to be said."""
        try:
            found = opened(self._layout.base)
        except UntrustedFolder:
            if self._folder < 0:
                raise
            return
        if self._folder >= 0:
            os.close(self._folder)
        self._folder = found

    def say_stopped(self) -> None:
        """The last beat, unless another worker of this home has the file now."""
        found = read(self._layout)
        if found is None or found.get("pid") == os.getpid():
            self.beat("stopped")


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
        return False, f"no worker is running: no heartbeat at {layout.heartbeat}"
    pid = found.get("pid")
    seconds = age(found)
    if found.get("state") == "stopped":
        return (
            False,
            f"no worker is running: the last one (pid {pid}) stopped at {found.get('time')}",
        )
    if not is_alive(found):
        return False, f"no worker is running: the last one (pid {pid}) has ended"
    if seconds is None or seconds > FRESH:
        old = "of unknown age" if seconds is None else f"{seconds:.0f} s old"
        return False, f"the worker (pid {pid}) hangs: its heartbeat is {old}"
    return True, f"worker {pid}: {found.get('state')}, heartbeat {seconds:.1f} s ago"


def trouble_of(found: dict[str, object] | None) -> str | None:
    """Why the worker of this heartbeat runs no commands; None while it does."""
    trouble = (found or {}).get("trouble")
    return escapes(trouble) if trouble else None
