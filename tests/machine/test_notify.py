"""Real messages to a real HTTP server: which, in which order, and what is seen of their URLs."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
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
from receiver import Receiver
from support import CHECKOUT, LONG, Machine, freeze, until, within

from reconciler.base.errors import UnknownState
from reconciler.base.values import Target
from reconciler.host.child import answer
from reconciler.notify.delivery import work

CANARY = f"hunter2canary{os.getpid()}"
"""In no command line and no environment of a test beside this one."""
ALL = "[changed, failed, gave_up, recovered, progress, report]"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.down()


def hook(machine: Machine, url: str, name: str = "hook") -> Path:
    path = machine.base / name
    path.write_text(f"# Where to tell.\n\n{url}\n")
    path.chmod(0o600)
    return path


def waiting(machine: Machine) -> list[tuple[str, str]]:
    path = machine.state / "demo/store.db"
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as base:
            return base.execute("SELECT target, body FROM outbox ORDER BY seq").fetchall()
    except sqlite3.OperationalError:
        return []  # There is no file yet, or no table in it.


def no_pause(machine: Machine) -> None:
    """As if the pause after a delivery that failed were over."""
    with sqlite3.connect(machine.state / "demo/store.db") as base:
        base.execute("UPDATE outbox SET due = 0")


def crashing(machine: Machine, targets: str) -> tuple[Path, Path]:
    """A process that runs while a file is there, and ends at once when it is not."""
    good = machine.base / "good"
    return good, machine.spec(
        f"version: 1\nname: demo\nloop: {{every: 300ms}}\nnotify: {{targets: {{{targets}}}}}\n"
        f"processes: {{p: {{command: 'test -e {good} && exec sleep 90210; exit 3', restart: "
        "{attempts: 3, backoff: {initial: 200ms, max: 400ms}, healthy_after: 1s, "
        "retry_every: 2s}}}\n"
    )


def told_all(machine: Machine, spec: Path, status: int = 0) -> str:
    """What a pass prints, and those that deliver what it has not within its ten seconds."""
    said = ""
    while True:
        begin = time.monotonic()
        done = machine.reconcile("--once", spec)
        assert done.returncode == status, done.stdout + done.stderr
        said += done.stdout
        if not waiting(machine):
            return said
        assert time.monotonic() - begin > 10, "it leaves only what takes longer than that"
        no_pause(machine)


FAILED = "Status: process:p exited right after start"
GAVE_UP = "Status: process:p gave up after "
WELL = "Status: process:p recovered\nAction: none is needed\nit was unhealthy since "
STARTED = "Status: process:p: not running\nAction: started"
ENDED = "Status: process:p had ended\nAction: started again\n"
WRITTEN = r" \(\d{4}-\d\d-\d\d \d\d:\d\d\)$"
"""When it was, at the end of what was overtaken by what was given up."""


def test_from_the_first_start_to_the_mended_one(
    machine: Machine, looping: Any, receiver: Receiver
) -> None:
    some, every = (f"json://{receiver.where}/{name}" for name in ("some", "every"))
    good, spec = crashing(machine, f"some: {{url: '{some}'}}, every: {{url: '{every}', on: {ALL}}}")
    good.touch()
    loop = looping(spec)
    pid = machine.only("sleep 90210")

    def told(name: str) -> list[str]:
        """In the order in which it has come, but for the starts that seemed to hold at first."""
        bodies = [d["message"] for path, d in receiver.got if path == f"/{name}"]
        return [body for body in bodies if not body.startswith(ENDED)]

    def in_order(name: str) -> list[str]:
        """The same as it has happened: what was given up goes first, and may have overtaken what
        then says when it was; on a loaded machine something waits, else nothing does."""
        bodies, found = told(name), list[str]()
        for at, body in enumerate(bodies):
            was, overtaken = re.subn(WRITTEN, "", body)
            given_up = [one for one in found if one.startswith(GAVE_UP)]
            assert overtaken <= len(given_up), bodies[: at + 1]
            found.insert(found.index(given_up[-1]) if overtaken else at, was)
        return found

    until(lambda: told("every"))
    assert told("every") == [STARTED]
    good.unlink()
    os.kill(pid, signal.SIGKILL)
    # Of more than five that wait, one is made.
    until(lambda: len(told("some")) == 2 and not waiting(machine))
    good.touch()
    until(lambda: len(told("some")) == 3)
    first, second, third = in_order("some")
    assert first.startswith(FAILED)
    number, _, rest = second.removeprefix(GAVE_UP).partition(" ")
    status, action, *evidence = rest.split("\n")
    # A loaded machine may have made one more before it is told.
    tried = [e for e in loop.events() if e["event"] == "step" and e["step"]["result"] == "failed"]
    assert 3 <= int(number) <= len(tried) and status == "failed starts"
    assert re.fullmatch(r"Action: (starting it again in \S+ m?s|tried again by the .*)", action)
    assert evidence[0].startswith("the last one exited right after start")
    assert third.startswith(WELL)
    # The same for whoever wants to hear more, and every start besides.
    until(lambda: told("every")[-1:] == [third])
    assert loop.end() == 0
    heard = in_order("every")
    starts = [e for e in loop.events() if e["event"] == "step" and e["step"]["result"] == "done"]
    ended, too = (
        [re.sub(WRITTEN, "", d["message"]) for p, d in receiver.got
         if p == f"/{name}" and d["message"].startswith(ENDED)]
        for name in ("every", "some")
    )  # fmt: skip
    assert heard.count(STARTED) + len(ended) == len(starts) >= 2
    assert ended == too
    assert [one for one in heard if one in (first, second, third)] == [first, second, third]
    titles = {document["title"] for _, document in receiver.got}
    assert titles == {f"reconcile: demo on {os.uname().nodename}"}
    assert {d["type"] for p, d in receiver.got if p == "/some"} == {"warning", "failure", "success"}


def test_nothing_is_lost_while_the_target_is_down_and_the_loop_is_killed(
    machine: Machine, looping: Any, receiver: Receiver
) -> None:
    receiver.down()
    url_file = hook(machine, f"json://{receiver.where}/{CANARY}")
    good, spec = crashing(machine, f"a: {{url_file: {url_file}}}")
    loop = looping(spec)

    def waits(*beginnings: str) -> bool:
        """Those, besides the starts that seemed to hold at first on a loaded machine?"""
        bodies = [body for _, body in waiting(machine) if not body.startswith(ENDED)]
        return [body[:28] for body in bodies] == [words[:28] for words in beginnings]

    until(lambda: waits(FAILED, GAVE_UP))
    loop.kill()
    good.touch()
    loop = looping(spec)
    until(lambda: waits(FAILED, GAVE_UP, WELL))
    loop.kill()
    number = len(waiting(machine))
    receiver.up()
    no_pause(machine)
    loop = looping(spec)
    until(lambda: not waiting(machine))
    assert loop.end() == 0
    bodies = [body for body in receiver.bodies() if not body.startswith(ENDED)]
    assert len(receiver.got) == number, "each once"
    assert [body[:28] for body in bodies] == [w[:28] for w in (GAVE_UP, FAILED, WELL)]
    assert [bool(re.search(WRITTEN, body)) for body in bodies] == [False, True, False]


def test_what_a_killed_loop_was_delivering_comes_once(
    machine: Machine, looping: Any, receiver: Receiver
) -> None:
    """Its child goes on, and notes itself what has arrived; the next loop waits for it."""
    receiver.mode = "hang"
    url = f"json://{receiver.where}"
    spec = machine.spec(
        "version: 1\nname: demo\nloop: {every: 100ms}\n"
        f"notify: {{targets: {{a: {{url: '{url}/a', on: [changed]}}}}}}\n"
        f"directories: {{d: {{path: {machine.base}/d}}}}\n"
    )
    loop = looping(spec)
    until(lambda: receiver.asked)
    loop.kill()
    loop = looping(spec)
    # Each pass looks whether there is something that it could deliver.
    until(lambda: loop.passes() > 3)
    (machine.base / "d").rmdir()
    until(lambda: len(waiting(machine)) == 2)
    receiver.mode = "take"
    until(lambda: not waiting(machine))
    assert loop.end() == 0
    assert receiver.bodies() == ["Status: directory:d: missing\nAction: created"] * 2


def test_single_passes_deliver_too(machine: Machine, receiver: Receiver) -> None:
    wrong = machine.base / "d"
    wrong.write_text("a file")
    url_file = hook(machine, f"json://{receiver.where}/")
    spec = machine.spec(
        f"notify: {{targets: {{a: {{url_file: {url_file}, on: {ALL}}}}}}}\n"
        f"directories: {{d: {{path: {wrong}}}}}\n"
    )
    receiver.down()

    def refused() -> bool:
        """A machine that is slow may need another pass for it, and its ten seconds."""
        done = machine.reconcile("--once", spec)
        assert done.returncode == 1
        if "target a did not take a message: connection refused; retrying" in done.stdout:
            return True
        assert "no answer within 10 s" in done.stdout
        no_pause(machine)
        return False

    until(refused)
    wrong.unlink()
    receiver.up()
    # Its pause is not over: not tried, and not complained about again.
    assert "target a" not in machine.reconcile("--once", spec).stdout
    assert receiver.got == []
    no_pause(machine)
    machine.converged(spec)
    assert receiver.got == [], "looking only must not send"
    told_all(machine, spec)
    one, two, three = receiver.bodies()
    status, action, *_ = one.splitlines()
    assert status.startswith("Status: directory:d cannot be looked at: ")
    assert action.startswith("Action: left alone until it can be looked at; see: ")
    assert action.endswith(f"reconcile --diagnose {spec} --state-dir {machine.state}")
    assert two == "Status: directory:d: missing\nAction: created"
    assert three.startswith("Status: directory:d recovered\n")
    assert waiting(machine) == []
    # And from now on, nothing is remembered, opened or sent.
    trace = machine.traced("execve,openat,connect,clone,fork,vfork,clone3",
                           *machine.argv("--once", spec))  # fmt: skip
    assert "+++ exited with 0 +++" in trace
    assert not re.search(r"sqlite|apprise|pydantic|AF_INET|clone3?\(|fork\(", trace)


def children_of_passes(machine: Machine, spec: Path) -> bool:
    """Was each pass that was needed to deliver all (one, in its ten seconds) one child's work?"""
    while True:
        begin = time.monotonic()
        trace = machine.traced("execve,openat", *machine.argv("--once", spec))
        loads = re.findall(r'openat.*apprise/__pycache__/__init__[^"]*", O_RDONLY', trace)
        if not waiting(machine) or len(loads) > 1:
            return len(loads) == 1
        assert time.monotonic() - begin > 10, "it leaves only what takes longer than that"
        no_pause(machine)


