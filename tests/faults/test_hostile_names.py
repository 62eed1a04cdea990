"""What somebody calls his processes, and how many he nests, keeps no pass busy."""

from __future__ import annotations

import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import NoReturn

import pytest
from support import LONG, Machine, until
from support import within as promised

from reconciler.base.errors import UnknownState
from reconciler.cli.main import main
from reconciler.executor.cli import main as executor
from reconciler.host import process_search, process_snapshot, processes
from reconciler.host.process_facts import facts
from reconciler.host.process_search import ProcessSearch, within
from reconciler.host.process_snapshot import ProcessSnapshot
from reconciler.host.processes import Identity, ProcessEntry


def is_the_program(pid: int) -> None:
    """Wait until it has its arguments: it is told to have begun a moment before, execve(2)."""
    until(lambda: Path(f"/proc/{pid}/cmdline").read_bytes() != b"")


def test_a_command_line_that_a_pattern_never_ends_with(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "a" * 30_000
    argv = ["/bin/sh", "-c", "read x", f"of-{os.getpid()}", name]
    with subprocess.Popen(argv, stdin=subprocess.PIPE) as one:
        is_the_program(one.pid)
        with promised(20), pytest.raises(UnknownState, match="longer than 2 s"):
            ProcessSearch(ProcessSnapshot()).with_command_line("(a+)+b$", os.getuid())
        with promised(20):
            monkeypatch.setattr(process_search, "_MATCHING", 0.3)
            table, why = ProcessSearch(ProcessSnapshot()), list[str]()
            for number in range(20):  # However many resources have such a pattern.
                with pytest.raises(UnknownState) as given_up:
                    table.with_command_line(f"(a+)+b{number}$", os.getuid())
                why.append(str(given_up.value))
            assert ["others took longer" in words for words in why] == [False] * 3 + [True] * 17
        # The alarm is off, and the one who had it has it again. However long the look takes here.
        monkeypatch.setattr(process_search, "_MATCHING", LONG)
        found = ProcessSearch(ProcessSnapshot()).with_command_line(
            f"^/bin/sh -c read x of-{os.getpid()} a{{30}}", os.getuid()
        )
        assert [each.pid for each in found] == [one.pid]
        assert one.stdin is not None
        one.stdin.close()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
def test_what_somebody_calls_a_set_user_id_program_hides_no_process_of_roots(free: None) -> None:
    with tempfile.TemporaryDirectory(prefix="rc-", dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        program = shutil.copy("/bin/cat", folder)
        Path(program).chmod(0o4755)
        nobody = ["setpriv", "--reuid=65534", "--clear-groups"]
        # Not as one of root's of another test.
        argv = [*nobody, program, "-", "c" * 30_000]
        with subprocess.Popen(argv, stdin=subprocess.PIPE) as one:
            try:
                until(lambda: os.readlink(f"/proc/{one.pid}/exe") == program)
                is_the_program(one.pid)
                assert os.stat(f"/proc/{one.pid}").st_uid == 0
                assert ProcessSearch(ProcessSnapshot()).with_command_line("(c+)+b$", 0) == []
            finally:
                one.kill()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
def test_who_becomes_root_by_a_set_user_id_program_is_no_process_of_roots(free: None) -> None:
    becomes_root = "import os; os.setresuid(0, 0, 0); print('it is', flush=True); os.read(0, 1)"
    with tempfile.TemporaryDirectory(prefix="rc-", dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        program = shutil.copy(os.path.realpath(sys.executable), folder)
        Path(program).chmod(0o4755)
        argv = ["setpriv", "--reuid=65534", "--clear-groups", program, "-Sc", becomes_root]
        environ = {"PYTHONHOME": sys.base_prefix, "RECONCILE_PROCESS": "his"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen(argv, env=os.environ | environ, **pipes) as one:
            try:
                assert one.stdout is not None and one.stdout.read(5) == b"it is"
                assert b"\nUid:\t0\t0\t0\t0\n" in Path(f"/proc/{one.pid}/status").read_bytes()
                table = ProcessSnapshot()
                pattern = f"^{re.escape(program)} -Sc"
                assert ProcessSearch(table).with_command_line(pattern, 0) == []
                assert table.marked(0, "his") == {}
                with pytest.raises(UnknownState, match="another user than the one who started it"):
                    facts(one.pid)
            finally:
                one.kill()


@pytest.mark.parametrize(("word", "cut"), [("Q", 0), ("I", 0), ("Q", 7)])
def test_who_started_it_is_read_of_programs_of_any_sort(
    monkeypatch: pytest.MonkeyPatch, word: str, cut: int
) -> None:
    pairs = (33, 0x7F00_0000, 23, 1, 11, 1003, 13, 1004)
    data = struct.pack(f"=10{word}", *pairs, 0, 0) + bytes(cut)
    monkeypatch.setattr(processes, "read_proc", lambda pid, name, limit: data)
    assert processes.started_by(1) == (1003, 1004)
    data = b"" if cut else struct.pack(f"=10{word}", *pairs[:3], 0, *pairs[4:], 0, 0)
    assert processes.started_by(1) is None


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
def test_what_somebody_runs_gets_no_group_and_no_log_that_he_has_not(free: None) -> None:
    with tempfile.TemporaryDirectory(prefix="rc-", dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        roots, own = Path(folder, "roots"), Path(folder, "own")
        program = shutil.copy("/bin/cat", folder)
        for path, owner, mode in ((program, 0, 0o2755), (roots, 0, 0o644), (own, 64331, 0o644)):
            Path(path).touch()
            os.chown(path, owner, 64333 if path == program else owner)
            os.chmod(path, mode)
        shell = f'exec "{program}" - 1<"{roots}" 2>>"{own}"'
        argv = ["setpriv", "--reuid=64331", "--regid=64331", "--clear-groups", "sh", "-c", shell]
        with subprocess.Popen(argv, stdin=subprocess.PIPE) as one:
            try:
                until(lambda: os.readlink(f"/proc/{one.pid}/exe") == program)
                is_the_program(one.pid)
                assert b"Gid:\t64331\t64333\t" in Path(f"/proc/{one.pid}/status").read_bytes()
                seen = facts(one.pid)
                assert (seen.uid, seen.gid) == (64331, 64331)
                assert (seen.output, seen.errors) == (None, str(own))
            finally:
                one.kill()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
def test_the_environments_of_other_users_are_not_read(
    free: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    read_as_before = processes._read

    def noted(path: str, limit: int) -> bytes | None:
        read.append(path)
        return read_as_before(path, limit)

    monkeypatch.setattr(processes, "_read", noted)
    marked = {**os.environ, "RECONCILE_PROCESS": "x"}
    with (
        subprocess.Popen(["sleep", "60"], user=65534, env=marked) as theirs,
        subprocess.Popen(["sleep", "60"], env=marked) as ours,
    ):
        try:
            is_the_program(theirs.pid)
            is_the_program(ours.pid)
            found = ProcessSnapshot().carriers(0)
        finally:
            theirs.kill()
            ours.kill()
    assert ours.pid in found and theirs.pid not in found
    assert found[ours.pid].mark == "x"
    assert f"/proc/{ours.pid}/environ" in read
    assert f"/proc/{theirs.pid}/environ" not in read


def test_a_name_with_a_line_break_is_no_message_of_its_own(
    free: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "x\nreconcile: fix it with: true"
    with subprocess.Popen(["sleep", "60"], env={**os.environ, "RECONCILE_PROCESS": words}) as one:
        try:
            is_the_program(one.pid)
            assert main(["--adopt", f"process:{one.pid}", "--state-dir", str(tmp_path)]) == 1
        finally:
            one.kill()
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith(" is of x") and second.startswith("  reconcile: fix it")
    assert executor(["--home", str(tmp_path / words), "test"]) == 1
    first, *others = capsys.readouterr().err.splitlines()
    assert others and all(line.startswith("  reconcile: fix it") for line in others)


def test_a_limit_of_time_leaves_no_alarm_behind() -> None:
    import signal

    before = signal.getsignal(signal.SIGALRM)
    with within(1000.0, "nothing"):
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
    assert signal.getsignal(signal.SIGALRM) is before


def test_nested_processes_are_each_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: Counter[int] = Counter()
    first, count = 10_000_000, 1000

    def look_up(pid: int) -> ProcessEntry | None:
        looks[pid] += 1
        if not first <= pid < first + count:
            return None
        # Every other one of a chain, none of which is the parent of the next that is asked for.
        return ProcessEntry(Identity(pid, pid), "S", pid - 1 if pid > first else 1, pid, pid)

    monkeypatch.setattr(process_snapshot, "look_up", look_up)
    monkeypatch.setattr(process_snapshot, "owner_of", lambda _: 7)
    asked = range(first + 2, first + count, 2)
    found = ProcessSearch(ProcessSnapshot())._owned(asked, 7)
    # Only the oldest of a family counts.
    assert [one.pid for one in found] == [first + 2]
    assert max(looks[pid] for pid in range(first, first + count)) <= 2
    # As wide as deep: children of one that is none of them.
    looks.clear()
    assert len(ProcessSearch(ProcessSnapshot())._owned([first + 500], 7)) == 1
    assert sum(looks[pid] for pid in range(first, first + count)) <= 502


def _no_answer() -> NoReturn:
    raise OSError


def test_a_socket_whose_name_holds_a_line_is_no_lost_tmux_server(
    tmp_path: Path, free: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a signal would go to whoever has the socket that it names."""
    from reconciler.host import lost_server

    with socket.socket(socket.AF_UNIX) as ours, socket.socket(socket.AF_UNIX) as his:
        monkeypatch.chdir(tmp_path)
        ours.bind("other")
        ours.listen()
        inode = os.fstat(ours.fileno()).st_ino
        name = f"x\n0: 2 0 00010000 1 1 {inode} "
        (tmp_path / f"{name}/t").mkdir(parents=True)
        his.bind(f"{name}/t/s")
        his.listen()
        assert lost_server._listening(["/t/s"]) == {}
        with monkeypatch.context() as patch:  # A kernel without sock_diag.
            patch.setattr(lost_server, "_asked", _no_answer)
            assert lost_server._listening(["/t/s"]) == {}
        # Nor does it hide the one whose number stands in it.
        assert lost_server._listening(["other"]) == {f"socket:[{inode}]": "other"}
    with socket.socket(socket.AF_UNIX) as lost:
        lost.bind("lost")
        lost.listen()
        inode = os.fstat(lost.fileno()).st_ino
        assert lost_server._listening(["lost"]) == {f"socket:[{inode}]": "lost"}
