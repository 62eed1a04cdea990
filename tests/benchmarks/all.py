"""The whole table, each part in a process of its own, in some eight minutes on a quiet machine.

    .venv-tests/bin/python tests/benchmarks/all.py [--small] [PART...]

prints one table in Markdown, ready for tests/README.md: when and on what it was measured, all rows,
and the load before each part. A part that fails, or takes too long, is a row that says so; a peer
that is not to be had is named in its row. ``--small`` is for trying it out.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from threading import Timer

from bench import surroundings

PARTS = {
    "passes": ("passes.py --runs 5", "passes.py --runs 1 --sizes 2,20"),
    "journal": ("journal.py --runs 5", "journal.py --runs 1 --many 5,5,3,2"),
    "run": ("run.py --runs 5", "run.py --runs 1 --sizes 3,30 --files 200"),
    "daemons": ("daemons.py --runs 3", "daemons.py --runs 1 --sizes 2,4 --matched 2,4"),
    "programs": ("programs.py", "programs.py --sizes 2,4 --sessions 1,2 --units 1,2"),
    "trees": (
        "trees.py --runs 1 --blocks 10,100,1000 --files 2000,20000,200000",
        "trees.py --runs 1 --blocks 2,20 --files 20,200 --due 10,100",
    ),
    "watch": (
        "watch.py --runs 3 --idle 60 --only many,idle,directories",
        "watch.py --runs 1 --idle 1 --only many,idle,directories --many 8",
    ),
    "one": ("watch.py --idle 60 --only one", "watch.py --idle 1 --only one"),
    "page": ("page.py --runs 12 --idle 60", "page.py --runs 1 --idle 1 --resources 10"),
    "kills": ("kills.py --kills 50 --busy 4", "kills.py --kills 2 --busy 1 --only alone,stopping"),
}
LONGEST = 300.0
"""Seconds for one part."""
_ENDING = 30.0
"""Seconds to take away what it has started."""
VERSIONS = {
    "tmux": "tmux -V", "systemd": "systemctl --version", "find": "find --version",
    "tar": "tar --version", "supervisord": f"{Path(sys.executable).parent}/supervisord --version",
}  # fmt: skip


def main() -> None:
    """Measure the parts that are named, or all, and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--small", action="store_true")
    parser.add_argument("part", nargs="*", choices=[*PARTS, []], help="by default all of them")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"{surroundings()}; {versions()}\n")
    print("| what | measured | beside it | target |\n|---|---|---|---|", flush=True)
    begin, loads = time.monotonic(), []
    for name in options.part or PARTS:
        loads.append(f"{name} {os.getloadavg()[0]:.1f}")
        before = time.monotonic()
        measured(name, PARTS[name][options.small].split())
        print(f"{name}: {time.monotonic() - before:.0f} s", file=sys.stderr, flush=True)
    took = f"In {time.monotonic() - begin:.0f} s"
    print(f"\n{took}; load at the beginning {load:.1f}, before each part: {', '.join(loads)}.")


def measured(name: str, words: list[str]) -> None:
    """Print the rows of one part, as they come."""
    here = Path(__file__).resolve().parent
    with tempfile.TemporaryFile("w+") as errors:
        running = subprocess.Popen(
            [sys.executable, here / words[0], *words[1:]],
            stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True,
        )  # fmt: skip
        assert running.stdout is not None
        # It takes away what it has started.
        ends = (Timer(LONGEST, running.send_signal, [signal.SIGINT]),
                Timer(LONGEST + _ENDING, running.kill))  # fmt: skip
        begin = time.monotonic()
        for end in ends:
            end.start()
        for line in running.stdout:
            if line.startswith("| ") and not line.startswith("| what "):
                print(line, end="", flush=True)
        status = running.wait()
        for end in ends:
            end.cancel()
        if status:
            errors.seek(0)
            why = (errors.read().strip().splitlines() or [f"status {status}"])[-1]
            if time.monotonic() - begin >= LONGEST:
                why = f"it took longer than {LONGEST:.0f} s"
            print(f"| the rest of {name} | left out | {why.replace('|', '/')[:200]} | |")


def versions() -> str:
    """Of what is measured beside it, as far as it is here."""
    found = []
    for name, command in VERSIONS.items():
        if shutil.which(command.split()[0]) is None:
            found.append(f"no {name}")
            continue
        said = subprocess.run(command.split(), capture_output=True, text=True, check=False).stdout
        number = next((word for word in said.split() if word[:1].isdigit()), "?")
        found.append(f"{name} {number}")
    return ", ".join(found)


if __name__ == "__main__":
    main()
