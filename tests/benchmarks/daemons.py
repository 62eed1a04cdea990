"""Many daemons, at three sizes with their growth: passes with nothing to do, starts, stops, and
processes that are known by their command line. What is read for each is counted in
tests/machine/test_growth_of_processes.py.

    .venv-tests/bin/python tests/benchmarks/daemons.py [--runs 5] [--sizes 20,200,1000]
        [--matched 20,60,200]

prints a table in Markdown. Nothing outside a temporary folder is touched.
"""

from __future__ import annotations

import argparse
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from bench import Bench, corner
from looping import Looping, cpu_time
from support import Machine, until

PASSES = 10
"""Full passes within the loop of which one is the mean."""
OTHERS = 3
"""Processes of the host for each that is declared by its command line."""


def main() -> None:
    """Measure all, and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--sizes", default="20,200,1000")
    parser.add_argument("--matched", default="20,60,200")
    options = parser.parse_args()
    with corner() as machine:
        bench = Bench(machine, options.runs)
        bench.heading()
        measure_daemons(bench, [int(one) for one in options.sizes.split(",")])
        measure_matched(bench, [int(one) for one in options.matched.split(",")])


def row(bench: Bench, what: str, size: int, seen: dict[int, float], target: str) -> None:
    """One size, beside the size before it."""
    sizes = [*seen]
    beside = ""
    if len(sizes) > 1:
        before = sizes[-2]
        beside = f"{seen[size] / seen[before]:.1f} times {before:,}, of {size / before:.0f} times"
    bench.row(what.format(f"{size:,}"), f"{seen[size] * 1000:,.0f} ms", beside, target)


def measure_daemons(bench: Bench, sizes: Sequence[int]) -> None:
    """Daemons of a spec, started and stopped."""
    machine = bench.machine
    rows: dict[str, tuple[str, dict[int, float]]] = {
        "{} daemons started by the loop": ("20 s", {}),
        "CPU time of a full pass of the loop over {} daemons": ("80 ms", {}),
        "no-change pass over {} daemons": ("150 ms", {}),
        "{} daemons stopped": ("5 s", {}),
    }
    for size in sizes:
        spec = declared(machine, size)
        loop = Looping(machine, spec)
        begin = time.perf_counter()
        until(lambda size=size: len(machine.running("sleep 8200")) == size, 300)
        times = [time.perf_counter() - begin]
        try:
            until(lambda loop=loop, size=size: loop.names().count("step") == size, 300)
            loop.full_pass(60)
            loop.rest()
            before = cpu_time(loop.pid)
            for _ in range(PASSES):
                loop.full_pass(60)
            times.append((cpu_time(loop.pid) - before) / PASSES)
        finally:
            loop.end()
        once = [str(word) for word in machine.argv("--once", spec)]
        times += bench.medians(once)
        spec.write_text(spec.read_text().replace("{command", "{state: absent, command"))
        times.append(bench.once(once))
        for (what, (target, seen)), seconds in zip(rows.items(), times, strict=True):
            seen[size] = seconds
            row(bench, what, size, seen, target if size == sizes[-1] else "")


def declared(machine: Machine, size: int) -> Path:
    lines = ["version: 1", f"name: many{size}", "loop: {every: 1h}", "processes:"]
    lines += [
        f"  d{at}: {{command: [sleep, '8200{at:05}'], stop: {{timeout: 3s}}}}" for at in range(size)
    ]
    return machine.spec("\n".join(lines) + "\n", f"many{size}.yaml")


def measure_matched(bench: Bench, sizes: Sequence[int]) -> None:
    """Processes that somebody else has started."""
    machine = bench.machine
    seen: dict[int, float] = {}
    for size in sizes:
        marks = [f"8300{at:05}" for at in range(size * OTHERS)]
        started = [subprocess.Popen(["sleep", mark]) for mark in marks]
        try:
            lines = ["version: 1", f"name: match{size}", "processes:"]
            lines += [
                f"  m{at}: {{command: [sleep, '{mark}'], match: {{cmdline: '^sleep {mark}$'}}}}"
                for at, mark in enumerate(marks[:size])
            ]
            spec = machine.spec("\n".join(lines) + "\n", f"match{size}.yaml")
            once = [str(word) for word in machine.argv("--once", spec)]
            (seen[size],) = bench.medians(once)
        finally:
            for one in started:
                one.kill()
                one.wait()
        words = f"no-change pass over {{}} processes by command line, of {size * OTHERS:,}"
        row(bench, words, size, seen, "150 ms" if size == sizes[-1] else "")


if __name__ == "__main__":
    main()
