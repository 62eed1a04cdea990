"""A single pass beside a loop asks it for the pass, and never depends on the answer."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from looping import Looping
from support import LONG, Machine, late, until

from reconciler.core.model import Outcome, Plan, Step
from reconciler.watchdog.loop import Watchdog
from reconciler.watchdog.passes import Pass
from reconciler.watchdog.reload import SpecReload
from reconciler.watchdog.requests import Answer, PassRequests, request_pass

NOBODY = 65534


@pytest.fixture
def spec(machine: Machine) -> Path:
    return machine.spec(f'directories: {{d: {{path: {machine.base}/d, mode: "0750"}}}}\n')


@pytest.fixture
def loop(machine: Machine, spec: Path) -> Iterator[Looping]:
    running = Looping(machine, spec)
    running.up()
    yield running
    running.kill()


def once(machine: Machine, spec: Path, *words: str) -> tuple[int, str]:
    done = machine.reconcile("--once", spec, *words)
    return done.returncode, done.stdout + done.stderr


def place(machine: Machine, spec: Path) -> Path:
    """Where the loop listens; the state directory is there."""
    machine.once(spec)
    (folder,) = (one.parent for one in machine.state.glob("*/lock"))
    return folder / "requests"


def test_the_loop_makes_the_pass(machine: Machine, spec: Path, loop: Looping) -> None:
    before = loop.passes()
    status, said = once(machine, spec)
    assert (status, said.count("\n")) == (0, 1)
    assert f"the watchdog (pid {loop.pid}) keeps it as declared" in said
    until(lambda: loop.passes() == before + 1)

    (machine.base / "d").chmod(0o700)
    status, said = once(machine, spec, "--detailed-exitcode")
    assert (status, stat.S_IMODE((machine.base / "d").stat().st_mode)) == (2, 0o750)
    assert "it ran a pass:\n  done update directory:d: mode is 0700, should be 0750" in said
    assert once(machine, spec, "-q") == (0, "")


def test_what_waits_and_what_fails_is_not_called_as_declared(machine: Machine) -> None:
    spec = machine.spec(
        'processes: {bad: {command: "echo no port; exit 3", restart: {attempts: 1}}}\n'
        'checks: {never: {command: "false", every: 1h}}\n'
    )
    loop = Looping(machine, spec).up()
    try:
        until(lambda: "given up" in machine.reconcile("--status", spec).stdout)
        until(lambda: "failing" in machine.reconcile("--status", spec).stdout)
        for words in ((), ("--only", "*:*")):  # With that it looks for itself, and asks by signal.
            status, said = once(machine, spec, *words)
            assert status == 1, said
            lines = said.splitlines()
            assert lines[0].endswith(f"(pid {loop.pid}) keeps it as declared, except:")
            assert lines[1].startswith("  ! waits process:bad: not running; gave up after 1 failed")
            assert lines[2] == "  ! failing check:never: exit status 1"
        assert once(machine, spec, "-q") == (1, "")
        assert once(machine, spec, "--json")[0] == 1
    finally:
        loop.kill()


def test_other_values_than_the_loops_are_named_where_all_stays_as_it_was(machine: Machine) -> None:
    path = f"'{machine.base}/{{{{ which }}}}'"
    spec = machine.spec(f"vars: {{which: one}}\ndirectories: {{d: {{path: {path}}}}}\n")
    loop = Looping(machine, spec).up()
    try:
        status, said = once(machine, spec, "--set", "which=two")
        assert status == 1, said
        assert (
            "still wrong after a pass of the watchdog; it keeps to its own --set values: stop it "
            "before a pass with others: missing" in said
        )
        assert not (machine.base / "two").exists()
    finally:
        loop.kill()


def test_what_was_not_believed_is_told(machine: Machine, spec: Path, loop: Looping) -> None:
    """As a pass of its own would."""
    (machine.base / "there").mkdir()
    (machine.base / "there/tmux").symlink_to("/bin/true")
    machine.environ["PATH"] = f"there:{machine.environ['PATH']}"
    status, said = once(machine, spec)
    assert (status, f"pid {loop.pid}" in said) == (0, True)
    assert re.search("^  ! PATH: there/tmux is skipped", said, re.MULTILINE), said
    assert once(machine, spec, "-q") == (0, "")


def test_whoever_is_answered_loads_nothing_else(
    machine: Machine, spec: Path, loop: Looping
) -> None:
    words = machine.argv("--once", "-q", spec)
    done = machine.run(sys.executable, "-X", "importtime", *words)
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    ours = {name for name in loaded if name.startswith("reconciler.")}
    assert {name.split(".")[1] for name in ours} == {
        "base", "cli", "config", "host", "output", "state", "watchdog",
    }  # fmt: skip
    assert len(ours) <= 38
    assert not {"argparse", "socket", "_sqlite3"} & loaded


def test_another_spec_is_not_the_loops(machine: Machine, spec: Path, loop: Looping) -> None:
    """What was changed a moment ago is looked at by who asks, and not taken for what is kept."""
    spec.write_text(spec.read_text().replace("0750", "0711"))
    status, said = once(machine, spec)
    assert status == 0, said
    assert stat.S_IMODE((machine.base / "d").stat().st_mode) == 0o711


@pytest.mark.parametrize("left", ["socket", "nothing", "file"])
def test_without_an_answer_the_pass_is_made(machine: Machine, spec: Path, left: str) -> None:
    """A loop that was killed leaves its socket; an older one has none."""
    running = Looping(machine, spec).up()
    running.kill()
    (path,) = machine.state.glob("*/requests")
    assert stat.S_IMODE(path.lstat().st_mode) == 0o600
    if left != "socket":
        path.unlink()
    if left == "file":
        path.write_text("")
    (machine.base / "d").chmod(0o700)
    status, said = once(machine, spec)
    assert (status, "1 done" in said) == (0, True), said
    again = Looping(machine, spec)
    try:
        again.up()
        assert stat.S_ISSOCK(path.lstat().st_mode)
        assert f"pid {again.pid}" in once(machine, spec)[1]
        assert again.end() == 0
        assert not path.exists()
    finally:
        again.kill()


def test_beside_an_older_loop_it_is_asked_by_signal(
    machine: Machine, spec: Path, loop: Looping
) -> None:
    (path,) = machine.state.glob("*/requests")
    path.unlink()
    (machine.base / "d").chmod(0o700)
    status, said = once(machine, spec)
    assert status == 0
    assert f"the watchdog (pid {loop.pid}) keeps it as declared; it ran a pass:" in said
    assert stat.S_IMODE((machine.base / "d").stat().st_mode) == 0o750


def test_only_a_pass_that_can_begin_now_is_promised() -> None:
    """One that is under way may take long, and the command that asks may be a part of it."""
    loop: Any = Watchdog.__new__(Watchdog)
    kept: Any = SpecReload.__new__(SpecReload)
    kept.spec, kept._loading, kept._wrong = SimpleNamespace(last_good=False), None, False
    kept._seen, kept._sources = (1,), lambda: (1,)
    kept._context = SimpleNamespace(compiled=lambda: SimpleNamespace(digest="kept"))
    loop._full, loop._kept = None, kept
    assert (loop._keeps("kept"), loop._keeps("other")) == (True, False)
    loop._full = object()
    assert not loop._keeps("kept")
    loop._full, kept._seen = None, (2,)
    assert not loop._keeps("kept")
    kept._seen, kept._context = (1,), None  # Whatever goes wrong.
    assert not loop._keeps("kept")


def _listening(path: Path, user: int | None = None) -> socket.socket:
    path.unlink(missing_ok=True)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    before = os.getcwd()
    os.chdir(path.parent)  # A name has at most 107 bytes.
    made.bind(path.name)
    os.chdir(before)
    if user is not None:
        os.seteuid(user)
    made.listen(4)
    os.seteuid(os.getuid())
    return made


def test_a_mute_socket_holds_nobody_up(machine: Machine, spec: Path) -> None:
    with closing(_listening(place(machine, spec))):
        (machine.base / "d").chmod(0o700)
        began = time.monotonic()
        status, said = once(machine, spec)
        assert (status, "1 done" in said) == (0, True), said
        assert time.monotonic() - began > 1.9


@pytest.mark.root
def test_another_users_socket_is_not_believed(machine: Machine, spec: Path) -> None:
    with closing(_listening(place(machine, spec), NOBODY)) as made:

        def lie() -> None:
            connection, _ = made.accept()
            with closing(connection), suppress(BrokenPipeError):
                connection.send(b"heard")
                connection.send(b"as declared")

        thread = threading.Thread(target=lie, daemon=True)
        thread.start()
        (machine.base / "d").chmod(0o700)
        status, said = once(machine, spec)
        assert (status, "1 done" in said) == (0, True), said
        thread.join(LONG)


@pytest.mark.root
def test_another_user_is_not_let_in(machine: Machine, spec: Path, loop: Looping) -> None:
    (path,) = machine.state.glob("*/requests")
    folder = os.open(path.parent, os.O_PATH)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with closing(made):
        os.seteuid(NOBODY)
        try:
            with pytest.raises(PermissionError):
                made.connect(f"/proc/self/fd/{folder}/requests")
        finally:
            os.seteuid(os.getuid())
            os.close(folder)


def test_a_stopped_loop_holds_nobody_up(machine: Machine, spec: Path, loop: Looping) -> None:
    (path,) = machine.state.glob("*/requests")
    loop.send(signal.SIGSTOP)
    began = time.monotonic()
    assert request_pass(str(path.parent), "x") is None
    assert not late(time.monotonic() - began, 10)
    loop.send(signal.SIGCONT)


# -- the loop's side, by itself


class Served:
    """``PassRequests`` in this process, and somebody who asks in a thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requests = PassRequests(str(folder), lambda digest: digest == "kept")
        self.found: list[Answer | None] = []

    def ask(self, digest: str = "kept") -> threading.Thread:
        asker = threading.Thread(
            target=lambda: self.found.append(request_pass(str(self.folder), digest)), daemon=True
        )
        asker.start()
        return asker

    def tend(self, wanted: Callable[[], Any]) -> list[str]:
        found: list[str] = []
        until(lambda: found.extend(self.requests.tend(self.requests.descriptors())) or wanted())
        return found


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    made = Served(folder)
    yield made
    made.requests.close()
    assert not (folder / "requests").exists()


