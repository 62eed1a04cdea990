"""What is printed, and what happens when it cannot be."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from support import Machine


def many(machine: Machine) -> Path:
    return machine.spec(
        f'directories: {{d: {{for_each: "{{{{ range(300) | list }}}}", '
        f'path: "{machine.base}/d/{{{{ each }}}}"}}}}'
    )


def made(machine: Machine) -> int:
    return len(list((machine.base / "d").iterdir()))


@pytest.mark.parametrize("tail", ["| head -2", "| true", ">/dev/full", ">&-", "<&- >&- 2>&-"])
def test_all_is_done_also_when_nobody_reads(machine: Machine, tail: str) -> None:
    argv = " ".join(f'"{word}"' for word in machine.argv("--once", many(machine)))
    done = machine.run("sh", "-c", f"{argv} {tail}")
    assert made(machine) == 300
    assert "Traceback" not in done.stderr
    assert "internal error" not in done.stderr


def test_a_full_disk_for_the_output_is_told(machine: Machine) -> None:
    argv = [str(word) for word in machine.argv("--once", many(machine))]
    with open("/dev/full", "w") as full:
        done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, env=machine.environ)
    assert done.returncode == 1
    assert b"cannot print: no space left on device" in done.stderr


def test_colour_only_where_it_is_wanted(machine: Machine) -> None:
    spec = many(machine)
    assert "\x1b[" not in machine.reconcile("--plan", spec).stdout
    assert "\x1b[" in machine.reconcile("--plan", spec, "--color", "always").stdout
    asked = machine.reconcile(
        "--plan", spec, "--color", "always", environ={"NO_COLOR": "1", "TERM": "xterm"}
    )
    assert "\x1b[" in asked.stdout


@pytest.mark.parametrize(
    ("argv", "status"),
    [
        ([], 64),
        (["--plan", "--once"], 64),
        (["--plan", "--bogus"], 64),
        (["--plan", "missing.yaml"], 65),
        (["--once", "spec.yaml", "--only", "directory:nope"], 64),
        (["--once", "spec.yaml", "--set", "nope"], 64),
        (["--once", "spec.yaml", "--set", "nope=1"], 65),
        (["--plan", "spec.yaml"], 0),
        (["--plan", "spec.yaml", "--detailed-exitcode"], 2),
        (["--plan", "spec.yaml", "--detailed-exitcode", "--only", "directory:d[[]7]"], 2),
        (["--check", "spec.yaml"], 0),
        (["--version"], 0),
    ],
)
def test_exit_status(machine: Machine, argv: list[str], status: int) -> None:
    many(machine)
    done = machine.reconcile(*argv)
    assert done.returncode == status, done.stdout + done.stderr
    if status >= 64:
        assert done.stdout == ""
        assert done.stderr


def test_the_spec_that_is_taken_is_named(machine: Machine) -> None:
    many(machine)
    config = machine.base / "config/reconcile"
    config.mkdir(parents=True)
    machine.spec("directories: {}", "config/reconcile/spec.yaml")
    machine.environ["XDG_CONFIG_HOME"] = str(machine.base / "config")
    assert "config/reconcile/spec.yaml" in machine.reconcile("--plan").stdout
    machine.environ["RECONCILE_SPEC"] = str(machine.base / "spec.yaml")
    assert f"{machine.base}/spec.yaml" in machine.reconcile("--plan").stdout
    del machine.environ["RECONCILE_SPEC"]
    shipped = machine.reconcile("--plan", "executor")
    assert shipped.stdout.startswith("executor (")


def test_a_match_never_takes_a_process_of_another_resource(machine: Machine) -> None:
    match = f"match: {{cmdline: 'sleep {machine.mark}'}}"
    spec = machine.spec(
        f"processes:\n  one: {{command: [sleep, '{machine.mark}1']}}\n"
        f"  two: {{command: [sleep, '{machine.mark}2'], {match}}}\n"
    )
    machine.once(spec)
    assert len(machine.running(f"sleep {machine.mark}")) == 2
    other = machine.spec(
        f"version: 1\nname: other\nprocesses: {{x: {{command: x, state: absent, {match}}}}}"
    )
    machine.converged(other)


def test_a_process_is_skipped_with_its_session(machine: Machine) -> None:
    plan = machine.plan(
        machine.spec(
            "sessions: {s: {when: 'false'}}\nprocesses: {p: {command: sleep 1, session: s}}"
        )
    )
    assert plan["steps"] == []
    assert [remark["id"] for remark in plan["skipped"]] == ["session:s", "process:p"]


def test_old_words_in_a_log_are_not_given_as_the_cause(machine: Machine) -> None:
    log = machine.base / "log"
    log.write_text("something from yesterday\n")
    spec = machine.spec(f"processes: {{x: {{command: 'false', log: {log}}}}}")
    (step,) = machine.once(spec, status=1)["steps"]
    assert "yesterday" not in step["error"]


def test_globs_pass_over_symlinks(machine: Machine) -> None:
    folder = machine.base / "g"
    folder.mkdir()
    (folder / "a").write_text("")
    (folder / "dangling").symlink_to("nowhere")
    (folder / "link").symlink_to("a")
    machine.once(machine.spec(f"permissions: {{p: {{path: {folder}/*, mode: '0611'}}}}"))
    assert (folder / "a").stat().st_mode & 0o777 == 0o611


@pytest.mark.parametrize("mode", ["--plan", "--once", "--check", "--diagnose"])
def test_a_secret_of_the_environment_is_shown_nowhere(machine: Machine, mode: str) -> None:
    canary = "canary 5g3k x'\"é"
    spec = machine.spec(
        "processes: {x: {command: [sh, -c, ': \"{{ env.MY_TOKEN }}\"; sleep 4711']}}\n"
        "directories: {d: {path: '{{ spec.dir }}/{{ env.MY_TOKEN }}'}}"
    )
    if mode == "--diagnose":
        machine.reconcile("--once", spec, environ={"MY_TOKEN": canary})
    for options in ([], ["--json"], ["--color", "always"]):
        done = machine.reconcile(mode, spec, *options, environ={"MY_TOKEN": canary})
        assert "5g3k" not in done.stdout + done.stderr
        assert "***" in done.stdout or mode != "--plan"
    kept = [path for path in machine.state.rglob("*") if path.is_file()]
    assert not any(b"5g3k" in path.read_bytes() for path in kept)
