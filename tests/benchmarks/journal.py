"""What the journal of passes costs: passes that change something, with it and without, in turns.

    .venv-tests/bin/python tests/benchmarks/journal.py [--runs 9] [--many 1000,1000,300,200]

prints a table in Markdown: the processor time of a pass with its journal, and how many times that
without it is, the median of pairs. Nothing outside a temporary folder is touched.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sqlite3
import statistics
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from bench import Bench, corner, milliseconds
from support import Machine
from trees import cost

PROGRAM = """
import sys
from reconciler.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
WITHOUT = """
import sys
from types import ModuleType
class Nothing:
    def __getattr__(self, name):
        return lambda *_: ()
    def definitions(self):
        return {}
module = sys.modules["reconciler.undo.journal"] = ModuleType("nothing")
module.journal_of, module.marked = lambda *_: Nothing(), lambda look, *_: look.plan
"""
Clean = Callable[[], None]
"""Makes the host as it was before the pass."""


def main() -> None:
    """Measure all, and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--many", default="1000,1000,300,200")
    parser.add_argument("--only", default="", help="the first words of rows, with commas between")
    options = parser.parse_args()
    directories, modes, blocks, starts = (int(one) for one in options.many.split(","))
    cases = {
        "one block": lambda machine: made_blocks(machine, 1),
        f"{directories:,} new directories": lambda machine: made_directories(machine, directories),
        f"{modes:,} modes to set": lambda machine: made_modes(machine, modes),
        f"{blocks:,} blocks, each in its file": lambda machine: made_blocks(machine, blocks),
        f"{starts:,} processes to start": lambda machine: made_starts(machine, starts),
        "nothing to do": made_nothing,
    }
    with corner() as machine:
        bench = Bench(machine, options.runs)
        bench.heading()
    for what, made in cases.items():
        if what.startswith(tuple(options.only.split(","))):
            with corner() as machine:
                measure(Bench(machine, options.runs), what, *made(machine))


def measure(bench: Bench, what: str, spec: Path, clean: Clean) -> None:
    """Pairs of passes: with the journal and without it, and the other way round."""
    machine = bench.machine
    argv = ["--once", "-q", "--take-over", "--state-dir", machine.state, spec]
    used: dict[str, list[float]] = {PROGRAM: [], WITHOUT + PROGRAM: []}
    for at in range(-1, bench.runs):
        for program in list(used)[:: 1 if at % 2 else -1]:
            clean()
            one = cost(machine, sys.executable, "-c", program, *argv)
            if at >= 0:  # The first ones fill the caches.
                used[program].append(one.cpu)
    whole, bare = used.values()
    times = statistics.median(one / other for one, other in zip(whole, bare, strict=True))
    more = statistics.median(one - other for one, other in zip(whole, bare, strict=True))
    measured = f"CPU {milliseconds(statistics.median(whole))}"
    beside = f"without its journal {milliseconds(statistics.median(bare))}: {times:.3f} times"
    bench.row(f"pass with {what}", measured, f"{beside}, {more * 1000:+.1f} ms", "1.05 times")


def rows(section: str, *lines: str) -> str:
    return "\n".join(["version: 1", "name: measured", f"{section}:", *lines, ""])


def made_directories(machine: Machine, number: int) -> tuple[Path, Clean]:
    top = machine.base / "d"
    lines = (f"  d{at}: {{path: {top}/{at}, mode: '0750'}}" for at in range(number))

    def clean() -> None:
        shutil.rmtree(top, ignore_errors=True)
        top.mkdir()

    return machine.spec(rows("directories", *lines)), clean


def made_modes(machine: Machine, number: int) -> tuple[Path, Clean]:
    top = machine.base / "m"
    top.mkdir()
    lines = (f"  m{at}: {{path: {top}/{at}, mode: '0640'}}" for at in range(number))

    def clean() -> None:
        for at in range(number):
            path = top / str(at)
            path.touch()
            path.chmod(0o600)

    return machine.spec(rows("permissions", *lines)), clean


def made_blocks(machine: Machine, number: int) -> tuple[Path, Clean]:
    top = machine.base / "b"
    lines = (f"  b{at}: {{path: {top}/{at}, content: alias x={at}}}" for at in range(number))

    def clean() -> None:
        top.mkdir(exist_ok=True)
        for at in range(number):
            (top / str(at)).write_text("mine\n")

    return machine.spec(rows("blocks", *lines)), clean


def made_starts(machine: Machine, number: int) -> tuple[Path, Clean]:
    form = "  p{0}: {{command: [sleep, '{1}.{0}']{2}}}"
    specs = [
        machine.spec(rows("processes", *(form.format(at, 90000, more) for at in range(number))), n)
        for n, more in (("here.yaml", ""), ("gone.yaml", ", state: absent"))
    ]

    def clean() -> None:
        done = machine.reconcile("--once", "-q", "--take-over", specs[1])
        if done.returncode:
            raise SystemExit(done.stdout + done.stderr)
        store = machine.state / "measured/store.db"
        if store.exists():
            # Else each second start of the same is one that counts, which has more to do.
            with closing(sqlite3.connect(store)) as base, base:
                base.execute("DELETE FROM attempts")

    return specs[0], clean


def made_nothing(machine: Machine) -> tuple[Path, Clean]:
    spec, clean = made_directories(machine, 100)
    clean()
    return spec, lambda: os.utime(machine.base / "d")


if __name__ == "__main__":
    main()
