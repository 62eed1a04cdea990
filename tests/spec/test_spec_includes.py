"""What a spec is made of besides its own file: patterns, and what comes with the program."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from support import Machine, compiled, until

from reconciler.core.model import Spec

HEAD = "version: 1\nname: demo\n"


def paths(spec: Spec) -> list[str]:
    return [resource.want.path for resource in spec.resources]


def test_a_pattern_takes_files_by_name(room: Any) -> None:
    for name in ("b.yaml", "a.yaml", ".hidden.yaml", "c.txt"):
        room.write(f"folders: {{{name.strip('.')[0]}: {{path: /{name}}}}}\n", f"conf.d/{name}")
    text = f"{HEAD}include: ['conf.d/*.yaml', 'none/*.yaml']\n"
    assert any("does not exist" in one.message for one in room.fails(text))
    assert paths(room.load(f"{HEAD}include: ['conf.d/*.yaml']\n")) == ["/a.yaml", "/b.yaml"]
    assert paths(room.load(f"{HEAD}include: ['conf.d/x*.yaml']\n")) == []


def test_a_new_file_that_a_pattern_takes_is_noticed(room: Any) -> None:
    room.write("folders: {a: {path: /a}}\n", "conf.d/a.yaml")
    text = f"{HEAD}include: ['conf.d/*.yaml']\n"
    assert room.cached(text)[1]
    assert not room.cached(text)[1]
    room.write("folders: {b: {path: /b}}\n", "conf.d/b.yaml")
    spec, compiled_again = room.cached(text, patience=5.0)
    assert compiled_again
    assert paths(spec) == ["/a", "/b"]
    assert not room.cached(text)[1]


def test_variables_of_who_includes_a_file_count(room: Any) -> None:
    room.write("vars: {v: inner, w: '{{ v }}'}\nfolders: {a: {path: '/{{ w }}'}}\n", "sub/c.yaml")
    room.write("include: [sub/c.yaml]\n", "b.yaml")
    text = HEAD + "include: [b.yaml]\nvars: {v: outer}\n"
    assert paths(room.load(text)) == ["/outer"]
    room.write("vars: {v: beside}\n", "d.yaml")
    (problem,) = room.fails(HEAD + "include: [b.yaml, d.yaml]\n")
    assert f"'v' is set twice; first in {room.base}/sub/c.yaml, line 1" in problem.message


def test_a_file_beside_the_spec_counts_more_than_one_that_comes_with_the_program(
    room: Any,
) -> None:
    room.write("folders: {a: {path: /mine}}\n", "watchdog")
    assert paths(room.load(f"{HEAD}include: [watchdog]\n")) == ["/mine"]


WITH = "include: [watchdog]\n"


def watchdog(folder: Path, text: str = WITH, **changed: Any) -> dict[str, str]:
    """What runs it: ids of what is present and not skipped, with their names or schedules."""
    spec = compiled(folder, text, host=changed)
    return {
        one.id: str(getattr(one.want, "schedule", getattr(one.want, "scope", "")))
        for one in spec.resources
        if one.present and one.skip is None
    }


CRON = {"cron:watchdog_boot": "@reboot", "cron:watchdog_pass": "*/5 * * * *"}


@pytest.mark.parametrize(
    ("facts", "text", "expected"),
    [
        ({"user_uid": 0}, WITH, {"unit:watchdog": "system", **CRON}),
        ({"user_uid": 7, "linger": True}, WITH, {"unit:watchdog": "user", **CRON}),
        ({"user_uid": 7}, WITH, {"session:watchdog": "", **CRON}),
        ({"systemd": False}, WITH, {"session:watchdog": "", **CRON}),
        ({"user_uid": 0}, f"{WITH}vars: {{watchdog_by: none}}\n", CRON),
        (
            {"user_uid": 0},
            f"{WITH}vars: {{watchdog_by: tmux, watchdog_cron: none}}\n",
            {"session:watchdog": ""},
        ),
        (
            {"systemd": False, "crontab": False, "tmux": False},
            f"{WITH}vars: {{watchdog_login: true}}\n",
            {"block:watchdog_login": ""},
        ),
    ],
)
def test_what_keeps_a_spec(
    facts: dict[str, Any], text: str, expected: dict[str, str], tmp_path: Path
) -> None:
    assert watchdog(tmp_path, text, **facts) == expected


def test_a_spec_of_nine_lines_is_kept(machine: Machine) -> None:
    mark = f"sleep {7_000_000 + os.getpid()}"
    spec = machine.spec(f"""\
version: 1
name: demo
include: [watchdog]
vars: {{watchdog_by: tmux}}
processes:
  worker:
    command: [{", ".join(mark.split())}]
""")
    machine.once(spec)
    pid = machine.only(mark)
    lines = machine.crontab.read_text()
    assert f"--once -q {spec} --state-dir" in lines
    until(lambda: (machine.state / "demo/loop").exists())
    assert machine.steps(spec) == []
    assert machine.running(mark) == [pid]
    done = machine.reconcile("--uninstall", spec)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not machine.crontab.exists()
    until(lambda: not machine.running(mark))
