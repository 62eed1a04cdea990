"""Compiling is fast enough to be done after every change; figures are printed."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from typing import Any

from support import LONG

SCRIPT = """
import time
start = time.process_time()
from reconciler import kinds
from reconciler.base.values import Facts
from reconciler.config import load
spec = load({path!r}, all_kinds=kinds.all_kinds,
    facts=Facts("u", "/u", 0, "h", True, True, True, "/s"), settings=dict, environ={{}},
    state_dir={state!r}, write_cache=True)
print(len(spec.resources), time.process_time() - start,
    int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) // 1024)
"""


def test_a_thousand_directories(free: None, room: Any, capsys: Any) -> None:
    entries = "".join(
        f'  d{i}: {{path: "{{{{ base }}}}/d{i}", mode: "0755", owner: root}}\n' for i in range(1000)
    )
    path = room.write(f"version: 1\nname: speed\nvars: {{base: /srv}}\ndirectories:\n{entries}")
    script = SCRIPT.format(path=str(path), state=str(room.state))
    figures = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=LONG
        )
        count, seconds, megabytes = done.stdout.split()
        assert count == "1000"
        figures.append((float(seconds), int(megabytes)))
    with capsys.disabled():
        (first, _), (second, memory) = figures
        print(f"\n1,000 directories: compiled in {first:.2f} s, loaded in {second:.3f} s "
              f"({memory} MB)")  # fmt: skip
    assert first < 10
    assert second < first / 2


def test_work_and_memory_grow_with_the_resources(room: Any) -> None:
    def cost(number: int) -> tuple[int, int]:
        entries = "".join(f"  d{at}: {{path: '{{{{ base }}}}/d{at}'}}\n" for at in range(number))
        room.write(f"version: 1\nname: speed\nvars: {{base: /srv}}\nfolders:\n{entries}")
        calls = 0

        def count(*_: Any) -> None:
            nonlocal calls
            calls += 1

        room.load()  # What is read once is not counted.
        sys.setprofile(count)
        room.load()
        sys.setprofile(None)
        tracemalloc.start()
        try:
            room.load()
            return calls, tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    few, many = cost(100), cost(1000)
    assert many[0] < 10.2 * few[0]
    assert many[1] < 10 * few[1]
    assert many[1] / 1000 < 2000, "bytes for each resource"
