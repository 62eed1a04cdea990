"""Random worlds: a pass that is taken back leaves them as they were, byte for byte.

``UNDONE=100 WORLDS_FROM=5000 tests/run tests/machine/test_undo_worlds.py`` runs others.
"""

from __future__ import annotations

import gc
import json
import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from machine.worlds import World
from support import Machine, until

from reconciler.cli.main import main

FIRST = int(os.environ.get("WORLDS_FROM", "1"))
MANY = int(os.environ.get("MANY", "10"))
FILES = ("directories", "files", "links", "permissions", "blocks", "retention")
NUMBER = int(os.environ.get("UNDONE", "1"))


def tree(top: Path) -> dict[str, tuple[Any, ...]]:
    found: dict[str, tuple[Any, ...]] = {}
    for path in [top, *top.rglob("*")]:
        seen = path.lstat()
        content: object = None
        if stat.S_ISLNK(seen.st_mode):
            content = os.readlink(path)
        elif stat.S_ISREG(seen.st_mode):
            content = path.read_bytes()
        acl = [os.getxattr(path, name, follow_symlinks=False)
               for name in os.listxattr(path, follow_symlinks=False)]  # fmt: skip
        mode = stat.filemode(seen.st_mode)
        found[str(path)] = mode, seen.st_uid, seen.st_gid, content, acl
    return found


def state(world: World) -> dict[str, Any]:
    machine = world.machine
    panes: list[str] = []
    if "sessions" in world.sections:
        form = "#{session_name} #{window_name}"
        panes = machine.tmux("list-panes", "-a", "-F", form).splitlines()
    return {
        "tree": tree(world.root),
        "crontab": machine.crontab_text(),
        "panes": sorted(panes),
        "processes": len(machine.running("sleep 8640")),
    }


def lost(document: dict[str, Any]) -> list[str]:
    return [one["id"] for one in document["unknown"] if "cannot be undone" in one["reason"]]


def check(machine: Machine, seed: int, sections: tuple[str, ...] = ()) -> None:
    world = World(machine, seed)
    for name in world.sections.keys() - set(sections or world.sections):
        del world.sections[name]
    for name, one in list(world.sections.get("retention", {}).items()):
        if one["action"] != "move":
            del world.sections["retention"][name]
    for one in world.sections.get("cron", {}).values():
        one.pop("env", None)  # Its values are not kept.
    world.spec = world._written()
    began = state(world)
    if not machine.once(world.spec)["steps"]:
        return
    undone(world, began)
    machine.reconcile("--resume", "*", world.spec)
    machine.once(world.spec)
    world.rest()
    began = state(world)
    world.retire()
    if machine.once(world.spec)["steps"]:
        undone(world, began)


def undone(world: World, began: dict[str, Any]) -> None:
    machine = world.machine
    planned = json.loads(machine.reconcile("--undo", "--plan", "--json", world.spec).stdout)
    done = machine.reconcile("--undo", "--json", world.spec)
    document = json.loads(done.stdout)
    assert lost(document) == [], document["unknown"]
    steps = [(one["id"], one["verb"], one["actions"]) for one in document["steps"]]
    plans = [(one["id"], one["verb"], one["actions"]) for one in planned["steps"]]
    assert steps[: len(plans)] == plans
    # Files that were moved are set when they are back.
    assert [one for one in steps[len(plans) :] if not one[0].startswith("permission:")] == []
    assert [one for one in document["steps"] if one["result"] != "done"] == []
    assert done.returncode == 0, done.stdout
    until(lambda: state(world)["processes"] == began["processes"])
    now = state(world)
    for what, was in began.items():
        if isinstance(was, dict):
            both = was.keys() | now[what].keys()
            differ = [key for key in both if was.get(key) != now[what].get(key)]
            assert differ == [], document
        assert now[what] == was, what


@pytest.mark.parametrize("seed", range(FIRST, FIRST + NUMBER))
def test_what_was_done_is_undone(machine: Machine, seed: int) -> None:
    check(machine, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 2000))
def test_a_thousand_worlds(machine: Machine, seed: int) -> None:
    check(machine, seed)


def test_some_worlds_of_files(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one process, so that there are more of them."""
    for name in os.environ.keys() - machine.environ.keys():
        monkeypatch.delenv(name)
    for name, value in machine.environ.items():
        monkeypatch.setenv(name, value)

    def reconcile(*argv: str | Path, **_: Any) -> subprocess.CompletedProcess[str]:
        capsys.readouterr()
        status = main([*map(str, argv), "--state-dir", str(machine.state)])
        said = capsys.readouterr()
        return subprocess.CompletedProcess([], status, said.out, said.err)

    monkeypatch.setattr(machine, "reconcile", reconcile)
    base = machine.base
    try:
        for seed in range(FIRST, FIRST + MANY):
            machine.base, machine.state = base / f"{seed}", base / f"{seed}/state"
            machine.base.mkdir()
            check(machine, seed, FILES)
    finally:
        machine.base, machine.state = base, base / "state"
        gc.enable()
