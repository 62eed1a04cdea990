"""Processes that a signal has stopped, so that they neither run nor end.

It must not wake them, nor judge whether they should be.
"""

from __future__ import annotations

import os

from reconciler.host.processes import look_up


def halted(uid: int) -> list[tuple[int, str]]:
    """The number and name of each of that user's, proc(5) state T. Raises OSError."""
    found = []
    for name in os.listdir("/proc"):
        entry = look_up(int(name)) if name.isdigit() else None
        if entry is None or entry.state != "T":
            continue
        try:
            if os.stat(f"/proc/{name}").st_uid == uid:
                with open(f"/proc/{name}/comm", encoding="utf-8", errors="replace") as file:
                    found.append((int(name), file.read().strip()))
        except OSError:
            continue
    return found
