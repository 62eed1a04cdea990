"""The loop was killed, and its spec is broken by now: what runs goes on, and nothing is deleted."""

from __future__ import annotations

import os
import signal
import subprocess
import uuid
from typing import Any

import pytest
from receiver import Receiver
from support import LONG, Machine, until


@pytest.fixture
def receiver() -> Any:
    found = Receiver()
    yield found
    found.down()


class Known:
    """A spec that a loop has kept; then both the loop and its worker were killed."""

    def __init__(self, machine: Machine, looping: Any, receiver: Receiver) -> None:
        self.machine = machine
        self.mark = f"worker-{uuid.uuid4().hex}"
        self.unwanted = f"unwanted-{uuid.uuid4().hex}"
        self.withenv = f"env-{uuid.uuid4().hex}"
        base = machine.base
        (base / "old").mkdir()
        (base / "file").touch()
        url = base / "url"
        url.write_text(f"json://{receiver.where}/x\n")
        url.chmod(0o600)
        self.text = (
            "version: 1\nname: demo\nloop: {every: 200ms}\n"
            f"notify: {{targets: {{a: {{url_file: {url}, on: [report, recovered]}}}}}}\n"
            "processes:\n"
            f"  w: {{command: [sh, -c, 'sleep 600; :', {self.mark}], "
            "restart: {backoff: {initial: 10ms}}}\n"
            f"  e: {{command: [sh, -c, 'sleep 600; :', {self.withenv}], env: {{A: b}}}}\n"
            f"  x: {{state: absent, command: [a], match: {{cmdline: '{self.unwanted}'}}}}\n"
            f"directories:\n  d: {{path: {base}/d}}\n  wrong: {{path: {base}/file}}\n"
            f"retention: {{r: {{path: {base}/old, match: '*', older_than: 1h, action: delete}}}}\n"
            "cron: {c: {schedule: '0 0 1 1 *', command: 'true'}}\n"
        )
        self.spec = machine.spec(self.text)
        loop = looping(self.spec).up()
        pids = [machine.only(mark) for mark in (self.mark, self.withenv)]
        loop.kill()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

    def unwanted_runs(self) -> subprocess.Popen[bytes]:
        words = ["sh", "-c", "sleep 600; :", self.unwanted]
        return subprocess.Popen(words, env=self.machine.environ, start_new_session=True)


@pytest.fixture
def known(machine: Machine, looping: Any, receiver: Receiver) -> Known:
    return Known(machine, looping, receiver)


BROKEN = "name: demo\n\t: ["


def test_what_runs_goes_on_and_nothing_is_deleted(
    known: Known, machine: Machine, looping: Any, receiver: Receiver
) -> None:
    known.spec.write_text(BROKEN)
    (machine.base / "d").rmdir()
    old = machine.base / "old/file"
    old.touch()
    os.utime(old, (1, 1))
    # A line that nobody declares, as its file may do by now; and one that is missing.
    lines = machine.crontab.read_text().splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("0 0 1 1 *"))
    orphan = [lines[at - 1].replace("cron:c", "cron:other"), "5 5 5 5 * other"]
    machine.crontab.write_text("\n".join([*lines[: at - 1], *orphan, *lines[at + 1 :], ""]))
    unwanted = known.unwanted_runs()
    try:
        loop = looping(known.spec).up()
        until(lambda: machine.running(known.mark))
        until(lambda: "0 0 1 1 *" in machine.crontab.read_text())
        before = loop.passes()
        until(lambda: loop.passes() > before + 2)
        assert "5 5 5 5 * other" in machine.crontab.read_text()
        assert unwanted.poll() is None
        assert old.exists()
        assert not (machine.base / "d").exists()
        assert not machine.running(known.withenv)
        said = [one["text"] for one in loop.events() if one["event"] == "last_good"]
        assert len(said) > 2, "it is said at each pass"
        assert "process:e" in said[0]
        assert str(known.spec) in said[0]
        until(receiver.bodies)
        # People are told once, with what is wrong; and not that the directory is well, or gone.
        assert [body for body in receiver.bodies() if "is not valid" in body] == receiver.bodies()
        (told,) = receiver.bodies()
        assert f"{known.spec}:2" in told
        assert machine.reconcile("--plan", known.spec).returncode == 65
        assert machine.reconcile("--once", known.spec).returncode == 65
        known.spec.write_text(known.text)
        until(lambda: (machine.base / "d").exists() and not old.exists())
        until(lambda: machine.running(known.withenv))
        unwanted.wait(LONG)
        until(lambda: len(receiver.got) == 2)
        assert "is valid again, and was taken\n" in receiver.bodies()[1]
    finally:
        unwanted.kill()
        unwanted.wait()


@pytest.mark.parametrize("how", ["open", "other_settings", "none"])
def test_what_was_compiled_must_be_trusted_and_the_same(
    known: Known, machine: Machine, how: str
) -> None:
    known.spec.write_text(BROKEN)
    (kept,) = (machine.state / ".compiled").iterdir()
    options = []
    if how == "open":
        kept.chmod(0o620)
    elif how == "none":
        kept.unlink()
    else:
        options = ["--set", "a=b"]
    done = machine.reconcile("--loop", known.spec, *options)
    assert done.returncode == 65
    assert f"{known.spec}:2" in done.stderr
    assert not machine.running(known.mark)
