"""Processes on the real machine: started, known again, adopted, stopped with their group."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from support import LONG, Machine, compiled, ends_before_it_is_proved, until

from reconciler.host import Host
from reconciler.host.clock import Clock
from reconciler.kinds.process.match import matching

DAEMON = """
processes:
  one:
    command: [sleep, "{seconds}"]
    log: {base}/one.log
"""


def daemon(machine: Machine, seconds: int = 1001) -> Path:
    return machine.spec(DAEMON.format(base=machine.base, seconds=seconds))


def test_a_daemon_is_started_once_and_known_again(machine: Machine) -> None:
    spec = daemon(machine)
    machine.once(spec)
    (pid,) = machine.running("sleep 1001")
    machine.converged(spec)
    machine.once(spec)
    assert machine.running("sleep 1001") == [pid]


def test_a_daemon_leads_a_session_and_has_only_its_log(machine: Machine) -> None:
    machine.once(daemon(machine))
    (pid,) = machine.running("sleep 1001")
    assert (os.getpgid(pid), os.getsid(pid)) == (pid, pid)
    open_files = {link.name: os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()}
    log = str(machine.base / "one.log")
    assert open_files == {"0": "/dev/null", "1": log, "2": log}


def test_a_daemon_is_known_when_all_state_is_lost(machine: Machine) -> None:
    spec = daemon(machine)
    machine.once(spec)
    for record in (machine.state / "demo/run").iterdir():
        record.unlink()
    machine.converged(spec)


def test_a_daemon_that_has_overwritten_its_environment_is_known(machine: Machine) -> None:
    # As setproctitle(3) does, and with it many servers.
    program = machine.base / "scribbler"
    program.write_text(
        "import ctypes, time\n"
        "fields = open('/proc/self/stat').read().rsplit(')', 1)[1].split()\n"
        "start, end = int(fields[47]), int(fields[48])\n"
        "ctypes.memset(start, 0, end - start)\n"
        "print('ready', flush=True)\n"
        "time.sleep(1000)\n"
    )
    spec = machine.spec(
        f"processes: {{one: {{command: [{machine.bin}/python, {program}], "
        f"log: {machine.base}/one.log}}}}"
    )
    machine.once(spec)
    until(lambda: "ready" in (machine.base / "one.log").read_text())
    machine.converged(spec)
    (record,) = (machine.state / "demo/run").iterdir()
    os.kill(int(record.read_text().split()[1]), signal.SIGKILL)


def test_a_child_that_survives_its_daemon_is_not_taken_for_it(machine: Machine) -> None:
    spec = machine.spec(
        f"processes: {{one: {{command: 'setsid sleep 1002 & exec sleep 1003', "
        f"log: {machine.base}/one.log}}}}"
    )
    machine.once(spec)
    # The shell's own line has both.
    until(lambda: len(machine.running("sleep 1002")) == len(machine.running("sleep 1003")) == 1)
    until(lambda: machine.running("sleep 1002") != machine.running("sleep 1003"))
    (pid,) = machine.running("sleep 1003")
    os.kill(pid, signal.SIGKILL)
    until(lambda: not machine.running("sleep 1003"))
    assert machine.steps(spec) == ["process:one"]


@pytest.mark.parametrize("place", ["log: {base}/one.log", "session: s"])
def test_another_command_restarts_it(machine: Machine, place: str) -> None:
    place = place.format(base=machine.base)
    sessions = "sessions: {{s: {{}}}}\n" if "session" in place else ""
    text = sessions + "processes: {{one: {{command: [sleep, '{}'], " + place + "}}}}"
    machine.once(machine.spec(text.format(1001)))
    machine.only("sleep 1001")
    spec = machine.spec(text.format(1002))
    (step,) = machine.plan(spec)["steps"]
    assert step["verb"] == "restart"
    machine.once(spec)
    assert not machine.running("sleep 1001")
    machine.only("sleep 1002")
    machine.converged(spec)


def test_a_changed_secret_restarts_it_and_is_shown_nowhere(machine: Machine) -> None:
    text = "processes: {{one: {{command: [sleep, '1001'], env: {{TOKEN: '{}'}}}}}}"
    machine.once(machine.spec(text.format("canary-1")))
    (before,) = machine.running("sleep 1001")
    spec = machine.spec(text.format("canary-2"))
    done = machine.reconcile("--once", spec, "--json", "-v")
    assert done.returncode == 0, done.stderr
    (after,) = machine.running("sleep 1001")
    assert before != after
    assert b"TOKEN=canary-2" in Path(f"/proc/{after}/environ").read_bytes()
    assert "canary" not in done.stdout + done.stderr
    for path in machine.state.rglob("*"):
        assert not path.is_file() or b"canary" not in path.read_bytes()
    machine.converged(spec)


def test_a_secret_never_stands_in_an_argument_list(machine: Machine) -> None:
    spec = machine.spec(
        "sessions: {s: {env: {A: canary-1}}}\n"
        "processes: {one: {command: [sleep, '1001'], session: s, env: {B: canary-2}}}\n"
    )
    trace = machine.traced("trace=execve", *machine.argv("--once", spec))
    pid = machine.only("sleep 1001")
    # A pane becomes its program a moment later.
    until(lambda: b"B=canary-2" in Path(f"/proc/{pid}/environ").read_bytes())
    assert trace.count("execve") > 3
    assert "canary" not in trace


def test_instances_are_counted_and_the_missing_ones_started(machine: Machine) -> None:
    spec = machine.spec("processes: {one: {command: [sleep, '1001'], instances: 3}}")
    machine.once(spec)
    first = machine.running("sleep 1001")
    assert len(first) == 3
    os.kill(first[0], signal.SIGKILL)
    until(lambda: len(machine.running("sleep 1001")) == 2)
    (step,) = machine.once(spec)["steps"]
    assert (step["verb"], len(step["actions"])) == ("start", 1)
    assert len(machine.running("sleep 1001")) == 3
    machine.converged(spec)


def by_hand(machine: Machine, *argv: str) -> subprocess.Popen[bytes]:
    made = subprocess.Popen(argv, env=machine.environ, start_new_session=True)
    # The call comes back while it still executes, when it has no command line.
    until(lambda: made.pid in machine.running(" ".join(argv)))
    return made


def matched(machine: Machine, more: str = "") -> str:
    """A process that is known by a command line of this test alone."""
    match = f"match: {{cmdline: '^sleep {machine.mark}$'}}"
    return f"processes: {{one: {{command: [sleep, '{machine.mark}'], {match}{more}}}}}"


def test_one_that_matches_is_adopted_and_stopped_when_absent(machine: Machine) -> None:
    hand = by_hand(machine, "sleep", machine.mark)
    spec = machine.spec(matched(machine))
    machine.converged(spec)
    machine.once(machine.spec(matched(machine, ", state: absent")))
    assert hand.wait(timeout=LONG) == -signal.SIGTERM


@pytest.mark.parametrize("match", ["exe: {exe}", "pidfile: {base}/pid"])
def test_adoption_by_program_and_by_pid_file(machine: Machine, match: str) -> None:
    program = machine.base / "sleeper"
    program.write_bytes(Path("/bin/sleep").read_bytes())
    program.chmod(0o755)
    hand = by_hand(machine, str(program), machine.mark)
    (machine.base / "pid").write_text(f"{hand.pid}\n")
    match = match.format(exe=program, base=machine.base)
    spec = machine.spec(f"processes: {{one: {{command: [{program}, '1'], match: {{{match}}}}}}}")
    machine.converged(spec)
    hand.kill()
    hand.wait()
    assert machine.steps(spec) == ["process:one"]


def test_a_pid_file_is_believed_when_the_clock_was_set_ahead(machine: Machine) -> None:
    """It was seen by a pass, of a spec without any rule about ages, by a clock 5 s behind."""

    class Behind(Clock):
        def wall(self) -> float:
            return super().wall() - 5.0

    hand = by_hand(machine, "sleep", "1078")
    pid_file = machine.base / "pid"
    pid_file.write_text(str(hand.pid))
    os.utime(pid_file, (time.time() - 5.0,) * 2)
    spec = compiled(
        machine.base, f"processes: {{one: {{command: [x], match: {{pidfile: {pid_file}}}}}}}"
    )
    state = str(machine.base / "its-state")
    os.mkdir(state, 0o700)
    before = Host("demo", state, Behind())
    before.walltime.remembers = True
    before.walltime.note()
    (want,) = (one.want for one in spec.resources)
    assert [one.pid for one in matching(want, before)] == [hand.pid]
    assert [one.pid for one in matching(want, Host("demo", state))] == [hand.pid]
    os.unlink(f"{state}/clock")
    assert matching(want, Host("demo", state)) == []
    hand.kill()
    hand.wait()


def test_a_pid_file_older_than_the_process_is_not_believed(machine: Machine) -> None:
    hand = by_hand(machine, "sleep", machine.mark)
    pid_file = machine.base / "pid"
    pid_file.write_text(f"{hand.pid}\n")
    os.utime(pid_file, (1, 1))
    spec = machine.spec(
        f"processes: {{one: {{command: [sleep, '1'], match: {{pidfile: {pid_file}}}}}}}"
    )
    assert machine.steps(spec) == ["process:one"]
    hand.kill()
    hand.wait()


@pytest.mark.namespaces
@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make a PID namespace")
@pytest.mark.parametrize(
    "match", ["cmdline: '^sleep {mark}$'", "exe: {base}/sleep", "pidfile: {base}/pid"]
)
def test_a_process_in_a_container_is_not_the_hosts(machine: Machine, match: str) -> None:
    program = machine.base / "sleep"
    shutil.copy("/bin/sleep", program)
    machine.environ["PATH"] = f"{machine.base}:{machine.environ['PATH']}"
    container = subprocess.Popen(
        ["unshare", "--pid", "--fork", "--kill-child", "sh", "-c", f"sleep {machine.mark} & wait"],
        env=machine.environ,
    )
    try:
        (theirs,) = until(
            lambda: (
                machine.running(f"sleep {machine.mark}") and inner(machine, f"sleep {machine.mark}")
            )
        )
        (machine.base / "pid").write_text(f"{theirs}\n")
        line = "processes: {{p: {{{}command: [{base}/sleep, '1048'], match: {{{}}}}}}}"
        match = match.format(base=machine.base, mark=machine.mark)
        spec = machine.spec(line.format("", match, base=machine.base))
        machine.once(spec)
        assert len(machine.running("sleep 1048")) == 1
        machine.once(machine.spec(line.format("state: absent, ", match, base=machine.base)))
        assert machine.running("sleep 1048") == []
        assert inner(machine, f"sleep {machine.mark}") == [theirs]
    finally:
        container.kill()
        container.wait()


def inner(machine: Machine, text: str) -> list[int]:
    """The processes with exactly that command line."""
    return [pid for pid, line in machine.ours().items() if line == text]


def test_more_matches_than_instances_are_reported_and_stopped_only_when_asked(
    machine: Machine,
) -> None:
    older = by_hand(machine, "sleep", machine.mark)
    until(lambda: machine.running(f"sleep {machine.mark}"))
    machine.run("sleep", "0.02")  # start times are counted in ticks of 10 ms
    younger = by_hand(machine, "sleep", machine.mark)
    until(lambda: len(machine.running(f"sleep {machine.mark}")) == 2)
    plan = machine.plan(machine.spec(matched(machine)))
    assert plan["steps"] == []
    assert str(younger.pid) in plan["notes"][0]["reason"]
    spec = machine.spec(matched(machine, ", stop_extra: true"))
    (step,) = machine.once(spec)["steps"]
    assert step["verb"] == "stop"
    assert younger.wait(timeout=LONG) == -signal.SIGTERM
    assert older.poll() is None
    machine.converged(spec)
    older.kill()
    older.wait()


def test_one_that_does_not_heed_term_is_killed_with_its_whole_group(machine: Machine) -> None:
    text = (
        "processes: {{one: {{command: 'trap \"\" TERM; sleep 1005 & sleep 1006; sleep 1007', "
        "stop: {{timeout: 300ms}}{}}}}}"
    )
    machine.once(machine.spec(text.format("")))
    until(lambda: machine.running("sleep 1006"))
    machine.once(machine.spec(text.format(", state: absent")))
    assert machine.running("sleep 100") == []


def test_what_a_stopped_one_leaves_in_its_group_is_asked_to_end_too(machine: Machine) -> None:
    text = (
        "processes: {{one: {{command: 'sleep 1005 & exec sleep 1006', stop: {{timeout: 5s}}{}}}}}"
    )
    machine.once(machine.spec(text.format("")))
    until(lambda: machine.running("sleep 1005"))
    machine.once(machine.spec(text.format(", state: absent")))
    assert machine.running("sleep 100") == []


def test_one_that_ends_at_once_has_failed_and_its_last_words_are_told(machine: Machine) -> None:
    hooks = machine.base / "hooks"
    hooks.mkdir()
    texts = (ends_before_it_is_proved(f"process:{one}", machine.base / one) for one in "ab")
    (hooks / "sitecustomize.py").write_text("".join(f"exec({text!r}, {{}})\n" for text in texts))
    machine.environ["PYTHONPATH"] = str(hooks)
    spec = machine.spec(
        "sessions: {s: {}}\nprocesses:\n"
        f"  a: {{command: 'echo $$ >{machine.base}/a; echo no licence found; exit 3', "
        "session: s}\n"
        f"  b: {{command: 'echo $$ >{machine.base}/b; echo no disk; exit 4', "
        f"log: {machine.base}/b.log}}\n"
    )
    report = machine.once(spec, status=1)
    errors = {step["id"]: step["error"] for step in report["steps"]}
    assert "exit status 3" in errors["process:a"]
    assert "no licence found" in errors["process:a"]
    assert "no disk" in errors["process:b"]


PANE_HAS_ENDED = """
import subprocess, time
from reconciler.core.proving import Proving
def ended():
    argv = ["tmux", "list-panes", "-a", "-F", "#{pane_dead}"]
    return "1" in subprocess.run(argv, capture_output=True, text=True).stdout.split()
