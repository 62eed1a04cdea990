"""Instances that share a port are restarted one after the other, and nobody is refused."""

from __future__ import annotations

import threading
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support import Machine, free_port, until

WORKER = """
import http.server, os, signal, socket, sys, time

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = sys.argv[2].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *words):
        pass

class Server(http.server.HTTPServer):
    request_queue_size = 128
    def server_bind(self):
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        super().server_bind()

time.sleep(0.8)  # It takes its time to come up.
server = Server(("127.0.0.1", int(sys.argv[1])), Handler)
ends = []
signal.signal(signal.SIGTERM, lambda *_: ends.append(1))
server.timeout = 0.05
if len(sys.argv) > 3:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
        to.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"].replace("@", "\\0", 1))
while not ends:
    server.handle_request()
server.timeout = 0
for _ in range(50):  # Who waits to be accepted is served.
    server.handle_request()
"""


class Load:
    """Asks again and again, and counts the answers and what went wrong."""

    def __init__(self, port: int) -> None:
        self.answers: Counter[str] = Counter()
        self._url = f"http://127.0.0.1:{port}/"
        self._ends = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(4)]
        for one in self._threads:
            one.start()

    def _ask(self) -> None:
        while not self._ends.is_set():
            try:
                with urllib.request.urlopen(self._url, timeout=20) as answer:
                    self.answers[answer.read().decode()] += 1
            except urllib.error.URLError as error:
                self.answers[type(error.reason).__name__] += 1
            except OSError as error:
                self.answers[type(error).__name__] += 1
            time.sleep(0.002)

    def end(self) -> Counter[str]:
        self._ends.set()
        for one in self._threads:
            one.join()
        return self.answers


def spec_of(machine: Machine, port: int, version: str, ready: str) -> Path:
    program = machine.base / "worker.py"
    program.write_text(WORKER)
    notify = ", x" if ready == "notify" else ""
    return machine.spec(
        f"processes:\n  web:\n    instances: 3\n    rolling: {{at_once: 1}}\n"
        f"    command: [{machine.bin}/python, {program}, '{port}', {version}{notify}]\n"
        f"    ready: {ready}\n    stop: {{timeout: 20s}}\nloop: {{every: 20s}}\n"
    )


def counted(machine: Machine, *names: str) -> int:
    """How many run now; all of them where the look took so long that it is of no one moment."""
    begin = time.monotonic()
    found = {pid for name in names for pid in machine.running(name)}
    return len(found) if time.monotonic() - begin < 0.4 else 3


@pytest.mark.parametrize("how", [pytest.param("once", marks=pytest.mark.slow), "loop"])
def test_nobody_is_refused_while_all_are_restarted(
    machine: Machine, looping: Any, how: str
) -> None:
    port = free_port()
    # In the one case they say so themselves; in the other they are asked, on the port they share.
    ready = "notify" if how == "loop" else f"{{tcp: '127.0.0.1:{port}', timeout: 60s}}"
    spec = spec_of(machine, port, "old", ready)
    if how == "loop":
        looping(spec)
        until(lambda: len(list((machine.state / "demo/run").glob("*.ready"))) == 3)
    else:
        machine.once(spec)
    before = set(machine.running("worker.py"))
    assert len(before) == 3
    load = Load(port)
    try:
        until(lambda: load.answers["old"] > 20)
        spec_of(machine, port, "new", ready)
        if how == "once":
            report = machine.once(spec)
            assert [one["result"] for one in report["steps"]] == ["done"] * 3
        fewest = 3
        while before & set(machine.running("worker.py")):
            fewest = min(fewest, counted(machine, "worker.py"))
        assert fewest >= 2
        until(lambda: not machine.steps(spec) and len(machine.running("worker.py")) == 3)
        seen = load.answers["new"]
        until(lambda: load.answers["new"] > seen + 20)
    finally:
        answers = load.end()
    assert "ConnectionRefusedError" not in answers
    assert answers["old"] + answers["new"] > 0.99 * answers.total()
    machine.converged(spec)


