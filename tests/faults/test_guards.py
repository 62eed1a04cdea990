"""Guards that show only at a bad moment: the order of two calls, a crash, an effective user."""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import LONG, Machine, until

from reconciler.base.errors import HostError, UnknownState
from reconciler.host import place, private_folder, trust, walk
from reconciler.host.clock import Clock
from reconciler.host.processes import Identity, ProcessEntry, Processes, look_up
from reconciler.host.stops import StopUnderWay
from reconciler.state.heartbeat import WatchdogHeartbeat

NOBODY = 65534
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")


@pytest.fixture
def folder(free: None) -> Iterator[Path]:
    """A folder that everybody may enter, unlike pytest's."""
    made = Path(tempfile.mkdtemp(prefix="rc-", dir="/var/tmp"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@contextmanager
def acting_as(uid: int) -> Iterator[None]:
    """The effective user is another than the real one, as below a set-user-ID program."""
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


# -- chown(2) takes set-ID bits away, so the mode comes behind it


@pytest.mark.root
@ROOT
def test_a_set_id_bit_outlives_the_change_of_the_owner(folder: Path) -> None:
    path = folder / "program"
    path.touch()
    entry = os.open(path, os.O_PATH)
    try:
        walk.set_on(entry, 0o6755, NOBODY, NOBODY)
    finally:
        os.close(entry)
    status = path.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o6755, NOBODY)


@pytest.mark.root
@ROOT
def test_a_new_file_has_the_set_id_bits_that_were_asked_for(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        place.put(handle, "program", b"x", 0o6755, NOBODY, NOBODY)
    finally:
        os.close(handle)
    status = (folder / "program").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o6755, NOBODY)


# -- it is the effective user who is believed, not the real one


@pytest.mark.root
@ROOT
def test_who_is_believed_is_the_effective_user(folder: Path) -> None:
    mine = folder / "mine"
    mine.mkdir()
    (mine / "file").write_text("x")
    for path in (mine, mine / "file"):
        os.chown(path, NOBODY, NOBODY)
    assert not trust.is_trusted(str(mine / "file"))
    assert not trust.is_trusted_way(str(mine))
    with pytest.raises(trust.Untrusted):
        trust.refuse_untrusted_way(str(mine), "what stands there")
    with pytest.raises(HostError, match="not a regular file of ours"):
        trust.own_file(str(mine / "file"))
    with acting_as(NOBODY):
        assert trust.is_trusted(str(mine / "file"))
        os.close(trust.own_file(str(mine / "file")))
        trust.refuse_untrusted(str(mine / "file"))
        assert trust.is_trusted_way(str(mine))
        trust.refuse_untrusted_way(str(mine), "what stands there")
        handle = os.open(mine, os.O_RDONLY)
        try:
            assert trust.only_ours(os.fstat(handle), handle)
            assert not walk.shared(os.fstat(handle))
        finally:
            os.close(handle)


@pytest.mark.root
@ROOT
def test_a_private_folder_is_the_effective_users(folder: Path) -> None:
    folder.chmod(0o777)
    mine = folder / "mine"
    mine.mkdir(mode=0o700)
    os.chown(mine, NOBODY, NOBODY)
    above = os.open(folder, os.O_PATH)
    try:
        assert private_folder.entered(above, "mine") is None
        with acting_as(NOBODY):
            handle = private_folder.entered(above, "mine")
            assert handle is not None
            os.close(handle)
    finally:
        os.close(above)


@pytest.mark.root
@ROOT
def test_a_link_of_the_real_user_is_not_followed(folder: Path) -> None:
    folder.chmod(0o1777)
    (folder / "link").symlink_to("/usr")
    os.chown(folder / "link", 1, 1, follow_symlinks=False)
    script = (
        "import os, sys\n"
        "from reconciler.host import walk\n"
        "os.setresuid(1, {uid}, 0)\n"
        "with walk.opened(sys.argv[1]) as handle: print(os.fstat(handle).st_ino)\n"
    )

    def seen(uid: int) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-c", script.format(uid=uid), str(folder / "link")]
        return subprocess.run(argv, capture_output=True, text=True)

    # Whose effective user is its owner follows it; the real one counts for nothing.
    assert seen(1).stdout == f"{os.stat('/usr').st_ino}\n"
    assert UnknownState.__name__ in seen(NOBODY).stderr


# -- a new file is on the disk before it has its name


def calls(trace: str) -> list[str]:
    """fsync and what gives the name NAME to something, in their order."""
    found = re.findall(r" (fsync|linkat|renameat2?)\((.*)", trace)
    return [call for call, rest in found if call == "fsync" or '"goal"' in rest]


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("unnamed", [True, False])
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_a_file_is_on_the_disk_before_it_has_its_name(
    machine: Machine, replace: bool, unnamed: bool
) -> None:
    if replace:
        (machine.base / "goal").write_text("older")
    script = machine.base / "script.py"
    script.write_text(
        "import errno, os, sys\n"
        "from reconciler.host import place\n"
        f"if not {unnamed}: os.O_TMPFILE = os.O_DIRECTORY | os.O_EXCL | os.O_CREAT\n"
        f"place.put_at({str(machine.base / 'goal')!r}, b'whole', replace={replace})\n"
    )
    trace = machine.traced("trace=execve,fsync,link,linkat,rename,renameat,renameat2",
                           sys.executable, script)  # fmt: skip
    assert (machine.base / "goal").read_bytes() == b"whole"
    named = calls(trace)
    assert named[0] == "fsync"  # The file's own,
    assert len(named) == 3 and named[2] == "fsync"  # and then that of its folder.


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_a_changed_file_is_on_the_disk_before_it_has_its_name(machine: Machine) -> None:
    goal = machine.base / "folder/goal"
    goal.parent.mkdir()
    goal.write_text("theirs\n")
    spec = machine.spec(f"blocks: {{b: {{path: {goal}, content: ours}}}}")
    trace = machine.traced(
        "trace=execve,fsync,rename,renameat,renameat2",
        *machine.argv("--once", spec),
        options=["-y"],
    )
    assert "ours" in goal.read_text()
    seen = [line for line in trace.splitlines() if str(goal.parent) in line]
    (named,) = [at for at, line in enumerate(seen) if " rename" in line and '"goal"' in line]
    assert any(" fsync(" in line and f"{goal.parent}>" not in line for line in seen[:named])


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_what_is_copied_of_a_log_is_on_the_disk_before_the_log_is_cut(machine: Machine) -> None:
    logs = machine.base / "logs"
    logs.mkdir()
    (logs / "goal").write_text("x" * 5000)  # No whole blocks, which could be taken out at once.
    spec = machine.spec(
        f"retention: {{r: {{path: {logs}, action: rotate, method: copytruncate, max_file: 1KiB,"
        " compress: false}}"
    )
    trace = machine.traced(
        "trace=execve,fsync,ftruncate,linkat", *machine.argv("--once", spec), options=["-y"]
    )
    assert (logs / "goal.1").exists()
    _, _, after = trace.partition('"goal.1"')
    seen = re.findall(rf" (fsync|ftruncate)\(\d+<{logs}/(#\d+|goal|goal\.1)>", after)
    copy = [call if name != "goal" else "cut" for call, name in seen]
    # What came until then is there before, and what came last behind it.
    assert copy[:3] == ["fsync", "cut", "fsync"]


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_an_archive_is_on_the_disk_under_its_name_before_what_is_in_it_goes(
    machine: Machine,
) -> None:
    """Also where it takes the place of an older one."""
    old, out = machine.base / "old", machine.base / "out"
    old.mkdir()
    out.mkdir()
    spec = machine.spec(
        f"retention: {{r: {{path: {old}, older_than: 1d, action: archive, to: {out}/goal.tar.gz}}}}"
    )
    for name, call in (("one", "linkat"), ("two", "renameat2")):
        (old / name).touch()
        os.utime(old / name, (1, 1))
        trace = machine.traced(
            "trace=execve,fsync,linkat,rename,renameat,renameat2,unlinkat",
            *machine.argv("--once", spec), options=["-y"],
        )  # fmt: skip
        assert not (old / name).exists()
        before = trace.partition(f'"{name}"')[0]
        named = max(
            at for at, line in enumerate(before.splitlines())
            if f" {call}(" in line and '"goal.tar.gz"' in line
        )  # fmt: skip
        lines = before.splitlines()
        assert any(" fsync(" in line and f"{out}/" in line for line in lines[:named])
        assert any(" fsync(" in line and f"<{out}>" in line for line in lines[named:])


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_what_goes_to_another_file_system_is_on_its_disk_before_it_goes_here(
    machine: Machine,
) -> None:
    old = machine.base / "old"
    old.mkdir()
    if not os.path.isdir("/dev/shm") or os.stat("/dev/shm").st_dev == old.stat().st_dev:
        pytest.skip("no file system is mounted on /dev/shm")
    (old / "goal").write_text("x")
    os.utime(old / "goal", (1, 1))
    with tempfile.TemporaryDirectory(prefix="rc-", dir="/dev/shm") as out:
        spec = machine.spec(
            f"retention: {{r: {{path: {old}, older_than: 1d, action: move, to: {out}}}}}"
        )
        trace = machine.traced(
            "trace=execve,fsync,linkat,unlinkat", *machine.argv("--once", spec), options=["-y"]
        )
        assert os.listdir(out) == ["goal"]
    # What is done beside that may tear the line of a call into its beginning and its end.
    calls = [re.search(rf' (?:fsync\(\d+<({out}[^>]*)>|(linkat|unlinkat)\(.*"goal")', line)
             for line in trace.splitlines() if " = -1 " not in line]  # fmt: skip
    seen = [one[2] or ("folder" if one[1] == out else "file") for one in calls if one]
    assert seen == ["file", "linkat", "folder", "unlinkat"]


# -- what is stopped is asked to end, not killed


@contextmanager
def running(script: str, *argv: str) -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(["sh", "-c", script, "sh", *argv], start_new_session=True)
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def is_stopped(pid: int) -> bool:
    entry = look_up(pid)
    return entry is not None and entry.state == "T"


def test_a_stopped_process_ends_by_the_signal_that_it_knows(free: None, tmp_path: Path) -> None:
    said = tmp_path / "said"
    with running(
        f"trap 'echo bye > {said}; exit 0' TERM; echo > {tmp_path}/up; while :; do sleep 0.05; done"
    ) as child:
        until((tmp_path / "up").exists)
        os.kill(child.pid, signal.SIGSTOP)
        until(lambda: is_stopped(child.pid))
        entry = look_up(child.pid)
        assert entry is not None
        StopUnderWay(entry.identity, "TERM", 10.0).make(Processes(Clock()))
        assert child.wait(LONG) == 0
    assert said.read_text() == "bye\n"


def test_one_that_is_stopped_after_it_was_looked_at_ends_so_too(
    free: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = tmp_path / "said"
    with running(
        f"trap 'echo bye > {said}; exit 0' TERM; echo > {tmp_path}/up; while :; do sleep 0.05; done"
    ) as child:
        until((tmp_path / "up").exists)
        entry = look_up(child.pid)
        assert entry is not None
        processes = Processes(Clock())
        signal_as_before = processes._signal

        def stopped_just_before(identities: object, number: signal.Signals) -> None:
            if number == signal.SIGTERM:
                os.kill(child.pid, signal.SIGSTOP)
                until(lambda: is_stopped(child.pid))
            signal_as_before(identities, number)  # type: ignore[arg-type]

        monkeypatch.setattr(processes, "_signal", stopped_just_before)
        StopUnderWay(entry.identity, "TERM", 10.0).make(processes)
        assert child.wait(LONG) == 0
    assert said.read_text() == "bye\n"


def test_who_gets_the_number_of_a_process_that_is_stopped_is_left_alone(
    free: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes = Processes(Clock())
    wait_as_before = processes.wait
    with running("sleep 60") as child, running("sleep 60") as other:
        time.sleep(0.02)  # Two starts that can be told apart, in clock ticks.
        entry, after = look_up(child.pid), look_up(other.pid)
        assert entry is not None and after is not None
        later = ProcessEntry(
            Identity(after.identity.start + 1, child.pid), "S", 1, child.pid, child.pid
        )

        def given_anew(identities: Iterable[Identity], end: float) -> None:
            wait_as_before(identities, end)
            child.wait(LONG)
            # Whoever comes next leads a session of that number; the other stands for his child.
            member = ProcessEntry(after.identity, "S", child.pid, child.pid, child.pid)
            seen = {child.pid: later, other.pid: member}
            for module in ("processes", "descendants", "process_snapshot"):
                monkeypatch.setattr(
                    f"reconciler.host.{module}.look_up",
                    lambda pid, zombies=False: seen.get(pid) or look_up(pid, zombies),
                )
            monkeypatch.setattr(processes, "wait", wait_as_before)

        monkeypatch.setattr(processes, "wait", given_anew)
        StopUnderWay(entry.identity, "TERM", 10.0).make(processes)
        assert other.poll() is None


# -- a loop that is late is not yet one that hangs


@pytest.mark.parametrize("every", [1.0, 30.0, 3600.0])
def test_a_loop_has_three_intervals_and_half_a_minute(every: float) -> None:
    def loop(age: float) -> WatchdogHeartbeat:
        return WatchdogHeartbeat(Identity(1, 1), age, every, 1, 1)

    longest = 3 * every + 30
    assert loop(longest - 0.1).healthy
    assert not loop(longest + 0.1).healthy
