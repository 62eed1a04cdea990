"""What a person sees: tables that fit, colours where they are wanted, and how far work has come."""

from __future__ import annotations

import os
import random
import re
import signal
from pathlib import Path

from machine.screen import Screen
from support import Machine, until

BAR = re.compile("[━╸╺]")
SHOWN = re.compile(r"add to .+ [0-9.]+ MiB/96 MiB [0-9:-]+")


def spec(machine: Machine) -> Path:
    long = f"{machine.base}/{'deep/' * 12}down"
    return machine.spec(
        "directories:\n"
        f"  well: {{path: {machine.base}/well}}\n"
        f"  {'far_away_' * 4}: {{path: {long}}}\n"
        f"checks: {{few: {{queue: {{path: {machine.base}/well, max_count: 5}}, every: 1h}}}}\n"
    )


def row(text: str, name: str) -> str:
    (line,) = (line for line in text.splitlines() if line.strip().startswith(name))
    return line


def test_a_status_is_a_table_that_fits(machine: Machine) -> None:
    path = spec(machine)
    (machine.base / "well").mkdir()
    machine.once(path, "--only", "check:few")
    screen = Screen(machine, *machine.argv("--status", path))
    assert screen.end() == 0
    text = screen.text
    assert re.search(r"^ +resource +state +next +details$", text, re.M)
    assert row(text, "directory:well").split() == ["directory:well", "ok"]
    assert row(text, "check:few").split()[:5] == ["check:few", "ok", "60", "min", "no"]
    # Folded within its column, so that the others can still be read.
    lines = text.splitlines()
    at = lines.index(row(text, "directory:far_away_"))
    start = lines[at].index("missing")
    assert "\x1b[32m" in screen.colored and "\x1b[33m" in screen.colored
    assert max(map(len, lines)) <= 80
    assert start > 40
    # Where nobody watches it is one line a row, and nothing is folded or coloured.
    done = machine.reconcile("--status", path)
    assert "\x1b" not in done.stdout
    assert row(done.stdout, "directory:far_away_").endswith("missing")


def test_without_colours_the_table_is_the_same(machine: Machine) -> None:
    path = spec(machine)
    colored = Screen(machine, *machine.argv("--status", path))
    colored.end()
    text = colored.text
    machine.environ["NO_COLOR"] = "1"
    plain = Screen(machine, *machine.argv("--status", path))
    plain.end()
    assert plain.colored == plain.text == text


def test_history_and_diagnosis_fit_too(machine: Machine) -> None:
    path = spec(machine)
    machine.once(path)
    history = Screen(machine, *machine.argv("--history", path))
    assert history.end() == 0
    assert re.search(r"when +pass +by +what was done, and why", history.text)
    assert re.search(r"done create\s+directory:far_away_", history.text)
    found = Screen(machine, *machine.argv("--diagnose", path))
    found.end()
    head = r"^ +{} *$"
    for words in (
        "file system +free +of +inodes free +of",
        "folder +files +size +last hour +oldest",
        "check +result +took +output",
    ):
        assert re.search(head.format(words), found.text, re.M), words
    assert max(map(len, found.text.splitlines())) <= 80


def logs(machine: Machine, megabytes: int) -> Path:
    """Old logs that take their time to be compressed, and the rule that archives them."""
    folder = machine.base / "logs"
    folder.mkdir()
    for name in ("a.log", "b.log"):
        (folder / name).write_bytes(random.Random(name).randbytes(megabytes << 20))
        os.utime(folder / name, (10**9, 10**9))
    return machine.spec(
        f"retention: {{old: {{path: {folder}, older_than: 1d, action: archive, "
        f"to: {machine.base}/old.tar.gz}}}}"
    )


def test_long_work_shows_how_far_it_is_and_can_be_interrupted(machine: Machine) -> None:
    path = logs(machine, 24)
    folder = machine.base / "logs"
    screen = Screen(machine, *machine.argv("--once", path))
    until(lambda: BAR.search(text := screen.text) and SHOWN.search(text))
    before = screen.text
    until(lambda: screen.text != before)
    # Should it be killed now, the terminal is as usable as before.
    assert screen.cursor_is_seen()
    screen.press("C-c")
    assert screen.end() == 130
    assert not BAR.search(screen.text)
    assert "interrupted; the next pass goes on from here" in screen.text
    assert sorted(os.listdir(folder)) == ["a.log", "b.log"]
    assert [name for name in os.listdir(machine.base) if "old.tar" in name] == []
    # Where nobody watches nothing is drawn; and nothing is lost.
    done = machine.reconcile("--once", path)
    assert done.returncode == 0 and not BAR.search(done.stdout + done.stderr)
    assert os.listdir(folder) == [] and (machine.base / "old.tar.gz").stat().st_size > 45 << 20


def test_a_killed_one_leaves_a_terminal_that_can_be_used(machine: Machine) -> None:
    path = logs(machine, 24)
    screen = Screen(machine, *machine.argv("--once", path))
    until(lambda: BAR.search(screen.text))
    ours = machine.ours().items()
    (pid,) = (pid for pid, line in ours if " --once " in line and "sleep 1000" not in line)
    os.kill(pid, signal.SIGKILL)
    assert screen.end() == 137
    assert screen.cursor_is_seen()
    machine.once(path)
    machine.converged(path)


def test_short_work_shows_nothing_and_json_stays_one_document(machine: Machine) -> None:
    path = spec(machine)
    argv = " ".join(f"'{word}'" for word in machine.argv("--once", path, "--json"))
    screen = Screen(machine, "sh", "-c", f"{argv} >{machine.base}/said")
    assert screen.end() == 0
    assert not BAR.search(screen.text)
    assert (machine.base / "said").read_text().startswith("{\n")
