"""kill -9 of one worker, again and again, beside supervisord, s6, runit and systemd in one run; and
the same while the loop is busy with something that takes long.

    .venv-tests/bin/python tests/benchmarks/kills.py [--kills 50] [--busy 10] [--only alone,…]

prints a table in Markdown. Nothing outside a temporary folder is touched: what is not installed is
unpacked there, and systemd is that of a disposable host.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench import Bench, corner, milliseconds
from births import Births
from keepers import Keeper, supervise, supervisord
from looping import Looping
from machine.disposable import SYSTEMD, DisposableHost
from machine.possible import why_not
from support import CHECKOUT, Machine, until

_LONG = 0.5
"""Seconds for one restart."""
TARGET = "median 25 ms, p99 100 ms"
KEEPS = "  daemon: {{command: {}, restart: {{healthy_after: 1s}}}}\n"
UNIT = """[Service]
ExecStart={}
Restart=always
RestartSec=0
[Unit]
StartLimitIntervalSec=0
"""
Find = Callable[[int], int]
"""The number by which a worker is killed, of that which it has told."""


def main() -> None:
    """Measure what was asked for, and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--busy", type=int, default=10, help="kills while the loop is busy")
    parser.add_argument("--size", type=int, default=1 << 30, help="bytes to be compressed")
    parser.add_argument("--files", type=int, default=100_000, help="to be archived")
    parser.add_argument("--only", default=",".join(("alone", *BUSY)))
    options = parser.parse_args()
    for at, name in enumerate(options.only.split(",")):
        with corner() as machine:
            bench = Bench(machine, options.kills)
            if at == 0:
                bench.heading()
            if name == "alone":
                measure_alone(bench)
            else:
                measure_busy(bench, name, options)


def measure_alone(bench: Bench) -> None:
    """All keepers at once, each worker killed in turns."""
    machine = bench.machine
    births = Births(machine)
    with ExitStack() as ends:
        text = f"version: 1\nname: keeps\nloop: {{every: 30s}}\nprocesses:\n{kept(births)}"
        loop = Looping(machine, machine.spec(text, "keeps.yaml"))
        ends.callback(loop.end)
        known: dict[str, tuple[Births, Find]] = {"daemon": (births, int)}
        missing = []
        for one in (
            supervisord(machine, births, ["supervisord"]),
            supervise(machine, births, "s6"),
            supervise(machine, births, "runit"),
        ):
            if isinstance(one, Keeper):
                ends.callback(one.end)
                known[one.name] = births, int
            else:
                missing.append(one)
        why = why_not(SYSTEMD)
        if why is None:
            known["systemd"] = ends.enter_context(under_systemd(machine))
        else:
            missing.append(why)
        times = kills(known, bench.runs)
    ours = times.pop("daemon")
    beside = [f"{name} {words(seen)}" for name, seen in times.items()]
    what = f"`kill -9` of one worker, {bench.runs} times, until the new one runs"
    bench.row(what, words(ours), "; ".join((*beside, *missing)), TARGET)


def kept(births: Births) -> str:
    return KEEPS.format(births.argv("daemon"))


@contextmanager
def under_systemd(machine: Machine) -> Iterator[tuple[Births, Find]]:
    """A worker that systemd keeps, on a host of its own."""
    with DisposableHost() as host:
        host.boot()
        host.run("mkdir", "/run/worker")
        births = Births(machine, host.path("/run/worker"), "/run/worker")
        host.write(
            "/etc/systemd/system/worker.service", UNIT.format(" ".join(births.argv("systemd")))
        )
        host.run("systemctl", "daemon-reload")
        host.run("systemctl", "start", "worker")

        def outside(pid: int) -> int:
            for one in host.outside():
                status = Path(f"/proc/{one}/status").read_text()
                line = next(line for line in status.splitlines() if line.startswith("NSpid:"))
                if line.split()[-1] == str(pid):
                    return one
            raise SystemExit(f"systemd's worker {pid} is not found")

        yield births, outside


def kills(
    known: dict[str, tuple[Births, Find]], runs: int, goes_on: Callable[[], bool] = lambda: True
) -> dict[str, list[float]]:
    """Seconds from each kill to the next birth, by worker. Each has run for a second at least.

    Who takes a second for it each time is killed in every fifth round only.
    """
    now = {name: births.next(name) for name, (births, _) in known.items()}
    times: dict[str, list[float]] = {name: [] for name in known}
    for number in range(runs):
        if not goes_on():
            break
        pause = random.uniform(1.6, 2.0)
        for name, (births, find) in known.items():
            if number % 5 and times[name][0] > _LONG:
                continue
            since, pid = now[name]
            time.sleep(max(0.0, since + pause - time.monotonic()))
            pid = find(pid)
            begin = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            now[name] = births.next(name)
            times[name].append(now[name][0] - begin)
    return times