def test_one_child_delivers_what_one_pass_has_brought(machine: Machine, receiver: Receiver) -> None:
    (machine.base / "file").touch()
    spec = machine.spec(
        f"notify: {{targets: {{a: {{url: 'json://{receiver.where}/'}}}}}}\n"
        "directories: {d: {for_each: [1, 2, 3, 4, 5], "
        f"path: '{machine.base}/file/{{{{ each }}}}'}}}}\n"
    )
    assert children_of_passes(machine, spec)
    bodies = receiver.bodies()
    assert [body.split(" ")[1] for body in bodies] == [f"directory:d[{n}]" for n in range(1, 6)]
    assert waiting(machine) == []


def test_what_a_storm_has_left_is_two_messages_and_one_child(
    machine: Machine, receiver: Receiver
) -> None:
    spec = machine.spec(
        f"notify: {{targets: {{a: {{url: 'json://{receiver.where}/', on: [changed]}}}}}}\n"
        f"directories: {{d: {{path: {machine.base}/d}}}}\n"
    )
    told_all(machine, spec)
    receiver.got.clear()
    with sqlite3.connect(machine.state / "demo/store.db") as base:
        # As an older version of the program has kept them: up to a thousand.
        for number in range(1000):
            event = "gave_up" if number == 999 else "failed"
            base.execute(
                "INSERT INTO outbox (target, event, title, body, wall, tries, boot, due) "
                "VALUES ('a', ?, 't', ?, ?, 0, '', 0)",
                (event, f"m{number}", time.time()),
            )
        base.execute("PRAGMA user_version = 1")
    assert children_of_passes(machine, spec)
    first, second = receiver.bodies()
    assert first == "m999"
    assert second.startswith("999 messages since ")
    assert (second.count("\n"), second[-5:]) == (40, " m998")
    assert waiting(machine) == []


