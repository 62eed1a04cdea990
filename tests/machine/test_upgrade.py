"""The program of a loop is moved away, replaced, or gone, in a real virtual environment."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import uuid
import venv
from pathlib import Path
from typing import Any

import pytest
from looping import Looping
from serving import Serving
from support import CHECKOUT, Machine, free_port, until

from reconciler.host import program
from reconciler.host.clock import Clock


class Installation:
    """The program in a virtual environment of its own; what it needs is that of the tests."""

    def __init__(self, base: Path) -> None:
        self.folder = base / "venv"
        self.aside = base / "aside"
        venv.create(self.folder, symlinks=True)
        lib = next(self.folder.glob("lib/python*/site-packages"))
        (lib / "needs.pth").write_text(sysconfig.get_path("purelib") + "\n")
        self.package = lib / "reconciler"
        self.install(self.package)
        self.script = self.folder / "bin/reconcile"
        self.script.write_text(
            f"#!{self.folder}/bin/python\nimport sys\nfrom reconciler.cli.main import main\n"
            "sys.exit(main())\n"
        )
        self.script.chmod(0o755)

    def install(self, to: Path, version: str = "0.1.0") -> None:
        shutil.copytree(CHECKOUT / "reconciler", to, ignore=shutil.ignore_patterns("__pycache__"))
        init = to / "__init__.py"
        init.write_text(init.read_text().replace("0.1.0", version))
        # Says which one it is.
        log = to / "output/log.py"
        log.write_text(log.read_text().replace('"time": ', f'"version": "{version}", "time": '))

    def upgrade(self) -> None:
        """As pip does it: the old files go, and then the new ones come."""
        shutil.rmtree(self.package)
        self.install(self.package, "9.9.9")


@pytest.fixture
def installation(machine: Machine) -> Installation:
    made = Installation(machine.base)
    machine.bin = made.folder / "bin"
    return made


class Kept:
    """A loop of that program, with a worker that must be back whatever becomes of the program."""

    def __init__(self, machine: Machine, looping: Any) -> None:
        self.machine = machine
        self.mark = f"worker-{uuid.uuid4().hex}"
        self.made = machine.base / "d"
        self.spec = machine.spec(
            "version: 1\nname: demo\nloop: {every: 200ms}\n"
            f"processes: {{w: {{command: [sh, -c, 'sleep 600; :', {self.mark}], "
            "restart: {healthy_after: 100ms, backoff: {initial: 10ms}}}}\n"
            f"directories: {{d: {{path: {self.made}, mode: '0750'}}}}\n"
            f"permissions: {{p: {{path: {self.made}, mode: '0750', recursive: true}}}}\n"
        )
        self.loop: Looping = looping(self.spec).up()
        self.pid = machine.only(self.mark)

    def version(self) -> str:
        return str(self.loop.events()[-1].get("version"))

    def is_kept(self) -> None:
        """What breaks is mended."""
        pid = self.machine.only(self.mark)
        os.kill(pid, signal.SIGKILL)
        until(lambda: [one for one in self.machine.running(self.mark) if one != pid])
        self.made.rmdir()
        until(lambda: self.made.is_dir() and self.made.stat().st_mode & 0o777 == 0o750)


@pytest.fixture
def kept(machine: Machine, installation: Installation, looping: Any) -> Kept:
    return Kept(machine, looping)


class Holder:
    """Tries to get the lock all the time, as every cron job does."""

    def __init__(self, lock: Path) -> None:
        code = (
            "import fcntl, os, sys, time\n"
            "handle = os.open(sys.argv[1], os.O_RDWR)\n"
            "while True:\n"
            "    try:\n"
            "        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
            "        sys.exit(7)\n"
            "    except BlockingIOError:\n"
            "        time.sleep(0.0005)\n"
        )
        self.process = subprocess.Popen([sys.executable, "-S", "-c", code, str(lock)])

    def end(self) -> int | None:
        """Its exit status, if it got the lock."""
        status = self.process.poll()
        self.process.kill()
        self.process.wait()
        return status


def test_an_upgrade_is_taken_by_the_same_process(
    machine: Machine, installation: Installation, kept: Kept
) -> None:
    holder = Holder(machine.state / "demo/lock")
    try:
        installation.upgrade()
        until(lambda: kept.version() == "9.9.9")
    finally:
        got = holder.end()
    assert got is None, "somebody else got the lock meanwhile"
    assert kept.loop.process.poll() is None
    assert [e["text"] for e in kept.loop.events() if e["event"] == "replaced"] == [
        "this program was replaced; the watchdog restarts itself"
    ]
    assert machine.running(kept.mark) == [kept.pid], "what it manages goes on"
    seen = until(kept.loop.pulse)
    assert seen.identity.pid == kept.loop.pid
    kept.is_kept()
    # It goes on to be a whole loop: once more, and to its end.
    kept.loop.send(signal.SIGUSR1)
    kept.loop.full_pass()
    assert kept.loop.end() == 0
    handle = os.open(machine.state / "demo/lock", os.O_RDWR)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(handle)


def test_one_that_is_moved_away_goes_on_until_it_is_back(
    installation: Installation, kept: Kept
) -> None:
    installation.folder.rename(installation.aside)
    until(lambda: "program" in kept.loop.names())
    kept.is_kept()
    kept.is_kept()
    assert "error" not in kept.loop.names()
    installation.aside.rename(installation.folder)
    kept.loop.full_pass()
    kept.is_kept()
    assert "replaced" not in kept.loop.names()
    (said,) = (e["text"] for e in kept.loop.events() if e["event"] == "program")
    assert said.startswith("this program is missing: ")


def test_half_of_an_upgrade_is_not_taken(installation: Installation, kept: Kept) -> None:
    commands = installation.package / "cli/commands"
    (commands / "loop.py").write_text("import reconciler.nothing_like_it\n")
    os.utime(commands)
    until(lambda: "program" in kept.loop.names())
    (said,) = (e["text"] for e in kept.loop.events() if e["event"] == "program")
    assert "the new one cannot be used" in said
    assert "reconciler.nothing_like_it" in said
    kept.is_kept()
    assert "replaced" not in kept.loop.names()


@pytest.mark.slow
def test_where_there_is_none_it_ends_with_an_error(
    machine: Machine, installation: Installation, kept: Kept
) -> None:
    installation.folder.rename(installation.aside)
    until(lambda: kept.loop.process.poll() is not None)
    assert kept.loop.process.returncode == 1
    said = kept.loop.errors.read_text()
    assert "this program is missing" in said
    assert "Traceback" not in said
    assert machine.running(kept.mark) == [kept.pid]


class Turned(Clock):
    """A clock that a test turns."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


