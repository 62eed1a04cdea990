"""What a command line means: which spec it is about, which options go with which mode, and where
state is kept."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from support import Machine

from reconciler.cli.main import main


def group(machine: Machine) -> Path:
    """A group of two, a resource whose name begins alike, and one that cannot be made."""
    (machine.base / "file").touch()
    return machine.spec(
        "directories:\n"
        f"  d: {{for_each: [a, b], path: '{machine.base}/d/{{{{ each }}}}'}}\n"
        f"  dd: {{path: {machine.base}/dd}}\n"
        f"  wrong: {{path: {machine.base}/file}}\n"
    )


def heading(spec: Path) -> str:
    return f"demo ({spec}) on {os.uname().nodename}"


def said(machine: Machine, *argv: str | Path, status: int = 0) -> list[str]:
    done = machine.reconcile(*argv)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_every_mode_that_works_with_a_spec_says_which(machine: Machine) -> None:
    spec = group(machine)
    machine.environ["RECONCILE_SPEC"] = str(spec)
    for argv, status in (
        (["--history"], 0),  # There is none yet.
        (["--pause", "directory:dd"], 0),
        (["--resume", "directory:dd"], 0),
        (["--resume", "directory:dd"], 0),  # It was not paused.
        (["--plan"], 1),
        (["--once"], 1),
        (["--history"], 0),
        (["--status"], 1),
        (["--diagnose"], 1),
        (["--repair"], 1),
        (["--notify-test"], 0),
    ):
        lines = said(machine, *argv, status=status)
        assert lines[0].startswith(heading(spec)), argv
        assert "\n".join(lines).count(heading(spec)) == 1, argv
        assert len(lines) > 1, argv
    # It is for people: a program gets one document, and nothing else.
    done = machine.reconcile("--history", "--json")
    assert json.loads(done.stdout)["spec"]["path"] == str(spec)
    assert done.stderr.startswith(heading(spec))


def test_quiet_it_is_said_only_with_what_is_wrong(machine: Machine) -> None:
    spec = group(machine)
    for argv in (["--once"], ["--plan"], ["--status"], ["--diagnose"], ["--repair"]):
        lines = said(machine, *argv, spec, "-q", status=1)
        assert lines[0] == heading(spec), argv
        assert lines.count(heading(spec)) == 1, argv
        assert "directory:wrong" in "\n".join(lines), argv
        assert "directory:dd" not in "\n".join(lines), argv
    spec.write_text(spec.read_text().replace("  wrong:", "  wrong: {state: absent, path: /n}\n#"))
    for argv in (["--once"], ["--plan"], ["--status"], ["--history"], ["--pause", "directory:d"],
                 ["--resume", "directory:d"], ["--repair"]):  # fmt: skip
        assert said(machine, *argv, spec, "-q") == [], argv
    spec.write_text(spec.read_text() + f"  new: {{path: {machine.base}/file/x}}\n")
    said(machine, "--once", spec, status=1)
    store = machine.state / "demo/store.db"
    with sqlite3.connect(store) as base:
        base.execute("UPDATE history SET result = 'failed' WHERE id = 'directory:dd'")
    base.close()
    lines = said(machine, "--history", spec, "-q")
    assert lines[0] == heading(spec)
    assert ["directory:dd" in line for line in lines[2:]] == [True]


def test_it_is_said_once_also_when_the_spec_is_compiled_anew(machine: Machine) -> None:
    machine.environ["MY_TOKEN"] = "canary"
    spec = group(machine)
    # What was kept of it is without the secret: to start anything, it is compiled once more.
    with spec.open("a") as file:
        file.write("processes: {p: {command: [/nonexistent/x], env: {A: '{{ env.MY_TOKEN }}'}}}\n")
    said(machine, "--once", spec, "--only", "directory:dd")
    lines = said(machine, "--once", spec, "-q", status=1)
    assert lines[0] == heading(spec)
    assert "failed start process:p" in "\n".join(lines)
    assert lines.count(heading(spec)) == 1


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--plan", "--since", "1h"], "--since is for --history and --logs, not for --plan"),
        (["--plan", "--reason", "x"], "--reason is for --pause, not for --plan"),
        (["--plan", "--reason", ""], "--reason is for --pause, not for --plan"),
        (["--once", "--stop"], "--stop is for --pause, not for --once"),
        (["--resume", "directory:d", "--stop"], "--stop is for --pause, not for --resume"),
        (["--status", "--for", "2h"], "--for is for --pause, not for --status"),
        (["--check", "--only", "zz"],
         "--only is for --plan, --once, --status, --history and --undo, not for --check"),
        (["--status", "--detailed-exitcode"],
         "--detailed-exitcode is for --plan and --once, not for --status"),
        (["--nope"], "unknown option '--nope'\n"),
        (["--nope=1", "--plan"], "unknown option '--nope'\n"),
        (["--pla"], "unknown option '--pla'; did you mean '--plan'?"),
        (["--plan", "--reson", "x"], "unknown option '--reson'; did you mean '--reason'?"),
        (["--plan", "more.yaml"], "is another one"),
        (["--history", "--since", ""], "--since takes"),
        (["--plan", "--state-dir", ""], "--state-dir takes a folder"),
        ([], "choose a mode"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_named(
    machine: Machine, capsys: pytest.CaptureFixture[str], argv: list[str], words: str
) -> None:
    # Of several --state-dir the last one holds.
    assert main([str(group(machine)), *argv]) == 64
    printed = capsys.readouterr()
    assert printed.out == ""
    assert words in printed.err
    assert not (machine.home / ".local").exists()


def test_the_name_of_a_group_means_all_of_it(machine: Machine) -> None:
    spec = group(machine)
    both = ["directory:d[a]", "directory:d[b]"]
    assert machine.steps(spec, "--only", "directory:d") == both
    assert machine.steps(spec, "--only", "directory:d[b]") == both[1:]
    assert [one["id"] for one in machine.once(spec, "--only", "directory:d")["steps"]] == both
    machine.once(spec, "--only", "directory:dd")

    def asked(key: str, *argv: str) -> list[str]:
        document: dict[str, Any] = json.loads(machine.reconcile(*argv, spec, "--json").stdout)
        return [one["id"] for one in document[key]]

    assert asked("resources", "--status", "--only", "directory:d") == both
    assert asked("history", "--history", "--only", "directory:d") == both
    assert asked("paused", "--pause", "directory:d") == both
    machine.reconcile("--pause", "directory:dd", spec)
    # Also when the spec has lost it.
    spec.write_text(spec.read_text().replace("  d: ", "  e: "))
    assert sorted(asked("resumed", "--resume", "directory:d")) == both
    assert asked("resumed", "--resume", "directory:dd") == ["directory:dd"]


def test_a_home_that_no_shell_has_expanded_is_one(machine: Machine) -> None:
    spec = machine.spec(f"directories: {{d: {{path: {machine.base}/d}}}}")
    program = machine.bin / "reconcile"
    machine.run(program, "--once", spec, "--state-dir", "~/one", "--set", "x=1")
    machine.run(program, "--once", spec, "--state-dir", "~/one")
    assert (machine.home / "one/demo").is_dir()
    done = machine.run(program, "--once", spec, environ={"STATE_DIRECTORY": "~/two:/other"})
    assert done.returncode == 0, done.stderr
    assert (machine.home / "two/demo").is_dir()
    assert not (machine.base / "~").exists()
    # Each folder would have a state of its own.
    done = machine.run(program, "--once", spec, environ={"STATE_DIRECTORY": "here"})
    assert (done.returncode, done.stdout) == (64, "")
    assert "$STATE_DIRECTORY must be an absolute path, not 'here'" in done.stderr
    assert not (machine.base / "here").exists()


def test_a_spec_of_any_name_has_its_state_for_itself(machine: Machine) -> None:
    text = f"directories: {{d: {{path: {machine.base}/d}}}}\nprocesses: {{p: {{command: 'false'}}}}"
    for name in ("compiled", "demo"):
        machine.once(machine.spec(f"version: 1\nname: {name}\n{text}", f"{name}.yaml"), status=1)
    assert {path.name for path in machine.state.iterdir()} >= {".compiled", "compiled", "demo"}
    kept = [
        {path.name for path in (machine.state / name).iterdir()} for name in ("compiled", "demo")
    ]
    assert kept[0] == kept[1]
    assert len(list((machine.state / ".compiled").iterdir())) == 2


def test_a_symlink_is_not_removed_for_a_folder(machine: Machine) -> None:
    real, link = machine.base / "real", machine.base / "a link"
    real.mkdir()
    link.symlink_to("real")
    spec = machine.spec(f"directories: {{e: {{path: '{link}', state: absent}}}}")
    for found in (machine.plan(spec), machine.once(spec, status=1)):
        assert found["steps"] == []
        (unknown,) = found["unknown"]
        assert f"{link} is a symlink" in unknown["reason"]
        assert unknown["reason"].endswith(f"rm '{link}'")
    assert link.is_symlink() and real.is_dir()
    # What leads through a symlink is meant.
    (real / "below").mkdir()
    machine.once(machine.spec(f"directories: {{e: {{path: '{link}/below', state: absent}}}}"))
    assert not (real / "below").exists()
    link.unlink()
    machine.converged(spec)


def test_steps_that_were_skipped_are_counted(machine: Machine) -> None:
    spec = machine.spec(
        f"blocks: {{b: {{path: {machine.base}/rc, content: x, needs: [process:p]}}}}\n"
        "processes: {p: {command: [/nonexistent/x]}}\nsessions: {s: {when: 'false'}}\n"
    )
    report = machine.once(spec, status=1)
    assert [one["result"] for one in report["steps"]] == ["failed", "skipped"]
    assert len(report["skipped"]) == 1
    assert report["summary"]["skipped"] == 2
    assert "2 skipped" in machine.reconcile("--once", spec).stdout


def test_errors_of_a_spec_are_coloured_for_people(machine: Machine) -> None:
    spec = machine.spec("directories: {d: {pth: /x}}")
    plain = machine.reconcile("--check", spec)
    colored = machine.reconcile("--check", spec, "--color", "always")
    assert (plain.returncode, colored.returncode, colored.stdout) == (65, 65, "")
    assert "\x1b[" not in plain.stderr
    assert "\x1b[" in colored.stderr
    assert "error: " in plain.stderr and "did you mean" in plain.stderr


def test_words_are_of_the_number_that_they_count(machine: Machine) -> None:
    one = "directories: {d: {path: %s/d}}"
    assert said(machine, "--check", machine.spec(one % machine.base))[0].endswith("1 resource")
    spec = group(machine)
    assert said(machine, "--check", spec)[0].endswith("4 resources")
    assert said(machine, "--status", spec, status=1)[-1] == "3 differ, 1 unknown."
    spec = machine.spec("processes: {p: {command: [/nonexistent/x]}}")
    (step,) = machine.once(spec, status=1)["steps"]
    assert step["error"].startswith("cannot start /nonexistent/x: it is not there; install it")
