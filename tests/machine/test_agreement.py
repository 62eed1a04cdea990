"""``--plan``, ``--status`` and ``--diagnose`` say the same of every resource, in every state."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import Machine, until

Told = dict[str, str]


def of_plan(document: dict[str, Any]) -> Told:
    states = dict.fromkeys((step["id"] for step in document["steps"]), "differs")
    for name in ("failing", "skipped", "unknown"):
        states |= dict.fromkeys((one["id"] for one in document[name]), name)
    return states


def of_rows(document: dict[str, Any]) -> Told:
    same = {"paused": "skipped", "waits": "skipped", "given up": "skipped"}
    return {one["id"]: same.get(one["state"], one["state"]) for one in document["resources"]}


def agree(machine: Machine, spec: Path) -> Told:
    """All three say the same; what they say."""
    done = {
        mode: machine.reconcile(f"--{mode}", spec, "--json")
        for mode in ("plan", "status", "diagnose")
    }
    document = {mode: json.loads(one.stdout) for mode, one in done.items()}
    rows = of_rows(document["status"])
    assert of_rows(document["diagnose"]) == rows
    states = {one["state"] for one in document["status"]["resources"]}
    assert of_plan(document["plan"]) == {i: state for i, state in rows.items() if state != "ok"}
    trouble = bool(states & {"unknown", "failing", "waits", "given up"})
    assert done["plan"].returncode == done["status"].returncode == trouble
    assert done["diagnose"].returncode or not (trouble or "differs" in states)
    return rows


@pytest.fixture
def spec(machine: Machine) -> Path:
    """Something of every kind."""
    base, mark = machine.base, uuid.uuid4().hex
    (base / "rc").write_text("mine\n")
    (base / "old").mkdir()
    machine.write_crontab(b"")
    return machine.spec(
        f"""\
version: 1
name: demo
directories:
  d: {{path: {base}/d, mode: "0755"}}
  below: {{path: {base}/d/below}}
  off: {{path: {base}/off, when: "false"}}
  gone: {{path: {base}/gone, state: absent}}
permissions:
  p: {{path: "{base}/d/*", mode: "0700"}}
retention:
  r: {{path: {base}/old, match: "*", older_than: 1h, action: delete}}
sessions:
  s: {{}}
processes:
  w: {{command: [sh, -c, "sleep 601; :", {mark}], session: s}}
  n: {{command: [sh, -c, "sleep 600; :", n-{mark}], needs: [check:c]}}
units:
  u.service: {{content: "[Service]\\nExecStart=/bin/true\\n", scope: user, active: true}}
cron:
  c: {{schedule: "@reboot", command: [echo, x]}}
blocks:
  b: {{path: {base}/rc, content: "x\\n"}}
checks:
  c: {{command: [test, -e, {base}/well], every: 1h}}
"""
    )


def test_of_what_was_never_applied(machine: Machine, spec: Path) -> None:
    rows = agree(machine, spec)
    assert rows["directory:d"] == "differs"
    assert (rows["directory:off"], rows["directory:gone"]) == ("skipped", "ok")


def break_directory(machine: Machine) -> None:
    (machine.base / "d/below").rmdir()
    (machine.base / "d").rmdir()
    (machine.base / "d").touch()


def break_cron(machine: Machine) -> None:
    machine.fake("crontab", "echo no such luck >&2; exit 1; :")


def break_block(machine: Machine) -> None:
    (machine.base / "rc").unlink()
    (machine.base / "rc").mkdir()


def end_tmux(machine: Machine) -> None:
    machine.tmux("kill-server")
    until(lambda: not machine.tmux("list-sessions"))
    # What ran there ends a moment later, and would be another thing for each of the three.
    until(lambda: not machine.running("sleep 601"))


def break_session(machine: Machine) -> None:
    end_tmux(machine)
    machine.fake("tmux", "echo no such luck >&2; exit 3; :")


def age_a_file(machine: Machine) -> None:
    (machine.base / "old/file").touch()
    os.utime(machine.base / "old/file", (1, 1))


Breaks = dict[str, Callable[[Machine], object]]
DIFFERENT: Breaks = {
    "directory:d": lambda machine: (machine.base / "d").chmod(0o700),
    "permission:p": lambda machine: (machine.base / "d/below").chmod(0o755),
    "retention:r": age_a_file,
    "session:s": end_tmux,
    "cron:c": lambda machine: machine.write_crontab(b""),
    "block:b": lambda machine: (machine.base / "rc").write_text("mine\n"),
}
UNKNOWN: Breaks = {
    "directory:d": break_directory,
    "cron:c": break_cron,
    "block:b": break_block,
    "session:s": break_session,
}


@pytest.mark.parametrize(("state", "breaks"), [("differs", DIFFERENT), ("unknown", UNKNOWN)])
def test_of_each_kind_in_each_state(
    machine: Machine, spec: Path, state: str, breaks: Breaks
) -> None:
    (machine.base / "well").touch()
    machine.reconcile("--once", spec)
    assert agree(machine, spec)["directory:d"] == "ok"
    for act in breaks.values():
        act(machine)
    rows = agree(machine, spec)
    assert {ident: rows[ident] for ident in breaks} == dict.fromkeys(breaks, state)


def test_of_checks_pauses_and_attempts(machine: Machine, spec: Path) -> None:
    """A check that fails, what is paused, and what was given up."""
    text = spec.read_text().replace(
        "units:",
        "  bad: {command: ['false'], restart: {attempts: 1, retry_every: 1h}}\nunits:",
    )
    spec.write_text(text)
    machine.reconcile("--once", spec)
    machine.reconcile("--pause", "session:s", spec)
    machine.reconcile("--once", spec)
    rows = agree(machine, spec)
    assert (rows["check:c"], rows["session:s"]) == ("failing", "skipped")
    assert rows["process:bad"] == "skipped"


def test_of_two_that_contradict_one_another(machine: Machine) -> None:
    """Which only the host shows: two paths that are one."""
    base = machine.base
    (base / "one").mkdir()
    (base / "two").symlink_to("one")
    spec = machine.spec(
        f"directories:\n  a: {{path: {base}/one, mode: '0700'}}\n"
        f"  b: {{path: {base}/two, mode: '0711'}}\n"
    )
    assert agree(machine, spec) == {"directory:a": "unknown", "directory:b": "unknown"}
