"""What a process has started ends with it, wherever it went, and nothing else does."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from looping import Looping
from support import LONG, Machine, compiled, until, within

from reconciler.base.errors import HostError
from reconciler.host import Host, descendants
from reconciler.host.clock import Clock
from reconciler.host.descendants import Descendants, Started, end_all, ending
from reconciler.host.process_snapshot import Carrier, ProcessSnapshot, carrier
from reconciler.host.processes import Identity, ProcessEntry, Processes, look_up, session_tag
from reconciler.host.tmux import SESSION
from reconciler.kinds.process import KIND, observed
from reconciler.kinds.process.actions import StopLeft
from reconciler.kinds.process.match import RunningProcesses

PLACES = ["daemon", "session"]
TAGGED = pytest.mark.skipif(not session_tag(), reason="this kernel has no autogroups")
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: other users")


def end(found: Descendants) -> None:
    """End them by TERM, and KILL after a tenth of a second."""
    processes = Processes(Clock())
    for _, error in end_all(processes, [ending(processes, found, None, "TERM", 0.1)]):
        if error is not None:
            raise error


class World:
    """Processes that write down who they are, and a spec with one that starts others."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.base = machine.base
        self.child = self.base / "child"
        # The last word is seen in a command line, and is a name of its own in this folder.
        self.child.write_text(
            f"#!/bin/sh\ntrap 'echo $1 >> {self.base}/ended; exit' TERM\n"
            f"echo $$ > {self.base}/$1.new; mv {self.base}/$1.new {self.base}/$1.pid\n"
            "while :; do sleep 0.05; done\n"
        )
        self.child.chmod(0o755)

    def spec(self, script: str, fields: str = "", place: str = "daemon", more: str = "") -> Path:
        """``CHILD name`` in the script starts one that waits, and is known as that."""
        path = self.base / "leader"
        path.write_text(f"#!/bin/sh\n{script}\n".replace("CHILD", str(self.child)))
        path.chmod(0o755)
        where = ", session: s" if place == "session" else ""
        sessions = "sessions: {s: {}}\n" if place == "session" else ""
        stop = "" if "stop:" in fields else ", stop: {timeout: 3s}"
        return self.machine.spec(
            f"{sessions}processes:\n  lead: {{command: [{path}]{where}{fields}{stop}}}\n{more}"
        )

    def begun(self, name: str) -> Identity:
        """That child, once it runs."""
        path = self.base / f"{name}.pid"
        # Made a moment before its number is in it.
        number = until(lambda: path.exists() and path.read_text())
        entry = until(lambda: look_up(int(number)))
        identity: Identity = entry.identity
        return identity

    def lost(self, name: str) -> Identity:
        """The same of one that is to be started anew: what is known of it until now is no more."""
        found = self.begun(name)
        (self.base / f"{name}.pid").unlink()
        return found

    def ended(self) -> list[str]:
        """Who was asked to end."""
        path = self.base / "ended"
        return path.read_text().split() if path.exists() else []


def session(pid: int) -> int:
    """That of a process; 0 of one that has ended meanwhile."""
    with contextlib.suppress(ProcessLookupError):
        return os.getsid(pid)
    return 0


def alive(one: Identity) -> bool:
    entry = look_up(one.pid)
    return entry is not None and entry.identity == one


@pytest.fixture
def world(machine: Machine) -> Iterator[World]:
    made = World(machine)
    yield made
    for path in made.base.glob("*.pid"):  # One without an environment is not found otherwise.
        # What the test has killed may be gone at any moment.
        with contextlib.suppress(OSError):
            pid = int(path.read_text())
            if str(made.base).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("how", "place"),
    [
        ("CHILD c &", "daemon"),  # In a pane the end of its terminal ends it.
        ("setsid CHILD c &", "daemon"),
        ("setsid CHILD c &", "session"),
        ("(setsid sh -c 'CHILD c &') &", "daemon"),
    ],
)
def test_an_orphan_is_ended_before_a_new_start(world: World, how: str, place: str) -> None:
    spec = world.spec(f"{how}\nCHILD lead", place=place)
    world.machine.once(spec)
    first, leader = world.lost("c"), world.lost("lead")
    # The leader is the shell, whose group has all that has no session of its own.
    shell = look_up(leader.pid)
    assert shell is not None
    first_of_all = look_up(shell.parent)
    assert first_of_all is not None
    os.kill(shell.parent, signal.SIGKILL)
    os.kill(leader.pid, signal.SIGKILL)
    until(lambda: not alive(leader) and not alive(first_of_all.identity))
    (step,) = world.machine.plan(spec)["steps"]
    assert re.fullmatch(
        r"stop what an earlier start has left: pid [\d, ]+ \(.*\)", step["actions"][0]
    )
    world.machine.once(spec)
    assert not alive(first)
    assert "c" in world.ended()
    assert alive(world.begun("c"))
    world.machine.converged(spec)


