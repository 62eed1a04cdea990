"""What may be written under sessions, and what is said about the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from support import compiled

from reconciler.config.errors import SpecError

CASES = sorted((Path(__file__).parent.parent / "cases" / "sessions").glob("*.yaml"))
PANE = "windows: [{panes: [{%s}]}]"
BAD = {
    "option with a slip": ("options: {mose: on}", "'mouse'"),
    "window option with a slip": (
        "windows: [{options: {main-pane-heigth: 5}}]", "'main-pane-height'"),
    "option of windows": ("options: {main-pane-height: 5}", "is an option of a window"),
    "option of sessions": ("windows: [{options: {mouse: on}}]", "is an option of the session"),
    "option of the server": ("options: {escape-time: 0}", "of the whole server"),
    "option that ends the session": ("options: {destroy-unattached: on}", "set by this program"),
    "mark": ("options: {'@reconcile': x}", "set by this program"),
    "list": ("options: {update-environment: DISPLAY}", "update-environment[0]"),
    "odd option": ("options: {'a b': x}", "not a name for an option"),
    "command for an option": ("options: {'#(id)': x}", "not a name for an option"),
    "two lines in an option": ('options: {status-left: "a\\nb"}', "cannot be shown"),
    "nothing to type": (PANE % "type: ''", "is empty"),
    "blank lines to type": (PANE % "type: ['', '']", "is empty"),
    "a key to type": (PANE % 'type: "a\\tb"', "control character"),
    "long line": (PANE % f"type: {'x' * 4001}", "more than 4000 bytes"),
    "mapping to type": (PANE % "type: [{enter: false}]", "not a mapping"),
    "nothing to type into": (
        "shell_before: x\n    windows: [{panes: [{command: top}]}]", "no pane of it has a shell"),
    "no shell in the window": (
        "windows: [{}, {shell_before: x, panes: [{command: top}]}]", "no pane of it has a shell"),
    "no shell in the pane": (PANE % "command: top, shell_before: x", "in place of a shell"),
    "before one command": ("command: top\n    shell_before: x", "no pane of it has a shell"),
    "two windows in focus": ("windows: [{focus: true}, {focus: true}]", "only one window"),
    "two panes in focus": ("windows: [{panes: [{focus: true}, {focus: true}]}]", "only one pane"),
    "focus": ("windows: [{focus: yes}]", "neither true nor false"),
    "variable": (PANE % "env: {A-B: x}", "not a name for an environment variable"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_is_refused(name: str, tmp_path: Path) -> None:
    text, fragment = BAD[name]
    with pytest.raises(SpecError) as raised:
        compiled(tmp_path, f"sessions:\n  s:\n    {text}\n")
    (problem,) = raised.value.problems
    assert fragment in f"{problem.message} {problem.hint}"
    assert problem.line and problem.line > 4


def test_an_option_of_a_newer_tmux_is_left_to_that(tmp_path: Path) -> None:
    compiled(tmp_path, "sessions: {s: {options: {pane-trees: on}, windows: [{}]}}")


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_the_schema_takes_what_people_have(case: Path, by_schema: Any) -> None:
    want: Any = json.loads(json.dumps(YAML(typ="safe").load(case)["want"]))
    document = {"version": 1, "name": "demo", "sessions": {"s": want}}
    assert by_schema(document) == []


def test_windows_of_one_name_have_keys_of_their_own(tmp_path: Path) -> None:
    names = ["a", "a", "a#2", None, "3", "a"]
    windows = [{} if name is None else {"name": name} for name in names]
    spec = compiled(tmp_path, f"sessions: {{s: {{windows: {json.dumps(windows)}}}}}")
    keys = [key for key, _ in spec.resources[0].want.layout()]
    assert keys == ["a", "a#3", "a#2", "3#2", "3", "a#4"]
