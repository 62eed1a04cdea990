"""kill -9 of the loop at any moment while things break: the next mends all, nothing doubles."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from births import Births
from looping import Looping
from stored import stored
from support import Machine, until

WORKERS = ["w0", "w1", "w2", "t0", "t1"]
SPEC = """version: 1
name: demo
loop: {{every: 1h}}
directories:
  d: {{for_each: [0, 1, 2, 3], path: "{base}/d/{{{{ each }}}}", mode: "0750"}}
sessions: {{s: {{}}}}
processes:
  w: {{for_each: [w0, w1, w2], command: {worker}, {restart}}}
  t: {{for_each: [t0, t1], command: {worker}, session: s, {restart}}}
  bad: {{command: "echo x >> {base}/tries; exit 3",
    restart: {{attempts: 1000, backoff: {{initial: 100ms, max: 200ms}}}}}}
"""
OFTEN = "restart: {attempts: 1000, backoff: {initial: 20ms, max: 100ms}, healthy_after: 200ms}"


class Chaos(threading.Thread):
    """Breaks something every few hundredths of a second, unless it is held."""

    def __init__(self, machine: Machine, births: Births, seed: int) -> None:
        super().__init__()
        self.machine = machine
        self.births = births
        self.random = random.Random(seed)
        self.held = threading.Lock()
        self.done = threading.Event()
        self.broken = 0

    def run(self) -> None:
        acts = [self.kill, self.kill, self.remove, self.close, self.close]
        while not self.done.wait(self.random.uniform(0.01, 0.06)):
            with self.held, contextlib.suppress(FileNotFoundError, ProcessLookupError):
                self.random.choice(acts)()
                self.broken += 1

    def kill(self) -> None:
        """Some worker; once in a while the tmux server, with all that runs in it."""
        if self.random.random() < 0.03:
            self.machine.tmux("kill-server")
            return
        if running := self.machine.running("sleep 100000"):
            os.kill(self.random.choice(running), signal.SIGKILL)

    def remove(self) -> None:
        self.folder().rmdir()

    def close(self) -> None:
        self.folder().chmod(0o500)

    def folder(self) -> Path:
        return self.machine.base / "d" / str(self.random.randrange(4))


@pytest.fixture
def births(machine: Machine) -> Iterator[Births]:
    made = Births(machine)
    yield made
    made.close()


def attempts(machine: Machine) -> int:
    """How often the one that always fails was tried, as the store of a killed loop has it."""
    rows = stored(machine, "SELECT count FROM attempts WHERE id = 'process:bad'")
    return int(rows[0][0]) if rows else 0


def tries(machine: Machine) -> int:
    path = machine.base / "tries"
    return len(path.read_text()) // 2 if path.exists() else 0


def converges(machine: Machine, births: Births, spec: Path) -> None:
    """All is mended but what cannot be, and each worker runs once."""

    def mended() -> bool:
        done = machine.reconcile("--plan", spec, "--json")
        if "somebody was killed while he wrote to the store" in done.stderr:
            return False  # Which the next loop undoes before it acts.
        plan = json.loads(done.stdout)
        ids = {step["id"] for step in plan["steps"]} | {one["id"] for one in plan["skipped"]}
        return ids <= {"process:bad"} and not plan["unknown"]

    until(mended)
    # One that was started a moment ago comes to its first line only later.
    until(lambda: births.living(machine) == sorted(WORKERS))


@pytest.mark.parametrize("kills", [5, pytest.param(200, marks=pytest.mark.slow)])
def test_the_loop_is_killed_while_things_break(
    machine: Machine, births: Births, kills: int
) -> None:
    worker = str(births.argv("{{ each }}")).replace("'", '"')
    spec = machine.spec(SPEC.format(base=machine.base, worker=worker, restart=OFTEN))
    moments = random.Random(kills)
    chaos = Chaos(machine, births, kills)
    chaos.start()
    known = uncounted = 0
    try:
        number = 0
        while number < kills or known < 2 or chaos.broken <= 5 * kills:
            number += 1
            assert number < kills + 50
            loop = Looping(machine, spec)
            # As it starts, as it mends, as it sleeps; later on a loaded machine.
            time.sleep(moments.uniform(0.02, 0.9) * max(1, number - kills))
            assert loop.process.poll() is None, loop.errors.read_text()
            loop.kill()
            living = births.living(machine)
            assert len(living) == len(set(living)), living
            now = attempts(machine)
            assert now >= known
            # The first start counts once it is known to have failed. What is started is started
            # before it is written down: a kill loses one count at most, and what it has started
            # may have come to its first line only later.
            uncounted, before = tries(machine) - now, uncounted
            assert uncounted <= max(before, 1) + 2
            known = now
            if number % 20 == 0:
                with chaos.held:
                    loop = Looping(machine, spec)
                    converges(machine, births, spec)
                    loop.kill()
        chaos.done.set()
        chaos.join()
        loop = Looping(machine, spec)
        converges(machine, births, spec)
        assert loop.end() == 0
        assert chaos.broken > 5 * kills
    finally:
        chaos.done.set()
        chaos.join()
        loop.kill()


# Ends in the midst of a change of which a part has reached the file already.
_INTERRUPTED = """
import os, sqlite3, sys
base = sqlite3.connect(sys.argv[1], isolation_level=None)
base.execute("PRAGMA cache_size = 1")
base.execute("BEGIN IMMEDIATE")
base.execute("DELETE FROM attempts")
base.executemany("INSERT INTO history (why) VALUES (?)", [("x" * 9000,) for _ in range(100)])
os.kill(os.getpid(), 9)
"""


def test_what_a_killed_one_had_begun_to_write_is_undone(machine: Machine) -> None:
    spec = machine.spec(
        f'processes: {{bad: {{command: "echo x >> {machine.base}/tries; exit 3", '
        "restart: {backoff: {initial: 1h, max: 1h}}}}"
    )
    machine.once(spec, status=1)
    store = machine.state / "demo/store.db"
    machine.run(machine.bin / "python", "-c", _INTERRUPTED, store)
    assert store.with_name("store.db-journal").stat().st_size > 0
    done = machine.reconcile("--once", spec)
    assert "1 failed start" in done.stdout
    assert "store" not in done.stdout + done.stderr
    assert tries(machine) == 1
