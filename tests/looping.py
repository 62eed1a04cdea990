"""A loop in the background, for tests and benchmarks: what it tells, and what it weighs.

It must not look into the loop otherwise than from outside: its output, its pulse, /proc.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support import LONG, Machine, passed, until

from reconciler.host.clock import Clock
from reconciler.kinds.process.observed import HOLDS
from reconciler.state.heartbeat import WatchdogHeartbeat, pulse

_TICKS = os.sysconf("SC_CLK_TCK")


class Looping:
    """``reconcile --loop`` of one spec, with the events it has told so far."""

    def __init__(self, machine: Machine, spec: Path, *options: str, **environ: str) -> None:
        self.machine = machine
        self.folder = machine.state / _name(spec)
        self.output = machine.base / f"loop-{len(list(machine.base.iterdir()))}"
        self.errors = self.output.with_suffix(".errors")
        with open(self.output, "wb") as output, open(self.errors, "wb") as errors:
            self.process = subprocess.Popen(
                [str(word) for word in machine.argv("--loop", spec, "--json", *options)],
                env={**machine.environ, **environ}, cwd=machine.base,
                stdin=subprocess.DEVNULL, stdout=output, stderr=errors,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        return self.process.pid

    def events(self) -> list[dict[str, Any]]:
        lines = self.output.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def names(self) -> list[str]:
        return [event["event"] for event in self.events()]

    def pulse(self) -> WatchdogHeartbeat | None:
        """Its own sign of life; None as long as it has not begun, and when it has ended."""
        seen = pulse(str(self.folder), Clock())
        return seen if seen is not None and seen.identity.pid == self.pid else None

    def passes(self) -> int:
        """Full passes that have come to their end."""
        seen = self.pulse()
        return seen.done if seen is not None else 0

    def up(self, seconds: float = 20.0) -> Looping:
        """Wait until its first pass is over."""
        until(lambda: self.passes() > 0 or self.ended(), seconds)
        return self

    def ended(self) -> bool:
        """False; raises AssertionError with what it has told when it has ended."""
        if self.process.poll() is not None:
            text = self.output.read_text() + self.errors.read_text()
            raise AssertionError(f"the loop has ended ({self.process.returncode}): {text}")
        return False

    def full_pass(self, seconds: float = 20.0) -> None:
        """Ask for a pass, and wait for the end of one that began after that."""
        seen = self.pulse()
        assert seen is not None, "the loop does not run"
        self.send(signal.SIGUSR1)
        until(lambda: self.passes() > seen.begun, seconds)

    def held(self, ident: str, number: int = 1) -> None:
        """Wait until the start of that process which is the ``number``-th that was done has proved
        itself: what ends from now on had run."""

        def started() -> bool:
            steps = [one["step"] for one in self.events() if one["event"] == "step"]
            done = [one for one in steps if (one["id"], one["result"]) == (ident, "done")]
            return len(done) >= number or self.ended()

        until(started)
        passed(HOLDS)

    def rest(self, seconds: float = 20.0) -> None:
        """Wait until it sleeps: no CPU time taken for a third of a second."""
        clock, seen = Clock(), (-1.0, 0.0)

        def still() -> bool:
            nonlocal seen
            now = cpu_time(self.pid)
            if now != seen[0]:
                seen = now, clock.monotonic()
            return clock.monotonic() - seen[1] > 0.33

        until(still, seconds)

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        """Have it end in an orderly way; its exit status."""
        self.send(signal.SIGTERM)
        return self.process.wait(LONG)

    def kill(self) -> None:
        """kill -9, if it still runs."""
        self.process.kill()
        self.process.wait()


def _name(spec: Path) -> str:
    (line,) = (line for line in spec.read_text().splitlines() if line.startswith("name:"))
    return line.partition(":")[2].strip()


def cpu_time(pid: int) -> float:
    """Seconds of CPU of a process and of its children that were waited for, proc(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS


def descriptors(pid: int) -> int:
    """How many files a process holds open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


@dataclass(frozen=True, slots=True)
class Memory:
    """In MB (10**6 bytes): resident; its share; what would be free if it ended."""

    rss: float
    pss: float
    uss: float

    def __str__(self) -> str:
        return f"{self.rss:.1f} MB (PSS {self.pss:.1f}, USS {self.uss:.1f})"


def memory(pid: int) -> Memory:
    """Of a process now, from smaps_rollup, proc(5)."""
    found = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, rest = line.partition(":")
        found[name] = int(rest.split()[0]) * 1024 / 1e6
    return Memory(found["Rss"], found["Pss"], found["Private_Clean"] + found["Private_Dirty"])
