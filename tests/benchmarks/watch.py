"""Figures of the loop, each beside other keepers of processes in the same run.

    .venv-tests/bin/python tests/benchmarks/watch.py [--runs 20] [--idle 600] [--passes 10000]
        [--directories 1000] [--many 200] [--only restart,idle,flat,directories,many] [--alone]

prints a table in Markdown. Nothing outside a temporary folder is touched: supervisord is
installed there from PyPI, and monit, where it is not installed, is unpacked there.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench import Bench, corner, milliseconds
from births import Births
from keepers import Keeper, beside_a_crash, monit, reconcile, supervisord
from looping import Looping, cpu_time, descriptors, memory
from support import CHECKOUT
from workloads import hurt, rich_spec

EVERY = "30s"
"""Between two full passes, as specs have it that say nothing else."""


def main() -> None:
    """Measure what was asked for, and print the table."""
    parts: dict[str, Callable[[Bench, argparse.Namespace], None]] = {
        "restart": measure_restart,
        "idle": measure_idle,
        "one": measure_one,
        "flat": measure_flat,
        "directories": measure_directories,
        "many": measure_many,
    }
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=20, help="kills of each worker")
    parser.add_argument("--idle", type=float, default=600, help="seconds")
    parser.add_argument("--passes", type=int, default=10_000)
    parser.add_argument("--directories", type=int, default=1000)
    parser.add_argument("--many", type=int, default=200, help="processes; a quarter is killed")
    parser.add_argument("--every", default=EVERY, help="loop.every of the restarts")
    parser.add_argument("--only", default=",".join(one for one in parts if one != "one"))
    parser.add_argument("--alone", action="store_true", help="without the other keepers")
    options = parser.parse_args()
    for at, name in enumerate(options.only.split(",")):
        with corner() as machine:
            bench = Bench(machine, options.runs)
            if at == 0:
                bench.heading()
            parts[name](bench, options)


def measure_restart(bench: Bench, options: argparse.Namespace) -> None:
    """From a kill to the first act of the new worker; all keepers at once, killed in turns."""
    machine = bench.machine
    births = Births(machine)
    loop = reconcile(machine, births, options.every)
    others = (
        []
        if options.alone
        else [supervisord(machine, births, ["supervisord"]), monit(machine, births)]
    )
    keepers = [one for one in others if isinstance(one, Keeper)]
    names = {"daemon": loop.pid, "tmux": loop.pid}
    names |= {one.name: one.pid for one in keepers}
    try:
        times = kills(births, names, options.runs)
    finally:
        for one in (loop, *keepers):
            one.end()
    if births.left():
        raise SystemExit("a worker was started twice")
    medians = {name: statistics.median(seen) for name, seen in times.items()}
    beside = [f"{one.name} {words(times[one.name])}" for one in keepers]
    beside += [one for one in others if isinstance(one, str)]
    for name, where in (("daemon", "a daemon"), ("tmux", "in a tmux session")):
        ours, ratio = medians[name], ""
        if theirs := medians.get("supervisord"):
            ratio = f"; {ours / theirs:.3f} of supervisord's"
        bench.row(
            f"`kill -9` of a worker, {where}, until the new one runs", words(times[name]),
            "; ".join(beside) + ratio, "100 ms; 0.1 of supervisord's",
        )  # fmt: skip
    machine.clear()
    loop = beside_a_crash(machine, births, options.every)
    try:
        delayed = kills(births, {"beside": loop.pid}, max(1, options.runs // 2))["beside"]
    finally:
        loop.end()
    bench.row(
        "that of a daemon, beside one that ends at once, 20 times a second", words(delayed),
        f"alone {words(times['daemon'])}", "no delay",
    )  # fmt: skip


def kills(births: Births, keepers: dict[str, int], runs: int) -> dict[str, list[float]]:
    """Seconds from each kill to the next birth, by worker; ``keepers`` has their keeper's pid.

    Each worker has run for the same time before it is killed, at least a second and a half, and
    at no set point of a keeper's own cycle.
    """
    now = {name: births.next(name) for name in keepers}
    times: dict[str, list[float]] = {name: [] for name in keepers}
    for _ in range(runs):
        pause = random.uniform(1.5, 2.5)
        for name, (since, pid) in now.items():
            time.sleep(max(0.0, since + pause - time.monotonic()))
            if name not in ("supervisord", "monit") and parent(pid) == keepers[name]:
                raise SystemExit(f"{name}: the worker is a child of its keeper")
            begin = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            now[name] = births.next(name)
            times[name].append(now[name][0] - begin)
    return times


def measure_idle(bench: Bench, options: argparse.Namespace) -> None:
    """What a loop costs that has nothing to do."""
    machine = bench.machine
    births = Births(machine)
    # Nothing that the machine's own systemd or cron would hear of.
    loop = Looping(machine, CHECKOUT / "specs/executor.yaml", "--set", "watchdog=false")
    other = "left out" if options.alone else supervisord(machine, births, ["supervisord"])
    pids = [loop.pid]
    try:
        loop.up(60)
        loop.full_pass()
        if isinstance(other, Keeper):
            births.next("supervisord")
            pids.append(other.pid)
        steps = loop.names().count("step")
        begin, before = time.monotonic(), [cpu_time(pid) for pid in pids]
        passes = loop.passes()
        time.sleep(options.idle)
        seconds = time.monotonic() - begin
        used = [cpu_time(pid) - then for pid, then in zip(pids, before, strict=True)]
        weights = [memory(pid) for pid in pids]
        passes = loop.passes() - passes
        if loop.names().count("step") != steps:
            raise SystemExit(f"it was not idle: {loop.events()}")
    finally:
        loop.end()
        if isinstance(other, Keeper):
            other.end()
    shares = [f"{seconds_used / seconds:.3%}" for seconds_used in used]
    found = isinstance(other, Keeper)
    bench.row(
        f"CPU time, idle over `specs/executor.yaml` for {seconds:.0f} s, {passes} passes",
        f"{used[0]:.2f} s: {shares[0]} of a core",
        f"supervisord, one worker: {used[1]:.2f} s: {shares[1]}" if found else str(other),
        "0.03 %",
    )
    bench.row(
        "memory then", str(weights[0]),
        f"supervisord {weights[1]}" if found else str(other), "30 MB",
    )  # fmt: skip


def measure_one(bench: Bench, options: argparse.Namespace) -> None:
    """What a loop costs that keeps one daemon and has nothing to do."""
    births = Births(bench.machine)
    text = f"version: 1\nname: one\nprocesses: {{one: {{command: {births.argv('one')}}}}}\n"
    loop = Looping(bench.machine, bench.machine.spec(text, "one.yaml")).up(60)
    try:
        loop.full_pass()
        loop.rest()
        passes, before = loop.passes(), cpu_time(loop.pid)
        time.sleep(options.idle)
        used, passes = cpu_time(loop.pid) - before, loop.passes() - passes
    finally:
        loop.end()
    bench.row(
        f"CPU time, idle over one daemon for {options.idle:.0f} s, {passes} passes",
        f"{used:.2f} s: {used / options.idle:.3%} of a core", "", "0.005 %",
    )  # fmt: skip


def measure_flat(bench: Bench, options: argparse.Namespace) -> None:
    """Memory and descriptors many passes later, with something to mend in every fiftieth."""
    machine = bench.machine
    loop = Looping(machine, rich_spec(machine)).up(60)
    first, warm = min(100, options.passes // 10), options.passes // 10
    last = warm + options.passes
    seen = {}
    try:
        for at in range(1, last + 1):
            if at % 50 == 20:
                hurt(machine)
            loop.full_pass(60)
            if at in (first, warm, last):
                loop.rest()
                seen[at] = memory(loop.pid).rss, descriptors(loop.pid)
    finally:
        loop.end()
    begin, end = seen[warm], seen[last]
    bench.row(
        f"memory after {warm:,} passes and {options.passes:,} more, {last // 50} times repaired",
        f"{end[0]:.2f} MB",
        f"before those {begin[0]:.2f} MB: {end[0] / begin[0] - 1:+.1%}; "
        f"after the first {first} {seen[first][0]:.2f} MB",
        "2 %",
    )
    bench.row("open descriptors then", str(end[1]), f"before those {begin[1]}", "the same")


def measure_directories(bench: Bench, options: argparse.Namespace) -> None:
    """CPU time of a full pass that finds nothing to do."""
    machine, passes = bench.machine, min(50, options.passes)
    lines = ["version: 1", "name: many", "loop: {every: 1h}", "directories:"]
    lines += [
        f'  d{at}: {{path: "{machine.base}/d/{at // 100:02}/{at:04}", mode: "0750"}}'
        for at in range(options.directories)
    ]
    loop = Looping(machine, machine.spec("\n".join(lines) + "\n", "many.yaml")).up(60)
    try:
        for _ in range(3):
            loop.full_pass()
        loop.rest()
        before = cpu_time(loop.pid)
        for _ in range(passes):
            loop.full_pass()
        used = (cpu_time(loop.pid) - before) / passes
        weight = memory(loop.pid)
    finally:
        loop.end()
    python = [str(machine.bin / "python"), "-c", "pass"]
    (bare,) = Bench(machine, min(15, options.passes)).medians(python)
    bench.row(
        f"CPU time of a full pass over {options.directories:,} directories within the loop",
        f"{used * 1000:.1f} ms", f"bare interpreter {milliseconds(bare)}: {used / bare:.1f} times",
        "40 ms",
    )  # fmt: skip
    bench.row("memory of that loop", str(weight), "", "")


def measure_many(bench: Bench, options: argparse.Namespace) -> None:
    """A quarter of many processes dies at the same moment."""
    machine, number = bench.machine, options.many
    killed = number // 4
    births = Births(machine)
    names = [f"p{at:03}" for at in range(number)]
    command = births.argv("{{ each }}")
    text = f"version: 1\nname: many\nloop: {{every: {options.every}}}\nprocesses:\n"
    text += f"  p: {{for_each: {names}, command: {command}}}\n".replace("'", '"')
    loop = Looping(machine, machine.spec(text, "many.yaml"))
    try:
        ours = mass_death(births, loop.up(300), number, killed)
    finally:
        loop.end()
    machine.clear()
    beside = "left out"
    if not options.alone:
        other = supervisord(machine, births, names)
        beside = str(other)
        if isinstance(other, Keeper):
            try:
                theirs = mass_death(births, other, number, killed)
            finally:
                other.end()
            beside = f"supervisord {theirs:.2f} s"
    bench.row(
        f"{killed} of {number} processes killed at once, until all are back, each once",
        f"{ours:.2f} s", beside, "",
    )  # fmt: skip


def mass_death(births: Births, keeper: Looping | Keeper, number: int, killed: int) -> float:
    """Seconds until so many are back, each of them once."""
    born = births.many(number)
    time.sleep(1.2)  # All have run for a while, whoever counts that.
    if len({name for _, name, _ in born}) != number or births.left():
        raise SystemExit("not every one was started once")
    victims = random.sample(born, killed)
    begin = time.monotonic()
    for _, _, pid in victims:
        os.kill(pid, signal.SIGKILL)
    back = births.many(killed)
    time.sleep(1.2)
    if sorted(name for _, name, _ in back) != sorted(name for _, name, _ in victims):
        raise SystemExit("others came back than had been killed")
    if births.left() or keeper.process.poll() is not None:
        raise SystemExit("one was started twice, or the keeper has ended")
    return back[-1][0] - begin


def words(times: Sequence[float]) -> str:
    """A median, and how far it went."""
    slowest = f" (slowest {milliseconds(max(times))})" if len(times) > 1 else ""
    return f"{milliseconds(statistics.median(times))}{slowest}"


def parent(pid: int) -> int:
    """Of a process, proc(5)."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


if __name__ == "__main__":
    main()
