"""What wakes the loop between two full passes, which are an hour apart here."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from looping import HOLDS
from support import Machine, passed, until

HEAD = "version: 1\nname: demo\nloop: {every: 1h}\n"


def killed(pids: list[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def proved(loop: Any, steps: int) -> None:
    """So many steps were done, and what they have started has held for half a second."""
    until(lambda: loop.names().count("step") == steps)
    passed(HOLDS)


def another(machine: Machine, text: str, pids: list[int]) -> list[int]:
    """The processes that run in the place of those, all of them."""

    def found() -> list[int]:
        now = machine.running(text)
        return now if len(now) == len(pids) and not set(now) & set(pids) else []

    return list(until(found))


def test_a_daemon_that_dies_is_back_at_once(machine: Machine, looping: Any) -> None:
    loop = looping(machine.spec(f"{HEAD}processes: {{p: {{command: [sleep, '90310']}}}}"))
    pids = until(lambda: machine.running("sleep 90310"))
    proved(loop, 1)
    killed(pids)
    assert len(another(machine, "sleep 90310", pids)) == 1
    steps = until(lambda: [e["step"] for e in loop.events() if e["event"] == "step"][1:])
    assert [(step["id"], step["verb"], step["result"]) for step in steps] == [
        ("process:p", "start", "done")
    ]


def test_what_runs_in_tmux_is_back_at_once(machine: Machine, looping: Any) -> None:
    spec = machine.spec(
        f"{HEAD}sessions: {{s: {{}}, t: {{command: exec sleep 90311}}}}\n"
        "processes: {p: {command: [sleep, '90312'], session: s}}"
    )
    loop = looping(spec)
    panes = until(lambda: machine.running("sleep 90311"))
    workers = until(lambda: machine.running("sleep 90312"))
    proved(loop, 3)
    killed(panes)
    panes = another(machine, "sleep 90311", panes)
    killed(workers)
    workers = another(machine, "sleep 90312", workers)
    # In the window where it has run before: none is left behind for each death.
    proved(loop, 5)
    assert len(machine.tmux("list-windows", "-t", "=s").splitlines()) == 1
    killed([machine.server()])
    another(machine, "sleep 90312", workers)
    another(machine, "sleep 90311", panes)
    until(lambda: not machine.steps(spec))


def test_many_deaths_at_once_are_all_made_good(machine: Machine, looping: Any) -> None:
    names = ", ".join(f"p{at}" for at in range(30))
    spec = machine.spec(
        f"{HEAD}processes: {{p: {{for_each: [{names}], command: 'exec sleep 90313'}}}}"
    )
    looping(spec)
    before = until(lambda: (now := machine.running("sleep 90313")) and len(now) == 30 and now)
    until(lambda: not machine.steps(spec))
    killed(before[:12])

    def back() -> bool:
        now = set(machine.running("sleep 90313"))
        return len(now) == 30 and not now & set(before[:12])

    until(back)
    assert set(before[12:]) <= set(machine.running("sleep 90313"))


def test_one_that_dies_at_once_delays_nobody(machine: Machine, looping: Any) -> None:
    spec = machine.spec(
        f"{HEAD}processes:\n"
        f"  bad: {{command: 'echo x >> {machine.base}/tries; exit 3',\n"
        "        restart: {backoff: {initial: 300ms, max: 300ms}}}\n"
        "  good: {command: [sleep, '90314'], needs: []}\n"
    )
    loop = looping(spec)
    pids = until(lambda: machine.running("sleep 90314"))
    tries = machine.base / "tries"
    until(lambda: tries.exists() and len(tries.read_text()) >= 2 * 3)
    loop.held("process:good")
    killed(pids)
    another(machine, "sleep 90314", pids)
    until(lambda: "gave_up" in loop.names())
    events = loop.events()
    assert loop.names().count("gave_up") == 1
    assert len(tries.read_text()) == 2 * 10
    failed = [e for e in events if e["event"] == "step" and e["step"]["result"] == "failed"]
    assert {event["step"]["id"] for event in failed} == {"process:bad"}
    assert "exited right after start" in failed[0]["step"]["error"]


def test_a_pane_that_ends_soon_is_no_storm(machine: Machine, looping: Any) -> None:
    starts = machine.base / "starts"
    looping(
        machine.spec(
            f"{HEAD}sessions: {{s: {{command: 'date +%s.%N >> {starts}; exec sleep 0.2'}}}}"
        )
    )
    # The first end is made good at once; the next ones have to wait for some seconds.
    until(lambda: starts.exists() and starts.read_text().count("\n") >= 3)
    _, second, third, *_ = map(float, starts.read_text().split())
    assert third - second > 1.5


def test_a_change_of_the_spec_is_taken_at_once(machine: Machine, looping: Any) -> None:
    text = f"{HEAD}include: [more.yaml]\ndirectories: {{a: {{path: {machine.base}/a}}}}\n"
    more = machine.base / "more.yaml"
    more.write_text(f"directories: {{b: {{path: {machine.base}/b}}}}\n")
    spec = machine.spec(text)
    loop = looping(spec)
    until((machine.base / "b").is_dir)
    more.write_text(f"directories: {{b: {{path: {machine.base}/c}}}}\n")
    until((machine.base / "c").is_dir)
    # As editors do it: another file takes the name.
    new = machine.base / ".spec.yaml.swp"
    new.write_text(text.replace("/a}", "/d}"))
    new.rename(spec)
    until((machine.base / "d").is_dir)
    assert loop.names().count("reloaded") == 2
    spec.write_text("")
    until(lambda: "invalid" in loop.names())
    (machine.base / "d").rmdir()
    loop.send(signal.SIGUSR1)
    until((machine.base / "d").is_dir)
    assert loop.names().count("invalid") == 1


def test_it_sleeps_while_nothing_happens(machine: Machine, looping: Any, tmp_path: Path) -> None:
    spec = machine.spec(
        f"{HEAD}directories: {{d: {{path: {machine.base}/d}}}}\n"
        "processes: {p: {command: [sleep, '90315']}}"
    )
    loop = looping(spec)
    until(lambda: machine.running("sleep 90315"))
    until(lambda: not machine.steps(spec))
    pid = loop.process.pid

    def slept() -> tuple[int, int]:
        status = Path(f"/proc/{pid}/status").read_text()
        return tuple(int(line.split()[1]) for line in status.splitlines() if "ctxt" in line)  # type: ignore[return-value]

    # It has had its last say over what it has started half a second ago.
    until(lambda: not changes(slept, 1.0))


def changes(value: Callable[[], Any], seconds: float) -> bool:
    """Does it become another one within so many seconds?"""
    before = value()
    passed(seconds)
    return bool(value() != before)
