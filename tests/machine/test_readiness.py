"""What needs a process, or a check, waits until it is ready, or well: in passes and in the loop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from looping import HOLDS
from support import LONG, Machine, allowed, compiled, free_port, passed, until

from reconciler.host import Host
from reconciler.host.processes import look_up
from reconciler.kinds.process.readiness import ask

SLOW = """
import http.server, os, socket, sys, time
how, mark = sys.argv[1], sys.argv[2]
if sys.argv[3].startswith("/"):
    while not os.path.exists(sys.argv[3]):
        time.sleep(0.01)
else:
    time.sleep(float(sys.argv[3]))
if how == "notify":
    address = os.environ["NOTIFY_SOCKET"].replace("@", "\\0", 1)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
        to.sendto(b"STATUS=up\\nREADY=1", address)
elif how == "log":
    print("listening now", flush=True)
elif how == "fresh" or how == "command":
    open(mark, "w").close()
else:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(204)
            self.end_headers()
    http.server.HTTPServer(("127.0.0.1", int(mark)), Handler).serve_forever()
time.sleep(1000)
"""


def spec_of(
    machine: Machine, form: str, ready: str, seconds: float | Path = 1.0, more: str = ""
) -> Path:
    """A slow process, and one that needs it and notes when it was started.

    It is ready after so many seconds, or once there is such a file.
    """
    program = machine.base / "slow.py"
    program.write_text(SLOW)
    port = free_port() if form in ("tcp", "http") else 0
    mark = str(port or machine.base / "mark")
    ready = ready.replace("PORT", str(port)).replace("MARK", mark)
    return machine.spec(
        f"processes:\n"
        f"  slow:\n"
        f"    command: [{machine.bin}/python, {program}, {form}, '{mark}', '{seconds}']\n"
        f"    ready: {ready}\n{more}"
        f"  other:\n"
        f"    command: [sh, -c, 'date +%s.%N > {machine.base}/began; exec sleep {machine.mark}']\n"
        f"    needs: [process:slow]\n"
    )


FORMS = {
    "tcp": "{tcp: '127.0.0.1:PORT', timeout: 60s}",
    "http": "{http: {url: 'http://127.0.0.1:PORT/x', status: 204}, timeout: 60s}",
    "fresh": "{fresh: {path: MARK, max_age: 1h}, timeout: 60s}",
    "log": "{log: 'listening (now|on)', timeout: 60s}",
    "command": "{command: [test, -e, MARK], timeout: 60s}",
    "notify": "notify",
}


def has_begun(machine: Machine, form: str = "") -> bool:
    file = machine.base / f"began{form}"
    return file.exists() and bool(file.read_text())


def opened(gate: Path) -> float:
    """When that file was made, just now."""
    before = time.time()
    gate.touch()
    return before


def booted() -> float:
    """When this machine was booted. Who loses the processor between the clocks sees it too late."""
    looks = range(5)
    return min(-time.clock_gettime(time.CLOCK_BOOTTIME) + time.time() for _ in looks)


def began(machine: Machine, form: str = "") -> float:
    """How long after its need the other one was started."""
    started = float((machine.base / f"began{form}").read_text())
    (pid,) = machine.running(f"slow.py {form}")
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    return started - (booted() + ticks / 100)


def test_a_single_pass_waits_for_each_form(machine: Machine) -> None:
    text = ""
    for form, ready in FORMS.items():
        one = spec_of(machine, form, ready).read_text().partition("processes:\n")[2]
        for word in ("slow:\n", "other:\n", "process:slow"):
            one = one.replace(
                word, word.replace("slow", f"slow-{form}").replace("er:", f"er-{form}:")
            )
        for file in ("began", "mark"):
            one = one.replace(f"{machine.base}/{file}", f"{machine.base}/{file}{form}")
        text += one
    spec = machine.spec(f"processes:\n{text}")
    report = machine.once(spec)
    assert [step["result"] for step in report["steps"]] == ["done"] * 2 * len(FORMS)
    for form in FORMS:
        until(lambda form=form: has_begun(machine, form))
        assert began(machine, form) >= 0.9
    machine.converged(spec)


def test_a_start_that_is_not_ready_in_time_has_failed(machine: Machine) -> None:
    spec = spec_of(machine, "log", "{log: 'listening', timeout: 1s}", seconds=1000)
    report = machine.once(spec, status=1)
    slow, other = report["steps"]
    assert slow["result"] == "failed"
    assert slow["error"].startswith("was not ready within 1 s")
    assert "no line of" in slow["error"]
    assert (other["result"], other["error"]) == (
        "skipped",
        "needs process:slow, which failed or was not done",
    )
    # It is started anew, as after any failed start.
    assert [step["verb"] for step in machine.plan(spec)["steps"]] in (["restart"], [])


SAYS = """
import os, socket, sys
uid, address, reader = int(sys.argv[1]), sys.argv[2], sys.stdin
if uid != os.geteuid():
    os.setuid(uid)
to = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
to.sendto(b"READY=1", address.replace("@", chr(0), 1))
print("said", flush=True)
reader.read()
"""


def test_nobody_else_says_that_it_is_ready(machine: Machine) -> None:
    """Neither another process of its user, nor, where the tests may be one, another user."""
    gate = machine.base / "gate"
    spec = spec_of(machine, "notify", "{notify: true, timeout: 60s}", seconds=gate)
    argv = [str(word) for word in machine.argv("--once", spec)]
    with ExitStack() as liars:
        once = liars.enter_context(
            subprocess.Popen(argv, env=machine.environ, stdout=subprocess.DEVNULL)
        )
        (pid,) = until(lambda: machine.running("slow.py"))
        environ = until(lambda: Path(f"/proc/{pid}/environ").read_text()).split("\0")
        (address,) = (one.partition("=")[2] for one in environ if "NOTIFY_SOCKET" in one)
        for uid in {os.geteuid(), 65534 if os.geteuid() == 0 else os.geteuid()}:
            words = [machine.bin / "python", "-c", SAYS, str(uid), address]
            pipe = subprocess.PIPE
            liar = subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True)
            liars.enter_context(liar)
            assert liar.stdout and liar.stdout.readline() == "said\n"
        passed(1.0)  # Who believed them would start the other one meanwhile.
        since = opened(gate)
        once.wait(LONG)
    until(lambda: has_begun(machine))
    assert float((machine.base / "began").read_text()) >= since


def test_what_it_has_started_says_that_it_is_ready(machine: Machine) -> None:
    """As systemd-notify(1) does in a script, also from another session."""
    program = machine.base / "says.py"
    program.write_text(SAYS)
    says = f"{machine.bin}/python {program} {os.geteuid()} $NOTIFY_SOCKET"
    spec = machine.spec(
        "processes:\n"
        f"  child: {{command: '{says}; sleep 1000', ready: {{notify: true, timeout: 60s}}}}\n"
        f"  away: {{command: 'setsid {says}; sleep 1000', ready: {{notify: true, timeout: 60s}}}}\n"
    )
    steps = machine.once(spec)["steps"]
    assert [one["result"] for one in steps] == ["done", "done"], steps


def test_the_loop_goes_on_while_it_waits(machine: Machine, looping: Any) -> None:
    beside = machine.base / "beside"
    gate = machine.base / "gate"
    spec = spec_of(machine, "notify", f"{{notify: true, timeout: {LONG:g}s}}", seconds=gate)
    spec.write_text(
        spec.read_text()
        + f"  third: {{command: [sleep, '9{machine.mark}']}}\n"
        + f"directories: {{d: {{path: {beside}}}}}\nloop: {{every: 1s}}\n"
    )
    loop = looping(spec)
    (pid,) = until(lambda: machine.running(f"sleep 9{machine.mark}"))
    until(lambda: loop.passes() >= 2)
    assert beside.is_dir()
    assert not (machine.base / "began").exists()
    notes = machine.plan(spec)["notes"]
    assert [one["id"] for one in notes] == ["process:slow"]
    assert "not ready yet" in notes[0]["reason"]
    since = opened(gate)
    until(lambda: has_begun(machine))
    assert float((machine.base / "began").read_text()) >= since
    assert machine.running(f"sleep 9{machine.mark}") == [pid]


@pytest.mark.parametrize("json", [False, True])
def test_a_single_pass_beside_a_loop_waits_as_well(
    machine: Machine, looping: Any, json: bool
) -> None:
    """Whether the loop answers it, or is asked by a signal, and also for what needs that."""
    spec = spec_of(machine, "notify", "{notify: true, timeout: 60s}", seconds=0)
    loop = looping(spec).up()
    until(lambda: has_begun(machine))
    seconds = allowed(2.5)  # The pass comes to it meanwhile.
    spec_of(machine, "notify", "{notify: true, timeout: 60s}", seconds=seconds)
    done = machine.reconcile("--once", spec)
    assert done.returncode == 0, done.stdout + done.stderr
    until(lambda: machine.running(f"mark {seconds}") and not machine.running("mark 0"))
    # That it is ready is known by then, and that it has held since: what ends now had run.
    loop.full_pass()
    passed(HOLDS)
    loop.full_pass()
    (machine.base / "began").unlink()
    for pattern in ("slow.py", f"sleep {machine.mark}"):
        for pid in machine.running(pattern):
            os.kill(pid, signal.SIGKILL)
    until(lambda: machine.running("slow.py") and not machine.running(f"sleep {machine.mark}"))
    done = machine.reconcile("--once", spec, *(["--json"] if json else []))
    assert done.returncode == 0, done.stdout + done.stderr
    until(lambda: has_begun(machine))  # It runs a moment before it has said so.
    assert began(machine) >= seconds - 0.5
    assert json or "done process:other: what it needs is ready" in done.stdout


def test_in_the_loop_too_a_start_that_is_late_has_failed(machine: Machine, looping: Any) -> None:
    more = "    restart: {attempts: 2, backoff: {initial: 1s}}\n"
    spec = spec_of(machine, "log", "{log: 'listening', timeout: 1s}", seconds=1000, more=more)
    spec.write_text(spec.read_text() + "loop: {every: 5s}\n")
    loop = looping(spec)
    late = until(
        lambda: [
            event["step"]
            for event in loop.events()
            if event["event"] == "step" and event["step"]["result"] == "failed"
        ]
    )
    assert late[0]["id"] == "process:slow"
    assert late[0]["error"].startswith("was not ready within 1 s")
    until(lambda: "gave up after" in loop.output.read_text())
    assert not (machine.base / "began").exists()


def test_what_a_killed_pass_has_left_is_asked_and_not_restarted(machine: Machine) -> None:
    spec = spec_of(machine, "fresh", FORMS["fresh"], seconds=0)
    machine.once(spec)
    before = machine.running("slow.py")
    for mark in (machine.state / "demo/run").glob("*.ready"):
        mark.unlink()
    report = machine.once(spec)
    assert report["steps"] == []
    assert machine.running("slow.py") == before
    assert list((machine.state / "demo/run").glob("*.ready"))


def test_what_needs_a_check_waits_for_its_first_good_answer(machine: Machine, looping: Any) -> None:
    flag = machine.base / "flag"
    text = (
        f"checks: {{c: {{command: [test, -e, {flag}], every: 1s}}}}\n"
        f"processes: {{p: {{command: [sleep, '{machine.mark}'], needs: [check:c]}}}}\n"
    )
    spec = machine.spec(text)
    report = machine.once(spec, status=1)
    assert not machine.running(f"sleep {machine.mark}")
    assert [one["id"] for one in report["failing"]] == ["check:c"]
    assert [one["id"] for one in report["skipped"]] == ["process:p"]
    flag.touch()
    until(lambda: machine.reconcile("--once", spec).returncode == 0)
    assert machine.running(f"sleep {machine.mark}")
    # Well at the first answer: the same pass goes on.
    machine.clear()
    other = machine.spec(text.replace("every: 1s", "every: 2s").replace("'-e'", "'-f'"), "b.yaml")
    other.write_text(other.read_text().replace("name: demo", "name: other"))
    machine.once(other)
    assert machine.running(f"sleep {machine.mark}")
    machine.clear()
    third = machine.spec(text, "c.yaml")
    third.write_text(third.read_text().replace("name: demo", "name: third"))
    looping(third)
    until(lambda: machine.running(f"sleep {machine.mark}"))


def test_a_log_line_of_an_earlier_start_does_not_count(machine: Machine) -> None:
    spec = spec_of(machine, "log", FORMS["log"], seconds=1)
    machine.once(spec)
    (machine.base / "began").unlink()
    machine.clear()
    machine.once(spec)
    until(lambda: has_begun(machine))
    assert began(machine) >= 0.9


@pytest.mark.parametrize(
    ("ready", "words"),
    [
        ("{timeout: 3s}", "needs exactly one of tcp, http, fresh, log, command and notify"),
        ("{tcp: 'localhost:1', notify: true}", "needs exactly one of"),
        ("notfy", "does not say when it is ready"),
        ("{tpc: 'localhost:1'}", "did you mean 'tcp'"),
    ],
)
def test_what_is_wrong_with_ready_is_said(machine: Machine, ready: str, words: str) -> None:
    spec = machine.spec(f"processes:\n  p: {{command: [sleep, '9'], ready: {ready}}}\n")
    done = machine.reconcile("--check", spec)
    assert words in done.stdout + done.stderr
    assert f"{spec.name}:4:" in done.stdout + done.stderr


def test_of_instances_that_share_a_port_each_must_listen_itself(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def noted(path: Any, *more: Any, **named: Any) -> Any:
        if "/net/tcp" in str(path):
            read.append(path)
        return builtin(path, *more, **named)

    builtin = open
    monkeypatch.setattr("builtins.open", noted)
    port = free_port()
    listens = (
        "import socket, time; one = socket.socket(); "
        "one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1); "
        f"one.bind(('127.0.0.1', {port})); one.listen(); print(flush=True); time.sleep(1000)"
    )
    text = f"processes: {{p: {{command: x, ready: {{tcp: '127.0.0.1:{port}'}}}}}}"
    (resource,) = compiled(machine.base, text).resources
    host = Host("demo", str(machine.state))
    argv = [sys.executable, "-c", listens]
    with (
        subprocess.Popen(argv, stdout=subprocess.PIPE) as up,
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"]) as slow,
    ):
        try:
            assert up.stdout is not None
            up.stdout.readline()
            entries = [look_up(one.pid) for one in (up, slow)]
            first, second = (entry.identity for entry in entries if entry is not None)
            said = ask(resource, (second, first), (first,), host)
            assert (said[first].ok, said[second].ok) == (True, False)
            assert f"does not listen on port {port} yet" in said[second].words
            assert len(read) <= 2  # All connections of the host stand there.
            assert ask(resource, (first,), (second,), host)[first].ok
            # Alone it may be answered for by whoever it likes, such as a proxy.
            assert ask(resource, (second,), (), host)[second].ok
        finally:
            up.kill()
            slow.kill()
