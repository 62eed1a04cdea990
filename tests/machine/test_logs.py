"""``--logs``: what managed things say, the last of it and as it comes; ``--status --watch``."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from machine.screen import Screen
from support import LONG, Machine, until

from reconciler.host.outputs import LogOutput, behind


@contextmanager
def running(machine: Machine, *argv: str | Path) -> Iterator[Path]:
    """``reconcile …``, and the file with what it prints; it ends well by Ctrl-C."""
    output = machine.base / "followed"
    with open(output, "wb") as file:
        process = subprocess.Popen(
            [str(word) for word in machine.argv(*argv)], env=machine.environ,
            cwd=machine.base, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
        )  # fmt: skip
    try:
        yield output
        process.send_signal(signal.SIGINT)
        assert process.wait(LONG) == 0
    finally:
        process.kill()
        process.wait()


# -- a file, across its rotation


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "app.log"
    with gzip.open(tmp_path / "app.log.2.gz", "wt") as packed:
        packed.write("".join(f"2026-11-22 10:00:0{n} old {n}\n" for n in range(4)))
    (tmp_path / "app.log.1").write_text("2026-11-23 10:00:00 middle\n  in its stack\n")
    path.write_text("2026-11-24 10:00:00 new\n")
    now = time.time()
    for age, name in ((300, "app.log.2.gz"), (200, "app.log.1"), (100, "app.log")):
        os.utime(tmp_path / name, (now - age, now - age))
    (tmp_path / "app.logs.1").write_text("another log\n")
    (tmp_path / "app.log.9").symlink_to("/etc/passwd")
    return path


def test_the_last_lines_are_read_on_in_what_was_rotated(log: Path) -> None:
    lines = LogOutput(str(log)).last(5, None)
    assert [line[20:] or line for line in lines[:2]] == ["old 2", "old 3"]
    assert lines[2:] == [
        "2026-11-23 10:00:00 middle", "  in its stack", "2026-11-24 10:00:00 new"
    ]  # fmt: skip
    assert len(LogOutput(str(log)).last(30, None)) == 7
    with log.open("a") as file:
        file.write("its last words")
    assert LogOutput(str(log)).last(1, None) == ["its last words"]
    assert LogOutput(str(log), follows=True).last(1, None) == ["2026-11-24 10:00:00 new"]
    assert LogOutput(str(log.parent / "none.log")).last(30, None) == []


def test_since_a_time_goes_by_the_words_of_the_lines(log: Path) -> None:
    def since(text: str) -> list[str]:
        at = time.mktime(time.strptime(text, "%Y-%m-%d %H:%M"))
        return LogOutput(str(log)).last(1, at)

    assert since("2026-11-23 09:00") == [
        "2026-11-23 10:00:00 middle", "  in its stack", "2026-11-24 10:00:00 new"
    ]  # fmt: skip
    assert since("2026-11-23 10:01") == ["2026-11-24 10:00:00 new"], "with it goes its stack"
    # Nothing of a file that was not written to since.
    assert LogOutput(str(log)).last(1, time.time() - 50) == []


@pytest.mark.parametrize("how", ["renamed", "cut", "cut to its last block"])
def test_it_is_followed_across_its_rotation(log: Path, how: str) -> None:
    output = LogOutput(str(log), follows=True)
    with open(log, "ab", buffering=0) as writer:
        writer.write(b"half a li")
        assert output.last(1, None) == ["2026-11-24 10:00:00 new"]
        assert output.more() == []
        writer.write(b"ne\nand one\n")
        assert output.more() == ["half a line", "and one"]
        assert output.more() == []
        writer.write(b"before\n")
        if how == "renamed":
            os.rename(log, log.with_name("app.log.3"))
            writer.write(b"still to the old one\n")
            log.write_text("to the new one\n")
            assert output.more() == ["before", "still to the old one", "to the new one"]
        elif how == "cut":
            assert output.more() == ["before"]
            os.truncate(log, 0)
            writer.write(b"after\n")
            assert output.more() == ["after"]
        else:
            assert output.more() == ["before"]
            kept = b"and one\nbefore\n"
            log.write_bytes(kept + b"after\n")
            assert output.more()[-1:] == ["after"]
    log.unlink()
    assert output.more() == []
    log.write_text("made anew\n")
    assert output.more() == ["made anew"]
    output.close()


def test_a_log_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    output = LogOutput(str(tmp_path / "app.log"), follows=True)
    assert output.last(30, None) == output.more() == []
    (tmp_path / "app.log").write_text("hello\n")
    assert output.more() == ["hello"]


@pytest.mark.parametrize(
    ("before", "now", "new"),
    [
        ([], ["a"], ["a"]),
        (["a", "b"], ["a", "b"], []),
        (["a", "b"], ["b", "c"], ["c"]),
        (["x", "x"], ["x", "x", "x"], ["x"]),
        (["a", "b", "c", "d"], ["c", "d", "c", "d", "e"], ["e"]),
        (["a", "b", "$ l"], ["a", "b", "$ ls", "file", "$"], ["$ ls", "file", "$"]),
        (["a"], ["q", "r"], ["q", "r"]),
    ],
)
def test_what_is_new_in_a_pane(before: list[str], now: list[str], new: list[str]) -> None:
    assert behind(before, now) == new


# -- the command


@pytest.fixture
def spec(machine: Machine) -> Path:
    (machine.base / "token").write_text("hunter2canary")
    say = "echo from the pane; while read -r line; do echo got $line; done"
    return machine.spec(
        "version: 1\nname: demo\nsessions: {s: {session: logs}}\nprocesses:\n"
        f"  d: {{command: [sh, -c, 'echo in the log; echo {{{{ token }}}}; exec sleep 90331'], "
        f"log: {machine.base}/d.log}}\n"
        f"  p: {{command: [sh, -c, '{say}'], session: s}}\n"
        "vars: {token: ''}\n"
        "checks: {c: {command: 'echo all is fine', every: 1h}}\n"
        f"directories: {{dd: {{path: {machine.base}/dd}}}}\n"
        f"retention: {{r: {{path: {machine.base}/dd, match: '*.log', max_file: 1GiB, "
        "action: rotate}}\n"
    )


def test_each_says_what_it_has_said(machine: Machine, spec: Path) -> None:
    secret = ("--set-file", f"token={machine.base}/token")
    machine.once(spec, *secret)
    until(lambda: "hunter2canary" in (machine.base / "d.log").read_text())

    def logs(*argv: str | Path) -> subprocess.CompletedProcess[str]:
        return machine.reconcile("--logs", *argv, *secret)

    assert logs("process:d", spec).stdout == "in the log\n***\n"
    until(lambda: logs("process:p", spec).stdout == "from the pane\n")
    assert logs("check:c", spec).stdout[17:] == "ok: exit status 0: all is fine\n"
    done = logs("process:*", "session:s", spec)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    heads = [line for line in lines if line.startswith("==> ")]
    assert heads[0].startswith("==> session:s (%")
    assert heads[1] == f"==> process:d ({machine.base}/d.log) <=="
    assert len(heads) == len(set(heads)) >= 3
    document = json.loads(logs("*", spec, "--json").stdout)
    rows = [row for row in document["logs"] if not row["id"].startswith("session:")]
    assert [(row["id"], row["lines"][-1][-11:]) for row in rows] == [
        ("process:d", "***"), ("process:p", "om the pane"), ("check:c", "all is fine")
    ]  # fmt: skip
    assert "hunter2canary" not in done.stdout + json.dumps(document)
    (machine.base / "dd/other.log").write_text("by somebody else\n")
    assert logs("retention:r", spec).stdout == "by somebody else\n"
    none = logs("directory:dd", "check:c", spec)
    assert none.returncode == 1
    assert "directory:dd: has no output of its own that is kept" in none.stdout
    assert "all is fine" in none.stdout
    assert logs("process:d", spec, "--since", "2h").stdout.endswith("***\n")
    (machine.base / "d.log").unlink()
    assert f"process:d: there is no {machine.base}/d.log yet" in logs("process:d", spec).stdout
    assert logs("process:x", spec).returncode == 64
    assert "did you mean 'process:" in logs("process:x", spec).stderr
    assert "--logs needs an ID before the SPEC: --logs 'process:*' " in logs(spec).stderr
    assert logs(spec).returncode == 64
    assert logs("process:d", spec, "-f", "--json").returncode == 64
    assert machine.reconcile("--plan", spec, "-f").returncode == 64


def test_a_worker_of_a_spec_that_was_read_before_is_known_without_its_secrets(
    machine: Machine,
) -> None:
    (machine.base / "co/ai_commands/pending").mkdir(parents=True)
    spec = machine.spec(
        "processes: {w: {command: [sh, -c, 'echo said; exec sleep 90332', ai-cmd-executor, worker, "
        f"--home, {machine.base}/co], env: {{A: b}}}}}}\n"
    )
    machine.once(spec)
    until(lambda: machine.reconcile("--logs", "process:w", spec).stdout == "said\n")
    done = machine.reconcile("--metrics", spec)
    assert re.search('reconcile_executor_commands{.*state="pending"} 0', done.stdout)


def test_they_are_followed_until_control_c(machine: Machine, spec: Path) -> None:
    machine.once(spec)
    until(lambda: "in the log" in (machine.base / "d.log").read_text())
    with running(machine, "--logs", "process:*", "-f", spec) as output:
        until(lambda: "in the log" in output.read_text())
        (head,) = until(lambda: re.findall(r"^==> process:p .+ <==$", output.read_text(), re.M))
        pane = head.split()[2][1:]
        with open(machine.base / "d.log", "a") as log:
            log.write("and more\n")
        until(lambda: "and more" in output.read_text())
        machine.run("tmux", "send-keys", "-t", pane, "hello", "Enter")
        until(lambda: "got hello" in output.read_text())
        os.rename(machine.base / "d.log", machine.base / "d.log.1")
        (machine.base / "d.log").write_text("a new file\n")
        until(lambda: "a new file" in output.read_text())
        text = output.read_text()
    assert text.count("in the log") == text.count("and more") == text.count("got hello") == 1


def test_the_status_is_shown_live(machine: Machine) -> None:
    made = machine.base / "d"
    spec = machine.spec(f"version: 1\nname: demo\ndirectories: {{d: {{path: {made}}}}}\n")
    machine.once(spec)
    screen = Screen(machine, *machine.argv("--status", "--watch", spec))
    until(lambda: "1 ok." in screen.text)
    made.rmdir()
    until(lambda: "1 differs." in screen.text)
    assert len(re.findall(r"^demo\b", screen.text, re.M)) == 1, "in the place of the one before"
    spec.write_text("version: 1\nname: demo\ndirectories: {d: {pth: x}}\n")
    until(lambda: "the spec has changed and cannot be used" in screen.text)
    spec.write_text(f"version: 1\nname: demo\ndirectories: {{d: {{path: {machine.base}}}}}\n")
    until(lambda: "1 ok." in screen.text)
    assert screen.cursor_is_seen()
    screen.press("C-c")
    assert screen.end() == 0
    for option in ("--json", "-q"):
        assert machine.reconcile("--status", "--watch", option, spec).returncode == 64


def test_into_a_file_the_status_is_written_where_it_changes(machine: Machine) -> None:
    made = machine.base / "d"
    spec = machine.spec(
        f"version: 1\nname: demo\ndirectories: {{d: {{path: {made}}}}}\n"
        f"processes: {{p: {{command: [sleep, '{machine.mark}']}}}}\n"
    )
    machine.once(spec)
    with running(machine, "--status", "--watch", spec) as output:
        until(lambda: "2 ok." in output.read_text())
        time.sleep(2)
        made.rmdir()
        until(lambda: "1 differs, 1 ok." in output.read_text())
        time.sleep(2)
        # That a process grows older is no change.
        assert output.read_text().count("2 ok.") == 1
        assert output.read_text().count("1 differs, 1 ok.") == 1