@pytest.mark.parametrize("place", PLACES)
def test_all_of_it_ends_at_a_stop_and_at_a_restart(world: World, place: str) -> None:
    script = "setsid CHILD far &\nCHILD near &\nexec CHILD lead"
    world.machine.once(world.spec(script, place=place))
    before = [world.lost(name) for name in ("lead", "near", "far")]
    spec = world.spec(script, ", env: {A: b}", place)
    world.machine.once(spec)
    assert not any(map(alive, before))
    assert world.ended()[0] == "lead"
    # In a pane the end of its terminal ends what is near.
    assert {"far", "near"} - {"near" if place == "session" else ""} <= {*world.ended()[1:]}
    now = [world.begun(name) for name in ("lead", "near", "far")]
    spec = world.spec(script, ", state: absent", place)
    world.machine.once(spec)
    assert not any(map(alive, now))
    world.machine.converged(spec)


def test_a_child_that_calls_itself_a_command_of_the_executor_ends_as_well(world: World) -> None:
    world.machine.once(world.spec("AI_COMMAND_ID=x setsid CHILD c &\nexec CHILD lead"))
    child = world.begun("c")
    world.machine.once(world.spec("", ", state: absent"))
    assert not alive(child)


def test_absent_sees_what_was_left_and_the_plan_says_so(world: World) -> None:
    world.machine.once(world.spec("setsid CHILD c &\nexec CHILD lead"))
    child, leader = world.begun("c"), world.begun("lead")
    os.kill(leader.pid, signal.SIGKILL)
    until(lambda: not alive(leader))
    spec = world.spec("", ", state: absent")
    (step,) = world.machine.plan(spec)["steps"]
    assert step["verb"] == "stop"
    assert f"pid {child.pid}" in step["actions"][0]
    world.machine.once(spec)
    assert not alive(child)
    world.machine.converged(spec)


def test_one_whose_children_must_outlive_it_leaves_them(world: World) -> None:
    keep = ", kill_tree: false"
    spec = world.spec("setsid CHILD far &\nCHILD near &\nexec CHILD lead", keep)
    world.machine.once(spec)
    far, near, leader = world.lost("far"), world.lost("near"), world.lost("lead")
    os.kill(leader.pid, signal.SIGKILL)
    until(lambda: not alive(leader))
    world.machine.once(spec)
    assert alive(far) and alive(near)
    again = [world.begun(name) for name in ("far", "near", "lead")]
    world.machine.once(world.spec("", f"{keep}, state: absent"))
    # Its group, as ever; what has left that stays.
    assert [alive(one) for one in again] == [True, False, False]
    for one in (far, near, again[0]):
        os.kill(one.pid, signal.SIGKILL)


def test_what_another_instance_has_started_goes_on(world: World) -> None:
    script = f"n=0; until mkdir {world.base}/started$n; do n=$((n+1)); done\n"
    script += "setsid CHILD c$n &\nexec CHILD lead$n"
    spec = world.spec(script, ", instances: 2")
    world.machine.once(spec)
    leaders = [world.begun(name) for name in ("lead0", "lead1")]
    children = [world.begun(name) for name in ("c0", "c1")]
    os.kill(leaders[0].pid, signal.SIGKILL)
    until(lambda: not alive(leaders[0]))
    world.machine.once(spec)
    assert [alive(one) for one in children] == [False, True]
    assert alive(leaders[1]) and alive(world.begun("lead2"))


