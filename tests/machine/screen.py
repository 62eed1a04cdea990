"""A terminal of 80 columns and what a person sees on it: a pane of a tmux server of its own."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

from support import Machine, until

ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


class Screen:
    """Runs a command on the terminal; ``text`` is what stands there now."""

    def __init__(self, machine: Machine, *argv: str | Path, columns: int = 80) -> None:
        self._machine = machine
        number = len(list(machine.sockets.glob("screen*")))
        self._socket = machine.sockets / f"screen{number}"
        self._over = machine.base / f"over{number}"
        # Not every shell goes on where what it waits for is interrupted.
        command = f"trap : INT; {shlex.join(map(str, argv))}; echo $? >{self._over}; sleep 1000"
        # Its server counts as started here, and is cleared away with all else.
        self._tmux("-f", "/dev/null", "new-session", "-d", "-x", str(columns), "-y", "100", command)

    def _tmux(self, *words: str) -> str:
        environ = {**self._machine.environ, "TERM": "xterm-256color"}
        return subprocess.run(
            ["tmux", "-u", "-S", str(self._socket), *words],
            env=environ, check=True, capture_output=True, text=True, timeout=20,
        ).stdout  # fmt: skip

    @property
    def colored(self) -> str:
        """With the escape sequences of colours, as tmux gives them back."""
        lines = self._tmux("capture-pane", "-p", "-e").rstrip("\n").splitlines()
        return "\n".join(line.rstrip() for line in lines)

    @property
    def text(self) -> str:
        """Without."""
        return "\n".join(line.rstrip() for line in ESCAPE.sub("", self.colored).splitlines())

    def press(self, key: str) -> None:
        self._tmux("send-keys", key)

    def cursor_is_seen(self) -> bool:
        return self._tmux("display-message", "-p", "#{cursor_flag}").strip() == "1"

    def end(self, seconds: float = 30.0) -> int:
        """Wait for the end of the command; its exit status."""
        until(lambda: self._over.exists() and self._over.read_text().strip(), seconds)
        return int(self._over.read_text())
