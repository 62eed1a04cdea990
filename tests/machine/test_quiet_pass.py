"""What a pass costs that finds nothing to do: counted exactly, for times are not."""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path

import pytest
from support import Machine

COUNT = """
import sys
from reconciler.cli.main import main

entered = set()

def called(frame, event, argument):
    code = frame.f_code
    # Functions only: neither modules nor bodies of classes.
    if event == "call" and code.co_flags & 1 and "/reconciler/" in code.co_filename:
        entered.add(code.co_filename)

sys.setprofile(called)
status = main(sys.argv[1:])
sys.setprofile(None)
loaded = [name for name in sys.modules if name.partition(".")[0] == "reconciler"]
print(status, len(loaded), len(entered))
print(*sorted(loaded), file=sys.stderr)
"""
HEAVY = ("argparse", "_sqlite3", "socket", "json", "subprocess", "pydantic", "ruamel", "jinja2",
         "rich", "apprise", "psutil", "dataclasses", "inspect", "pickle")  # fmt: skip

EACH = """
directories: {{d: {{path: '{base}/d', mode: "0755"}}}}
files: {{f: {{path: '{base}/d/f', content: x, validate: [test, -s, '{{}}']}}}}
links: {{l: {{path: '{base}/d/l', target: f}}}}
blocks: {{b: {{path: '{base}/d/b', content: x}}}}
permissions: {{p: {{path: '{base}/d/f', mode: "0644"}}}}
retention: {{r: {{path: '{base}/d', match: "*.old", older_than: 1d, action: delete}}}}
"""


def directories(machine: Machine, number: int) -> Path:
    text = "".join(f'  d{i}: {{path: {machine.base}/d/{i}, mode: "0755"}}\n' for i in range(number))
    return machine.spec(f"directories:\n{text}", f"{number}.yaml")


def test_a_quiet_pass_loads_and_enters_few_modules(machine: Machine) -> None:
    spec = directories(machine, 1)
    machine.once(spec)

    def counted() -> list[int]:
        words = ["-c", COUNT, "--once", "-q", str(spec), "--state-dir", str(machine.state)]
        done = machine.run(sys.executable, *words)
        assert done.returncode == 0, done.stderr
        return [int(word) for word in done.stdout.split()]

    counted()  # Compiled for another program folder.
    status, loaded, entered = counted()
    assert (status, loaded <= 45, entered <= 29) == (0, True, True), (loaded, entered)
    # With something to do.
    (machine.base / "d/0").chmod(0o700)
    status, loaded, entered = counted()
    assert (status, loaded <= 58, entered <= 44) == (0, True, True), (loaded, entered)


def test_a_quiet_pass_loads_nothing_heavy(machine: Machine) -> None:
    spec = machine.spec(EACH.format(base=machine.base))
    machine.once(spec)
    machine.converged(spec)
    words = machine.argv("--once", spec)
    done = machine.run(sys.executable, "-X", "importtime", *words)
    found = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert found.isdisjoint(HEAVY)


def test_ten_times_as_many_cost_ten_times_as_much(machine: Machine) -> None:
    """No process at all, and as many calls of the kernel more as there are directories."""

    def calls(number: int) -> Counter[str]:
        spec = directories(machine, number)
        machine.once(spec, "--take-over")
        trace = machine.traced("all", *machine.argv("--once", spec))
        assert not re.search(r" (?:clone3?|v?fork)\(", trace)
        return Counter(re.findall(r"^\d+ +(\w+)\(", trace, re.MULTILINE))

    few, many, more = calls(10).total(), calls(110).total(), calls(210).total()
    assert more - many == pytest.approx(many - few, abs=20)
    assert (many - few) / 100 <= 12, (few, many, more)


@pytest.mark.parametrize("mode", ["--status", "--diagnose"])
def test_what_only_looks_asks_for_each_as_often(machine: Machine, mode: str) -> None:
    """Of ten times the directories each is asked for as often, and they take no process more."""
    asked: dict[int, set[int]] = {}

    def begun(number: int) -> int:
        spec = directories(machine, number)
        machine.once(spec, "--take-over")
        trace = machine.traced("all", *machine.argv(mode, spec))
        paths = re.findall(rf'^\d+ +\w+\([^"]*"{machine.base}/d/(\d+)"', trace, re.MULTILINE)
        assert len(set(paths)) == number
        asked[number] = set(Counter(paths).values())
        return len(re.findall(r" (?:clone3?|v?fork|execve)\(", trace))

    # One more may be begun where a program that is asked for something is slow to answer.
    assert any(begun(10) == begun(100) for _ in range(3))
    assert asked[10] == asked[100] and max(asked[100]) <= 8, asked


ADDED = """
import sys
import reconciler.undo.journal as journal
from reconciler.state.store.base import Base
looks, kinds, changes = [0], [0], [0]
seen_now, change = journal.seen_now, Base.change
def counted(resources, *more):
    looks[0] += 1
    kinds[0] += len({one.kind for one in resources})
    return seen_now(resources, *more)
def changed(self):
    if not (self._base is not None and self._base.in_transaction):
        changes[0] += 1
    return change(self)
journal.seen_now, Base.change = counted, changed
import reconciler.state.tracker as tracker
tracker._FLUSH = 1e9
from reconciler.cli.main import main
assert main(sys.argv[1:]) == 0
print(looks[0], kinds[0], changes[0], file=sys.stderr)
"""


def test_the_journal_takes_one_look_and_one_writing_however_many_steps(machine: Machine) -> None:
    """A look is one at each kind, whatever it asks of the host; the other writing is the pass's."""
    found = {}
    (machine.base / "d").mkdir()
    for number in (10, 100):
        spec = directories(machine, number)
        argv = ["-c", ADDED, "--once", "-q", str(spec), "--take-over"]
        for mode in (None, 0o700, None):
            for path in (machine.base / "d").iterdir() if mode else ():
                path.chmod(mode)
            done = machine.run(sys.executable, *argv, "--state-dir", str(machine.state))
            assert done.returncode == 0, done.stderr
            found.setdefault(number, []).append(done.stderr.split())
    # What was missing and is made needs no look; the third pass has nothing to do.
    passes = [["1", "0", "2"], ["1", "1", "2"], ["0", "0", "0"]]
    assert found == {10: passes, 100: passes}
