"""The main job: specs/executor.yaml brings up a real command executor, and mends it."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support import Machine, allowed, freeze, until

WORKER = "ai-cmd-executor worker --home"
DIRECTORIES = ["pending", "running", "completed", "failed", "command_logs", "logs"]


@pytest.fixture
def up(machine: Machine, executor: Path) -> Path:
    """A home in which the executor has been brought up."""
    machine.once(executor)
    return machine.home / "ai_co"


def worker(machine: Machine) -> int:
    return machine.only(WORKER)


def test_the_first_pass_brings_everything_up_and_the_second_has_nothing_to_do(
    machine: Machine, executor: Path
) -> None:
    done = machine.reconcile("--once", executor)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in DIRECTORIES:
        assert f"create directory:{name}" in done.stdout
    assert "start process:worker" in done.stdout
    tested = machine.run(machine.bin / "ai-cmd-executor", "test")
    assert tested.returncode == 0, tested.stdout + tested.stderr
    again = machine.reconcile("--plan", executor, "--detailed-exitcode")
    assert again.returncode == 0, again.stdout
    assert machine.once(executor)["steps"] == []
    assert worker(machine)


def test_the_plan_shows_all_and_touches_nothing(machine: Machine, executor: Path) -> None:
    done = machine.reconcile("--plan", executor, "--detailed-exitcode")
    assert done.returncode == 2
    assert not (machine.home / "ai_co").exists()
    assert not machine.state.exists()
    assert machine.ours() == {}


def test_home_can_be_set_on_the_command_line_and_in_the_environment(
    machine: Machine, executor: Path
) -> None:
    chosen, given = machine.base / "chosen", machine.base / "given"
    machine.once(executor, "--set", f"home={chosen}")
    assert (chosen / "ai_commands/pending").is_dir()
    machine.environ["AI_CO_HOME"] = str(given)
    assert machine.steps(executor) == []
    own = "--unset", "home", "--only", "process:worker"
    assert "process:worker" in machine.steps(executor, *own)


def _kill_worker(machine: Machine, home: Path) -> None:
    os.kill(worker(machine), signal.SIGKILL)
    until(lambda: not machine.running(WORKER))


def _kill_server(machine: Machine, home: Path) -> None:
    machine.tmux("kill-server")
    until(lambda: not machine.running(WORKER))


def _remove_pending(machine: Machine, home: Path) -> None:
    shutil.rmtree(home / "ai_commands/pending")


def _remove_logs(machine: Machine, home: Path) -> None:
    shutil.rmtree(home / "ai_commands/logs")


def _close_completed(machine: Machine, home: Path) -> None:
    (home / "ai_commands/completed").chmod(0o500)


def _open_command_logs(machine: Machine, home: Path) -> None:
    (home / "ai_commands/logs").chmod(0o777)


BREAKAGES: dict[str, tuple[Any, set[str]]] = {
    "worker killed": (_kill_worker, {"process:worker"}),
    "server killed": (_kill_server, {"session:command_executor", "process:worker"}),
    "pending removed": (_remove_pending, {"directory:pending"}),
    "command logs removed": (_remove_logs, {"directory:command_logs"}),
    "completed closed": (_close_completed, {"directory:completed"}),
    "command logs opened": (_open_command_logs, {"directory:command_logs"}),
}
MIXES = [
    mix
    for size in (1, 2, len(BREAKAGES))
    for mix in itertools.combinations(BREAKAGES, size)
    # One cannot open what is gone.
    if size == len(BREAKAGES) or not {"command logs removed", "command logs opened"} <= set(mix)
]


@pytest.mark.parametrize(
    "sizes",
    [(1, len(BREAKAGES)), pytest.param((2,), marks=pytest.mark.slow)],
    ids=["some", "pairs"],
)
def test_the_plan_names_exactly_what_is_broken_and_one_pass_mends_it(
    machine: Machine, executor: Path, up: Path, sizes: tuple[int, ...]
) -> None:
    for mix in (mix for mix in MIXES if len(mix) in sizes):
        expected: set[str] = set()
        for name in mix:
            if name == "command logs opened" and "command logs removed" in mix:
                continue
            # With the server the worker is gone as well.
            if name == "worker killed" and "server killed" in mix:
                continue
            breakage, ids = BREAKAGES[name]
            breakage(machine, up)
            expected |= ids
        # One that ends again and again is left alone for a while.
        with closing(sqlite3.connect(machine.state / "executor/store.db")) as base, base:
            base.execute("DELETE FROM attempts")
        assert set(machine.steps(executor)) == expected, mix
        report = machine.once(executor)
        assert {step["id"] for step in report["steps"]} == expected, mix
        assert {step["result"] for step in report["steps"]} == {"done"}, mix
        machine.converged(executor)
        assert worker(machine), mix


def start_by_hand(machine: Machine, *argv: str) -> int:
    """Start a worker in the background, as a person would; its number."""
    command = " ".join((f"{machine.bin}/ai-cmd-executor", *argv))
    done = machine.run("sh", "-c", f"setsid {command} >/dev/null 2>&1 & echo $!")
    pid = int(done.stdout)
    # Until it has become the program with its usual words, by which it is known.
    until(lambda: pid in machine.running(WORKER) and pid in machine.running("worker --home /"))
    return pid


@pytest.mark.parametrize("argv", [(), ("--home", "{home}", "worker"), ("worker", "--home={home}")])
def test_a_worker_that_was_started_by_hand_is_taken_over(
    machine: Machine, executor: Path, argv: tuple[str, ...]
) -> None:
    machine.reconcile("--once", executor, "--only", "directory:*")
    words = [word.format(home=machine.home / "ai_co") for word in argv or ("worker",)]
    pid = start_by_hand(machine, *words)
    assert "process:worker" not in machine.steps(executor)
    machine.once(executor)
    assert worker(machine) == pid
    machine.converged(executor)


def test_a_worker_of_a_home_whose_name_begins_with_ours_is_somebody_elses(
    machine: Machine, executor: Path
) -> None:
    pid = start_by_hand(machine, "worker", "--home", str(machine.home / "ai_co2"))
    machine.once(executor)
    assert pid in machine.running(WORKER)
    until(lambda: len(machine.running(WORKER)) == 2)
    text = executor.read_text().replace(
        '    state: "{{ state }}"\n    session:', "    state: absent\n    session:"
    )
    executor.write_text(text)
    machine.once(executor)
    assert worker(machine) == pid


def test_somebody_elses_session_of_a_longer_name_is_never_touched(
    machine: Machine, executor: Path
) -> None:
    machine.tmux("new-session", "-d", "-s", "command_executor_mine", "exec sleep 1000")
    before = machine.tmux("list-panes", "-a", "-F", "#{session_name} #{pane_pid}")
    machine.once(executor)
    machine.tmux("kill-session", "-t", "=command_executor")
    until(lambda: not machine.running(WORKER))
    machine.once(executor)
    after = machine.tmux("list-panes", "-a", "-F", "#{session_name} #{pane_pid}")
    assert before.strip() in after.splitlines()


def test_somebody_elses_session_of_the_same_name_is_left_alone(
    machine: Machine, executor: Path
) -> None:
    machine.tmux("new-session", "-d", "-s", "command_executor", "exec sleep 1000")
    report = machine.once(executor, status=1)
    (unknown,) = report["unknown"]
    assert unknown["id"] == "process:worker"
    assert "set-option" in unknown["reason"]
    assert not machine.running(WORKER)
    # The command that the message shows hands it over.
    machine.tmux("set-option", "-t", "=command_executor:", "@reconcile", "executor")
    machine.once(executor)
    machine.converged(executor)
    assert machine.running("sleep 1000")


def test_without_tmux_all_the_rest_is_done(machine: Machine, executor: Path) -> None:
    folder = machine.base / "bin"
    folder.mkdir()
    # The search goes on in the system's own folders, so tmux is hidden there too.
    program = (
        "import reconciler.host.command as c; c.SYSTEM_PATH = '/nowhere'; "
        "import sys; from reconciler.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    done = machine.run(
        machine.bin / "python", "-c", program, "--once", executor, "--state-dir", machine.state,
        environ={"PATH": str(folder)},
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    for name in ("session:command_executor", "process:worker"):
        assert f"unknown {name}" in done.stdout
    assert "apt-get install tmux" in done.stdout
    assert (machine.home / "ai_co/ai_commands/pending").is_dir()


def held(pid: int) -> list[str]:
    """What a process holds open; not what it closes meanwhile, as a worker that begins does."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                found.append(os.readlink(link))
    return found


