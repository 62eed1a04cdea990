"""The wall clock is turned under a live loop, an hour back and ten years ahead: nobody notices.

What goes by the age of files does, and waits.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from births import Births
from looping import Looping
from support import Machine, late, passed, until

_NAME = "faketime/libfaketime.so.1"
LIBRARY = next(
    map(str, (*Path("/usr").glob(f"lib*/*/{_NAME}"), *Path("/usr").glob(f"lib*/{_NAME}"))), None
)
EVERY = 0.4
RETRY = 0.5
YEAR = 365.25 * 86400
JUMPS = ("-1h", "+10y", "+0")

pytestmark = pytest.mark.skipif(
    LIBRARY is None, reason="no clock can be turned without libfaketime: apt-get install faketime"
)


class Turned:
    """A wall clock of its own for a process, which can be turned as it runs.

    What the monotonic clock says and when files were changed stays true, as on a real host.
    """

    def __init__(self, machine: Machine) -> None:
        self._file = machine.base / "turned"
        self.turn("+0")
        self.environ = {
            "LD_PRELOAD": LIBRARY or "",
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }

    def turn(self, offset: str) -> None:
        """The clock stands so far beside the real one from now on, such as "-1h"."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{offset}\n")
        new.replace(self._file)


@pytest.fixture
def births(machine: Machine) -> Iterator[Births]:
    made = Births(machine)
    yield made
    made.close()


@pytest.fixture
def turned(machine: Machine) -> Iterator[Turned]:
    before = set(os.listdir("/dev/shm"))
    yield Turned(machine)
    machine.clear()
    for name in set(os.listdir("/dev/shm")) - before:
        # libfaketime leaves these behind, with the number of the process that made them.
        pid = name.rpartition("_")[2]
        if "faketime" in name and pid.isdigit() and not Path(f"/proc/{pid}").exists():
            (Path("/dev/shm") / name).unlink(missing_ok=True)


def test_the_clock_of_a_process_can_be_turned(machine: Machine, turned: Turned) -> None:
    code = (
        "import json, os, time; b = time.clock_gettime(time.CLOCK_BOOTTIME); "
        "print(json.dumps([time.time(), time.monotonic(), b, os.stat('turned').st_mtime]))"
    )
    turned.turn("+10y")
    done = machine.run(machine.bin / "python", "-c", code, environ=turned.environ)
    wall, monotonic, since_boot, changed = json.loads(done.stdout)
    assert abs(wall - time.time() - 10 * YEAR) < 5 * 86400
    assert abs(monotonic - time.monotonic()) < 30
    assert abs(since_boot - time.clock_gettime(time.CLOCK_BOOTTIME)) < 30
    assert abs(changed - time.time()) < 30


def spec(machine: Machine, births: Births) -> Path:
    worker = str(births.argv("w")).replace("'", '"')
    return machine.spec(
        f"""version: 1
name: demo
loop: {{every: {EVERY * 1000:.0f}ms}}
directories: {{old: {{path: {machine.base}/old}}}}
retention: {{r: {{path: {machine.base}/old, older_than: 1d, action: delete}}}}
processes:
  w: {{command: {worker}, restart: {{healthy_after: 100ms}}}}
  bad: {{command: "echo x >> {machine.base}/tries; exit 3",
    restart: {{attempts: 1000, backoff: {{initial: {RETRY * 1000:.0f}ms, factor: 1}}}}}}
"""
    )


def grown(seconds: float, *counts: Callable[[], int]) -> tuple[float, list[int]]:
    """By how much each has grown after so many seconds, and until all have; how long that was."""
    begin, before = time.monotonic(), [count() for count in counts]

    def more() -> list[int]:
        return [count() - then for count, then in zip(counts, before, strict=True)]

    passed(seconds)
    until(lambda: min(more()) >= 2)
    found = more()
    return time.monotonic() - begin, found


def test_a_live_loop_whose_clock_is_turned(
    machine: Machine, births: Births, turned: Turned
) -> None:
    kept = machine.base / "old/young"
    kept.parent.mkdir()
    kept.touch()
    aged = machine.base / "old/aged"
    aged.touch()
    os.utime(aged, (time.time() - 2 * 86400,) * 2)
    loop = Looping(machine, spec(machine, births), **turned.environ).up()
    try:
        until(lambda: not aged.exists())
        _, pid = births.next("w")
        for offset in JUMPS:
            told = len(loop.events())
            turned.turn(offset)
            # The loop itself lives by that clock now.
            until(lambda seen=told: len(loop.events()) > seen)
            until(lambda jump=offset: shifted(loop, jump))
            # No restart is missed: of one that was killed, of one that is held back.
            os.kill(pid, signal.SIGKILL)
            begin = time.monotonic()
            when, pid = births.next("w")
            assert not late(when - begin, 3)
            # No storm, and no standstill: of passes, of attempts.
            span, (passes, attempts) = grown(5 * EVERY, loop.passes, lambda: tries(machine))
            assert 2 <= passes <= span / EVERY + span / RETRY + 4
            assert 2 <= attempts <= span / RETRY + 1
            assert births.left() == 0
            assert kept.exists()
        words = [str(event.get("text")) for event in loop.events()]
        assert any("10 years ahead, so the age of files is not trusted" in text for text in words)
        assert loop.end() == 0
    finally:
        loop.kill()


def shifted(loop: Looping, offset: str) -> bool:
    """Does the last event bear a time of the turned clock?"""
    far = {"-1h": -3600.0, "+10y": 10 * YEAR, "+0": 0.0}[offset]
    return abs(loop.events()[-1]["time"] - time.time() - far) < 5 * 86400 * (abs(far) > 9e6) + 60


def tries(machine: Machine) -> int:
    path = machine.base / "tries"
    return len(path.read_text()) // 2 if path.exists() else 0
