"""Workers that are stopped, killed or doubled, and folders that go away."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import LONG, late


def long_command(folder, name, end="sleep 300"):
    """Counts its runs in a file, tells its process number, and does not end."""
    return f"echo ran >> {folder}/{name}.runs; echo output; echo $$ > {folder}/{name}.pid; {end}"


def runs(folder, name):
    return len((folder / f"{name}.runs").read_text().split())


def test_killed_worker_leaves_interrupted_never_run_twice(executor, alive, orphan, patiently):
    folder = executor.folder
    first = executor.start()
    # Ignores TERM, and so does what it started: the group needs KILL.
    executor.put("k", 'trap "" TERM; ' + long_command(folder, "k", "while :; do sleep 1; done"))
    executor.put("next", "echo next")
    pid = orphan(executor.pid_from(folder / "k.pid"))
    patiently(lambda: executor.names("running") == ["k.json", "k.lock", "k.pid"], "who it is")
    executor.stop(first, signal.SIGKILL)
    assert alive(pid)
    assert executor.names("running") == ["k.json", "k.lock", "k.pid"]

    executor.start()
    found = executor.result("k")
    assert found["status"] == "interrupted"
    assert "worker was killed" in found["reason"]
    assert (found["exit_code"], found["signal"], found["end"]) == (None, None, None)
    assert found["output_tail"] == "output\n"
    assert found["start"]
    assert found["command"]
    assert executor.result("next")["output_tail"] == "next\n"
    assert not alive(pid)
    assert runs(folder, "k") == 1
    patiently(lambda: executor.names("running") == [], "an empty running/")


def test_stranger_with_the_same_number_is_not_touched(executor, alive, orphan):
    """The process file names a living process, but not the one that was recorded."""
    stranger = subprocess.Popen(["sleep", "300"], start_new_session=True)
    orphan(stranger.pid)
    executor.make_folders()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    running = executor.base / "running"
    for name, ticks, boot_id in (("a", 12345, boot), ("b", _ticks(stranger.pid), "another")):
        (running / f"{name}.json").write_text('{"command": "sleep 300"}')
        (running / f"{name}.pid").write_text(
            json.dumps({"pid": stranger.pid, "start_ticks": ticks, "boot_id": boot_id})
        )
    (running / "c.json").write_text("what is this")
    (running / "c.pid").write_text("[" * 9999)
    executor.start()
    for name in ("a", "b", "c"):
        assert executor.result(name)["status"] == "interrupted"
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()


def _ticks(pid):
    text = Path(f"/proc/{pid}/stat").read_text()
    return int(text[text.rindex(")") + 2 :].split()[19])


def test_killed_between_result_and_tidying(executor, patiently):
    executor.make_folders()
    (executor.base / "running" / "x.json").write_text('{"command": "echo ran"}')
    (executor.base / "completed" / "x.json").write_text('{"id": "x", "mark": 1}')
    (executor.base / "running" / "x.lock").touch(0o600)
    (executor.base / "running" / "y.lock").touch(0o600)  # killed before it could take y
    executor.start()
    patiently(lambda: executor.names("running") == [], "an empty running/")
    assert executor.result("x") == {"id": "x", "mark": 1}


def test_killed_while_writing_a_result(executor):
    """What is being written has no name yet."""
    code = (
        "import os, signal, sys; from reconciler.host import place\n"
        "real = place.write_all\n"
        "def killed(handle, data):\n"
        "    if b'exit_code' not in data:\n"
        "        return real(handle, data)\n"
        "    os.write(handle, data[:16])\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "place.write_all = killed\n"
        "from reconciler.executor.cli import main; sys.exit(main())"
    )
    worker = executor.start(program=[executor.program[0], "-c", code])
    executor.put("x", "true")
    assert worker.wait(LONG) == -signal.SIGKILL
    assert executor.names("completed") == []
    executor.start()
    assert executor.result("x")["status"] == "interrupted"
    assert executor.names("completed") == ["x.json"]


def test_second_worker_leaves_the_first_ones_command_alone(executor, patiently):
    gate = executor.folder / "gate"
    executor.start()
    executor.put("slow", f"until [ -e {gate} ]; do sleep 0.01; done; echo done")
    patiently(lambda: "slow.pid" in executor.names("running"), "a running command")
    executor.start()
    executor.put("other", "echo other")  # only the second one has time for it
    assert executor.result("other")["output_tail"] == "other\n"
    assert not (executor.base / "completed" / "slow.json").exists()
    gate.touch()
    found = executor.result("slow")
    assert found["status"] == "succeeded"
    assert found["output_tail"] == "done\n"


def test_second_worker_starts_while_the_first_one_takes_a_file(executor, patiently):
    """Just behind the move to running/ it must not look like one of a dead worker."""
    code = (
        "import os, sys, time\n"
        "real = os.rename\n"
        "def slow(source, target, **folders):\n"
        "    real(source, target, **folders)\n"
        "    time.sleep(1.0 if target == 'x.json' else 0)\n"
        "os.rename = slow\n"
        "from reconciler.executor.cli import main; sys.exit(main())"
    )
    executor.start(program=[executor.program[0], "-c", code])
    executor.put("x", "echo ran")
    patiently(lambda: "x.json" in executor.names("running"), "just moved")
    executor.start()
    assert executor.result("x")["status"] == "succeeded"
    assert "cannot be recovered" not in executor.event_log()


def test_survivor_records_what_a_killed_one_left(executor, orphan, alive, patiently):
    folder = executor.folder
    first = executor.start()
    executor.put("k", long_command(folder, "k"))
    pid = orphan(executor.pid_from(folder / "k.pid"))
    patiently(lambda: "k.pid" in executor.names("running"), "who it is")
    executor.start()
    executor.stop(first, signal.SIGKILL)
    assert executor.result("k")["status"] == "interrupted"
    assert runs(folder, "k") == 1
    assert not alive(pid)


def test_two_workers_share_without_running_anything_twice(executor):
    both = [executor.start(), executor.start()]
    folder = executor.folder
    runs_file = folder / "runs"
    names = [f"n{number:03d}" for number in range(200)]
    # Each of the first two ends once the other one runs as well.
    met = {"n000": "n001", "n001": "n000"}
    for name in names:
        wait = f"touch {folder}/{name}; until [ -e {folder}/{met.get(name)} ]; do sleep 0.01; done"
        executor.put(name, f"echo {name} >> {runs_file}" + (f"; {wait}" if name in met else ""))
    workers = {name: executor.result(name)["worker"] for name in names}
    assert sorted(runs_file.read_text().split()) == names
    pids = {worker.pid for worker in both}
    assert {workers[name] for name in met} == set(workers.values()) == pids
    assert executor.names("failed") == []


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_stop_during_a_command(executor, alive, how, orphan):
    folder = executor.folder
    worker = executor.start()
    executor.put("s", long_command(folder, "s", "sleep 300 & sleep 301; echo never"))
    executor.put("later", "echo later")
    pid = orphan(executor.pid_from(folder / "s.pid"))
    assert executor.stop(worker, how) == 0
    found = executor.result("s")
    assert found["status"] == "interrupted"
    assert "stopped" in found["reason"]
    assert found["output_tail"] == "output\n"
    assert found["signal"] == signal.SIGTERM
    assert not alive(pid)
    assert executor.names("running") == []
    assert executor.names("pending") == ["later.json"]
    assert executor.heartbeat()["state"] == "stopped"
    executor.start()
    assert executor.result("later")["output_tail"] == "later\n"
    assert runs(folder, "s") == 1


def test_stop_ends_even_what_ignores_term(executor, alive, orphan):
    worker = executor.start()
    folder = executor.folder
    executor.put(
        "s",
        # The leader goes at TERM; what it started does not, and must not survive it.
        f"bash -c 'trap \"\" TERM; echo $$ > {folder}/c.pid; while :; do sleep 0.1; done' & "
        f"{long_command(folder, 's', 'wait')}",
    )
    pids = [orphan(executor.pid_from(folder / name)) for name in ("c.pid", "s.pid")]
    assert executor.stop(worker) == 0
    found = executor.result("s")
    assert found["signal"] == signal.SIGTERM
    assert "KILL" in found["reason"]
    assert not late(found["seconds"], 10)
    assert not any(alive(pid) for pid in pids)


def test_idle_worker_stops_at_once(executor):
    worker = executor.start()
    assert executor.stop(worker) == 0
    assert "stopped" in executor.event_log().splitlines()[-1]


@pytest.mark.parametrize("create", [False, True])
def test_log_is_opened_again_after_rotation(executor, create):
    executor.start()
    log = executor.home / "logs" / "command_executor.log"
    executor.put("one", "true")
    executor.result("one")
    log.rename(log.with_suffix(".1"))
    if create:
        log.touch()
    executor.put("two", "true")
    executor.put("three", "true")
    executor.result("three")
    assert "run one," in log.with_suffix(".1").read_text()
    assert "run two," in log.read_text()
    assert "run two," not in log.with_suffix(".1").read_text()
    for line in log.read_text().splitlines():
        assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d (INFO|ERROR) ", line)


def test_removed_folders_are_left_to_their_owner_and_no_command_suffers(executor, patiently):
    """Whoever keeps the host in order must see what is gone; only a command's own needs count."""
    worker = executor.start()
    for name in ("pending", "running", "completed", "failed", "logs", ""):
        path = executor.base / name
        patiently(lambda gone=path: remove(gone), "removed")
        if name:
            beat = executor.heartbeat()["epoch"]
            patiently(lambda seen=beat: executor.heartbeat()["epoch"] > seen, "a later heartbeat")
        assert not path.exists(), f"{name} is back"
        executor.put(f"after-{name}", "echo after")
        executor.put(f"bad-{name}", timeout=1)
        assert executor.result(f"after-{name}")["output_tail"] == "after\n"
        assert 'no "command"' in executor.reason(f"bad-{name}.json")
    assert worker.poll() is None


