"""What the kernel has said since the boot, as far as it still knows.

It must not wait for more, nor understand any of it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

_MOST = 4 * 2**20


def messages() -> Iterator[tuple[float, str]]:
    """Each message with its time in seconds since the epoch, the oldest first.

    Of /dev/kmsg, read to its end, but not more than 4 MiB. Raises OSError where that may not be
    read.
    """
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    size = 0
    handle = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        while size < _MOST:
            try:
                record = os.read(handle, 8192)
            except BlockingIOError:
                break
            except BrokenPipeError:
                continue  # It was overwritten while we read.
            size += len(record)
            head, _, text = record.decode(errors="replace").partition(";")
            yield booted + int(head.split(",")[2]) / 1e6, text
    finally:
        os.close(handle)
