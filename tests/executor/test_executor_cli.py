"""The command line and the Python functions."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import tarfile

import pytest
from support import LONG, late

from reconciler.executor import (
    check_results,
    create_bash_command,
    get_latest_log,
    wait_results,
)
from reconciler.executor.cli import main

BAD_IDS = ["../x", "a/b", "x" * 300, ".", "..", ".hidden", "-x", "a b", "a\n", "\x1b[2J", "é"]


def test_submit_and_wait_exit_with_the_commands_code(executor):
    executor.start()
    done = executor.run("submit", "--wait", "99", "--id", "mine", "echo out; exit 9")
    assert done.returncode == 9
    assert done.stderr == ""
    assert done.stdout.splitlines()[0] == "mine"
    assert "    out" in done.stdout


def test_how_words_become_a_command(executor):
    executor.start()
    for args, output in (
        (["--wait", "echo a  b | tr a c"], "c b\n"),
        (["--wait", "--", "echo", "a  b", "|"], "a  b |\n"),
        (["--wait=99", "printf", "--", "-%s\n", "--wait"], "---wait\n"),
        (["--env", "A=x=y", "--wait", 'echo "$A"'], "x=y\n"),
        (["--cwd", "/", "--wait", "pwd"], "/\n"),
    ):
        done = executor.run("submit", *args)
        assert done.returncode == 0, done.stderr
        assert executor.result(done.stdout.split()[0])["output_tail"] == output


def test_codes_of_timeout_and_signal(executor):
    executor.start()
    timed = executor.run("submit", "--id", "t", "--timeout", "0.2", "--wait", "sleep 300")
    assert timed.returncode == 124
    took = executor.result("t")["seconds"]
    assert took >= 0.2 and not late(took, 9)
    assert executor.run("submit", "--wait", "kill -KILL $$").returncode == 128 + 9


def test_submit_without_a_worker_says_so(executor):
    done = executor.run("submit", "echo later")
    assert done.returncode == 0
    assert f"start one with: ai-cmd-executor start --home {executor.home}" in done.stderr
    command_id = done.stdout.strip()
    assert executor.names("pending") == [f"{command_id}.json"]
    waited = executor.run("result", command_id, "--wait", "0.1")
    assert waited.returncode == 1
    assert "waiting for its turn" in waited.stderr
    executor.start()
    assert executor.result(command_id)["output_tail"] == "later\n"


def test_result_log_and_status(executor):
    executor.start()
    executor.run("submit", "--id", "a", "--wait", "printf 'red \\033[31m\\n'; exit 2")
    shown = executor.run("result", "a")
    assert shown.returncode == 1
    assert "a: failed" in shown.stdout
    assert "\x1b" not in shown.stdout
    assert json.loads(executor.run("result", "a", "--json").stdout)["exit_code"] == 2
    assert executor.run("log", "a").stdout == "red \x1b[31m\n"  # not a terminal: as it is
    executor.run("submit", "--id", "b", "--wait", "echo newest")
    assert executor.run("log").stdout == "newest\n"
    assert executor.run("result", "b").returncode == 0
    found = json.loads(executor.run("status", "--json").stdout)
    assert (found["alive"], found["completed"], found["pending"]) == (True, 2, 0)
    assert executor.run("status").returncode == 0


def test_log_is_followed_to_the_end(executor):
    executor.start()
    gate = executor.folder / "gate"
    executor.put("f", f"echo one; until [ -e {gate} ]; do sleep 0.01; done; echo two")
    log = subprocess.Popen(
        [*executor.program, "log", "f", "-f", "--home", str(executor.home)],
        stdout=subprocess.PIPE,
        env=executor.env,
        text=True,
    )
    with log:
        # Too early for the log: asked for again below.
        assert log.stdout is not None
        line = log.stdout.readline()
        if line:
            assert line == "one\n"
        gate.touch()
        rest = log.stdout.read()
    executor.result("f")
    assert rest == "two\n" if line else log.returncode == 1
    assert executor.run("log", "f", "-f").stdout == "one\ntwo\n"


def test_log_on_a_terminal_is_harmless(executor):
    executor.make_folders()
    (executor.base / "logs" / "t.log").write_bytes(b"\x1b[2Jcleared\r\n\xff\tend\x07\n")
    done = subprocess.run(
        ["script", "-qec", f"{sys.executable} -m reconciler.executor log t", "/dev/null"],
        env={**executor.env, "AI_CO_HOME": str(executor.home)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=LONG,
    )
    assert done.stdout.replace(b"\r\n", b"\n") == "\\x1b[2Jcleared\n\ufffd\tend\\x07\n".encode()


@pytest.mark.parametrize("bad", BAD_IDS)
def test_bad_ids_are_refused_everywhere(executor, bad, capsys):
    executor.make_folders()
    (executor.home / "x.json").write_text("{}")
    home = ["--home", str(executor.home)]
    for args in (["submit", f"--id={bad}", "true"], ["result", "--", bad], ["log", "--", bad]):
        assert main([*home, *args]) == 64, args
        said = capsys.readouterr().err
        assert "beginning with a letter or a digit" in said
        assert said.rstrip("\n").isprintable()
    for call in (check_results, get_latest_log):
        with pytest.raises(ValueError, match="not allowed"):
            call(bad, home=str(executor.home))
    with pytest.raises(ValueError, match="not allowed"):
        create_bash_command("true", bad, home=str(executor.home))
    assert executor.names("pending") == []


def test_nul_in_an_id(executor):
    with pytest.raises(ValueError, match="not allowed"):
        create_bash_command("true", "a\0b", home=str(executor.home))
    assert not executor.home.exists()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "required"),
        (["nonsense"], "invalid choice"),
        (["submit"], '"command" is empty'),
        (["submit", "--timeout", "0", "true"], "above 0"),
        (["submit", "--timeout", "nan", "true"], "above 0"),
        (["submit", "--env", "secret", "true"], "NAME=VALUE"),
        (["result"], "required"),
        (["worker", "--nonsense"], "unrecognized"),
        (["--home", "", "status"], "empty"),
    ],
)
def test_wrong_usage_is_64(executor, args, words, capsys):
    assert main([*([] if "--home" in args else ["--home", str(executor.home)]), *args]) == 64
    said = capsys.readouterr().err
    assert words in said
    assert "secret" not in said


def test_used_ids_are_refused(executor):
    executor.run("submit", "--id", "a", "echo a")
    again = executor.run("submit", "--id", "a", "echo b")
    assert again.returncode == 1
    assert "waiting already" in again.stderr
    assert "--overwrite" in again.stderr
    assert executor.run("submit", "--id", "a", "--overwrite", "echo c").returncode == 0
    executor.start()
    assert executor.result("a")["output_tail"] == "c\n"
    again = executor.run("submit", "--id", "a", "echo b")
    assert again.returncode == 1
    assert "has a result already" in again.stderr
    assert executor.names("pending") == []
    assert executor.names("failed") == []


def test_refused_file_has_a_result_that_says_so(executor):
    executor.start()
    executor.put("r", timeout=5)
    executor.reason("r.json")
    done = executor.run("result", "r")
    assert done.returncode == 1
    assert "refused" in done.stdout
    assert 'no "command"' in done.stdout


def test_home_that_cannot_be(executor):
    executor.folder.joinpath("co").write_text("a file")
    for args in (["worker"], ["submit", "true"], ["status"], ["test"]):
        done = executor.run(*args)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert str(executor.home) in done.stderr + done.stdout, args


def test_test_with_a_worker(executor):
    executor.start()
    done = executor.run("test")
    assert done.returncode == 0
    assert "works" in done.stdout
    for name in ("pending", "completed", "logs", "failed"):
        assert executor.names(name) == []


def test_test_without_a_worker_takes_its_command_back(executor):
    executor.make_folders()
    done = executor.run("test", "--timeout", "0.3")
    assert done.returncode == 1
    assert "no worker" in done.stderr
    assert f"start one with: ai-cmd-executor start --home {executor.home}" in done.stderr
    assert executor.names("pending") == []


def test_test_of_the_newest_archives(executor):
    executor.make_folders()
    logs = executor.base / "logs"
    for day in range(10, 19):
        path = logs / f"archive_202601{day}.tar.gz"
        path.write_bytes(gzip.compress(b"x" * 3_000_000))
        os.utime(path, (day, day))
    done = executor.run("test", "--archives")
    assert (done.returncode, done.stdout) == (0, "7 archives of logs can be read\n")
    # Only the end of it is lost; then a byte in the midst of one; the oldest are not looked at.
    whole = (logs / "archive_20260115.tar.gz").read_bytes()
    wrong = bytearray(whole)
    wrong[len(wrong) // 2] ^= 0xFF
    for broken in (whole[:-6], bytes(wrong), b"no archive"):
        (logs / "archive_20260115.tar.gz").write_bytes(broken)
        os.utime(logs / "archive_20260115.tar.gz", (15, 15))
        done = executor.run("test", "--archives")
        assert done.returncode == 1, broken[:20]
        assert f"{logs}/archive_20260115.tar.gz cannot be read: " in done.stderr
    os.utime(logs / "archive_20260115.tar.gz", (1, 1))
    assert executor.run("test", "--archives").returncode == 0


def test_an_archive_of_headers_alone_holds_no_log(executor):
    executor.make_folders()
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 512
    header = info.tobuf(tarfile.USTAR_FORMAT) + b"24 comment=aaaaaaaaaaaa\n".ljust(512, b"\0")
    (executor.base / "logs/a.tar.gz").write_bytes(gzip.compress(header * 3000 + bytes(10240)))
    done = executor.run("log", "some")
    assert (done.returncode, done.stdout) == (1, "")
    assert "there is no log of some in" in done.stderr and len(done.stderr.splitlines()) == 1


def test_test_of_a_busy_and_of_a_dead_worker(executor, patiently):
    worker = executor.start()
    executor.put("long", "sleep 300")
    patiently(lambda: executor.heartbeat()["command"] == "long", "a busy worker")
    done = executor.run("test", "--timeout", "0.3")
    assert done.returncode == 1
    assert "busy with long" in done.stderr
    done = executor.run("test", "--timeout", "0.3", "--busy-ok")
    assert done.returncode == 0
    assert "works, and runs another command" in done.stdout
    executor.stop(worker)
    assert executor.run("status").returncode == 1
    worker = executor.start()
    worker.kill()
    worker.wait()
    done = executor.run("status")
    assert done.returncode == 1
    assert f"pid {worker.pid}" in done.stdout


def test_closed_pipe_and_no_output(executor):
    executor.make_folders()
    (executor.base / "logs" / "big.log").write_text("x\n" * 10**6)
    line = f"{sys.executable} -m reconciler.executor --home {executor.home}"
    for command in (f"{line} log big | head -1", f"{line} status >&-", f"{line} log big >&- 2>&-"):
        done = subprocess.run(
            ["bash", "-c", command], env=executor.env, capture_output=True, text=True, timeout=LONG
        )
        assert "Traceback" not in done.stderr, command
        assert "Exception" not in done.stderr, command


def test_python_functions(executor, monkeypatch, patiently):
    executor.start()
    monkeypatch.setenv("AI_CO_HOME", str(executor.home))
    assert check_results("none") is None
    assert get_latest_log() is None
    command_id = create_bash_command("echo $A; pwd", env={"A": "b"}, cwd="/", timeout=999)
    found = wait_results(command_id, LONG)
    assert check_results(command_id) == found
    assert found["output_tail"] == "b\n/\n"
    assert found["timeout"] == 999
    assert get_latest_log() == get_latest_log(command_id) == "b\n/\n"
    with pytest.raises(FileExistsError):
        create_bash_command("true", command_id)
    with pytest.raises(ValueError, match="absolute"):
        create_bash_command("true", cwd="here")
    with pytest.raises(ValueError, match="not a command"):
        create_bash_command("true", env={"A": object()})
    ids = [create_bash_command("true") for _ in range(20)]
    assert ids == sorted(ids)
    assert len(set(ids)) == 20


def test_importing_it_is_cheap(free):
    code = "import sys, reconciler.executor as e; print(*[m for m in sys.modules if m in %r])"
    heavy = ["json", "subprocess", "argparse", "ctypes", "typing", "re"]
    clean = [sys.executable, "-S", "-c", code % heavy]
    assert subprocess.run(clean, capture_output=True, text=True).stdout == "\n"
