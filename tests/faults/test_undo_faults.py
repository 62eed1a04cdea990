"""``--undo`` where something went wrong in between: a full disk, an edited store, other hands."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest
from machine.test_undo_worlds import tree
from support import Machine, until

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
HEAD = "version: 1\nname: demo\n"


def made(machine: Machine, top: Path, *names: str, more: str = "") -> Path:
    top.mkdir(exist_ok=True)
    rows = "".join(f"  {one}: {{path: {top}/{one}, content: {one}}}\n" for one in names)
    return machine.spec(f"{HEAD}{more}files:\n{rows}")


def filled(disk: Path) -> Path:
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, pytest.raises(OSError):
        for size in (1 << 16, 1 << 8, 1):
            while True:
                try:
                    file.write(b"x" * size)
                except OSError:
                    if size == 1:
                        raise
                    break
    return ballast


@pytest.mark.root
@ROOT
def test_a_pass_that_a_full_disk_kept_out_of_the_journal_is_not_passed_over(
    machine: Machine,
) -> None:
    top = machine.base / "top"
    process = "processes: {p: {command: [sleep, '90794']}}\n"
    machine.state.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(machine.state)]
    subprocess.run(mount, check=True)
    try:
        machine.once(made(machine, top, "a", more=process))
        # It has compiled the spec, and there is no room behind that.
        spec = made(machine, top, "a", "b", more=process)
        machine.plan(spec)
        ballast = filled(machine.state)
        done = machine.reconcile("--once", spec)
        assert "what is done now cannot be undone" in done.stdout, done.stdout
        both = tree(top)
        assert (top / "b").exists()
        for options in ([], ["--plan"]):
            said = machine.reconcile("--undo", *options, spec)
            assert said.returncode == 1, said.stdout + said.stderr
            assert "is not in the journal" in said.stderr and "--undo 1" in said.stderr
            assert tree(top) == both
        ballast.unlink()
        # Nor is it forgotten when there is room again, until another pass is written down: one
        # that starts again what has ended leaves nothing to take back.
        os.kill(machine.only("sleep 90794"), 9)
        until(lambda: not machine.running("sleep 90794"))
        assert [one["verb"] for one in machine.once(spec)["steps"]] == ["start"]
        assert machine.reconcile("--undo", spec).returncode == 1
        spec = made(machine, top, "a", "b", "c", more=process)
        machine.once(spec)
        assert machine.reconcile("--undo", spec).returncode == 0
        assert tree(top) == both
        assert machine.reconcile("--undo", "1", spec).returncode == 0
        assert [path.name for path in top.iterdir()] == ["b"]
        # Whoever names the pass has seen it.
        (machine.state / "demo/unjournaled").touch()
        assert machine.reconcile("--undo", spec).returncode == 1
        machine.reconcile("--undo", "1", spec)
        assert not (machine.state / "demo/unjournaled").exists()
    finally:
        subprocess.run(["umount", str(machine.state)], check=True)


TEXT = "CAST(replace(CAST(data AS TEXT)"
EDITS = {
    "truncated": ("UPDATE journal SET data = substr(data, 1, 30)", "damaged"),
    "exchanged": ("UPDATE journal SET data = x'7b7d'", "damaged"),
    "another class": (
        f"UPDATE journal SET data = {TEXT}, 'WholeFile', 'Popen') AS BLOB)", "another version",
    ),
    "emptied": ("UPDATE journal SET data = NULL", "has left the journal"),
    "another path": (
        f"UPDATE journal SET data = {TEXT}, '/top/a\"', '/top/kept\"') AS BLOB)",
        "was changed since",
    ),
}  # fmt: skip


@pytest.mark.parametrize("sort", EDITS)
def test_what_was_edited_is_refused_with_the_reason(machine: Machine, sort: str) -> None:
    top, (change, reason) = machine.base / "top", EDITS[sort]
    machine.once(spec := made(machine, top, "a"))
    (top / "kept").write_text("kept")
    before = tree(top)
    with sqlite3.connect(machine.state / "demo/store.db") as base:
        base.execute(change)
    base.close()
    done = machine.reconcile("--undo", "--json", spec)
    told = [one["reason"] for one in json.loads(done.stdout)["unknown"]]
    assert (done.returncode, len(told)) == (1, 1), done.stdout
    assert reason in told[0]
    assert tree(top) == before


@pytest.mark.parametrize("ended", [True, False])
def test_what_an_older_version_has_noted_is_undone(machine: Machine, ended: bool) -> None:
    """It has a row for each step, by its id; of a pass that was cut short, what it was to make."""
    top = machine.base / "top"
    top.mkdir()
    (top / "was").write_text("before")
    before = tree(top)
    spec = machine.spec(
        f"{HEAD}files: {{w: {{path: {top}/was, content: new}}}}\n"
        f"directories: {{d: {{path: {top}/d, mode: '0750'}}}}\n"
    )
    machine.once(spec)
    folder = "reconciler.kinds.directory:Directory"
    made = {"is": folder, "path": f"{top}/d", "mode": "0750", "owner": None, "emptied": []}
    with sqlite3.connect(machine.state / "demo/store.db") as base:
        rows = [json.loads(data) for (data,) in base.execute("SELECT data FROM journal")]
        left = rows[1]["left"]["file:w"]
        ((_, _, had),) = rows[0]["notes"]["file:w"]["undo"]
        now = {**had, "content": "new"}
        notes = {
            "directory:d": {
                "undo": [["directory:d", False, made]],
                **({"left": ["0750 None None"]} if ended else {"made": True}),
            },
            "file:w": {
                "undo": [["file:w", True, had]],
                **({"left": left} if ended else {"made": ["file:w", True, now]}),
            },
        }
        base.execute("DELETE FROM journal")
        base.executemany(
            "INSERT INTO journal (pass, id, data) VALUES (1, ?, ?)",
            [(i, json.dumps({"verb": "x", **note}).encode()) for i, note in notes.items()],
        )
    base.close()
    done = machine.reconcile("--undo", spec)
    assert done.returncode == 0, done.stdout + done.stderr
    assert tree(top) == before


def test_an_older_version_is_told_why_it_cannot_undo(machine: Machine) -> None:
    """All that it looks for in a row is there."""
    machine.once(made(machine, machine.base / "top", "a"))
    with sqlite3.connect(machine.state / "demo/store.db") as base:
        rows = base.execute("SELECT id, data FROM journal").fetchall()
    base.close()
    assert rows
    for ident, data in rows:
        assert ":" not in ident
        assert json.loads(data)["why"] == "it was noted by a newer version of this program"


def test_a_journal_of_a_newer_version_is_left_alone(machine: Machine) -> None:
    top = machine.base / "top"
    machine.once(spec := made(machine, top, "a"))
    before = tree(top)
    with sqlite3.connect(machine.state / "demo/store.db") as base:
        base.execute("ALTER TABLE journal ADD COLUMN signed TEXT")
    base.close()
    for options in ([], ["--plan"]):
        done = machine.reconcile("--undo", *options, spec)
        assert done.returncode == 1, done.stdout + done.stderr
        assert "knows no signed in the table journal" in done.stderr
    assert tree(top) == before


def test_what_has_left_is_named_from_outside(machine: Machine) -> None:
    top = machine.base / "top"
    machine.once(made(machine, top, "a"))
    with sqlite3.connect(machine.state / "demo/store.db") as base:
        base.execute("UPDATE passes SET wall = ?", (time.time() - 31 * 86400,))
    base.close()
    machine.once(spec := made(machine, top, "a", "b"))
    done = machine.reconcile("--undo", "1", spec)
    assert done.returncode == 1
    assert "file:a" in done.stdout and "it has left the journal" in done.stdout
    assert (top / "a").exists()


def test_beside_another_pass_nothing_is_done(machine: Machine) -> None:
    top = machine.base / "top"
    machine.once(spec := made(machine, top, "a"))
    before = tree(top)
    done = machine.run("flock", machine.state / "demo/lock", *machine.argv("--undo", spec))
    assert done.returncode == 75
    assert "nothing was done" in done.stderr
    assert tree(top) == before


def test_what_a_pass_leaves_behind_another_definition_is_not_guessed(machine: Machine) -> None:
    """The pass that has started it was killed before it could note from what."""

    def spec_of(number: int) -> Path:
        return machine.spec(f"{HEAD}processes: {{p: {{command: [sleep, '{number}']}}}}\n")

    machine.once(spec_of(90791))
    machine.once(spec_of(90792))
    with sqlite3.connect(machine.state / "demo/store.db") as base:
        base.execute(f"UPDATE definitions SET data = {TEXT}, '90792', '90791') AS BLOB)")
    base.close()
    machine.once(spec := spec_of(90793))
    done = machine.reconcile("--undo", spec)
    assert (done.returncode, "is not known" in done.stdout) == (1, True), done.stdout
    assert machine.only("sleep 90793")


@pytest.mark.parametrize("what", ["link", "hard link", "renamed", "another file", "in a link"])
def test_what_stands_there_by_other_hands_is_left(machine: Machine, what: str) -> None:
    top, other = machine.base / "top", machine.base / "other"
    (top / "d").mkdir(parents=True)
    other.mkdir()
    (other / "f").write_text("theirs")
    (other / "f").chmod(0o604)
    for name in ("f", "g"):
        (top / "d" / name).write_text(f"former {name}")
    spec = machine.spec(
        f"{HEAD}files:\n  f: {{path: {top}/d/f, content: new}}\n"
        f"  n: {{path: {top}/d/n, content: n}}\n"
        f"permissions: {{g: {{path: {top}/d/g, mode: '0600'}}}}\n"
        f"directories: {{e: {{path: {top}/d/e}}}}\n"
    )
    machine.once(spec)
    names = ("f", "n", "g", "e")
    if what == "in a link" or what == "renamed":
        (top / "d").rename(top / "was")
        if what == "in a link":
            for name in names:
                if not (other / name).exists():
                    (other / name).write_text("theirs")
            (top / "d").symlink_to(other)
    else:
        (top / "d/e").rmdir()
        for name in names:
            path = top / "d" / name
            path.unlink(missing_ok=True)
            if what == "link":
                path.symlink_to(other / "f")
            elif what == "hard link":
                os.link(other / "f", path)
            else:
                path.write_text("another")
    before = tree(machine.base / "other"), tree(top)
    done = machine.reconcile("--undo", "--json", spec)
    told = {one["id"]: one["reason"] for one in json.loads(done.stdout)["unknown"]}
    assert tree(machine.base / "other") == before[0], done.stdout
    assert tree(top) == before[1], done.stdout
    assert done.returncode == (1 if told else 0)
    # What is gone, or has the mode that it had before, has nothing to be given back.
    given = set() if what in ("renamed", "another file") else {"permission:g"}
    assert told.keys() >= {"file:f"} | given, told


@pytest.mark.parametrize("edited", ["around it", "in it"])
def test_of_a_crontab_only_what_nobody_has_edited_since_is_taken_back(
    machine: Machine, edited: str
) -> None:
    former = b"MAILTO=me\n1 1 * * * mine\n"
    machine.write_crontab(former)
    machine.once(
        spec := machine.spec(f"{HEAD}cron: {{c: {{schedule: '@daily', command: /x/y}}}}\n")
    )
    now = machine.crontab_text()
    assert now.startswith(former) and b"/x/y" in now
    more = b"2 2 * * * later\n"
    machine.write_crontab(now + more if edited == "around it" else now.replace(b"/x/y", b"/x/z"))
    before = machine.crontab_text()
    done = machine.reconcile("--undo", spec)
    if edited == "around it":
        assert (done.returncode, machine.crontab_text()) == (0, former + more), done.stdout
    else:
        assert (done.returncode, machine.crontab_text()) == (1, before), done.stdout
        assert "cron:c" in done.stdout