def remove(path):
    """The worker may write into it meanwhile."""
    return subprocess.run(["rm", "-rf", str(path)]).returncode == 0


def test_the_event_log_does_not_bring_its_folder_back(executor, patiently):
    executor.start()
    patiently(lambda: remove(executor.home / "logs"), "removed")
    executor.put("a", "echo a")
    executor.result("a")
    assert not (executor.home / "logs").exists()
    (executor.home / "logs").mkdir()
    executor.put("b", "echo b")
    executor.result("b")
    patiently(lambda: "done b" in executor.event_log(), "the log goes on")


def test_new_pending_is_watched_like_the_old_one(executor, patiently):
    """Its inode can have the same number as the removed one."""
    executor.start()
    taken = []
    for number in range(5):
        pending = executor.base / "pending"
        pending.rename(executor.base / f"old{number}")
        pending.mkdir()
        pending.rmdir()
        pending.mkdir()
        began = time.monotonic()
        executor.put(f"n{number}", "true")
        executor.result(f"n{number}")
        taken.append(time.monotonic() - began)
    assert not late(sorted(taken)[2], 1.0), taken  # the heartbeat alone would find them 2 s apart


def test_replaced_folder_is_noticed(executor, patiently):
    executor.start()
    pending = executor.base / "pending"
    pending.rename(executor.base / "old")
    pending.mkdir()
    executor.put("new", "echo new")
    assert executor.result("new")["output_tail"] == "new\n"
    executor.put("newer", "echo newer")
    assert executor.result("newer")["output_tail"] == "newer\n"


