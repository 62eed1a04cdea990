"""What a service tells the systemd that started it, sd_notify(3). Says nothing elsewhere.

It must not wait: who supervises us must never be what we hang on.
"""

from __future__ import annotations

import os
import socket
import time


class Supervisor:
    """The one who started us, where it has said that it listens."""

    def __init__(self) -> None:
        # Taken out, so that no child speaks for us.
        self._address = os.environ.pop("NOTIFY_SOCKET", "")

    def ready(self, status: str) -> None:
        """All is set up, or read anew."""
        self._tell(f"READY=1\nSTATUS={status}")

    def alive(self, status: str) -> None:
        """Work was done; the watchdog of the supervisor may begin to count anew."""
        self._tell(f"WATCHDOG=1\nSTATUS={status}")

    def reloading(self) -> None:
        """What was declared is read anew; ``ready`` ends it."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(1) // 1000}")

    def stopping(self) -> None:
        """The end was asked for."""
        self._tell("STOPPING=1")

    def _tell(self, text: str) -> None:
        if not self._address.startswith(("/", "@")):
            return
        # A socket without a name in the file system begins with a zero byte, unix(7).
        address = self._address.replace("@", "\0", 1) if self._address[0] == "@" else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
                to.setblocking(False)
                to.sendto(text.encode(), address)
        except OSError:
            return