@TAGGED
def test_one_without_the_mark_is_known_by_the_session_of_the_dead(world: World) -> None:
    # As of a server whose workers have overwritten their environment, setproctitle(3).
    spec = world.spec("env -i CHILD c &\nexec CHILD lead")
    world.machine.once(spec)
    child, leader = world.lost("c"), world.lost("lead")
    assert b"RECONCILE" not in Path(f"/proc/{child.pid}/environ").read_bytes()
    os.kill(leader.pid, signal.SIGKILL)
    until(lambda: not alive(leader))
    world.machine.once(spec)
    assert not alive(child)


@TAGGED
def test_the_number_of_a_session_alone_proves_nothing(world: World) -> None:
    """Another session that was given the number of ours when that was gone."""
    other = subprocess.Popen([world.child, "c"], env={}, start_new_session=True)
    child = world.begun("c")
    mark = f"{world.machine.state}/demo/process:lead"
    dead = Identity(1, child.pid)
    tag = session_tag(child.pid)
    found = Started(mark, (os.geteuid(),), "lead", ((dead, f"{tag}0"),))
    assert Descendants(found).look(ProcessSnapshot()) == []
    found = Started(mark, (os.geteuid(),), "lead", ((dead, tag),))
    assert child in Descendants(found).look(ProcessSnapshot())
    other.kill()
    other.wait()


@pytest.mark.root
@ROOT
def test_one_that_has_become_another_user_ends_with_its_session(world: World) -> None:
    drop = "setpriv --reuid 65534 --clear-groups"
    script = f"{drop} sleep 300 & echo $! > {world.base}/other.pid\nexec CHILD lead"
    spec = world.spec(script)
    world.machine.once(spec)
    leader, pid = world.begun("lead"), int((world.base / "other.pid").read_text())
    until(lambda: os.stat(f"/proc/{pid}").st_uid == 65534)
    os.kill(leader.pid, signal.SIGKILL)
    until(lambda: not alive(leader))
    world.machine.once(world.spec("", ", state: absent"))
    assert look_up(pid) is None


@pytest.mark.root
@ROOT
def test_the_mark_of_another_user_is_not_believed(world: World) -> None:
    world.machine.once(world.spec("exec CHILD lead"))
    environ = {
        "RECONCILE_PROCESS": f"{world.machine.state}/demo/process:lead",
        "RECONCILE_PID": "7",
    }
    theirs = subprocess.Popen(["sleep", "300"], env=environ, user=65534, start_new_session=True)
    ours = subprocess.Popen(["sleep", "300"], env=environ, start_new_session=True)
    try:
        # Its number may have been somebody else's when it was listed.
        assert until(lambda: carrier(theirs.pid, 65534))
        assert carrier(theirs.pid, os.geteuid()) is None
        world.machine.once(world.spec("", ", state: absent"))
        assert ours.wait(LONG) == -signal.SIGTERM
        assert theirs.poll() is None
    finally:
        theirs.kill()
        theirs.wait()
        ours.kill()


@pytest.mark.root
@ROOT
def test_a_user_who_is_let_into_a_session_of_roots_does_not_have_it_ended(world: World) -> None:
    """As by a script of root's that runs something as that user, with the mark of his daemon."""
    marked = (
        f"RECONCILE_PROCESS={world.machine.state}/demo/process:lead RECONCILE_PID=$$ "
        "setpriv --reuid 65534 --regid 65534 --clear-groups"
    )
    script = f"{marked} sleep 300 & sleep 300 & echo $! >{world.base}/beside.pid; exec sleep 300"
    job = subprocess.Popen(["sh", "-c", script], start_new_session=True)
    beside = world.begun("beside")
    his = until(lambda: [p for p in ProcessSnapshot().of_user(65534) if session(p) == job.pid])
    try:
        started = Started(f"{world.machine.state}/demo/process:lead", (65534,), "lead")
        until(lambda: [one.pid for one in Descendants(started).look(ProcessSnapshot())] == his)
        assert job.poll() is None and alive(beside)
    finally:
        os.killpg(job.pid, signal.SIGKILL)
        job.wait()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("says", ["", "export RECONCILE_PID=$$;"])
