"""kill -9 at every change of a pass over a crontab: it is old or new, and the next converges."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support import Machine, until

SPEC = "cron: {a: {schedule: '@daily', command: /bin/true}}"
MINE = b"# mine\n0 0 * * * /bin/mine\n"
# What the pass itself changes something with; crontab(1) sees to its own part.
CALLS = "rename,renameat,unlink,unlinkat,rmdir,flock,memfd_create,write,vfork,clone,clone3"


def traced(machine: Machine, spec: Path, *options: str) -> tuple[int, str]:
    trace = machine.base / "trace"
    done = machine.run(
        "strace", "-qq", "-e", f"trace={CALLS}", *options, "-o", trace,
        *machine.argv("--once", spec),
    )  # fmt: skip
    return done.returncode, trace.read_text(errors="replace")


def killed_everywhere(machine: Machine, spec: Path, old: bytes, every: int) -> int:
    """A pass from ``old``, killed at every so many of its changes; how often that was so."""
    # Where the program runs for the first time its modules are compiled, which counts as well.
    machine.once(spec)
    machine.run("rm", "-rf", machine.state)
    machine.write_crontab(old)
    status, trace = traced(machine, spec)
    assert status == 0
    new = machine.crontab_text()
    lines = [line for line in trace.splitlines() if re.match(r"\w+\(", line)]
    names = [line.partition("(")[0] for line in lines]
    # Of what it writes, only the crontab is of interest here.
    places = [at for at, name in enumerate(names) if name != "write" or "# mine" in lines[at]]
    assert any(names[at] == "write" for at in places)
    # That of the crontab is always among them.
    places = [at for n, at in enumerate(places) if n % every == 0 or names[at] == "write"]
    killed = 0
    for at in places:
        name = names[at]
        number = names[: at + 1].count(name)
        machine.run("rm", "-rf", machine.state)
        machine.write_crontab(old)
        status, _ = traced(machine, spec, "-e", f"inject={name}:signal=KILL:when={number}")
        killed += status != 0
        # What we have started goes on without us.
        until(lambda: not machine.running("crontab"))
        assert machine.crontab_text() in (old, new), (name, number)
        machine.once(spec)
        assert machine.crontab_text() == new
    assert killed >= len(places) - 3
    return killed


EVERY = pytest.mark.parametrize("every", [8, pytest.param(1, marks=pytest.mark.slow)])


@EVERY
def test_killed_while_a_line_comes(machine: Machine, one_process: None, every: int) -> None:
    assert killed_everywhere(machine, machine.spec(SPEC), MINE, every) > 12 // every


@EVERY
def test_killed_while_the_last_line_goes(machine: Machine, one_process: None, every: int) -> None:
    machine.write_crontab(MINE)
    machine.once(machine.spec(SPEC))
    text = machine.crontab_text() or b""
    assert killed_everywhere(machine, machine.spec("cron: {}"), text, every) > 8 // every
    assert machine.crontab_text() == MINE
