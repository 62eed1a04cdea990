"""Time: intervals by the monotonic clock, wall time only for file ages and for people."""

from __future__ import annotations

import time


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
