"""Checks from the outside: what they say, what is done about it, and that a hung one is no harm."""

from __future__ import annotations

import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from looping import Looping
from receiver import answering
from support import CHECKOUT, LIKE, Machine, allowed, until, within
from test_contract import changing_calls

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
HEAD = "version: 1\nname: demo\nloop: {every: 1h}\n"


@pytest.fixture
def port() -> Iterator[int]:
    with answering() as made:
        yield made


def checks(machine: Machine, every: str = "1h", head: str = HEAD, **fields: str) -> Path:
    lines = [f"  {name}: {{every: {every}, {text}}}\n" for name, text in fields.items()]
    return machine.spec(head + "checks:\n" + "".join(lines))


def failing(report: dict[str, Any]) -> dict[str, str]:
    return {one["id"].removeprefix("check:"): one["reason"] for one in report["failing"]}


def again(machine: Machine) -> None:
    """Have the store forget when everything was asked last, as if an hour had passed."""
    with sqlite3.connect(machine.state / "demo/store.db") as base:
        base.execute("UPDATE checks SET at = at - 3600, wall = wall - 3600")
    base.close()


@pytest.fixture
def closed() -> Iterator[int]:
    """A port at which nobody listens: it is taken as long as the test lasts."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield unused.getsockname()[1]


def test_every_form_ok_and_failing(machine: Machine, port: int, closed: int) -> None:
    base = machine.base
    machine.environ["TOKEN"] = "token-canary"
    (base / "q").mkdir()
    (base / "q/a.json").touch()
    os.utime(base / "q/a.json", (time.time() - 720,) * 2)
    (base / "beat").touch()
    (base / "co/ai_commands/completed").mkdir(parents=True)
    (base / "log").write_text(time.strftime("%Y-%m-%dT%H:%M:%S ERROR canary\n"))
    spec = checks(
        machine,
        command="command: 'echo well; pwd', expect: '^well$', cwd: /",
        command_bad="command: [sh, -c, 'echo $KEY; exit 3'], env: {KEY: canary}",
        expect_bad="command: echo well, expect: ill",
        fresh=f"fresh: {{path: {base}/beat, max_age: 1h}}",
        fresh_bad=f"fresh: {{path: {base}/none, max_age: 1h}}",
        log=f"log: {{path: {base}/log, match: FATAL}}",
        log_bad=f"log: {{path: {base}/log, match: ERROR}}",
        queue=f"queue: {{path: {base}/q, match: '*.xml', max_age: 1s}}",
        queue_bad=f"queue: {{path: {base}/q, match: '*.json', max_age: 5m}}",
        disk=f"disk: {{path: {base}, min_free: 1KiB}}",
        disk_bad=f"disk: {{path: {base}, max_used: 0.001%}}",
        load="load: {max: 100000}",
        load_bad="load: {max: 0}",
        memory="memory: {min_free: 1KiB}",
        memory_bad="memory: {min_free: 1000TiB}",
        swap="swap: {max_used: 99.999%}",
        tcp=f"tcp: 'localhost:{port}'",
        tcp_bad=f"tcp: '127.0.0.1:{closed}'",
        socket_bad=f"tcp: {base}/none.sock",
        body=f"http: {{url: 'http://127.0.0.1:{port}/200/echo', match: '^X-T: token-canary', "
        "headers: {X-T: '{{ env.TOKEN }}'}}",
        body_bad=f"http: {{url: 'http://127.0.0.1:{port}/200/echo', match: ill}}",
        results=f"results: {{home: {base}/co}}",
        results_bad=f"results: {{home: {base}/none}}",
        state="state: {max: 1GiB}",
        state_bad="state: {max: 1KiB}",
        persistence_bad="persistence: true",
        http=f"http: {{url: 'http://127.0.0.1:{port}/204', status: [200, 204]}}",
        http_bad=f"http: 'http://127.0.0.1:{port}/503?token={{{{ env.TOKEN }}}}'",
    )
    # Of a machine that has only just begun to do something the load is none at all.
    until(lambda: os.getloadavg()[1] or subprocess.run(LIKE, check=False) is None)
    found = failing(machine.once(spec, status=1))
    assert {name.removesuffix("_bad") for name in found} == {
        "command", "expect", "fresh", "log", "queue", "disk", "tcp", "http",
        "load", "memory", "socket", "body", "results", "state", "persistence",
    }  # fmt: skip
    assert all(name.endswith("_bad") for name in found)
    assert found["command_bad"] == "exit status 3: ***"
    assert found["queue_bad"].startswith("the only file has waited 12 min")
    assert ", more than 5 min: " in found["queue_bad"]
    assert found["tcp_bad"] == "connection refused"
    assert found["http_bad"] == "answered 503, not 200"
    # The next pass, and a plan, show what was said; nothing is asked before it is due.
    (base / "q/a.json").unlink()
    assert failing(machine.plan(spec)) == found
    assert failing(machine.once(spec, status=1)) == found
    text = machine.reconcile("--plan", spec).stdout
    assert "! failing check:tcp_bad: connection refused" in text
    assert "15 failing; 28 resources" in text
    again(machine)
    assert set(found) - set(failing(machine.once(spec, status=1))) == {"queue_bad"}
    stored = b"".join(path.read_bytes() for path in machine.state.rglob("*") if path.is_file())
    assert b"token-canary" not in stored
    assert b"3: canary" not in stored


def test_a_header_of_the_environment_is_sent_and_kept_nowhere(machine: Machine, port: int) -> None:
    machine.environ["TOKEN"] = "token-canary"
    url = f"'http://127.0.0.1:{port}/200/echo'"
    headers = "headers: {X-T: '{{ env.TOKEN }}'}"
    spec = checks(machine, web=f"http: {{url: {url}, match: '^X-T: token-c', {headers}}}")
    assert failing(machine.once(spec)) == {}
    again(machine)
    # This pass has the compiled spec, without the value.
    assert failing(machine.once(spec)) == {}
    stored = [path.read_bytes() for path in machine.state.rglob("*") if path.is_file()]
    assert any(b"X-T" in one for one in stored)
    assert not any(b"token-canary" in one for one in stored)


def test_a_plan_asks_nothing_and_writes_nothing(machine: Machine) -> None:
    spec = checks(machine, x=f"command: touch {machine.base}/asked")
    assert machine.plan(spec)["steps"] == []
    assert not (machine.base / "asked").exists()
    assert not machine.state.exists()
    assert machine.once(spec)["failing"] == []
    assert (machine.base / "asked").exists()
    again(machine)
    (machine.base / "asked").unlink()
    machine.converged(spec)
    assert not (machine.base / "asked").exists()


def test_what_cannot_hang_is_asked_without_a_child(machine: Machine) -> None:
    """A child takes longer than most answers. A pattern may take for ever, and so gets one."""
    base = machine.base
    (base / "beat").touch()
    (base / "log").write_text(time.strftime("%Y-%m-%dT%H:%M:%S ERROR canary\n"))
    brief = {
        "beat": f"fresh: {{path: {base}/beat, max_age: 1h}}",
        "queue": f"queue: {{path: {base}, match: '*.json', max_count: 1}}",
        "room": f"disk: {{path: {base}, min_free: 1B}}",
        "log": f"log: {{path: {base}/log, match: ' ERROR ', max: 0, within: 1h}}",
    }
    for more, children in (({}, 0), ({"words": brief["log"].replace(" ERROR ", "E.*R")}, 1)):
        spec = checks(machine, **brief, **more)
        trace = machine.traced("execve,%process", *machine.argv("--once", spec))
        made = re.findall(r" (?:clone|clone3|fork|vfork)\(", trace)
        assert len(made) == children, trace
        with sqlite3.connect(machine.state / "demo/store.db") as store:
            said = dict(store.execute("SELECT id, result FROM checks"))
        store.close()
        assert said.pop("check:log") == "failing"
        assert said.pop("check:words", "failing") == "failing"
        assert said == {f"check:{name}": "ok" for name in ("beat", "queue", "room")}


def test_a_look_in_the_pass_itself_has_an_end(machine: Machine) -> None:
    (machine.base / "log").write_bytes(b"2026-01-01T00:00:00 x\n" * 2_000_000)
    path = f"{machine.base}/log"
    spec = checks(machine, log=f"log: {{path: {path}, match: y, within: 9000d}}, timeout: 100ms")
    machine.once(spec, status=1)
    assert "no answer within 0.1 s" in failing(machine.plan(spec))["log"]


def test_failures_in_a_row_count_and_a_command_is_run_once(machine: Machine) -> None:
    ran = machine.base / "ran"
    spec = checks(
        machine,
        x=f"command: test -e {machine.base}/well, failures: 2, on_failure: [run echo x >> {ran}]",
    )
    first = machine.once(spec)
    assert [note["reason"] for note in first["notes"]] == [
        "failed 1 of 2 times in a row: exit status 1"
    ]
    again(machine)
    (step,) = machine.once(spec, status=1)["steps"]
    assert (step["verb"], step["result"]) == ("update", "done")
    assert step["actions"] == [f"run echo x >> {ran}"]
    for _ in range(2):
        assert machine.once(spec, status=1)["steps"] == []
    # It counts anew: only two more failures call for it again.
    again(machine)
    assert machine.once(spec, status=1)["steps"] == []
    again(machine)
    assert len(machine.once(spec, status=1)["steps"]) == 1
    assert ran.read_text() == "x\nx\n"
    (machine.base / "well").touch()
    again(machine)
    report = machine.once(spec)
    assert (report["failing"], report["notes"]) == ([], [])
    # Another question: what was said about the old one does not count.
    other = checks(machine, x="command: 'false', failures: 2")
    assert len(machine.once(other)["notes"]) == 1


def test_a_failing_check_restarts_its_process(machine: Machine) -> None:
    head = HEAD + "processes: {p: {command: [sleep, '4711']}}\n"
    spec = checks(
        machine,
        head=head,
        # What was restarted has as long to become well, and does not.
        x=f"command: test ! -e {machine.base}/ill, timeout: {allowed(0.5):.1f}s, "
        "on_failure: [restart p]",
    )
    machine.once(spec)
    pid = machine.only("sleep 4711")
    (machine.base / "ill").touch()
    assert machine.once(spec)["steps"] == []
    again(machine)
    (step,) = machine.once(spec, status=1)["steps"]
    assert (step["id"], step["verb"], step["result"]) == ("process:p", "restart", "done")
    assert step["why"] == "check:x: exit status 1"
    other = machine.only("sleep 4711")
    assert other != pid
    assert machine.once(spec, status=1)["steps"] == []
    assert machine.running("sleep 4711") == [other]


def test_a_check_of_what_is_down_is_not_asked(machine: Machine) -> None:
    head = HEAD + "processes: {p: {command: 'exit 1', restart: {backoff: {initial: 1m}}}}\n"
    spec = checks(machine, head=head, x=f"command: touch {machine.base}/asked, needs: [process:p]")
    machine.once(spec, status=1)
    machine.once(spec, status=1)
    assert not (machine.base / "asked").exists()


def test_what_was_just_started_has_time_to_come_up(machine: Machine) -> None:
    head = (
        HEAD + f"processes: {{p: {{command: 'sleep 0.7; touch {machine.base}/up; sleep 4712'}}}}\n"
    )
    spec = checks(machine, head=head, x=f"command: test -e {machine.base}/up, needs: [process:p]")
    assert machine.once(spec)["failing"] == []
    assert (machine.base / "up").exists()


def test_a_hanging_command_is_killed_with_its_children(machine: Machine) -> None:
    spec = checks(
        machine,
        hangs="command: 'sleep 4713 & sleep 4713', timeout: 300ms",
        leaves="command: sleep 4713 & true",
        floods="command: 'yes', timeout: 300ms",
        well="command: 'true'",
    )
    with within(5):
        found = failing(machine.once(spec, status=1))
    assert found == {
        "hangs": "it did not end within 0.3 s",
        "floods": "it did not end within 0.3 s",
    }
    until(lambda: not machine.running("sleep 4713"))


def told(loop: Looping, ident: str) -> list[str]:
    return [one["event"] for one in loop.events() if one.get("id") == ident]


def test_the_loop_tells_a_verdict_once_and_acts(machine: Machine, looping: Any) -> None:
    ill, ran = machine.base / "ill", machine.base / "ran"
    spec = checks(
        machine,
        every="100ms",
        head=HEAD + "processes: {p: {command: [sleep, '4714'], restart: {healthy_after: 100ms}}}\n",
        x=f"command: test ! -e {ill}, timeout: 10s, failures: 2, "
        f"on_failure: [restart p, run echo x >> {ran}]",
        hangs="command: [sleep, '4715'], timeout: 1h",
        counts=f"command: echo x >> {machine.base}/counted",
    )
    loop = looping(spec)
    pid = machine.only("sleep 4714")
    until(lambda: machine.running("sleep 4715"))
    counted = machine.base / "counted"
    # One that hangs delays no other.
    until(lambda: counted.exists() and len(counted.read_text()) > 10)
    ill.touch()
    until(lambda: machine.running("sleep 4714") not in ([], [pid]))

    def verdicts() -> list[str]:
        """The first failure is told of by itself, unless the second one comes with it."""
        found = told(loop, "check:x")
        return found[found[:1] == ["note"] :]

    until(lambda: verdicts() == ["failing"])
    # It goes on failing, and is done again after two more failures each time.
    until(lambda: ran.exists() and len(ran.read_text()) > 3)
    ill.unlink()
    until(lambda: verdicts()[-1] == "well")
    assert verdicts() == ["failing", "well"]
    steps = [one["step"] for one in loop.events() if one["event"] == "step"]
    assert {step["id"] for step in steps} == {"process:p", "check:x"}
    assert loop.end() == 0
    until(lambda: not machine.running("sleep 4715"))  # Killed, they have yet to be gone.
    assert machine.running("sleep 4714")


@pytest.mark.root
@ROOT
def test_what_hangs_of_one_user_takes_no_place_of_another(machine: Machine, looping: Any) -> None:
    counted = machine.base / "counted"
    hanging = {f"b{n}": "command: [sleep, '4718'], user: nobody, timeout: 1h" for n in range(9)}
    spec = checks(machine, every="100ms", counts=f"command: echo x >> {counted}", **hanging)
    loop = looping(spec)
    until(lambda: len(machine.running("sleep 4718")) == 7)
    # All that nobody may have is taken, and does not end.
    before = len(counted.read_text()) if counted.exists() else 0
    until(lambda: counted.exists() and len(counted.read_text()) > before + 10)
    assert len(machine.running("sleep 4718")) == 7
    assert loop.end() == 0
    until(lambda: not machine.running("sleep 4718"))


def test_the_probes_of_a_killed_loop_end_by_themselves(machine: Machine, looping: Any) -> None:
    spec = checks(machine, hangs="command: 'sleep 4716 & sleep 4716', timeout: 1s")
    loop = looping(spec)
    until(lambda: machine.running("sleep 4716"))
    loop.kill()
    until(lambda: not machine.running("sleep 4716"), 5)


def test_the_executor_is_asked_and_is_well(machine: Machine) -> None:
    text = (CHECKOUT / "specs/executor.yaml").read_text()
    spec = machine.spec(text.replace("  watchdog: true\n", "  watchdog: false\n"), "executor.yaml")
    report = machine.once(spec)
    assert report["failing"] == []
    status = json.loads(machine.reconcile("--status", spec, "--json").stdout)["resources"]
    asked = {one["id"]: one["asked"]["result"] for one in status if "asked" in one}
    names = ("execution", "heartbeat", "waiting", "errors", "disk", "daily_room", "daily_errors",
             "daily_failures", "weekly_archives", "monthly_stale", "monthly_state")  # fmt: skip
    # It depends on whether a cron daemon runs on this machine; see test_diagnose_host.py.
    assert asked.pop("check:weekly_persistence") in ("ok", "shaky")
    assert asked == {f"check:{name}": "ok" for name in names}
    # Twice is once: nothing is due, so nothing is asked and nothing written.
    trace = machine.traced("all", *machine.argv("--once", spec, "--detailed-exitcode"))
    assert "+++ exited with 0 +++" in trace
    assert changing_calls(trace) == []
    done = machine.reconcile("--once", spec, "--set", "state=absent")
    assert done.returncode == 0, done.stdout + done.stderr
    assert machine.once(spec, "--set", "state=absent")["steps"] == []


ORPHANED = """
import os, sys, time
from reconciler.host import probe
from reconciler.cli.main import main
real, first = probe.fresh, os.getppid()
def fresh(*asked):
    open("begun", "w").close()
    while os.getppid() == first:
        time.sleep(0.01)
    return real(*asked)
probe.fresh = fresh
sys.exit(main())
"""


def test_a_pass_whose_caller_has_ended_meanwhile_goes_on(machine: Machine) -> None:
    """It leads its own group: a shell has put it into the background, and is gone."""
    beat, near = machine.base / "beat", machine.base / "near"
    beat.touch()
    spec = machine.spec(
        f"checks: {{c: {{fresh: {{path: {beat}, max_age: 1h}}}}}}\n"
        f"directories: {{near: {{path: {near}, needs: [check:c]}}}}\n"
    )
    argv = machine.argv("--once", spec)[1:]
    shell = 'setsid "$@" > out 2>&1 & until [ -s out ] || [ -e begun ]; do sleep 0.1; done'
    machine.run("sh", "-c", shell, "sh", sys.executable, "-c", ORPHANED, *argv)
    until(near.is_dir)