def _pass(result: object) -> Any:
    made = Pass.__new__(Pass)
    made.result = result
    return made


PLAN = Plan("s", "/s.yaml", "here", 1)
STEP = Step("directory:d", "update", (), (), "mode is 0700", ())


def test_the_answer_is_what_was_done(served: Served) -> None:
    asker, one = served.ask(), _pass("well")
    assert served.tend(lambda: served.requests._waiting) == ["*"]
    served.requests.begun(one)
    served.requests.looked(one, PLAN, [STEP.id], True)
    served.requests.did(one, Outcome(STEP, "done"))
    served.requests.over(one)
    asker.join(LONG)
    (answer,) = served.found
    assert answer is not None and (answer.word, answer.pid) == ("done", os.getpid())
    ((text, style),) = answer.lines
    assert text.startswith("  done update directory:d: mode is 0700") and style == "good"


@pytest.mark.parametrize("how", ["another spec", "no result", "too long", "not looked"])
def test_without_an_answer_the_asker_is_let_go(served: Served, how: str) -> None:
    asker = served.ask("other" if how == "another spec" else "kept")
    one = _pass(None if how == "no result" else "well")
    if how == "another spec":
        served.tend(lambda: not asker.is_alive())
    else:
        served.tend(lambda: served.requests._waiting)
        served.requests.begun(one)
        if how != "not looked":
            served.requests.looked(one, PLAN, [STEP.id], True)
        for _ in range(20_000 if how == "too long" else 1):
            served.requests.did(one, Outcome(STEP, "done"))
        served.requests.over(one)
    asker.join(LONG)
    assert served.found == [None]


