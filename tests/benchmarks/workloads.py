"""What the loop is given to keep while it is measured."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from support import Machine, until


def rich_spec(machine: Machine) -> Path:
    """Some of everything that is there without systemd."""
    base = machine.base
    (base / "kept").mkdir()
    for at in range(50):
        (base / "kept" / f"{at}.log").write_text("x\n")
    lines = ["version: 1", "name: rich", "loop: {every: 1h}", "directories:"]
    lines += [f'  d{at}: {{path: {base}/d/{at}, mode: "0750"}}' for at in range(40)]
    lines += [f"permissions: {{p: {{path: {base}/d, recursive: true, dir_mode: '0750'}}}}"]
    lines += [f"retention: {{r: {{path: {base}/kept, older_than: 1d, action: delete}}}}"]
    lines += ["blocks:", f"  b: {{path: {base}/text, content: some text}}"]
    lines += ["cron:", '  c: {schedule: "0 3 * * *", command: "true"}']
    lines += ["sessions: {s: {windows: [{name: one}, {name: two}]}, t: {}}", "processes:"]
    restart = "restart: {healthy_after: 50ms, backoff: {initial: 10ms, max: 10ms}}"
    for name, place in (("a", ""), ("b", ", instances: 3"), ("c", ", session: t")):
        lines += [f"  {name}: {{command: [sleep, '3{ord(name)}'], {restart}{place}}}"]
    return machine.spec("\n".join(lines) + "\n", "rich.yaml")


def hurt(machine: Machine) -> None:
    """Something of each sort that comes back: a folder, a daemon, one in a window."""
    (machine.base / "d/7").rmdir()
    (machine.base / "d/8").chmod(0o700)
    for command in ("sleep 397", "sleep 399"):
        until(lambda line=command: machine.running(line))
        for pid in machine.running(command):
            os.kill(pid, signal.SIGKILL)
