"""A spec that lies elsewhere is planned as if it lay in its place, and put there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from looping import Looping
from support import Machine, until


class Elsewhere:
    """A spec of three files in one folder, whose place is another one."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.from_folder = machine.base / "new"
        (self.from_folder / "conf.d").mkdir(parents=True)
        self.spec = self.from_folder / "web.yaml"
        self.made = machine.base / "made"
        self.place = machine.base / "etc/reconcile/web.yaml"
        self.made.mkdir()
        self.write("one")
        (self.from_folder / "data").write_bytes(b"\x00\xff")
        (self.from_folder / "conf.d/a.yaml").write_text(
            f"files: {{b: {{path: {self.made}/b, source: ../data}}}}\n"
        )

    def write(self, content: str) -> None:
        self.spec.write_text(
            "version: 1\nname: web\ninclude: [conf.d/*.yaml]\n"
            f'files: {{a: {{path: {self.made}/a, content: "{{{{ spec.path }}}} {content}"}}}}\n'
        )

    def plan(self, *options: str | Path) -> list[str]:
        document = self.machine.plan(self.spec, "--as", str(self.place), *map(str, options))
        assert document["spec"]["path"] == str(self.place)
        return [step["id"] for step in document["steps"]]


def test_it_is_planned_as_if_it_lay_there_and_put_there_by_a_pass(machine: Machine) -> None:
    here = Elsewhere(machine)
    assert here.plan() == ["file:b", "file:a"]
    assert not here.place.parent.exists() and not list(here.made.iterdir())
    machine.once(here.spec, "--as", str(here.place))
    assert here.made.joinpath("a").read_text() == f"{here.place} one"
    assert here.made.joinpath("b").read_bytes() == b"\x00\xff"
    # From here on it is that one, which nobody else may read.
    machine.converged(here.place)
    assert here.place.stat().st_mode & 0o777 == 0o600
    assert here.plan() == []
    # A change is planned before it is there.
    here.write("two")
    here.place.chmod(0o640)
    assert here.plan() == ["file:a"]
    machine.converged(here.place)
    machine.once(here.spec, "--as", str(here.place))
    assert here.made.joinpath("a").read_text() == f"{here.place} two"
    machine.converged(here.place)
    assert here.place.stat().st_mode & 0o777 == 0o640


def test_it_has_there_the_name_of_its_place_alone(machine: Machine) -> None:
    here = Elsewhere(machine)
    here.place.parent.mkdir(parents=True)
    other = here.place.parent / "web.yaml"
    other.write_text("somebody's own")
    here.place = here.place.parent / "shop.yaml"
    machine.once(here.spec, "--as", str(here.place))
    assert other.read_text() == "somebody's own"
    assert {one.name for one in here.place.parent.iterdir()} == {
        "web.yaml", "shop.yaml", "data", "conf.d"
    }  # fmt: skip


def test_its_name_is_none_of_a_file_that_it_is_made_of(machine: Machine) -> None:
    here = Elsewhere(machine)
    place = here.place.parent / "data"
    done = machine.reconcile("--once", here.spec, "--as", place)
    assert (done.returncode, "data is a file that the spec is made of" in done.stderr) == (1, True)
    assert not place.exists()


def test_what_belongs_to_it_no_more_goes_unless_somebody_has_changed_it(machine: Machine) -> None:
    here = Elsewhere(machine)
    for name in ("kept", "gone"):
        text = f"links: {{{name}: {{path: {here.made}/{name}, target: x}}}}\n"
        (here.from_folder / f"conf.d/{name}.yaml").write_text(text)
    machine.once(here.spec, "--as", str(here.place))
    there = here.place.parent / "conf.d"
    for name in ("of_a_person", "kept"):
        text = f"links: {{{name}: {{path: {here.made}/{name}, target: y}}}}\n"
        (there / f"{name}.yaml").write_text(text)
    for name in ("kept", "gone"):
        (here.from_folder / f"conf.d/{name}.yaml").unlink()
    machine.once(here.spec, "--as", str(here.place))
    names = sorted(path.name for path in there.iterdir())
    assert names == ["a.yaml", "kept.yaml", "of_a_person.yaml"]


def test_a_saved_plan_puts_it_there_only_when_nothing_has_moved(machine: Machine) -> None:
    here = Elsewhere(machine)
    saved = machine.base / "plan.json"
    argv = ("--once", here.spec, "--as", here.place, "--from", saved)
    here.plan("--out", saved)
    here.made.joinpath("a").write_text("drift\n")
    done = machine.reconcile(*argv)
    assert done.returncode == 1 and "file:a is not as it was" in done.stderr
    assert not here.place.exists()
    here.plan("--out", saved)
    assert machine.reconcile(*argv).returncode == 0
    machine.converged(here.place)


@pytest.mark.parametrize("why", ["invalid", "outside", "another", "open"])
def test_it_is_not_put_there_where_it_cannot_be_used(machine: Machine, why: str) -> None:
    here = Elsewhere(machine)
    status, words = 1, ""
    if why == "invalid":
        here.spec.write_text("version: 1\nname: web\nfiles: {a: {pat: /x}}\n")
        # The place is named where people look, not where it lies for now.
        status, words = 65, f"{here.place}:3:"
    elif why == "outside":
        (machine.base / "data").write_text("x")
        (here.from_folder / "conf.d/a.yaml").write_text(
            f"files: {{b: {{path: {here.made}/b, source: {machine.base}/data}}}}\n"
        )
        words = f"{machine.base}/data is not below {here.from_folder}"
    elif why == "another":
        other = machine.spec("version: 1\nname: web\n", "other.yaml")
        machine.once(other)
        status, words = 64, "--take-over"
    else:
        here.place.parent.mkdir(parents=True)
        here.place.parent.chmod(0o777)
        words = "others could change it"
    done = machine.reconcile("--once", here.spec, "--as", here.place)
    assert (done.returncode, words in done.stderr) == (status, True), done.stderr
    assert not here.place.exists() and not list(here.made.iterdir())


def test_the_state_of_a_new_version_is_that_of_the_one_in_its_place(machine: Machine) -> None:
    here = Elsewhere(machine)
    machine.once(here.spec, "--as", str(here.place))
    here.write("two")
    states = {}
    for argv in ((here.place,), (here.spec, "--as", here.place)):
        found = json.loads(machine.reconcile("--status", *argv, "--json").stdout)
        assert found["spec"]["path"] == str(here.place)
        states[len(argv)] = {one["id"]: one["state"] for one in found["resources"]}
    assert states[1]["file:a"] == "ok" and states[3]["file:a"] == "differs"


def test_a_loop_over_the_place_takes_the_new_version(
    machine: Machine, looping: Callable[..., Looping]
) -> None:
    here = Elsewhere(machine)
    machine.once(here.spec, "--as", str(here.place))
    loop = looping(here.place)
    until(loop.passes)
    here.write("two")
    done = machine.reconcile("--once", here.spec, "--as", here.place)
    assert done.returncode == 0, done.stdout + done.stderr
    assert here.made.joinpath("a").read_text() == f"{here.place} two"
    assert loop.process.poll() is None
