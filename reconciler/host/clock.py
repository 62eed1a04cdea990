"""Time: intervals by the monotonic clock of this boot, wall time for file ages and for people."""

from __future__ import annotations

import time
from functools import cache


@cache
def boot_id() -> str:
    """The kernel's name for this boot, proc(5). We do not outlive it."""
    with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
        return file.read().strip()


class Clock:
    """The host's clocks; a test hands in another one."""

    def monotonic(self) -> float:
        """Seconds since some moment; never jumps."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since the epoch; may jump."""
        return time.time()

    def since_boot(self) -> float:
        """Seconds since this boot, in which the machine may have slept."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def sleep(self, seconds: float) -> None:
        """Wait for so many seconds; whoever waits for us sees each second that we live."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 1.0))
