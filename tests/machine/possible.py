"""Says whether a disposable host can be had on this machine, and if not, why. Changes nothing."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Everything that the holder and boot.sh need a right for. It changes nothing outside.
PROBE = """
set -e
mount -t tmpfs probe /sys/kernel
cd /sys/kernel
mkdir upper work root cgroup
mount -t cgroup2 cgroup2 cgroup
mount -t overlay -o lowerdir=/,upperdir=/sys/kernel/upper,workdir=/sys/kernel/work probe root
mount -t proc proc root/proc
mount -t sysfs -o ro sysfs root/sys
mount -t tmpfs probe root/dev
mknod root/dev/null c 1 3
"""


@functools.cache
def why_not(*programs: str) -> str | None:
    """Why no disposable host can be had here, or None. The programs are those that it runs."""
    if os.geteuid():
        return "a disposable host needs root"
    for program in ("unshare", "nsenter", "setpriv", "pivot_root", "useradd", *programs):
        if not shutil.which(program, path=PATH):
            return f"a disposable host needs the program {program}"
    done = subprocess.run(
        ["unshare", "--pid", "--fork", "--kill-child", "--mount", "--uts", "--ipc", "--net",
         "--cgroup", "sh", "-c", PROBE],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    if done.returncode:
        said = " ".join(done.stderr.split())
        return f"a disposable host cannot be made here, over a root that is {root_kind()}: {said}"
    return None


def root_kind() -> str:
    done = subprocess.run(["stat", "-f", "-c", "%T", "/"], capture_output=True, text=True)
    return done.stdout.strip()
