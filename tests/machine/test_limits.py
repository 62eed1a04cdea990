"""Processes that run and are not well: over a limit, too old, or without a heartbeat."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import Machine, allowed, passed, until, within

from reconciler.host import Host
from reconciler.host.clock import Clock
from reconciler.host.processes import Identity, look_up
from reconciler.state.store import Store

PROGRAM = """\
import os, sys, threading, time
what = sys.argv[1]
mark = f"{os.path.dirname(sys.argv[0])}/{what}.mark"
# Only the first one of each name uses too much.
if not os.path.exists(mark):
    open(mark, "w").close()
    if what == "memory":
        block = bytearray(60 << 20)
    if what == "open_files":
        files = [open("/dev/null") for _ in range(40)]
    if what == "threads":
        for _ in range(5):
            threading.Thread(target=time.sleep, args=(600,)).start()
print("up", flush=True)
time.sleep(600)
"""
LIMITS = "memory: 40MiB, open_files: 30, threads: 4"
WORDS = {
    "process:memory": ", more than 40 MiB",
    "process:open_files": " open files, more than 30",
    "process:threads": "has 7 threads, more than 4",
}


def running(machine: Machine, text: str, number: int = 1) -> list[int]:
    """The processes with that text, once there are so many."""

    def found() -> list[int]:
        pids = sorted(machine.running(text))
        return pids if len(pids) == number else []

    return list(until(found))


def said(path: Path, lines: int = 1) -> None:
    until(lambda: path.exists() and len(path.read_text().splitlines()) >= lines)


def said_more(path: Path, lines: int) -> None:
    said(path, len(path.read_text().splitlines()) + lines)


def gone(pid: int) -> bool:
    return look_up(pid) is None


def test_what_is_over_a_limit_for_long_enough_is_restarted_and_nobody_else(
    machine: Machine,
) -> None:
    program = machine.base / "eater.py"
    program.write_text(PROGRAM)

    def spec(lasting: str) -> Path:
        # The shell has a child that does it; both count.
        return machine.spec(
            "processes:\n  p:\n    for_each: [memory, open_files, threads, nothing]\n"
            f"    command: 'python3 {program} {{{{ each }}}}; :'\n"
            f"    log: '{machine.base}/{{{{ each }}}}.log'\n"
            f"    limits: {{{LIMITS}, for: {lasting}}}\n"
        )

    names = ("memory", "open_files", "threads", "nothing")
    logs = [machine.base / f"{name}.log" for name in names]
    one = spec("1h")
    machine.once(one)
    for log in logs:
        said(log)
    before = running(machine, "eater.py", 8)
    nothing = running(machine, "eater.py nothing", 2)
    machine.once(one)
    plan = machine.plan(one)
    assert plan["steps"] == []
    notes = {note["id"].replace("p[", "").rstrip("]"): note["reason"] for note in plan["notes"]}
    assert notes.keys() == WORDS.keys()
    for name, words in WORDS.items():
        assert words in notes[name] and "s of 60 min" in notes[name]
    # A limit that has changed restarts nothing, and how long it has lasted counts on.
    passed(0.3)
    report = machine.once(spec("300ms"))
    steps = {step["id"].replace("p[", "").rstrip("]"): step for step in report["steps"]}
    assert steps.keys() == WORDS.keys()
    for name, words in WORDS.items():
        assert (steps[name]["verb"], steps[name]["result"]) == ("restart", "done")
        assert words in steps[name]["why"]
    assert running(machine, "eater.py nothing", 2) == nothing
    assert set(running(machine, "eater.py", 8)) & set(before) == set(nothing)
    for log in logs[:3]:
        said(log, 2)
    assert machine.once(spec("1ms"))["steps"] == []


def test_not_before_its_time_has_passed_counted_over_passes(machine: Machine) -> None:
    spec = machine.spec(
        "processes: {p: {command: [sleep, '60401'], limits: {memory: 1KiB, for: 1s}, "
        "restart: {backoff: {initial: 1h, max: 1h}}}}"
    )
    machine.once(spec)
    (pid,) = running(machine, "sleep 60401")
    before = time.monotonic()
    assert machine.once(spec)["steps"] == []
    steps = until(lambda: machine.once(spec)["steps"])
    assert time.monotonic() - before > 1.0
    assert steps[0]["verb"] == "restart"
    assert running(machine, "sleep 60401") != [pid]
    # The new one is counted anew, and its restart is an attempt like any other.
    passed(0.1)
    assert machine.once(spec)["steps"] == []


def test_of_several_instances_only_those_that_ail_are_restarted(machine: Machine) -> None:
    spec = machine.spec(
        "processes: {p: {command: [sleep, '60402'], instances: 3, limits: {age: 1h}}}"
    )
    machine.once(spec)
    pids = running(machine, "sleep 60402", 3)
    # Older than the one that is started now will be when it is looked at, by a pass like this.
    begin = time.monotonic()
    machine.once(machine.spec(spec.read_text().replace("1h", "2h")))
    passed(1.0 + 3 * (time.monotonic() - begin))
    os.kill(pids[0], signal.SIGKILL)
    until(lambda: gone(pids[0]))
    machine.once(spec)
    (young,) = set(running(machine, "sleep 60402", 3)) - set(pids)
    age = min(Host("x", str(machine.base)).processes.age(entry(pid)) for pid in pids[1:])
    spec.write_text(spec.read_text().replace("2h", f"{age:.3f}s"))
    (step,) = machine.once(spec)["steps"]
    assert step["verb"] == "restart"
    assert step["why"].count("has run for") == 2
    assert step["why"].startswith("pid ")
    assert sum("stop pid" in action for action in step["actions"]) == 2
    assert young in running(machine, "sleep 60402", 3)
    assert not set(running(machine, "sleep 60402", 3)) & set(pids)


def entry(pid: int) -> Identity:
    found = look_up(pid)
    assert found is not None
    return found.identity


def test_processor_time_counts_with_that_of_children(machine: Machine) -> None:
    spec = machine.spec(
        "processes:\n"
        "  busy: {command: 'while :; do :; done & echo 60403; wait', "
        "limits: {cpu: 1%, for: 1ms}}\n"
        "  idle: {command: [sleep, '60404'], limits: {cpu: 1, for: 1ms}}\n"
    )
    machine.once(spec)
    (idle,) = running(machine, "sleep 60404")
    begin = time.monotonic()
    # Among many others it may get next to nothing for a moment.
    (note,) = until(lambda: machine.plan(spec)["notes"])
    assert note["id"] == "process:busy"
    assert "of a core, more than 1%, so far for 0 s" in note["reason"]
    assert time.monotonic() - begin > 0.25
    (step,) = until(lambda: machine.once(spec)["steps"])
    assert (step["id"], step["verb"]) == ("process:busy", "restart")
    assert running(machine, "sleep 60404") == [idle]


def test_in_a_loop_processor_time_is_an_average_between_passes(
    machine: Machine, looping: Any
) -> None:
    spec = machine.spec(
        "loop: {every: 400ms}\n"
        "processes: {busy: {command: 'while :; do :; done; echo 60405', "
        "limits: {cpu: 1%, for: 300ms}}}\n"
    )
    loop = looping(spec)
    (pid,) = running(machine, "60405")
    until(lambda: gone(pid))
    until(lambda: loop.names().count("step") >= 2)
    text = [event["text"] for event in loop.events() if event["event"] == "step"][1]
    assert "restart process:busy: uses" in text


BEATS = "while :; do touch {beat}; sleep 0.1; done"


def test_one_that_hangs_is_restarted_and_killed_when_it_does_not_listen(
    machine: Machine,
) -> None:
    # Its heart beats ten times a second, and on a loaded machine less often.
    beat, age = machine.base / "beat", math.ceil(allowed(0.5))
    spec = machine.spec(
        f"processes: {{p: {{command: '{BEATS.format(beat=beat)}', "
        f"heartbeat: {{file: {beat}, max_age: {age}s}}, stop: {{timeout: 200ms}}}}}}"
    )
    machine.once(spec)
    (pid,) = running(machine, "touch")
    passed(age + 0.1)
    machine.converged(spec)
    assert machine.once(spec)["steps"] == []
    os.kill(pid, signal.SIGSTOP)
    # A touch(1) that it has begun may come to its end only now.
    until(lambda: time.time() > beat.stat().st_mtime + age + 0.1)
    (step,) = machine.once(spec)["steps"]
    assert (step["verb"], step["result"]) == ("restart", "done")
    assert "has had no heartbeat for " in step["why"] and f"longer than {age} s" in step["why"]
    assert gone(pid)
    assert running(machine, "touch") != [pid]
    machine.converged(spec)


def test_a_fresh_process_has_time_for_its_first_heartbeat(machine: Machine) -> None:
    beat = machine.base / "beat"
    spec = machine.spec(
        f"processes: {{p: {{command: [sleep, '60406'], heartbeat: {{file: {beat}, max_age: 1h}}}}}}"
    )
    beat.touch()
    os.utime(beat, (0, 0))
    machine.once(spec)
    (pid,) = running(machine, "sleep 60406")
    begin = time.monotonic()
    machine.converged(spec)
    beat.unlink()
    machine.converged(spec)
    # As when that time is over.
    spec.write_text(spec.read_text().replace("1h", "1s"))
    passed(1.1, begin)
    assert machine.steps(spec) == ["process:p"]
    # A time in the future is that of a clock that was set back, and no reason.
    beat.touch()
    os.utime(beat, (time.time() + 9999, time.time() + 9999))
    machine.converged(spec)
    beat.unlink()
    beat.mkdir()
    plan = machine.plan(spec)
    assert plan["steps"] == []
    assert "is a directory, not a file" in plan["unknown"][0]["reason"]
    beat.rmdir()
    (step,) = machine.once(spec)["steps"]
    assert "without a heartbeat" in step["why"]
    assert running(machine, "sleep 60406") != [pid]


def test_a_loop_looks_again_before_a_heart_has_stopped(machine: Machine, looping: Any) -> None:
    """Where the clock has leapt, or the host has slept, every heartbeat is old for a moment."""
    beat = machine.base / "beat"
    beat.touch()
    os.utime(beat, (time.time() + 9999, time.time() + 9999))  # As long as it is not to be old.
    spec = machine.spec(
        "loop: {every: 1h}\n"
        f"processes: {{p: {{command: [sleep, '60413'], heartbeat: {{file: {beat}, max_age: 1s}}}}}}"
    )
    loop = looping(spec).up()
    (pid,) = running(machine, "sleep 60413")
    passed(1.1)
    os.utime(beat, (0, 0))
    loop.full_pass()
    os.utime(beat, (time.time() + 9999, time.time() + 9999))
    loop.full_pass()
    assert running(machine, "sleep 60413") == [pid]


STUBBORN = "trap : TERM; echo up; while :; do sleep 0.1; done; echo {}"


def test_a_stop_that_takes_long_holds_nobody_up(machine: Machine, looping: Any) -> None:
    log, patience = machine.base / "log", allowed(4.0)
    spec = machine.spec(
        "loop: {every: 1h}\n"
        "processes:\n"
        # The first one does not listen to TERM.
        f"  slow: {{command: 'mkdir {log}.d && {STUBBORN.format(60407)}', log: {log},\n"
        f"         instances: 2, stop: {{timeout: {patience:.2f}s}}}}\n"
        "  other: {command: [sleep, '60408']}\n"
    )
    loop = looping(spec)
    slow = running(machine, "60407", 2)
    said(log, 2)
    (other,) = running(machine, "sleep 60408")
    until(lambda: loop.names().count("step") == 2)
    # What was started has held.
    until(lambda: time.time() > loop.events()[-1]["time"] + 0.7)
    changed = spec.read_text().replace("; echo 60407", "; echo 604079")
    new = machine.base / "new"
    new.write_text(changed)
    begin = time.monotonic()
    new.rename(spec)
    third = until(lambda: [e for e in loop.events() if e["event"] == "step"][2:])[0]
    with within(patience - 1.1):
        text = third["text"]
        assert text.startswith("begun restart process:slow") and "is being stopped (TERM" in text
        # The place of one that has ended is taken at once, while the other one still has its time.
        until(lambda: len(machine.running("604079")) == 1, patience)
        os.kill(other, signal.SIGKILL)
        until(lambda: gone(other) and machine.running("sleep 60408"), 1.0)
    (left,) = (pid for pid in slow if not gone(pid))
    until(lambda: gone(left))
    assert time.monotonic() - begin > patience
    running(machine, "604079", 2)
    until(lambda: not machine.steps(spec))
    assert len(machine.running("604079")) == 2


def test_one_that_is_to_go_is_stopped_beside_the_loop_once(machine: Machine, looping: Any) -> None:
    log = machine.base / "log"
    spec = machine.spec(
        "loop: {every: 300ms}\n"
        f"processes: {{slow: {{command: '{STUBBORN.format(60409)}', log: {log},\n"
        "    stop: {timeout: 1s}}}\n"
    )
    loop = looping(spec)
    (pid,) = running(machine, "60409")
    said(log)
    until(lambda: "step" in loop.names())
    spec.write_text(spec.read_text().replace("{command", "{state: absent, command"))
    until(lambda: gone(pid))
    until(lambda: not machine.steps(spec))
    texts = [event["text"] for event in loop.events() if event["event"] == "step"]
    assert len(texts) == 2 and texts[1].startswith("begun stop")


def test_a_slow_stop_that_a_check_asks_for_is_asked_for_once(
    machine: Machine, looping: Any
) -> None:
    log, bad, asked = machine.base / "log", machine.base / "bad", machine.base / "asked"
    spec = machine.spec(
        "loop: {every: 200ms}\n"
        f"processes: {{slow: {{command: '{STUBBORN.format(60412)}', log: {log},\n"
        "    stop: {timeout: 1m}}}\n"
        f"checks: {{c: {{command: 'echo >> {asked}; test ! -e {bad}', every: 500ms,\n"
        "    on_failure: [restart slow]}}\n"
    )
    loop = looping(spec)
    (pid,) = running(machine, "60412")
    said(log)
    bad.touch()
    until(lambda: "begun restart process:slow" in loop.output.read_text())
    # It fails some times more while the stop goes on, and is well before that is over.
    said_more(asked, 3)
    bad.unlink()
    said_more(asked, 2)
    loop.full_pass()
    os.kill(pid, signal.SIGKILL)
    until(lambda: gone(pid))
    (new,) = running(machine, "60412")
    until(lambda: loop.names().count("step") >= 3)
    said_more(asked, 2)
    loop.full_pass()
    assert running(machine, "60412") == [new]
    texts = [event["text"] for event in loop.events() if event["event"] == "step"]
    assert [text.partition(":")[0] for text in texts] == [
        "done start process", "begun restart process", "done start process"
    ]  # fmt: skip
    assert not [event["text"] for event in loop.events() if event["event"] == "held"]


def test_what_is_over_for_one_goes_on_for_another(tmp_path: Path) -> None:
    conditions = Store(str(tmp_path), Clock(), True).conditions
    first, second = ("process:p", "memory", "7@100"), ("process:p", "memory", "8@200")
    conditions.note([first, second], [])
    conditions.note([], [first])
    assert conditions.all().keys() == {second}


def test_what_nobody_measures_costs_nothing(machine: Machine) -> None:
    bare = "processes: {p: {command: [sleep, '60410']}}"

    def traced(text: str) -> str:
        spec = machine.spec(text)
        machine.once(spec)
        return machine.traced("execve,openat", *machine.argv("--once", spec))

    aged = "command: [sleep, '60410'], limits: {age: 1d}, heartbeat: {file: /x/y, max_age: 1h}"
    assert "/psutil/" not in traced(bare.replace("command: [sleep, '60410']", aged))
    (pid,) = running(machine, "sleep 60410")
    assert "/psutil/" in traced(bare.replace("}}", ", limits: {memory: 1GiB}}}"))
    # None of that is a reason to start it anew.
    assert running(machine, "sleep 60410") == [pid]


def test_what_may_not_be_read_is_no_reason(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reconciler.host.usage import measure

    def denied(process: Any) -> int:
        raise PermissionError(process.pid)

    monkeypatch.setattr("reconciler.host.usage.descriptors", denied)
    me = entry(os.getpid())
    host = Host("x", str(machine.base))
    usage = measure({me: {"open_files"}, Identity(1, me.pid): {"memory"}}, host)
    assert os.getpid() in usage[me].unread
    assert usage[me].open_files == 0 and usage[me].memory > 2**20
    assert usage[Identity(1, me.pid)].memory == 0


def test_the_look_again_of_a_pass_needs_no_second_pause(machine: Machine) -> None:
    from reconciler.host.usage import measure

    slept: list[float] = []
    host = Host("x", str(machine.base))
    sleep: Callable[[float], None] = host.clock.sleep
    host.clock.sleep = lambda time: (slept.append(time), sleep(time))[1]  # type: ignore[method-assign]
    me = entry(os.getpid())
    first = measure({me: {"cpu"}}, host)[me].cpu
    assert measure({me: {"cpu"}}, host)[me].cpu == first
    assert first is not None
    assert slept == [0.25]
