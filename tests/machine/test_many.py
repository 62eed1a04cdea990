"""Many processes of which a quarter dies at the same moment: all come back, each of them once."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from births import Births
from looping import Looping
from support import Machine, until

EVERY = "1h"


@pytest.fixture
def births(machine: Machine) -> Iterator[Births]:
    made = Births(machine)
    yield made
    made.close()


def many(machine: Machine, births: Births, number: int) -> tuple[Path, list[str]]:
    """So many workers, and their names."""
    names = [f"p{at:03}" for at in range(number)]
    # Whoever cannot come back must not be given up, however long the others take.
    restart = "restart: {attempts: 1000, backoff: {initial: 100ms, max: 300ms}}"
    command = str(births.argv("{{ each }}")).replace("'", '"')
    spec = machine.spec(
        f"version: 1\nname: many\nloop: {{every: {EVERY}}}\nprocesses:\n"
        f"  p: {{for_each: [{', '.join(names)}], command: {command}, {restart}}}\n"
    )
    return spec, names


@pytest.mark.parametrize(
    ("number", "killed"), [(40, 10), pytest.param(200, 50, marks=pytest.mark.slow)]
)
def test_a_quarter_dies_at_the_same_moment(
    machine: Machine, births: Births, number: int, killed: int
) -> None:
    spec, names = many(machine, births, number)
    loop = Looping(machine, spec)
    try:
        born = births.many(number)
        assert sorted(name for _, name, _ in born) == names
        loop.up()
        before = {pid for _, _, pid in born}
        victims = random.Random(7).sample(born, killed)
        # Two of them cannot come back, and keep none of the others waiting.
        lost = {name for _, name, _ in victims[:2]}
        for name in lost:
            (births.broken / name).touch()
        for _, _, pid in victims:
            os.kill(pid, signal.SIGKILL)
        back = births.many(killed - 2, 30)
        assert sorted(name for _, name, _ in back) == sorted(
            name for _, name, _ in victims if name not in lost
        )
        until(lambda: sum("failed" in str(event) for event in loop.events()) >= 2)
        for name in lost:
            (births.broken / name).unlink()
        assert {name for _, name, _ in births.many(2, 30)} == lost
        loop.full_pass()
        loop.rest()
        # Nobody was started twice, and nobody else was touched.
        assert births.left() == 0
        until(lambda: births.living(machine) == names)
        assert before - {pid for _, _, pid in victims} <= set(machine.ours())
        assert loop.process.poll() is None
    finally:
        loop.kill()
