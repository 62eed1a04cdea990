"""A loop that runs in the background of a test."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

from support import Machine


class Looping:
    """A loop that runs in the background, with the events it has told so far."""

    def __init__(self, machine: Machine, spec: Path, **environ: str) -> None:
        self.machine = machine
        self.output = machine.base / f"loop-{len(list(machine.base.iterdir()))}"
        with open(self.output, "wb") as file:
            self.process = subprocess.Popen(
                [str(word) for word in machine.argv("--loop", spec, "--json")],
                env={**machine.environ, **environ}, stdin=subprocess.DEVNULL, stdout=file,
                stderr=subprocess.DEVNULL,
            )  # fmt: skip

    def events(self) -> list[dict[str, Any]]:
        lines = self.output.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def names(self) -> list[str]:
        return [event["event"] for event in self.events()]

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        self.send(signal.SIGTERM)
        return self.process.wait(20)
