"""kill -9 at every system call of a pass that changes something: what was done is taken back."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from faults.test_kills import CALLS
from machine.test_undo_worlds import tree
from support import Machine

CHANGES = f"{CALLS},fchmod,symlinkat,linkat,renameat2,rmdir,unlinkat,fdatasync"


def spec_of(machine: Machine, top: Path) -> Path:
    """Each kind that undo knows of files, which comes from other content where it can."""
    (top / "kept").mkdir(parents=True, mode=0o755)
    (top / "logs").mkdir()
    for name in ("old", "gone", "logs/a", "logs/b"):
        (top / name).write_text(f"{name}\n")
        (top / name).chmod(0o644)
        os.utime(top / name, (1, 1))
    (top / "rc").write_text("mine\n")
    return machine.spec(
        "version: 1\nname: demo\ndirectories:\n"
        f"  d: {{path: {top}/a/b, mode: '0750'}}\n  k: {{path: {top}/kept, mode: '0700'}}\n"
        f"  to: {{path: {top}/to}}\n"
        f"files:\n  f: {{path: {top}/a/b/f, content: new}}\n"
        f"  o: {{path: {top}/old, content: other}}\n"
        f'  g: {{path: {top}/gone, content: "gone\\n", state: absent}}\n'
        f"links: {{l: {{path: {top}/a/l, target: b}}}}\n"
        f"permissions: {{p: {{path: {top}/rc, mode: '0600'}}}}\n"
        f"blocks: {{b: {{path: {top}/profile, content: alias x=y}}}}\n"
        f"retention: {{r: {{path: {top}/logs, action: move, to: {top}/to, older_than: 1d}}}}\n"
        "processes: {p: {command: [sleep, '90781']}}\n"
        f"cron: {{c: {{schedule: '@daily', command: {top}/x}}}}\n"
    )


def differing(now: dict[str, Any], before: dict[str, Any]) -> set[str]:
    """But for the draft that a kill leaves, which who writes there next takes away."""
    keys = [one for one in now.keys() | before.keys() if ".reconcile.d" not in one]
    return {key for key in keys if now.get(key) != before.get(key)}


@pytest.mark.parametrize("every", [61, pytest.param(1, marks=pytest.mark.slow)])
def test_what_was_done_before_a_kill_is_undone(machine: Machine, every: int) -> None:
    top = machine.base / "top"
    spec = spec_of(machine, top)
    machine.write_crontab(b"1 1 * * * mine\n")
    before = tree(top)
    trace = machine.traced(f"trace={CHANGES}", *machine.argv("--once", spec))
    assert tree(top) != before
    made = re.findall(rf"^(?:\[?\d+\]? +)?({CHANGES.replace(',', '|')})\(", trace, re.MULTILINE)
    places = [(name, made[: at + 1].count(name)) for at, name in enumerate(made)]
    assert len(places) > 50
    named = 0
    for name, number in [(None, 0), *places[::every]]:
        if name is not None:
            machine.clear()
            machine.run("rm", "-rf", machine.state)
            machine.traced(
                f"trace={CHANGES}", *machine.argv("--once", spec),
                options=("-e", f"inject={name}:signal=KILL:when={number}"),
            )  # fmt: skip
        done = machine.reconcile("--undo", "--json", spec)
        if done.returncode == 64:
            assert "nothing to undo" in done.stderr
            assert differing(tree(top), before) == set(), (name, number)
            continue
        document = json.loads(done.stdout)
        told = {one["id"]: one["reason"] for one in document["unknown"]}
        # A draft may be left in a folder.
        words = ("cut short at it", "is not empty")
        assert all(any(one in why for one in words) for why in told.values()), (name, number, told)
        assert done.returncode == bool(told)
        if told:
            named += 1
            machine.run("rm", "-rf", top)
            spec = spec_of(machine, top)
        else:
            assert differing(tree(top), before) == set(), (name, number, document)
        assert machine.running("sleep 90781") == []
        assert machine.crontab_text() == b"1 1 * * * mine\n"
    assert named <= len(places) // 10
