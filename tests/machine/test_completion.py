"""Completion, at the prompt of real shells: what is typed, a key, and the words that come of it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import LONG, Machine

from reconciler.output.completion import script

TAB, ALL = "\t", "\x1b*"
"""Complete; and, in bash, insert all that could stand here."""
IDS = "directories: {d: {path: /tmp}, e: {path: /var/tmp}}\n"
WEB = "processes: {web: {command: [sleep, '9']}}\n"
MANY = "retention: {old: {for_each: [a b], path: /tmp, older_than: 9d, action: delete}}\n"


class Prompt:
    """An interactive shell on a terminal of its own."""

    def __init__(self, machine: Machine, *argv: str) -> None:
        inputrc = machine.base / "inputrc"
        inputrc.write_text("set enable-bracketed-paste off\n")
        main, terminal = pty.openpty()
        fcntl.ioctl(main, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 400, 0, 0))
        self._main = main
        self.process = subprocess.Popen(
            argv, cwd=machine.base, stdin=terminal, stdout=terminal, stderr=terminal,
            env={**machine.environ, "TERM": "vt100", "PS1": "> ", "INPUTRC": str(inputrc)},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(terminal)

    def words(self, line: str, key: str = TAB) -> list[str]:
        """The words of the line after the key, as the shell would pass them on."""
        seen = self._typed(f"{line}{key}\x01printf '<%s>\\n' \x05 END\r")
        return re.findall(r"^<(.*)>\r$", seen, re.MULTILINE)[:-1]

    def run(self, line: str) -> None:
        """Run a line to its end."""
        self._typed(f"{line}; printf '<%s>\\n' END\r")

    def _typed(self, text: str) -> str:
        os.write(self._main, text.encode())
        seen = b""
        end = time.monotonic() + LONG
        while b"<END>\r\n" not in seen:
            assert time.monotonic() < end, seen
            if select.select([self._main], [], [], 0.1)[0]:
                seen += os.read(self._main, 65536)
        return seen.decode()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._main)


@pytest.fixture
def prompt(machine: Machine) -> Iterator[type[Prompt]]:
    opened: list[Prompt] = []

    def started(*argv: str) -> Prompt:
        opened.append(Prompt(machine, *argv))
        return opened[-1]

    yield started  # type: ignore[misc]
    for one in opened:
        one.close()


@pytest.fixture
def scripts(machine: Machine) -> Path:
    """The scripts of both programs for all shells, and a spec to be found by itself."""
    folder = machine.base / "scripts"
    folder.mkdir()
    for name in ("reconcile", "ai-cmd-executor"):
        for shell in ("bash", "zsh", "fish"):
            done = machine.run(machine.bin / name, "--completion", shell)
            assert done.returncode == 0, done.stderr
            (folder / f"{name}.{shell}").write_text(done.stdout)
    machine.environ |= {
        "RECONCILE_SPEC": str(machine.spec(IDS + WEB + MANY, "my.yaml")),
        "STATE_DIRECTORY": str(machine.state),
    }
    (machine.base / "other.yml").write_text("version: 1\nname: x\nblocks: {}\nsessions: {s: {}}\n")
    return folder


def test_bash(machine: Machine, scripts: Path, prompt: type[Prompt]) -> None:
    assert machine.reconcile("--once", "--only", "directory:d").returncode == 0
    shell = prompt("bash", "--norc", "--noprofile", "-i")
    shell.run(f"source {scripts}/reconcile.bash; source {scripts}/ai-cmd-executor.bash")
    cases = {
        "--onc": ["--once"],
        "--pause process:w": ["--pause", "process:web"],
        "--pause=process:w": ["--pause=process:web"],
        "--pause pro": ["--pause", "process:web"],
        "--plan --only directory:e --only process:": [
            "--plan", "--only", "directory:e", "--only", "process:web"],
        "--plan --only retention:o": ["--plan", "--only", "retention:old[a b]"],
        "--plan --only ses": ["--plan", "--only", "ses"],
        "--plan other.yml --only ses": ["--plan", "other.yml", "--only", "session:s"],
        "--plan 'other.yml' --only=ses": ["--plan", "other.yml", "--only=session:s"],
        "--plan oth": ["--plan", "other.yml"],
        "--plan exec": ["--plan", "executor"],
        "--plan --set a=b exec": ["--plan", "--set", "a=b", "executor"],
        "--plan --color al": ["--plan", "--color", "always"],
        "--plan --color=ne": ["--plan", "--color=never"],
        "--once --det": ["--once", "--detailed-exitcode"],
        # Only of the mode that stands there, and only one mode.
        "--once --rea": ["--once", "--rea"],
        "--once --pla": ["--once", "--pla"],
        "--pause process:web --rea": ["--pause", "process:web", "--reason"],
        "--completion z": ["--completion", "zsh"],
        "--once --state-dir scr": ["--once", "--state-dir", "scripts/"],
    }  # fmt: skip
    for line, expected in cases.items():
        assert shell.words(f"reconcile {line}") == ["reconcile", *expected], line
    modes = shell.words("reconcile ", ALL)[1:]
    assert {"--plan", "--once", "--loop", "--status", "--pause", "--man", "--only"} <= set(modes)
    assert shell.words("reconcile --pause ", ALL)[2:] == [
        "directory:d", "directory:e", "process:web", "retention:old[a b]"]  # fmt: skip
    # Only what is paused can be resumed.
    assert shell.words("reconcile --resume d", ALL) == ["reconcile", "--resume", "d"]
    machine.reconcile("--pause", "directory:d")
    assert shell.words("reconcile --resume d") == ["reconcile", "--resume", "directory:d"]

    verbs = shell.words("ai-cmd-executor sta", ALL)
    assert verbs == ["ai-cmd-executor", "start", "status"]
    assert shell.words("ai-cmd-executor logs --fo")[1:] == ["logs", "--follow"]
    done = machine.home / "ai_co/ai_commands/completed"
    done.mkdir(parents=True)
    (done / "backup-1.json").write_text("{}")
    assert shell.words("ai-cmd-executor result ba")[1:] == ["result", "backup-1"]
    assert not machine.running("reconcile")


def test_zsh(machine: Machine, scripts: Path, prompt: type[Prompt]) -> None:
    if shutil.which("zsh") is None:
        pytest.skip("zsh is missing; install it with: apt-get install zsh")
    shell = prompt("zsh", "-f", "-i")
    shell.run("bindkey -e; autoload -U compinit; compinit -u -D")
    shell.run(f"source {scripts}/reconcile.zsh; source {scripts}/ai-cmd-executor.zsh")
    for line, expected in {
        "--onc": ["--once"],
        "--pause process:w": ["--pause", "process:web"],
        "--pause=process:w": ["--pause=process:web"],
        "--plan --only retention:o": ["--plan", "--only", "retention:old[a b]"],
        "--plan --color al": ["--plan", "--color", "always"],
        "--pause process:web --rea": ["--pause", "process:web", "--reason"],
        "--once --rea": ["--once", "--rea"],
        "--plan exec": ["--plan", "executor"],
        "--plan other.yml --only ses": ["--plan", "other.yml", "--only", "session:s"],
    }.items():
        assert shell.words(f"reconcile {line}") == ["reconcile", *expected], line
    assert shell.words("ai-cmd-executor rest")[1:] == ["restart"]
    assert shell.words("ai-cmd-executor logs --fo")[1:] == ["logs", "--follow"]
    # As a file in a folder of $fpath it is found by itself.
    (scripts / "reconcile.zsh").rename(scripts / "_reconcile")
    found = prompt("zsh", "-f", "-i")
    found.run(f"bindkey -e; fpath=({scripts} $fpath); autoload -U compinit; compinit -u -D")
    assert found.words("reconcile --onc")[1:] == ["--once"]


def test_fish(machine: Machine, scripts: Path) -> None:
    if shutil.which("fish") is None:
        pytest.skip("fish is missing; install it with: apt-get install fish")
    lines = {
        "reconcile --onc": ["--once"],
        "reconcile --pause process:": ["process:web"],
        "reconcile --pause=process:": ["--pause=process:web"],
        "reconcile --plan --color al": ["always"],
        "reconcile --completion z": ["zsh"],
        "reconcile --pause process:web --rea": ["--reason"],
        "reconcile --once --rea": [],
        "reconcile --plan exec": ["executor"],
        "reconcile --plan other.yml --only ses": ["session:s"],
        "ai-cmd-executor rest": ["restart"],
        "ai-cmd-executor logs --fo": ["--follow"],
        "ai-cmd-executor ": [],
    }
    asked = "".join(f"echo '# {line}'; complete -C '{line}'\n" for line in lines)
    program = f"source {scripts}/reconcile.fish\nsource {scripts}/ai-cmd-executor.fish\n{asked}"
    done = machine.run("fish", "--no-config", "-c", program)
    assert done.stderr == ""
    found: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        if line.startswith("# "):
            found[line[2:]] = last = []
        else:
            last.append(line.partition("\t")[0])
    assert {"start", "stop", "logs", "submit"} <= set(found.pop("ai-cmd-executor "))
    del lines["ai-cmd-executor "]
    assert found == lines


def test_the_program_on_the_line_is_not_run_before_enter(
    machine: Machine, scripts: Path, prompt: type[Prompt]
) -> None:
    """Somebody's ``./reconcile`` lies in the folder where a line is being written."""
    ran = machine.base / "ran"
    for name in ("reconcile", "ai-cmd-executor"):
        trap = machine.base / name
        trap.write_text(f"#!/bin/sh\necho {name} >> {ran}\necho process:trap\n")
        trap.chmod(0o755)
    done = machine.home / "ai_co/ai_commands/completed"
    done.mkdir(parents=True)
    (done / "backup-1.json").write_text("{}")
    shells = {"bash": ("bash", "--norc", "--noprofile", "-i"), "zsh": ("zsh", "-f", "-i")}
    for name, argv in shells.items():
        if shutil.which(name) is None:
            continue
        shell = prompt(*argv)
        if name == "zsh":
            shell.run("bindkey -e; autoload -U compinit; compinit -u -D")
        shell.run(f"source {scripts}/reconcile.{name}; source {scripts}/ai-cmd-executor.{name}")
        for line, last in {
            "reconcile --pause proc": "process:web",
            "ai-cmd-executor result ba": "backup-1",
        }.items():
            assert shell.words(f"./{line}")[-1] == last, name
    if shutil.which("fish") is not None:
        program = f"source {scripts}/reconcile.fish; complete -C './reconcile --pause proc'"
        assert machine.run("fish", "--no-config", "-c", program).stdout.split() == ["process:web"]
    assert not ran.exists()