def test_what_root_runs_in_the_group_of_a_user_is_not_ended(world: World, says: str) -> None:
    """As in ``setpriv --reuid USER command | tee log``: he leads the group, and marks himself."""
    mark = f"{world.machine.state}/demo/process:lead"
    environ = {**os.environ, "RECONCILE_PROCESS": mark}
    argv = ["sh", "-c", f"{says} exec sleep 300"]
    his = subprocess.Popen(argv, env=environ, user=65534, process_group=0)
    roots = subprocess.Popen(["sleep", "300"], process_group=his.pid)
    try:
        until(lambda: Path(f"/proc/{his.pid}/comm").read_text() == "sleep\n")
        found = Descendants(Started(mark, (65534,), "lead"))
        # It is called so a moment before it has an environment again.
        assert [one.pid for one in until(lambda: found.look(ProcessSnapshot()))] == [his.pid]
    finally:
        for one in (his, roots):
            one.kill()
            one.wait()


def test_a_mark_proves_nothing_of_a_session_that_its_process_is_not_in(world: World) -> None:
    """As of one in a session of its own, while its number was given to somebody else."""
    beside = subprocess.Popen(["sleep", "300"], start_new_session=True)
    mark = f"{world.machine.state}/demo/process:lead"
    environ = {"RECONCILE_PROCESS": mark, "RECONCILE_PID": str(beside.pid)}
    marked = subprocess.Popen(["sleep", "300"], env=environ, start_new_session=True)
    try:
        found = Descendants(Started(mark, (os.geteuid(),), "lead"))
        assert [one.pid for one in until(lambda: found.look(ProcessSnapshot()))] == [marked.pid]
    finally:
        for one in (beside, marked):
            one.kill()
            one.wait()


def test_a_mark_with_an_endless_number_is_one_without(world: World) -> None:
    path = world.machine.once(world.spec("exec CHILD lead")) and world.spec("", ", state: absent")
    environ = {"RECONCILE_PROCESS": f"{world.machine.state}/demo/process:lead"}
    odd = subprocess.Popen(["sleep", "300"], env={**environ, "RECONCILE_PID": "9" * 5000})
    try:
        assert world.machine.once(path)["unknown"] == []
        assert odd.wait(LONG) == -signal.SIGTERM
    finally:
        odd.kill()


def test_a_child_that_another_resource_declares_is_not_ended(world: World) -> None:
    match = f"match: {{cmdline: '{world.child} c$'}}"
    more = f"  c: {{command: [{world.child}, c], {match}}}\n"
    script = "setsid sh -c 'CHILD c & CHILD below & wait' &\nCHILD own &\nexec CHILD lead"
    spec = world.spec(script, more=more.replace("c: {", "c: {after: ['process:lead'], "))
    world.machine.once(spec, "--only", "process:lead")
    names = ("c", "below", "own", "lead")
    child, below, own, leader = (world.begun(name) for name in names)
    world.machine.converged(spec)
    os.kill(leader.pid, signal.SIGKILL)
    until(lambda: not alive(leader))
    (world.base / "lead.pid").unlink()
    assert f"pid {child.pid}" not in str(world.machine.plan(spec)["steps"][0]["actions"])
    world.machine.once(spec)
    assert alive(child)
    assert not alive(own) and not alive(below)
    world.machine.converged(spec)
    world.begun("lead")
    world.machine.once(world.spec(script, ", state: absent", more=more))
    assert alive(child)
    world.machine.once(
        world.spec("", ", state: absent", more=more.replace("{command", "{state: absent, command"))
    )
    assert not alive(child)


@pytest.mark.parametrize(
    "trouble", ["open", "folder", "unknown user", pytest.param("another user", marks=ROOT)]
)
def test_what_another_resource_may_name_holds_up_no_stop(world: World, trouble: str) -> None:
    """It is spared where it stands for itself, which is not known; what never left is not."""
    script = "setsid CHILD c &\nCHILD own &\nexec CHILD lead"
    pidfile = world.base / "c.number"
    users = {"unknown user": ", user: nobody-here", "another user": ", user: nobody"}
    user = users.get(trouble, "")
    more = f"  c: {{command: [{world.child}, c], match: {{pidfile: {pidfile}{user}}}}}\n"
    world.machine.once(world.spec(script))
    child, own, leader = (world.begun(name) for name in ("c", "own", "lead"))
    if trouble == "folder":
        pidfile.mkdir()
    else:
        pidfile.write_text(str(child.pid))
        pidfile.chmod(0o666)
    done = world.machine.reconcile("--once", world.spec(script, ", state: absent", more=more))
    assert "done stop process:lead" in done.stdout, done.stdout + done.stderr
    assert not alive(leader) and not alive(own)
    assert alive(child) == (trouble in ("open", "unknown user"))


