"""One spec, one state: another file of a spec's name is not acted on by mistake."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from support import Machine, until

from reconciler.host.spec_files import folder, known_as, path_of

ACTING = [
    ["--once"],
    ["--loop"],
    ["--repair"],
    ["--pause", "directory:d"],
    ["--resume", "directory:d"],
]


@pytest.fixture
def specs(machine: Machine) -> tuple[Path, Path]:
    """The spec in use, and another file with the same name in it."""
    one = machine.spec(f"directories: {{d: {{path: {machine.base}/d}}}}")
    machine.once(one)
    two = machine.spec(f"directories: {{d: {{path: {machine.base}/other}}}}", "two.yaml")
    return one, two


def known(machine: Machine) -> str:
    return (machine.state / "demo" / "spec").read_text()


@pytest.mark.parametrize("mode", ACTING, ids=lambda mode: mode[0])
def test_another_file_is_refused(
    mode: list[str], machine: Machine, specs: tuple[Path, Path]
) -> None:
    one, two = specs
    before = sorted(machine.state.rglob("*"))
    done = machine.reconcile(*mode, two)
    assert done.returncode == 64, done.stdout
    assert f"is that of {one}, and this is {two}; nothing was done" in done.stderr
    assert "--take-over" in done.stderr
    assert not (machine.base / "other").exists()
    assert known(machine) == f"{one}\n"
    # But for the compiled spec.
    assert [path for path in sorted(machine.state.rglob("*")) if path.suffix != ".bin"] == [
        path for path in before if path.suffix != ".bin"
    ]


def test_one_that_only_takes_away_does_that_and_nothing_else(machine: Machine) -> None:
    line = "cron: {{c: {{schedule: '@weekly', command: [/bin/true]{}}}}}"
    folders = "directories: {{d: {{path: {0}/d{1}}}, e: {{path: {0}/e}}}}"
    one = machine.spec(folders.format(machine.base, "") + "\n" + line.format(""))
    machine.once(one)
    two = machine.spec(f"directories: {{d: {{path: {machine.base}/d, state: absent}}}}", "two.yaml")
    report = machine.once(two)
    assert [step["id"] for step in report["steps"]] == ["directory:d"]
    assert not (machine.base / "d").exists() and (machine.base / "e").is_dir()
    assert b"/bin/true" in (machine.crontab_text() or b"")
    assert known(machine) == f"{one}\n"
    assert machine.steps(one) == ["directory:d"]
    three = machine.spec(folders.format(machine.base, ", state: absent"), "three.yaml")
    assert machine.reconcile("--once", three).returncode == 64
    assert machine.reconcile("--repair", two).returncode == 64


def test_looking_is_no_acting(machine: Machine, specs: tuple[Path, Path]) -> None:
    _, two = specs
    for mode in ("--check", "--plan", "--status", "--history", "--diagnose"):
        assert "--take-over" not in machine.reconcile(mode, two).stderr


@pytest.mark.parametrize("mode", ["--status", "--plan", "--diagnose"])
def test_a_look_by_another_file_says_so(
    mode: str, machine: Machine, specs: tuple[Path, Path]
) -> None:
    one, two = specs
    words = f"the state of demo is that of {one}, another file"
    assert words in machine.reconcile(mode, two).stdout
    assert words not in machine.reconcile(mode, one).stdout


def test_a_kept_spec_is_found_by_its_name(machine: Machine, specs: tuple[Path, Path]) -> None:
    """From any folder; a file of that name goes first."""
    one, _ = specs
    there = machine.base / "elsewhere"
    (there / "demo").mkdir(parents=True)
    machine.environ.pop("RECONCILE_SPEC", None)

    def said(*words: str) -> tuple[int, str]:
        done = machine.run("sh", "-c", 'cd "$0" && exec "$@"', there, *machine.argv(*words))
        return done.returncode, done.stdout + done.stderr

    assert f"demo ({one}) on " in said("--status", "demo")[1]
    status, words = said("--status")
    assert (status, f"no spec: name one (kept here: {one}), or" in words) == (64, True), words
    assert said("--status", "dem") == (65, "dem: error: the spec does not exist\n")
    (there / "demo").rmdir()
    (there / "demo").write_text("no spec")
    assert said("--status", "demo")[0] == 65


def test_who_means_it_takes_over(machine: Machine, specs: tuple[Path, Path]) -> None:
    one, two = specs
    machine.once(two, "--take-over")
    assert (machine.base / "other").is_dir()
    assert known(machine) == f"{two}\n"
    assert machine.reconcile("--once", one).returncode == 64
    done = machine.reconcile("--plan", two, "--take-over")
    assert done.returncode == 64
    assert "--take-over is for" in done.stderr


def test_a_loop_is_ended_before_its_state_is_taken_over(
    machine: Machine, specs: tuple[Path, Path], looping: Any
) -> None:
    one, two = specs
    loop = looping(one)
    until(lambda: "begin" in loop.names())
    done = machine.reconcile("--once", two, "--take-over")
    assert done.returncode == 75
    assert "end it before its state is taken over" in done.stderr
    assert known(machine) == f"{one}\n"
    assert not (machine.base / "other").exists()


def test_a_file_that_is_gone_or_the_same_is_no_other(
    machine: Machine, specs: tuple[Path, Path]
) -> None:
    one, two = specs
    link = machine.base / "link.yaml"
    link.symlink_to(one)
    done = machine.reconcile("--once", link)
    assert done.returncode == 0, done.stderr
    assert f"{one}, which is the same file" in done.stdout + done.stderr
    assert known(machine) == f"{one}\n"
    one.unlink()
    done = machine.reconcile("--once", two)
    assert done.returncode == 0, done.stderr
    assert f"was {one}, which is gone" in done.stdout + done.stderr
    assert known(machine) == f"{two}\n"


def test_a_file_that_cannot_be_looked_at_is_not_gone(
    machine: Machine, specs: tuple[Path, Path]
) -> None:
    one, two = specs
    # As on a file server that is stale, or lets root not in.
    around = machine.base / "around"
    around.symlink_to("around")
    (machine.state / "demo" / "spec").write_text(f"{around}/{one.name}\n")
    done = machine.reconcile("--once", two)
    assert done.returncode == 64, done.stdout
    assert f"is that of {around}/{one.name}, and this is {two}" in done.stderr
    assert not (machine.base / "other").exists()


def test_links_stay_as_they_were_given(machine: Machine, specs: tuple[Path, Path]) -> None:
    # What a link means may be changed: it is the link that was meant.
    one, two = specs
    (machine.state / "demo" / "spec").unlink()
    link = machine.base / "link.yaml"
    link.symlink_to(one)
    machine.once(link)
    assert known(machine) == f"{link}\n"
    link.unlink()
    link.symlink_to(two)
    machine.once(link)
    assert (machine.base / "other").is_dir()


def test_a_state_that_knows_no_spec_learns_it(machine: Machine, specs: tuple[Path, Path]) -> None:
    _, two = specs
    path = machine.state / "demo" / "spec"
    path.unlink()
    machine.reconcile("--pause", "directory:d", two)
    assert known(machine) == f"{two}\n"
    path.unlink()
    machine.once(two)
    assert known(machine) == f"{two}\n"
    # Once is enough.
    before = path.stat().st_ino
    machine.once(two)
    assert path.stat().st_ino == before


def test_a_shipped_spec_is_known_by_its_name() -> None:
    shipped = os.path.join(folder("specs"), "executor.yaml")
    assert known_as(shipped) == "executor"
    assert path_of("executor") == shipped
    assert known_as("/srv/specs/executor.yaml") == path_of("/srv/specs/executor.yaml")


@pytest.mark.parametrize("verb", ["start", "restart", "stop"])
def test_the_executor_is_not_started_by_another_spec(
    verb: str, machine: Machine, executor: Path
) -> None:
    # From another folder, while no loop runs, it would be the shipped one.
    home = machine.base / "co"
    machine.once(executor, "--set", f"home={home}")
    worker = machine.only(f"worker --home {home}")
    argv = [machine.bin / "ai-cmd-executor", verb, "--home", home, "--state-dir", machine.state]
    done = machine.run(*argv, cwd="/")
    assert done.returncode != 0
    assert f"is that of {executor}, and this is {folder('specs')}/executor.yaml" in done.stderr
    assert machine.running(f"worker --home {home}") == [worker]
    assert (machine.state / "executor" / "spec").read_text() == f"{executor}\n"
    done = machine.run(*argv, "--spec", executor, cwd="/")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("rooms", ["folder", "folder/below"])
def test_a_file_whose_folder_was_moved_is_gone(machine: Machine, rooms: str) -> None:
    one = machine.base / rooms / "spec.yaml"
    one.parent.mkdir(parents=True)
    machine.spec(f"directories: {{d: {{path: {machine.base}/d}}}}").rename(one)
    machine.once(one)
    (machine.base / "folder").rename(machine.base / "moved")
    two = machine.base / "moved" / one.relative_to(machine.base / "folder")
    done = machine.reconcile("--once", two)
    assert done.returncode == 0, done.stderr
    assert f"was {one}, which is gone" in done.stdout + done.stderr


@pytest.mark.namespaces
@pytest.mark.root
@pytest.mark.parametrize("point", ["left", "removed", "linked"])
def test_a_file_on_a_volume_that_is_not_mounted_is_not_gone(machine: Machine, point: str) -> None:
    text = f"name: demo\nversion: 1\ndirectories: {{d: {{path: {machine.base}/d}}}}\n"
    two = machine.spec(f"directories: {{d: {{path: {machine.base}/other}}}}", "two.yaml")
    volume = machine.base / "volume"
    volume.mkdir()
    if point == "linked":
        (machine.base / "link").symlink_to(volume)
    one = machine.base / ("link" if point == "linked" else "volume") / "spec.yaml"
    run = ["sh", "-c", (
        'mount -t tmpfs none "$1" && printf %s "$2" > "$3" && shift 3 && "$@"; '
        'status=$?; exit $status'
    ), "sh", volume, text, one]  # fmt: skip
    # In a mount namespace of its own: behind it the volume is not mounted.
    done = machine.run("unshare", "-m", *run, *machine.argv("--once", one))
    assert done.returncode == 0, done.stderr
    assert known(machine) == f"{one}\n"
    if point != "left":
        volume.rmdir()
    done = machine.reconcile("--once", two)
    assert done.returncode == 64, done.stdout
    assert f"is that of {one}, and this is {two}; nothing was done" in done.stderr
    assert "mount it" in done.stderr
    assert not (machine.base / "other").exists()
    machine.once(two, "--take-over")
    assert known(machine) == f"{two}\n"


@pytest.mark.parametrize("folder", ["", "missing/"])
def test_where_no_volume_is_known_the_folder_tells(
    machine: Machine, specs: tuple[Path, Path], folder: str
) -> None:
    """As in the state of an older version, which learns it by its next pass."""
    one, two = specs
    (machine.state / "demo" / "spec.mount").unlink()
    (machine.state / "demo" / "spec").write_text(f"{machine.base}/{folder}gone.yaml\n")
    assert machine.reconcile("--once", two).returncode == (64 if folder else 0)
    (machine.state / "demo" / "spec").write_text(f"{one}\n")
    machine.once(one)
    assert (machine.state / "demo" / "spec.mount").exists()
