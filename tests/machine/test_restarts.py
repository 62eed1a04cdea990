"""Starts that fail: the pauses between attempts, the end to them, and what is forgiven."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support import Machine, compiled, passed, until

from reconciler import kinds
from reconciler.core.model import Plan, Remark
from reconciler.core.restart_policy import Policy
from reconciler.state.restarts import SOON, RestartTracker
from reconciler.state.store.tables import Attempt

POLICY = Policy(attempts=4, initial=1, factor=2, most=5, healthy_after=60, retry_every=900)


def test_the_pauses_grow_to_the_longest_and_end_in_the_slow_retry() -> None:
    assert [POLICY.pause(failed) for failed in range(6)] == [0, 1, 2, 4, 900, 900]
    assert Policy(10, 1, 10, 5, 60, 900).pause(3) == 5
    assert Policy(10**6, 1, 1000, 5, 60, 900).pause(10**5) == 5


@pytest.mark.parametrize(
    ("failed", "since", "left"),
    [(1, 0.25, 0.75), (1, 5.0, 0.0), (3, 1.0, 3.0), (4, 100.0, 800.0), (4, None, 0.0), (0, 0, 0)],
)
def test_what_is_left_of_a_pause(failed: int, since: float | None, left: float) -> None:
    assert POLICY.left(failed, since) == left


def test_an_attempt_is_forgiven_once_it_has_run_for_long_enough() -> None:
    assert POLICY.is_reset(60.0)
    assert not POLICY.is_reset(59.9)
    assert not POLICY.is_reset(None)


def test_a_wait_that_ends_while_a_pass_goes_on_is_not_forgotten(tmp_path: Path) -> None:
    spec = compiled(tmp_path, "processes: {p: {command: [sleep, '1']}}")
    (resource,) = spec.resources
    kind = kinds.get("process")
    version = kind.version(resource.want)
    plan = Plan("demo", "/x", "host", 1, held=(Remark("process:p", "1 failed start, next in 1 s"),))
    for since, due in ((0.4, 0.6), (1.0, SOON), (1.001, SOON)):
        table: Any = SimpleNamespace(all=lambda age=since: {"process:p": Attempt(version, 1, age)})
        tries = RestartTracker({resource.id: resource}, kinds.get, table, set(), {}, lambda: 0.0)
        assert tries.due(plan) == pytest.approx(due)


def failing(machine: Machine, restart: str, command: str = "exit 3") -> Path:
    return machine.spec(
        f'processes: {{p: {{command: "echo x >> {machine.base}/tries; {command}", '
        f"restart: {restart}}}}}"
    )


def tries(machine: Machine) -> int:
    path = machine.base / "tries"
    return len(path.read_text()) // 2 if path.exists() else 0


def held(plan: dict[str, Any]) -> str:
    (remark,) = plan["skipped"]
    return str(remark["reason"])


def test_a_start_that_failed_waits_for_its_pause(machine: Machine) -> None:
    spec = failing(machine, "{backoff: {initial: 1h, max: 2h}}")
    machine.once(spec, status=1)
    assert tries(machine) == 1
    report = machine.once(spec, status=1)
    assert tries(machine) == 1
    assert report["steps"] == []
    assert "not running; 1 failed start, next in" in held(report)
    done = machine.reconcile("--plan", spec)
    assert done.returncode == 1
    assert "! waits process:p" in done.stdout


def test_a_short_pause_is_waited_for_by_a_single_pass(machine: Machine) -> None:
    spec = failing(machine, "{backoff: {initial: 1s}}")
    machine.once(spec, status=1)
    machine.once(spec, status=1)
    assert tries(machine) == 2


def test_after_the_last_attempt_only_the_slow_retry_is_left(machine: Machine) -> None:
    spec = failing(machine, "{attempts: 2, backoff: {initial: 1ms, max: 1ms}, retry_every: 1h}")
    for _ in range(2):
        machine.once(spec, status=1)
    assert tries(machine) == 2
    assert "gave up after 2 failed starts, next in" in held(machine.once(spec, status=1))
    assert tries(machine) == 2


def test_a_changed_command_is_tried_at_once(machine: Machine) -> None:
    machine.once(failing(machine, "{backoff: {initial: 1h, max: 2h}}"), status=1)
    spec = failing(machine, "{backoff: {initial: 1h, max: 2h}}", "exec sleep 81828")
    machine.once(spec)
    machine.converged(spec)


def test_a_loop_does_not_spin_on_what_was_tried_in_vain(machine: Machine) -> None:
    spec = failing(machine, "{backoff: {initial: 1ms, max: 1ms}, healthy_after: 1s}")
    text = spec.read_text().replace("command:", "needs: [directory:d], command:")
    spec = machine.spec(f"{text}\ndirectories: {{d: {{path: {machine.base}/d}}}}\n")
    machine.once(spec, status=1)
    (machine.base / "d").rmdir()
    (machine.base / "d").write_text("not a folder")
    process = subprocess.Popen(
        [str(word) for word in machine.argv("--loop", spec)], env=machine.environ,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    pulse = machine.state / "demo/loop"
    try:
        until(lambda: pulse.exists() and pulse.read_text().split("\n")[0].strip())
        passed(2)
        assert int(pulse.read_text().split()[5]) < 5
    finally:
        process.kill()
        process.wait()


def test_what_stayed_healthy_is_forgiven(machine: Machine) -> None:
    spec = machine.spec(
        "processes: {p: {command: [sleep, '27182'], "
        "restart: {backoff: {initial: 1h, max: 1h}, healthy_after: 1s}}}"
    )
    machine.once(spec)
    (pid,) = machine.running("sleep 27182")
    passed(1.0)
    machine.once(spec)
    os.kill(pid, signal.SIGKILL)
    until(lambda: not machine.running("sleep 27182"))
    machine.once(spec)
    assert machine.running("sleep 27182")


def test_nothing_is_remembered_of_what_is_gone_from_the_spec(machine: Machine) -> None:
    machine.once(failing(machine, "{backoff: {initial: 1h, max: 1h}}"), status=1)
    spec = machine.spec("directories: {}")
    machine.once(spec)
    store = machine.state / "demo/store.db"
    assert store.read_bytes()[60:64] == b"\0\0\0\0"


@pytest.mark.parametrize(
    "damage", [b"not a database at all" * 100, b"SQLite format 3\0" + b"x" * 84]
)
def test_a_damaged_store_is_set_aside_and_named(machine: Machine, damage: bytes) -> None:
    spec = failing(machine, "{backoff: {initial: 1h, max: 1h}}")
    machine.once(spec, status=1)
    store = machine.state / "demo/store.db"
    store.write_bytes(damage)
    planned = machine.reconcile("--plan", spec, "--json")
    assert [step["id"] for step in json.loads(planned.stdout)["steps"]] == ["process:p"]
    assert "store.db" in planned.stderr
    assert machine.reconcile("--status", spec).stdout.count(str(store)) == 1
    assert store.read_bytes() == damage
    done = machine.reconcile("--once", spec)
    assert "was set aside as" in done.stdout
    assert tries(machine) == 2
    (aside,) = store.parent.glob("store.db.damaged-*")
    assert aside.read_bytes() == damage
    assert held(machine.once(spec, status=1))


def test_the_store_is_private(machine: Machine) -> None:
    machine.once(failing(machine, "{}"), status=1)
    assert (machine.state / "demo/store.db").stat().st_mode & 0o777 == 0o600


def test_a_start_that_did_not_hold_is_one_deed_and_a_failure(machine: Machine) -> None:
    spec = machine.spec(
        f"version: 1\nname: demo\ndirectories: {{d: {{path: {machine.base}/d}}}}\n"
        "processes: {p: {command: [sleep, '0.1']}, q: {command: [sleep, '90433']}}\n"
    )
    machine.once(spec, status=1)
    found = json.loads(machine.reconcile("--history", spec, "--json").stdout)["history"]
    assert sorted((one["id"], one["result"]) for one in found) == [
        ("directory:d", "done"),
        ("process:p", "failed"),
        ("process:q", "done"),
    ]