def test_a_tmux_server_that_it_has_started_stays_with_what_others_have_there(world: World) -> None:
    script = "tmux -L x new-session -d -s other 'exec CHILD own'\nexec CHILD lead"
    windows = f"[{{panes: [{{command: [{world.child}, pane]}}]}}]"
    sessions = f"sessions: {{s: {{socket: x, windows: {windows}}}}}"
    more = (
        f"  in: {{command: [{world.child}, in], session: s, after: ['process:lead']}}\n{sessions}\n"
    )
    spec = world.spec(script, more=more)
    world.machine.once(spec, "--only", "process:lead")
    own, leader = world.begun("own"), world.begun("lead")
    world.machine.once(spec)
    inside, pane = world.begun("in"), world.begun("pane")
    server = look_up(own.pid)
    assert server is not None
    assert [now.parent for one in (inside, pane) if (now := look_up(one.pid))] == [
        server.parent
    ] * 2
    world.machine.once(world.spec(script, ", state: absent", more=more))
    assert not alive(leader) and not alive(own)
    assert alive(inside) and alive(pane)
    world.machine.converged(world.spec(script, ", state: absent", more=more))


def test_what_a_tmux_server_that_stays_does_for_itself_is_not_left_behind(world: World) -> None:
    """As utempter(8) for a pane that has ended, or what it has forked and is no program yet."""
    server = world.base / "tmux: server"
    server.write_text(
        f"#!/bin/sh\n{SESSION}=s TMUX=t TMUX_PANE=%0 {world.child} pane &\n"
        f"TMUX=t TMUX_PANE=%1 {world.child} own &\n{world.child} itself &\nwait\n"
    )
    server.chmod(0o755)
    script = f"setsid '{server}' &\nexec CHILD lead"
    world.machine.once(world.spec(script))
    pane, own, itself, leader = (world.begun(name) for name in ("pane", "own", "itself", "lead"))
    gone = world.spec(script, ", state: absent")
    world.machine.once(gone)
    assert not alive(leader) and not alive(own)
    assert alive(pane) and alive(itself)
    world.machine.converged(gone)


@pytest.mark.root
@ROOT
def test_one_that_has_run_as_another_user_ends_with_all_that_is_his(world: World) -> None:
    world.base.chmod(0o755)
    for parent in world.base.parents[:3]:
        parent.chmod(parent.stat().st_mode | 0o011)
    script = f"setsid sleep 300 & echo $! > {world.base}/far.pid\nexec sleep 300"
    (world.base / "far.pid").touch()
    (world.base / "far.pid").chmod(0o666)
    world.machine.once(world.spec(script, ", user: nobody"))
    pid = int(until(lambda: (world.base / "far.pid").read_text()))
    world.machine.once(world.spec("exec CHILD lead"))
    assert look_up(pid) is None


@pytest.mark.parametrize("script", ["CHILD c & wait", "setsid CHILD c & sleep 300"])
def test_a_wrapper_and_its_child_that_matches_are_one(world: World, script: str) -> None:
    fields = f", stop_extra: true, match: {{cmdline: '{world.child} c$'}}"
    spec = world.spec(script, fields)
    world.machine.once(spec)
    child = world.begun("c")
    world.machine.converged(spec)
    for record in (world.machine.state / "demo/run").iterdir():
        record.unlink()
    world.machine.converged(spec)
    # The wrapper ends, and what it was for goes on: nothing is to be done.
    entry = look_up(child.pid)
    assert entry is not None
    os.kill(entry.parent, signal.SIGKILL)
    until(lambda: (now := look_up(child.pid)) and now.parent != entry.parent)
    assert "process:lead" not in world.machine.steps(spec)
    world.machine.once(world.spec(script, f"{fields}, state: absent"))
    assert not alive(child)


