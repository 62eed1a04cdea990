"""The usual command lines are read without argparse, and as argparse reads them."""

from __future__ import annotations

import subprocess
import sys
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.cli.invocation import InvalidUsage
from reconciler.cli.main import usual
from reconciler.cli.options import parsed

WORDS = ("--once", "--plan", "--status", "--loop", "--diagnose", "my.yaml", "executor", "-q",
         "--quiet", "-v", "-qv", "--json", "--state-dir", "/a/b", "--set", "a=b", "a=-1",
         "--set=a=b", "--set-file", "--only", "--color", "never", "--trust", "-1", "--", "", "-",
         "--unset", "--take-over", "--onc", "--pause", "a b", "--detailed-exitcode")  # fmt: skip


@given(st.lists(st.sampled_from(WORDS), max_size=7))
def test_what_is_read_without_argparse_is_read_alike(words: list[str]) -> None:
    found = usual(words)
    if found is not None:
        assert vars(found) == vars(parsed(words))


def test_the_usual_lines_are_read_without_argparse() -> None:
    for mode in ("--once", "--plan", "--status", "--loop"):
        parts = ([mode], ["-q"], ["my.yaml"], ["--set", "a=b"], ["--state-dir", "/x"])
        for order in permutations(parts):
            words = [word for part in order for word in part]
            assert vars(usual(words) or object()) == vars(parsed(words))


@pytest.mark.parametrize("words", [["--once", "--plan"], ["--once", "--once"], ["--set"], ["x"]])
def test_what_is_wrong_is_left_to_argparse(words: list[str]) -> None:
    assert usual(words) is None
    if words != ["--once", "--once"]:
        with pytest.raises(InvalidUsage):
            parsed(words)


def test_a_usual_line_loads_no_argparse(free: None) -> None:
    code = (
        "import sys; from reconciler.cli.main import main; "
        "main(['--once', '/nowhere/x.yaml', '-q']); print('argparse' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
