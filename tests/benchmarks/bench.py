"""What the benchmarks share: a corner of this machine, and rows of a table in Markdown.

It must not measure anything of the product by itself.
"""

from __future__ import annotations

import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support import Machine

# Runs a command and prints the peak memory of it in KiB. The parent must be small: what a
# process weighs before execve(2) counts as its own, getrusage(2).
_PEAK = (
    "import os, resource, sys; "
    "n = os.open(os.devnull, os.O_WRONLY); "
    "p = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, "
    "file_actions=[(os.POSIX_SPAWN_DUP2, n, 1)]); "
    "os.waitpid(p, 0); print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
)


class Bench:
    """Measures programs in turns, so that what else the machine does falls on all alike."""

    def __init__(self, machine: Machine, runs: int) -> None:
        self.machine = machine
        self.runs = runs
        self.rows: list[tuple[str, str, str, str]] = []

    def once(self, argv: Sequence[str]) -> float:
        """Seconds for one run, from start to end."""
        begin = time.perf_counter()
        done = subprocess.run(
            argv, env=self.machine.environ, stdin=subprocess.DEVNULL, capture_output=True
        )
        seconds = time.perf_counter() - begin
        if done.returncode != 0:
            raise SystemExit(f"{argv}: status {done.returncode}\n{done.stderr.decode()}")
        return seconds

    def medians(self, *commands: Sequence[str]) -> list[float]:
        """The median of each command; each is run once before, to warm the caches."""
        for command in commands:
            self.once(command)
        times = [[self.once(command) for command in commands] for _ in range(self.runs)]
        return [statistics.median(column) for column in zip(*times, strict=True)]

    def peak(self, argv: Sequence[str]) -> float:
        """Peak memory in MB (10**6 bytes), median of five runs."""
        launcher = (sys.executable, "-I", "-S", "-c", _PEAK, *argv)
        runs = [
            subprocess.run(launcher, env=self.machine.environ, capture_output=True, check=True)
            for _ in range(5)
        ]
        return statistics.median(int(run.stdout) for run in runs) * 1024 / 1e6

    def heading(self) -> None:
        """On what it is measured, and the head of the table."""
        print(f"{surroundings()}, medians of {self.runs} runs\n")
        print("| what | measured | beside it | target |\n|---|---|---|---|", flush=True)

    def row(self, what: str, measured: str, beside: str, target: str) -> None:
        """One line of the table, printed as it comes."""
        self.rows.append((what, measured, beside, target))
        print(f"| {what} | {measured} | {beside} | {target} |", flush=True)


def surroundings() -> str:
    """When, and on what it is measured."""
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{time.strftime('%Y-%m-%d')}, {cores} cores, {memory:.0f} GiB, "
        f"Linux {platform.release().partition('-')[0]}, Python {platform.python_version()}"
    )


@contextmanager
def corner() -> Iterator[Machine]:
    """A corner of this machine in a temporary folder; nothing of it is left afterwards."""
    base = Path(tempfile.mkdtemp(prefix="rb-", dir="/tmp"))
    (base / "home").mkdir()
    machine = Machine(base, base)
    try:
        yield machine
    finally:
        machine.clear()
        shutil.rmtree(base)


def milliseconds(seconds: float) -> str:
    """For the table."""
    return f"{seconds * 1000:.0f} ms"