@pytest.mark.parametrize("mode", ["short", "never"])
def test_a_message_that_is_never_taken_holds_up_no_other(
    machine: Machine, receiver: Receiver, mode: str
) -> None:
    """Shortened to what any service takes, and where that is refused too, left out."""
    receiver.mode = mode
    wrong = machine.base / ("d" * 200)
    wrong.write_text("a file")
    names = ", ".join(f"n{at}" for at in range(40))
    spec = machine.spec(
        f"notify: {{targets: {{a: {{url: 'json://{receiver.where}/', "
        "on: [failed, recovered]}}}\n"
        f"directories: {{d: {{for_each: [{names}], path: '{wrong}/{{{{ each }}}}'}}}}\n"
    )
    said = told_all(machine, spec, status=1)
    if mode == "short":
        (body,) = receiver.bodies()
        assert len(body) < 1000 and body.endswith("... (shortened, for HTTP 400)")
    else:
        assert said.count("target a will never take a message (HTTP 400); it was dropped") == 1
        assert receiver.got == []
    receiver.mode = "take"
    wrong.unlink()
    wrong.mkdir()
    told_all(machine, spec)
    assert any("recovered" in body for body in receiver.bodies())


def test_a_check_that_fails(machine: Machine, receiver: Receiver) -> None:
    good = machine.base / "good"
    spec = machine.spec(
        f"notify: {{targets: {{a: {{url: 'json://{receiver.where}/'}}}}}}\n"
        f"checks: {{c: {{command: 'echo \\033; test -e {good}', every: 1ms}}}}\n"
    )
    told_all(machine, spec, status=1)
    told_all(machine, spec, status=1)
    good.touch()
    told_all(machine, spec)
    told_all(machine, spec)
    first, second = receiver.bodies()
    assert first.startswith("Status: check:c is failing: ")
    assert all(line.isprintable() for line in first.splitlines())
    assert second.startswith("Status: check:c recovered\n")


