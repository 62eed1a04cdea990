"""A command that is shown can be pasted, whatever the names in it are."""

from __future__ import annotations

import ast
import errno
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import Machine

import reconciler
from reconciler.base import text as redaction
from reconciler.host.remedy import hides, in_turn, piped, quoted, remedy, script

NAMES = [
    *("x;id>P;.log", "$(id)", "`id`", "-rf", "a b", "it's", "~", "a\nid", "\x1b]0;x\x07", "\r"),
    *("x\u202ey", "caf\u00e9", "\udcff\udc80!", "a\\'b\n", "*", "x=y", "", "# no", "!!", "=ls"),
]


def pasted(command: str, shell: str = "bash") -> bytes:
    return subprocess.run([shell, "-c", command], capture_output=True, check=True).stdout


@pytest.mark.parametrize("name", NAMES)
def test_a_name_comes_out_of_a_paste_as_it_is(machine: Machine, name: str) -> None:
    command = remedy("printf", "%s\\0", name, "end")
    assert command.isprintable()
    assert pasted(command) == os.fsencode(name) + b"\0end\0"
    # Nothing that a terminal or a person could take for something else.
    assert command.isascii() or "caf\u00e9" in command


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=30))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_word_is_one_word(machine: Machine, word: str) -> None:
    assert "\n" not in quoted(word) and "\x1b" not in quoted(word)
    if "***" not in quoted(word):
        assert pasted(f"printf %s {quoted(word)}") == word.encode()


def test_commands_are_joined(machine: Machine, tmp_path: Path) -> None:
    made = str(tmp_path / "it's; new")
    both = in_turn(remedy("printf", "%s\\n", "b", "a", into=made), piped(("cat", made), ("sort",)))
    assert pasted(both) == b"a\nb\n"


def test_a_secret_is_in_no_command() -> None:
    redaction.hide(["it's $ecret"])
    shown = remedy("reconcile", "--set", "hook=it's $ecret")
    assert shown == "reconcile --set 'hook=***'"
    redaction.hide(["key!\x1b'42"])
    assert remedy("echo", "a key!\x1b'42 b") == "echo 'a *** b'"
    assert remedy("curl", "-u", "me:hunter22", "http://h") == "curl -u me:*** http://h"
    assert "abc" not in script("curl -H 'Authorization: Bearer abc' http://h")
    assert "hunter" not in remedy("psql", "postgres://me:hunter22@h/d")
    assert hides("Environment=PGPASSWORD=x1y2") and not hides("Environment=A=b")


def test_nobody_makes_a_remedy_elsewhere() -> None:
    """Not by a cast: the type is what keeps sentences and names out of them."""
    for path in Path(reconciler.__file__).parent.rglob("*.py"):
        if path.match("host/remedy.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id != "Remedy", f"{path}:{node.lineno}"


def test_nobody_quotes_for_a_person_elsewhere() -> None:
    # They read what a shell is given, or write for one that runs.
    may = {"host/persistence.py", "config/sandbox.py", "executor/options.py"}
    for path in Path(reconciler.__file__).parent.rglob("*.py"):
        text = path.read_text()
        if path.parent.name == "migrate":  # It takes apart what others have quoted.
            text = text.replace("import shlex", "").replace("shlex.split", "")
            text = text.replace("shlex.shlex", "")
        if "shlex" in text and not any(str(path).endswith(one) for one in may):
            raise AssertionError(f"{path} quotes by itself; host.remedy does")


@pytest.mark.parametrize("uid", [0, 1000])
def test_root_is_not_told_to_be_root(monkeypatch: pytest.MonkeyPatch, uid: int) -> None:
    from reconciler.host import walk

    monkeypatch.setattr(os, "geteuid", lambda: uid)
    words = walk.reason(PermissionError(errno.EACCES, "Permission denied"))
    assert ("as root" in words) == (uid != 0)
