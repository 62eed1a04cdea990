"""A process whose main thread has ended while another one goes on: it runs, and is one."""

from __future__ import annotations

import os
from pathlib import Path

from support import Machine, until

from reconciler.executor.processes import identity, is_alive
from reconciler.host import Host
from reconciler.host.clock import Clock
from reconciler.host.process_search import ProcessSearch
from reconciler.host.process_snapshot import ProcessSnapshot
from reconciler.host.processes import Processes, ending, look_up
from reconciler.host.stops import StopUnderWay
from reconciler.host.usage import measure, rows

PROGRAM = """
import ctypes, os, sys, threading, time

def work():
    held, files = bytearray(32 << 20), [open(os.devnull) for _ in range(30)]
    with open(sys.argv[1], "a") as file:
        file.write(str(os.getpid()) + "\\n")
    threading.Event().wait()

threading.Thread(target=work).start()
time.sleep(0.2)
ctypes.CDLL(None).pthread_exit(None)
"""


def begun(machine: Machine) -> tuple[Path, int]:
    """The spec, and the number of the process that it has started, whose main thread has ended."""
    (machine.base / "app.py").write_text(PROGRAM)
    said = machine.base / "begun"
    words = f"{machine.bin}/python, {machine.base}/app.py, {said}"
    spec = machine.spec(f"processes: {{app: {{command: [{words}]}}}}")
    machine.once(spec)
    pid = int(until(lambda: said.exists() and said.read_text()))
    until(lambda: b") Z " in Path(f"/proc/{pid}/stat").read_bytes())
    return spec, pid


def ended(pid: int) -> bool:
    return look_up(pid) is None


def test_it_is_neither_started_again_nor_lost_for_a_stop(machine: Machine) -> None:
    spec, pid = begun(machine)
    assert ending(pid) is None
    assert is_alive(identity(pid))
    machine.converged(spec)
    machine.once(spec)
    assert (machine.base / "begun").read_text() == f"{pid}\n"
    spec.write_text(spec.read_text().replace("{command", "{state: absent, command"))
    machine.once(spec)
    until(lambda: ended(pid))
    machine.converged(spec)


def test_it_is_known_by_mark_line_and_program(machine: Machine) -> None:
    _, pid = begun(machine)
    uid = os.geteuid()
    entry = look_up(pid)
    assert entry is not None
    search = ProcessSearch(ProcessSnapshot())
    assert [entry.identity] == search.with_command_line(f"{machine.base}/app.py", uid)
    program = os.readlink(f"/proc/{pid}/task/{os.listdir(f'/proc/{pid}/task')[-1]}/exe")
    assert entry.identity in search.with_program(program, uid)
    mark = f"{machine.state}/demo/process:app"
    marked = [one.identity for one in ProcessSnapshot().carriers(uid).values() if one.mark == mark]
    assert marked == [entry.identity]
    StopUnderWay(entry.identity, "TERM", 5.0).make(Processes(Clock()))
    assert ended(pid)


def test_what_it_uses_counts(machine: Machine) -> None:
    _, pid = begun(machine)
    entry = look_up(pid)
    assert entry is not None
    host = Host("demo", str(machine.state))
    used = measure({entry.identity: ("memory", "open_files")}, host)[entry.identity]
    assert used.memory > 32 << 20
    assert used.open_files > 30
    (row,) = rows([entry.identity])
    assert (row.memory, row.open_files) == (used.memory, used.open_files)