def asked(machine: Machine, line: str, *argv: str | Path) -> tuple[list[str], str, int]:
    """What the program answers to a script for that line, what it says besides, its status."""
    answer = machine.base / "answer"
    answer.write_text("")
    done = machine.run(
        *(argv or (machine.bin / "reconcile",)),
        environ={
            "_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "_ARGCOMPLETE_SUPPRESS_SPACE": "1",
            "_ARGCOMPLETE_STDOUT_FILENAME": str(answer), "COMP_LINE": line,
            "COMP_POINT": str(len(line)), "COMP_TYPE": "9",
        },
    )  # fmt: skip
    return answer.read_text().splitlines(), done.stdout + done.stderr, done.returncode


def test_what_is_asked_for_says_nothing_of_what_is_wrong(machine: Machine, scripts: Path) -> None:
    lines = "--plan missing.yaml --only ", "--set nonsense --only ", "--plan 'half"
    for line in lines:
        found, said, _ = asked(machine, f"reconcile {line}")
        assert not [one for one in found if ":" in one], line
        assert said == "", line
    machine.spec("version: 2", "my.yaml")
    assert asked(machine, "reconcile --plan --only ") == ([], "", 0)
    assert not machine.state.exists()


def test_the_light_helper_imports_nothing_heavy(machine: Machine, scripts: Path) -> None:
    machine.reconcile("--once", "--only", "directory:d")
    heavy = machine.base / "heavy"
    program = (
        "import os, sys; from reconciler.cli.main import main\n"
        "def end(status):\n"
        "    found = {'pydantic', 'ruamel', 'jinja2', 'rich', 'sqlite3'} & {*sys.modules}\n"
        f"    open({str(heavy)!r}, 'w').write(f'{{status}} {{sorted(found)}}')\n"
        "    sys.exit(0)\n"
        "os._exit = end\n"
        "from argcomplete.finders import CompletionFinder\n"
        "call = CompletionFinder.__call__\n"
        "CompletionFinder.__call__ = lambda *a, **k: call(*a, exit_method=end, **k)\n"
        "main([])"
    )
    found, _, _ = asked(machine, "reconcile --plan --only ", sys.executable, "-c", program)
    assert "process:web" in found
    assert heavy.read_text() == "0 []"


def test_no_shell_expands_the_path_of_the_program() -> None:
    for path in ("/opt/a b/reconcile", "/opt/$(id)/reconcile", "/opt/`id`/r", '/opt/"/r', "/a*/r"):
        with pytest.raises(ValueError, match="characters that shells change"):
            script("reconcile", path, "bash")
    assert "/opt/a-b_1.2/bin/reconcile" in script("r", "/opt/a-b_1.2/bin/reconcile", "fish")