def test_the_worker_has_no_descriptor_of_ours_and_outlives_the_pass(
    machine: Machine, executor: Path
) -> None:
    lock = machine.base / "callers-lock"
    done = machine.run(
        "sh", "-c",
        f'exec 9>"{lock}"; "{machine.bin}/reconcile" --once "{executor}" '
        f'--state-dir "{machine.state}"',
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    pids = {*machine.running(WORKER), *machine.ours()}
    assert len(pids) >= 2
    for pid in pids:
        for goal in held(pid):
            assert str(machine.state) not in goal
            assert str(lock) not in goal


def test_what_a_dead_worker_said_stays_in_its_window(
    machine: Machine, executor: Path, up: Path
) -> None:
    _kill_worker(machine, up)
    form = "#{session_name} #{pane_dead}"
    until(lambda: machine.tmux("list-panes", "-a", "-F", form) == "command_executor 1\n")


def test_a_worker_that_hangs_is_replaced_and_a_busy_one_is_not(
    machine: Machine, executor: Path
) -> None:
    text = executor.read_text()
    # It is written every two seconds, which is longer on a loaded machine.
    oldest = round(allowed(6.0))
    for old, new in (("max_age: 2m", f"max_age: {oldest}s"), ("timeout: 15s", "timeout: 200ms")):
        assert old in text
        text = text.replace(old, new)
    executor.write_text(text)
    home = machine.home / "ai_co"
    home.mkdir(parents=True)
    # Not in its window: tmux would wake up what was stopped there.
    by_hand = subprocess.Popen(
        [machine.bin / "ai-cmd-executor", "worker", "--home", home], env=machine.environ,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    machine.once(executor)
    pid = worker(machine)
    assert pid == by_hand.pid
    submit = (machine.bin / "ai-cmd-executor", "submit", "sleep 60411")
    assert machine.run(*submit).returncode == 0
    until(lambda: machine.running("sleep 60411"))
    beat = home / "ai_commands/heartbeat"
    seen = {beat.stat().st_mtime_ns}
    until(lambda: seen.add(beat.stat().st_mtime_ns) or len(seen) == 3)
    assert machine.once(executor)["steps"] == []
    freeze(pid)
    os.utime(beat, (time.time() - oldest - 1,) * 2)
    until(lambda: machine.steps(executor) == ["process:worker"])
    (step,) = machine.once(executor)["steps"]
    assert "has had no heartbeat for" in step["why"]
    assert worker(machine) != pid
    by_hand.wait()
    until(lambda: machine.steps(executor) == [])
