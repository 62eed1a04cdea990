"""What a loop has started is not ended with the unit of the loop, where systemd runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from machine.disposable import DisposableHost

from reconciler.host import process_snapshot, scope

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


@pytest.mark.root
def test_a_restart_of_the_unit_of_the_loop_ends_no_process(systemd_host: DisposableHost) -> None:
    host = systemd_host
    host.add_user("ann")
    host.write("/root/spec.yaml", SPEC)
    host.run(host.bin / "reconcile", "--once", "/root/spec.yaml", "--only", "unit:scopes.service")
    host.until(lambda: host.running("sleep 40771") and host.running("sleep 40772"))
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
    host.until(lambda: host.running("sleep 40771"))
    name = unit.split()[0]
    listed = ("systemctl", "list-units", "--all", "--plain", "--no-legend", name)
    host.until(lambda: not host.run(*listed).stdout)


OF_ANN = SPEC.replace("user: ann, cwd: /", "cwd: /").replace(
    "active: true", "active: true\n    scope: user"
)


@pytest.mark.root
def test_nor_does_that_of_an_ordinary_users_loop(systemd_host: DisposableHost) -> None:
    """His daemons are in scopes of his own service manager."""
    host = systemd_host
    host.add_user("ann", linger=True)
    # Where the interpreter is root's own, others must get to it too.
    host.run("chmod", "o+x", "/root")
    host.write("/home/ann/spec.yaml", OF_ANN, owner="ann")
    only = ("--only", "unit:scopes.service")
    host.run(host.bin / "reconcile", "--once", "/home/ann/spec.yaml", *only, user="ann")
    host.until(lambda: host.running("sleep 40771") and host.running("sleep 40772"))
    for text, name in (("sleep 40771", "reconcile-d-"), ("sleep 40772", "reconcile-tmux_scopes-")):
        (pid,) = host.running(text)
        whole = host.run("cat", f"/proc/{pid}/cgroup").stdout.strip()
        assert "/user.slice/" in whole and whole.rpartition("/")[2].startswith(name), whole
    before = host.running("sleep 4077")
    host.run("systemctl", "--user", "restart", "scopes.service", user="ann")
    assert host.running("sleep 4077") == before


@pytest.mark.root
def test_what_has_neither_mark_nor_session_left_ends_with_its_scope(
    systemd_host: DisposableHost,
) -> None:
    host = systemd_host
    script = "env -i setsid sleep 40773 & exec sleep 40774"
    spec = f"version: 1\nname: tree\nprocesses:\n  d: {{command: '{script}'}}\n"
    host.write("/root/spec.yaml", spec)
    once = (host.bin / "reconcile", "--once", "/root/spec.yaml")
    host.run(*once)
    # Until then the shell's own line has both.
    host.until(lambda: len(host.running("sleep 40773")) == len(host.running("sleep 40774")) == 1)
    (child,) = host.running("sleep 40773")
    (leader,) = host.running("sleep 40774")
    host.run("kill", "-9", str(leader))
    host.until(lambda: not host.running("sleep 40774"))
    host.run(*once)
    assert child not in host.running("sleep 40773")
    host.until(lambda: len(host.running("sleep 40773")) == len(host.running("sleep 40774")) == 1)
    host.write("/root/spec.yaml", spec.replace("{command", "{state: absent, command"))
    host.run(*once)
    assert not host.running("sleep 4077")


@pytest.fixture
def moves(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """A systemd that answers at once, and moves the process after a while."""
    seen: dict[str, Any] = {"looks": 0, "argv": [], "environ": {}}

    def run(argv: Sequence[str], timeout: float, environ: Mapping[str, str]) -> Any:
        seen.update(argv=argv, environ=environ)
        return SimpleNamespace(status=0)

    def is_in(unit: str) -> bool:
        seen["looks"] += 1
        return bool(unit in seen["argv"] and seen["looks"] > 3)

    real = scope.os.path.isdir
    monkeypatch.setattr(scope.os.path, "isdir", lambda path: "systemd" in path or real(path))
    monkeypatch.setattr(scope, "find", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(scope, "run", run)
    monkeypatch.setattr(scope, "_is_in", is_in)
    return seen


def test_nothing_is_started_before_the_process_is_in_its_scope(moves: dict[str, Any]) -> None:
    scope.enter("d")
    assert moves["looks"] == 4


def test_a_scope_that_never_adopts_it_is_waited_for_with_an_end(
    moves: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = iter(range(1000))
    monkeypatch.setattr(scope, "_is_in", lambda unit: next(looks) < 0)
    monkeypatch.setattr(scope, "_ASK", 0.05)
    scope.enter("d")
    assert next(looks) < 100


def test_a_name_becomes_no_other_unit_and_root_asks_the_system(
    moves: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    scope.enter("../x/y z\n" + "n" * 300)
    (unit,) = [word for word in moves["argv"] if word.endswith(".scope")]
    assert unit.startswith("reconcile-___x_y_z_n") and len(unit) < 150
    monkeypatch.setattr(scope.os, "geteuid", lambda: 0)
    scope.enter("d")
    assert "--system" in moves["argv"]
    monkeypatch.setattr(scope.os, "geteuid", lambda: 64341)
    scope.enter("d")
    assert "--user" in moves["argv"] and "XDG_RUNTIME_DIR" in moves["environ"]


UNIT = "reconcile-d-41.scope"
HERS = "/user.slice/user-1007.slice/user@1007.service"


@pytest.mark.parametrize(
    ("uid", "first", "path", "counts"),
    [
        (0, "/init.scope", f"/system.slice/{UNIT}", True),
        (0, "/init.scope", f"/system.slice/{UNIT}/of-its-own", True),
        (0, "/", f"/system.slice/{UNIT}", True),
        (0, "/a.slice/box.scope/init.scope", f"/a.slice/box.scope/system.slice/{UNIT}", True),
        (0, "/init.scope", f"{HERS}/app.slice/{UNIT}", False),
        (0, "/init.scope", f"/machine.slice/box.scope/{UNIT}", False),
        (0, "/init.scope", f"/system.slice/delegated.service/system.slice/{UNIT}", False),
        (1007, "/init.scope", f"{HERS}/app.slice/{UNIT}", True),
        (1008, "/init.scope", f"{HERS}/app.slice/{UNIT}", False),
        (1008, "/init.scope", f"/system.slice/{UNIT}", False),
    ],
)
def test_a_scope_that_somebody_else_may_have_named_does_not_count(
    monkeypatch: pytest.MonkeyPatch, uid: int, first: str, path: str, counts: bool
) -> None:
    """Whoever has a manager, or a service, of his own gives scopes in it any name."""
    groups = {1: f"0::{first}\n", 77: f"0::{path}\n"}
    monkeypatch.setattr(process_snapshot, "read_proc", lambda pid, name, most: groups[pid].encode())
    monkeypatch.setattr(process_snapshot.os, "geteuid", lambda: uid)
    table = process_snapshot.ProcessSnapshot()
    monkeypatch.setattr(process_snapshot.ProcessSnapshot, "entries", {77: None})
    assert table.scopes.get(UNIT, set()) == ({77} if counts else set())
