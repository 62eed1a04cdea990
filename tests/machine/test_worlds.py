"""Random worlds: what was planned is done, the next plan is empty, and people's things stay.

``WORLDS=1000 WORLDS_FROM=5000 tests/run tests/machine/test_worlds.py`` runs others; a world
that went wrong is made again by its seed alone.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any

import pytest
from machine.worlds import PEOPLE, World, snapshot
from support import Machine

from reconciler.cli.main import main

FIRST = int(os.environ.get("WORLDS_FROM", "1"))
SEEDS = range(FIRST, FIRST + int(os.environ.get("WORLDS", "30")))
FILES = ("permission:", "retention:")
"""What a pass may do otherwise than planned: to files that it has itself made, moved or renamed."""


@pytest.mark.parametrize("seed", SEEDS)
def test_a_random_world(machine: Machine, seed: int) -> None:
    world = World(machine, seed)
    foreign = snapshot(world.foreign)
    assert main(["--check", str(world.spec), "--state-dir", str(machine.state)]) == 0
    done_so_far: list[str] = []
    for _ in range(1 + seed % 2):
        agreed(world, done_so_far)
        assert snapshot(world.foreign) == foreign
        for path in world.people:
            assert PEOPLE in path.read_bytes()
        done_so_far += world.drift()
    done_so_far += [f"retired {name}" for name in world.retire()]
    agreed(world, done_so_far)
    assert snapshot(world.foreign) == foreign


def timeless(step: dict[str, Any]) -> dict[str, Any]:
    """Without the next time of a schedule, which may pass between two plans."""
    return step | {"why": re.sub(r", next [-0-9]+ [:0-9]+", "", step["why"])}


def agreed(world: World, deeds: list[str]) -> None:
    """One pass over the world: all modes agree before and after, and it does what it said."""
    machine, said = world.machine, f"after {deeds}"
    before = state(world)
    plan = machine.plan(world.spec)
    assert plan["unknown"] == [], said
    for step in plan["steps"][:1]:
        only = machine.plan(world.spec, "--only", step["id"])["steps"]
        planned = list(map(timeless, plan["steps"]))
        assert [one for one in map(timeless, only) if one not in planned] == [], said
        assert step["id"] in [one["id"] for one in only], said
    assert state(world) == before, said

    report = machine.once(world.spec)
    # What has just been started anew may have to wait a moment, which a single pass does.
    waits = {remark["id"] for remark in (*plan["skipped"], *plan["notes"])}
    done = [step for step in exact(report) if step[0] not in waits]
    assert done == [step for step in exact(plan) if step[0] not in waits], said
    assert {step["id"] for step in plan["steps"]} <= {step["id"] for step in report["steps"]}, said
    results = {(step["id"], step["result"]) for step in report["steps"]}
    wrong = [one for one in results if one[1] != "done" and not dropped(*one)]
    assert wrong == [], said

    after = machine.plan(world.spec)
    assert (after["steps"], after["unknown"]) == ([], []), said
    world.rest()
    settled = state(world)
    again = machine.once(world.spec)
    assert again["steps"] == [], said
    assert state(world) == settled, said
    status = machine.reconcile("--status", world.spec, "--json")
    assert status.returncode == 0, (said, status.stdout)
    told = {one["id"]: one for one in json.loads(status.stdout)["resources"]}
    assert {key for key, one in told.items() if one["state"] not in FINE} == set(), said


FINE = ("ok",)


def exact(document: dict[str, Any]) -> list[tuple[str, str, list[str]]]:
    """The steps that have to be the same in the plan and in the report of the pass."""
    return [
        (step["id"], step["verb"], step["actions"])
        for step in document["steps"]
        if not step["id"].startswith(FILES)
    ]


def dropped(key: str, result: str) -> bool:
    """Had a step before it left nothing to do?"""
    return result == "dropped" and key.startswith(FILES)


def state(world: World) -> tuple[object, ...]:
    """All of this world that people could see change."""
    machine = world.machine
    panes = machine.tmux("list-panes", "-a", "-F", "#{session_name} #{window_name} #{pane_pid}")
    processes = sorted(machine.running("sleep 8640"))
    return snapshot(world.root), machine.crontab_text(), panes, processes
