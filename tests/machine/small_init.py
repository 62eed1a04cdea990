"""Process 1 of a disposable host without systemd: starts one daemon, and buries the dead.

What it must not do: end. With it ends the host, and everything that runs there.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
import sys

SIOCSIFFLAGS = 0x8914  # netdevice(7)
IFF_UP = 0x1


def loopback_up() -> None:
    """systemd does this too, at boot."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", IFF_UP))


def main() -> None:
    loopback_up()
    os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
    children = {signal.SIGCHLD}
    # Blocked, and waited for: none is lost between looking and waiting.
    signal.pthread_sigmask(signal.SIG_BLOCK, children)
    while True:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass
        signal.sigwait(children)


main()
