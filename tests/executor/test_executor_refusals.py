"""Files that are no commands: each goes to failed/ with a reason, and the worker goes on."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from support import LONG

from reconciler.executor import queue
from reconciler.executor.commandfile import CommandRefused
from reconciler.executor.eventlog import EventLog
from reconciler.executor.home import Layout, opened
from reconciler.executor.queue import take


def text(content):
    return lambda path: path.write_bytes(content.encode() if isinstance(content, str) else content)


def command(**fields):
    return text(json.dumps({"command": "echo ran", **fields}))


def link(path):
    target = path.parent.parent / "target"
    target.write_text('{"command": "echo ran"}')
    path.symlink_to(target)


BAD = {
    "garbage": (text("echo hello"), "not JSON"),
    "empty": (text(""), "not JSON"),
    "cut": (text('{"command": "echo ran"'), "not JSON"),
    "not-utf8": (text(b'{"command": "\xff\xfe"}'), "not UTF-8"),
    "deep": (text("[" * 100000 + "]" * 100000), "nested"),
    "deep-extra": (text('{"command":"echo ran","x":' + "[" * 99 + "]" * 99 + "}"), "nested"),
    "huge-int": (text('{"command": "echo ran", "timeout": 1' + "0" * 5000 + "}"), "digits"),
    "huge-float": (text('{"command": "echo ran", "x": 1e999}'), "too large"),
    "infinity": (text('{"command": "echo ran", "timeout": Infinity}'), "Infinity"),
    "nan": (text('{"command": "echo ran", "timeout": NaN}'), "NaN"),
    "list": (text('["echo ran"]'), "not an object"),
    "null": (text("null"), "not an object"),
    "no-command": (text("{}"), 'no "command"'),
    "command-list": (command(command=["echo", "ran"]), "must be a string, not a list"),
    "command-empty": (command(command=" \n"), "empty"),
    "command-nul": (command(command="echo ran\0"), "NUL"),
    "surrogate": (text('{"command": "echo \\ud800"}'), "surrogate"),
    "timeout-zero": (command(timeout=0), "more than 0"),
    "timeout-negative": (command(timeout=-1), "more than 0"),
    "timeout-huge": (command(timeout=10**400), "at most"),
    "timeout-true": (command(timeout=True), "number of seconds"),
    "timeout-text": (command(timeout="5"), "number of seconds"),
    "cwd-relative": (command(cwd="work"), "absolute"),
    "cwd-nul": (command(cwd="/\0"), "NUL"),
    "cwd-number": (command(cwd=1), "must be a string"),
    "env-list": (command(env=["A=b"]), "must be an object"),
    "env-name": (command(env={"A=B": "c"}), "no name"),
    "env-digit": (command(env={"1A": "c"}), "no name"),
    "env-nul": (command(env={"A": "\0"}), "NUL"),
    "env-bool": (command(env={"A": True}), "must be a string"),
    "id-number": (command(id=7), "must be a string"),
    "id-up": (command(id="../../escaped"), "not allowed"),
    "id-slash": (command(id="a/b"), "not allowed"),
    "id-empty": (command(id=""), "not allowed"),
    "id-dots": (command(id=".."), "not allowed"),
    "id-hidden": (command(id=".hidden"), "not allowed"),
    "id-nul": (command(id="a\0b"), "not allowed"),
    "id-newline": (command(id="a\n"), "not allowed"),
    "id-long": (command(id="x" * 300), "not allowed"),
    "name with blank": (command(), "file's name"),
    "name\x1b[2J": (command(), "\\x1b"),
    "too-big": (lambda path: os.truncate(_made(path), 5 * 2**20), "larger than"),
    "symlink": (link, "a symlink"),
    "dangling": (lambda path: path.symlink_to("/nowhere/at/all"), "a symlink"),
    "fifo": (os.mkfifo, "a FIFO"),
    "directory": (lambda path: (path / "x").mkdir(parents=True), "a directory"),
}


def _made(path):
    path.touch()
    return path


def test_bad_files_are_refused_with_their_reason(executor):
    """All of them in one home: none may hold up another, or the good ones between them."""
    executor.make_folders()
    long_ago = time.time() - 60
    for name, (make, _) in BAD.items():
        path = executor.base / "pending" / f"{name}.json"
        make(path)
        os.utime(path, (long_ago, long_ago), follow_symlinks=False)
    executor.put("good", "echo good")
    worker = executor.start()
    assert executor.result("good")["output_tail"] == "good\n"
    wrong = []
    for name, (_, words) in BAD.items():
        reason = executor.reason(f"{name}.json")
        if words not in reason or not reason.isascii() or "\x1b" in reason:
            wrong.append((name, reason))
    assert wrong == []
    assert executor.names("completed") == ["good.json"]
    assert executor.names("pending") == []
    assert executor.names("logs") == ["good.log"]
    assert worker.poll() is None
    assert "\x1b" not in executor.event_log()
    assert (executor.base / "failed" / "symlink.json").is_symlink()


def test_name_of_bytes_and_full_length(executor, patiently):
    executor.make_folders()
    pending = os.fsencode(executor.base / "pending")
    for name in (b"\xff\xfe.json", b"l" * 250 + b".json"):
        with open(os.path.join(pending, name), "wb") as file:
            file.write(b'{"command": "echo ran"}')
    executor.start()
    patiently(lambda: executor.names("pending") == [], "an empty pending/")
    assert len([name for name in executor.names("failed") if name.endswith(".reason")]) == 2
    assert executor.names("completed") == []


def test_names_that_are_not_meant(executor):
    executor.make_folders()
    for name in (".hidden.json", "half.json.tmp", "notes.txt", ".json"):
        (executor.base / "pending" / name).write_text('{"command": "echo ran"}')
    executor.start()
    executor.put("good", "true")
    executor.result("good")
    assert executor.names("pending") == [".hidden.json", ".json", "half.json.tmp", "notes.txt"]


@pytest.fixture
def layout(tmp_path):
    """A home with its folders, for what is done without a worker."""
    made = Layout(str(tmp_path / "co"))
    for path in made.directories():
        os.close(opened(path, make=True, notes=[]))
    return made


PATIENT = (
    "import sys; from reconciler.executor import queue\n"
    f"queue.SETTLE = queue.SETTLE_MOST = {10 * LONG}\n"
    "from reconciler.executor.cli import main; sys.exit(main())"
)
"""A worker that waits for the rest of a file for longer than any test takes."""


def test_slow_writer_is_waited_for(executor):
    executor.start(program=[executor.program[0], "-c", PATIENT])
    path = executor.base / "pending" / "slow.json"
    parts = ['{"comm', 'and": "echo ', "ran", '", "timeout": 500', "}"]
    with path.open("w") as file:
        for number, part in enumerate(parts):
            file.write(part)
            file.flush()
            if part != "}":
                # For this one the worker has looked at all that is there.
                executor.put(f"good{number}", "true")
                executor.result(f"good{number}")
                assert path.exists(), "taken before it was whole"
    assert executor.result("slow")["output_tail"] == "ran\n"
    assert executor.names("failed") == []


@pytest.mark.parametrize("ends", [True, False])
def test_a_file_is_waited_for_as_long_as_it_changes(layout, monkeypatch, ends):
    """In all for longer than a broken file is given."""
    now = time.time()
    clock = SimpleNamespace(time=lambda: now, monotonic=lambda: now, sleep=time.sleep)
    monkeypatch.setattr(queue, "time", clock)
    pending = queue.Pending(layout, EventLog(layout.event_log, 0o600))
    path = Path(layout.pending, "slow.json")

    def taken():
        pending.look_again(True)
        return pending.take_next()

    for part in ('{"comm', 'and": "echo ', "ran", '"'):
        with path.open("a") as file:
            file.write(part)
        os.utime(path, (now, now))
        assert taken() is None
        assert path.exists()
        now += 0.9 * queue.SETTLE
    if ends:
        with path.open("a") as file:
            file.write("}")
        claim, command = taken()
        claim.finish()
        assert command.command == "echo ran"
    else:
        assert taken() is None
        assert path.exists()
        now += 0.2 * queue.SETTLE
        assert taken() is None
        assert "not JSON" in Path(layout.failed, "slow.json.reason").read_text()
        assert not path.exists()


def test_writer_that_stops_in_the_middle(executor):
    worker = executor.start(program=[executor.program[0], "-c", PATIENT])
    (executor.base / "pending" / "half.json").write_text('{"command": "ec')
    executor.put("good", "true")
    executor.result("good")
    assert "half.json" in executor.names("pending")
    executor.stop(worker)
    executor.start()
    assert "not JSON" in executor.reason("half.json")
    began = time.monotonic()
    (executor.base / "pending" / "half2.json").write_text('{"command": "ec')
    assert "not JSON" in executor.reason("half2.json")
    assert time.monotonic() - began > 0.9


def test_time_from_the_future_is_not_waited_for(executor):
    executor.start()
    path = executor.base / "pending" / "future.json"
    path.write_text("{")
    os.utime(path, (time.time() + 10**6,) * 2)
    assert "not JSON" in executor.reason("future.json")


def test_result_is_never_overwritten(executor):
    executor.start()
    executor.put("twice", "echo first")
    assert executor.result("twice")["output_tail"] == "first\n"
    before = (executor.base / "completed" / "twice.json").read_bytes()
    for number in ("", ".2"):
        executor.put("twice", "echo second")
        assert "a result of this id exists" in executor.reason(f"twice.json{number}")
    executor.put("other", "echo third", id="twice")
    assert "a result of this id exists" in executor.reason("other.json")
    assert (executor.base / "completed" / "twice.json").read_bytes() == before
    assert (executor.base / "logs" / "twice.log").read_text() == "first\n"


def test_what_has_the_name_of_one_that_was_refused_is_another_one(layout, monkeypatch):
    """Whoever submits may write the next one as soon as the name is free."""
    pending = Path(layout.pending)
    command(id="known")(Path(layout.completed) / "known.json")
    command(id="known")(pending / "next.json")

    def faster(*args):
        try:
            return take(*args)
        except CommandRefused:
            command(id="other")(pending / "next.json")
            raise

    with monkeypatch.context() as patched:
        patched.setattr(queue, "take", faster)
        assert queue.Pending(layout, EventLog(layout.event_log, 0o600)).take_next() is None
    assert sorted(os.listdir(layout.failed)) == ["next.json", "next.json.reason"]
    assert json.loads((pending / "next.json").read_text())["id"] == "other"
