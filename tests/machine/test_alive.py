"""``notify: {alive: …}``: somebody elsewhere hears of each pass, and so of a host that is dead."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from receiver import Receiver
from support import Machine, until

from reconciler.notify.alive import TIMEOUT

WELL, FAIL = "/hunter2canary?rid=1", "/hunter2canary/fail?rid=1"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.mode = "take"
    made.down()


def spec(machine: Machine, receiver: Receiver, every: str = "1h") -> Path:
    hook = machine.base / "alive_url"
    hook.write_text(f"http://{receiver.where}{WELL}\n")
    hook.chmod(0o600)
    return machine.spec(
        "version: 1\nname: demo\nloop: {every: 50ms}\n"
        f"notify: {{alive: {{url_file: {hook}, every: {every}}}}}\n"
        f"directories: {{d: {{path: {machine.base}/d}}}}\n"
    )


def broken(machine: Machine) -> Path:
    """No pass comes to its end while this is there: it is not known what is paused."""
    store = machine.state / "demo/store.db"

    def in_the_way() -> bool:
        # A pass of the loop may make one in between.
        store.unlink(missing_ok=True)
        with contextlib.suppress(FileExistsError):
            store.mkdir()
        return store.is_dir()

    until(in_the_way)
    return store


def test_a_loop_tells_of_its_passes(machine: Machine, looping: Any, receiver: Receiver) -> None:
    loop = looping(spec(machine, receiver)).up()
    until(lambda: receiver.pings)
    begun = loop.passes()
    until(lambda: loop.passes() > begun + 3)
    assert receiver.pings == [WELL], "once in an hour, as long as it is the same"
    store = broken(machine)
    until(lambda: receiver.pings == [WELL, FAIL])
    store.rmdir()
    until(lambda: receiver.pings == [WELL, FAIL, WELL])
    assert loop.end() == 0
    assert "hunter2canary" not in loop.output.read_text()


def test_each_pass_is_told_where_that_is_wanted(
    machine: Machine, looping: Any, receiver: Receiver
) -> None:
    loop = looping(spec(machine, receiver, "50ms"))
    until(lambda: len(receiver.pings) >= 4)
    assert set(receiver.pings) == {WELL}
    assert loop.end() == 0


def test_a_service_that_hangs_holds_up_no_pass(
    machine: Machine, looping: Any, receiver: Receiver
) -> None:
    receiver.mode = "hang"
    begun_at = time.monotonic()
    loop = looping(spec(machine, receiver, "50ms"))
    until(lambda: receiver.pings)
    begun = loop.passes()
    until(lambda: loop.passes() > begun + 3)
    made = machine.base / "d"
    made.rmdir()
    until(made.is_dir)
    asked = len(receiver.pings)
    waits = 1 + (time.monotonic() - begun_at) // TIMEOUT
    assert 1 <= asked <= waits, "the next one waits for its answer"
    assert set(receiver.pings) == {WELL}
    asked = len(receiver.pings)
    receiver.mode = "take"
    until(lambda: len(receiver.pings) > asked)
    assert loop.end() == 0


def test_single_passes_tell_how_they_ended(machine: Machine, receiver: Receiver) -> None:
    path = spec(machine, receiver)
    machine.once(path)
    machine.once(path, "--only", "directory:d")
    assert machine.reconcile("--plan", path).returncode == 0
    assert receiver.pings == [WELL], "neither a part of a pass nor a look is one"
    store = broken(machine)
    assert machine.reconcile("--once", path).returncode == 1
    assert receiver.pings == [WELL, FAIL]
    store.rmdir()
    receiver.mode = "refuse"
    done = machine.reconcile("--once", path)
    assert done.returncode == 0, "it is not the fault of the pass"
    assert "! alive: answered 404" in done.stdout
    assert "hunter2canary" not in done.stdout + done.stderr


def test_it_is_tried_and_noted_like_a_target(machine: Machine, receiver: Receiver) -> None:
    path = spec(machine, receiver)
    hook = machine.base / "alive_url"
    tested = machine.reconcile("--notify-test", path)
    assert (tested.returncode, tested.stdout) == (0, "alive: delivered\n")
    hook.write_text("ftp://hunter2canary/")
    tested = machine.reconcile("--notify-test", path, "--json")
    assert tested.returncode == 1
    assert json.loads(tested.stdout)["targets"] == [
        {"name": "alive", "result": "refused", "reason": "its URL is not one of http or https"}
    ]
    for wrong in ("http://hunter2canary:port/", "http://[hunter2canary/", "http://"):
        hook.write_text(wrong)
        tested = machine.reconcile("--notify-test", path)
        assert tested.returncode == 1
        assert "hunter2canary" not in tested.stdout + tested.stderr
    assert "alive: not delivered: " in tested.stdout
    hook.unlink()
    off = f"notify:alive: is off: {hook} is not there"
    assert off in machine.reconcile("--check", path).stdout
    assert off in machine.reconcile("--once", "-v", path).stdout
    assert "alive" not in machine.reconcile("--once", path).stdout, "cron would mail it each time"
    path.write_text(path.read_text().replace("url_file", "url_fil"))
    wrong = machine.reconcile("--check", path)
    assert wrong.returncode == 65
    assert "did you mean 'url_file'?" in wrong.stderr
