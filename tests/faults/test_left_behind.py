"""What a command of a check, or a command of a spec whose time is over, has left behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support import LONG, allowed, until

from reconciler.base.errors import UnknownState
from reconciler.base.values import Verdict
from reconciler.host import Host, start
from reconciler.host.child import Child, answer
from reconciler.host.probe import bounded
from reconciler.host.probe_command import command
from reconciler.host.processes import look_up

AWAY = "setsid -f env -i PATH=$PATH setsid -f sh -c 'echo $$ >{0}.new; mv {0}.new {0}; {1}'; "
"""A process of another session, whose parents have ended, with nothing of our environment."""
KEEPS = "while :; do sleep 5; done"


def gone(file: Path) -> bool:
    return look_up(int(file.read_text())) is None


def probed(script: str, timeout: float) -> bytes:
    account = Host("demo", "/nonexistent").users.account(None)

    def probe() -> Verdict:
        return command(("/bin/sh", "-c", script), None, None, (), account)

    return bounded(probe, timeout).words.encode()


@pytest.mark.parametrize(
    ("then", "ends"),
    [("until [ -e {0} ]; do sleep 0.01; done", True), ("sleep 300", False)],
    ids=["ends", "does not end"],
)
def test_of_a_check_nothing_is_left(tmp_path: Path, free: None, then: str, ends: bool) -> None:
    file = tmp_path / "pid"
    script = AWAY.format(file, KEEPS) + then.format(file)
    # What it leaves is there by then.
    timeout = LONG if ends else round(allowed(1.5))
    words = "exit status 0" if ends else f"no answer within {timeout} s"
    assert answer(lambda: probed(script, timeout), 2 * LONG) == words.encode()
    until(lambda: gone(file))


def test_of_a_check_that_is_dropped_nothing_is_left(tmp_path: Path, free: None) -> None:
    file = tmp_path / "pid"
    script = AWAY.format(file, KEEPS) + "sleep 300"
    child = Child(lambda: probed(script, 200.0), 300)
    until(file.exists)
    child.kill()
    until(lambda: gone(file))


@pytest.mark.parametrize("late", [True, False], ids=["late", "in time"])
def test_of_a_command_only_when_its_time_is_over(tmp_path: Path, free: None, late: bool) -> None:
    file = tmp_path / "pid"
    script = AWAY.replace("env -i PATH=$PATH ", "").format(file, KEEPS)
    account = Host("demo", str(tmp_path)).users.account(None)
    program = start.Program(
        ("/bin/sh", "-c", script + ("sleep 300" if late else "")), dict(os.environ), account
    )
    if late:
        timeout = round(allowed(1.0))
        with pytest.raises(UnknownState, match=f"did not end within {timeout} s"):
            start.run(program, timeout=timeout)
        until(lambda: gone(file))
        return
    assert start.run(program, timeout=LONG).status == 0
    until(file.exists)
    # It may start what is to live on.
    assert not gone(file)
    os.kill(int(file.read_text()), 9)
