"""What an earlier version has installed for the command executor runs this program, unchanged.

``golden/installed`` has the unit, crontab, session and login block as they were written then.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import pytest
from machine.disposable import DisposableHost
from support import CHECKOUT, Machine, facts, until

from reconciler import kinds
from reconciler.config.build import build
from reconciler.host import spec_files

SPEC = spec_files.path_of("executor")
WORKER = "ai-cmd-executor worker"


def before(name: str, bin_: object, home: object, state: object, sockets: object = "") -> str:
    """What was installed, on a host with these folders."""
    text = (CHECKOUT / "tests/golden/installed" / name).read_text()
    places = {"@BIN@": bin_, "@HOME@": home, "@STATE@": state, "@PATH@": "/some:/path",
              "@SOCKETS@": f"TMUX_TMPDIR={sockets}" if sockets else ""}  # fmt: skip
    for word, place in places.items():
        text = text.replace(word, str(place))
    # Each line of a crontab stands below its check sum.
    lines = text.splitlines(keepends=True)
    for at, line in enumerate(lines):
        if line.endswith(" @SUM@\n"):
            check = zlib.crc32(lines[at + 1].rstrip("\n").encode())
            lines[at] = line.replace("@SUM@", f"{check:08x}")
    return "".join(lines)


def wants(folder: Path, *, environ: dict[str, str], settings: dict[str, str], **host: Any) -> Any:
    about = facts(folder, bin="/BIN", user_home="/HOME", state_dir="/STATE", **host)
    spec = build(SPEC, kinds.all_kinds(), about, settings, environ).spec
    return {one.id: one.want for one in spec.resources if one.present and one.skip is None}


@pytest.mark.parametrize(
    ("name", "ident", "settings", "host"),
    [
        ("system.service", "unit:watchdog", {}, {"user_uid": 0}),
        ("user.service", "unit:watchdog", {"user_unit": "true"}, {"user_uid": 7}),
        ("session", "session:executor_watchdog", {}, {"user_uid": 7, "linger": True}),
        ("bashrc", "block:login", {"login_hook": "true"}, {"systemd": False, "crontab": False}),
    ],
)
def test_nothing_of_it_differs(
    name: str, ident: str, settings: dict[str, str], host: dict[str, Any], tmp_path: Path
) -> None:
    # The PATH of cron is another one: it may stand in nothing but the session.
    for path in ("/some:/path", "/usr/bin:/bin"):
        environ = {"PATH": path}
        want = wants(tmp_path, environ=environ, settings=settings, **host)[ident]
        text = {"unit": "text", "block": "content"}.get(ident.partition(":")[0])
        made = getattr(want, text) if text is not None else f"{want.command[2]}\n"
        assert made == before(name, "/BIN", "/HOME", "/STATE").replace("/some:/path", path)


def test_nor_what_it_was_given_besides(tmp_path: Path) -> None:
    host = {"user_uid": 0, "trust": ("--trust", "5")}
    want = wants(tmp_path, environ={}, settings={"file_mode": "0640"}, **host)["unit:watchdog"]
    plain = before("system.service", "/BIN", "/HOME", "/STATE")
    given = "login_hook=false --trust 5 --set file_mode=0640\n"
    assert want.text == plain.replace("login_hook=false\n", given)


def test_its_cron_line_brings_it_up_and_nothing_changes(machine: Machine) -> None:
    spec = Path("executor")
    table = before("crontab", machine.bin, machine.home, machine.state, machine.sockets)
    machine.write_crontab(table.encode())
    (line,) = (one.split(" ", 5)[5] for one in table.splitlines() if one.startswith("*/5"))
    # The PATH of cron, behind the stand-in for crontab(1).
    path = f"{machine.base}/fakes:/usr/bin:/bin"
    done = machine.run("sh", "-c", line, environ={"PATH": path})
    log = machine.home / "ai_co/logs/reconcile.log"
    assert done.returncode == 0, log.read_text()
    assert machine.only(WORKER)
    until(lambda: machine.running("reconcile --loop executor"))
    until(lambda: machine.steps(spec) == [])
    assert machine.crontab_text() == table.encode()


@pytest.mark.root
def test_its_unit_and_its_crontab(systemd_host: DisposableHost) -> None:
    host = systemd_host
    places = host.bin, "/root", "/var/lib/reconcile"
    unit = "/etc/systemd/system/reconcile-executor.service"
    host.write(unit, before("system.service", *places))
    table = before("crontab", *places)
    host.run("crontab", "-", input=table)
    host.run("systemctl", "enable", "--now", "reconcile-executor.service")
    host.until(lambda: host.running(WORKER))
    main = ("systemctl", "show", "-P", "MainPID", "reconcile-executor")
    loop = host.run(*main).stdout

    def steps() -> list[str]:
        done = host.run(host.bin / "reconcile", "--plan", "executor", "--json", check=False)
        return [step["id"] for step in json.loads(done.stdout)["steps"]]

    host.until(lambda: not steps())
    assert host.run("cat", unit).stdout == before("system.service", *places)
    assert host.run(*main).stdout == loop
    # Without sockets of its own, its lines have lost a blank.
    assert host.run("crontab", "-l").stdout.count(f"logs; {host.bin}/reconcile --once -q") == 2
    assert host.run(host.bin / "ai-cmd-executor", "test", check=False).returncode == 0
