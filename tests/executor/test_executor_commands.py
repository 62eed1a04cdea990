"""Commands that go in as files, and what comes out."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time

from support import LONG, late

ZONED = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d")


def test_result_says_everything(executor):
    executor.start()
    executor.put("hello", "echo out; echo err >&2; exit 7", note={"who": ["me", 1]}, timeout=LONG)
    found = executor.result("hello")
    assert (found["id"], found["status"], found["exit_code"]) == ("hello", "failed", 7)
    assert (found["signal"], found["timed_out"], found["reason"]) == (None, False, None)
    assert found["output_tail"] == "out\nerr\n"
    assert found["extra"] == {"note": {"who": ["me", 1]}}
    assert found["log_path"] == str(executor.base / "logs" / "hello.log")
    assert (executor.base / "logs" / "hello.log").read_text() == "out\nerr\n"
    assert ZONED.fullmatch(found["start"])
    assert ZONED.fullmatch(found["end"])
    assert 0 <= found["seconds"] < LONG


def test_nothing_else_is_left(executor, patiently):
    executor.start()
    executor.put("one", "true")
    assert executor.result("one")["status"] == "succeeded"
    patiently(lambda: executor.names("running") == [], "an empty running/")
    assert executor.names("pending") == []
    assert executor.names("failed") == []
    assert executor.names("completed") == ["one.json"]  # no temporary file


def test_id_in_the_file_rules(executor):
    executor.start()
    executor.put("my job", "echo $AI_COMMAND_ID", id="job-1")
    assert executor.result("job-1")["output_tail"] == "job-1\n"


def test_environment_directory_and_input(executor):
    folder = executor.folder / "work"
    folder.mkdir()
    executor.start()
    executor.put("a", 'pwd; echo "$A-$N"; cat', cwd=str(folder), env={"A": "x y", "N": 3})
    executor.put("b", "pwd; echo $AI_CO_HOME")
    executor.put("c", "pwd", cwd="~/work")
    executor.put("d", "echo never", cwd=str(folder / "gone"))
    assert executor.result("a")["output_tail"] == f"{folder}\nx y-3\n"
    assert executor.result("b")["output_tail"] == f"{executor.home}\n{executor.home}\n"
    assert executor.result("c")["output_tail"] == f"{folder}\n"
    gone = executor.result("d")
    assert gone["status"] == "failed"
    assert gone["exit_code"] is None
    assert "gone" in gone["reason"]
    assert "never" not in gone["output_tail"]


def test_values_of_env_are_told_to_nobody(executor):
    executor.start()
    executor.put("s", "true", env={"TOKEN": "s3cret-value"})
    assert executor.result("s")["env"] == ["TOKEN"]
    assert "s3cret-value" not in (executor.base / "completed" / "s.json").read_text()
    assert "s3cret-value" not in executor.event_log()


def test_command_inherits_no_descriptor_and_default_signals(executor):
    executor.start()
    executor.put("fds", "ls /proc/$$/fd; grep -E 'SigIgn|SigBlk' /proc/self/status")
    lines = executor.result("fds")["output_tail"].split()
    assert [item for item in lines if item.isdigit() and len(item) < 4] == ["0", "1", "2"]
    masks = [item for item in lines if len(item) == 16]
    assert masks == ["0" * 16, "0" * 16]


def test_command_is_never_an_option_of_bash(executor):
    executor.start()
    for name, text in (("short", "-e 'echo no'"), ("long", "--version")):
        executor.put(name, text)
        found = executor.result(name)
        assert found["exit_code"] == 127
        assert "command not found" in found["output_tail"]


def test_killed_command(executor):
    executor.start()
    executor.put("k", "kill -SEGV $$")
    found = executor.result("k")
    assert (found["exit_code"], found["signal"]) == (None, signal.SIGSEGV)
    assert found["status"] == "failed"
    assert "SIGSEGV" in found["reason"]


def test_oldest_first_then_by_name(executor):
    executor.make_folders()
    now = time.time()
    for name, age in (("c", 10), ("a", 5), ("d", 30), ("f", 20), ("e", 20)):
        executor.put(name, f"echo {name} >> {executor.folder}/order")
        os.utime(executor.base / "pending" / f"{name}.json", (now - age, now - age))
    executor.start()
    executor.result("a")
    assert (executor.folder / "order").read_text().split() == ["d", "e", "f", "c", "a"]


def test_pickup_is_quick(executor, record_property, capsys):
    executor.start()
    taken = []
    for number in range(20):
        began = time.time()
        executor.put(f"n{number}", "date +%s.%N")
        taken.append(float(executor.result(f"n{number}")["output_tail"]) - began)
    taken.sort()
    with capsys.disabled():
        print(f" [pickup: median {taken[10] * 1e3:.1f} ms, most {taken[-1] * 1e3:.1f} ms]", end="")
    record_property("pickup_ms", [round(seconds * 1000, 2) for seconds in taken])
    assert not late(taken[10], 0.5), taken  # some milliseconds, when alone


def test_every_way_to_put_a_file_is_quick(executor):
    executor.start()
    for how in ("cp {} {}", "ln {} {}", "mv {} {}", "cat {} > {}"):
        taken = _put_by(executor, how)
        # The heartbeat alone would find them 2 s apart.
        assert not late(sorted(taken)[1], 1.0), (how, taken)


def _put_by(executor, how):
    taken = []
    for number in range(3):
        source = executor.folder / "source.json"
        source.write_text('{"command": "true"}')
        began = time.monotonic()
        name = f"{how[:3].strip()}{number}"
        target = executor.base / "pending" / f"{name}.json"
        subprocess.run(["bash", "-c", how.format(source, target)], check=True)
        executor.result(name)
        taken.append(time.monotonic() - began)
        source.unlink(missing_ok=True)
    return taken


def test_without_inotify_it_looks_often(executor):
    """As on a host whose inotify instances are used up."""
    code = (
        "import sys; from reconciler.host.inotify import Inotify\n"
        "def none(self): raise OSError(24, 'used up')\n"
        "Inotify.__init__ = none\n"
        "from reconciler.executor.cli import main; sys.exit(main())"
    )
    executor.start(program=[executor.program[0], "-c", code])
    assert "used up" in executor.event_log()
    taken = []
    for number in range(5):
        began = time.monotonic()
        executor.put(f"n{number}", "true")
        executor.result(f"n{number}")
        taken.append(time.monotonic() - began)
    assert not late(sorted(taken)[2], 1.0), taken  # the heartbeat alone would find them 2 s apart


def test_output_comes_while_the_command_runs(executor, patiently):
    executor.start()
    gate = executor.folder / "gate"
    executor.put("slow", f"echo first; until [ -e {gate} ]; do sleep 0.01; done; echo second")
    log = executor.base / "logs" / "slow.log"
    patiently(lambda: log.exists() and log.read_text() == "first\n", "the first line")
    assert not (executor.base / "completed" / "slow.json").exists()
    assert executor.heartbeat()["state"] == "running"
    gate.touch()
    assert executor.result("slow")["output_tail"] == "first\nsecond\n"


def test_heartbeat_goes_on_during_a_command(executor, patiently):
    worker = executor.start()
    gate = executor.folder / "gate"
    executor.put("slow", f"until [ -e {gate} ]; do sleep 0.01; done")
    patiently(lambda: executor.heartbeat()["command"] == "slow", "a heartbeat that names it")
    first = executor.heartbeat()
    patiently(lambda: executor.heartbeat()["epoch"] > first["epoch"], "another beat", 5.0)
    assert executor.heartbeat()["pid"] == worker.pid
    gate.touch()
    executor.result("slow")


def test_timeout_ends_the_whole_group(executor, alive, orphan):
    leader, child, over = (executor.folder / name for name in ("leader", "child", "over"))
    executor.start(program=executor.hurries_at(over))
    executor.put(
        "t",
        f"sleep 300 & echo $! > {child}; echo begun; echo $$ > {leader}; wait",
        timeout=500,
    )
    pids = [orphan(executor.pid_from(path)) for path in (leader, child)]
    began = time.monotonic()
    over.touch()
    found = executor.result("t")
    assert not late(time.monotonic() - began, 9)
    assert found["status"] == "timed_out"
    assert found["timed_out"] is True
    assert found["output_tail"] == "begun\n"
    assert "500 s" in found["reason"]
    assert found["seconds"] >= 500
    assert not any(alive(pid) for pid in pids)


def test_background_is_left_alone_and_holds_up_nobody(executor, alive, orphan):
    executor.start()
    path = executor.folder / "server"
    executor.put("bg", f"sleep 300 & echo $! > {path}; echo started")
    found = executor.result("bg")
    assert found["output_tail"] == "started\n"
    assert found["seconds"] < LONG  # Of three hundred.
    assert alive(orphan(executor.pid_from(path)))


def test_too_much_output_ends_the_command(executor, alive):
    executor.start()
    executor.put("flood", "head -c 105M /dev/zero; sleep 300", timeout=60)
    found = executor.result("flood")
    assert found["status"] == "failed"
    assert "output over 104857600 bytes" in found["reason"]
    log = executor.base / "logs" / "flood.log"
    assert log.stat().st_size < 104857600 + 200
    assert "cut here" in found["output_tail"]
    log.unlink()  # pytest keeps its folders


def test_tail_is_short_and_whole_characters(executor):
    executor.start()
    executor.put("tail", "printf 'é%.0s' {1..5000}; printf '\\xff'")
    tail = executor.result("tail")["output_tail"]
    assert tail == "é" * 2047 + "\ufffd"


def test_command_too_long_for_the_kernel_is_refused(executor):
    executor.start()
    executor.put("long", "true " + "x" * 131072)
    assert "script file" in executor.reason("long.json")


def test_two_hundred_short_commands(executor):
    executor.start()
    for number in range(200):
        executor.put(f"n{number:03d}", f"echo {number}")
    for number in range(200):
        assert executor.result(f"n{number:03d}")["output_tail"] == f"{number}\n"


def test_result_is_valid_json_for_any_output(executor):
    executor.start()
    executor.put("raw", "head -c 3000 /dev/urandom; printf '\\033[2J\\0\\x7f'")
    executor.result("raw")
    raw = (executor.base / "completed" / "raw.json").read_bytes()
    assert json.loads(raw)["status"] == "succeeded"
    assert all(32 <= byte < 127 or byte == 10 for byte in raw)
