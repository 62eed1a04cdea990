"""What every test stands on: a home of its own, and a guard that keeps it there.

No test starts a process or touches a path outside its own folder unless it asks for
``machine``, which gives it both and clears away what it started.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from looping import Looping
from support import CHECKOUT, LIKE, LONG, Machine, until

# Whoever has no processor for a moment is late. Before any module of tests is read, which binds it.
settings.register_profile("here", database=None, deadline=None)
settings.load_profile("here")

_OWN = ("HOME", "TMUX_TMPDIR", "XDG_STATE_HOME", "XDG_CONFIG_HOME")
_UNSET = ("RECONCILE_SPEC", "STATE_DIRECTORY", "AI_CO_HOME", "TMUX", "TMUX_PANE", "NO_COLOR")
_STARTS = {"subprocess.Popen", "os.posix_spawn", "os.fork", "os.system", "os.exec"}
_CHANGES = {"os.mkdir", "os.rmdir", "os.remove", "os.rename", "os.chmod", "os.chown", "os.link"}
_guard: list[Path] = []
_SET_CHILD_SUBREAPER = 36  # prctl(2)


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: while a test runs without ``machine``, it stays in its own folder."""
    if not _guard:
        return
    if event in _STARTS and arguments[1:2] != (LIKE,):
        raise AssertionError(f"a test without the fixture 'machine' calls {event}")
    path = None
    if event in _CHANGES and isinstance(arguments[0], (str, bytes, os.PathLike)):
        path = arguments[0]
    elif event == "open" and isinstance(arguments[0], (str, bytes, os.PathLike)):
        flags = arguments[2] if isinstance(arguments[2], int) else 0
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        path = arguments[0] if writes else None
    if path is not None:
        text = os.fsdecode(path)
        allowed = (*map(str, _guard), "/dev/", "/proc/self/")
        if os.path.isabs(text) and not text.startswith(allowed):
            raise AssertionError(f"a test without the fixture 'machine' writes to {text}")


sys.addaudithook(_watch)

# What is ignored under nohup, or behind the & of a script, would be in all that a test starts.
for _number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(
            _number,
            signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL,
        )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The markers ``root`` and ``namespaces`` leave a test out, by name, where that is not had."""
    probe = ["unshare", "--mount", "--net", "--pid", "--fork", "mount", "--make-rprivate", "/"]
    try:
        without = bool(os.geteuid() or subprocess.run(probe, capture_output=True).returncode)
    except FileNotFoundError:
        without = True
    for item in items:
        if os.geteuid() and item.get_closest_marker("root"):
            item.add_marker(pytest.mark.skip(reason="needs root"))
        elif without and item.get_closest_marker("namespaces"):
            item.add_marker(pytest.mark.skip(reason="no namespaces can be had here"))


@pytest.fixture(autouse=True, scope="session")
def crontab_of_this_machine() -> Iterator[None]:
    """No test may touch the real crontab; that it is as it was is looked at in the end."""

    def seen() -> bytes | None:
        try:
            return subprocess.run(["crontab", "-l"], capture_output=True, timeout=LONG).stdout
        except FileNotFoundError:
            return None

    before = seen()
    yield
    assert seen() == before


@pytest.fixture(autouse=True)
def orphans_are_inits() -> Iterator[None]:
    """What is done for a child of its own must not make the tests' process a parent of orphans:
    it buries none, and a host whose first process has one among those below it never ends."""
    yield
    ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


@pytest.fixture(autouse=True)
def nothing_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was a secret, or was noted, in one test is not in the next."""
    from reconciler.base import text as redaction
    from reconciler.host import environment

    monkeypatch.setattr(environment, "_noted", [])
    monkeypatch.setattr(redaction, "_values", ())
    monkeypatch.setattr(redaction, "_given", set())
    monkeypatch.setattr(redaction, "_load", None)
    monkeypatch.setattr(redaction, "_marked", {})


@pytest.fixture(autouse=True)
def own_home(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A home below the test's own folder, and the guard around it."""
    home = tmp_path / "home"
    home.mkdir()
    for name in _UNSET:
        monkeypatch.delenv(name, raising=False)
    for name in _OWN:
        monkeypatch.setenv(name, str(home))
    # What a test imports late must not be compiled into some other folder.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    if not {"machine", "free"} & set(request.fixturenames):
        _guard.append(tmp_path)
    yield home
    _guard.clear()


@pytest.fixture
def free() -> None:
    """Lifts the guard, for tests that start processes and clear them away by themselves."""


@pytest.fixture
def one_process() -> None:
    """For who looks at a pass through strace(1), without its children."""
    from reconciler.host.filesystems import served

    if points := served():
        pytest.skip(f"a pass acts in a child here, for {sorted(points)[0]} may not answer")


@pytest.fixture
def machine(tmp_path: Path, own_home: Path) -> Iterator[Machine]:
    """A corner of the real machine. Nothing that is started in it outlives the test."""
    # A socket's path has at most 107 bytes, unix(7); pytest's folders are longer.
    sockets = Path(tempfile.mkdtemp(prefix="rc-", dir="/tmp"))
    made = Machine(tmp_path, sockets)
    try:
        yield made
    finally:
        made.clear()
        shutil.rmtree(sockets)


@pytest.fixture
def refused(machine: Machine, capsys: pytest.CaptureFixture[str]) -> Callable[[str], str]:
    """What ``--check`` says of a spec that is not valid, without a process for each of many."""
    from reconciler.cli.main import main

    def check(text: str) -> str:
        spec = machine.spec(text)
        assert main(["--check", str(spec), "--state-dir", str(machine.state)]) == 65
        return capsys.readouterr().err

    return check


@pytest.fixture
def executor(machine: Machine) -> Path:
    """The spec of the command executor, without the watchdog, which would be faster than we.

    Without its checks too, each of which takes its time; see machine/test_checks.py.
    """
    text = (CHECKOUT / "specs" / "executor.yaml").read_text()
    changed = text.replace("  watchdog: true\n", "  watchdog: false\n")
    assert changed != text
    without = re.sub(r"(?m)^checks:\n(?:(?: .*)?\n)+", "", changed)
    assert without != changed
    return machine.spec(without, "executor.yaml")


@pytest.fixture
def looping(machine: Machine) -> Iterator[Callable[..., Looping]]:
    """Starts loops over specs, each once it has said that it begins."""
    started: list[Looping] = []

    def start(spec: Path, **environ: str) -> Looping:
        started.append(Looping(machine, spec, **environ))
        until(lambda: started[-1].names() or started[-1].process.poll() is not None)
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()
