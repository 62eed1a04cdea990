"""A directory that is declared `trusted` is refused where somebody else could exchange it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import Machine


@pytest.fixture
def above() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="trusted-"))
    yield folder
    shutil.rmtree(folder)


def declared(machine: Machine, path: Path, rest: str = "") -> Path:
    return machine.spec(
        f"version: 1\nname: demo\ndirectories:\n  q: {{path: {path}, trusted: true{rest}}}\n"
    )


@pytest.mark.parametrize(
    ("mode", "refused"), [(0o755, False), (0o700, False), (0o777, True), (0o1777, False)]
)
def test_who_may_write_above_it(mode: int, refused: bool, machine: Machine, above: Path) -> None:
    """Where the folder above is sticky, as /tmp is, nobody else can exchange it."""
    above.chmod(mode)
    spec = declared(machine, above / "q", ', mode: "0700"')
    plan = machine.plan(spec)
    assert bool(plan["steps"]) is not refused
    if refused:
        (unknown,) = plan["unknown"]
        assert f"chmod o-w {above}" in str(unknown)
        assert machine.once(spec, status=1)["unknown"]
        assert not (above / "q").exists()
        above.chmod(0o755)
    machine.once(spec)
    machine.converged(spec)
    assert (above / "q").is_dir()


def test_who_may_write_to_itself(machine: Machine, above: Path) -> None:
    """A mode that is declared is set; without one, it must be right already."""
    path = above / "q"
    path.mkdir()
    path.chmod(0o777)
    (unknown,) = machine.plan(declared(machine, path))["unknown"]
    assert f"chmod o-w {path}" in str(unknown)
    machine.once(declared(machine, path, ', mode: "0755"'))
    assert path.stat().st_mode & 0o777 == 0o755
    machine.converged(declared(machine, path))


@pytest.mark.parametrize(("found", "kept"), [(0o700, 0o700), (0o777, 0o755), (0o510, 0o710)])
def test_what_somebody_has_closed_stays_closed(
    found: int, kept: int, machine: Machine, tmp_path: Path
) -> None:
    path = tmp_path / "q"
    path.mkdir()
    path.chmod(found)
    spec = machine.spec(
        f'version: 1\nname: demo\ndirectories:\n  q: {{path: {path}, mode: "0755",'
        " keep_narrower: true}\n"
    )
    machine.once(spec)
    assert path.stat().st_mode & 0o7777 == kept
    machine.converged(spec)
    assert os.access(path, os.X_OK)
