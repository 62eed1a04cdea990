"""What a loop has started is not ended with the unit of the loop, where systemd runs."""

from __future__ import annotations

import pytest
from machine.disposable import DisposableHost

pytestmark = pytest.mark.root
# Without KillMode=process, which would spare all but hide whose control group it is in.
SPEC = """
version: 1
name: scopes
sessions: {s: {socket: scopes}}
processes:
  d: {command: [sleep, "40771"], user: ann, cwd: /}
  t: {command: [sleep, "40772"], session: s}
units:
  scopes.service:
    template: worker.service
    vars: {type: notify, command: ["{{ host.bin }}/reconcile", --loop, "{{ spec.path }}"]}
    active: true
"""


def group(host: DisposableHost, text: str) -> str:
    (pid,) = host.running(text)
    text: str = host.run("cat", f"/proc/{pid}/cgroup").stdout
    return text.strip().rpartition("/")[2]


def test_a_restart_of_the_unit_of_the_loop_ends_no_process(systemd_host: DisposableHost) -> None:
    host = systemd_host
    host.add_user("ann")
    host.write("/root/spec.yaml", SPEC)
    host.run(host.bin / "reconcile", "--once", "/root/spec.yaml", "--only", "unit:scopes.service")
    host.until(lambda: host.running("sleep 40771") and host.running("sleep 40772"), 40)
    assert group(host, "sleep 40771").startswith("reconcile-d-")
    assert group(host, "sleep 40772").startswith("reconcile-tmux_scopes-")
    before = host.running("sleep 4077")
    host.run("systemctl", "restart", "scopes.service")
    assert host.running("sleep 4077") == before
    plan = host.run(host.bin / "reconcile", "--plan", "/root/spec.yaml", check=False).stdout
    assert "write KillMode=process" in plan
    unit = host.run("systemctl", "list-units", "--plain", "--no-legend", "reconcile-d-*").stdout
    host.run("kill", str(host.running("sleep 40771")[0]))
    # The scope of what has ended goes away by itself; another one takes its place.
    host.until(lambda: host.running("sleep 40771"), 40)
    name = unit.split()[0]
    listed = ("systemctl", "list-units", "--all", "--plain", "--no-legend", name)
    host.until(lambda: not host.run(*listed).stdout)
