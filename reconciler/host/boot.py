"""What a boot starts, as the files say: systemd itself might hang.

It must not run anything, nor change what is started.
"""

from __future__ import annotations

import os


def systemd_runs() -> bool:
    """Is systemd the first process, sd_booted(3)?"""
    return os.path.isdir("/run/systemd/system")


def wanted(unit: str, folder: str) -> bool:
    """Is there a symlink in this folder of units that has that one started?"""
    try:
        below = [one for one in os.listdir(folder) if one.endswith((".wants", ".requires"))]
    except OSError:
        return False
    return any(os.path.lexists(f"{folder}/{one}/{unit}") for one in below)
