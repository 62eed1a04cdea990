"""The whole table, each part in a process of its own, in less than ten minutes on a quiet machine.

    .venv-tests/bin/python tests/benchmarks/all.py [PART...]

prints one table in Markdown, and how long each part took.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

PARTS = {
    "passes": ("passes.py", "--runs", "5"),
    "run": ("run.py", "--runs", "5"),
    "daemons": ("daemons.py", "--runs", "3"),
    "programs": ("programs.py",),
    "trees": ("trees.py", "--runs", "1", "--blocks", "100,1000", "--files", "2000,20000,200000"),
    "watch": ("watch.py", "--runs", "3", "--idle", "60", "--only", "many,idle,directories"),
    "one": ("watch.py", "--idle", "60", "--only", "one"),
    "page": ("page.py", "--runs", "12", "--idle", "60"),
    "kills": ("kills.py", "--kills", "50", "--busy", "6"),
}


def main() -> None:
    """Run the parts that are named, or all."""
    here = Path(__file__).resolve().parent
    for number, name in enumerate(sys.argv[1:] or PARTS):
        script, *options = PARTS[name]
        begin, load = time.monotonic(), os.getloadavg()[0]
        argv = [sys.executable, str(here / script), *options]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as running:
            assert running.stdout is not None
            for line in running.stdout:
                heads = not line.startswith("| ") or line.startswith("| what ")
                if number == 0 or not heads:
                    print(line, end="", flush=True)
        status = running.returncode
        ended = "" if status == 0 else f", status {status}"
        words = f"{name}: {time.monotonic() - begin:.0f} s, load before it {load:.1f}{ended}"
        print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
