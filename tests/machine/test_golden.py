"""Whole outputs of each mode on one host, so that a change of words is seen in review.

``golden/outputs/NAME.txt`` is what a pipe gets, ``NAME.80.txt`` what a terminal of 80 columns
shows; what varies is made the same by ``normalized.normal``. ``REGENERATE=1`` writes them anew.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from machine.conftest import booted
from machine.disposable import CronHost, DisposableHost
from normalized import normal
from support import CHECKOUT, LONG

pytestmark = pytest.mark.root

OUTPUTS = CHECKOUT / "tests" / "golden" / "outputs"
UNSURE = re.compile(
    r"  done start process:broken.*\n.*\n(?=  failed start process:broken)"
    r"|  <n>\. the load is .*\n.*\n"
)
"""Whether it has ended when it is first looked at, and how busy it is, is up to the machine."""
SPEC = """\
version: 1
name: demo
loop: {every: 1h}
notify:
  targets:
    chat: {url_file: ~/url, on: [changed, failed, gave_up, recovered, progress, report]}
    mail: {url_file: ~/none}
  report_every: 1d
directories:
  data: {path: ~/data, mode: "0755"}
  below: {path: ~/file/below}
  off: {path: ~/off, when: "false"}
permissions:
  keys: {path: "~/keys/*.key", mode: "0600"}
retention:
  old: {path: ~/keys, match: "*.old", older_than: 1d, action: delete}
sessions:
  work: {windows: [{name: edit, panes: [{command: sleep 4711}]}]}
processes:
  web: {command: [sleep, "4712"]}
  broken:
    command: [sh, -c, "echo no port; exit 3"]
    restart: {attempts: 2, backoff: {initial: 10ms}, retry_every: 1h}
  client: {command: [sleep, "4713"], needs: [process:broken]}
cron:
  backup: {schedule: "30 3 * * mon-fri", command: "/usr/local/bin/backup --all --into /srv/nightly"}
units:
  u.service: {content: "[Service]\\nExecStart=/bin/true\\n", scope: user}
blocks:
  aliases: {path: ~/rc, content: "alias ll='ls -l'\\n"}
checks:
  answers: {command: [test, -e, /home/me/well], every: 1h, on_failure: [notify]}
  room: {disk: {path: /home/me, min_free: 1B}, every: 1h}
"""
RECEIVER = """\
import json, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
class Taken(BaseHTTPRequestHandler):
    def do_POST(self):
        got = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with open("/home/me/messages", "a") as file:
            file.write(got["title"] + "\\n" + got["message"] + "\\n\\n")
        self.send_response(200)
        self.end_headers()
    def log_message(self, *words): pass
HTTPServer(("127.0.0.1", 8123), Taken).serve_forever()
"""


@dataclass
class Host:
    """A host, the shell of its user, and what was printed there."""

    host: DisposableHost
    seen: dict[str, str] = field(default_factory=dict)

    def sh(self, line: str, status: int | None = 0) -> str:
        shell = f"cd; PATH={self.host.bin}:$PATH; export NO_COLOR=1; {line}"
        done = self.host.run("bash", "-c", shell, user="me", check=False, timeout=LONG)
        assert status in (None, done.returncode), done.stdout + done.stderr
        return done.stdout + done.stderr

    def kept(self, name: str, command: str, status: int = 0) -> None:
        """Run it in a pipe, and keep what it prints under that name."""
        self.seen[name] = self.sh(command, status)

    def on_terminal(self, name: str, command: str) -> None:
        """The same on a terminal of 80 columns."""
        said = self.sh(f"script -qec 'stty cols 80 rows 50; {command}' /dev/null", None)
        self.seen[f"{name}.80"] = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said.replace("\r", ""))


@pytest.fixture
def told(free: None) -> Iterator[Host]:
    """The host on which all of it happens, once it has been told."""
    for host in booted(CronHost, "cron"):
        host.run("hostname", "web1")
        host.add_user("me")
        host.admit()
        # From here on process numbers have four digits, whatever came before.
        host.run("sh", "-c", "i=0; while [ $i -lt 1000 ]; do (:) & i=$((i + 1)); done; wait")
        yield Host(host)


def test_the_words_of_every_mode(told: Host) -> None:
    play(told)
    OUTPUTS.mkdir(exist_ok=True)
    found = {
        name: UNSURE.sub("", normal(text.replace(str(told.host.bin), "/opt/reconcile/bin")))
        for name, text in told.seen.items()
    }
    if os.environ.get("REGENERATE"):
        for path in OUTPUTS.glob("*.txt"):
            path.unlink()
        for name, text in found.items():
            (OUTPUTS / f"{name}.txt").write_text(text)
    for name, text in found.items():
        assert text == (OUTPUTS / f"{name}.txt").read_text(), name
    assert {path.stem for path in OUTPUTS.glob("*.txt")} == set(found)


def play(told: Host) -> None:
    """One day of the host, from its first plan to the end of the spec."""
    host = told.host
    host.write("/home/me/demo.yaml", SPEC, owner="me")
    host.write("/home/me/bad.yaml", SPEC.replace("mode:", "mod:").replace("~/rc", "rc"), owner="me")
    host.write("/home/me/url", "json://127.0.0.1:8123/", mode=0o600, owner="me")
    host.write("/home/me/receiver.py", RECEIVER)
    told.sh("mkdir keys && touch keys/a.key well file && touch -d '3 days ago' keys/a.old")
    told.sh("(setsid python3 receiver.py >/dev/null 2>&1 &)")
    told.sh("until (: </dev/tcp/127.0.0.1/8123) 2>/dev/null; do sleep 0.1; done")
    told.kept("help", "reconcile --help")
    told.kept("usage", "reconcile", 64)
    told.kept("no-mode", "reconcile demo.yaml", 64)
    told.kept("invalid", "reconcile --check bad.yaml", 65)
    told.kept("check", "reconcile --check demo.yaml")
    told.kept("notify-test", "reconcile --notify-test demo.yaml")
    told.kept("status-first", "reconcile --status demo.yaml", 1)
    for tell in (told.kept, told.on_terminal):
        tell("plan", "reconcile --plan demo.yaml", *([1] if tell == told.kept else []))
    told.kept("pass", "reconcile --once demo.yaml", 1)
    told.kept("pass-again", "reconcile --once demo.yaml", 1)
    told.kept("pause", "reconcile --pause session:work demo.yaml --reason 'new disk'")
    # What people do to a host.
    (web,) = host.running("sleep 4712")
    told.sh(f"chmod 700 data; crontab -r; rm well; echo x >rc; kill -9 {web}")
    host.until(lambda: not host.running("sleep 4712"))
    for tell in (told.kept, told.on_terminal):
        tell("drift", "reconcile --plan demo.yaml", *([1] if tell == told.kept else []))
        tell("status", "reconcile --status demo.yaml", *([1] if tell == told.kept else []))
        tell("diagnose", "reconcile --diagnose demo.yaml", *([1] if tell == told.kept else []))
    told.sh("rm file")
    told.on_terminal("pass", "reconcile --once demo.yaml")
    told.seen["messages"] = told.sh("cat messages")
    told.sh("chmod 700 data; crontab -r; touch well")
    told.kept("repair", "reconcile --repair demo.yaml", 1)
    told.kept("resume", "reconcile --resume session:work demo.yaml")
    told.sh("chmod 700 data")
    told.on_terminal("repair", "reconcile --repair demo.yaml")
    for tell in (told.kept, told.on_terminal):
        tell("history", "reconcile --history demo.yaml")
    told.kept("uninstall", "reconcile --uninstall demo.yaml")
