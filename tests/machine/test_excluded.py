"""What is excluded is left alone, however it is written; what could never match is refused."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from support import Machine, compiled

from reconciler.config.errors import SpecError


def old(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    os.utime(path, (10**9, 10**9))
    return path


@pytest.mark.parametrize("pattern", ["x", "x/", "{top}/x", "{top}/x/", "x/*", "{top}/x/*", "*/a*"])
def test_a_folder_is_excluded_from_a_retention(machine: Machine, pattern: str) -> None:
    top = machine.base / "q"
    kept, gone = old(top / "x/a.log"), old(top / "y/b.log")
    machine.once(
        machine.spec(
            f"retention: {{r: {{path: {top}, recursive: true, older_than: 1d, action: delete,\n"
            f"  exclude: ['{pattern.format(top=top)}']}}}}"
        )
    )
    assert (kept.exists(), gone.exists()) == (True, False)


@pytest.mark.parametrize("pattern", ["g", "g/", "{top}/g"])
@pytest.mark.parametrize("path", ["{top}/[fg]", "{top}"])
def test_a_path_is_excluded_from_a_permission(machine: Machine, pattern: str, path: str) -> None:
    top = machine.base / "q"
    for name in ("f", "g"):
        (top / name).mkdir(parents=True)
        (top / name).chmod(0o755)
    more = "" if "[" in path else ", recursive: true"
    machine.once(
        machine.spec(
            f"permissions: {{p: {{path: '{path.format(top=top)}', mode: '0700'{more},\n"
            f"  exclude: ['{pattern.format(top=top)}']}}}}"
        )
    )
    modes = [stat.S_IMODE((top / name).stat().st_mode) for name in ("f", "g")]
    assert modes == [0o700, 0o755]


@pytest.mark.parametrize(
    "line",
    [
        "retention: {r: {path: /srv/q, recursive: true, older_than: 1d, action: delete, "
        "exclude: [%s]}}",
        "permissions: {p: {path: /srv/q, recursive: true, mode: '0700', exclude: [%s]}}",
    ],
)
@pytest.mark.parametrize("pattern", ["/other/x", "../x", "./x", "a//b", "/srv/qq"])
def test_what_matches_nothing_is_refused(tmp_path: Path, line: str, pattern: str) -> None:
    with pytest.raises(SpecError) as caught:
        compiled(tmp_path, line % f"fine, '{pattern}'")
    (problem,) = caught.value.problems
    assert "exclude[1]: " in problem.message and repr(pattern) in problem.message


def test_a_path_below_is_none_without_recursion(tmp_path: Path) -> None:
    text = "retention: {r: {path: /q, older_than: 1d, action: delete, exclude: [/q/a, b/c]}}"
    with pytest.raises(SpecError) as caught:
        compiled(tmp_path, text)
    (problem,) = caught.value.problems
    assert "exclude[1]: a pattern with '/' matches nothing without" in problem.message
