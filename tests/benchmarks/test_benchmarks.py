"""The benchmarks run; small ones, and never a pass or fail on seconds."""

from __future__ import annotations

import sys

import pytest
from support import CHECKOUT, Machine


@pytest.mark.root
def test_the_benchmarks_print_their_table(machine: Machine) -> None:
    script = CHECKOUT / "tests/benchmarks/run.py"
    done = machine.run(sys.executable, script, "--runs", "1", "--sizes", "3,30", "--files", "200")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert len(rows) == 12
    assert all(row.count("|") == 5 for row in rows)


@pytest.mark.slow
def test_the_benchmarks_of_the_loop_print_their_table(machine: Machine) -> None:
    script = CHECKOUT / "tests/benchmarks/watch.py"
    small = ("--alone", "--runs", "1", "--idle", "1", "--passes", "20", "--directories", "20",
             "--many", "4")  # fmt: skip
    done = machine.run(sys.executable, script, *small, "--every", "1s")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert len(rows) == 11
    assert all(row.count("|") == 5 for row in rows)


@pytest.mark.root
def test_the_benchmarks_of_other_programs_print_their_table(machine: Machine) -> None:
    script = CHECKOUT / "tests/benchmarks/programs.py"
    small = ("--sizes", "2,4", "--sessions", "1,2", "--units", "1,2")
    done = machine.run(sys.executable, script, *small)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert len(rows) in (5, 7)  # Without what a systemd needs there are no rows on units.
    assert all(row.count("|") == 5 for row in rows)


@pytest.mark.slow
def test_the_benchmarks_of_trees_print_their_table(machine: Machine) -> None:
    script = CHECKOUT / "tests/benchmarks/trees.py"
    small = ("--runs", "1", "--blocks", "2,20", "--files", "20,200", "--due", "10,100")
    done = machine.run(sys.executable, script, *small)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert len(rows) == 21
    assert all(row.count("|") == 5 for row in rows)


@pytest.mark.slow
def test_the_benchmarks_of_daemons_print_their_table(machine: Machine) -> None:
    script = CHECKOUT / "tests/benchmarks/daemons.py"
    small = ("--runs", "1", "--sizes", "2,4", "--matched", "2,4")
    done = machine.run(sys.executable, script, *small)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert len(rows) == 11
    assert all(row.count("|") == 5 for row in rows)


@pytest.mark.slow
@pytest.mark.root
def test_the_benchmarks_of_kills_print_their_table(machine: Machine) -> None:
    script = CHECKOUT / "tests/benchmarks/kills.py"
    small = ("--busy", "1", "--files", "5000", "--only", "archiving,stopping,tmux,hanging")
    done = machine.run(sys.executable, script, *small)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert len(rows) == 5
    assert all(row.count("|") == 5 for row in rows)


@pytest.mark.slow
def test_the_benchmarks_of_single_passes_print_their_table(machine: Machine) -> None:
    script = CHECKOUT / "tests/benchmarks/passes.py"
    done = machine.run(sys.executable, script, "--runs", "1", "--sizes", "2,20")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert len(rows) == 13


@pytest.mark.slow
def test_the_benchmarks_of_the_journal_print_their_table(machine: Machine) -> None:
    script = CHECKOUT / "tests/benchmarks/journal.py"
    done = machine.run(sys.executable, script, "--runs", "1", "--many", "5,5,3,2")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert len(rows) == 7
    assert all(row.count("|") == 5 for row in rows)


@pytest.mark.slow
def test_the_benchmarks_of_the_page_print_their_table(machine: Machine) -> None:
    script = CHECKOUT / "tests/benchmarks/page.py"
    small = ("--runs", "1", "--idle", "1", "--resources", "10")
    done = machine.run(sys.executable, script, *small)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert len(rows) == 6
    assert all(row.count("|") == 5 for row in rows)


def test_the_simulation_of_many_hosts_prints_its_table(machine: Machine) -> None:
    script = CHECKOUT / "tests/benchmarks/fleet.py"
    small = ("--hosts", "20", "--resources", "2", "--pulls", "1", "--alive", "10")
    done = machine.run(sys.executable, script, *small)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert len(rows) in (3, 4)  # Without git there is no row on it.
    assert "20 measured" in rows[1] and "2.0/s" in rows[1]


@pytest.mark.slow
def test_the_whole_table_is_printed_whatever_fails(machine: Machine) -> None:
    script = CHECKOUT / "tests/benchmarks/all.py"
    done = machine.run(sys.executable, script, "--small", "trees", "one", "daemons")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert len(rows) == 32
    assert all(row.count("|") == 5 for row in rows)
    assert done.stdout.splitlines()[-1].startswith("In ")
    # A part that cannot be measured is a row, and the others are measured.
    machine.fake("find", "exit 3")
    done = machine.run(sys.executable, script, "--small", "trees", "one")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| the rest of trees | left out | " in done.stdout
    assert "idle over one daemon" in done.stdout