def test_a_pass_that_is_killed_within_a_stop_is_gone_on_with(world: World) -> None:
    script = "setsid sh -c 'trap \"\" TERM; CHILD c' &\nexec CHILD lead"
    slow = ", stop: {timeout: 1h}"
    world.machine.once(world.spec(script, slow))
    child, leader = world.begun("c"), world.begun("lead")
    spec = world.spec(script, f"{slow}, state: absent")
    argv = [str(word) for word in world.machine.argv("--once", spec)]
    stopping = subprocess.Popen(argv, env=world.machine.environ, stdout=subprocess.DEVNULL)
    until(lambda: not alive(leader))
    assert alive(child)
    assert stopping.poll() is None
    stopping.kill()
    stopping.wait()
    spec = world.spec(script, ", stop: {timeout: 100ms}, state: absent")
    (step,) = world.machine.once(spec)["steps"]
    assert "an earlier start has left" in step["actions"][0]
    assert not alive(child)
    world.machine.converged(spec)


def test_a_late_end_of_what_was_left_spares_what_has_started_since(world: World) -> None:
    """As of a child of a loop that was killed, while another one has started it anew."""
    text = "setsid CHILD c &\nexec CHILD lead"
    world.machine.once(world.spec(text))
    leader = world.lost("lead")
    os.kill(leader.pid, signal.SIGKILL)
    until(lambda: not alive(leader))
    (resource,) = compiled(world.base, world.spec(text).read_text()).resources
    host = Host("demo", str(world.machine.state / "demo"))
    seen = KIND.observe((resource,), host)[0]
    late, _ = KIND.actions(resource, seen.state, ())
    assert isinstance(late, StopLeft)
    stop = late.stop(host)
    world.machine.once(world.spec(text))
    child = world.begun("c")
    stop.make(host.processes)
    assert alive(world.begun("lead"))
    assert alive(child)


def test_a_loop_ends_what_was_left_and_starts_it_anew(
    world: World, looping: Callable[..., Looping]
) -> None:
    spec = world.spec("setsid CHILD c &\nexec CHILD lead")
    loop = looping(spec).up()
    child, leader = world.lost("c"), world.lost("lead")
    # Until it has come up, one with a child in a session of its own may be a daemon.
    loop.held("process:lead")
    loop.full_pass()
    os.kill(leader.pid, signal.SIGKILL)
    world.begun("lead")
    assert not alive(child)
    assert "c" in world.ended()


def test_what_forks_faster_than_it_is_ended_is_given_up(
    free: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descendants, "_KILLING", 0.3)
    started: list[subprocess.Popen[bytes]] = []

    class Forking(Descendants):
        """Each look finds another one, as of a chain of forks."""

        def look(self, table: ProcessSnapshot) -> list[Identity]:
            started.append(subprocess.Popen(["sleep", "300"]))
            entry = look_up(started[-1].pid)
            assert entry is not None
            return [entry.identity]

    try:
        with pytest.raises(Exception, match="faster than they can be ended"):
            end(Forking(None))
        assert len(started) > 2
    finally:
        for one in started:
            one.kill()
            one.wait()


@pytest.mark.root
@ROOT
def test_one_that_may_not_be_ended_is_named_and_holds_up_no_other(free: None) -> None:
    class Both(Descendants):
        """One of root's, before one of ours."""

        def look(self, table: ProcessSnapshot) -> list[Identity]:
            return [one for one in (theirs, ours) if alive(one)]

    with (
        subprocess.Popen(["sleep", "300"]) as root,
        subprocess.Popen(["sleep", "300"], user=65534) as nobody,
    ):
        try:
            entries = [until(lambda pid=one.pid: look_up(pid)) for one in (root, nobody)]
            theirs, ours = (entry.identity for entry in entries)
            until(lambda: os.stat(f"/proc/{nobody.pid}").st_uid == 65534)
            with within(3.0):
                child = os.fork()
                if child == 0:
                    status = 1
                    try:
                        os.setresuid(65534, 65534, 65534)
                        end(Both(None))
                    except HostError as error:
                        named = str(error).startswith("may not send SIGTERM to process")
                        status = 0 if named else 2
                    finally:
                        os._exit(status)
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            assert nobody.wait(LONG) == -signal.SIGTERM
            assert root.poll() is None
        finally:
            root.kill()
            nobody.kill()


