"""The worker's own log: one line per event, with time and zone.
Must never stop the worker: what cannot be written is dropped.
"""

from __future__ import annotations

import contextlib
import os

from reconciler.base.text import escapes
from reconciler.executor import files
from reconciler.executor.home import held
from reconciler.executor.text import stamp


class EventLog:
    """Appends to a file; opens it again when it was renamed or removed (log rotation)."""

    def __init__(self, path: str, mode: int) -> None:
        self.path = path
        self._mode = mode
        self._fd: int | None = None
        self._said: dict[str, str] = {}

    def info(self, text: str) -> None:
        self._write("INFO", text)

    def error(self, text: str) -> None:
        self._write("ERROR", text)

    def error_once(self, subject: str, text: str) -> None:
        """Say this about `subject` unless it was the last thing said about it."""
        if self._said.get(subject) != text:
            if len(self._said) > 1000:
                self._said.clear()  # hostile file names must not fill the memory
            self._said[subject] = text
            self._write("ERROR", text)

    def well_again(self, subject: str, text: str) -> None:
        """Say `text` if an error about `subject` is standing."""
        if self._said.pop(subject, None) is not None:
            self._write("INFO", text)

    def _write(self, level: str, text: str) -> None:
        line = f"{stamp()} {level} [{os.getpid()}] {escapes(text)}\n".encode(
            "utf-8", "backslashreplace"
        )
        with contextlib.suppress(OSError):
            try:
                os.write(self._open(), line)
            except OSError:
                # Its folder is somebody's to make again, or to close to others; until then the
                # terminal has to do.
                os.write(2, line)

    def _open(self) -> int:
        if self._fd is not None:
            if files.same_file(self._fd, self.path):
                return self._fd
            os.close(self._fd)
            self._fd = None
        folder, name = os.path.split(self.path)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOCTTY | os.O_NONBLOCK
        with held(folder) as logs:
            new = not files.is_there(logs, name)
            self._fd = os.open(name, flags | os.O_NOFOLLOW, 0o600, dir_fd=logs)
        if new:
            os.fchmod(self._fd, self._mode)
        return self._fd
