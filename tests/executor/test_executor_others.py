"""An executor among other accounts of its host: what they may write to is not run, and what it
writes is not theirs to read, hold or exchange.

The places of a test are below a folder that everybody may enter, as homes are on a real host.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import LONG, late

BOB = 65534
TOKEN = "TOKEN-of-this-test"
as_root = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root is to be won: run as root"),
]


def patched(text: str) -> list[str]:
    """A program: the executor's, behind a few lines that stop or change it at a moment."""
    lines = f"{text}\nimport sys\nfrom reconciler.executor.cli import main; sys.exit(main())"
    return [sys.executable, "-c", lines]


@pytest.fixture
def among(executor: Any) -> Iterator[Any]:
    """An executor whose home others can get to, though they may not write there."""
    folder = Path(tempfile.mkdtemp(prefix="executor-among-"))
    folder.chmod(0o755)
    executor.home = folder / "co"
    executor.base = executor.home / "ai_commands"
    yield executor
    for worker in executor.started:
        executor.stop(worker)
    shutil.rmtree(folder)


def bob(*argv: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run as another account."""
    return subprocess.run(
        argv, user=BOB, group=BOB, extra_groups=[], text=True, capture_output=True, **options
    )


def bob_puts(path: Path, command: str) -> None:
    done = bob("tee", path, input=json.dumps({"command": command}))
    assert done.returncode == 0, done.stderr


def modes_of(*paths: Path) -> set[int]:
    return {stat.S_IMODE(path.stat().st_mode) for path in paths}


@pytest.mark.usefixtures("executor")
class TestRoot:
    pytestmark = as_root

    @pytest.mark.parametrize("how", ["everybody", "sticky", "group", "owner", "list"])
    def test_a_folder_that_others_may_write_to(self, how: str, among: Any) -> None:
        among.make_folders()
        (among.home / "logs").mkdir()
        queues = (f"ai_commands/{n}" for n in ("pending", "running", "failed"))
        for name in ("", "logs", "ai_commands", *queues):
            folder = among.home / name
            mode = stat.S_IMODE(folder.stat().st_mode)
            if how == "everybody":
                folder.chmod(0o777)
            elif how == "sticky":
                folder.chmod(0o1777)
            elif how == "group":
                os.chown(folder, 0, BOB)
                folder.chmod(0o775)
            elif how == "owner":
                os.chown(folder, BOB, 0)
            else:
                give_by_list(folder, BOB)
            refused = among.run("worker")
            assert refused.returncode == 1, name
            words, _, remedy = refused.stderr.strip().rpartition("; fix it with: ")
            assert f"not trusted by root: {'the directory ' if how == 'owner' else ''}" in words
            assert remedy.endswith(str(folder))
            status = among.run("status")
            assert status.returncode == 1, name
            assert remedy in status.stdout
            if how == "list":  # setfacl need not be installed
                os.removexattr(folder, "system.posix_acl_access")
                folder.chmod(mode)
            else:
                subprocess.run(remedy, shell=True, check=True)
        # Each of them was all that was wrong.
        among.start()
        among.put("a", "echo well")
        assert among.result("a")["output_tail"] == "well\n"

    def test_a_folder_above_that_others_may_write_to(self, among: Any) -> None:
        among.make_folders()
        among.home.parent.chmod(0o777)
        assert f"chmod o-w {among.home.parent}" in among.run("worker").stderr

    def test_a_queue_that_is_opened_under_a_worker(self, among: Any, patiently: Any) -> None:
        """What is put there then is not run, neither now nor later."""
        among.start()
        pending = among.base / "pending"
        among.put("before", "echo before")
        among.result("before")
        pending.chmod(0o777)
        bob_puts(pending / "a.json", f"id -u > {among.folder}/a")
        patiently(lambda: "nothing is run" in among.event_log(), "a refusal")
        assert f"chmod o-w {pending}" in among.event_log()
        status = among.run("status")
        assert status.returncode == 1
        assert f"chmod o-w {pending}" in status.stdout
        waits = among.run("submit", "--id", "roots", "echo roots")
        assert "the worker runs none" in waits.stderr
        gate = among.folder / "gate"
        among.put("first", f"until [ -e {gate} ]; do sleep 0.01; done")
        os.utime(pending / "first.json", (1, 1))
        pending.chmod(0o755)
        patiently(lambda: among.heartbeat()["command"] == "first", "a running command")
        # It is well again from then on, and not only when that has ended.
        assert among.run("status").returncode == 0
        gate.touch()
        assert among.result("roots")["output_tail"] == "roots\n"
        assert f"user {BOB} owns the file" in among.reason("a.json")
        assert not (among.folder / "a").exists()
        assert among.run("status").returncode == 0

    def test_a_home_that_is_exchanged_under_a_worker(self, among: Any, patiently: Any) -> None:
        among.start()
        above = among.home.parent
        above.chmod(0o777)
        assert bob("mv", among.home, f"{among.home}.his").returncode == 0
        pending = among.base / "pending"
        assert bob("mkdir", "-p", *(among.base / n for n in ("pending", "running", "logs")))
        bob_puts(pending / "a.json", f"id -u > {among.folder}/a")
        log = Path(f"{among.home}.his/logs/command_executor.log")
        # Looked at whether it still has its name by each line; the terminal has the others.
        above.chmod(0o755)
        patiently(lambda: "belongs to user" in self.beat(among), "a refusal")
        assert not (among.folder / "a").exists()
        shutil.rmtree(among.home)
        os.rename(f"{among.home}.his", among.home)
        among.put("b", "echo b")
        assert among.result("b")["output_tail"] == "b\n"
        assert not log.exists()

    @staticmethod
    def beat(among: Any) -> str:
        return Path(f"{among.home}.his/ai_commands/heartbeat").read_text()

    def test_a_folder_that_is_exchanged_at_the_last_moment(self, among: Any) -> None:
        """Between the look and the move: it is the one that was looked at from which is moved."""
        among.make_folders()
        among.put("x", "echo roots")
        base, his = str(among.base), f"{among.home}.his"
        os.mkdir(his)
        Path(his, "x.json").write_text(json.dumps({"command": f"id -u > {among.folder}/his"}))
        os.chown(f"{his}/x.json", BOB, BOB)
        os.chown(his, BOB, BOB)
        among.start(
            program=patched(
                "import os\n"
                "real = os.rename\n"
                "def late(source, target, **folders):\n"
                f"    if target == 'x.json' and not os.path.exists('{his}.old'):\n"
                f"        real('{base}/pending', '{his}.old')\n"
                f"        real('{his}', '{base}/pending')\n"
                "    real(source, target, **folders)\n"
                "os.rename = late\n"
            )
        )
        assert among.result("x")["output_tail"] == "roots\n"
        assert not (among.folder / "his").exists()

    @pytest.mark.parametrize("how", ["owner", "everybody", "group"])
    def test_a_file_that_others_have_written(self, how: str, among: Any) -> None:
        among.make_folders()
        among.put("a", f"id -u > {among.folder}/a")
        path = among.base / "pending" / "a.json"
        if how == "owner":
            os.chown(path, BOB, 0)
        elif how == "group":
            os.chown(path, 0, BOB)
            path.chmod(0o664)
        else:
            path.chmod(0o646)
        among.start()
        assert "root runs only what root has written" in among.reason("a.json")
        assert not (among.folder / "a").exists()

    def test_root_gives_no_command_to_where_somebodys_link_leads(self, among: Any) -> None:
        among.make_folders()
        roots = among.home.parent / "roots"
        roots.mkdir()
        (among.base / "pending").rmdir()
        (among.base / "pending").symlink_to(roots)
        for path in (among.home, among.base):
            os.chown(path, BOB, BOB)
        os.chown(among.base / "pending", BOB, BOB, follow_symlinks=False)
        done = among.run("submit", "echo x")
        assert done.returncode == 1
        assert "is a symlink" in done.stderr
        assert os.listdir(roots) == []

    def test_root_is_shown_nothing_where_somebodys_link_leads(self, among: Any) -> None:
        among.make_folders()
        roots = among.home.parent / "roots"
        roots.mkdir()
        for name in ("x.json", "x.log", "command_executor.log"):
            (roots / name).write_text(json.dumps({"status": TOKEN}))
        for path in (among.base / "completed", among.base / "logs", among.home / "logs"):
            if path.exists():
                path.rmdir()
            path.symlink_to(roots)
            os.chown(path, BOB, BOB, follow_symlinks=False)
        for path in (among.home, among.base):
            os.chown(path, BOB, BOB)
        for words in (["result", "x"], ["result", "--json", "x"], ["log", "x"], ["log"], ["logs"]):
            done = among.run(*words)
            assert done.returncode == 1
            assert "is a symlink" in done.stderr
            assert TOKEN not in done.stdout + done.stderr

    def test_what_root_gives_to_somebodys_executor_is_his(self, among: Any) -> None:
        among.home.mkdir()
        os.chown(among.home, BOB, BOB)
        assert among.run("submit", "--id", "a", "echo x").returncode == 0
        path = among.base / "pending" / "a.json"
        for each in (path, path.parent, among.base / "completed"):
            assert each.stat().st_uid == BOB
        assert modes_of(path) == {0o600}

    def test_what_roots_command_runs_as_another_user_reads_no_output(self, among: Any) -> None:
        among.start()
        program = (
            f"import os; os.setgroups([]); os.setgid({BOB}); os.setuid({BOB})\n"
            "try: print(os.pread(1, 99, 0))\n"
            "except OSError as error: print(error.strerror)"
        )
        among.put("a", f"echo {TOKEN}; {sys.executable} -c '{program}'")
        assert among.result("a")["output_tail"] == f"{TOKEN}\nBad file descriptor\n"

    def test_a_worker_that_may_not_start_fails_its_step_with_the_reason(self, among: Any) -> None:
        """In the plan too: what is run from the folder waits until its way is closed."""
        above = among.home.parent
        above.chmod(0o777)
        program = [sys.executable, "-m", "reconciler", "--state-dir", str(among.folder / "state")]
        words = [*program, "--plan", "executor", "--set", f"home={among.home}"]
        plan = subprocess.run(words, env=among.env, capture_output=True, text=True, timeout=LONG)
        assert f"chmod o-w {above}" in plan.stdout
        assert "skipped process:worker" in plan.stdout


def give_by_list(folder: Path, uid: int) -> None:
    """An access list that lets that user write, acl(5) and <linux/posix_acl_xattr.h>."""
    entries = ((1, 7, -1), (2, 7, uid), (4, 5, -1), (16, 7, -1), (32, 5, -1))
    data = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    try:
        os.setxattr(folder, "system.posix_acl_access", data)
    except OSError:
        pytest.skip("this file system has no access lists")


def files_with_modes(folder: Path) -> dict[Path, int]:
    """All files below, those of other folders than the worker's own left out.

    The one in which the next heartbeat is made comes and goes, and nobody else may enter it. So
    do the files of a command that has just ended.
    """
    found = {}
    for top, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.endswith(".reconcile")]
        for path in (Path(top, name) for name in names):
            with contextlib.suppress(FileNotFoundError):
                status = path.lstat()
                if stat.S_ISREG(status.st_mode):
                    found[path] = stat.S_IMODE(status.st_mode)
    return found


def test_only_its_user_reads_what_an_executor_writes(executor: Any, patiently: Any) -> None:
    old = executor.base / "completed" / "old.json"
    executor.make_folders()
    old.write_text("{}")
    old.chmod(0o644)
    executor.start()
    gate = executor.folder / "gate"
    executor.put("by-hand", f"until [ -e {gate} ]; do sleep 0.01; done", env={"A": TOKEN})
    patiently(lambda: "by-hand.pid" in executor.names("running"), "a running command")
    executor.run("submit", "--id", "waits", "--env", f"A={TOKEN}", "echo x")
    files = files_with_modes(executor.home)
    assert {"waits.json", "by-hand.json", "by-hand.log", "by-hand.lock"} <= {p.name for p in files}
    readable = {path.name for path, mode in files.items() if mode & 0o077}
    assert readable == {"heartbeat"}
    assert TOKEN not in (executor.base / "heartbeat").read_text()
    gate.touch()
    executor.put("no", None, env={"A": TOKEN})
    executor.reason("no.json")
    executor.result("waits")
    after = files_with_modes(executor.base)
    assert "waits.log" in {path.name for path in after}
    readable = {path.name for path, mode in after.items() if mode & 0o077}
    assert readable == {"heartbeat"}


def test_a_variable_opens_what_an_executor_writes(executor: Any) -> None:
    executor.env["AI_CO_FILE_MODE"] = "0644"
    executor.start()
    executor.run("submit", "--id", "a", "--wait", "echo x")
    paths = [executor.base / "completed/a.json", executor.base / "logs/a.log"]
    assert modes_of(*paths) == {0o644}
    for bad in ("0400", "644x", "0666", "0755"):
        executor.env["AI_CO_FILE_MODE"] = bad
        done = executor.run("submit", "echo x")
        assert done.returncode == 1
        assert f"AI_CO_FILE_MODE is '{bad}'" in done.stderr


def test_the_folder_hands_no_right_down(executor: Any) -> None:
    executor.make_folders()
    entries = ((1, 7, -1), (2, 7, BOB), (4, 5, -1), (16, 7, -1), (32, 5, -1))
    data = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    for name in ("pending", "completed", "logs"):
        try:
            os.setxattr(executor.base / name, "system.posix_acl_default", data)
        except OSError:
            pytest.skip("this file system has no access lists")
    executor.run("submit", "--id", "a", "echo x")
    assert modes_of(executor.base / "pending/a.json") == {0o600}
    executor.start()
    executor.result("a")
    assert modes_of(executor.base / "completed/a.json", executor.base / "logs/a.log") == {0o600}


def test_a_user_refuses_what_everybody_may_write_to(executor: Any, free: None) -> None:
    """Where it is only a group, that is noted. (As root, this is another user's rule.)"""
    code = (
        "import os, sys\n"
        "from reconciler.executor import home\n"
        "notes = []\n"
        "os.close(home.opened(sys.argv[1], notes=notes))\n"
        "print(*notes)\n"
    )
    folder = Path(tempfile.mkdtemp(prefix="executor-user-"))
    uid = BOB if os.geteuid() == 0 else os.geteuid()
    try:
        if os.geteuid() == 0:
            os.chown(folder, uid, 1)
            code = (
                f"import os; import reconciler.host.remedy, shlex, grp, pwd; os.setuid({uid})\n"
                + code
            )
        for mode in (0o775, 0o777):
            folder.chmod(mode)
            if os.geteuid() != 0 and mode == 0o775:
                continue  # there may be no other group
            done = subprocess.run(
                [sys.executable, "-c", f"import reconciler.executor.home\n{code}", str(folder)],
                env=executor.env,
                capture_output=True,
                text=True,
                cwd="/",
            )
            if mode == 0o777:
                assert f"everybody may write to {folder}" in done.stderr
                assert done.returncode == 1
            else:
                assert done.stdout.startswith(f"group 1 may write to {folder}"), done.stderr
    finally:
        folder.rmdir()


def test_whoever_locks_what_he_can_open_holds_nobody_up(executor: Any, orphan: Any) -> None:
    executor.make_folders()
    held = [os.open(executor.base / name, os.O_RDONLY) for name in ("running", "pending")]
    try:
        for fd in held:
            fcntl.flock(fd, fcntl.LOCK_EX)
        executor.put("a", "echo a")
        path = executor.base / "pending" / "a.json"
        held.append(os.open(path, os.O_RDONLY))
        fcntl.flock(held[-1], fcntl.LOCK_SH)
        executor.start()
        assert executor.result("a")["output_tail"] == "a\n"
    finally:
        for fd in held:
            os.close(fd)


def test_what_a_worker_of_an_older_version_holds_is_not_taken_for_left(
    executor: Any, patiently: Any
) -> None:
    """It locks the file itself."""
    executor.make_folders()
    path = executor.base / "running" / "old.json"
    path.write_text('{"command": "true"}')
    (executor.base / "running" / "gone.json").write_text('{"command": "true"}')
    with path.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        executor.start()
        assert executor.result("gone")["status"] == "interrupted"
        patiently(lambda: executor.names("running") == ["old.json"], "a look at both")
        assert not (executor.base / "completed" / "old.json").exists()
    assert executor.result("old")["status"] == "interrupted"


def test_being_held_up_is_logged_and_not_well(executor: Any, patiently: Any) -> None:
    executor.start(program=patched("from reconciler.executor import worker; worker._HELD_UP = 0.2"))
    lock = executor.base / ".lock"
    executor.put("a", "echo a")
    executor.result("a")
    assert modes_of(lock) == {0o600}
    fd = os.open(lock, os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        executor.put("b", "echo b")
        patiently(lambda: "ERROR" in executor.event_log(), "a complaint")
        assert "held up" in executor.event_log()
        assert str(lock) in executor.event_log()
        status = executor.run("status")
        assert status.returncode == 1
        assert "held up" in status.stdout
        tested = executor.run("test", "--timeout", "1")
        assert tested.returncode == 1
        assert "held up" in tested.stderr
    finally:
        os.close(fd)
    assert executor.result("b")["output_tail"] == "b\n"
    patiently(lambda: executor.run("status").returncode == 0, "well again")


def test_a_lock_that_others_may_open_is_none(executor: Any, patiently: Any) -> None:
    executor.make_folders()
    lock = executor.base / ".lock"
    lock.touch()
    lock.chmod(0o644)
    executor.start()
    executor.put("a", "echo a")
    patiently(lambda: "remove it" in executor.event_log(), "a complaint")
    lock.unlink()
    assert executor.result("a")["output_tail"] == "a\n"


def test_the_text_of_a_command_is_in_nobodys_arguments(executor: Any, patiently: Any) -> None:
    executor.start()
    gate = executor.folder / "gate"
    text = f": {TOKEN}; until [ -e {gate} ]; do read -t 0.05 < <(:); done; true"
    executor.put("a", text)
    patiently(lambda: "a.pid" in executor.names("running"), "a running command")
    pid = json.loads((executor.base / "running/a.pid").read_text())["pid"]
    assert TOKEN not in Path(f"/proc/{pid}/cmdline").read_text()
    assert TOKEN.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
    gate.touch()
    assert executor.result("a")["status"] == "succeeded"


@pytest.mark.parametrize(
    ("text", "code", "output"),
    [
        ("echo $LINENO\necho $LINENO $# ${REPLY-none}", 0, "1\n2 0 none\n"),
        ("cat; echo read", 0, "read\n"),
        ("# nothing\n", 0, ""),
        ("\n\necho a; exit 7", 7, "a\n"),
        ("cat <<E\nhi\nE", 0, "hi\n"),
        ("printf '%s' 'a\\b \"c\"  é'", 0, 'a\\b "c"  é'),
        ("set -eu; false; echo no", 1, ""),
    ],
)
def test_a_command_is_read_as_bash_c_reads_it(
    text: str, code: int, output: str, executor: Any
) -> None:
    executor.env["SHELLOPTS"] = "errexit"
    executor.start()
    executor.put("a", text)
    found = executor.result("a")
    assert (found["exit_code"], found["output_tail"]) == (code, output)


def test_a_command_from_standard_input(executor: Any) -> None:
    executor.start()
    done = subprocess.run(
        [*executor.program, "submit", "--home", executor.home, "--env", "A", "--wait", "-"],
        env={**executor.env, "A": TOKEN},
        input="echo $A\n",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert TOKEN in done.stdout


SMALL = (
    "from reconciler.executor import log_limit, runner; log_limit.MAX_LOG = runner.MAX_LOG = 99999"
)
# It has its log open for reading as well, before it has it for writing.
WRITES_ON = (
    "setsid bash -c 'exec 9>&1; exec 1</proc/self/fd/9; exec 2>&9; echo $$ > {0}; "
    "until [ -e {1} ]; do sleep 0.01; done; exec yes >&9' &"
)


@pytest.mark.parametrize("again", [False, True], ids=["same worker", "another worker"])
def test_what_a_command_leaves_behind_is_bounded(
    again: bool, executor: Any, orphan: Any, alive: Any, patiently: Any
) -> None:
    worker = executor.start(program=patched(SMALL))
    pidfile, gate = executor.folder / "left", executor.folder / "gate"
    executor.put("a", WRITES_ON.format(pidfile, gate))
    pid = orphan(executor.pid_from(pidfile))
    assert executor.result("a")["status"] == "succeeded"
    log = executor.base / "logs" / "a.log"
    reader = subprocess.Popen(["tail", "-f", log], stdout=subprocess.DEVNULL)
    try:
        if again:
            executor.stop(worker, signal.SIGKILL)
            executor.start(program=patched(SMALL))
        assert alive(pid)
        gate.touch()
        patiently(lambda: not alive(pid), "the end of what writes")
        patiently(lambda: log.stat().st_size < 99999 + 200, "a log that is cut")
        patiently(lambda: "a left behind wrote on" in executor.event_log(), "a word about it")
        assert reader.poll() is None
    finally:
        reader.kill()
        reader.wait()


def test_a_running_command_cannot_fill_its_log_while_nobody_looks(
    executor: Any, patiently: Any
) -> None:
    """From nine tenths on the kernel ends who writes more: to the byte, though the worker hangs."""
    worker = executor.start(program=patched(SMALL))
    pidfile, gate = executor.folder / "writer", executor.folder / "gate"
    log = executor.base / "logs" / "a.log"
    executor.put(
        "a",
        f"trap '' TERM XFSZ; head -c 95000 /dev/zero; echo $$ > {pidfile}; "
        f"until [ -e {gate} ]; do sleep 0.01; done; dd if=/dev/zero bs=4k; exec sleep 300",
    )
    pid = executor.pid_from(pidfile)
    soft = 100_000
    patiently(lambda: resource.prlimit(pid, resource.RLIMIT_FSIZE)[0] == soft, "a limit")
    worker.send_signal(signal.SIGSTOP)
    gate.touch()
    patiently(lambda: log.stat().st_size == soft, "a log that is full")
    with pytest.raises(AssertionError):
        patiently(lambda: log.stat().st_size > soft, "a log that grows", 0.3)
    worker.send_signal(signal.SIGCONT)
    found = executor.result("a")
    assert (found["status"], found["reason"][:23]) == ("failed", "output over 99999 bytes")


def test_a_fast_writer_that_does_not_end_by_term_is_bounded(executor: Any, patiently: Any) -> None:
    """The bound is 100 MiB; without the kernel's limit he wrote until KILL, 3 s later."""
    executor.start()
    log = executor.base / "logs" / "a.log"
    executor.put("a", "trap '' TERM XFSZ; sleep 0.5; while :; do dd if=/dev/zero bs=1M; done")
    seen = [(time.monotonic(), 0)]

    def over() -> bool:
        with contextlib.suppress(FileNotFoundError):
            seen.append((time.monotonic(), log.stat().st_blocks * 512))
        return bool((executor.base / "completed" / "a.json").exists())

    patiently(over, "its end")
    assert executor.result("a")["reason"].startswith("output over 104857600 bytes")
    most = max(size for _, size in seen)
    assert most > 100 * 2**20
    # How much that is depends on how soon the worker is given a processor; not how long it goes on.
    grew = min(at for at, size in seen if size == most) - max(at for at, size in seen if not size)
    assert most < 400 * 2**20 or not late(grew, 2.0)
    assert log.stat().st_size < 100 * 2**20 + 200


# Until the limit that it got is taken back.
FILLS = "u=$(ulimit -f); head -c 60000 /dev/zero; sleep 2; until [ $(ulimit -f) = $u ]; do :; done"


@pytest.mark.parametrize("before", ["true", FILLS])
def test_what_a_command_writes_elsewhere_is_as_long_as_it_likes(before: str, executor: Any) -> None:
    """Also when it has filled its log so fast for a while that it got a limit."""
    executor.start(program=patched(SMALL))
    backup = executor.folder / "backup"
    executor.put("a", f"{before}; head -c 300000 /dev/zero > {backup}; echo done")
    assert executor.result("a")["status"] == "succeeded"
    assert backup.stat().st_size == 300_000


def test_what_a_command_leaves_behind_is_bounded_while_no_worker_looks(
    executor: Any, orphan: Any, patiently: Any
) -> None:
    """From the command's end on; the kernel ends who writes more, and who was forked from it."""
    worker = executor.start(program=patched(SMALL))
    pidfile, gate = executor.folder / "left", executor.folder / "gate"
    log = executor.base / "logs" / "a.log"
    executor.put("a", WRITES_ON.format(pidfile, gate))
    pid = orphan(executor.pid_from(pidfile))
    assert executor.result("a")["status"] == "succeeded"
    limit = (100_000, 100_000)
    patiently(lambda: resource.prlimit(pid, resource.RLIMIT_FSIZE) == limit, "a limit")
    executor.stop(worker, signal.SIGKILL)
    gate.touch()
    patiently(lambda: log.stat().st_size == 100_000, "a log that is full")
    with pytest.raises(AssertionError):
        patiently(lambda: log.stat().st_size > 100_000, "a log that grows", 0.3)


def test_a_look_at_what_is_open_has_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: None
) -> None:
    """However many descriptors somebody holds; our own processes are looked at first."""
    from reconciler.host import openfiles

    with (tmp_path / "log").open("w") as log:
        writer = subprocess.Popen(["sleep", "300"], stdout=log)
    try:
        with (tmp_path / "log").open("rb") as log:
            with monkeypatch.context() as patch:  # However long it takes here.
                patch.setattr(openfiles, "_LONGEST", LONG)
                assert list(openfiles.writers(log.fileno())) == [writer.pid]
            monkeypatch.setattr(openfiles, "_LONGEST", 0.0)
            monkeypatch.setattr(openfiles, "_STEP", 1)
            assert list(openfiles.writers(log.fileno())) == []
    finally:
        writer.kill()
        writer.wait()


def test_a_timeout_ends_the_whole_tree(
    executor: Any, orphan: Any, alive: Any, patiently: Any
) -> None:
    """Also who has left the group and the session, as long as his parent runs or he writes."""
    child, writer, over = (executor.folder / name for name in ("child", "writer", "over"))
    executor.start(program=executor.hurries_at(over))
    executor.put(
        "t",
        f"setsid sh -c 'echo $$ > {child}; exec sleep 300' >/dev/null 2>&1 & "
        f"(setsid sh -c 'echo $$ > {writer}; exec sleep 300' &); wait",
        timeout=500,
    )
    pids = [orphan(executor.pid_from(path)) for path in (child, writer)]
    over.touch()
    assert executor.result("t")["status"] == "timed_out"
    assert not any(alive(pid) for pid in pids)
