"""Ten hosts, each with its own network, sshd and cron: what a fleet does when not all is well."""

from __future__ import annotations

import json
import os
import subprocess
import time
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from machine.networked import SSHD, Network
from machine.possible import why_not
from support import LONG

from reconciler import __version__
from reconciler.fleet import COLLECTIONS

pytest.importorskip("ansible_runner", reason="needs ansible-core and ansible-runner")
pytestmark = [pytest.mark.root, pytest.mark.namespaces, pytest.mark.fleet, pytest.mark.slow]
PROGRAM = "/opt/reconcile/bin/reconcile"
OLD = '#!/bin/sh\n[ "$1" != --version ] || { echo reconcile 0.0.1; exit; }\n'
OLD += "echo \"reconcile: unknown option '--as'\" >&2; exit 64\n"
SPEC = """version: 1
name: web
vars: {word: one}
directories: {d: {path: /srv/web}}
files: {a: {path: /srv/web/a, content: "{{ word }} on {{ host.name }}\\n"}}
cron: {c: {schedule: "@daily", command: "true"}}
"""


class Fleet:
    """Ten hosts, web1 to web10, and who asks them."""

    def __init__(self, network: Network, folder: Path) -> None:
        self.network, self.folder = network, folder
        self.hosts = network.hosts
        self.spec = folder / "web.yaml"
        self.spec.write_text(SPEC)
        self.inventory = folder / "hosts.ini"
        self.inventory.write_text(network.inventory())

    def run(self, *argv: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
        host = next(iter(self.hosts.values()))
        given = {"HOME": str(self.folder), "PATH": f"{host.bin}:{os.environ['PATH']}",
                 "ANSIBLE_SSH_CONTROL_PATH_DIR": f"{self.network.sockets}/r", "LANG": "C.UTF-8",
                 "ANSIBLE_COLLECTIONS_PATH": COLLECTIONS, "ANSIBLE_TIMEOUT": "5"}  # fmt: skip
        return subprocess.run(
            self.network.argv(*argv), env={**given, **environ}, capture_output=True, text=True,
            stdin=subprocess.DEVNULL, timeout=2 * LONG, cwd=self.folder,
        )  # fmt: skip

    def states(self, *argv: str | Path, status: int) -> dict[str, dict[str, Any]]:
        """What came of it, by host."""
        host = next(iter(self.hosts.values()))
        done = self.run(host.bin / "reconcile", *argv, "--hosts", self.inventory, "--json")
        assert done.returncode == status, done.stdout + done.stderr
        return {one["host"]: one for one in json.loads(done.stdout)["hosts"]}

    def play(self, **play: Any) -> dict[str, list[str]]:
        """Runs a play of that module; how it ended, with the hosts."""
        path = self.folder / "play.json"
        path.write_text(json.dumps([{"hosts": "all", "gather_facts": False, **play}]))
        done = self.run(
            self.hosts["web1"].bin / "ansible-playbook", "-i", self.inventory, path,
            ANSIBLE_STDOUT_CALLBACK="ansible.builtin.default", ANSIBLE_NOCOLOR="1",
            ANSIBLE_SSH_CONTROL_PATH_DIR=f"{self.network.sockets}/p",
        )  # fmt: skip
        found: dict[str, list[str]] = {}
        for line in done.stdout.partition("PLAY RECAP")[2].splitlines()[1:]:
            name, _, counts = line.partition(":")
            for word in counts.split():
                if not word.endswith("=0"):
                    found.setdefault(word.split("=")[0], []).append(name.strip())
        assert found, done.stdout + done.stderr
        return found

    def of(self, path: str, *names: str) -> list[str]:
        return [self.hosts[name].read(path) for name in names or self.hosts]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    if reason := why_not("cron", "ip", "ssh", SSHD):
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("fleet")
    with Network(folder) as network:
        for number in range(1, 11):
            network.add(f"web{number}")
        yield Fleet(network, folder)


ALL = [f"web{number}" for number in range(1, 11)]


def test_a_plan_of_ten_takes_at_most_twice_that_of_one(free: None, fleet: Fleet) -> None:
    """The hosts share the processors of one machine: what each takes beside them is a wait of 2 s,
    and that must not add up."""
    took: dict[str, float] = {}
    for host in fleet.hosts.values():
        host.run("rm", PROGRAM)
        slow = f'#!/bin/sh\n[ "$1" != --plan ] || sleep 2\nexec {host.bin}/reconcile "$@"\n'
        host.write(PROGRAM, slow, 0o755)
    for _ in range(2):  # The first one makes the connections.
        for limit in ("web1", "all"):
            before, begin = fleet.network.carried("web1"), time.monotonic()
            states = fleet.states("--plan", fleet.spec, "--limit", limit, status=0)
            took[limit] = time.monotonic() - begin
            assert {one["state"] for one in states.values()} == {"differs"}
            carried = fleet.network.carried("web1") - before
    assert carried < 1_000_000, f"{carried:,} bytes for one plan of one host"
    print(took, f"{carried:,} bytes a host")
    assert took["all"] <= 2 * took["web1"], took
    for host in fleet.hosts.values():
        host.run("ln", "-sf", f"{host.bin}/reconcile", PROGRAM)
    assert not any(host.exists("/srv/web") for host in fleet.hosts.values())


def test_one_that_drifts_between_plan_and_apply_is_refused(free: None, fleet: Fleet) -> None:
    fleet.states("--plan", fleet.spec, "--out", "/root/plan", status=0)
    fleet.hosts["web4"].run("mkdir", "-m", "700", "/srv/web")
    states = fleet.states("--once", fleet.spec, "--from", "/root/plan", status=1)
    refused = states.pop("web4")
    assert refused["state"] == "failed"
    assert "directory:d is not as it was" in refused["reason"]
    assert {one["state"] for one in states.values()} == {"changed"} and len(states) == 9
    assert not fleet.hosts["web4"].exists("/srv/web/a")
    assert not fleet.hosts["web4"].exists("/etc/reconcile/web.yaml")
    assert fleet.of("/srv/web/a", *states) == ["one on disposable\n"] * 9
    states = fleet.states("--once", fleet.spec, status=0)
    assert [one for one in ALL if states[one]["state"] == "changed"] == ["web4"]
    states = fleet.states("--status", fleet.spec, status=0)
    assert {one["state"] for one in states.values()} == {"ok"}
    assert {len(one["report"]["resources"]) for one in states.values()} == {3}


def test_a_rolling_change_while_not_all_is_well(free: None, fleet: Fleet) -> None:
    """Two are down, one hangs, and one has another version of the program."""
    fleet.network.unplug("web2")
    fleet.network.unplug("web7")
    fleet.hosts["web5"].stop_sshd()
    fleet.hosts["web9"].run("rm", PROGRAM)
    fleet.hosts["web9"].write(PROGRAM, OLD, 0o755)
    well = ["web1", "web3", "web4", "web6", "web8", "web10"]
    data = b64encode(fleet.spec.read_bytes()).decode()
    module = {"spec": "web.yaml", "files": {"web.yaml": data}, "vars": {"word": "two"}}
    play = {"serial": 3, "tasks": [{"reconcile.host.reconcile": module}]}
    ended = fleet.play(**play)
    assert sorted(ended["changed"]) == sorted(well)
    assert sorted(ended["unreachable"]) == ["web2", "web5", "web7"]
    assert ended["failed"] == ["web9"]
    assert fleet.of("/srv/web/a", *well) == ["two on disposable\n"] * 6
    ended = fleet.play(**play)
    assert "changed" not in ended and sorted(ended["ok"]) == sorted(well)

    begin = time.monotonic()
    done = fleet.run(
        fleet.hosts["web1"].bin / "reconcile", "--plan", fleet.spec, "--hosts", fleet.inventory
    )
    assert time.monotonic() - begin < LONG
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines[2:6]] == [
        ["web9", "failed"],
        *(([name, "unreachable"]) for name in ("web2", "web5", "web7")),
    ]
    assert f"runs version 0.0.1, and this is {__version__}" in lines[2]
    assert lines[4].endswith("timed out")
    assert lines[-1] == "10 hosts: 1 failed, 3 unreachable, 6 ok."


def test_every_host_fails(free: None, fleet: Fleet) -> None:
    for name in ALL:
        fleet.network.unplug(name)
    done = fleet.run(
        fleet.hosts["web1"].bin / "reconcile", "--once", fleet.spec, "--hosts", fleet.inventory
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.splitlines()[-1] == "10 hosts: 10 unreachable."
    assert len(done.stdout.splitlines()) == 13 and "Traceback" not in done.stdout
