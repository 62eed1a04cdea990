"""What a process is started with and how it ends, as public supervisord files and units have it."""

from __future__ import annotations

import grp
import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from machine.disposable import DisposableHost
from ruamel.yaml import YAML
from support import CHECKOUT, Machine, until

from reconciler.host import cgroup

CASES = {
    path.stem: YAML(typ="safe").load(path)
    for path in sorted((CHECKOUT / "tests/cases/processes").glob("*.yaml"))
}
MINE = [name for name, case in CASES.items() if os.geteuid() == 0 or not case.get("root")]


def placed(value: Any, base: Path) -> Any:
    """With the test's own folder in each text."""
    if isinstance(value, dict):
        return {key: placed(one, base) for key, one in value.items()}
    if isinstance(value, list):
        return [placed(one, base) for one in value]
    return value.replace("{base}", str(base)) if isinstance(value, str) else value


def told(pid: int, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """What the kernel says of a process, as far as somebody wants to know."""
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
    environ = dict(
        one.split("=", 1) for one in Path(f"/proc/{pid}/environ").read_text().split("\0") if one
    )
    gids = {status["Gid"].split()[0], *status["Groups"].split()}
    found = {
        "umask": status["Umask"].strip(),
        "nice": os.getpriority(os.PRIO_PROCESS, pid),
        "oom_score_adj": Path(f"/proc/{pid}/oom_score_adj").read_text().strip(),
        "cpus": sorted(os.sched_getaffinity(pid)),
        "groups": sorted(grp.getgrgid(int(gid)).gr_name for gid in gids),
        "streams": [os.readlink(f"/proc/{pid}/fd/{number}") for number in (1, 2)],
        "environ": {name: environ.get(name) for name in wanted.get("environ", ())},
        "rlimits": {
            name: " ".join(line[26:].split()[:2])
            for name in wanted.get("rlimits", ())
            for line in limits
            if line.startswith(name)
        },
    }
    return {name: found[name] for name in wanted}


@pytest.fixture
def all_of_them(machine: Machine) -> tuple[Machine, Path]:
    """One spec with all cases, each a process that sleeps."""
    processes = {}
    for name in MINE:
        case = placed(CASES[name], machine.base)
        for file, text in case.get("files", {}).items():
            (machine.base / file).write_text(text)
            (machine.base / file).chmod(0o600)
        processes[name] = {"command": ["sleep", machine.mark], **case["process"]}
    return machine, machine.spec("processes: " + json.dumps(processes))


def pid_of(machine: Machine, name: str) -> int:
    records = (machine.state / "demo/run").glob(f"{name}.*[0-9]")
    newest = max(records, key=lambda record: record.stat().st_mtime_ns)
    return int(newest.name.rpartition(".")[2])


def test_each_field_is_what_the_kernel_says(all_of_them: tuple[Machine, Path]) -> None:
    machine, spec = all_of_them
    machine.once(spec)
    wrong = {}
    for name in MINE:
        wanted = placed(CASES[name]["seen"], machine.base)
        found = told(pid_of(machine, name), wanted)
        if found != wanted:
            wrong[name] = found
    assert wrong == {}
    machine.converged(spec)


CHANGES = {
    "umask: '0077'": True,
    "nice: 3": True,
    "cpus: 0": True,
    "oom_score_adj: 100": True,
    "rlimits: {core: 0}": True,
    "stderr: BASE/errors.log": True,
    "group: GROUP": True,
    "env: {A: b}, secret: [A]": True,
    "cgroup: {pids_max: 9}": True,
    "env_file: BASE/x.env": True,
    "restart: {when: on_failure}": False,
    "log: {max_size: 1MiB}": False,
}
"""What is added to a process that runs; is it another process then?"""


def test_a_change_of_what_it_was_started_with_restarts_it(machine: Machine) -> None:
    group = grp.getgrgid(os.getegid()).gr_name
    (machine.base / "x.env").write_text("")

    def spec(added: bool) -> Path:
        text = "processes:\n"
        for number, field in enumerate(CHANGES):
            more = f", {field}" if added else ""
            text += f"  p{number}: {{command: [sleep, '{machine.mark}']{more}}}\n"
        return machine.spec(text.replace("BASE", str(machine.base)).replace("GROUP", group))

    machine.once(spec(False))
    verbs = {step["id"]: step["verb"] for step in machine.plan(spec(True))["steps"]}
    wanted = {f"process:p{at}": "restart" for at, one in enumerate(CHANGES.values()) if one}
    assert verbs == wanted


def ends(machine: Machine, when: str, command: str, more: str = "") -> Path:
    log = machine.base / "runs"
    return machine.spec(
        f"processes: {{one: {{command: 'echo x >> {log}; {command}', "
        f"restart: {{when: {when}{more}}}}}}}"
    )


def runs(machine: Machine) -> int:
    path = machine.base / "runs"
    return len(path.read_text().split()) if path.exists() else 0


@pytest.mark.parametrize(
    ("when", "command", "more", "note"),
    [
        ("on_failure", "exit 0", "", "finished (exit status 0)"),
        ("on_failure", "exit 3", ", success: [0, 3]", "finished (exit status 3)"),
        ("on_failure", "kill -TERM $$", ", success: [TERM]", "finished (killed by SIGTERM)"),
        ("never", "exit 0", "", "finished (exit status 0)"),
    ],
)
def test_what_has_ended_as_it_should_is_finished(
    machine: Machine, when: str, command: str, more: str, note: str
) -> None:
    spec = ends(machine, when, command, more)
    machine.once(spec)
    plan = until(lambda: (now := machine.plan(spec))["notes"] and now)
    assert (plan["steps"], plan["failing"]) == ([], [])
    assert [one["reason"] for one in plan["notes"]] == [note]
    machine.converged(spec)
    assert runs(machine) == 1
    # Another definition is another process.
    machine.once(ends(machine, when, "true; " + command, more))
    assert runs(machine) == 2


def test_what_has_failed_is_started_again_unless_it_is_to_run_once(machine: Machine) -> None:
    spec = ends(machine, "never", "exit 3")
    done = until(lambda: (now := machine.reconcile("--once", spec)).returncode == 1 and now)
    assert "exit status 3; restart.when is never, so it is not started again" in done.stdout
    machine.reconcile("--once", spec)
    assert runs(machine) == 1
    spec = ends(machine, "on_failure", "exit 3")
    for _ in range(2):
        assert "exited right after start" in machine.reconcile("--once", spec).stdout
    assert runs(machine) == 3


def test_one_that_has_finished_stays_so_while_another_instance_is_started(
    machine: Machine,
) -> None:
    # The first to make the folder finishes, the other one has failed, again and again.
    spec = ends(machine, "on_failure", f"mkdir {machine.base}/first")
    spec.write_text(spec.read_text().replace("{one: {", "{one: {instances: 2, "))

    def started(number: int) -> bool:
        if runs(machine) < number:
            machine.reconcile("--resume", "process:one", spec)
            report = json.loads(machine.reconcile("--once", spec, "--json").stdout)
            # What was started comes to its first line only later.
            until(lambda: not report["steps"] or runs(machine) >= number)
        return runs(machine) == number

    for starts in (2, 3, 4):
        until(lambda starts=starts: started(starts))
    (machine.base / "first").rmdir()
    until(lambda: machine.reconcile("--once", spec).returncode == 0)
    assert "finished" in machine.plan(spec)["notes"][0]["reason"]
    machine.converged(spec)


@pytest.mark.parametrize("place", ["", ", session: s"])
def test_one_that_finishes_while_the_others_are_started_is_not_forgotten(
    machine: Machine, place: str
) -> None:
    log = machine.base / "runs"
    spec = machine.spec(
        f"sessions: {{s: {{}}}}\nprocesses: {{one: {{command: 'echo x >> {log}', instances: 6, "
        f"restart: {{when: on_failure}}{place}}}}}"
    )
    machine.reconcile("--once", spec)
    until(lambda: runs(machine) >= 6)
    until(lambda: not machine.plan(spec)["steps"])
    machine.once(spec)
    assert runs(machine) == 6


def waiters(pid: int) -> list[int]:
    parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return [parent] if b"waiter" in Path(f"/proc/{parent}/cmdline").read_bytes() else []


def test_an_end_that_nobody_has_seen_is_a_failure(machine: Machine) -> None:
    spec = machine.spec(
        f"processes: {{one: {{command: [sleep, '{machine.mark}'], restart: {{when: on_failure}}}}}}"
    )
    machine.once(spec)
    pid = pid_of(machine, "one")
    (waiter,) = waiters(pid)
    os.kill(waiter, signal.SIGKILL)
    until(lambda: not waiters(pid))
    os.kill(pid, signal.SIGKILL)
    until(lambda: not machine.running(f"sleep {machine.mark}"))
    assert machine.steps(spec) == ["process:one"]


def test_what_we_stop_ourselves_has_not_finished(machine: Machine, looping: Any) -> None:
    # It ends with status 0 when it is asked to, but only after a while.
    script = machine.base / "polite"
    script.write_text("trap 'sleep 0.5; exit 0' TERM; while :; do sleep 0.1; done")
    spec = machine.spec(
        f"processes: {{one: {{command: [sh, {script}], restart: {{when: on_failure}}, "
        "limits: {age: 1s}}}\nloop: {every: 1s}"
    )
    machine.once(spec)
    first = machine.running(f"sh {script}")
    looping(spec)
    until(lambda: (now := machine.running(f"sh {script}")) and now != first)


def test_in_a_session_tmux_is_the_one_who_waits(machine: Machine) -> None:
    text = "sessions: {{s: {{}}}}\nprocesses: {{one: {{command: '{}', session: s, {}}}}}"
    when = "restart: {when: on_failure}, umask: '0027', nice: 4"
    spec = machine.spec(
        text.format(f"umask > {machine.base}/seen; nice >> {machine.base}/seen", when)
    )
    machine.once(spec)
    seen = machine.base / "seen"
    until(lambda: seen.exists() and seen.read_text().split() == ["0027", "4"])
    notes = until(lambda: machine.plan(spec)["notes"])
    assert [one["reason"] for one in notes] == ["finished (exit status 0)"]
    machine.converged(spec)


def test_a_changed_env_file_restarts_it_and_is_copied_nowhere(machine: Machine) -> None:
    file = machine.base / "secrets.env"
    file.write_text("TOKEN=canary-1\n")
    spec = machine.spec(
        f"processes: {{one: {{command: [sleep, '{machine.mark}'], env_file: {file}}}}}"
    )
    machine.once(spec)
    before = pid_of(machine, "one")
    machine.converged(spec)
    file.write_text("TOKEN=canary-2\n")
    assert [step["verb"] for step in machine.plan(spec)["steps"]] == ["restart"]
    done = machine.reconcile("--once", spec, "--json", "-v")
    after = pid_of(machine, "one")
    assert after != before
    assert b"TOKEN=canary-2" in Path(f"/proc/{after}/environ").read_bytes()
    assert "canary" not in done.stdout + done.stderr
    for path in machine.state.rglob("*"):
        assert not path.is_file() or b"canary" not in path.read_bytes()
    # Without it nothing can be started, so what runs is left alone.
    file.unlink()
    plan = machine.plan(spec)
    assert plan["steps"] == []
    assert f"there is no env_file {file}" in plan["unknown"][0]["reason"]


@pytest.mark.root
def test_an_env_file_of_another_account_is_not_believed(machine: Machine) -> None:
    file = machine.base / "his.env"
    file.write_text("LD_PRELOAD=/tmp/his.so\n")
    os.chown(file, 65534, 65534)
    spec = machine.spec(
        f"processes: {{one: {{command: [sleep, '{machine.mark}'], env_file: {file}}}}}"
    )
    done = machine.reconcile("--once", spec)
    assert f"{file} belongs to user 65534, who could change the environment" in done.stdout
    assert not machine.running(f"sleep {machine.mark}")
    # For a process of his own it is his to say; but not what he may not read.
    text = spec.read_text().replace("env_file: ", "user: nobody, env_file: ")
    machine.once(machine.spec(text))
    secret = machine.base / "root.env"
    secret.write_text("SECRET=canary\n")
    secret.chmod(0o600)
    file.unlink()
    file.symlink_to(secret)
    os.lchown(file, 65534, 65534)
    plan = machine.plan(machine.spec(text))
    assert "belongs to user 65534" in plan["unknown"][0]["reason"]


def test_a_secret_of_env_is_shown_nowhere_at_all(machine: Machine) -> None:
    spec = machine.spec(
        "processes: {one: {command: 'echo canary-1 $OPEN; exit 3', log: "
        f"{machine.base}/one.log, env: {{TOKEN: canary-1, OPEN: seen}}, secret: [TOKEN]}}}}\n"
        f"checks: {{x: {{command: 'echo canary-1; false', every: 1s}}}}"
    )
    done = machine.reconcile("--once", spec, "-v")
    assert "exit" in done.stdout
    assert "canary" not in done.stdout + done.stderr
    diagnosis = machine.reconcile("--diagnose", spec, "-v")
    assert "canary" not in diagnosis.stdout + diagnosis.stderr


def test_a_declared_log_with_a_bound_keeps_it(machine: Machine) -> None:
    log, errors = machine.base / "one.log", machine.base / "errors.log"
    spec = machine.spec(
        f"processes: {{one: {{command: 'seq 9999; seq 9999 >&2; exec sleep {machine.mark}', "
        f"log: {{path: {log}, max_size: 16KiB, keep: 2, stderr: {errors}}}}}}}"
    )
    machine.once(spec)
    for one in (log, errors):
        until(lambda file=one: file.exists() and file.read_text().endswith("9999\n"))
    machine.once(spec)
    for one in (log, errors):
        files = [one, Path(f"{one}.1"), Path(f"{one}.2")]
        assert all(file.stat().st_size <= 16 << 10 for file in files)
        assert "".join(file.read_text() for file in reversed(files)).endswith("9998\n9999\n")
        assert not Path(f"{one}.3").exists()


LIMITED = "cgroup: {memory_max: 64MiB, cpu_max: 50%, pids_max: 20}"


def limits_of(pid: int) -> list[str]:
    (path,) = (
        line[3:] for line in Path(f"/proc/{pid}/cgroup").read_text().split() if line[:3] == "0::"
    )
    names = ("memory.max", "cpu.max", "pids.max")
    return [Path(f"/sys/fs/cgroup{path}/{name}").read_text().strip() for name in names]


def test_hard_limits_hold_or_the_start_fails_and_says_why(machine: Machine) -> None:
    spec = machine.spec(f"processes: {{one: {{command: [sleep, '{machine.mark}'], {LIMITED}}}}}")
    done = machine.reconcile("--once", spec)
    pids = machine.running(f"sleep {machine.mark}")
    if done.returncode == 0:
        assert limits_of(pids[0]) == [str(64 << 20), "50000 100000", "20"]
        machine.converged(spec)
    else:
        assert "cannot set cgroup.memory_max: " in done.stdout
        assert pids == []


@pytest.mark.root
def test_systemd_is_asked_for_hard_limits_and_is_not_believed_blindly(
    systemd_host: DisposableHost,
) -> None:
    host = systemd_host
    text = f"version: 1\nname: demo\nprocesses: {{one: {{command: [sleep, '41771'], {LIMITED}}}}}"
    host.write("/root/spec.yaml", text)
    done = host.run(host.bin / "reconcile", "--once", "/root/spec.yaml", check=False)
    controllers = host.read("/sys/fs/cgroup/cgroup.controllers").split()
    if {"memory", "cpu", "pids"} <= set(controllers):
        assert done.returncode == 0
        (pid,) = host.running("sleep 41771")
        name = f"reconcile-one-{pid}.scope"
        shown = host.run("systemctl", "show", name, "-p", "MemoryMax,TasksMax,CPUQuotaPerSecUSec")
        assert {"MemoryMax=67108864", "TasksMax=20", "CPUQuotaPerSecUSec=500ms"} <= set(
            shown.stdout.split()
        )
    else:
        assert "the cgroup v2 of this host has no" in done.stdout
        assert not host.running("sleep 41771")


def test_without_systemd_a_group_is_made_with_the_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder that stands in for the kernel's file system."""
    made: list[Path] = []
    mkdir = os.mkdir

    def making(path: str) -> None:
        mkdir(path)
        made.append(Path(path))
        for name in ("memory.max", "cpu.max", "pids.max", "cgroup.procs"):
            (made[0] / name).touch()

    (tmp_path / "cgroup.subtree_control").touch()
    old = tmp_path / "reconcile-a_b-1"
    old.mkdir()
    monkeypatch.setattr(cgroup, "_own", lambda: str(made[0] if made else tmp_path))
    monkeypatch.setattr(os, "mkdir", making)
    monkeypatch.setattr(os.path, "isdir", lambda path: False)
    limits = (("memory_max", float(64 << 20)), ("cpu_max", 50.0), ("pids_max", 20.0))
    cgroup.enter(cgroup.written("a b", limits))
    assert made[0].name == f"reconcile-a_b-{os.getpid()}"
    found = {path.name: path.read_text() for path in made[0].iterdir()}
    assert found == {
        "memory.max": str(64 << 20),
        "cpu.max": "50000 100000",
        "pids.max": "20",
        "cgroup.procs": str(os.getpid()),
    }
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+memory +cpu +pids"
    assert not old.exists()


WRONG = {
    "restart: {when: on-failure}": "did you mean 'on_failure'",
    "restart: {success: [2]}": "says nothing with when: always",
    "restart: {when: never, success: [256]}": "neither an exit status",
    "rlimits: {nofiles: 3}": "did you mean 'nofile'",
    "rlimits: {nofile: '3:2'}": "the soft limit is above the hard one",
    "cpus: 3-1": "is not a list of processors",
    "cgroup: {}": "needs at least one of memory_max",
    "cgroup: {memory: 3MB}": "did you mean 'memory_max'",
    "nice: 20": "outside -20 to 19",
    "umask: '1777'": "takes more than permissions away",
    "oom_score_adj: -1001": "outside -1000 to 1000",
    "env: {TOKEN: a}, secret: [TOKN]": "did you mean 'TOKEN'",
    "log: {path: /var/log/x, max_sise: 3MB}": "did you mean 'max_size'",
    "log: {path: /var/log/x}, stderr: /var/log/x": "is the same file as the log",
    "log: {path: /dev/stdout, max_size: 1MiB}": "is for files; /dev/stdout is kept by",
    "log: /dev/stdout, ready: {log: up}": "cannot read /dev/stdout; let it log to a file",
    "log: {stderr: /var/log/y}, stderr: /var/log/x": "stands there twice",
    "session: s, stderr: /var/log/x": "is for daemons",
}


def test_what_is_wrong_is_said_with_its_place(machine: Machine) -> None:
    lines = [f"  p{at}: {{command: [sleep, '9'], {one}}}\n" for at, one in enumerate(WRONG)]
    spec = machine.spec("sessions: {s: {}}\nprocesses:\n" + "".join(lines))
    done = machine.reconcile("--check", spec)
    assert done.returncode == 65
    said = done.stdout + done.stderr
    for at, words in enumerate(WRONG.values()):
        _, _, here = said.partition(f"{spec.name}:{5 + at}:")
        assert words in here.partition(f"{spec.name}:{6 + at}:")[0]


def test_a_home_that_no_shell_will_read_is_noted(machine: Machine) -> None:
    plan = machine.plan(
        machine.spec(
            "processes:\n"
            "  words: {command: [cat, ~/a, ~/b]}\n"
            "  shell: {command: cat ~/a}\n"
            "  own_shell: {command: [sh, -c, ~/a]}\n"
            "  other: {command: [cat, a~/b, '~']}\n"
        )
    )
    notes = {one["id"]: one["reason"] for one in plan["notes"]}
    assert notes == {
        "process:words": 'no shell reads ~/a of its command; write "{{ user.home }}/a"'
    }