def test_a_worker_that_crashes_when_it_was_well_is_no_storm(
    machine: Machine, looping: Any, receiver: Receiver
) -> None:
    """Each time it is started at once, and has run for long enough to be well."""
    starts = machine.base / "starts"
    command = f"[sh, -c, 'echo >> {starts}; exec sleep 90214']"
    spec = machine.spec(
        "version: 1\nname: demo\nloop: {every: 100ms}\n"
        f"notify: {{targets: {{a: {{url: 'json://{receiver.where}/'}}}}}}\n"
        f"processes: {{p: {{command: {command}, restart: {{healthy_after: 200ms}}}}}}\n"
    )
    loop = looping(spec)
    for number in range(1, 10):
        loop.held("process:p", number)
        loop.full_pass()
        os.kill(machine.only("sleep 90214"), signal.SIGKILL)
    loop.held("process:p", 10)
    until(lambda: starts.read_text() == 10 * "\n")
    until(lambda: receiver.got and not waiting(machine))
    assert loop.end() == 0
    every = "\n".join(receiver.bodies())
    # The first start counts; the last of them is in the message that it flaps.
    assert every.count("process:p had ended") == 5
    assert every.count("Status: process:p is flapping: 6 changes since ") == 1


def test_a_worker_that_was_killed_and_started_at_once_is_told_of_by_default(
    machine: Machine, looping: Any, receiver: Receiver
) -> None:
    """By the loop and by a single pass; but not where a person has asked for the start."""
    url = f"json://{receiver.where}"
    spec = machine.spec(
        "version: 1\nname: demo\nloop: {every: 1h}\n"
        f"notify: {{targets: {{a: {{url: '{url}/a'}}, b: {{url: '{url}/b', on: {ALL}}}}}}}\n"
        "processes: {p: {command: [sleep, '90211']}}\n"
    )
    loop = looping(spec)
    loop.held("process:p", 1)
    os.kill(machine.only("sleep 90211"), signal.SIGKILL)
    loop.held("process:p", 2)
    pid = machine.only("sleep 90211")
    until(lambda: receiver.got and not waiting(machine))
    assert loop.end() == 0
    os.kill(pid, signal.SIGKILL)
    until(lambda: not machine.running("sleep 90211"))
    told_all(machine, spec)
    machine.reconcile("--pause", "process:p", "--stop", spec)
    machine.reconcile("--resume", "process:p", spec)
    told_all(machine, spec)
    until(lambda: machine.running("sleep 90211"))
    lines = [(path, document["message"].splitlines()) for path, document in receiver.got]
    for path in ("/a", "/b"):
        told = [rest for where, rest in lines if where == path and "had ended" in rest[0]]
        assert len(told) == 2, lines
        for status, action, since in told:
            assert status == "Status: process:p had ended"
            assert action == "Action: started again"
            assert since.startswith("it was started last 20")
    assert sum(where == "/a" for where, _ in lines) == 2, "no first start, no resume"
    assert sum(rest[-1] == "Action: started" for where, rest in lines if where == "/b") == 2


