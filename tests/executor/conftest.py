"""A real worker in a home of its own, seen from the outside."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
from support import LONG, until

ROOT = Path(__file__).resolve().parents[2]

T = TypeVar("T")


def wait_for(look: Callable[[], T], what: str, bound: float = LONG) -> T:
    """The first true value of `look`, which is asked until then."""
    try:
        return cast(T, until(look, bound))
    except AssertionError as error:
        raise AssertionError(f"{what}: {error}") from None


def is_running(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat[stat.rindex(")") + 2] not in "ZX"


class Executor:
    """One home, the workers that were started for it, and what lies in it."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "co"
        self.base = self.home / "ai_commands"
        self.folder = folder
        self.started: list[subprocess.Popen[bytes]] = []
        self.env = {k: v for k, v in os.environ.items() if k != "AI_CO_HOME"}
        self.env.update(HOME=str(folder), PYTHONPATH=str(ROOT))
        self.program = [sys.executable, "-m", "reconciler.executor"]

    def start(self, *args: str, program: list[str] | None = None) -> subprocess.Popen[bytes]:
        """A worker that has begun to look for commands."""
        args = args or ("worker", "--home", str(self.home))
        worker = subprocess.Popen(
            [*(program or self.program), *args],
            cwd=ROOT,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.started.append(worker)

        def looks() -> bool:
            assert worker.poll() is None, f"the worker ended with {worker.returncode}"
            if f"[{worker.pid}] started" not in self.event_log():
                return False
            # Which it says before it sees to what others have left, and watches the folder.
            beat = self.heartbeat()
            begun = beat["state"] != "starting" or beat["trouble"] is not None
            return beat["pid"] == worker.pid and begun

        wait_for(looks, "a worker that looks for commands")
        return worker

    def hurries_at(self, gate: Path) -> list[str]:
        """A program: a worker to whose commands a thousand seconds pass once that file is there."""
        code = (
            "import os, sys, time, types; from reconciler.executor import runner\n"
            f"def now(): return time.monotonic() + 1000 * os.path.exists({str(gate)!r})\n"
            "runner.time = types.SimpleNamespace(monotonic=now)\n"
            "from reconciler.executor.cli import main; sys.exit(main())"
        )
        return [sys.executable, "-c", code]

    def stop(self, worker: subprocess.Popen[bytes], how: int = signal.SIGTERM) -> int:
        worker.send_signal(how)
        return worker.wait(LONG)

    def run(self, *args: str, bound: float = LONG) -> subprocess.CompletedProcess[str]:
        """A command line, with this home unless it names one."""
        full = args if "--home" in args else ("--home", str(self.home), *args)
        return subprocess.run(
            [*self.program, *full],
            cwd=ROOT,
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=bound,
        )

    def make_folders(self) -> None:
        for name in ("pending", "running", "completed", "failed", "logs"):
            (self.base / name).mkdir(parents=True, exist_ok=True)

    def put(self, name: str, command: str | None = None, **fields: Any) -> None:
        """A command file, whole."""
        self.make_folders()
        if command is not None:
            fields["command"] = command
        temp = self.base / f".{name}.tmp"  # elsewhere: the rename is all that happens in pending/
        temp.write_text(json.dumps(fields))
        temp.rename(self.base / "pending" / f"{name}.json")

    def result(self, name: str, bound: float = LONG) -> dict[str, Any]:
        path = self.base / "completed" / f"{name}.json"
        wait_for(path.exists, f"a result of {name}; the log:\n{self.event_log()}", bound)
        found: dict[str, Any] = json.loads(path.read_bytes())
        return found

    def reason(self, name: str) -> str:
        """Why a file was refused; the file must be beside it."""
        path = self.base / "failed" / f"{name}.reason"
        wait_for(path.exists, f"a reason for {name}; the log:\n{self.event_log()}")
        wait_for(lambda: os.path.lexists(self.base / "failed" / name), f"{name} in failed/")
        return path.read_text()

    def event_log(self) -> str:
        try:
            return (self.home / "logs" / "command_executor.log").read_text()
        except OSError:
            return ""

    def heartbeat(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.base / "heartbeat").read_bytes())
        return found

    def names(self, folder: str) -> list[str]:
        return sorted(os.listdir(self.base / folder))

    def pid_from(self, path: Path) -> int:
        """A process number that a command wrote into a file."""
        wait_for(lambda: path.exists() and path.read_text().endswith("\n"), f"{path.name}")
        return int(path.read_text())


@pytest.fixture
def executor(tmp_path: Path, free: None) -> Iterator[Executor]:
    """Its workers end with the test."""
    made = Executor(tmp_path)
    yield made
    for worker in made.started:
        if worker.poll() is None:
            worker.terminate()
    for worker in made.started:
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.wait(LONG)
        if worker.poll() is None:
            worker.kill()
            worker.wait()


@pytest.fixture
def patiently() -> Callable[..., Any]:
    return wait_for


@pytest.fixture
def alive() -> Callable[[int], bool]:
    return is_running


@pytest.fixture
def orphan() -> Iterator[Callable[[int], int]]:
    """Note a process that the test must not leave behind, whatever happens."""
    noted: list[int] = []

    def note(pid: int) -> int:
        with contextlib.suppress(ProcessLookupError):
            noted.append(os.pidfd_open(pid))
        return pid

    yield note
    for pidfd in noted:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)