def words(times: Sequence[float]) -> str:
    """The median and the 99th percentile."""
    slow = sorted(times)[min(len(times) - 1, int(len(times) * 0.99))]
    return f"{milliseconds(statistics.median(times))} (p99 {milliseconds(slow)})"


# -- while the loop is busy


def compressing(machine: Machine, options: argparse.Namespace) -> tuple[str, Callable[[], bool]]:
    logs = machine.base / "logs"
    logs.mkdir()
    piece = os.urandom(1 << 19).hex().encode()
    with open(logs / "a.log", "wb") as file:
        for _ in range(max(1, options.size // len(piece))):
            file.write(piece)
    rule = f"{{path: {logs}, match: '*.log', max_file: 1KiB, action: rotate, compress: true}}"
    return f"retention: {{r: {rule}}}\n", lambda: not (logs / "a.log.1.gz").exists()


def archiving(machine: Machine, options: argparse.Namespace) -> tuple[str, Callable[[], bool]]:
    from trees import SIZE, fill

    top, goal = machine.base / "files", machine.base / "to.tar.gz"
    fill(top, options.files, SIZE)
    rule = f"{{path: {top}, recursive: true, older_than: 30m, action: archive, to: {goal}}}"
    return f"retention: {{r: {rule}}}\n", lambda: not goal.exists()


def stopping(machine: Machine, options: argparse.Namespace) -> tuple[str, Callable[[], bool]]:
    """One that does not heed TERM, and is to be stopped."""
    mark = f"8400{os.getpid()}"
    command = f"[sh, -c, 'trap : TERM; while :; do sleep {mark}; done']"
    stop = "stop: {timeout: 300s}"
    spec = machine.spec(
        f"version: 1\nname: keeps\nprocesses:\n  slow: {{command: {command}, {stop}}}\n",
        "keeps.yaml",
    )
    machine.once(spec)
    options.ends.callback(lambda: [os.kill(one, 9) for one in machine.running(mark)])
    text = f"  slow: {{command: {command}, {stop}, state: absent}}\n"
    return text, lambda: bool(machine.running(f"sleep {mark}"))


def slow_tmux(machine: Machine, options: argparse.Namespace) -> tuple[str, Callable[[], bool]]:
    real = shutil.which("tmux")
    folder = machine.base / "slow"
    folder.mkdir()
    (folder / "tmux").write_text(f'#!/bin/sh\n: >{folder}/asked\nsleep 8\nexec {real} "$@"\n')
    (folder / "tmux").chmod(0o755)
    machine.environ["PATH"] = f"{folder}:{machine.environ['PATH']}"
    options.ends.callback(lambda: (folder / "asked").unlink())  # It was asked.
    return "sessions: {s: {}}\n", lambda: True


def hanging(machine: Machine, options: argparse.Namespace) -> tuple[str, Callable[[], bool]]:
    """A directory behind a mount that does not answer."""
    mount = machine.base / "mount"
    mount.mkdir()
    argv = [sys.executable, str(CHECKOUT / "tests/mute.py"), str(mount), "lookup"]
    made = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert made.stdout is not None
    made.stdout.readline()

    def end() -> None:
        subprocess.run(["umount", "-l", mount], check=True)
        made.kill()
        made.wait()

    options.ends.callback(end)
    return f'directories: {{d: {{path: {mount}/data/x, mode: "0755"}}}}\n', lambda: True


BUSY: dict[
    str, tuple[str, Callable[[Machine, argparse.Namespace], tuple[str, Callable[[], bool]]]]
] = {
    "compressing": ("compresses 1 GiB", compressing),
    "archiving": ("archives 100,000 files", archiving),
    "stopping": ("waits for a slow stop", stopping),
    "tmux": ("waits for a slow tmux", slow_tmux),
    "hanging": ("waits for a hanging mount", hanging),
}


def measure_busy(bench: Bench, name: str, options: argparse.Namespace) -> None:
    """Kills for as long as the loop is busy, at most so many."""
    what, make = BUSY[name]
    what = f"the same while the loop {what}"
    if name == "hanging" and os.geteuid():
        bench.row(what, "left out", "needs root", TARGET)
        return
    machine = bench.machine
    births = Births(machine)
    with ExitStack() as options.ends:
        more, goes_on = make(machine, options)
        # What belongs to the processes stands first.
        head = "version: 1\nname: keeps\nloop: {every: 2s}\nprocesses:\n"
        text = f"{head}{kept(births)}{more}"
        loop = Looping(machine, machine.spec(text, "keeps.yaml"))
        options.ends.callback(loop.end)
        until(lambda: loop.pulse() is not None or loop.ended(), 60)
        times = kills({"daemon": (births, int)}, options.busy, goes_on)["daemon"]
    if not times:
        raise SystemExit(f"{name}: it was over before anything was killed")
    bench.row(what, words(times), f"{len(times)} kills", TARGET)


if __name__ == "__main__":
    main()