def test_of_an_adopted_process_the_first_end_is_told(
    machine: Machine, looping: Any, receiver: Receiver
) -> None:
    """Which nobody of ours has started."""
    before = time.time()
    adopted = subprocess.Popen(["sleep", "90212"], env=machine.environ)
    until(lambda: machine.running("sleep 90212"))
    spec = machine.spec(
        f"loop: {{every: 1h}}\nnotify: {{targets: {{a: {{url: 'json://{receiver.where}/a'}}}}}}\n"
        "processes: {p: {command: [sleep, '90212'], match: {cmdline: ^sleep 90212$}},\n"
        "  q: {command: [sleep, '90213']}}\n"
    )
    looping(spec).up()
    until(lambda: machine.running("sleep 90213"))
    adopted.kill()
    adopted.wait()
    until(lambda: receiver.got)
    (said,) = [document["message"].splitlines() for _, document in receiver.got]
    assert said[:2] == ["Status: process:p had ended", "Action: started again"]
    when = said[2].removeprefix("it was started last ").removesuffix(".")
    told = time.mktime(time.strptime(when, "%Y-%m-%d %H:%M"))
    assert abs(told - before) < 61 + 5


def seen_of(canary: str) -> list[str]:
    """Where in the table of processes it is seen."""
    found = []
    for entry in os.listdir("/proc"):
        for name in ("cmdline", "environ"):
            try:
                if canary.encode() in Path(f"/proc/{entry}/{name}").read_bytes():
                    found.append(f"{entry}/{name}")
            except (OSError, ValueError):
                continue
    return found


WORDS = {
    "hanging": "no answer in time",
    "malformed": "apprise does not understand its URL",
    "nowhere": "its host name is not known",
    "refusing": "HTTP 500",
    "trickling": "no answer within 15 s",
    "unknown": "apprise does not understand its URL",
}


