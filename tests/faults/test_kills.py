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
# What a pass changes something with, in this process (the children are followed by nobody).
CALLS = (
    "mkdir,mkdirat,chmod,fchmodat,chown,rename,renameat,unlink,write,openat,"
    "clone,clone3,vfork,fork,pidfd_open,flock"
)


def traced(machine: Machine, spec: Path, *options: str) -> tuple[int, str]:
    trace = machine.base / "trace"
    done = machine.run(
        "strace", "-qq", "-e", f"trace={CALLS}", *options, "-o", trace,
        machine.bin / "reconcile", "--once", spec, "--state-dir", machine.state,
    )  # fmt: skip
    return done.returncode, trace.read_text(errors="replace")


def moments(machine: Machine, spec: Path) -> list[tuple[str, int]]:
    """Each call of a whole pass that changes something: its name, and the how-manieth it is."""
    status, trace = traced(machine, spec)
    assert status == 0
    seen: dict[str, int] = {}
    found = []
    for line in trace.splitlines():
        match = re.match(r"(\w+)\((.*)", line)
        if match is None:
            continue
        name = match[1]
        seen[name] = seen.get(name, 0) + 1
        writes = re.search("O_(WRONLY|RDWR|CREAT)", line) is not None
        if name != "openat" or writes:
            found.append((name, seen[name]))
    machine.clear()
    return found


def test_killed_at_every_change(machine: Machine) -> None:
    spec = machine.spec(SPEC.format(base=machine.base))
    places = moments(machine, spec)
    assert len(places) > 15
    for name, number in places:
        machine.run("rm", "-rf", machine.base / "a", machine.base / "log", machine.state)
        status, _ = traced(machine, spec, "-e", f"inject={name}:signal=KILL:when={number}")
        assert status != 0, f"{name} {number} was not reached"
        machine.once(spec)
        machine.converged(spec)
        assert len(machine.running("sleep 1001")) == 1, f"{name} {number}"
        assert len(machine.running("sleep 1002")) == 1, f"{name} {number}"
        machine.clear()


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
    spec = machine.spec(f"processes: {{x: {{command: sleep 1001, log: {machine.base}/fifo/log}}}}")
    machine.once(machine.spec("directories: {}", "other.yaml"))
    lock = machine.state / "demo/lock"
    done = machine.run(
        "flock", lock, machine.bin / "reconcile", "--once", spec, "--state-dir", machine.state
    )
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
    done = machine.reconcile("--once", spec, "--state-dir", "/proc/nowhere")
    assert done.returncode == 1
    assert "--state-dir" in done.stderr
    assert not (machine.base / "d").exists()
