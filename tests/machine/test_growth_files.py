"""Ten times the files, blocks and paths: which system calls are made, and how many of each."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

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