@pytest.mark.parametrize("patient", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_bad_targets_hold_nothing_up_and_no_url_is_seen_anywhere(
    machine: Machine, looping: Any, receiver: Receiver, patient: bool
) -> None:
    """The ``patient`` one waits until the delivery that trickles has had its time."""
    hanging, trickling, refusing = Receiver("hang"), Receiver("trickle"), Receiver("refuse")
    urls = {
        "hanging": f"json://{hanging.where}/{CANARY}",
        "trickling": f"json://user:{CANARY}@{trickling.where}/",
        "refusing": f"json://{refusing.where}/{CANARY}",
        "malformed": f"slack://{CANARY}",
        "unknown": f"{CANARY}://x",
        "nowhere": f"json://{CANARY}.invalid/",
    }
    files = {name: hook(machine, url, name) for name, url in urls.items()}
    listed = ", ".join(f"{name}: {{url_file: {path}, on: {ALL}}}" for name, path in files.items())
    made = machine.base / "d"
    # One URL stands in the spec itself.
    spec = machine.spec(
        "version: 1\nname: demo\nloop: {every: 100ms}\n"
        f"vars: {{token: {CANARY}}}\n"
        f"notify: {{targets: {{{listed}, fine: "
        f"{{url: 'json://{receiver.where}/{{{{ token }}}}', on: {ALL}}}}}}}\n"
        f"directories: {{d: {{path: {made}}}}}\n"
    )
    loop = looping(spec)
    for number in range(3):
        until(made.is_dir)
        until(lambda number=number: len(receiver.got) == number + 1)
        made.rmdir()
        with within(2.0):
            until(made.is_dir)
        assert seen_of(CANARY) == []
    until(lambda: len(receiver.got) == 4)
    assert {path for path, _ in receiver.got} == {f"/{CANARY}"}
    words = {
        name: f"target {name} did not take a message: {WORDS[name]}; retrying" for name in WORDS
    }

    def told() -> list[str]:
        return sorted(one["text"] for one in loop.events() if one["event"] == "notify")

    # On a machine that is slow, what trickles may have had its time as well.
    late = sorted(words.values())
    soon = [text for text in late if text != words["trickling"]]
    until(lambda: told() == late or (told() == soon and not patient))
    assert loop.end() == 0
    assert told() == late or (told() == soon and not patient)
    kept = [path for path in machine.state.rglob("*") if path.is_file()]
    assert len(kept) > 2
    assert not [path for path in kept if CANARY.encode() in path.read_bytes()]
    for one in (hanging, trickling):
        one.mode = "take"
    no_pause(machine)
    done = machine.reconcile("--once", spec, "-v")
    tested = machine.reconcile("--notify-test", spec)
    assert tested.returncode == 1
    assert "target fine: delivered" in tested.stdout
    assert "target hanging: delivered" in tested.stdout
    for shown in (loop, done, tested, *(machine.reconcile(m, spec) for m in ("--plan", "--check"))):
        text = shown.output.read_text() if isinstance(shown, Looping) else str(shown)
        assert CANARY not in text
    for one in (hanging, trickling, refusing):
        one.down()


@pytest.mark.slow
def test_a_single_pass_waits_only_so_long(machine: Machine) -> None:
    trickling = Receiver("trickle")
    spec = machine.spec(
        f"notify: {{targets: {{a: {{url: 'json://{trickling.where}/', on: [changed]}}}}}}\n"
        f"directories: {{d: {{path: {machine.base}/d}}}}\n"
    )
    begin = time.monotonic()
    with within(14):
        done = machine.reconcile("--once", spec)
    assert time.monotonic() - begin > 10
    assert done.stdout.splitlines()[-2:] == [
        "1 done, 0 failed; 1 resource.",
        "  ! target a did not take a message: no answer within 10 s; retrying",
    ]
    assert len(waiting(machine)) == 1
    trickling.down()


def test_a_test_message_to_every_target(machine: Machine, receiver: Receiver) -> None:
    def spec(*targets: str) -> Path:
        return machine.spec(f"notify: {{targets: {{{', '.join(targets)}}}}}\n")

    url = f"json://{receiver.where}/"
    off = machine.base / "later"
    fine, missing = f"a: {{url: '{url}', on: [changed]}}", f"b: {{url_file: {off}}}"
    done = machine.reconcile("--notify-test", spec(fine, missing))
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "target a: delivered\n"
        f"target b: off: {off} is not there; write its URL into it to switch it on\n"
    )
    assert not machine.state.exists(), "it needs no lock, and leaves nothing"
    hook(machine, f"json://127.0.0.1:1/{CANARY}", "later")
    done = machine.reconcile("--notify-test", spec(fine, missing), "--json")
    assert done.returncode == 1
    document = json.loads(done.stdout)
    assert document["targets"] == [
        {"name": "a", "result": "taken", "reason": None},
        {"name": "b", "result": "refused", "reason": "connection refused"},
    ]
    assert len(receiver.got) == 2
    assert receiver.bodies()[0].startswith("this is a test of ")
    spec = machine.spec("directories:\n")
    none = machine.reconcile("--notify-test", spec)
    words, example = none.stdout.splitlines()
    assert (none.returncode, words) == (
        0,
        f"{spec} has no targets under notify; add one there, such as",
    )
    assert machine.reconcile("--check", machine.spec(f"{example.strip()}\n")).returncode == 0


def test_a_target_that_is_off_is_no_error_and_said(machine: Machine, looping: Any) -> None:
    off = machine.base / "later"
    spec = machine.spec(
        f"notify: {{targets: {{a: {{url_file: {off}, on: {ALL}}}}}}}\n"
        f"directories: {{d: {{path: {machine.base}/d}}}}\n"
    )
    words = f"is off: {off} is not there; write its URL into it to switch it on"
    assert f". note notify:a: {words}" in machine.reconcile("--plan", "-v", spec).stdout
    assert f". note notify:a: {words}" in machine.reconcile("--check", spec).stdout
    assert "notify:a" not in machine.reconcile("--plan", spec).stdout
    machine.once(spec)
    assert waiting(machine) == []
    loop = looping(spec)
    until(lambda: "notify" in loop.names())
    loop.full_pass()
    assert loop.end() == 0
    assert [e["text"] for e in loop.events() if e["event"] == "notify"] == [f"target a {words}"]


