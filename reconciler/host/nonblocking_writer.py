"""Text for a reader who may have stopped reading: a pipe that is full, a terminal that is held.

It must not wait for the reader. What cannot be written now waits, up to a bound; what is beyond it
is counted.
"""

from __future__ import annotations

import os
import socket
import stat
from collections import deque
from collections.abc import Callable
from typing import TextIO

_MOST = 2**18
"""Bytes that wait."""
_CHUNK = 4096


class NonblockingWriter:
    """Stands for the text file ``file``. ``missed`` says how many writings were lost, as a line.

    Raises OSError when the reader is gone.
    """

    def __init__(self, file: TextIO, missed: Callable[[int], str]) -> None:
        self._file = file
        self._missed = missed
        self._encoding = file.encoding or "utf-8"
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._lost = 0
        self._write = _writer(file.fileno())

    def fileno(self) -> int:
        """The descriptor of the file."""
        return self._file.fileno()

    def isatty(self) -> bool:
        """Is it a terminal?"""
        return self._file.isatty()

    def write(self, text: str) -> int:
        """Take the text; it is written with the next ``flush`` that can."""
        data = text.encode(self._encoding, "backslashreplace")
        if self._size + len(data) > _MOST:
            self._lost += 1
            return len(text)
        if self._lost and not self._waiting:
            data = self._missed(self._lost).encode(self._encoding, "backslashreplace") + data
            self._lost = 0
        self._waiting.append(data)
        self._size += len(data)
        return len(text)

    def flush(self) -> None:
        """Write what the reader takes now."""
        while self._waiting:
            data = self._waiting[0]
            try:
                count = self._write(data[:_CHUNK])
            except BlockingIOError:
                return
            self._size -= count
            if count == len(data):
                self._waiting.popleft()
            else:
                self._waiting[0] = data[count:]
        if self._lost:
            self.write("")
            self.flush()


def _writer(descriptor: int) -> Callable[[bytes], int]:
    """Writes to that file without waiting, and without a change for others who have it open."""
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISSOCK(mode):
        with socket.socket(fileno=os.dup(descriptor)) as end:
            kept = end.dup()
        return lambda data: kept.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        # O_NONBLOCK belongs to the open file, which others may share: this is one of our own.
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        try:
            own = os.open(f"/proc/self/fd/{descriptor}", flags)
        except OSError:
            return lambda data: os.write(descriptor, data)
        return lambda data: os.write(own, data)
    return lambda data: os.write(descriptor, data)
