"""The help, the manual page and the usage error of a first try: all from one parser."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import CHECKOUT

from reconciler.cli.commands.completion import hidden_with
from reconciler.cli.main import main
from reconciler.cli.options import FIRST, OF, SHELLS, STATUSES, all_modes, parsed, parser


def flags() -> list[str]:
    """Every option of the parser."""
    return [name for action in parser()._actions for name in action.option_strings]


def test_help_fits_a_screen_and_names_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert len(text.splitlines()) <= 52
    assert max(map(len, text.splitlines())) <= 79
    for flag in set(flags()) - {"-h", "--help", "--version"}:
        assert flag in text
    # What to do comes first, and is right.
    for (command, _), line in zip(FIRST, text.splitlines()[2:5], strict=True):
        assert line.startswith(f"  {command} ")
        assert parser().parse_args(command.split()[1:]).spec == "my.yaml"


def test_without_arguments_the_first_commands_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 64
    said = capsys.readouterr().err
    assert said.splitlines()[1:4] == [f"  {command:27} {words}" for command, words in FIRST]
    for mode in all_modes():
        assert f"--{mode.name}" in said
    assert main(["--completion", "csh"]) == 64
    assert "choose from" in capsys.readouterr().err


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The manual pages as the wheel gets them."""
    monkeypatch.syspath_prepend(CHECKOUT / ".manual")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1795000000")
    made: dict[str, str] = importlib.import_module("manual").pages()
    return made


def test_the_manual_pages_name_everything_and_are_sound_roff(
    free: None, pages: dict[str, str]
) -> None:
    page = pages["reconcile.1"]
    for flag in set(flags()) - {"--help", "-h"}:
        assert f"\\fB{flag}\\fR".replace("-", "\\-") in page
    for status, _ in STATUSES:
        assert f"\\fB{status}\\fR" in page
    spec = page.partition(".SH THE SPEC")[2].partition(".SH ")[0]
    for key in json.loads((CHECKOUT / "specs/spec.schema.json").read_text())["properties"]:
        assert re.search(rf"\b{key}\b", spec), key
    for verb in ("start", "stop", "submit", "report"):
        assert f".SS \\fBai\\-cmd\\-executor {verb}" in pages["ai-cmd-executor.1"]
    linters = {"groff": ["-man", "-ww", "-z", "-Tutf8"], "mandoc": ["-T", "lint"]}
    there = [name for name in linters if shutil.which(name) is not None]
    for name, text in pages.items():
        assert re.match(r'\.TH [A-Z\\-]+ "1" "2026-11-18" ', text)
        for linter in there:
            argv = [linter, *linters[linter]]
            done = subprocess.run(argv, input=text, capture_output=True, text=True)
            assert (done.returncode, done.stdout + done.stderr) == (0, ""), (linter, name)
    if not there:
        pytest.skip("groff and mandoc are missing; install one with: apt-get install groff")


def test_the_manual_pages_are_installed(
    pages: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--man"]) == 0
    printed = capsys.readouterr().out
    for name, text in pages.items():
        installed = Path(sys.prefix, "share/man/man1", name).read_text()
        assert installed.splitlines()[1:] == text.splitlines()[1:]  # But for the date.
        assert name != "reconcile.1" or printed == installed


def test_an_option_of_some_modes_goes_with_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    values = {flag: action for action in parser()._actions for flag in action.option_strings}
    for flag, of in OF.items():
        option = [flag] if values[flag].nargs == 0 else [flag, "2h"]
        for mode in all_modes():
            line = [f"--{mode.name}", *option]
            line[1:1] = [SHELLS[0]] if mode.name == "completion" else ["x"] * bool(mode.value)
            if mode.name in of:
                assert parsed(line).mode == mode.name
                continue
            assert main(line) == 64
            said = capsys.readouterr()
            assert said.out == ""
            assert f"{flag} is for --{of[0]}" in said.err
            assert f"not for --{mode.name}" in said.err
    for line in (
        ["--man", "--json"], ["--man", "web.yaml"], ["--completion", "bash", "--set", "a=b"],
        ["--schema", "--set-file", "a=b"], ["--import", "x", "--set", "a=b"],
        ["web.yaml", "--adopt", "cron:me"], ["--metrics", "--json"],
    ):  # fmt: skip
        assert main(line) == 64
        assert " has no use for " in capsys.readouterr().err
    # All are modes that there are, and help and completion know which.
    assert {name for of in OF.values() for name in of} <= {mode.name for mode in all_modes()}
    for mode in all_modes():
        assert OF.keys() - hidden_with(f"--{mode.name}") == {
            f for f, of in OF.items() if mode.name in of
        }
