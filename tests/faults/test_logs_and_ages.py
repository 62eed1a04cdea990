"""One file's trouble is its own; what our own steps have changed is looked at again."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from support import LONG, Machine, until

from reconciler.base.errors import HostError
from reconciler.diagnose import sections as told
from reconciler.host import compress, kernel, openfiles, rotate
from reconciler.host.archive import archive
from reconciler.host.choose import Rule
from reconciler.host.clock import Clock
from reconciler.host.openfiles import OpenFiles
from reconciler.host.remove import move
from reconciler.host.rotated import Names
from reconciler.host.scan import Wanted, scan
from reconciler.host.tree import Tree
from reconciler.host.walk import closing

OLD = 1_000_000_000
HOLDER = """
import os, sys
log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | int(sys.argv[2]))
os.write(log, b"x" * 20000)
print(flush=True)
sys.stdin.read()
"""


@pytest.fixture
def logs(machine: Machine) -> Path:
    made = machine.base / "logs"
    made.mkdir()
    return made


def aged(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    os.utime(path, (OLD, OLD))
    return path


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


@contextmanager
def writing(log: Path, flags: int) -> Iterator[int]:
    """Somebody who has written to the log, and has it open; the number of the process."""
    argv = [sys.executable, "-c", HOLDER, str(log), str(flags)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process.pid
        finally:
            process.kill()


def test_a_log_whose_writer_does_not_append_is_not_cut(machine: Machine, logs: Path) -> None:
    rule = "max_file: 1KB, action: rotate, method: copytruncate"
    spec = machine.spec(f"retention: {{r: {{path: {logs}, {rule}}}}}")
    with writing(logs / "a", 0) as pid, writing(logs / "b", os.O_APPEND):
        (step,) = machine.once(spec, status=1)["steps"]
        assert f"{logs}/a is not rotated: process {pid} (" in step["error"]
        assert "(O_APPEND)" in step["error"]
        # Nothing was cut, and the other one is rotated.
        assert names(logs) == ["a", "b", "b.1.gz"]
        assert (logs / "a").read_bytes() == b"x" * 20000
        assert (logs / "b").stat().st_size < 20000
    machine.once(spec)
    assert names(logs) == [
        "a",
        "a.1.gz",
        "b",
        *(["b.1.gz"] if len(names(logs)) == 4 else names(logs)[3:]),
    ]


def test_one_look_is_for_all_logs_and_has_an_end(
    logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    look = openfiles.NonAppendingWriters._look
    monkeypatch.setattr(
        openfiles.NonAppendingWriters, "_look", lambda self: (looks.append(self), look(self))[1]
    )
    with writing(logs / "a", 0) as first, writing(logs / "b", 0) as second:
        keys = [(one.stat().st_dev, one.stat().st_ino) for one in (logs / "a", logs / "b")]
        monkeypatch.setattr(openfiles, "_LONGEST", LONG)  # However long it takes here.
        careless = openfiles.NonAppendingWriters(Clock(), keys)
        found = []
        for name in ("a", "b"):
            handle = os.open(logs / name, os.O_RDONLY)
            found.append(careless.writer(handle))
            os.close(handle)
        assert found == [first, second]
        assert len(looks) == 1
        monkeypatch.setattr(openfiles, "_STEP", 1)
        monkeypatch.setattr(openfiles, "_LONGEST", 0.0)
        handle = os.open(logs / "a", os.O_RDONLY)
        assert openfiles.NonAppendingWriters(Clock(), keys).writer(handle) is None
        os.close(handle)
    # Where nobody writes the kernel says so, and only what others read is no reason to look.
    looks.clear()
    with open(logs / "a") as reader, open(logs / "a") as other:
        assert openfiles.NonAppendingWriters(Clock(), keys).writer(reader.fileno()) is None
        assert openfiles.has_writer(other.fileno()) is False
    assert looks == []


def test_what_cannot_be_read_keeps_nothing_else_from_being_archived(
    machine: Machine, logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("1", "2", "3"):
        aged(logs / name)
    opened_file = Tree.opened_file

    def refused(self: Tree, folder: int, name: str, *flags: int) -> Any:
        if name == "2":
            raise PermissionError(13, "Permission denied")
        return opened_file(self, folder, name, *flags)

    monkeypatch.setattr(Tree, "opened_file", refused)
    files = scan(Wanted(str(logs), Rule(None, 2 * 10**18, None, 10))).chosen.files
    goal = machine.base / "x.tar.gz"
    with pytest.raises(HostError, match=r"cannot archive 1 of 3 files: .*/logs/2: perm"):
        archive(str(logs), files, str(goal), OpenFiles(Clock()))
    assert names(logs) == ["2"]
    with tarfile.open(goal) as tar:
        assert sorted(tar.getnames()) == ["1", "3"]
    with pytest.raises(HostError, match="cannot archive a file: "):
        archive(str(logs), files[1:2], str(goal), OpenFiles(Clock()))


def test_one_folder_that_cannot_be_made_keeps_no_other_from_being_moved(
    machine: Machine, logs: Path
) -> None:
    for name in ("a/1", "b/1", "c/1"):
        aged(logs / name)
    to = machine.base / "to"
    aged(to / "b")
    rule = f"recursive: true, older_than: 1d, action: move, to: {to}"
    spec = machine.spec(f"retention: {{r: {{path: {logs}, {rule}}}}}")
    (step,) = machine.once(spec, status=1)["steps"]
    assert "cannot move 1 of 3 files" in step["error"]
    assert (to / "a/1").exists() and (to / "c/1").exists() and (logs / "b/1").exists()


APP = """
import os, signal, sys, time
log = sys.argv[1]
def again(*_):
    os.close(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644))
    with open(log + ".told", "a") as told:
        told.write("x")
