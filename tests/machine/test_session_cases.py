"""Sessions as people have them (tests/cases/sessions), on one server; and what they do then."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from support import Machine, until

CASES = Path(__file__).parent.parent / "cases" / "sessions"


def stories(base: Path) -> dict[str, Any]:
    reader = YAML(typ="safe")
    return {
        path.stem: reader.load(path.read_text().replace("BASE", str(base)))
        for path in sorted(CASES.glob("*.yaml"))
    }


def test_all_are_as_their_files_say(machine: Machine) -> None:
    cases = stories(machine.base)
    # JSON is YAML. What a mode or a flag is, is for the reader of the spec to say.
    spec = machine.spec(
        "sessions: " + json.dumps({name: one["want"] for name, one in cases.items()})
    )
    machine.once(spec)
    written = {name: text for one in cases.values() for name, text in one.get("files", {}).items()}

    def files() -> dict[str, str]:
        paths = {name: machine.base / name for name in written}
        return {name: path.read_text() for name, path in paths.items() if path.exists()}

    until(lambda: files() == written)
    shown = {
        name: machine.tmux("list-panes", "-s", "-t", f"={name}", "-F", one["form"]).splitlines()
        for name, one in cases.items()
    }
    assert shown == {name: one["shows"] for name, one in cases.items()}
    # What was typed has ended, and is no drift.
    machine.converged(spec)
    machine.once(spec)
    assert files() == written
    # What tmux has closed ends a moment later.
    until(lambda: not machine.running("sleep infinity"))


def test_an_option_is_set_back_and_what_was_typed_is_typed_into_a_new_shell_only(
    machine: Machine,
) -> None:
    typed = machine.base / "typed"
    spec = machine.spec(f"""
sessions:
  s:
    options: {{mouse: on}}
    windows:
      - {{name: a, panes: [{{command: [sleep, "66520"]}}]}}
      - name: b
        focus: true
        options: {{synchronize-panes: on}}
        panes:
          - {{type: "echo x >> {typed}"}}
          - {{command: "exec cat >> {typed}", focus: true}}
""")
    machine.once(spec)
    until(lambda: typed.exists() and typed.read_text() == "x\n")
    machine.tmux("set-option", "-t", "=s:", "mouse", "off")
    machine.tmux("set-option", "-w", "-t", "=s:=b", "synchronize-panes", "off")
    machine.tmux("select-window", "-t", "=s:=a")
    (step,) = machine.plan(spec)["steps"]
    assert [list(change.values()) for change in step["changes"]] == [
        ["option mouse", "off", "on"],
        ["option synchronize-panes of window b", "off", "on"],
    ]
    machine.once(spec)
    machine.converged(spec)
    # The shell is ended by its user, and comes back; where he stands now is left to him.
    machine.tmux("select-pane", "-t", "=s:=b.{top}")
    machine.tmux("kill-pane", "-t", "=s:=b.{top}")
    machine.once(spec)
    machine.converged(spec)
    until(lambda: typed.read_text() == "x\nx\n")
    shown = machine.tmux("list-windows", "-t", "=s", "-F", "#{window_name} #{window_active}")
    assert shown.splitlines() == ["a 1", "b 0"]


def test_what_tmux_does_not_take_keeps_nothing_else_from_being_made(machine: Machine) -> None:
    text = """
sessions:
  s:
    options: {pane-trees: on, mouse: maybe, history-limit: 777}
    windows: [{name: a, options: {mode-keys: vi}, panes: [{command: [sleep, "66521"]}]}]
  t: {windows: [{panes: [{command: [sleep, "66522"]}]}]}
"""
    spec = machine.spec(text)
    report = machine.once(spec, status=1)
    failed = {step["id"]: step.get("error") for step in report["steps"]}
    assert failed["session:t"] is None
    assert "invalid option: pane-trees" in failed["session:s"]
    assert "bad value: maybe" in failed["session:s"]
    seen = machine.tmux("list-panes", "-s", "-t", "=s", "-F", "#{history_limit} #{mode-keys}")
    assert seen == "777 vi\n"
    (step,) = machine.plan(spec)["steps"]
    assert [list(change.values()) for change in step["changes"]] == [
        ["option mouse", "0", "maybe"],
        ["option pane-trees", "not set", "on"],
    ]
    machine.converged(machine.spec(text.replace("pane-trees: on, mouse: maybe, ", "")))


def test_a_pass_that_is_killed_when_the_session_stands_leaves_what_the_next_one_takes(
    machine: Machine,
) -> None:
    """As where a folder to start in is gone between: the window that holds it is replaced."""
    machine.once(machine.spec("sessions: {s: {}}"))
    assert machine.running("sleep infinity")
    spec = machine.spec(
        "sessions: {s: {windows: [{name: a, panes: [{command: [sleep, '66523']}]}]}}"
    )
    machine.once(spec)
    machine.converged(spec)
    until(lambda: not machine.running("sleep infinity"))
    assert machine.tmux("list-panes", "-s", "-t", "=s", "-F", "#{window_name}") == "a\n"
