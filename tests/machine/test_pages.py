"""The commands of the pages are run, each page from first line to last, as its reader would.

What a ``console`` block prints is compared with what is printed here, but for what varies; see
``pages`` and ``normalized``.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import pytest
from machine.conftest import booted
from machine.disposable import CronHost, DisposableHost
from machine.test_golden import RECEIVER
from normalized import normal
from pages import Block, blocks
from support import CHECKOUT, LONG

pytestmark = pytest.mark.root

HERE = "/home/me/reconcile"
ELSEWHERE = {
    # Needs the network; `tests/run` does it.
    "python3 -m venv .venv && .venv/bin/pip install -q .": "true",
    "git pull -q && .venv/bin/pip install -q .": "true",
    "tests/run": "true",
    # Needs a terminal, or goes on until Ctrl-C.
    "tmux attach -t ": "tmux has-session -t ",
    "ai-cmd-executor logs -f": "ai-cmd-executor logs",
    "reconcile --loop ": "timeout -s TERM 3 reconcile --loop ",
    # Placeholders.
    " ID ": " my-id ",
}
"""What is run instead."""


class Reader:
    """Somebody with an account on a host, in a checkout with the program installed."""

    def __init__(self, host: DisposableHost) -> None:
        self.host = host
        host.run("hostname", "web1")
        host.add_user("me")
        host.admit()
        mine = shlex.quote(str(host.bin))
        self.sh(
            f"mkdir -p {HERE}/.venv {HERE}/tests ~/.zfunc ~/.config/fish/completions ~/bin;"
            f"cp -r {CHECKOUT}/specs {CHECKOUT}/templates {HERE}; ln -s {mine} {HERE}/.venv/bin",
            "/",
        )
        host.write("/home/me/receiver.py", RECEIVER)
        self.sh("(setsid python3 ~/receiver.py >/dev/null 2>&1 &)")

    def sh(self, line: str, folder: str = HERE) -> tuple[str, int]:
        """Run a line; what it prints, and its status."""
        shell = f"cd {folder}; PATH={HERE}/.venv/bin:$PATH; {line}"
        done = self.host.run(
            "bash", "-c", shell, user="me", check=False, timeout=LONG,
            input="json://127.0.0.1:8123/\n", environ={"USER": "me"},
        )  # fmt: skip
        return done.stdout + done.stderr, done.returncode

    def follow(self, block: Block) -> None:
        """Do what the block says."""
        for line in block.said.get("before", ()):
            self.sh(line)
        expected = int(block.said.get("status", ["0"])[0])
        if name := block.whole():
            self.host.write(f"{HERE}/{name}.yaml", block.text, owner="me")
        elif block.language == "sh":
            for line in block.text.splitlines():
                printed, status = self.sh(changed(line))
                assert status == expected, f"{block}: {line}\n{printed}"
        elif block.language == "python":
            self.host.write(f"{HERE}/example.py", block.text, owner="me")
            printed, status = self.sh("python3 example.py")
            assert status == 0, f"{block}: {printed}"
        elif block.language == "console":
            for command, shown in block.commands():
                printed, status = self.sh(changed(command))
                assert status == expected, f"{block}: {command}\n{printed}"
                found = normal(printed.replace(str(self.host.bin), f"{HERE}/.venv/bin"))
                assert agrees(found.splitlines(), normal("\n".join(shown)).splitlines()), (
                    f"{block}: {command}\n{printed}"
                )


def changed(line: str) -> str:
    line = f"{line} "
    for words, instead in ELSEWHERE.items():
        line = line.replace(words, instead)
    return line


def agrees(printed: list[str], shown: list[str]) -> bool:
    """Is that what is shown? A line ``...`` is any lines, and so is one at the end of a line."""
    if not shown:
        return not printed
    if shown[0].strip() == "...":
        return any(agrees(printed[at:], shown[1:]) for at in range(len(printed) + 1))
    if not printed:
        return False
    head, dots, _ = shown[0].partition(" ...")
    same = printed[0] == shown[0] or (dots and printed[0].startswith(head))
    return bool(same) and agrees(printed[1:], shown[1:])


@pytest.fixture
def reader(free: None) -> Iterator[Reader]:
    for host in booted(CronHost, "cron"):
        yield Reader(host)


@pytest.mark.parametrize(
    "page",
    ["README.md", "specs/README.ja.md", "specs/README.md", "specs/commands.md",
     "specs/executor.md"],
)  # fmt: skip
def test_what_a_page_says_is_so(page: str, reader: Reader) -> None:
    for block in blocks(page):
        reader.follow(block)