signal.signal(signal.SIGHUP, again)
open(log + ".ready", "w").close()
time.sleep(600)
"""


def test_a_log_that_cannot_be_renamed_keeps_no_writer_from_being_told(
    machine: Machine, logs: Path
) -> None:
    script = machine.base / "app-4771.py"
    script.write_text(APP)
    told = machine.base / "a.log.told"
    processes = (
        f"processes: {{w: {{command: [{sys.executable}, {script}, {machine.base}/a.log]}}}}\n"
    )
    rule = f"path: {logs}, match: '*.log', max_file: 1KB, action: rotate, signal: process:w"
    spec = machine.spec(processes + f"retention: {{r: {{{rule}}}}}\n")
    machine.once(spec, "--only", "process:w")
    until((machine.base / "a.log.ready").exists)
    (logs / "a.log").write_text("x" * 2000)
    (logs / "b.log").write_text("x" * 2000)
    (logs / "b.log.1").mkdir()
    step = machine.once(spec, status=1)["steps"][-1]
    assert f"{logs}/b.log.1 is a directory, no rotated log; move it away" in step["error"]
    until(lambda: told.exists() and told.read_text())
    assert names(logs) == ["a.log.1.gz", "b.log", "b.log.1"]
    # Where all of them fail nobody is told of anything, now or later.
    machine.once(spec, status=1)
    assert told.read_text() == "x"
    assert not list(logs.glob(".*"))


@pytest.mark.parametrize(
    "action", ["delete", "move, to: {base}/to", "archive, to: {base}/x.tar.gz"]
)
def test_of_two_hard_links_both_are_seen_to(machine: Machine, logs: Path, action: str) -> None:
    aged(logs / "sub/a")
    os.link(logs / "sub/a", logs / "b")
    os.link(logs / "sub/a", logs / "c")
    rule = f"recursive: true, older_than: 1d, action: {action.format(base=machine.base)}"
    spec = machine.spec(f"retention: {{r: {{path: {logs}, {rule}}}}}")
    machine.once(spec)
    assert [path for path in logs.rglob("*") if path.is_file()] == []
    machine.converged(spec)
    if action.startswith("move"):
        to = machine.base / "to"
        assert os.path.samefile(to / "sub/a", to / "b") and os.path.samefile(to / "b", to / "c")


def test_what_is_rotated_on_is_compressed_all_the_same(machine: Machine, logs: Path) -> None:
    """A rotation in every pass: what was still open at the last one has another number now."""
    spec = machine.spec(f"retention: {{r: {{path: {logs}, max_file: 1KB, action: rotate}}}}")
    with writing(logs / "a", os.O_APPEND):
        machine.once(spec)
        assert names(logs) == ["a.1"]
    (logs / "a").write_text("y" * 2000)
    machine.once(spec)
    assert names(logs) == ["a.1.gz", "a.2.gz"]
    machine.converged(spec)


def test_an_age_rule_over_rotated_logs_acts_beside_the_rotation(
    machine: Machine, logs: Path
) -> None:
    for name in ("a.1", "a.2"):
        aged(logs / name)
    (logs / "a").write_text("y" * 2000)
    spec = machine.spec(
        f"retention:\n"
        f"  r: {{path: {logs}, match: a, max_file: 1KB, action: rotate}}\n"
        f"  s: {{path: {logs}, match: 'a.*', older_than: 1d, action: delete}}\n"
    )
    machine.once(spec)
    assert names(logs) == ["a.1.gz"]
    machine.converged(spec)


@pytest.mark.parametrize("action", ["delete", "archive, to: {base}/x.tar.gz"])
def test_a_permission_and_an_age_rule_over_one_folder_are_both_done(
    machine: Machine, logs: Path, action: str
) -> None:
    aged(logs / "a").chmod(0o600)
    (logs / "b").touch(0o600)
    spec = machine.spec(
        f"permissions: {{p: {{path: {logs}, recursive: true, file_mode: '0640'}}}}\n"
        f"retention: {{r: {{path: {logs}, older_than: 1d, "
        f"action: {action.format(base=machine.base)}}}}}\n"
    )
    machine.once(spec)
    assert names(logs) == ["b"]
    assert (logs / "b").stat().st_mode & 0o777 == 0o640
    machine.converged(spec)


@pytest.mark.parametrize(("name", "seen"), [("a.log.1", False), ("a.log.2", True)])
def test_what_may_be_open_to_others_is_compressed_at_the_next_rotation(
    logs: Path, monkeypatch: pytest.MonkeyPatch, name: str, seen: bool
) -> None:
    monkeypatch.setattr(openfiles, "leased", lambda *_: None)
    monkeypatch.setattr(OpenFiles, "_looked_up", lambda *_: None)
    (logs / name).write_text("x")
    log = ("", name)
    files = OpenFiles(Clock())
    free, held = compress.compressible(str(logs), [log], () if seen else [log], files)
    assert (free, held) == (([log], []) if seen else ([], [log]))
    assert compress.finish(str(logs), (), [log], (), Names(5), files) == ([] if seen else [log])
    assert names(logs) == [f"{name}.gz" if seen else name]


@pytest.mark.parametrize("match", ["app.log", "'*.log'", "'sub/a*'"])
def test_the_output_of_a_daemon_is_not_renamed(machine: Machine, logs: Path, match: str) -> None:
    log = logs / ("sub/app.log" if "/" in match else "app.log")
    log.parent.mkdir(exist_ok=True)
    spec = machine.spec(
        f"processes: {{p: {{command: [sleep, '4772'], log: {log}}}}}\n"
        f"retention:\n"
        f"  r: {{path: {logs}, recursive: true, match: {match}, max_file: 1B, action: rotate}}\n"
        f"  s: {{path: {logs}, match: old, older_than: 1d, action: delete}}\n"
    )
    aged(logs / "old")
    log.write_text("x" * 20)
    refused = machine.reconcile("--check", spec)
    assert refused.returncode == 65
    assert "spec.yaml:" in refused.stdout + refused.stderr
    assert f"would rename {log}, the standard output of a daemon" in refused.stdout + refused.stderr
    assert "write method: copytruncate" in refused.stdout + refused.stderr
    # Where it is in use all the others go on.
    report = machine.once(spec, status=1)
    assert [one["id"] for one in report["unknown"]] == ["retention:r"]
    assert names(log.parent) == ["app.log"] if "/" in match else ["app.log"]
    assert machine.running("sleep 4772")
    assert not (logs / "old").exists()
    for right in ("method: copytruncate, action: rotate", f"exclude: [{log.name}], action: rotate"):
        fixed = machine.spec(spec.read_text().replace("action: rotate", right))
        assert machine.reconcile("--check", fixed).returncode == 0
    absent = spec.read_text().replace("{command", "{state: absent, command")
    assert machine.reconcile("--check", machine.spec(absent)).returncode == 0


@pytest.mark.parametrize("linked", ["rule", "log"])
@pytest.mark.parametrize("match", ["'*.log'", "'sub/*'"])
def test_the_output_of_a_daemon_is_not_renamed_by_way_of_a_link(
    machine: Machine, logs: Path, linked: str, match: str
) -> None:
    link = machine.base / "link"
    link.symlink_to(logs)
    (logs / "sub").mkdir()
    rule, log = (link, logs) if linked == "rule" else (logs, link)
    name = "sub/app.log" if "/" in match else "app.log"
    spec = machine.spec(
        f"processes: {{p: {{command: [sleep, '4774'], log: {log}/{name}}}}}\n"
        "retention:\n"
        f"  r: {{path: {rule}, recursive: true, match: {match}, max_file: 1B, action: rotate}}\n"
        f"  s: {{path: {rule}, match: other, max_file: 1B, action: rotate}}\n"
    )
    (logs / name).write_text("x" * 20)
    report = machine.once(spec, status=1)
    (unknown,) = report["unknown"]
    assert unknown["id"] == "retention:r"
    assert f"would rename {log}/{name}, the standard output of a daemon" in unknown["reason"]
    assert (logs / name).exists()


def test_the_log_of_a_daemon_without_one_is_not_renamed(machine: Machine) -> None:
    folder = machine.state / "demo/log"
    spec = machine.spec(
        f"retention: {{r: {{path: {folder}, max_file: 1B, action: rotate}}}}\n"
        "processes: {p: {command: [sh, -c, 'echo words; exec sleep 4773']}}\n"
    )
    machine.reconcile("--once", spec)
    until(lambda: machine.running("sleep 4773"))
    report = machine.once(spec, status=1)
    assert [one["id"] for one in report["unknown"]] == ["retention:r"]
    assert names(folder) == ["p.log"]


def test_the_numbers_of_one_date_come_to_no_end(tmp_path: Path) -> None:
    names, end = Names(2, "-%Y"), 10_002
    for number in (9_998, 9_999):
        (tmp_path / f"a{time.strftime('-%Y')}.{number}").touch()
    with closing(os.open(tmp_path, os.O_RDONLY)) as folder:
        for _ in range(3):
            (tmp_path / names.make_room(folder, "a", time.time())).touch(exist_ok=False)
    left = {one.name.rpartition(".")[2] for one in tmp_path.glob("a-*")}
    assert left == {str(end - 1), str(end)}


def test_what_is_left_to_do_about_rotated_logs_has_a_bound(machine: Machine, logs: Path) -> None:
    for number in range(5):
        (logs / f"{number}.log.1").write_text("x")
    spec = machine.spec(
        f"retention: {{r: {{path: {logs}, max_file: 1KB, action: rotate, max_files_per_pass: 3}}}}"
    )
    (note,) = machine.once(spec)["notes"]
    assert note["reason"] == "2 logs more to finish, for the next passes (max_files_per_pass)"
    assert len(list(logs.glob("*.gz"))) == 3
    machine.once(spec)
    assert len(list(logs.glob("*.gz"))) == 5
    machine.converged(spec)


def test_a_log_that_is_replaced_right_before_it_is_renamed_is_told(
    machine: Machine, logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (logs / "a").write_text("old")
    (found,) = scan(Wanted(str(logs), Rule(None, 2 * 10**18, None, 10))).chosen.files
    rename = kernel.rename_new

    def late(folder: int, name: str, onto: int, goal: str) -> None:
        (logs / "a").rename(logs / "before")
        (logs / "a").write_text("new")
        rename(folder, name, onto, goal)

    monkeypatch.setattr(kernel, "rename_new", late)
    _, (words,) = rotate.rotate(str(logs), [found], (), rotate.RotationWay(Names(5)), Clock())
    assert words == f"{logs}/a was replaced by somebody else while it was rotated"
    # What was put there is rotated, and lost no more than the other.
    assert [(logs / name).read_text() for name in names(logs)] == ["new", "old"]
    assert names(logs) == ["a.1", "before"]


def test_a_log_is_not_copied_where_there_is_no_room(
    machine: Machine, logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (logs / "a").write_bytes(b"x" * 100_000)
    monkeypatch.setattr(rotate, "_free", lambda handle: 50_000)
    files = scan(Wanted(str(logs), Rule(None, 2 * 10**18, None, 10))).chosen.files
    _, (words,) = rotate.rotate(
        str(logs), files, (), rotate.RotationWay(Names(5), copy=True), Clock()
    )
    assert "its copy would take 98 KiB, and 49 KiB is free there; make room" in words
    assert names(logs) == ["a"]


@pytest.fixture
def chased(monkeypatch: pytest.MonkeyPatch, logs: Path) -> Iterator[list[int]]:
    """Somebody appends 1 MiB as soon as any of a file in ``logs`` is read, but for the first time.

    What he has appended is at most 160 MiB, and told by its number.
    """
    count, appended = 0, [0]
    real = {"read": os.read, "pread": os.pread}

    def reads(name: str, handle: int, *args: int) -> bytes:
        nonlocal count
        path = os.readlink(f"/proc/self/fd/{handle}")
        data = real[name](handle, *args)
        if path == f"{logs}/a" or (path == f"{logs}/a.1" and data):
            count += 1
            if count > 1 and appended[0] < 160:
                appended[0] += 1
                with open(path, "ab") as file:
                    file.write(bytes(range(256)) * 4096)
        return data

    for name in real:
        monkeypatch.setattr(os, name, lambda *args, name=name: reads(name, *args))
    yield appended


def test_who_appends_as_fast_as_it_is_read_does_not_keep_a_compression(
    logs: Path, chased: list[int]
) -> None:
    (logs / "a.1").write_bytes(os.urandom(3 << 20))
    held = OpenFiles(Clock(), asked=False)
    assert compress.finish(str(logs), (), (("", "a.1"),), (), Names(5), held) == [("", "a.1")]
    assert names(logs) == ["a.1"]
    assert chased[0] < 8


@pytest.mark.parametrize("action", ["archive", "move"])
def test_who_appends_as_fast_as_it_is_read_does_not_keep_what_is_copied(
    logs: Path, chased: list[int], action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (logs / "a").write_bytes(os.urandom(3 << 20))
    files = scan(Wanted(str(logs), Rule(None, 2 * 10**18, None, 10))).chosen.files
    held = OpenFiles(Clock(), asked=False)
    with TemporaryDirectory(dir="/dev/shm") as other:
        if action == "move":
            assert move(str(logs), files, other, held) == list(files)
        else:
            assert archive(str(logs), files, f"{other}/x.tar.gz", held) == list(files)
        assert names(logs) == ["a"]
        assert os.listdir(other) == []
    assert chased[0] < 16


def test_a_copy_of_a_log_goes_after_its_end_only_so_far(
    logs: Path, chased: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotate, "_collapses", lambda *_: False)
    monkeypatch.setattr(rotate, "_BEHIND", 8 << 20)
    (logs / "a").write_bytes(os.urandom(3 << 20))
    files = scan(Wanted(str(logs), Rule(None, 2 * 10**18, None, 10))).chosen.files
    _, (words,) = rotate.rotate(
        str(logs), files, (), rotate.RotationWay(Names(5), copy=True), Clock()
    )
    assert "is written faster than it can be copied; the next pass goes on" in words
    assert (logs / "a.1").stat().st_size <= 11 << 20
    whole = (logs / "a").read_bytes()
    # It does, once there is an end, and nothing is lost.
    chased[0] = 160
    assert rotate.rotate(
        str(logs), (), (("", "a"),), rotate.RotationWay(Names(5), copy=True), Clock()
    ) == (
        [],
        [],
    )
    assert names(logs) == ["a", "a.1"]
    assert (logs / "a.1").read_bytes() + (logs / "a").read_bytes() == whole


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: links of other users")
def test_no_link_of_others_leads_to_a_log_that_is_shown(tmp_path: Path) -> None:
    private, his = tmp_path / "private", tmp_path / "his"
    for folder in (private, his):
        folder.mkdir()
    (private / "app.log").write_text("ERROR the canary sings\n")
    os.chown(his, 65534, 65534)
    (his / "logs").symlink_to(private)
    os.chown(his / "logs", 65534, 65534, follow_symlinks=False)
    (one,) = told.logs([("process:p", f"{his}/logs/app.log")], [("retention:r", f"{his}/logs/*")])
    assert one["ids"] == ["process:p"]
    assert "is not followed" in one["reason"]
    assert "canary" not in str(one)
    # A link of root's in a folder of root's is one.
    (tmp_path / "logs").symlink_to(private)
    (one,) = told.logs([], [("retention:r", f"{tmp_path}/logs/*")])
    assert one["errors"] == 1


@pytest.mark.parametrize("hidden", [False, True])
def test_a_process_that_may_not_be_looked_at_is_not_nobody(
    logs: Path, monkeypatch: pytest.MonkeyPatch, hidden: bool
) -> None:
    """As another user's is to whoever is not root, and his file, where the kernel is not asked."""
    (logs / "a.1").write_text("x")
    handle = os.open(logs / "a.1", os.O_RDONLY)
    scandir = os.scandir

    def refused(path: Any) -> Any:
        if path == "/proc/1/fd" and hidden:
            raise PermissionError(13, "permission denied")
        # What else cannot be seen here is not what this is about.
        return scandir("/proc/self/fd" if str(path).startswith("/proc/") else path)

    monkeypatch.setattr(openfiles, "leased", lambda *_: None)
    monkeypatch.setattr(os, "scandir", refused)
    monkeypatch.setattr(openfiles.os, "stat", lambda path, **how: os.lstat("/"))
    held = OpenFiles(Clock()).held(handle)
    monkeypatch.undo()
    os.close(handle)
    assert held is (None if hidden else False)