def test_people_hear_of_a_broken_spec_and_of_a_loop_that_hung(
    machine: Machine, looping: Any, receiver: Receiver
) -> None:
    text = (
        "version: 1\nname: demo\nloop: {every: 200ms}\n"
        f"notify: {{targets: {{a: {{url: 'json://{receiver.where}/{CANARY}'}}}}}}\n"
        f"directories: {{d: {{path: {machine.base}/d}}}}\n"
    )
    spec = machine.spec(text)
    loop = looping(spec)
    until((machine.base / "d").is_dir)
    spec.write_text(text.replace("on:", "").replace("path:", "pth:"))
    until(lambda: len(receiver.got) == 1)
    assert receiver.bodies()[0].startswith("Status: the changed spec is not valid, so the last ")
    assert CANARY not in receiver.bodies()[0]
    spec.write_text(text)
    until(lambda: len(receiver.got) == 2)
    words = f"Status: the spec {spec} is valid again, and was taken\nAction: none is needed"
    assert receiver.bodies()[1] == words
    until(lambda: not waiting(machine))
    freeze(loop.pid)
    pulse = machine.state / "demo/loop"
    words = pulse.read_text().split()[:7]
    words[3] = "1.0"
    pulse.write_text(" ".join(words))
    machine.once(spec)
    until(lambda: len(receiver.got) > 2)
    assert "has not moved for" in receiver.bodies()[2]


@pytest.mark.namespaces
@pytest.mark.root
def test_slack_itself_with_its_name_on_loopback(machine: Machine) -> None:
    """The host of Slack's plugin is fixed: in a network of its own, that name is ours."""
    if os.geteuid() != 0:
        pytest.skip("needs root, for a network of its own")
    token = "T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"
    url_file = hook(machine, f"https://hooks.slack.com/services/{token}?verify=no")
    spec = machine.spec(f"notify: {{targets: {{slack: {{url_file: {url_file}}}}}}}\n")
    (machine.base / "hosts").write_text("127.0.0.1 localhost hooks.slack.com\n")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
         "/CN=hooks.slack.com", "-keyout", machine.base / "key", "-out", machine.base / "cert"],
        check=True, capture_output=True, timeout=LONG,
    )  # fmt: skip
    inside = (
        f"ip link set lo up && mount --bind {machine.base}/hosts /etc/hosts && "
        f"exec {sys.executable} {CHECKOUT}/tests/machine/slack_stand_in.py {machine.base} "
        + " ".join(map(str, machine.argv("--notify-test", spec)))
    )
    done = machine.run("unshare", "--net", "--mount", "sh", "-c", inside)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "target slack: delivered" in done.stdout
    path, document = json.loads((machine.base / "got").read_text())
    assert path == f"/services/{token}"
    shown = json.dumps(document)
    assert f"this is a test of {spec}" in shown
    assert f"reconcile: demo on {os.uname().nodename}" in shown
    assert token not in done.stdout + done.stderr


def test_a_delivery_that_nobody_kills_ends_itself(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop may have been killed, and a target may trickle for ever."""
    monkeypatch.setattr("reconciler.notify.delivery.TIMEOUT", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"json://127.0.0.1:{silent.getsockname()[1]}"
        target = Target("t", ("report",), url_file=str(hook(machine, url)))
        with pytest.raises(UnknownState, match="status -14"):
            answer(work(target, [("title", "body", "report")]), 30)


def test_a_name_in_a_message_calls_nobody_and_hides_no_link(
    machine: Machine, receiver: Receiver
) -> None:
    """Who gives a file its name does not write to all who read of it."""
    url = f"json://{receiver.where}"
    target = Target("t", ("report",), url_file=str(hook(machine, url)))
    name = "@everyone x@here @eve <!channel> <@U1> <@&7> [x](http://e/) <http://e/|x>"
    remedy = "systemctl start worker@1.service; ssh root@host; cat <file"
    assert answer(work(target, [("title", f"{name}\n{remedy}", "report")]), 30) == b"\n"
    shown, kept = receiver.bodies()[0].split("\n")
    assert kept == remedy
    assert shown.replace("\u200b", "") == name
    for call in ("@everyone", "@here", "@eve", "<!", "@U", "@&", "](", "<http"):
        assert call not in shown, call
