"""Which files are due: bounded lists against the plain definition, in one part or in two."""

from __future__ import annotations

import marshal
import os
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.host import scan
from reconciler.host.choose import Chooser, Rule
from reconciler.host.found import File

maybe = st.none() | st.integers(1, 12)


def plainly(files: list[File], rule: Rule) -> list[File]:
    """The definition, word by word, without the brake."""
    rest = sorted(files)
    if rule.keep:
        rest = rest[: max(0, len(rest) - rule.keep)]
    if rule.before is None and rule.total is None:
        return rest
    total = sum(file.size for file in files)
    due = []
    for file in rest:
        old = rule.before is not None and file.time < rule.before
        if old or (rule.total is not None and total > rule.total):
            due.append(file)
            total -= file.size
    return due


@settings(database=None, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 4)), max_size=30),
    st.tuples(maybe, maybe, maybe).filter(any),
    st.integers(1, 40),
    st.integers(0, 30),
)
def test_what_is_chosen_is_what_the_rule_says(
    ages: list[tuple[int, int]],
    limits: tuple[int | None, int | None, int | None],
    most: int,
    cut: int,
) -> None:
    files = [File(t, "", f"{at:03}", 1, at, size, t, t, size) for at, (t, size) in enumerate(ages)]
    rule = Rule(*limits, most)
    due = plainly(files, rule)
    one, other = Chooser(rule), Chooser(rule)
    for file in files[cut:]:
        one.add(file)
    for file in files[:cut]:
        other.add(file)
    one.merge(marshal.loads(marshal.dumps(list(other.plain()))))
    chosen = one.chosen()
    assert sorted(chosen.files) == due[:most]
    if rule.total is None:
        assert chosen.more == len(due) - len(chosen.files)
    elif any(file.size for file in due[most:]):
        assert chosen.more or chosen.more_bytes


@pytest.mark.parametrize("two", [True, False])
@pytest.mark.parametrize("shape", ["flat", "deep", "chain"])
def test_two_processes_find_what_one_finds(
    tmp_path: Path, free: None, monkeypatch: pytest.MonkeyPatch, shape: str, two: bool
) -> None:
    monkeypatch.setattr(scan, "_ALONE", 10)
    monkeypatch.setattr(scan, "_LARGE", 0 if shape == "flat" else 1 << 40)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1} if two else {0})
    forked = []
    fork = os.fork
    monkeypatch.setattr(os, "fork", lambda: forked.append(1) or fork())
    due = set()
    for at in range(300):
        below = {"flat": "", "deep": f"d{at % 9}/", "chain": "c/" * (at % 5)}[shape]
        path = tmp_path / "tree" / f"{below}{at}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        if random.Random(at).random() < 0.3:
            os.utime(path, (1, at + 1))
            due.add(f"{below}{at}")
    for rule in (Rule(None, 10**12, None, 1000), Rule(300 - len(due), None, None, 1000)):
        seen = scan.scan(scan.Wanted(str(tmp_path / "tree"), rule, recursive=True))
        assert {file.path for file in seen.chosen.files} == due
        assert seen.chosen.more == 0
    assert bool(forked) == (two and shape != "chain")


def test_a_second_process_that_dies_is_done_without(
    tmp_path: Path, free: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "_LARGE", 0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})

    def killed() -> int:
        child = fork()
        if child == 0:
            os.kill(os.getpid(), 9)
        return child

    fork = os.fork
    monkeypatch.setattr(os, "fork", killed)
    for at in range(50):
        (tmp_path / f"f{at}").touch()
    seen = scan.scan(scan.Wanted(str(tmp_path), Rule(None, 2**62, None, 1000)))
    assert len(seen.chosen.files) == 50
