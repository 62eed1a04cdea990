"""kill -9 of the loop while it has something to tell: every message arrives, and none twice."""

from __future__ import annotations

import os
import random
import re
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from looping import Looping
from receiver import Receiver
from stored import stored
from support import LONG, Machine, until

from reconciler.core.messages import in_one_line

GAVE_UP, WELL = "process:p gave up", "process:p recovered"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.down()


def spec(machine: Machine, receiver: Receiver) -> Path:
    base = machine.base
    return machine.spec(
        f"""version: 1
name: demo
loop: {{every: 1h}}
notify: {{targets: {{hook: {{url: "json://{receiver.where}/",
  on: [changed, failed, gave_up, recovered]}}}}}}
directories: {{d: {{for_each: [0, 1, 2, 3, 4, 5, 6, 7], path: "{base}/d/{{{{ each }}}}"}}}}
processes:
  p: {{command: "test -e {base}/good && exec sleep 90410; exit 3", restart:
    {{attempts: 2, backoff: {{initial: 50ms, max: 50ms}}, healthy_after: 300ms, retry_every: 1s}}}}
"""
    )


class Told:
    """What the outbox was ever seen to hold."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.bodies: dict[int, str] = {}

    def look(self) -> None:
        self.bodies.update(stored(self.machine, "SELECT seq, body FROM outbox"))

    def ever(self) -> int:
        """How many messages were ever put into it."""
        rows = stored(self.machine, "SELECT seq FROM sqlite_sequence WHERE name = 'outbox'")
        return int(rows[0][0]) if rows else 0

    def waiting(self) -> bool:
        """Is something still on its way? A live loop may be asked."""
        path = self.machine.state / "demo/store.db"
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as base:
            return bool(base.execute("SELECT count(*) FROM outbox").fetchone()[0])


def lived(machine: Machine, path: Path, seconds: float) -> None:
    """A loop that is killed after so long."""
    loop = Looping(machine, path)
    time.sleep(seconds)
    assert loop.process.poll() is None, loop.errors.read_text()
    loop.kill()


@pytest.mark.parametrize("kills", [4, pytest.param(60, marks=pytest.mark.slow)])
def test_the_loop_is_killed_while_it_has_something_to_tell(
    machine: Machine, receiver: Receiver, kills: int
) -> None:
    path, good = spec(machine, receiver), machine.base / "good"
    moments, told = random.Random(kills), Told(machine)
    good.touch()
    # In the midst of a delivery, for one.
    receiver.mode = "hang"
    begin = time.monotonic()
    loop = Looping(machine, path)
    until(lambda: receiver.asked)
    # How much longer than usual all takes on this machine now.
    slow = max(1.0, (time.monotonic() - begin) / 1.5)
    loop.kill()
    told.look()
    receiver.mode = "refuse"
    for number in range(kills):
        if number >= kills // 2 and told.bodies:
            accept(machine, receiver)
        if number % 3 == 1:
            good.unlink() if good.exists() else good.touch()
        with suppress(FileNotFoundError):
            (machine.base / "d" / str(number % 8)).rmdir()
        for pid in machine.running("sleep 90410"):
            os.kill(pid, signal.SIGKILL)
        lived(machine, path, moments.uniform(0.2, 1.5) * slow)
        told.look()
    accept(machine, receiver)
    # It is given up, while the loop is killed again and again.
    good.unlink(missing_ok=True)
    for pid in machine.running("sleep 90410"):
        os.kill(pid, signal.SIGKILL)
    deaths = 1 + kills
    while not stored(machine, "SELECT 1 FROM troubles WHERE event = 'gave_up'"):
        assert deaths < kills + 21
        # Longer each time: the machine may have become slower than it was at the start.
        lived(machine, path, moments.uniform(0.3, 1.4) * slow * (deaths - kills))
        told.look()
        deaths += 1
    good.touch()
    loop = Looping(machine, path)
    try:
        until(
            lambda: WELL in "".join(receiver.bodies()[-1:]) and not told.waiting(),
            LONG + (20 + kills) * slow,
        )
        assert loop.end() == 0
    finally:
        loop.kill()
    got = receiver.bodies()
    assert len(got) <= told.ever(), (
        "the child of a loop that was killed notes what it has delivered"
    )
    assert any(GAVE_UP in body for body in got)
    # In order, too: what was seen on its way is found again, by itself or in a digest. What was
    # given up goes first.
    arrived, at = "\n".join(map(in_one_line, got)), 0
    for _, body in sorted(told.bodies.items()):
        if GAVE_UP in body:
            assert in_one_line(body) in arrived
        elif not re.match(r"\d+ messages since ", body):
            at = arrived.index(in_one_line(body), at)
    assert told.bodies


def accept(machine: Machine, receiver: Receiver) -> None:
    """The target takes messages from now on, and the pause of what it has refused is over."""
    if receiver.mode == "refuse" and stored(machine, "SELECT 1 FROM outbox"):
        with closing(sqlite3.connect(machine.state / "demo/store.db")) as base, base:
            base.execute("UPDATE outbox SET due = 0")
    receiver.mode = "take"
