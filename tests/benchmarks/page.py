"""What the status page costs, and that the loop restarts as quickly beside it.

    .venv-tests/bin/python tests/benchmarks/page.py [--runs 20] [--idle 60] [--resources 1000]

prints a table in Markdown. Restarts are measured without the page, with it and ten readers, and so
on in turns: what else the machine does falls on both alike.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import threading
import time
from http.client import HTTPException

from bench import Bench, corner, milliseconds
from births import Births
from keepers import reconcile
from looping import cpu_time, memory
from serving import Serving
from watch import words

READERS = 10
TURNS = 4


def main() -> None:
    """Measure all of it, and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=20, help="kills with the page, and without")
    parser.add_argument("--idle", type=float, default=60, help="seconds")
    parser.add_argument("--resources", type=int, default=1000)
    options = parser.parse_args()
    with corner() as machine:
        bench = Bench(machine, options.runs)
        bench.heading()
        measure_restarts(bench, options)
    with corner() as machine:
        measure_metrics(Bench(machine, options.runs), options)


def read(page: Serving) -> None:
    """As a browser does, in threads of their own, until the page ends."""

    def one() -> None:
        try:
            for _ in page.events(page.connection()):
                pass
        except (OSError, HTTPException):
            return

    for _ in range(READERS):
        threading.Thread(target=one, daemon=True).start()


def measure_restarts(bench: Bench, options: argparse.Namespace) -> None:
    """From a kill to the first act of the new worker, and what the page takes meanwhile."""
    machine = bench.machine
    births = Births(machine)
    loop = reconcile(machine, births, "30s")
    spec = machine.base / "keeps.yaml"
    times: dict[bool, list[float]] = {False: [], True: []}
    runs = max(1, options.runs // TURNS)
    try:
        since, pid = births.next("daemon")
        for turn in range(2 * TURNS):
            page = Serving(machine, spec) if turn % 2 else None
            if page is not None:
                read(page)
                time.sleep(3)  # It makes sure of the spec once.
            for _ in range(runs):
                time.sleep(max(0.0, since + random.uniform(1.5, 2.5) - time.monotonic()))
                begin = time.monotonic()
                os.kill(pid, signal.SIGKILL)
                since, pid = births.next("daemon")
                times[page is not None].append(since - begin)
            if page is not None:
                page.kill()
        page = Serving(machine, spec)
        page.text()
        rest, before = 5.0, cpu_time(page.pid)
        time.sleep(min(rest, options.idle))
        alone = cpu_time(page.pid) - before
        read(page)
        time.sleep(min(rest, options.idle))  # They have all been shown it once.
        before, begin = cpu_time(page.pid), time.monotonic()
        time.sleep(options.idle)
        used, weight = cpu_time(page.pid) - before, memory(page.pid)
        seconds = time.monotonic() - begin
        page.kill()
    finally:
        loop.end()
    bench.row(
        f"`kill -9` of a daemon until it runs again, with the page and {READERS} readers",
        words(times[True]), f"without it {words(times[False])}", "the same",
    )  # fmt: skip
    bench.row(
        f"CPU time of the page with {READERS} readers for {seconds:.0f} s",
        f"{used:.2f} s: {used / seconds:.2%} of a core",
        f"without readers, {min(rest, options.idle):.0f} s: {alone:.2f} s", "1 %",
    )  # fmt: skip
    bench.row("memory of the page then", str(weight), "", "60 MiB (62.9 MB)")


def measure_metrics(bench: Bench, options: argparse.Namespace) -> None:
    """The metrics of many resources, by the command and by the page."""
    machine, number = bench.machine, options.resources
    lines = ["version: 1", "name: many", "directories:"]
    lines += [f"  d{at}: {{path: {machine.base}/d/{at // 100}/{at}}}" for at in range(number)]
    spec = machine.spec("\n".join(lines) + "\n", "many.yaml")
    machine.once(spec)
    command = [str(one) for one in machine.argv("--metrics", spec)]
    bare = [str(machine.bin / "python"), "-c", "pass"]
    whole, interpreter = bench.medians(command, bare)
    page = Serving(machine, spec)
    try:
        page.text("/metrics")
        begin = time.perf_counter()
        for _ in range(20):
            page.text("/metrics")
        again = (time.perf_counter() - begin) / 20
        text = page.text()
    finally:
        page.kill()
    bench.row(
        f"`--metrics` of {number:,} resources", milliseconds(whole),
        f"bare interpreter {milliseconds(interpreter)}; /metrics of the page, which all that ask "
        f"within 2 s share, {milliseconds(again)}", "150 ms",
    )  # fmt: skip
    bench.row(f"the page of {number:,} resources", f"{len(text) / 1e3:.0f} kB", "", "")


if __name__ == "__main__":
    main()
