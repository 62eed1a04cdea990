"""First passes over what is made by other programs: cron lines, tmux sessions and units, at three
sizes with their growth; the processes that they take are counted in tests/machine.

    .venv-tests/bin/python tests/benchmarks/programs.py [--sizes 20,200,2000]
        [--sessions 5,50,500] [--units 10,100,300]

prints a table in Markdown. The crontab is a stand-in in a temporary folder, tmux has servers of its
own, and the systemd is that of a disposable host; without root the rows on units are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence

from bench import Bench, corner
from machine.disposable import SYSTEMD, DisposableHost
from machine.possible import why_not
from support import Machine

Pass = Callable[[int], float]
"""Makes a first pass over so many, from nothing, and gives its seconds."""


def sizes(text: str) -> list[int]:
    return [int(size) for size in text.split(",")]


def rows(bench: Bench, what: str, numbers: Sequence[int], make: Pass, target: str) -> None:
    """A row for each size, and how much longer it takes than the size before."""
    last: tuple[int, float] | None = None
    for number in numbers:
        took = make(number)
        beside = ""
        if last is not None:
            beside = (
                f"{took / last[1]:.1f} times {last[0]:,} ({number / last[0]:.0f} times as many)"
            )
        wanted = target if number == numbers[-1] else ""
        bench.row(f"first pass, {number:,} {what}", f"{took:.2f} s", beside, wanted)
        last = number, took


def timed(machine: Machine, section: str, lines: Sequence[str]) -> float:
    name = f"{section}{len(lines)}"
    spec = machine.spec("\n".join(["version: 1", f"name: {name}", f"{section}:", *lines]), name)
    begin = time.perf_counter()
    machine.once(spec)
    return time.perf_counter() - begin


def crons(machine: Machine, number: int) -> float:
    made = '  l{0}: {{schedule: "{1} 3 * * *", command: "true {0}"}}'
    took = timed(machine, "cron", [made.format(at, at % 60) for at in range(number)])
    machine.crontab.unlink()
    return took


def sessions(machine: Machine, number: int) -> float:
    pane = f"{{command: [sleep, '{machine.mark}']}}"
    made = f"  s{{0}}: {{{{windows: [{{{{name: w, panes: [{pane}]}}}}]}}}}".replace(pane, "{1}")
    took = timed(machine, "sessions", [made.format(at, pane) for at in range(number)])
    machine.clear()
    return took


def units(host: DisposableHost, number: int) -> float:
    text = "[Service]\nExecStart=/bin/sleep 1001\n[Install]\nWantedBy=multi-user.target\n"
    fields = {"content": text, "enabled": True, "active": True}
    took = 0.0
    for state in ("present", "absent"):
        made = {f"u{at}.service": {**fields, "state": state} for at in range(number)}
        document = {"version": 1, "name": "units", "units": made}
        host.write("/srv/units.yaml", json.dumps(document))
        begin = time.perf_counter()
        host.run(host.bin / "reconcile", "--once", "/srv/units.yaml")
        took = took or time.perf_counter() - begin
    return took


def main() -> None:
    """Measure all, and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", type=sizes, default=[20, 200, 2000])
    parser.add_argument("--sessions", type=sizes, default=[5, 50, 500])
    parser.add_argument("--units", type=sizes, default=[10, 100, 300])
    options = parser.parse_args()
    with corner() as machine:
        bench = Bench(machine, 1)
        bench.heading()
        rows(bench, "cron lines", options.sizes, lambda n: crons(machine, n), "5 s")
        rows(bench, "tmux sessions", options.sessions, lambda n: sessions(machine, n), "5 s")
        if os.geteuid() == 0 and not why_not(SYSTEMD):
            with DisposableHost() as host:
                host.boot()
                rows(
                    bench,
                    "units on a real systemd",
                    options.units,
                    lambda n: units(host, n),
                    "15 s",
                )


if __name__ == "__main__":
    main()