def test_how_long_there_may_be_none(
    machine: Machine, installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "_PACKAGE", str(installation.package))
    clock, told = Turned(), []
    seen = program.Installed(clock, lambda words, bad: told.append(words))
    assert seen.due() is None
    installation.package.rename(installation.aside)
    seen.look()
    clock.now += 29
    assert seen.due() is not None
    seen.tend(())
    assert (seen.over, len(told)) == (None, 1)
    # Back for a moment: it counts from anew.
    installation.aside.rename(installation.package)
    seen.tend(())
    installation.package.rename(installation.aside)
    seen.look()
    clock.now += 29
    seen.tend(())
    assert seen.over is None
    clock.now += 2
    seen.tend(())
    assert "is missing" in str(seen.over) and "did not exist" in str(seen.over)


class Attempt:
    """A child that tries to load the other program; a test says what has become of it."""

    descriptor, left = -1, 30.0
    answer: bytes | None = None

    def collect(self) -> bytes | None:
        return self.answer


def test_when_another_one_is_tried_and_when_it_is_taken(
    machine: Machine, installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "_PACKAGE", str(installation.package))
    tried: list[Attempt] = []
    monkeypatch.setattr(program, "Child", lambda *_: tried.append(Attempt()) or tried[-1])
    clock, told = Turned(), []
    seen = program.Installed(clock, lambda words, bad: told.append(words))

    def no_process(*_: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    def changed(name: str) -> None:
        (installation.package / "output" / name).touch()
        seen.look()

    def later(seconds: float) -> None:
        clock.now += seconds
        seen.tend(())

    changed("beside.txt")
    later(3.1)
    assert (tried, seen.due()) == ([], None)
    # As long as files come it is not whole.
    for number in range(3):
        changed(f"new{number}.py")
        later(2.9)
        assert tried == []
    with monkeypatch.context() as short:
        short.setattr(program, "Child", no_process)
        later(0.2)
        assert seen.due() == 1.0
    later(0.2)
    # What has changed since it was tried is another one.
    changed("late.py")
    tried[-1].answer = b""
    later(0.1)
    assert seen.over is None
    later(3.1)
    assert len(tried) == 2
    # One that cannot be loaded is not tried again.
    tried[-1].answer = b"no such module"
    later(0.1)
    later(100.0)
    seen.look()
    assert len(tried) == 2 and seen.due() is None and len(told) == 1
    changed("last.py")
    later(3.1)
    tried[-1].answer = b""
    later(0.1)
    assert len(tried) == 3 and isinstance(seen.over, program.Replaced)


def test_what_somebody_else_may_change_is_not_taken(
    machine: Machine, installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "_PACKAGE", str(installation.package))
    installation.package.chmod(0o777)
    assert str(installation.package).encode() in program._loads()


def test_what_another_python_would_load_is_trusted_before_it_is_run(
    machine: Machine, installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder of the new version, which somebody else may write to; nothing of it is run."""
    monkeypatch.setattr(program, "_PACKAGE", str(installation.package))
    ran: list[object] = []
    monkeypatch.setattr(program, "run", lambda words, **_: ran.append(words))
    lib = installation.package.parents[1]
    lib.rename(lib.with_name("python3.99"))
    moved = lib.with_name("python3.99") / "site-packages/reconciler"
    moved.chmod(0o777)
    assert str(moved).encode() in program._loads()
    shutil.rmtree(moved)
    assert b"it is not installed for" in program._loads()
    assert ran == []


@pytest.mark.slow
def test_the_status_page_becomes_the_new_program(
    machine: Machine, installation: Installation
) -> None:
    spec = machine.spec(f"directories: {{d: {{path: {machine.base}/d}}}}\n")
    page = Serving(machine, spec, at=f"127.0.0.1:{free_port()}")
    try:
        assert "reconcile 0.1.0" in page.text()
        installation.upgrade()

        def shows_it() -> bool:
            time.sleep(0.5)
            try:
                return "reconcile 9.9.9" in page.text()
            except OSError:
                return False  # It starts just now.

        until(shows_it)
        assert page.process.poll() is None
    finally:
        page.kill()