def wait(self, ids):
    while self._fresh.keys() & set(ids) and not ended():
        time.sleep(0.01)
    return before(self, ids)
before, Proving.wait = Proving.wait, wait
"""
"""A pass asks whether a start has held once its pane has ended, however late that came to run."""


@pytest.mark.parametrize("place", ["", ", session: s"])
def test_a_program_that_is_not_there_is_an_error_that_names_it(
    machine: Machine, place: str
) -> None:
    sessions = "sessions: {s: {}}\n" if place else ""
    spec = machine.spec(f"{sessions}processes: {{one: {{command: [no-such-program]{place}}}}}")
    (machine.base / "sitecustomize.py").write_text(PANE_HAS_ENDED)
    machine.environ["PYTHONPATH"] = str(machine.base)
    report = machine.once(spec, status=1)
    assert "'no-such-program'" in report["steps"][-1]["error"]


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may start processes as another user")
@pytest.mark.parametrize("place", ["", ", session: s"])
def test_another_user(machine: Machine, place: str) -> None:
    sessions = "sessions: {s: {}}\n" if place else ""
    spec = machine.spec(
        f"{sessions}processes: {{one: {{command: [sleep, '1001'], user: nobody, cwd: /{place}}}}}"
    )
    machine.once(spec)
    pid = machine.only("sleep 1001")
    until(lambda: os.stat(f"/proc/{pid}").st_uid)  # A pane becomes its program a moment later.
    status = Path(f"/proc/{pid}/status").read_text()
    (uids,) = (line.split()[1:] for line in status.splitlines() if line.startswith("Uid:"))
    assert set(uids) == {str(os.stat(f"/proc/{pid}").st_uid)} != {"0"}
    machine.converged(spec)


def test_a_failed_process_skips_what_needs_it_and_nothing_else(machine: Machine) -> None:
    spec = machine.spec(
        "processes: {bad: {command: [no-such-program]}}\n"
        "directories:\n"
        f"  after: {{path: {machine.base}/after, needs: [process:bad]}}\n"
        f"  beside: {{path: {machine.base}/beside}}\n"
    )
    report = machine.once(spec, status=1)
    results = {step["id"]: step["result"] for step in report["steps"]}
    assert results == {
        "process:bad": "failed",
        "directory:after": "skipped",
        "directory:beside": "done",
    }


@pytest.mark.parametrize(
    ("text", "mode", "cause"),
    [
        ("#!/bin/sh\r\nsleep 60\r\n", 0o755, "its lines end in CR LF"),
        ("sleep 60\n", 0o755, "its first line names no interpreter"),
        ("#!/no/such/shell\nsleep 60\n", 0o755, "its interpreter '/no/such/shell' is not there"),
        ("#!/bin/sh\nsleep 60\n", 0o644, "not executable; make it so with chmod +x"),
    ],
)
def test_a_script_that_cannot_be_started_is_told_why(
    machine: Machine, text: str, mode: int, cause: str
) -> None:
    script = machine.base / "script"
    script.write_bytes(text.encode())
    script.chmod(mode)
    (step,) = machine.once(machine.spec(f"processes: {{p: {{command: [{script}]}}}}"), status=1)[
        "steps"
    ]
    assert cause in step["error"]


def test_a_program_of_its_path_that_is_not_executable_is_told_so(machine: Machine) -> None:
    folder = machine.base / "bin"
    folder.mkdir()
    (folder / "tool-1077").write_text("#!/bin/sh\n")
    spec = machine.spec(f"processes: {{p: {{command: [tool-1077], env: {{PATH: {folder}}}}}}}")
    (step,) = machine.once(spec, status=1)["steps"]
    assert f"{folder}/tool-1077 is there, but not executable" in step["error"]
    assert "install" not in step["error"]
