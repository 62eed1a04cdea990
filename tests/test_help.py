"""The help, the manual page and the usage error of a first try: all from one parser."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.cli.commands.completion import hidden_with
from reconciler.cli.main import main
from reconciler.cli.options import FIRST, OF, SHELLS, all_modes, parsed, parser


def flags() -> list[str]:
    """Every option of the parser."""
    return [name for action in parser()._actions for name in action.option_strings]


def test_help_fits_a_screen_and_names_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert len(text.splitlines()) <= 40
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


def test_the_manual_page_names_everything_and_is_sound_roff(
    free: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--man"]) == 0
    page = capsys.readouterr().out
    for flag in flags():
        assert f"\\fB{flag}\\fR".replace("-", "\\-") in page
    linters = {"groff": ["-man", "-ww", "-z", "-Tutf8"], "mandoc": ["-T", "lint", "-W", "error"]}
    there = [name for name in linters if shutil.which(name) is not None]
    for name in there:
        done = subprocess.run([name, *linters[name]], input=page, capture_output=True, text=True)
        assert (done.returncode, done.stdout + done.stderr) == (0, ""), name
    if not there:
        pytest.skip("groff and mandoc are missing; install one with: apt-get install groff")


def test_the_manual_page_is_installed(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--man"])
    installed = Path(sys.prefix, "share/man/man1/reconcile.1")
    assert installed.read_text() == capsys.readouterr().out


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
    # All are modes that there are, and help and completion know which.
    assert {name for of in OF.values() for name in of} <= {mode.name for mode in all_modes()}
    for mode in all_modes():
        assert OF.keys() - hidden_with(f"--{mode.name}") == {
            f for f, of in OF.items() if mode.name in of
        }
