"""Ten times the files, blocks and paths: which system calls are made, and how many of each."""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from support import Machine


def calls(machine: Machine, argv: Sequence[str | Path], about: str) -> Counter[str]:
    """How often each system call names a path that matches, by call; ``execve`` of all."""
    trace = machine.traced("all", *argv)
    assert re.search(r"\+\+\+ exited with [02] \+\+\+", trace), trace[-2000:]
    found: Counter[str] = Counter()
    for line in trace.splitlines():
        call = re.match(r"\d+ +(\w+)\(", line)
        if call and (call[1] == "execve" or re.search(about, line)):
            found[call[1]] += 1
    return found


def test_a_file_is_read_and_written_once_for_all_of_its_blocks(machine: Machine) -> None:
    seen = {}
    for number in (10, 100):
        text = machine.base / f"text{number}"
        spec = machine.spec(
            f"version: 1\nname: b{number}\nblocks:\n"
            + "".join(f"  b{at}: {{path: {text}, content: line {at}}}\n" for at in range(number)),
            f"b{number}.yaml",
        )
        machine.run(*machine.argv("--check", spec))
        first = calls(machine, machine.argv("--once", spec), f'"{text.name}"')
        assert text.read_text().count("\nline ") == number
        quiet = calls(machine, machine.argv("--once", spec), f'"{text.name}"')
        seen[number] = first, quiet
        assert first["renameat2"] + first["linkat"] == 1
        assert quiet["openat"] == 1
    assert seen[10] == seen[100]


def filled(machine: Machine, number: int) -> Path:
    """A folder with so many files, which are a day old."""
    top = machine.base / f"top{number}"
    top.mkdir(mode=0o755)
    then = time.time() - 86400
    for at in range(number):
        (top / f"name{at:04}").write_text("x")
        (top / f"name{at:04}").chmod(0o644)
        os.utime(top / f"name{at:04}", (then, then))
    return top


def test_a_permission_asks_once_for_each_path_that_is_right(machine: Machine) -> None:
    for number in (20, 200):
        top = filled(machine, number)
        rule = f"{{path: {top}, recursive: true, file_mode: '0644', dir_mode: '0755'}}"
        spec = machine.spec(
            f"version: 1\nname: p{number}\npermissions: {{p: {rule}}}\n", f"p{number}.yaml"
        )
        machine.once(spec)
        quiet = calls(machine, machine.argv("--once", spec), r'"name\d{4}"')
        assert quiet == {"newfstatat": number, "execve": 1}


@pytest.mark.parametrize("action", ["delete", "move, to: {to}", "archive, to: {to}.tar.gz"])
def test_ten_times_the_due_files_take_ten_times_the_calls(machine: Machine, action: str) -> None:
    found = {}
    for number in (20, 200):
        top = filled(machine, number)
        rule = (
            f"path: {top}, older_than: 1h, action: {action.format(to=machine.base / f'to{number}')}"
        )
        spec = machine.spec(
            f"version: 1\nname: r{number}\nretention: {{r: {{{rule}}}}}\n", f"r{number}.yaml"
        )
        machine.run(*machine.argv("--check", spec))
        found[number] = calls(machine, machine.argv("--once", spec), r'"name\d{4}"')
        assert list(top.iterdir()) == []
        if action == "delete":
            # Looked at, asked who has it open for the plan and right before it goes, and deleted.
            assert found[number] == {
                "newfstatat": number, "openat": 2 * number, "unlinkat": number, "execve": 1,
            }  # fmt: skip
    few, many = found[20], found[200]
    assert many.pop("execve") == few.pop("execve") == 1
    assert many == {call: 10 * count for call, count in few.items()}


def test_of_plain_files_that_are_archived_the_file_system_is_not_asked(machine: Machine) -> None:
    """It is where a file has set-ID bits, which may have no effect there."""
    top = filled(machine, 30)
    (top / "name0000").chmod(0o4755)
    rule = f"{{path: {top}, older_than: 1h, action: archive, to: {machine.base}/to.tar.gz}}"
    spec = machine.spec(f"version: 1\nname: r\nretention: {{r: {rule}}}\n", "r.yaml")
    machine.run(*machine.argv("--check", spec))
    trace = machine.traced("execve,fstatfs", *machine.argv("--once", spec))
    assert list(top.iterdir()) == []
    assert 1 <= len(re.findall(r"fstatfs\(", trace)) <= 5


def test_of_very_many_due_files_each_is_opened_once(machine: Machine) -> None:
    """Right before it goes; for the plan one look of root's at the processes is for all of them."""
    number = 1100
    top = filled(machine, number)
    rule = f"{{path: {top}, older_than: 1h, action: delete}}"
    spec = machine.spec(f"version: 1\nname: many\nretention: {{r: {rule}}}\n", "many.yaml")
    machine.run(*machine.argv("--check", spec))
    # Else that look ends after a second, of which it needs the more the slower the machine is.
    (machine.base / "hooks").mkdir()
    (machine.base / "hooks/sitecustomize.py").write_text(
        "from reconciler.host import openfiles\nopenfiles._LONGEST = 3600.0\n"
    )
    machine.environ["PYTHONPATH"] = f"{machine.base}/hooks"
    found = calls(machine, machine.argv("--once", spec), r'"name\d{4}"')
    assert list(top.iterdir()) == []
    opened = number if os.geteuid() == 0 else 2 * number  # He cannot see what others have open.
    assert found == {"newfstatat": number, "openat": opened, "unlinkat": number, "execve": 1}


@pytest.mark.parametrize(
    ("section", "fields"), [("files", "content: some text"), ("links", "target: /nowhere")]
)
def test_ten_times_the_files_and_links_take_ten_times_the_calls(
    machine: Machine, section: str, fields: str
) -> None:
    """When they are made, and when there is nothing to do; no process for any of them."""
    made, quiet = {}, {}
    for number in (10, 100):
        top = machine.base / f"{section}{number}"
        top.mkdir(mode=0o755)
        lines = (f"  x{at}: {{path: {top}/name{at:04}, {fields}}}\n" for at in range(number))
        text = f"version: 1\nname: {section}{number}\n{section}:\n{''.join(lines)}"
        spec = machine.spec(text, f"{section}{number}.yaml")
        machine.run(*machine.argv("--check", spec))
        made[number] = calls(machine, machine.argv("--once", spec), r'name\d{4}"')
        assert len(list(top.iterdir())) == number
        quiet[number] = calls(machine, machine.argv("--once", spec), r'name\d{4}"')
        read = "openat" if section == "files" else "readlink"
        assert quiet[number] == {"newfstatat": number, read: number, "execve": 1}
        # What takes its time is looked at once more before the next look at all.
        most = {"newfstatat": 10 * number, read: 3 * number, "renameat2": number, "execve": 1}
        assert all(count <= most[call] for call, count in made[number].items()), made
