"""What another user could do with the process that is about to be his, and what inherits."""

from __future__ import annotations

import ctypes
import os
import pty
import pwd
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import LONG, Machine, until

from reconciler.base.errors import HostError
from reconciler.host import start
from reconciler.host.daemon_log import open_log
from reconciler.host.launch import Launch, prepared
from reconciler.host.processes import look_up
from reconciler.host.users import Users

NOBODY = 65534
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
PLACES = ["daemon", "session"]


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder of ours that everybody may enter, unlike pytest's."""
    with tempfile.TemporaryDirectory(prefix="rc-", dir="/var/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def program(*argv: str, user: str | None = None, cwd: str | None = None) -> start.Program:
    return start.Program(argv, {"PATH": "/usr/bin:/bin"}, Users().account(user), cwd)


def begun(made: start.Program) -> int:
    null = os.open("/dev/null", os.O_RDWR)
    try:
        return start.begin(made, (null, null, null))
    finally:
        os.close(null)


def just_before_the_program(monkeypatch: pytest.MonkeyPatch, then: Callable[[], object]) -> None:
    """Have the new process do something else once it is its user's."""
    monkeypatch.setattr(start, "enter", lambda cwd, home: then())


# -- the wait has an end


@pytest.mark.parametrize("detached", [False, True])
def test_a_process_that_its_user_stops_before_it_is_the_program_is_ended(
    free: None, monkeypatch: pytest.MonkeyPatch, detached: bool
) -> None:
    born: list[int] = []
    said, say = os.pipe()
    os.set_blocking(said, False)

    def stop() -> None:
        os.kill(os.getpid(), signal.SIGSTOP)

    def remember(identity: Any) -> None:
        os.write(say, str(identity.pid).encode())

    just_before_the_program(monkeypatch, stop)
    null = os.open("/dev/null", os.O_RDWR)
    streams = (null, null, null)
    with pytest.raises(start.NotStarted, match="a signal stopped the new process") as caught:
        if detached:
            gone: list[int] = []
            one = start.Detached(program("sleep", "60"), streams, remember, gone.append)
            (failed,) = start.detach([one])
            assert isinstance(failed, start.NotStarted)
            assert gone == [failed.pid]
            raise failed
        start.begin(program("sleep", "60"), streams)
    if detached:
        born.append(int(os.read(said, 20)))
        assert caught.value.pid == born[0]
    pid = caught.value.pid
    assert pid is not None
    until(lambda: look_up(pid) is None)
    for handle in (said, say) if detached else (null, said, say):
        os.close(handle)


def test_what_never_becomes_the_program_is_given_up(
    free: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "mute")
    just_before_the_program(monkeypatch, lambda: os.open(tmp_path / "mute", os.O_RDONLY))
    monkeypatch.setattr(start, "_LONGEST", 0.5)
    with pytest.raises(start.NotStarted, match=r"within 0\.5 s, and was killed") as caught:
        begun(program("sleep", "60"))
    pid = caught.value.pid
    assert pid is not None
    until(lambda: look_up(pid, zombies=True) is None)


def test_whoever_stops_waiting_leaves_no_half_started_process(
    free: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Enough(Exception):
        pass

    def enough(*_: object) -> None:
        raise Enough

    def hang() -> None:
        """Once it is waited for, for a while already."""
        waiter, waits = Path(f"/proc/{os.getppid()}/stat"), 0
        while waits < 10:
            waits = waits + 1 if waiter.read_text().rpartition(")")[2].split()[0] == "S" else 0
            time.sleep(0.02)
        os.kill(os.getppid(), signal.SIGALRM)
        os.open(tmp_path / "mute", os.O_RDONLY)

    os.mkfifo(tmp_path / "mute")
    just_before_the_program(monkeypatch, hang)
    monkeypatch.setattr(start, "_LONGEST", LONG)
    pids: list[int] = []
    monkeypatch.setattr(start, "reap", lambda pid: pids.append(pid))
    before = signal.signal(signal.SIGALRM, enough)
    try:
        with pytest.raises(Enough):
            begun(program("sleep", "60"))
    finally:
        signal.signal(signal.SIGALRM, before)
    (pid,) = pids
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def test_a_record_of_what_was_not_started_is_taken_away(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    just_before_the_program(monkeypatch, lambda: os.kill(os.getpid(), signal.SIGSTOP))
    # What hangs in the kernel is there for as long as that takes.
    monkeypatch.setattr(start, "_kill", lambda identity, child: None)
    launch = Launch("process:p", "d", ("sleep", "60"), (), None, None)
    account = Users().account(None)
    null = os.open("/dev/null", os.O_RDWR)
    made = prepared(launch, account, (null, null), "x", f"{machine.base}/run/p")
    (failed,) = start.detach([made])
    assert isinstance(failed, start.NotStarted)
    os.kill(failed.pid or 0, signal.SIGKILL)
    assert list((machine.base / "run").iterdir()) == []


def test_nothing_of_ours_is_open_in_what_is_about_to_be_somebody_elses(
    free: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = tmp_path / "open"
    lock = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    high = os.dup2(lock, 70000 if resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 70000 else 200)

    def look() -> None:
        found = [os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")
                 if os.path.lexists(f"/proc/self/fd/{name}")]  # fmt: skip
        out.write_text("\n".join(found))

    just_before_the_program(monkeypatch, look)
    os.waitpid(begun(program("true")), 0)
    os.close(high)
    os.close(lock)
    found = out.read_text().split("\n")
    assert found.count("/dev/null") == 3
    assert [path for path in found if str(tmp_path / "lock") in path] == []


# -- the folder


@pytest.mark.root
@ROOT
@pytest.mark.parametrize("sort", ["check", "daemon", "session"])
def test_a_folder_is_entered_with_the_rights_of_its_user(
    machine: Machine, open_folder: Path, sort: str
) -> None:
    (open_folder / "closed/inner").mkdir(parents=True)
    (open_folder / "closed").chmod(0o700)
    (open_folder / "work").symlink_to(open_folder / "closed/inner")
    where = (
        f"command: 'pwd > {open_folder}/out/pwd; sleep 1', user: nobody, cwd: {open_folder}/work"
    )
    (open_folder / "out").mkdir(mode=0o777)
    (open_folder / "out").chmod(0o777)
    texts = {
        "check": f"checks: {{c: {{{where}}}}}",
        "daemon": f"processes: {{p: {{{where}}}}}",
        "session": f"sessions: {{s: {{}}}}\nprocesses: {{p: {{{where}, session: s}}}}",
    }
    done = machine.reconcile("--once", machine.spec(texts[sort]))
    assert done.returncode == 1
    assert "cannot be entered: permission denied" in done.stdout
    assert not (open_folder / "out/pwd").exists()


def test_commands_of_a_spec_stand_in_the_home_of_their_user(machine: Machine) -> None:
    here = machine.base / "here"
    here.mkdir()
    (machine.base / "logs").mkdir()
    (machine.base / "logs/a.log").write_text("x" * 3000)
    said = machine.base / "said"
    spec = machine.spec(
        f"retention: {{r: {{path: {machine.base}/logs, match: a.log, max_file: 1KiB, "
        f"action: rotate, run: 'echo rotation $PWD >> {said}'}}}}\n"
        f"checks: {{c: {{command: 'echo check $PWD >> {said}; false', "
        f"on_failure: [{{run: 'echo hook $PWD >> {said}'}}]}}}}\n"
        f"processes: {{p: {{command: 'echo daemon $PWD >> {said}; sleep 100'}}}}\n"
    )
    machine.reconcile("--once", spec, cwd=here)
    home = machine.home
    expected = {f"{name} {home}" for name in ("rotation", "check", "hook", "daemon")}
    until(lambda: said.exists() and set(said.read_text().splitlines()) == expected)


# -- the environment


@pytest.mark.root
@ROOT
def test_a_library_of_another_user_is_not_loaded_before_the_change_of_ids(
    machine: Machine,
) -> None:
    # The loader complains of a library that is not there, once for each program that it loads.
    spec = machine.spec(
        "sessions: {s: {env: {LD_PRELOAD: /no/session.so}}}\n"
        "processes: {p: {command: [sleep, '1077'], session: s, user: nobody, cwd: /,"
        " env: {LD_PRELOAD: /no/process.so}}}\n"
    )
    machine.once(spec)
    pid = machine.only("sleep 1077")
    environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    assert b"LD_PRELOAD=/no/process.so" in environ
    assert [word for word in environ if b"RECONCILE_SET" in word] == []

    def shown() -> str:
        text = machine.tmux("capture-pane", "-p", "-J", "-t", "=s:p")
        return text if "/no/process.so" in text else ""

    seen = until(shown)
    assert seen.count("/no/process.so") == 1
    assert "/no/session.so" not in seen


@pytest.mark.root
@ROOT
def test_a_pane_of_another_user_has_nothing_of_the_servers_environment(machine: Machine) -> None:
    machine.run("tmux", "-u", "new-session", "-d", "-s", "person", environ={"TOKEN": "canary"})
    spec = machine.spec(
        "sessions: {s: {}}\n"
        "processes: {p: {command: [sleep, '1077'], session: s, user: nobody, cwd: /}}\n"
    )
    machine.once(spec)
    pid = machine.only("sleep 1077")
    environ = Path(f"/proc/{pid}/environ").read_bytes()
    assert b"canary" not in environ
    assert b"TMUX_PANE=" in environ


# -- the terminal


def test_no_command_has_the_terminal_of_the_pass(machine: Machine) -> None:
    out = machine.base / "out"
    look = f"(: < /dev/tty) 2>/dev/null && echo $0 has it >> {out}; echo looked >> {out}"
    spec = machine.spec(
        f"checks: {{c: {{command: [sh, -c, '{look}; false', check], "
        f"on_failure: [{{run: [sh, -c, '{look}', hook]}}]}}}}\n"
        f"processes: {{p: {{command: [sh, -c, '{look}; sleep 100', daemon]}}}}\n"
    )
    pid, terminal = pty.fork()
    if pid == 0:
        try:
            argv = list(map(str, machine.argv("--once", "-q", spec)))
            os.chdir(machine.base)
            os.execve(argv[0], argv, machine.environ)
        finally:
            os._exit(127)
    end = time.monotonic() + LONG
    while time.monotonic() < end and not os.waitpid(pid, os.WNOHANG)[0]:
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                os.read(terminal, 4096)
            except OSError:
                break
    os.close(terminal)
    until(lambda: out.exists() and out.read_text().count("looked") == 3)
    assert "has it" not in out.read_text()


# -- what is inherited

ODD = """
import ctypes, os, resource, sys
os.umask(0o077)
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(100, soft), hard))
soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
resource.setrlimit(resource.RLIMIT_CORE, (hard if soft != hard else 0, hard))
open("/proc/self/oom_score_adj", "w").write("500")
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
if os.geteuid() == 0:
    os.nice(7)
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    os.setgroups([4, 5])
os.set_inheritable(os.open("/etc/passwd", os.O_RDONLY), True)
os.execv(sys.argv[1], sys.argv[1:])
"""


def inherited(pid: int) -> dict[str, object]:
    fields = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
    return {
        "umask": fields["Umask"].strip(),
        "groups": fields["Groups"].split(),
        "processors": fields["Cpus_allowed"].strip(),
        "nice": os.getpriority(os.PRIO_PROCESS, pid),
        "policy": os.sched_getscheduler(pid),
        "oom": Path(f"/proc/{pid}/oom_score_adj").read_text().strip(),
        "files": [line for line in limits if "open files" in line],
        "core": [line for line in limits if "core file" in line],
        "open": len(os.listdir(f"/proc/{pid}/fd")),
    }


@pytest.mark.parametrize("place", PLACES)
def test_what_a_process_inherits_is_the_same_whoever_starts_it(
    machine: Machine, place: str
) -> None:
    session = ", session: s" if place == "session" else ""
    spec = machine.spec(
        "sessions: {s: {}}\n"
        f"processes: {{p: {{command: [sleep, '1077']{session}, stop: {{timeout: 1s}}}}}}\n"
    )
    seen = []
    for odd in ([], [sys.executable, "-c", ODD]):
        done = machine.run(*odd, *machine.argv("--once", spec))
        assert done.returncode == 0, done.stdout + done.stderr
        pid = machine.only("sleep 1077")
        seen.append(inherited(pid))
        both = {machine.server(), pid}
        for one in both:
            os.kill(one, signal.SIGKILL)
        # No server that is about to end is talked to.
        until(lambda both=both: not both & machine.ours().keys())
    assert seen[0] == seen[1]
    if os.geteuid() == 0:
        init = inherited(1)
        for name in ("nice", "policy", "oom", "processors"):
            assert seen[1][name] == init[name], name
    assert seen[1]["umask"] == "0022"


def test_signals_umask_and_io_priority_are_not_handed_on(free: None, tmp_path: Path) -> None:
    out = tmp_path / "out"
    priority = "import ctypes; print('io', ctypes.CDLL(None).syscall(252, 1, 0))"
    look = ("grep", "-E", "^(Sig(Ign|Blk)|Umask)", "/proc/self/status")
    known = os.uname().machine == "x86_64"
    umask = os.umask(0o077)
    ignored = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    if known:
        ctypes.CDLL(None).syscall(251, 1, 0, 3 << 13)  # The class that gets what nobody needs.
    try:
        handle = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for argv in (look, (sys.executable, "-c", priority)):
            os.waitpid(start.begin(program(*argv), (0, handle, handle)), 0)
        os.close(handle)
    finally:
        if known:
            ctypes.CDLL(None).syscall(251, 1, 0, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        signal.signal(signal.SIGUSR2, ignored)
        os.umask(umask)
    seen = dict(line.replace(":", " ").split() for line in out.read_text().splitlines())
    assert int(seen["SigIgn"], 16) == int(seen["SigBlk"], 16) == 0
    assert seen["Umask"] == "0022"
    assert not known or int(seen["io"]) >> 13 != 3


KEYS = """
import ctypes, os, sys
c = ctypes.CDLL(None)
if c.syscall(250, 1, None) < 0 or c.syscall(248, b"user", b"ours", b"secret", 6, -3) < 0:
    sys.exit(77)
os.execv(sys.argv[1], sys.argv[1:])
"""
FOUND = "import ctypes; print(ctypes.CDLL(None).syscall(250, 10, -3, b'user', b'ours', 0))"


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers of its system calls")
@pytest.mark.parametrize("sort", ["check", "daemon", "session"])
def test_a_key_of_our_session_is_found_by_nobody(machine: Machine, sort: str) -> None:
    out = machine.base / "found"
    script = machine.base / "look.py"
    script.write_text(f"{FOUND.replace('print(', f'open({str(out)!r}, chr(97)).write(str(')})\n")
    command = f"command: [{sys.executable}, {script}]"
    texts = {
        "check": f"checks: {{c: {{{command}}}}}",
        "daemon": f"processes: {{p: {{{command}}}}}",
        "session": f"sessions: {{s: {{}}}}\nprocesses: {{p: {{{command}, session: s}}}}",
    }
    done = machine.run(
        sys.executable, "-c", KEYS, *machine.argv("--once", machine.spec(texts[sort]))
    )
    if done.returncode == 77:
        pytest.skip("keyctl is refused here")
    assert until(lambda: out.exists() and out.read_text()) == "-1"


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers of its system calls")
def test_a_key_of_the_session_in_which_tmux_was_started_is_found_by_nobody(
    machine: Machine,
) -> None:
    server = ["tmux", "-u", "new-session", "-d", "-s", "person"]
    done = machine.run(sys.executable, "-c", KEYS, "/usr/bin/env", *server)
    if done.returncode == 77:
        pytest.skip("keyctl is refused here")
    out = machine.base / "found"
    script = machine.base / "look.py"
    script.write_text(f"{FOUND.replace('print(', f'open({str(out)!r}, chr(97)).write(str(')})\n")
    command = f"command: [{sys.executable}, {script}]"
    spec = machine.spec(f"sessions: {{s: {{}}}}\nprocesses: {{p: {{{command}, session: s}}}}")
    machine.once(spec, status=1)
    assert until(lambda: out.exists() and out.read_text()).startswith("-1")


@pytest.mark.root
@ROOT
def test_a_user_whose_process_has_hung_delays_the_next_ones_less(
    free: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    just_before_the_program(monkeypatch, lambda: time.sleep(60))
    monkeypatch.setattr(start, "_LONGEST", 1.0)
    monkeypatch.setattr(start, "_hung", {})
    for words in ("within 1 s", r"within 0\.5 s"):
        with pytest.raises(start.NotStarted, match=words):
            begun(program("true", user="nobody"))


# -- the log of another user's daemon


@pytest.mark.root
@ROOT
def test_a_file_of_roots_that_a_user_renamed_is_not_his_log(
    machine: Machine, open_folder: Path
) -> None:
    theirs = open_folder / "theirs"
    theirs.mkdir()
    os.chown(theirs, NOBODY, NOBODY)
    (theirs / "made-by-root").write_text("ours\n")
    subprocess.run(
        ["setpriv", f"--reuid={NOBODY}", "--clear-groups", "mv", theirs / "made-by-root",
         theirs / "log"], check=True,
    )  # fmt: skip
    spec = machine.spec(
        f"processes: {{p: {{command: 'echo theirs; sleep 100', user: nobody, log: {theirs}/log}}}}"
    )
    report = machine.once(spec, status=1)
    assert f"chown {NOBODY} {theirs}/log" in report["steps"][0]["error"]
    assert (theirs / "log").read_text() == "ours\n"
    os.chown(theirs / "log", NOBODY, NOBODY)
    assert machine.once(spec)["steps"][0]["result"] == "done"
    until(lambda: (theirs / "log").read_text() == "ours\ntheirs\n")


@pytest.mark.root
@ROOT
def test_a_log_of_roots_in_a_folder_of_roots_may_be_his(free: None, open_folder: Path) -> None:
    (open_folder / "log").write_text("")
    os.close(open_log(str(open_folder / "log"), NOBODY, NOBODY))
    open_folder.chmod(0o777)
    with pytest.raises(HostError, match="nothing is written to it for user"):
        open_log(str(open_folder / "log"), NOBODY, NOBODY)
    open_folder.chmod(0o755)


@pytest.mark.root
@ROOT
def test_a_file_of_roots_that_a_user_renamed_is_not_shown_as_his_last_words(
    machine: Machine, open_folder: Path
) -> None:
    theirs = open_folder / "theirs"
    theirs.mkdir()
    os.chown(theirs, NOBODY, NOBODY)
    (theirs / "made-by-root").write_text("said by root\n")
    (theirs / "made-by-root").chmod(0o600)
    spec = machine.spec(
        f"processes: {{p: {{command: 'mv {theirs}/made-by-root {theirs}/log; exit 3', "
        f"user: nobody, log: {theirs}/log}}}}"
    )
    report = machine.once(spec, status=1)
    assert (theirs / "log").read_text() == "said by root\n"
    assert "said by root" not in str(report)


@pytest.mark.root
@ROOT
@pytest.mark.parametrize("after", ["", ", user: daemon"])
def test_the_log_of_one_user_is_not_written_by_the_next(machine: Machine, after: str) -> None:
    def spec(words: str, user: str) -> Path:
        return machine.spec(f"processes: {{p: {{command: 'echo {words}; sleep 1078'{user}}}}}")

    machine.once(spec("first", ", user: nobody"))
    (log,) = machine.state.rglob("p.log")
    with log.open() as still:  # As a process that he has left behind has it.
        until(lambda: log.read_text() == "first\n")
        machine.once(spec("second", after))
        until(lambda: log.read_text() == "second\n")
        assert still.read() == "first\n"
    assert log.with_name("p.log.1").read_text() == "first\n"
    assert log.stat().st_uid == (0 if not after else pwd.getpwnam("daemon").pw_uid)
    # Nor has the next one what is written from now on by the one before.
    machine.once(spec("third", ", user: nobody"))
    until(lambda: log.read_text() == "third\n")
    assert log.stat().st_uid == NOBODY


# -- a full disk


@pytest.mark.root
@ROOT
def test_a_full_disk_for_the_state_hinders_no_start(machine: Machine) -> None:
    spec = machine.spec("processes: {p: {command: [sleep, '1077']}}")
    machine.state.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m,nr_inodes=12", "none", str(machine.state)]
    subprocess.run(mount, check=True)
    try:
        machine.plan(spec)
        with pytest.raises(OSError):
            for number in range(20):
                (machine.state / f"fill{number}").touch()
        # Room for the lock and the store, but for neither a log nor a record.
        for number in range(4):
            (machine.state / f"fill{number}").unlink()
        with pytest.raises(OSError):
            machine.once(spec)
            for number in range(20):
                (machine.state / f"more{number}").touch()
        assert len(machine.running("sleep 1077")) == 1
        machine.converged(spec)
    finally:
        machine.clear()
        subprocess.run(["umount", str(machine.state)], check=True)


CAPABLE = """
import os, sys
from reconciler.host import start
from reconciler.host.users import Account
name, uid = sys.argv[1:]
home = os.environ["HERE"]
if sys.argv[2] != "0":
    real = start.enter
    def entered(cwd, there):
        lines = open("/proc/self/status").read().splitlines()
        print("entered with", *(line.split()[1] for line in lines if line[:3] == "Cap"))
        sys.stdout.flush()
        real(cwd, there)
    start.enter = entered
account = Account(name, int(uid), int(uid), home, "/bin/sh")
made = start.Program(["setpriv", "--dump"], {"PATH": "/usr/bin:/bin"}, account)
pid = start.begin(made, (0, 1, 2))
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.root
@ROOT
@pytest.mark.skipif(not shutil.which("setpriv"), reason="setpriv is missing")
@pytest.mark.parametrize(
    ("uid", "locked"), [(0, ""), (65534, ""), (65534, ",+no_setuid_fixup_locked")]
)
def test_no_capability_of_the_caller_is_inherited(machine: Machine, uid: int, locked: str) -> None:
    """Neither by the program, nor while its folder is entered, though the caller has it so."""
    name = pwd.getpwuid(uid).pw_name
    caller = (
        "setpriv", "--inh-caps", "+net_raw,+chown", "--ambient-caps", "+net_raw",
        "--securebits", f"+no_setuid_fixup{locked}",
    )  # fmt: skip
    script = (machine.bin / "python", "-c", CAPABLE, name, str(uid))
    done = machine.run(*caller, *script, environ={"HERE": str(machine.base)})
    assert done.returncode == 0, done.stderr
    if uid:
        nothing, bounding = "0" * 16, done.stdout.split()[5]
        assert f"entered with {nothing} {nothing} {nothing} {bounding} {nothing}" in done.stdout
    assert "Inheritable capabilities: [none]" in done.stdout
    assert "Ambient capabilities: [none]" in done.stdout
    assert ("Securebits: [none]" in done.stdout) != bool(locked)
