"""Programs that a look asks are begun together, and waited for only where they are needed."""

from __future__ import annotations

import getpass
import shutil
from pathlib import Path

import pytest
from support import CHECKOUT, Machine, compiled, open_files, until

from reconciler import kinds
from reconciler.base.errors import UnknownState
from reconciler.core.observe import begin as begin_all
from reconciler.host import Host
from reconciler.host.command import begin, find

TMUX = shutil.which("tmux")

pytestmark = pytest.mark.skipif(TMUX is None, reason="tmux is not installed")

SPEC = f"""
sessions: {{ work: {{}} }}
cron: {{ pass: {{ schedule: "*/5 * * * *", command: "true", user: {getpass.getuser()} }} }}
"""


def is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def meets(own: Path, other: Path) -> str:
    """Shell: say that we are here, and wait for the other, but not for ever."""
    return (
        f"touch {own}; n=0; while [ ! -e {other} ] && [ $n -lt 300 ]; "
        f"do sleep 0.01; n=$((n + 1)); done; [ -e {other} ] || exit 9; "
    )


def test_tmux_and_crontab_are_asked_at_the_same_time(machine: Machine) -> None:
    spec = machine.spec(SPEC)
    machine.once(spec)
    here, there = machine.base / "crontab-asked", machine.base / "tmux-asked"
    crontab = f"CRON_SPOOL={machine.spool} CRON_USER={getpass.getuser()}"
    machine.fake("crontab", f"{meets(here, there)}{crontab} exec {CHECKOUT}/tests/fakes/crontab")
    machine.fake("tmux", f"{meets(there, here)}exec {TMUX}")
    machine.converged(spec)
    assert here.exists() and there.exists()


def test_what_was_begun_is_waited_for_later(free: None) -> None:
    begun = begin([find("sh") or "", "-c", "cat; echo said; echo so >&2; exit 3"], timeout=10)
    result = begun.result()
    assert (result.status, result.output, result.errors) == (3, b"said\n", b"so\n")


def test_the_wait_for_it_has_an_end(free: None) -> None:
    begun = begin([find("sleep") or "", "60"], timeout=0.2)
    with pytest.raises(UnknownState, match="did not end"):
        begun.result()


def test_what_nobody_waits_for_is_ended_and_leaves_nothing(free: None, tmp_path: Path) -> None:
    before = open_files()
    file = tmp_path / "pid"
    begun = begin([find("sh") or "", "-c", f"echo $$ >{file}; sleep 60"], timeout=10)
    pid = int(until(lambda: file.exists() and file.read_text().strip()))
    begun.drop()
    assert not is_there(pid)
    assert open_files() <= before


def test_what_was_begun_ends_with_the_look(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = machine.spec(SPEC)
    machine.once(spec)
    pids = machine.base / "pids"
    machine.fake("crontab", f"echo $$ >>{pids}; exec sleep 60 #")
    machine.fake("tmux", f"echo $$ >>{pids}; exec sleep 60 #")
    for name, value in machine.environ.items():
        monkeypatch.setenv(name, value)
    host = Host("demo", str(machine.state / "demo"))
    begin_all(compiled(machine.base, SPEC).resources, kinds.get, host)
    until(lambda: pids.exists() and len(pids.read_text().split()) == 2)
    running = [int(pid) for pid in pids.read_text().split()]
    assert all(is_there(pid) for pid in running)
    host.let_go()
    assert not any(is_there(pid) for pid in running)
