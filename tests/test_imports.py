"""Modules of the program are found in fewer steps, and never from bytecode that Python refuses."""

from __future__ import annotations

import os
import py_compile
import sys
from collections.abc import Callable
from importlib.util import module_from_spec
from pathlib import Path

import pytest
from support import Machine

from reconciler.cli import _Finder

STALE: dict[str, Callable[[Path, Path], object]] = {
    "another size": lambda source, _: source.write_text("VALUE = 22\n"),
    "another time": lambda source, _: os.utime(source, (1, 1)),
    "cut": lambda _, cached: cached.write_bytes(cached.read_bytes()[:40]),
    "empty": lambda _, cached: cached.write_bytes(b""),
    "no code": lambda _, cached: cached.write_bytes(cached.read_bytes()[:16] + b"N"),
    "of another Python": lambda _, cached: cached.write_bytes(b"\0\0" + cached.read_bytes()[2:]),
    "by its hash": lambda source, _: py_compile.compile(
        str(source), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
    ),
    "gone": lambda _, cached: cached.unlink(),
}


def made(folder: Path, name: str = "odd") -> tuple[Path, Path]:
    """A module and its bytecode."""
    source = folder / f"{name}.py"
    source.write_text("VALUE = 1\n")
    os.utime(source, (1_000_000_000, 1_000_000_000))
    return source, Path(py_compile.compile(str(source), doraise=True))


def test_a_module_is_loaded_from_its_bytecode(tmp_path: Path) -> None:
    source, cached = made(tmp_path)
    spec = _Finder.find_spec("reconciler.odd", [str(tmp_path)])
    assert spec is not None
    assert (spec.origin, spec.cached) == (str(source), str(cached))
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (module.VALUE, module.__file__) == (1, str(source))


def test_a_package_says_where_its_modules_are(tmp_path: Path) -> None:
    (tmp_path / "room").mkdir()
    made(tmp_path / "room", "__init__")
    spec = _Finder.find_spec("reconciler.room", [str(tmp_path)])
    assert spec is not None
    assert spec.submodule_search_locations == [str(tmp_path / "room")]


@pytest.mark.parametrize("how", STALE)
def test_bytecode_that_does_not_fit_is_left_to_python(tmp_path: Path, how: str) -> None:
    source, cached = made(tmp_path)
    STALE[how](source, cached)
    assert _Finder.find_spec("reconciler.odd", [str(tmp_path)]) is None


def test_others_are_not_looked_for(tmp_path: Path) -> None:
    made(tmp_path)
    assert _Finder.find_spec("odd", [str(tmp_path)]) is None
    assert _Finder.find_spec("reconciler.nowhere", [str(tmp_path)]) is None


def test_a_module_costs_few_calls(machine: Machine) -> None:
    """Its source is looked at and its bytecode read, once: no folder is listed, no name tried."""
    words = "import reconciler.cli, reconciler.base.digests"
    machine.run(sys.executable, "-c", words)
    trace = machine.traced("all", sys.executable, "-c", words)
    about = [
        line
        for line in trace.splitlines()
        if "base/" in line and "/digests" in line and " read(" not in line
    ]
    assert [line.split("(")[0].split()[-1] for line in about] == ["newfstatat", "openat"], about
