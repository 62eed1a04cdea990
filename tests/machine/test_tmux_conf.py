"""A session is made as declared, whatever a person's tmux.conf says."""

from __future__ import annotations

import json

import pytest
from support import Machine, until

SPEC = """
sessions:
  s:
    env: {{GREETING: hello}}
    windows:
      - {{name: edit, panes: [{{command: [sleep, "{0}1"]}}, {{}}, {{command: [sleep, "{0}2"]}}]}}
      - {{name: "b #S", layout: even-vertical, panes: [{{command: [sleep, "{0}3"]}}, {{}}]}}
  t: {{}}
processes:
  p: {{command: [sleep, "{0}4"], session: t}}
  q: {{command: [sleep, "{0}5"], session: t}}
"""
CONF = {
    "hooks": """
        set-hook -g after-new-session 'rename-session -t : x'
        set-hook -g after-new-window 'rename-window x'
        set-hook -g after-split-window 'select-pane -t :.+'
        set-hook -g after-set-option 'select-window -t :+'
        set-hook -g after-select-layout 'select-pane -t :.+'
        set-hook -g session-created 'rename-session made'
        set-hook -g window-linked 'rename-window linked'
    """,
    "options": """
        set -g destroy-unattached on
        set -s exit-unattached on
        set -g base-index 7
        set -gw pane-base-index 3
        set -g renumber-windows on
        set -g default-command false
        set -gw remain-on-exit on
        set -g default-size 9x3
        set -gw aggressive-resize on
        set -gw window-size smallest
        set -gw automatic-rename on
        set -g status off
        set -g prefix C-a
        set -g @reconcile his
        set -g @reconcile_session s
    """,
    "commands": """
        no-such-command
        set -g no-such-option 1
        new-session -d -s his 'sleep 66409'
        set -s command-alias[50] split-window='split-window -h'
        set -s command-alias[51] new-window='new-window -a'
        set -g default-shell /bin/dash
        set -g default-command 'exec sleep 66408'
    """,
}
SEEN = "#{@reconcile_home}|#{@reconcile_window}|#{@reconcile_pane}|#{pane_pid}|#{pane_dead}"


@pytest.mark.parametrize("conf", CONF.values(), ids=CONF)
def test_the_sessions_are_as_declared_after_one_pass(machine: Machine, conf: str) -> None:
    (machine.home / ".tmux.conf").write_text(conf)
    spec = machine.spec(SPEC.format("6640"))
    machine.once(spec)
    machine.converged(spec)
    shells = ("sh", "dash", "bash", "zsh", "-")

    def panes() -> dict[str, tuple[str, str]]:
        found = {}
        for line in machine.tmux("list-panes", "-a", "-F", SEEN).splitlines():
            home, window, number, pid, dead = line.split("|")
            words = (machine.ours().get(int(pid)) or "dead").split()
            program = words[-1] if words[0].endswith("sleep") else words[0].rpartition("/")[2]
            found[f"{home} {window} {number}"] = "a shell" if program in shells else program, dead
        found.pop("  ", None)  # His own.
        return found

    wanted = {
        "demo/s window:edit 0": ("66401", "0"),
        "demo/s window:edit 1": ("a shell", "0"),
        "demo/s window:edit 2": ("66402", "0"),
        "demo/s window:b #S 0": ("66403", "0"),
        "demo/s window:b #S 1": ("a shell", "0"),
        "demo/t process:p process": ("66404", "0"),
        "demo/t process:q process": ("66405", "0"),
    }
    # A pane is the server itself, or a shell, until it becomes its program.
    until(lambda: panes() == wanted)


NAMES = ["-x #{pane_id}; #S %H", '#{S}"$HOME', "#,:}{##;"]
ARGUMENTS = [
    "a;", ";", "a\\;", "'", '"', "$HOME", "`id`", "#{pane_id}", "#S", "##", "%1", "%H", "{", "}",
    "~", "-x", "--", "a b", "", "two\nlines", "tab\t", "\u00e4\u20ac", "*", "\\", "\\\\n", "!x",
    "a=b",
]  # fmt: skip


def test_words_reach_the_program_as_they_are(machine: Machine) -> None:
    folder = machine.base / "my #{pane_id} #S %H ##x,}{:;"
    folder.mkdir()
    tool = folder / "run it;"
    tool.write_text(
        f'#!/bin/sh\nprintf "%s\\0" "$0" "$PWD" "$@" > {machine.base}/"said.$#"\nexec sleep 6641'
    )
    tool.chmod(0o755)
    alone, cwd = json.dumps([str(tool)]), json.dumps(str(folder))
    spec = machine.spec(
        "sessions:\n"
        f"  one: {{cwd: {cwd}, command: {alone}}}\n"
        f"  all: {{command: {json.dumps([str(tool), *ARGUMENTS])}, cwd: {cwd}}}\n"
        "  names:\n    windows:\n"
        + "".join(
            f"      - {{name: {json.dumps(name)}, panes: [{{command: {alone}}}]}}\n"
            for name in NAMES
        )
    )
    machine.once(spec)
    machine.converged(spec)

    def said(count: int) -> list[str]:
        path = machine.base / f"said.{count}"
        # It is there, and empty, before it is written; and it is written more than once.
        words: list[str] = until(
            lambda: path.exists() and (text := path.read_text()) and text.split("\0")[:-1]
        )
        return words

    assert said(0)[0] == str(tool)
    assert said(len(ARGUMENTS)) == [str(tool), str(folder), *ARGUMENTS]
    names = machine.tmux("list-windows", "-t", "=names", "-F", "#{window_name}").splitlines()
    assert names == NAMES
