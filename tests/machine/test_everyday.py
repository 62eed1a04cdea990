"""The everyday words of the command executor: start, stop, restart, logs, status."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from looping import Looping
from support import CHECKOUT, LONG, Machine, until

WORKER = "ai-cmd-executor worker --home"


@pytest.fixture
def use(machine: Machine, executor: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs ``ai-cmd-executor``; the spec in use is that of the fixture, found by itself."""
    machine.environ |= {"RECONCILE_SPEC": str(executor), "STATE_DIRECTORY": str(machine.state)}

    def run(*argv: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        return machine.run(machine.bin / "ai-cmd-executor", *argv, **options)

    return run


def answered(use: Any, *argv: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """``status``, which asks for five seconds only: a loaded machine may not answer in them."""

    def said() -> subprocess.CompletedProcess[str] | None:
        done: subprocess.CompletedProcess[str] = use("status", *argv, **options)
        if "--json" in argv:
            return None if "unknown" in json.loads(done.stdout)["kept"] else done
        return None if "kept alive: unknown" in done.stdout else done

    found: subprocess.CompletedProcess[str] = until(said)
    return found


def test_start_stop_and_restart_without_a_loop(machine: Machine, executor: Path, use: Any) -> None:
    done = use("start")
    assert done.returncode == 0, done.stderr
    home = machine.home / "ai_co"
    pid = machine.only(WORKER)
    # It has returned only when the worker is alive.
    assert done.stdout.startswith(f"worker {pid}: ")
    assert done.stdout.endswith(f"home {home}\n")
    until(lambda: f"[{pid}] started, home {home}\n" in use("logs").stdout)

    done = use("stop")
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        f"worker {pid} of {home} is stopped\nit stays so until: ai-cmd-executor start\n"
    )
    assert machine.running(WORKER) == []
    assert "process:worker" not in machine.steps(executor)
    done = answered(use)
    assert done.returncode == 1
    assert "stopped by ai-cmd-executor stop" in done.stdout
    assert "start it again with: ai-cmd-executor start\n" in done.stdout
    assert "kept alive by: nobody; no watchdog is running" in done.stdout
    assert use("stop").stdout.startswith(f"no worker was running for {home}\n")

    # From a pause it is taken back, with a worker as well as without one.
    assert use("restart").returncode == 0
    first = machine.only(WORKER)
    assert use("restart").returncode == 0
    second = machine.only(WORKER)
    assert first != second
    kept = json.loads(answered(use, "--json").stdout)["kept"]
    assert (kept["loop"], kept["paused"], kept["spec"]) == (None, None, str(executor))
    assert use("start").returncode == 0
    assert machine.only(WORKER) == second


def test_beside_a_loop_with_values_of_its_own(
    machine: Machine, executor: Path, use: Any, looping: Callable[..., Looping]
) -> None:
    # The loop is somewhere else, with another spec of that name, and a home of its own.
    home = machine.base / "of the loop"
    other = machine.spec(executor.read_text(), "other.yaml")
    loop = machine.base / "loop.json"
    with loop.open("wb") as file:
        process = subprocess.Popen(
            [machine.bin / "reconcile", "--loop", "./other.yaml", "--json", "--set", f"home={home}",
             f"--state-dir={machine.state}"],
            cwd=other.parent, env=machine.environ, stdout=file, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    try:
        first = machine.only(WORKER)
        until(lambda: loop.read_text().count("\n") > 1)
        elsewhere = {"cwd": "/"}
        said = answered(use, **elsewhere).stdout
        assert f"kept alive by: the watchdog (pid {process.pid})" in said
        assert f"has another home: {home}" in said
        done = use("stop", **elsewhere)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"worker {first} of {home} is stopped\n")
        assert machine.running(WORKER) == []
        done = use("start", **elsewhere)
        assert done.returncode == 0, done.stderr
        second = machine.only(WORKER)
        assert done.stdout.startswith(f"worker {second}: ")
        # Somebody who means the worker of another home does not end this one.
        for argv, environ in (
            (["--home", str(machine.home)], {}),
            ([], {"AI_CO_HOME": str(machine.home)}),
        ):
            done = use("stop", *argv, environ=environ, **elsewhere)
            assert done.returncode == 1
            assert f"keeps the worker of {home}, not that of {machine.home}" in done.stderr
        assert machine.only(WORKER) == second
        assert not (machine.home / "ai_co").exists()
    finally:
        process.kill()
        process.wait()


def test_home_spec_and_state_are_passed_on(machine: Machine, executor: Path) -> None:
    home, state = machine.base / "there", machine.base / "its state"
    words = ["--home", str(home), "--spec", str(executor), "--state-dir", str(state)]
    program = machine.bin / "ai-cmd-executor"
    done = machine.run(program, "start", *words)
    assert done.returncode == 0, done.stderr
    assert machine.only(f"{WORKER} {home}")
    assert state.is_dir()
    done = machine.run(program, "stop", *words)
    again = done.stdout.rpartition("until: ")[2].replace("ai-cmd-executor", str(program))
    assert machine.run("sh", "-c", again).returncode == 0
    assert machine.only(f"{WORKER} {home}")


def test_start_says_why_there_is_no_worker(machine: Machine, executor: Path, use: Any) -> None:
    text = executor.read_text()
    command = 'command: [ai-cmd-executor, worker, --home, "{{ home }}"]'
    assert command in text
    gate = machine.base / "gate"
    broken = (
        f"command: test -e {gate} && exec ai-cmd-executor worker --home {{{{ home }}}} || exit 3"
    )
    policy = "restart: { attempts: 1, backoff: { initial: 1h, max: 2h } }"
    executor.write_text(text.replace(command, f"{broken}\n    {policy}"))
    done = use("start")
    assert done.returncode == 1
    assert done.stderr.startswith("ai-cmd-executor: no worker is running: ")
    assert ": exit status 3" in done.stderr
    # A pass would wait for an hour; whoever starts it wants it tried at once.
    gate.touch()
    assert "process:worker" not in machine.steps(executor)
    assert use("start").returncode == 0
    # Others that fail do not matter, but are told.
    (machine.home / "ai_co/ai_commands/stale").rmdir()
    (machine.home / "ai_co/ai_commands/stale").write_text("a file")
    done = use("restart")
    assert done.returncode == 0
    assert "had trouble: directory:stale: " in done.stderr
    assert len(done.stdout.splitlines()) == 1


def test_what_cannot_be_asked_is_told(machine: Machine, use: Any) -> None:
    spec = machine.spec("directories: {d: {path: /tmp}}", "none.yaml")
    for word in ("stop", "start", "status"):

        def asked(word: str = word) -> str | None:
            done = use(word, "--spec", spec)
            said: str = done.stderr + done.stdout
            # A loaded machine may not answer status in its five seconds.
            return said if done.returncode == 1 and "matches no resource" in said else None

        said = until(asked)
        assert "'process:worker' matches no resource" in said
        assert ("such as: --spec executor" in said) == (word != "status")
    spec.write_text("version: 2")
    assert "the spec is not valid:\n" in use("stop", "--spec", spec).stderr
    done = use("stop", "--spec", machine.base / "missing.yaml")
    assert (done.returncode, "missing.yaml" in done.stderr) == (1, True)
    assert use("logs", "-n", "0").returncode == 64


def test_without_any_spec_it_is_the_shipped_one(machine: Machine) -> None:
    def kept(**where: Path) -> Any:
        # It asks for five seconds only, which a loaded machine may not answer in.
        program = machine.bin / "ai-cmd-executor"
        said = machine.run(program, "status", "--json", **where).stdout
        return json.loads(said)["kept"].get("spec")

    assert until(kept).endswith("/reconciler/specs/executor.yaml")
    assert not machine.state.exists()
    assert until(lambda: kept(cwd=CHECKOUT)) == f"{CHECKOUT}/specs/executor.yaml"


@pytest.fixture
def following(machine: Machine) -> Iterator[Callable[..., Any]]:
    started: list[subprocess.Popen[bytes]] = []

    def follow(*argv: str) -> tuple[subprocess.Popen[bytes], Callable[[], str]]:
        path = machine.base / f"followed-{len(started)}"
        with path.open("wb") as file:
            process = subprocess.Popen(
                [machine.bin / "ai-cmd-executor", "logs", "-f", *argv],
                env=machine.environ, stdin=subprocess.DEVNULL, stdout=file,
                stderr=subprocess.STDOUT,
            )  # fmt: skip
        started.append(process)
        return process, path.read_text

    yield follow
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()


def test_logs_and_their_rotation_are_followed(machine: Machine, following: Any) -> None:
    program = machine.bin / "ai-cmd-executor"
    none = machine.run(program, "logs")
    assert (none.returncode, none.stdout) == (1, "")
    assert "no worker has run in this home yet" in none.stderr
    early, early_text = following()
    until(lambda: "yet; waiting for it\n" in early_text())
    log = machine.home / "ai_co/logs/command_executor.log"
    log.parent.mkdir(parents=True)
    log.write_text("".join(f"line {number}\n" for number in range(100)))
    assert machine.run(program, "logs").stdout.splitlines() == [f"line {n}" for n in range(70, 100)]
    assert machine.run(program, "logs", "-n", "2").stdout == "line 98\nline 99\n"

    until(lambda: early_text().endswith("it\nline 0\n" + log.read_text()[7:]))

    process, text = following("--lines", "1")
    until(lambda: text() == "line 99\n")
    old = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.write(old, b"before\n")
    log.rename(f"{log}.1")
    os.write(old, b"still the old one\n")
    until(lambda: text().endswith("before\nstill the old one\n"))
    os.close(old)
    log.write_text("the new one\n")
    expected = "line 99\nbefore\nstill the old one\nthe new one\n"
    until(lambda: text() == expected)
    assert machine.run(program, "logs", "-n", "2").stdout == "still the old one\nthe new one\n"
    os.truncate(log, 0)
    with log.open("a") as file:
        file.write("cut\n")
    until(lambda: text().endswith("cut\n"))
    until(lambda: early_text().endswith("cut\n"))
    for one in (process, early):
        one.send_signal(signal.SIGINT)
        assert one.wait(LONG) == 130
    assert text() == expected + "cut\n"
