"""Draws the terminal in the README, from a real run: ``python tests/picture.py`` (as root)."""

from __future__ import annotations

import io
import re
import shlex
from pathlib import Path

from machine.disposable import CronHost
from rich.console import Console
from rich.text import Text
from support import CHECKOUT

PICTURE = CHECKOUT / ".github" / "terminal.svg"
SPEC = """\
version: 1
name: web
directories:
  site: { path: ~/site, mode: "0755" }
processes:
  server: { command: [python3, -m, http.server, "8098"], cwd: ~/site }
cron:
  pass: { schedule: "* * * * *", command: [reconcile, --once, -q, "{{ spec.path }}"] }
"""
COMMANDS = (
    "reconcile --plan web.yaml",
    "reconcile --once web.yaml",
    "kill -9 {pid}",
    "reconcile --once web.yaml",
    "reconcile --once web.yaml",
)


def played(host: CronHost) -> list[tuple[str, str]]:
    """The commands of the picture, each with what it prints there, in colour."""
    host.run("hostname", "web1")
    host.add_user("me")
    host.admit()
    host.write("/home/me/web.yaml", SPEC, owner="me")
    shell = f"PATH={shlex.quote(str(host.bin))}:$PATH; cd; "
    told = []
    for command in COMMANDS:
        pids = host.running("http.server 8098")
        command = command.format(pid=pids[0] if pids else "")
        colored = command.replace("reconcile ", "reconcile --color always ")
        told.append((command, host.run("bash", "-c", shell + colored, user="me").stdout))
    return told


def drawn(told: list[tuple[str, str]], bin: Path) -> str:
    """The same as a picture; the program is shown where one for everybody would be."""
    console = Console(
        record=True, width=100, file=io.StringIO(), force_terminal=True, color_system="standard",
        legacy_windows=False, _environ={},
    )  # fmt: skip
    for command, printed in told:
        console.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
        printed = printed.replace(str(bin), "/opt/reconcile/bin")
        console.print(Text.from_ansi(printed.rstrip("\n")))
    return console.export_svg(title="me@web1", unique_id="terminal")


def words(picture: str) -> str:
    """The text of a picture, line by line."""
    import html

    rows: dict[float, dict[float, str]] = {}
    for x, y, text in re.findall(
        r'<text class="terminal-r\d+" x="([\d.]+)" y="([\d.]+)"[^>]*>(.*?)</text>', picture
    ):
        rows.setdefault(float(y), {})[float(x)] = html.unescape(text).replace("\xa0", " ")
    return "\n".join("".join(row[x] for x in sorted(row)) for _, row in sorted(rows.items()))


def main() -> None:
    """Draw it anew."""
    with CronHost() as host:
        host.boot()
        PICTURE.parent.mkdir(exist_ok=True)
        PICTURE.write_text(drawn(played(host), host.bin))


if __name__ == "__main__":
    main()
