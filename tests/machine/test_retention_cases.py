"""What real logrotate files and backup scripts ask for, on real files and a clock of its own."""

from __future__ import annotations

import gzip
import os
import time
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from support import Machine, compiled

from reconciler import kinds
from reconciler.core.apply import apply
from reconciler.core.model import Spec
from reconciler.core.observe import observe
from reconciler.core.plan import make_plan
from reconciler.host import Host
from reconciler.host.clock import Clock

CASES = sorted((Path(__file__).parent.parent / "cases/logrotate").glob("*.yaml"))


class At(Clock):
    """A wall clock that stands."""

    now = 0.0

    def wall(self) -> float:
        return self.now


def moment(text: Any) -> float:
    """Local time, as a case has it."""
    return time.mktime(time.strptime(str(text)[:16], "%Y-%m-%d %H:%M"))


def held(path: Path) -> str:
    return gzip.decompress(data).decode() if (data := path.read_bytes())[:2] == b"\x1f\x8b" else (
        data.decode()
    )  # fmt: skip


def write(path: Path, content: str, when: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(content)
    os.utime(path, (when, when))


def one_pass(spec: Spec, host: Host) -> int:
    """Does what is planned; how many steps that was."""
    seen = observe(spec.resources, kinds.get, host)
    plan = make_plan(spec, spec.resources, seen, kinds.get, "host")
    report = apply(plan, spec, kinds.get, host, lambda outcome: None)
    assert [outcome.error for outcome in report.outcomes if outcome.error] == []
    return len(plan.steps)


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_case(case: Path, machine: Machine) -> None:
    base = machine.base
    story = YAML(typ="safe").load(case)
    files, out = base / "files", base / "out"
    files.mkdir()
    rule = {"path": str(files), "action": "rotate", **story["rule"]}
    text = YAML(typ="safe")
    with (base / "rule.yaml").open("w") as file:
        text.dump({"version": 1, "name": "demo", "retention": {"x": rule}}, file)
    source = (base / "rule.yaml").read_text()
    spec = compiled(base, source.replace("{out}", str(out)).replace("{base}", str(base)))
    clock = At()
    host = Host("demo", str(base / "state"), clock)
    for name in story.get("files", ()):
        write(files / f"{name}.dump", name, moment(f"2031-{name}"))
    for name, when in story.get("folders", {}).items():
        (files / name).mkdir(parents=True)
        for folder in (files / name, *(files / name).parents)[: name.count("/") + 1]:
            os.utime(folder, (moment(when), moment(when)))
    for number, one in enumerate(story["passes"]):
        clock.now = moment(one["at"])
        for name, content in one.get("write", {}).items():
            write(files / name, content, moment(one.get("written", one["at"])))
        for name, size in one.get("grow", {}).items():
            write(files / name, "x" * size, clock.now)
        for name, mode in story.get("modes", {}).items() if number == 0 else ():
            (files / name).chmod(int(mode, 8))
        one_pass(spec, host)
        assert one_pass(spec, host) == 0
        paths = {str(path.relative_to(files)): path for path in files.rglob("*")}
        if "left" in one:
            found = {name: held(path) for name, path in paths.items() if path.is_file()}
            assert found == one["left"]
        if "left_names" in one:
            assert sorted(paths) == one["left_names"]
        for name, mode in one.get("modes", {}).items():
            assert f"{paths[name].stat().st_mode & 0o7777:04o}" == mode
        if "folders" in one:
            assert sorted(name for name, path in paths.items() if path.is_dir()) == one["folders"]
        if "ran" in one:
            ran = [line.removeprefix(f"{files}/") for line in out.read_text().splitlines()]
            assert sorted(ran) == one["ran"]
            assert not (Path("x").exists() or (base / "x").exists())