def test_what_the_executor_runs_does_not_end_with_its_worker(world: World) -> None:
    mark = f"{world.machine.state}/demo/process:lead"
    environ = {"RECONCILE_PROCESS": mark, "RECONCILE_PID": "7", "AI_COMMAND_ID": "x"}
    command = subprocess.Popen(["sleep", "300"], env=environ, start_new_session=True)
    other = {name: value for name, value in environ.items() if name != "AI_COMMAND_ID"}
    plain = subprocess.Popen(["sleep", "300"], env=other, start_new_session=True)
    for path in (Path(f"/proc/{one.pid}/environ") for one in (command, plain)):
        until(lambda path=path: mark.encode() in path.read_bytes())

    def found(executor: bool) -> set[int]:
        started = Started(mark, (os.geteuid(),), "lead", executor=executor)
        return {one.pid for one in Descendants(started).look(ProcessSnapshot())}

    assert found(True) == {plain.pid}
    assert found(False) == {plain.pid, command.pid}  # Anybody can name himself so.
    for one in (command, plain):
        one.kill()
        one.wait()


def test_a_quiet_pass_reads_no_environment(world: World) -> None:
    spec = world.spec("CHILD c &\nexec CHILD lead")
    world.machine.once(spec)
    world.begun("c")
    trace = world.machine.traced("openat,execve", *world.machine.argv("--once", spec))
    assert '/environ"' not in trace
    many = "".join(f"  a{n}: {{state: absent, command: [x]}}\n" for n in range(20))
    spec = world.spec("CHILD c &\nexec CHILD lead", more=many)
    trace = world.machine.traced("openat,execve", *world.machine.argv("--once", spec))
    reads = re.findall(r"/proc/(\d+)/environ", trace)
    assert max(map(reads.count, set(reads))) <= 4  # However many ask.


def test_a_command_of_the_executor_outlives_a_restart_of_its_worker(
    machine: Machine, executor: Path
) -> None:
    home = ("--set", f"home={machine.base}/co")
    machine.once(executor, *home)
    pending = machine.base / "co/ai_commands/pending"
    command = f"env > {machine.base}/env; setsid sleep 300 & echo $! > {machine.base}/far.pid"
    (pending / "x.new").write_text(json.dumps({"id": "x", "command": command}))
    (pending / "x.new").rename(pending / "x.json")
    until((machine.base / "co/ai_commands/completed/x.json").exists)
    assert "RECONCILE_PROCESS" not in (machine.base / "env").read_text()
    assert "AI_COMMAND_ID=x" in (machine.base / "env").read_text()
    text = executor.read_text()
    executor.write_text(text.replace("    env:\n", "    env:\n      CHANGED: yes-it-is\n"))
    (step,) = machine.once(executor, *home)["steps"]
    assert (step["id"], step["verb"]) == ("process:worker", "restart")
    pid = int((machine.base / "far.pid").read_text())
    assert look_up(pid) is not None
    os.kill(pid, signal.SIGKILL)


def test_what_an_ordinary_user_could_not_end_is_not_left_behind_for_him(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the session of his process is one of root's, as behind sudo."""
    his, roots = 2**30 + 1, 2**30 + 2
    entries = {pid: ProcessEntry(Identity(7, pid), "S", 1, his, his) for pid in (his, roots)}
    table = ProcessSnapshot()
    monkeypatch.setattr(ProcessSnapshot, "entries", entries)
    monkeypatch.setattr(ProcessSnapshot, "_users", {65534: [his], 0: [roots]})
    table._carriers[65534] = {his: Carrier(Identity(7, his), "demo/process:p", his, "v")}
    monkeypatch.setattr(descendants.os, "geteuid", lambda: 65534)
    started = Started("demo/process:p", (65534,), "p")
    assert [one.pid for one in Descendants(started).look(table)] == [his]
    monkeypatch.setattr(ProcessSnapshot, "_users", {65534: [his, roots]})
    assert [one.pid for one in Descendants(started).look(table)] == [his, roots]


def test_what_is_being_stopped_is_not_looked_for_as_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    monkeypatch.setattr(observed, "running", lambda *asked: RunningProcesses((), ()))
    monkeypatch.setattr(observed, "left", lambda *asked: (looked.append("left") or [], ()))
    spec = compiled(tmp_path, "processes: {p: {command: [/bin/x]}}")
    host = Host("demo", str(tmp_path / "state"))
    going = [Identity(1, 2**30)]
    host.stops = SimpleNamespace(of=lambda ident: going)  # type: ignore[assignment]
    (seen,) = KIND.observe(spec.resources, host)
    assert (looked, seen.note) == ([], f"pid {2**30} is being stopped")
    going.clear()
    KIND.observe(spec.resources, host)
    assert looked == ["left"]