def test_result_that_cannot_be_written_is_kept(executor, patiently):
    gate = executor.folder / "gate"
    worker = executor.start()
    executor.put("r", f"until [ -e {gate} ]; do sleep 0.01; done; echo kept; exit 5")
    executor.put("next", "true")
    patiently(lambda: "r.pid" in executor.names("running"), "a running command")
    completed = executor.base / "completed"
    completed.rmdir()
    completed.write_text("in the way")
    gate.touch()
    patiently(lambda: executor.heartbeat()["state"] == "blocked", "a state that says so")
    assert executor.names("pending") == ["next.json"], "it must not go on without results"
    completed.unlink()
    found = executor.result("r")
    assert found["exit_code"] == 5
    assert found["output_tail"] == "kept\n"
    executor.result("next")
    assert executor.event_log().count("cannot be written, trying again") == 1
    assert worker.poll() is None


def test_pending_that_cannot_be_read_is_said_once(executor, patiently):
    worker = executor.start()
    pending = executor.base / "pending"

    def replace():
        try:  # the worker may be quicker and make it again
            pending.rmdir()
            pending.write_text("in the way")
        except OSError:
            return False
        return True

    patiently(replace, "a file in the place of the directory")
    patiently(lambda: "pending/ is gone" in executor.event_log(), "a line about it")
    size = len(executor.event_log())
    beat = executor.heartbeat()["epoch"]
    patiently(lambda: executor.heartbeat()["epoch"] > beat, "the heart goes on")
    assert len(executor.event_log()) < size + 500
    assert worker.poll() is None
    pending.unlink()
    executor.put("then", "true")
    executor.result("then")


@pytest.mark.parametrize(
    "args",
    [
        ["worker", "--home={home}"],
        ["--home", "{home}", "worker"],
        ["worker", "--home", "{home}/../co/"],
        ["worker"],
    ],
)
def test_command_line_is_always_the_same(executor, args):
    executor.env["AI_CO_HOME"] = str(executor.home)
    worker = executor.start(*(arg.format(home=executor.home) for arg in args))
    line = Path(f"/proc/{worker.pid}/cmdline").read_text().rstrip("\0").split("\0")
    assert line[1:] == ["-m", "reconciler.executor", "worker", "--home", str(executor.home)]


def test_command_line_of_the_installed_command(executor):
    script = executor.folder / "ai-cmd-executor"
    script.write_text(
        f"#!{sys.executable}\nimport sys\nfrom reconciler.executor.cli import main\n"
        "if __name__ == '__main__':\n    sys.exit(main())\n"
    )
    script.chmod(0o755)
    worker = executor.start("worker", f"--home={executor.home}", program=[str(script)])
    line = Path(f"/proc/{worker.pid}/cmdline").read_text().rstrip("\0").split("\0")
    assert line[1:] == [str(script), "worker", "--home", str(executor.home)]


def test_modes_of_what_is_there_stay(executor):
    executor.make_folders()
    (executor.base / "pending").chmod(0o700)
    executor.start()
    executor.put("m", "true")
    executor.result("m")
    assert (executor.base / "pending").stat().st_mode & 0o777 == 0o700
