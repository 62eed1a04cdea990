"""What a service tells the systemd that started it, sd_notify(3). Says nothing elsewhere.

It must not wait: who supervises us must never be what we hang on.
"""

from __future__ import annotations

import os
import socket
import time

_LONGEST = 100_000.0
"""Where nobody asks: a little more than a day; poll(2) counts milliseconds in a C int."""


class Supervisor:
    """The one who started us, where it has said that it listens."""

    def __init__(self) -> None:
        # Taken out, so that no child speaks for us.
        self._address = os.environ.pop("NOTIFY_SOCKET", "")
        # sd_watchdog_enabled(3): in microseconds; half of it is what that page advises.
        given = os.environ.pop("WATCHDOG_USEC", "")
        os.environ.pop("WATCHDOG_PID", None)
        self.longest_silence = int(given) / 2e6 if given.isdigit() and int(given) else _LONGEST
        """Seconds after which it wants to hear of us."""
        self._told = 0.0

    def ready(self, status: str) -> None:
        """All is set up, or read again."""
        self._tell(f"READY=1\nSTATUS={status}")

    def status(self, text: str) -> None:
        """How things stand, for people."""
        self._tell(f"STATUS={text}")

    def alive(self, now: float) -> None:
        """We move; ``now`` is in seconds by the monotonic clock. Not more often than it asks."""
        if self.longest_silence < _LONGEST and not 0 <= now - self._told < self.longest_silence / 2:
            self._told = now
            self._tell("WATCHDOG=1")

    def reloading(self) -> None:
        """What was declared is read again; ``ready`` ends it."""
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
