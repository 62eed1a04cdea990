"""What has become of a command, wherever it and its log are by now."""

from __future__ import annotations

import json
import os
import signal
import tarfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from support import LONG, until

from reconciler.executor import (
    check_results,
    create_bash_command,
    get_latest_log,
    results,
    wait_results,
)
from reconciler.executor.cli import main


@pytest.fixture
def home(executor: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AI_CO_HOME", str(executor.home))
    executor.make_folders()
    return Path(executor.home)


def stale(home: Path, command_id: str) -> None:
    """As the retention rule of the spec does it."""
    folder = home / "ai_commands/stale"
    folder.mkdir(exist_ok=True)
    (home / f"ai_commands/pending/{command_id}.json").rename(folder / f"{command_id}.json")


def archived(home: Path, name: str, *logs: str) -> None:
    """As the retention rule of the spec does it."""
    folder = home / "ai_commands/logs"
    with tarfile.open(folder / name, "w:gz") as archive:
        for log in logs:
            archive.add(folder / f"{log}.log", f"{log}.log")
            (folder / f"{log}.log").unlink()


def test_a_known_command_always_has_a_status(executor: Any, home: Path, patiently: Any) -> None:
    assert check_results("none") is None
    create_bash_command("exec sleep 1077", "one")
    create_bash_command("exit 3", "two")
    assert check_results("one") == {"id": "one", "status": "waiting"}
    assert wait_results("one", 0.05) == {"id": "one", "status": "waiting"}
    # As somebody else may have put it there.
    other = {"command": "exit 4", "id": "three"}
    (home / "ai_commands/pending/zz.json").write_text(json.dumps(other))
    assert check_results("three") == {"id": "three", "status": "waiting"}
    worker = executor.start()
    patiently(lambda: (check_results("one") or {})["status"] == "running", "it runs")
    assert (check_results("two") or {})["status"] == "waiting"
    assert "exit_code" not in (check_results("one") or {"exit_code": 0})
    worker.send_signal(signal.SIGTERM)
    worker.wait(LONG)
    ended = check_results("one") or {}
    # Ended by a signal: it has no exit code, and did not go well.
    assert (ended["status"], ended.get("exit_code", 1)) == ("interrupted", 1)
    executor.start()
    assert (wait_results("two", LONG) or {})["exit_code"] == 3
    assert (wait_results("three", LONG) or {})["exit_code"] == 4


def test_one_that_is_taken_while_it_is_looked_for_is_known(
    executor: Any, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file has another name, and moves on between two looks."""
    waits, runs = home / "ai_commands/pending/zz.json", home / "ai_commands/running/id.json"
    listed = results._waits_under_another_name

    def taken_just_before(*given: Any) -> bool:
        waits.rename(runs)
        return listed(*given)

    waits.write_text('{"command": "true", "id": "id"}')
    monkeypatch.setattr(results, "_waits_under_another_name", taken_just_before)
    assert check_results("id") == {"id": "id", "status": "running"}


def test_what_was_put_aside_or_refused_is_told(
    executor: Any, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    create_bash_command("true", "late")
    stale(home, "late")
    found = wait_results("late") or {}
    assert (found["status"], found.get("exit_code", 1)) == ("stale", 1)
    assert found["file"] == str(home / "ai_commands/stale/late.json")
    assert main(["result", "late"]) == 1
    assert "no worker took it" in capsys.readouterr().out
    executor.start()
    (home / "ai_commands/pending/bad.json").write_text("{}")
    refused = wait_results("bad", LONG) or {}
    assert (refused["status"], refused.get("exit_code", 1)) == ("refused", 1)


def test_a_command_may_take_the_place_of_an_earlier_one(executor: Any, home: Path) -> None:
    create_bash_command("echo old", "id")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        create_bash_command("echo new", "id")
    create_bash_command("echo new", "id", overwrite=True)
    worker = executor.start()
    assert (wait_results("id", LONG) or {})["output_tail"] == "new\n"
    with pytest.raises(FileExistsError, match="overwrite=True"):
        create_bash_command("echo newer", "id")
    create_bash_command("exec sleep 1077", "id", True)
    until(lambda: (check_results("id") or {})["status"] == "running")
    # What runs is not replaced.
    with pytest.raises(FileExistsError, match="is running"):
        create_bash_command("echo newest", "id", overwrite=True)
    worker.send_signal(signal.SIGTERM)
    worker.wait(LONG)


def test_of_one_that_was_put_aside_too(executor: Any, home: Path) -> None:
    create_bash_command("echo old", "id")
    stale(home, "id")
    create_bash_command("echo new", "id", overwrite=True)
    assert check_results("id") == {"id": "id", "status": "waiting"}
    assert os.listdir(home / "ai_commands/stale") == []


def test_a_log_is_found_in_its_archive(
    executor: Any, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs = home / "ai_commands/logs"
    for name, age in (("a", 300), ("b", 200), ("c", 100)):
        (logs / f"{name}.log").write_text(f"said by {name}\n" * 3)
        at = time.time() - age
        os.utime(logs / f"{name}.log", (at, at))
    archived(home, "archive_20260101.tar.gz", "a")
    archived(home, "archive_20260102.tar.gz", "c", "b")
    (logs / "archive_20260103.tar.gz").write_bytes(b"no archive")
    os.utime(logs / "archive_20260101.tar.gz", (1, 1))
    for name in "abc":
        assert get_latest_log(name) == f"said by {name}\n" * 3
    assert get_latest_log("b", limit=10) == "said by b\n"
    assert get_latest_log("d") is None
    # The one written last, where all are in archives.
    assert get_latest_log() == "said by c\n" * 3
    assert main(["log", "a"]) == 0
    out, err = capsys.readouterr()
    assert (out, err) == (
        "said by a\n" * 3,
        f"ai-cmd-executor: from {logs}/archive_20260101.tar.gz\n",
    )
    assert main(["log", "d"]) == 1


def test_a_report_of_what_failed(
    executor: Any, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    create_bash_command("exit 3", "bad")
    create_bash_command("true", "good")
    create_bash_command("exit 4", "old")
    create_bash_command("echo never", "late")
    stale(home, "late")
    executor.start()
    for name in ("bad", "good", "old"):
        wait_results(name, LONG)
    at = time.time() - 90_000
    os.utime(home / "ai_commands/completed/old.json", (at, at))
    (home / "ai_commands/completed/odd.json").write_text('{"id": 3}')
    assert main(["report", "--failed", "--since", "1d"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sorted(line.split()[1] for line in lines[:-1]) == ["bad", "late", "odd"]
    assert any("failed (exit code 3)  exit 3" in line for line in lines)
    assert lines[-1] == "3 commands"
    assert main(["report", "--json", "--since", "2d"]) == 0
    found = json.loads(capsys.readouterr().out)["commands"]
    assert {one["id"]: one["status"] for one in found} == {
        "bad": "failed", "good": "succeeded", "old": "failed", "late": "stale", "odd": "unknown",
    }  # fmt: skip
    assert main(["report", "--since", "soon"]) == 64


def test_a_report_names_what_was_refused_for_an_id_that_has_a_result(
    executor: Any, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    create_bash_command("true", "id")
    executor.start()
    wait_results("id", LONG)
    for number in range(2):
        waiting = home / "ai_commands/pending/id.json"
        Path(f"{waiting}.new").write_text('{"command": "true"}')
        os.rename(f"{waiting}.new", waiting)
        # The reason is there before it.
        refused = home / f"ai_commands/failed/id.json{'.2' * number}"
        until(refused.exists)
    assert main(["report", "--json", "--since", "1d"]) == 0
    found = json.loads(capsys.readouterr().out)["commands"]
    assert [(one["id"], one["status"]) for one in found] == [
        ("id", "succeeded"), ("id", "refused"), ("id", "refused"),
    ]  # fmt: skip
    assert {Path(one["file"]).name for one in found[1:]} == {"id.json", "id.json.2"}
    assert main(["report", "--failed", "--since", "1d"]) == 0
    assert capsys.readouterr().out.endswith("2 commands\n")


def test_of_one_whose_worker_is_about_to_let_go(executor: Any, home: Path) -> None:
    """Its result is written, and its file is still in running/."""
    running = home / "ai_commands/running/id.json"
    running.write_text("{}")
    (home / "ai_commands/completed/id.json").write_text('{"status": "succeeded"}')
    with pytest.raises(FileExistsError, match="has a result already"):
        create_bash_command("echo new", "id")
    letting_go = threading.Timer(0.3, running.unlink)
    letting_go.start()
    create_bash_command("echo new", "id", overwrite=True)
    assert check_results("id") == {"id": "id", "status": "waiting"}
    letting_go.join()