def test_one_that_does_not_come_up_keeps_the_others(machine: Machine) -> None:
    text = (
        "processes: {{web: {{instances: 3, rolling: {{at_once: 1}}, ready: {{log: up, "
        "timeout: 1s}}, command: 'echo {}; exec sleep " + machine.mark + "'}}}}"
    )
    machine.once(machine.spec(text.format("up")))
    before = set(machine.running(f"sleep {machine.mark}"))
    spec = machine.spec(text.format("down"))
    report = machine.once(spec, status=1)
    assert [one["result"] for one in report["steps"]] == ["failed"]
    assert len(before & set(machine.running(f"sleep {machine.mark}"))) == 2
    machine.reconcile("--once", spec)
    assert len(before & set(machine.running(f"sleep {machine.mark}"))) == 2
    # Corrected, it goes on to the last one.
    machine.once(machine.spec(text.format("up again")))
    assert len(machine.running(f"sleep {machine.mark}")) == 3
    assert not before & set(machine.running(f"sleep {machine.mark}"))


@pytest.mark.parametrize("how", ["once", "loop"])
def test_a_check_restarts_them_in_turn(machine: Machine, looping: Any, how: str) -> None:
    well = machine.base / "well"
    well.touch()
    # A loop must not ask for it twice before we have seen it begin.
    rhythm = "every: 3s" if how == "loop" else "every: 300ms, failures: 2"
    spec = machine.spec(
        "processes: {web: {instances: 3, rolling: {at_once: 1}, ready: {log: up, timeout: 20s}, "
        f"command: 'sleep 0.3; echo up; exec sleep {machine.mark}'}}}}\n"
        f"checks: {{well: {{command: [test, -e, {well}], {rhythm}, "
        "on_failure: [restart process:web]}}\n"
    )
    machine.once(spec)
    if how == "loop":
        looping(spec)
    name = f"sleep {machine.mark}"
    before = set(machine.running(name))
    assert len(before) == 3
    well.unlink()
    fewest = 3
    if how == "once":
        until(lambda: "one after the other" in machine.reconcile("--once", spec).stdout)
    else:
        until(lambda: len(before & set(machine.running(name))) < 3)
    well.touch()
    while before & set(machine.running(name)):
        fewest = min(fewest, counted(machine, "echo up", name))
        if how == "once":
            machine.reconcile("--once", spec)
    assert fewest >= 2
    until(lambda: len(set(machine.running(name)) - before) == 3)

    def shown(words: str) -> int:
        text = machine.reconcile("--history", spec).stdout
        return text.count(f"restart process:web: {words}")

    # The last one is written down once it was seen to run.
    until(lambda: shown("definition is older") >= 3)
    assert (shown("definition is older"), shown("check:well: ")) == (3, 1)
    well.touch()
    until(lambda: not machine.steps(spec))
    after = machine.running(name)
    machine.reconcile("--once", spec)
    assert machine.running(name) == after


def test_what_follows_a_file_goes_on_to_the_last_one(machine: Machine) -> None:
    """In the same pass, also where that is about nothing else."""
    text = (
        "processes: {web: {instances: 3, rolling: {at_once: 1}, ready: {log: up}, "
        f"command: 'echo up; exec sleep {machine.mark}'}}}}\n"
    )
    machine.once(machine.spec(text))
    before = machine.running(f"sleep {machine.mark}")
    more = f"{{path: {machine.base}/conf, content: x, on_change: [restart process:web]}}"
    spec = machine.spec(f"{text}files: {{conf: {more}}}")
    report = machine.once(spec)
    assert [one["id"] for one in report["steps"]] == ["file:conf", *["process:web"] * 3]
    after = machine.running(f"sleep {machine.mark}")
    assert len(after) == 3 and not set(before) & set(after)
    machine.converged(spec)
