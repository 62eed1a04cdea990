"""Ten times the resources take as many processes: each program is asked once for all of them."""

from __future__ import annotations

import getpass
import re
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support import CHECKOUT, Machine, until

from reconciler.base.errors import HostError
from reconciler.core.batches import in_halves
from reconciler.host.processes import environment

Calls = Callable[[Callable[[], object]], Counter[str]]


@pytest.fixture
def calls(machine: Machine) -> Calls:
    """What was called how often while something is done: crontab and tmux by their first option."""
    log = machine.base / "calls"
    crontab = f"CRON_SPOOL={machine.spool} CRON_USER={getpass.getuser()} "
    crontab += f"exec {CHECKOUT}/tests/fakes/crontab"
    for name, real in (("crontab", crontab), ("tmux", f"exec {shutil.which('tmux')}")):
        machine.fake(name, f"echo {name} >>{log}; {real}")

    def count(act: Callable[[], object]) -> Counter[str]:
        log.unlink(missing_ok=True)
        act()
        return Counter(log.read_text().split()) if log.exists() else Counter()

    return count


def crons(machine: Machine, number: int, minute: int, state: str = "present") -> Path:
    lines = (
        f'  l{at}: {{schedule: "{minute} 3 * * *", command: "true {at}", state: {state}}}\n'
        for at in range(number)
    )
    return machine.spec("cron:\n" + "".join(lines))


def template(machine: Machine, number: int, minute: int, state: str = "present") -> Path:
    """The same lines, all of one resource."""
    lines = "".join(f"{minute} 3 * * * true {at}\\n" for at in range(number))
    return machine.spec(f'cron: {{all: {{content: "{lines}", state: {state}}}}}\n')


@pytest.mark.parametrize("made", [crons, template])
def test_crontab_is_called_as_often_for_many_lines(
    machine: Machine, calls: Calls, made: Callable[..., Path]
) -> None:
    found = {}
    for number in (5, 50):
        for step, args in enumerate([(1,), (2,), (2, "absent")]):
            spec = made(machine, number, *args)
            found[number, step] = calls(partial(machine.once, spec))["crontab"]
            text = (machine.crontab_text() or b"").decode()
            lines = [line for line in text.splitlines() if " 3 * * * true " in line]
            assert len(lines) == (0 if step == 2 else number)
            assert step == 2 or all(line.startswith(f"{args[0]} ") for line in lines)
            machine.converged(spec)
    assert [found[5, step] for step in range(3)] == [found[50, step] for step in range(3)]
    assert max(found.values()) <= 13, found


def test_a_line_that_crontab_refuses_keeps_no_other_out(machine: Machine) -> None:
    refuse = 'case "$(cat)" in *odd*) echo "bad minute" >&2; exit 1 ;; esac'
    fake = (
        f"CRON_SPOOL={machine.spool} CRON_USER={getpass.getuser()} {CHECKOUT}/tests/fakes/crontab"
    )
    machine.fake(
        "crontab",
        f'if [ "$*" = "-n -" ]; then {refuse}; exit 0; fi; exec env {fake}',
    )
    lines = "".join(
        f'  l{at}: {{schedule: "0 3 * * *", command: "true {"odd" if at == 4 else at}"}}\n'
        for at in range(9)
    )
    spec = machine.spec(f"cron:\n{lines}")
    report = machine.once(spec, status=1)
    results = {step["id"]: step["result"] for step in report["steps"]}
    assert results == {f"cron:l{at}": "failed" if at == 4 else "done" for at in range(9)}
    (failed,) = (step for step in report["steps"] if step["result"] == "failed")
    assert "bad minute" in failed["error"]
    text = (machine.crontab_text() or b"").decode()
    assert text.count(" 3 * * * true ") == 8 and "odd" not in text


def sessions(machine: Machine, number: int, panes: int, state: str = "present") -> Path:
    sleep = f"{{command: [sleep, '{machine.mark}']}}"
    window = f"{{name: w, panes: [{', '.join([sleep] * panes)}]}}"
    lines = (f"  s{at}: {{windows: [{window}], state: {state}}}\n" for at in range(number))
    return machine.spec("sessions:\n" + "".join(lines))


def test_tmux_is_called_as_often_for_many_sessions(machine: Machine, calls: Calls) -> None:
    found = {}
    for number in (1, 3, 30):  # The first one leaves a socket behind, which is asked then.
        for step, args in enumerate([(1,), (2,), (2, "absent")]):
            spec = sessions(machine, number, *args)
            found[number, step] = calls(partial(machine.once, spec))["tmux"]
            running = 0 if step == 2 else number * args[0]
            # What a pane runs is the server still, for a moment, and ends after its session.
            until(lambda n=running: len(machine.running(f"sleep {machine.mark}")) == n)
            machine.converged(spec)
    assert [found[3, step] for step in range(3)] == [found[30, step] for step in range(3)]
    assert max(found.values()) <= 6, found


