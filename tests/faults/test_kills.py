"""kill -9 at every system call that changes something: the next pass converges, nothing doubles."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support import Machine

SPEC = """
directories: {{d: {{path: {base}/a/b, mode: "0750"}}}}
sessions: {{s: {{}}}}
processes:
  window: {{command: [sleep, "1001"], session: s}}
  daemon: {{command: [sleep, "1002"], log: {base}/log}}
"""
# What a pass changes something with, itself, and with the children it waits for.
CALLS = "mkdir,mkdirat,chmod,fchmodat,chown,rename,renameat,unlink,write,clone,clone3,vfork,fork"


def traced(machine: Machine, spec: Path, *options: str) -> tuple[int, str]:
    """A pass under strace, which does not follow its children: its status, and the trace."""
    trace = machine.base / "trace"
    done = machine.run(
        "strace", "-qq", "-e", f"trace={CALLS}", *options, "-o", trace,
        *machine.argv("--once", spec),
    )  # fmt: skip
    return done.returncode, trace.read_text(errors="replace")


def moments(machine: Machine, spec: Path) -> list[tuple[str, int]]:
    """Each call of a whole pass that changes something: its name, and the how-manieth it is."""
    status, trace = traced(machine, spec)
    assert status == 0
    machine.clear()
    names = [match[1] for line in trace.splitlines() if (match := re.match(r"(\w+)\(", line))]
    return [(name, names[: at + 1].count(name)) for at, name in enumerate(names)]


def mended(machine: Machine, spec: Path) -> None:
    """The next pass converges, and nothing runs twice."""
    machine.once(spec)
    machine.converged(spec)
    assert len(machine.running("sleep 1001")) == 1
    assert len(machine.running("sleep 1002")) == 1
    machine.clear()
    machine.run("rm", "-rf", machine.base / "a", machine.base / "log", machine.state)


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_at_every_change(machine: Machine, one_process: None, every: int) -> None:
    spec = machine.spec(SPEC.format(base=machine.base))
    places = moments(machine, spec)[::every]
    machine.run("rm", "-rf", machine.base / "a", machine.base / "log", machine.state)
    killed = 0
    for name, number in places:
        status, _ = traced(machine, spec, "-e", f"inject={name}:signal=KILL:when={number}")
        killed += status != 0
        mended(machine, spec)
    # A few calls at the end depend on the moment.
    assert killed > 15 // every
    assert killed >= len(places) - 3


@pytest.mark.parametrize("call", ["setsid", "rename", "dup2", "chdir", "execve"])
def test_a_new_daemon_killed_on_its_way_is_started_anew(machine: Machine, call: str) -> None:
    spec = machine.spec(SPEC.format(base=machine.base))
    # The second execve is tmux's; a daemon's is the only one after setsid(2).
    when = {"execve": 8}.get(call, 1)
    machine.traced(
        f"trace=execve,{call}", *machine.argv("--once", spec),
        options=("-e", f"inject={call}:signal=KILL:when={when}"),
    )  # fmt: skip
    mended(machine, spec)


def test_two_at_once_do_the_work_once(machine: Machine) -> None:
    spec = machine.spec(SPEC.format(base=machine.base))
    script = (
        f'for i in 1 2 3 4 5 6; do "{machine.bin}/reconcile" --once "{spec}" '
        f'--state-dir "{machine.state}" >/dev/null 2>&1 & pids="$pids $!"; done; '
        'for pid in $pids; do wait "$pid"; echo "$?"; done'
    )
    done = machine.run("sh", "-c", script)
    statuses = sorted(done.stdout.split())
    assert set(statuses) <= {"0", "75"}
    assert "0" in statuses
    machine.once(spec)
    machine.converged(spec)
    assert len(machine.running("sleep 1001")) == 1
    assert len(machine.running("sleep 1002")) == 1


def test_a_pass_beside_another_says_so_and_does_nothing(machine: Machine) -> None:
    machine.once(machine.spec("directories: {}"))
    spec = machine.spec(f"processes: {{x: {{command: sleep 1001, log: {machine.base}/fifo/log}}}}")
    done = machine.run("flock", machine.state / "demo/lock", *machine.argv("--once", spec))
    assert done.returncode == 75
    assert re.search(r"another pass is at work \(pid \d+\)", done.stderr)
    assert not machine.running("sleep 1001")


@pytest.mark.parametrize("damage", [b"", b"garbage", b"\0" * 4096])
def test_damaged_state_is_made_anew(machine: Machine, damage: bytes) -> None:
    spec = machine.spec(SPEC.format(base=machine.base))
    machine.once(spec)
    for path in machine.state.rglob("*"):
        if path.is_file() and path.name != "lock":
            path.write_bytes(damage)
    machine.once(spec)
    machine.converged(spec)
    assert len(machine.running("sleep 1002")) == 1


def test_a_full_disk_for_the_state_is_told(machine: Machine) -> None:
    spec = machine.spec(f"directories: {{d: {{path: {machine.base}/d}}}}")
    machine.state = Path("/proc/nowhere")
    done = machine.reconcile("--once", spec)
    assert done.returncode == 1
    assert "--state-dir" in done.stderr
    assert not (machine.base / "d").exists()
