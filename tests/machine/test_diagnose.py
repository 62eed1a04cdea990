"""What ``--diagnose`` sees and names, on a corner of the real machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import LONG, Machine, changes, freeze, until, within

HEAD = "version: 1\nname: demo\nloop: {every: 1h}\n"
FORKS = ("fork", "vfork", "clone", "clone3")
LOOKS = ("openat", "newfstatat", "readlinkat", "getdents64", "pread64", "read")
"""Calls whose number does not depend on how busy the machine is."""


def diagnosed(machine: Machine, spec: Path, *options: str, seconds: float = 10.0) -> dict[str, Any]:
    with within(seconds):
        done = machine.reconcile("--diagnose", spec, "--json", *options)
    assert done.stderr == "", done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (0 if document["healthy"] else 1)
    assert "internal error" not in str(document["unseen"])
    # Whether a cron daemon runs on the machine of the tests is no matter of theirs.
    document["wrong"] = [one for one in document["wrong"] if one["key"] != "cron daemon"]
    return document


def wrong(machine: Machine, spec: Path) -> list[tuple[str, str | None, str | None]]:
    found = diagnosed(machine, spec)["wrong"]
    return [(one["key"], one["mend"], one["follows_from"]) for one in found]


@pytest.fixture
def rich(machine: Machine) -> Path:
    """One of each, up and well."""
    base = machine.base
    spec = machine.spec(
        f"{HEAD}"
        f"directories:\n  d: {{path: {base}/d, mode: '0755'}}\n  in: {{path: {base}/in}}\n"
        "sessions:\n  s: {windows: [{name: one, panes: [{command: [sleep, '90500']}]}]}\n"
        f"processes:\n  p: {{command: [sleep, '90501'], cwd: {base}/d}}\n"
        "  w: {command: [sh, -c, 'echo ready; exec sleep 90502'], session: s}\n"
        f"cron:\n  c: {{schedule: '@reboot', command: 'reconcile --once {base}/spec.yaml'}}\n"
        "  n: {schedule: '0 5 * * *', command: [touch, /dev/null]}\n"
        f"retention:\n  logs: {{path: {base}/d, match: '*.log', action: rotate, "
        "max_file: 10MiB}\n"
        f"  old: {{path: {base}/in, older_than: 30m, action: delete}}\n"
    )
    machine.once(spec)
    return spec


def test_every_section_tells_what_is_so(machine: Machine, rich: Path) -> None:
    (machine.base / "in/one.json").write_text("x")
    stamp = time.strftime("%Y-%m-%d %H:%M:%S")
    text = f"{stamp} INFO begun\n{stamp} ERROR cannot read 12\n{stamp} ERROR cannot read 13\n"
    (machine.base / "d/app.log").write_text(text)
    few = f"checks: {{few: {{queue: {{path: {machine.base}/in, max_count: 0}}}}}}\n"
    found = diagnosed(machine, machine.spec(rich.read_text() + few))
    host = found["host"]
    assert host["memory"]["total"] > 2**20
    assert abs(host["booted"] - (time.time() - host["uptime"])) < 60
    (disk,) = (one for one in found["disks"] if "directory:d" in one["ids"])
    assert (disk["total"], disk["free"] > 0) == (shutil.disk_usage(machine.base).total, True)
    processes = {one["id"]: one for one in found["processes"]}
    (pid,) = machine.running("sleep 90501")
    worker = processes["process:p"]
    assert (worker["pid"], worker["state"]) == (pid, "S")
    assert worker["command"].endswith("sleep 90501")
    assert worker["threads"] == 1
    assert worker["open_files"] == len(os.listdir(f"/proc/{pid}/fd"))
    assert 0 < worker["memory"] < 2**24
    (session,) = found["sessions"]
    assert (session["session"], session["spec"]) == ("s", "demo")
    assert sum(len(window["panes"]) for window in session["windows"]) == 2
    (check,) = found["checks"]
    assert (check["id"], check["result"]) == ("check:few", "failing")
    folders = {one["id"]: one for one in found["folders"]}
    assert folders["directory:in"]["files"] == folders["directory:in"]["changed_last_hour"] == 1
    assert folders["directory:in"]["oldest"]["name"] == "one.json"
    (log,) = (one for one in found["logs"] if one["path"].endswith("app.log"))
    kinds = [(kind["level"], kind["count"], kind["message"]) for kind in log["kinds"]]
    assert kinds == [("error", 2, "ERROR cannot read #")]
    assert log["last"][-1].endswith("ERROR cannot read 13")
    assert {one["id"] for one in found["restarts"]} == {"process:p", "process:w"}
    assert {one["cause"] for one in found["restarts"]} == {"first start"}
    (runner,) = found["reboot"]["runners"]
    assert (runner["sort"], runner["at_boot"]) == ("cron", True)
    assert set(found["reboot"]["lost"]) == {"session:s", "process:p", "process:w"}
    # The line names no state directory, so cron would come to another one than we do.
    keys = [one["key"].partition(" ")[0] for one in found["wrong"]]
    assert keys == ["surroundings", "check:few"]
    assert str(machine.state) in found["wrong"][0]["what"]
    lines = machine.reconcile("--diagnose", rich).stdout.splitlines()
    assert lines[0].startswith("demo (")
    long = [line for line in lines[1:] if len(line) > 80 and " /" not in line]
    assert long == []
    for word in ("host:", "disks:", "processes:", "tmux:", "folders:", "logs:", "reboot:"):
        assert word in lines


def small(machine: Machine, more: str = "") -> Path:
    """A directory and a daemon, up and well."""
    spec = machine.spec(
        f"{HEAD}directories: {{d: {{path: {machine.base}/d, mode: '0755'}}}}\n"
        f"processes: {{p: {{command: [sleep, '90510'], cwd: {machine.base}/d}}}}\n{more}"
    )
    machine.once(spec)
    return spec


def pid_of(machine: Machine, text: str = "sleep 90510") -> int:
    (pid,) = machine.running(text)
    return pid


def test_a_host_that_is_well_says_so(machine: Machine) -> None:
    spec = small(machine)
    found = diagnosed(machine, spec)
    assert (found["wrong"], found["healthy"]) == ([], True)
    done = machine.reconcile("--diagnose", spec)
    assert done.stdout.splitlines()[-1].startswith("Nothing is wrong.")
    assert machine.reconcile("--diagnose", spec, "-q").stdout == ""


def _killed(machine: Machine, spec: Path) -> list[Any]:
    os.kill(pid_of(machine), signal.SIGKILL)
    until(lambda: not machine.running("sleep 90510"))
    return [("process:p", "--once", None)]


def _stopped(machine: Machine, spec: Path) -> list[Any]:
    freeze(pid_of(machine))
    return [("stopped process:p", f"kill -CONT {pid_of(machine)}", None)]


def _missing(machine: Machine, spec: Path) -> list[Any]:
    os.kill(pid_of(machine), signal.SIGKILL)
    until(lambda: not machine.running("sleep 90510"))
    (machine.base / "d").rmdir()
    return [("directory:d", "--once", None), ("process:p", "--once", "directory:d")]


def _closed(machine: Machine, spec: Path) -> list[Any]:
    (machine.base / "d").chmod(0o500)
    return [("directory:d", "--once", None)]


def _damaged(machine: Machine, spec: Path) -> list[Any]:
    (machine.state / "demo/store.db").write_bytes(b"nonsense" * 4096)
    return [("store", "--once", None)]


def _damaged_within(machine: Machine, spec: Path) -> list[Any]:
    store = machine.state / "demo/store.db"
    data = store.read_bytes()
    store.write_bytes(data[:4096] + b"nonsense" * ((len(data) - 4096) // 8))
    return [("store", f"mv {store} {store}.damaged", None)]


def _paused(machine: Machine, spec: Path) -> list[Any]:
    machine.reconcile("--pause", "process:p", spec, "--stop", "--reason", "new disk")
    return [("process:p", "--resume process:p", None)]


@pytest.mark.parametrize(
    "breaks",
    [_killed, _stopped, _missing, _closed, _damaged, _damaged_within, _paused],
    ids=lambda one: one.__name__,
)
def test_what_is_broken_is_named_with_its_cause_and_what_mends_it(
    machine: Machine, breaks: Callable[[Machine, Path], list[Any]]
) -> None:
    spec = small(machine)
    expected = breaks(machine, spec)
    found = wrong(machine, spec)
    words = [(key, mend, cause) for key, mend, cause in expected]
    assert [(key, cause) for key, _, cause in found] == [(key, cause) for key, _, cause in words]
    for (_, mend, _), (_, wanted, _) in zip(found, words, strict=True):
        assert wanted in str(mend)
    # What it names does mend it.
    command = str(found[0][1]).replace("reconcile ", f"{machine.bin}/reconcile ", 1)
    done = machine.run(
        "sh", "-c", command.replace(f"{machine.bin}/{machine.bin}", str(machine.bin))
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if breaks is _paused:
        machine.once(spec)
    assert wrong(machine, spec) == []


def test_given_up_it_says_what_it_said_last(machine: Machine) -> None:
    spec = machine.spec(
        f"{HEAD}processes: {{p: {{command: [sh, -c, 'echo no such queue; exit 3'], "
        "restart: {attempts: 1, backoff: {initial: 50s, max: 50s}}}}\n"
    )
    machine.reconcile("--once", spec)
    found = diagnosed(machine, spec)
    (one,) = found["wrong"]
    assert one["key"] == "process:p"
    assert "gave up" in one["what"]
    assert "no such queue" in one["what"]
    assert "--resume process:p" in one["mend"]


def test_what_could_not_even_begin_says_why(machine: Machine) -> None:
    """It has said nothing; why its last start failed was written down."""
    missing = machine.base / "no-such-file"
    spec = machine.spec(f"processes: {{p: {{command: [sleep, '1048'], env_file: {missing}}}}}\n")
    machine.reconcile("--once", spec)
    (one,) = diagnosed(machine, spec)["wrong"]
    assert one["what"].endswith(f"; there is no env_file {missing}; make it, or leave it out")


def test_stale_files_a_silent_log_and_a_wiped_crontab(machine: Machine) -> None:
    base = machine.base
    spec = small(
        machine,
        f"retention:\n  old: {{path: {base}/d, match: '*.json', older_than: 30m, action: delete}}\n"
        f"  logs: {{path: {base}/d, match: '*.log', action: rotate, max_file: 1MiB}}\n"
        "cron:\n  a: {schedule: '0 5 * * *', command: [touch, /dev/null]}\n"
        "  b: {schedule: '0 6 * * *', command: [touch, /dev/null]}\n",
    )
    for number in range(5):
        (base / f"d/{number}.json").write_text("x")
        os.utime(base / f"d/{number}.json", (time.time() - 7200,) * 2)
    assert wrong(machine, spec)[0][0] == "retention:old"
    machine.once(spec)
    now = time.time()
    stamps = [now - 1800 - 60 * minute for minute in reversed(range(200))]
    form = "%Y-%m-%d %H:%M:%S"
    lines = [f"{time.strftime(form, time.localtime(at))} INFO alive\n" for at in stamps]
    (base / "d/app.log").write_text("".join(lines))
    os.utime(base / "d/app.log", (now - 1800,) * 2)
    (silent,) = diagnosed(machine, spec)["wrong"]
    assert (silent["key"], "silent for 30 min" in silent["what"]) == (
        f"silent {base}/d/app.log",
        True,
    )
    (base / "d/app.log").unlink()
    machine.crontab.unlink()
    (lost,) = diagnosed(machine, spec)["wrong"]
    assert (lost["ids"], "--once" in lost["mend"]) == (["cron:a", "cron:b"], True)


def test_a_watchdog_that_is_declared_and_dead_or_stopped(machine: Machine, looping: Any) -> None:
    spec = machine.base / "spec.yaml"
    loop = f"[{machine.bin}/reconcile, --loop, {spec}, --state-dir, {machine.state}]"
    machine.spec(f"{HEAD}processes: {{keeper: {{command: {loop}}}}}\n")
    machine.once(spec)
    pid = machine.only("reconcile --loop")  # No child of it, which makes a pass.
    until(lambda: diagnosed(machine, spec)["loop"]["running"])
    assert wrong(machine, spec) == []
    freeze(pid)
    (first, *rest) = wrong(machine, spec)
    assert first[:2] == ("stopped process:keeper", f"kill -CONT {pid}")
    assert [cause for *_, cause in rest] == ["stopped process:keeper"] * len(rest)
    os.kill(pid, signal.SIGKILL)
    until(lambda: not machine.running("reconcile --loop"))
    assert [(key, cause) for key, _, cause in wrong(machine, spec)] == [
        ("process:keeper", None),
        ("loop", "process:keeper"),
    ]


def test_nothing_that_hangs_holds_it_up(machine: Machine, rich: Path) -> None:
    for name in ("tmux", "crontab", "systemctl", "journalctl"):
        machine.fake(name, "exec sleep 90520; true")
    told = machine.base / "told"
    script = f'trap ": >{told}; exit" INT; while :; do sleep 0.05; done'
    slow = f"checks: {{slow: {{command: [sh, -c, '{script}'], timeout: 30s}}}}\n"
    spec = machine.spec(rich.read_text() + slow)
    found = diagnosed(machine, spec, seconds=10.0)
    (check,) = found["checks"]
    assert (check["result"], "within 4.5 s" in check["said"]) == ("unanswered", True)
    assert [one["key"] for one in found["doubts"]].count("check:slow") == 1
    # It could take back what it had begun, if it had a processor in the moment that it is given.
    until(lambda: told.exists() or not diagnosed(machine, spec))
    states = {one["id"]: (one["state"], one["reason"]) for one in found["resources"]}
    for ident in ("session:s", "process:w", "cron:c"):
        assert states[ident][0] == "unknown"
        assert "did not end within" in states[ident][1]
    # What does not need them is seen all the same.
    assert states["process:p"][0] == states["directory:d"][0] == "ok"
    assert {one["id"] for one in found["processes"]} == {"process:p"}
    assert any("crontab" in one["reason"] for one in found["unseen"])
    with within(5.0):
        done = machine.reconcile("--status", rich)
        assert done.returncode == 1
    assert "unknown" in done.stdout
    until(lambda: not machine.running("sleep 90520") + machine.running(str(told)))


def test_a_tmux_server_that_is_stopped_is_the_cause(machine: Machine, rich: Path) -> None:
    server = machine.server()
    freeze(server)
    try:
        found = wrong(machine, rich)
        assert ("program tmux", f"kill -CONT {server}", None) in found
        assert ("session:s", None, "program tmux") in found or any(
            cause == "program tmux" for *_, cause in found
        )
    finally:
        os.kill(server, signal.SIGCONT)


def test_it_changes_nothing(machine: Machine, rich: Path) -> None:
    (machine.base / "in").rmdir()
    before = machine.crontab.read_bytes()
    calls = "execve,rename,renameat2,unlink,unlinkat,mkdir,chmod,fchmod,chown,kill,flock,openat"
    trace = machine.traced(calls, *machine.argv("--diagnose", rich))
    assert changes(trace) == []
    assert machine.crontab.read_bytes() == before
    assert not (machine.base / "in").exists()


@pytest.mark.root
def test_a_user_without_rights_is_told_what_could_not_be_seen(machine: Machine) -> None:
    # The folders of pytest are closed to others.
    with tempfile.TemporaryDirectory(prefix="rc-", dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        machine.state = Path(folder) / "state"
        path = shutil.copy(small(machine), folder)
        machine.once(Path(path), "--take-over")
        done = subprocess.run(
            ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
             *map(str, machine.argv("--diagnose", path, "--json"))],
            env={**machine.environ, "HOME": "/nonexistent", "TMUX_TMPDIR": "/nonexistent"},
            capture_output=True, text=True, timeout=LONG, stdin=subprocess.DEVNULL, cwd="/",
        )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    found = json.loads(done.stdout)
    unseen = {one["what"]: one["reason"] for one in found["unseen"]}
    assert "permission denied" in unseen["past"]
    assert "permission denied" in unseen["loop"]
    assert found["host"]["uid"] == 65534


@pytest.mark.namespaces
@pytest.mark.root
def test_a_full_disk_and_one_that_is_read_only(machine: Machine) -> None:
    place = machine.base / "mnt"
    place.mkdir()
    spec = machine.spec(f"{HEAD}directories: {{d: {{path: {place}/d}}}}\n")
    script = (
        f"mount -t tmpfs -o size=64k tmpfs {place} && mkdir {place}/d && "
        f"head -c 100k /dev/zero > {place}/fill 2>/dev/null; [ -z $1 ] || "
        f"mount -o remount,$1 {place}; exec {machine.bin}/reconcile --diagnose {spec} --json "
        f"--state-dir {machine.state}"
    )
    for option, word in (("", "is full"), ("ro", "read only")):
        done = machine.run("unshare", "--mount", "sh", "-c", script, "sh", option)
        assert done.returncode == 1, done.stderr
        (first, *_) = json.loads(done.stdout)["wrong"]
        assert first["key"] == f"disk {place}"
        assert word in first["what"]
        assert str(place) in first["mend"]


def test_a_spec_that_is_wrong_is_no_diagnosis(machine: Machine) -> None:
    done = machine.reconcile("--diagnose", machine.spec("directories: {d: {pth: /x}}"))
    assert done.returncode == 65
    done = machine.reconcile("--diagnose", machine.spec("directories: {}"), "--only", "directory:d")
    assert done.returncode == 64


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.parametrize("mode", ["--diagnose", "--status"])
def test_ten_times_the_resources_take_ten_times_the_calls(machine: Machine, mode: str) -> None:

    def counted(number: int) -> Counter[str]:
        lines = [f"  d{at}: {{path: {machine.base}/{at}}}" for at in range(number)]
        spec = machine.spec("\n".join([HEAD + "directories:", *lines]) + "\n")
        machine.once(spec)
        trace = machine.traced("trace=all", *machine.argv(mode, spec, "--json"))
        return Counter(re.findall(r"(?m)^(?:\d+ +)?(\w+)\(", trace))

    def forks(calls: Counter[str]) -> int:
        return sum(calls[name] for name in FORKS)

    few, many = counted(10), counted(100)
    for _ in range(3):
        if forks(few) != forks(many):  # A look that finds the host just changing is repeated.
            few, many = (min(one, counted(n), key=forks) for one, n in ((few, 10), (many, 100)))
    assert forks(few) == forks(many)
    assert {name: many[name] for name in LOOKS if many[name] > 10 * few[name]} == {}