def test_a_full_pass_of_a_loop_asks_tmux_once(
    machine: Machine, calls: Calls, looping: Callable[..., Any]
) -> None:
    spec = sessions(machine, 3, 1)
    machine.once(spec)
    spec.write_text(f"loop: {{every: 1h}}\n{spec.read_text()}")
    loop = looping(spec).up()
    loop.full_pass()
    assert calls(loop.full_pass) == {"tmux": 1}


def test_ten_times_the_sessions_take_ten_times_the_commands_of_tmux(machine: Machine) -> None:
    """Each option that is set has tmux go through all sessions, so as few as can be are."""
    said, found = machine.base / "said", {}
    real = shutil.which("tmux")
    tee = f'case "$*" in *source-file*) tee -a {said};; *) cat;; esac'
    machine.fake("tmux", f"{tee} | exec {real}")
    for number in (2, 20):
        said.write_text("")
        pane = f"{{windows: [{{panes: [{{command: [sleep, '{machine.mark}']}}]}}]}}"
        lines = [f"  n{number}x{at}: {pane}" for at in range(number)]
        spec = machine.spec("\n".join(["sessions:", *lines]))
        machine.once(spec)
        words = re.findall(r"\\042([a-z]+-[a-z]+)\\042", said.read_text())
        found[number] = Counter(words)
        once = {"exit-unattached": 1, "set-option": 1}
        each = {"new-session": 1, "set-environment": 1, "set-option": 7, "destroy-unattached": 1}
        for word in ("new-window", "split-window", *once, *each):
            most = once.get(word, 0) + each.get(word, 0) * number
            assert found[number][word] == most, (word, found[number])
    until(lambda: len(machine.running(f"sleep {machine.mark}")) == 22)


def test_what_people_open_in_a_session_does_not_count_as_its_first_pane(machine: Machine) -> None:
    command = f"[sleep, '{machine.mark}']"
    spec = machine.spec(f"sessions: {{s: {{windows: [{{panes: [{{command: {command}}}]}}]}}}}\n")
    machine.once(spec)
    pid = machine.only(f"sleep {machine.mark}")
    assert "RECONCILE_PANE" in environment(pid)
    assert "RECONCILE_PANE" not in machine.tmux("show-environment", "-t", "=s:")
    machine.tmux("split-window", "-t", "=s:", "exec sleep 60662")
    until(lambda: "sleep 60662" in machine.ours().values())  # And no shell any more.
    his = machine.only("sleep 60662")
    assert "RECONCILE_PANE" not in environment(his)
    # Ours is ended with all that has come of it; his is not of that.
    spec.write_text(spec.read_text().replace("{s: {", "{s: {state: absent, "))
    machine.once(spec)
    until(lambda: not machine.running(f"sleep {machine.mark}"))
    assert machine.running("sleep 60662") == [his]


def test_a_session_that_tmux_refuses_keeps_no_other_out(machine: Machine) -> None:
    sleep = f"{{command: [sleep, '{machine.mark}']}}"
    many = f"{{name: w, layout: even-vertical, panes: [{', '.join([sleep] * 40)}]}}"
    spec = machine.spec(
        f"sessions:\n  a: {{windows: [{{name: w, panes: [{sleep}]}}]}}\n"
        f"  odd: {{windows: [{many}]}}\n  z: {{windows: [{{name: w, panes: [{sleep}]}}]}}\n"
    )
    report = machine.once(spec, status=1)
    results = {step["id"]: step["result"] for step in report["steps"]}
    assert results == {"session:a": "done", "session:odd": "failed", "session:z": "done"}
    (failed,) = (step for step in report["steps"] if step["result"] == "failed")
    assert "no space for" in failed["error"]
    assert {"a", "z"} <= set(machine.tmux("list-sessions", "-F", "#S").split())
    assert machine.steps(spec) == ["session:odd"]


def test_one_of_many_is_found_in_few_tries_and_a_refusal_of_all_has_an_end() -> None:
    tries: list[int] = []

    def refuse(wrong: set[int]) -> dict[int, HostError]:
        def act(some: Sequence[int]) -> None:
            tries.append(len(some))
            if wrong.intersection(some):
                raise HostError("no")

        tries.clear()
        return in_halves(range(1000), act)

    assert refuse({77}).keys() == {77} and len(tries) <= 22
    assert refuse({1, 500, 998}).keys() == {1, 500, 998}
    assert len(refuse(set(range(1000)))) == 1000 and len(tries) <= 120
