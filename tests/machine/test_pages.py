"""The commands of the pages are run, each page from first line to last, as its reader would.

What a ``console`` block prints is compared with what is printed here, but for what varies; see
``pages`` and ``normalized``.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from difflib import get_close_matches

import pytest
from machine.conftest import booted
from machine.disposable import CronHost, DisposableHost
from machine.test_golden import RECEIVER
from normalized import normal
from pages import Block, blocks, text_of
from picture import PICTURE, drawn, played, words
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
    " ID ": " some-id ",
}
"""What is run instead."""


class Reader:
    """Somebody with an account on a host, in a checkout with the program installed."""

    def __init__(self, host: DisposableHost) -> None:
        self.host = host
        host.run("hostname", "web1")
        host.add_user("me")
        host.admit()
        mine = shlex.quote(str(host.bin.parent))
        self.sh(
            f"mkdir -p {HERE}/.venv {HERE}/tests ~/.zfunc ~/.config/fish/completions ~/bin;"
            f"cp -r {CHECKOUT}/specs {CHECKOUT}/templates {HERE}; "
            f"ln -s {mine}/bin {mine}/lib {mine}/pyvenv.cfg {HERE}/.venv",
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
        for about in block.said.get("file", ()):
            name, _, text = about.partition("\n")
            self.host.write(f"{HERE}/{name}", f"{text}\n", owner="me")
        for line in block.said.get("before", ()):
            self.sh(line)
        expected = int(block.said.get("status", ["0"])[0])
        for name in block.said.get("save", ()):
            self.host.write(f"{HERE}/{name}", block.text, owner="me")
        if name := block.whole():
            self.host.write(f"{HERE}/{name}.yaml", block.text, owner="me")
        elif block.language == "sh":
            for line in block.text.splitlines():
                printed, status = self.sh(changed(line))
                assert status == expected, f"{block}: {line}\n{printed}"
        elif block.language == "python":
            self.host.write(f"{HERE}/example.py", block.text, owner="me")
            printed, status = self.sh(f"{self.host.bin}/python example.py")
            assert status == 0, f"{block}: {printed}"
        elif block.language == "console":
            for command, shown in block.commands():
                printed, status = self.sh(changed(command))
                assert status == expected, f"{block}: {command}\n{printed}"
                printed = printed.replace(str(self.host.bin), f"{HERE}/.venv/bin")
                if os.environ.get("REGENERATE"):
                    shown = rewritten(block, printed.splitlines(), shown)
                if not agrees(normal(printed).splitlines(), normal("\n".join(shown)).splitlines()):
                    pytest.fail(f"{block}: {command}\n{printed}")


def changed(line: str) -> str:
    line = f"{line} "
    for there, instead in ELSEWHERE.items():
        line = line.replace(there, instead)
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


def rewritten(block: Block, printed: list[str], shown: list[str]) -> list[str]:
    """What is shown, with the nearest printed line for one that is not so; in the page too."""
    now = normal("\n".join(printed)).splitlines()
    page, path = text_of(block.page), CHECKOUT / block.page
    for at, line in enumerate(shown):
        if " ..." in line or normal(line).strip("\n") in now:
            continue
        near = get_close_matches(line, printed, 1, 0.3)
        if near:
            page, shown[at] = page.replace(f"\n{line}\n", f"\n{near[0]}\n", 1), near[0]
    path.write_text(page)
    return shown


@pytest.fixture
def reader(free: None) -> Iterator[Reader]:
    for host in booted(CronHost, "cron"):
        yield Reader(host)


@pytest.mark.parametrize(
    "page",
    ["README.md", "specs/README.ja.md", "specs/README.md", "specs/commands.md",
     "specs/executor.md",
     pytest.param("specs/fleet.md", marks=[pytest.mark.fleet, pytest.mark.slow])],
)  # fmt: skip
def test_what_a_page_says_is_so(page: str, reader: Reader) -> None:
    for block in blocks(page):
        reader.follow(block)


def test_the_picture_shows_what_is_printed(free: None) -> None:
    for host in booted(CronHost, "cron"):
        now = drawn(played(host), host.bin)
        if os.environ.get("REGENERATE") and normal(words(now)) != normal(
            words(PICTURE.read_text())
        ):
            PICTURE.write_text(now)
        assert normal(words(PICTURE.read_text())) == normal(words(now))


def test_the_web_service_is_up_rotated_backed_up_and_gone_again(
    systemd_host: DisposableHost,
) -> None:
    host, program = systemd_host, systemd_host.bin / "reconcile"
    host.admit()
    host.write("/etc/reconcile/spec.yaml", (CHECKOUT / "specs/webservice.yaml").read_text())

    def answers() -> bool:
        asked = "import urllib.request as u; u.urlopen('http://127.0.0.1:8098/')"
        return not host.run("python3", "-c", asked, check=False).returncode

    host.run(program, "--once", "-q", check=False)  # The check may be asked before it listens.
    host.until(answers)
    assert host.read("/var/log/webservice/access.log") != ""
    # Who looks after it is there, and it comes back.
    assert host.run("systemctl", "is-active", "reconcile-webservice").stdout == "active\n"
    host.run("systemctl", "stop", "webservice.service")
    host.until(answers)
    # Its log is cut while it is written to, and a backup is made as cron would make it.
    log = "/var/log/webservice/access.log"
    host.run("sh", "-c", f"yes | head -c 22000000 >>{log}")
    lines = host.run("crontab", "-l").stdout.splitlines()
    (backup,) = (line for line in lines if line.startswith("30 3 "))
    host.run("sh", "-c", backup.split(" ", 5)[5].replace("\\%", "%"))
    assert host.run("sh", "-c", "ls /var/backups/webservice").stdout.endswith(".tar.gz\n")
    host.run(program, "--once", "-q", check=False)
    host.until(lambda: host.exists(f"{log}.1") or host.exists(f"{log}.1.gz"))
    assert int(host.run("stat", "-c", "%s", log).stdout) < 20 * 2**20
    host.until(lambda: "Nothing to do" in host.run(program, "--plan", check=False).stdout)
    host.run(program, "--uninstall")
    assert host.run("systemctl", "is-active", "webservice", check=False).stdout == "inactive\n"
    assert not host.exists("/etc/systemd/system/webservice.service")


def test_the_workspace_is_opened_and_closed(reader: Reader) -> None:
    shown = reader.sh("reconcile --once specs/workspace.yaml")
    assert shown[1] == 0, shown[0]
    panes = "tmux list-panes -s -t =workspace -F '#{window_name} #{pane_current_command}'"
    names = [line.split(" ")[0] for line in reader.sh(panes)[0].splitlines()]
    assert names == ["edit", "run", "run", "shell"]
    assert "Nothing to do" in reader.sh("reconcile --plan specs/workspace.yaml")[0]
    reader.sh("tmux kill-window -t =workspace:run")
    reader.sh("reconcile --once specs/workspace.yaml")
    assert len(reader.sh(panes)[0].splitlines()) == 4
    assert reader.sh("reconcile --uninstall specs/workspace.yaml")[1] == 0
    assert reader.sh("tmux has-session -t =workspace")[1] == 1
