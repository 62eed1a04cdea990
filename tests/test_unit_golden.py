"""Units as they are rendered, byte for byte, and what systemd-analyze says of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from support import Machine, compiled

from reconciler.host.clock import Clock
from reconciler.host.spec_files import folder
from reconciler.host.systemd import Systemd
from reconciler.host.users import Users

HERE = Path(__file__).parent / "golden" / "units"
CASES = sorted(path.name.removesuffix(".yaml") for path in HERE.glob("*.yaml"))


def text_of(name: str, folder: Path) -> str:
    fields = YAML(typ="safe").load(HERE / f"{name}.yaml")
    spec = compiled(folder, f"units: {{{json.dumps(name)}: {json.dumps(fields)}}}")
    text: str = spec.resources[0].want.text
    return text


@pytest.mark.parametrize("name", CASES)
def test_rendered(name: str, tmp_path: Path) -> None:
    # Where it is right that it has changed: write the new text there, and read the difference.
    assert text_of(name, tmp_path) == (HERE / name).read_text()


@pytest.mark.parametrize("name", CASES)
def test_systemd_finds_nothing_wrong(name: str, machine: Machine) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    systemd = Systemd(Users(), Clock())
    files = {name: (HERE / name).read_text(), "task.service": (HERE / "task.service").read_text()}
    said = systemd.complaints("system", files, [name], str(machine.base / "verify"))
    lines = said[0] if said else ()
    assert [line for line in lines if "not loaded, socket cannot" not in line] == []
    assert not (machine.base / "verify").exists()


def test_every_shipped_template_has_a_case() -> None:
    shipped = {
        path.name
        for path in Path(folder("templates")).iterdir()
        if path.suffix not in (".md", ".cron")
    }
    used: set[Any] = {YAML(typ="safe").load(HERE / f"{n}.yaml").get("template") for n in CASES}
    assert shipped and shipped <= used