def test_what_has_nothing_to_do_answers_when_it_has_looked(served: Served) -> None:
    asker, one = served.ask(), _pass(None)
    served.tend(lambda: served.requests._waiting)
    served.requests.begun(one)
    served.requests.looked(one, PLAN, [], True)
    asker.join(LONG)
    (answer,) = served.found
    assert answer is not None and answer.word == "as declared"
    served.requests.over(one)


def test_who_does_not_ask_is_let_go(served: Served) -> None:
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)) as mute:
        folder = os.open(served.folder, os.O_PATH)
        mute.connect(f"/proc/self/fd/{folder}/requests")
        os.close(folder)
        served.tend(lambda: served.requests._unread)
        due = served.requests.due()
        assert due is not None and due <= 2
        served.tend(lambda: not served.requests._unread)
        assert served.requests.due() is None


def test_without_a_free_descriptor_the_loop_does_not_spin(served: Served) -> None:
    """Who waits to be let in makes the socket readable, again and again."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    (listener,) = served.requests.descriptors()
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)) as asker:
        folder = os.open(served.folder, os.O_PATH)
        asker.connect(f"/proc/self/fd/{folder}/requests")
        os.close(folder)
        os.close(free := os.dup(0))
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        try:
            assert served.requests.tend([listener]) == ()
            assert served.requests.descriptors() == []
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_many_who_ask_have_one_pass(served: Served) -> None:
    askers = [served.ask() for _ in range(5)]
    served.tend(lambda: len(served.requests._waiting) == 5)
    one = _pass("well")
    served.requests.begun(one)
    served.requests.looked(one, PLAN, [], False)
    served.requests.over(one)
    for asker in askers:
        asker.join(LONG)
    assert [answer is not None and answer.word for answer in served.found] == ["shared"] * 5
