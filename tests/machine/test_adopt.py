"""--adopt: a spec of what is there, whose plan is empty, and which is then taken."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from machine.disposable import DisposableHost
from machine.test_cron import Cron, cron
from ruamel.yaml import YAML
from support import Machine, free_port, is_tmux, late, until

from reconciler.cli.main import main

__all__ = ["cron"]


def adopted(machine: Machine, *words: str | Path) -> tuple[Path, dict[str, Any]]:
    """The printed spec, whose plan is empty, and which is taken."""
    done = machine.reconcile("--adopt", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    spec = machine.base / "adopted.yaml"
    spec.write_text(done.stdout)
    machine.converged(spec)
    report = machine.once(spec)
    assert report["steps"] == []
    machine.converged(spec)
    document: dict[str, Any] = YAML(typ="safe").load(done.stdout)
    return spec, document


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def server(machine: Machine) -> Iterator[subprocess.Popen[bytes]]:
    """A program as people start them: with a log, a variable, a secret, and a port."""
    port = free_port()
    log = machine.base / "out.log"
    code = "import socket,sys,time;s=socket.create_server(('127.0.0.1',int(sys.argv[1])));"
    script = machine.base / "my server.py"
    script.write_text(code + "time.sleep(60661)")
    environ = {**machine.environ, "GREETING": "it's {{ me }}", "API_TOKEN": "sesame-4711"}
    with log.open("ab") as file:
        made = subprocess.Popen(
            ["/usr/bin/env", "python3", script, str(port)], stdout=file, stderr=file, env=environ,
            cwd=machine.base, start_new_session=True, umask=0o027,
        )  # fmt: skip
    until(lambda: answers(port))
    yield made
    for pid in machine.running("my server.py"):
        os.kill(pid, signal.SIGKILL)
    made.wait()


def test_a_process_is_taken_as_it_is_and_started_anew_when_it_ends(
    machine: Machine, server: subprocess.Popen[bytes]
) -> None:
    spec, document = adopted(machine, f"process:{server.pid}")
    ((name, process),) = document["processes"].items()
    assert name == "my-server"
    assert process["cwd"] == str(machine.base)
    assert process["log"] == str(machine.base / "out.log")
    assert (process["umask"], "stderr" in process) == ("0027", False)
    assert "sesame" not in spec.read_text()
    assert "# env: API_TOKEN looks like a secret" in spec.read_text()
    ((_, check),) = document["checks"].items()
    assert check["tcp"].endswith(process["command"][-1])
    assert machine.running("my server.py") == [server.pid]
    server.kill()
    server.wait()
    machine.once(spec)
    pid = machine.only("my server.py")
    assert b"GREETING=it's {{ me }}" in Path(f"/proc/{pid}/environ").read_bytes()
    machine.converged(spec)
    # What is ours already is not adopted once more.
    done = machine.reconcile("--adopt", f"process:{pid}")
    assert (done.returncode, done.stdout) == (1, "") and "already" in done.stderr


def test_processes_are_found_by_their_command_lines(machine: Machine) -> None:
    # All processes of this machine are looked at, and other tests have theirs.
    two, three = f"2{machine.mark}", f"3{machine.mark}"
    made = [subprocess.Popen(["sleep", one], env=machine.environ) for one in (two, two, three)]
    pids = sorted(one.pid for one in made)
    try:
        # The call comes back while they still execute, when they have no command line.
        until(lambda: machine.running(machine.mark) == pids)
        _, document = adopted(machine, f"process:^sleep [23]{re.escape(machine.mark)}$")
        found = {tuple(x["command"]): x.get("instances") for x in document["processes"].values()}
        assert found == {("sleep", two): 2, ("sleep", three): None}
        assert machine.running(machine.mark) == pids
    finally:
        for one in made:
            one.kill()
            one.wait()


def test_a_secret_is_not_printed(machine: Machine) -> None:
    words = ["sh", "-c", "sleep 60671; : --password=sesame-4712"]
    made = subprocess.Popen(words, env=machine.environ, start_new_session=True)
    try:
        until(lambda: made.pid in machine.running("sesame-4712"))
        done = machine.reconcile("--adopt", f"process:{made.pid}", f"directory:{machine.base}")
        assert done.returncode == 0 and "sesame" not in done.stdout + done.stderr
        assert f"# left out: process {made.pid}: its command line holds" in done.stdout
        assert "processes:" not in done.stdout and "directories:" in done.stdout
        done = machine.reconcile("--adopt", f"process:{made.pid}")
        assert (done.returncode, done.stdout) == (1, "") and "nothing is left" in done.stderr
    finally:
        os.killpg(made.pid, signal.SIGKILL)
        made.wait()


def test_a_session_is_taken_with_its_windows_and_panes(machine: Machine) -> None:
    base = str(machine.base)
    machine.tmux("new-session", "-d", "-s", "work", "-n", "edit", "-c", base, "exec sleep 60664")
    machine.tmux("split-window", "-t", "=work:", "-h", "-c", "/", "exec sleep 60665")
    machine.tmux("new-window", "-t", "=work:", "-n", "edit", "-c", base)
    # Not the shells that have forked for them.
    until(lambda: [len(machine.running(f"sleep 6066{n}")) for n in (4, 5)] == [1, 1])
    until(lambda: all("exec" not in line or is_tmux(line) for line in machine.ours().values()))
    # What the second window runs is a fork of the server until it is a shell.
    until(lambda: sum(map(is_tmux, machine.ours().values())) == 1)
    form = "#{pane_id} #{pane_pid} #{window_name}"
    before = machine.tmux("list-panes", "-s", "-t", "=work", "-F", form)
    spec = machine.spec("sessions: {work: {adopt: true, windows: [{panes: [{}, {}]}, {}]}}")
    machine.converged(spec)
    machine.reconcile("--status", spec)
    # Who only looks marks nothing.
    assert machine.tmux("list-panes", "-a", "-F", "#{@reconcile}#{@reconcile_home}") == "\n\n\n"
    spec, document = adopted(machine, "session:work")
    (session,) = document["sessions"].values()
    assert [window["name"] for window in session["windows"]] == ["edit", "edit"]
    first, second = session["windows"]
    assert [pane.get("cwd") for pane in first["panes"]] == [None, "/"]
    assert first["panes"][1]["command"] == ["sleep", "60665"]
    assert (second["panes"], second["focus"]) == ([{}], True)
    assert machine.tmux("list-panes", "-s", "-t", "=work", "-F", form) == before
    # From now on it is known whatever people call it, and comes back.
    machine.tmux("rename-window", "-t", "=work:{end}", "other")
    machine.tmux("swap-window", "-s", "=work:{start}", "-t", "=work:{end}")
    machine.converged(spec)
    os.kill(machine.only("sleep 60665"), signal.SIGKILL)
    until(lambda: machine.steps(spec) == ["session:work"])
    machine.once(spec)
    machine.converged(spec)
    assert machine.only("sleep 60664") != machine.only("sleep 60665")
    # It was there before the spec, and is left when that goes.
    done = machine.reconcile("--uninstall", spec)
    assert "existed before" in done.stdout
    assert machine.only("sleep 60664") != machine.only("sleep 60665")
    assert machine.tmux("list-panes", "-a", "-F", "#{@reconcile}#{@reconcile_home}") == "\n\n\n"
    assert machine.reconcile("--adopt", "session:work").returncode == 0


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: another user's process")
def test_what_another_user_calls_himself_in_a_pane_is_no_command_of_ours(machine: Machine) -> None:
    machine.tmux(
        "new-session", "-d", "-s", "his", "-n", "one", "exec setpriv --reuid 65534 sleep 60669"
    )
    until(lambda: "sleep 60669" in machine.ours().values())  # Ours until then, with its words.
    done = machine.reconcile("--adopt", "session:his")
    assert "sleep" not in done.stdout
    assert "# its process is another user's" in done.stdout


def test_what_is_of_others_is_not_touched(machine: Machine) -> None:
    machine.once(machine.spec("sessions: {s: {windows: [{panes: [{command: sleep 60666}]}]}}"))
    done = machine.reconcile("--adopt", "session:s")
    assert done.returncode == 1 and "of the spec demo already" in done.stderr
    other = machine.spec("sessions: {s: {adopt: true, windows: [{}]}}", "other.yaml")
    other.write_text(other.read_text().replace("name: demo", "name: other"))
    report = machine.once(other, status=1)
    assert "not made by this spec" in report["unknown"][0]["reason"]


def test_directories_modes_and_files(machine: Machine) -> None:
    folder = machine.base / "d"
    folder.mkdir()
    folder.chmod(0o2750)
    (folder / "f").touch(0o640)
    (folder / "t").write_text("# {{ not a template }}\n\ttab: \u00e4\n\nend without a line end")
    words = f"directory:{folder}", f"permission:{folder}/f", f"file:{folder}/t"
    spec, _ = adopted(machine, *words)
    before = (folder / "t").read_text()
    (folder / "f").chmod(0o600)
    folder.chmod(0o700)
    (folder / "t").write_text("x")
    machine.once(spec)
    assert [path.stat().st_mode & 0o7777 for path in (folder, folder / "f")] == [0o2750, 0o640]
    assert (folder / "t").read_text() == before


def test_many_processes_are_read_once(machine: Machine) -> None:
    """Each further one costs a few files of /proc, however many there are."""
    for number in (3, 30):
        code = f"import os, time\nfor n in range({number}):\n"
        code += f" os.fork() or os.execvp('sleep', ['sleep', f'{{n}}{machine.mark}'])\n"
        made = subprocess.Popen([sys.executable, "-c", code], env=machine.environ)
        made.wait()
        # What is forked is a Python still, for a moment.
        until(lambda count=number: len(machine.running(machine.mark)) == count)
        words = f"process:^sleep [0-9]+{re.escape(machine.mark)}"
        trace = machine.traced("openat", *machine.argv("--adopt", words))
        # Of those of others there may be more the second time.
        reads = Counter(map(int, re.findall(r'"/proc/(\d+)/cmdline"', trace)))
        ours = {pid: reads[pid] for pid in machine.running(machine.mark)}
        assert len(ours) == number and min(ours.values()) >= 1, ours
        assert max(ours.values()) < 20, ours
        for pid in ours:
            os.kill(pid, signal.SIGKILL)
        until(lambda: not machine.running(machine.mark))


def test_five_hundred_processes_are_adopted_in_two_seconds(machine: Machine) -> None:
    """In time of the processor, each with what a login has in its environment."""
    environ = {**machine.environ, **{f"SETTING_{at}": f"/opt/value/{at}" * 4 for at in range(30)}}
    code = "import os\nfor n in range(500):\n"
    code += f" os.fork() or os.execvp('sleep', ['sleep', f'{{n}}{machine.mark}'])\n"
    subprocess.run([sys.executable, "-c", code], env=environ, check=True)
    try:
        until(lambda: len(machine.running(machine.mark)) == 500)
        before = os.times()
        done = machine.reconcile("--adopt", f"process:^sleep [0-9]+{re.escape(machine.mark)}")
        after = os.times()
        assert done.returncode == 0 and done.stdout.count("SETTING_29") == 500, done.stderr
        taken = after.children_user + after.children_system
        taken -= before.children_user + before.children_system
        print(f"{taken:.2f} s of the processor")
        # Beside others each second of it does less.
        assert not late(taken, 2)
    finally:
        for pid in machine.running(machine.mark):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("process:4194300", "there is no process 4194300"),
        ("process:2", "there is no process 2"),
        ("process:(", "no pattern"),
        ("process:no such thing as 60667", "no process has such a command line"),
        ("session:none", "there is no tmux session"),
        ("directory:/none", "is not there"),
        ("directory:none", "needs a whole path"),
        ("directory:/etc/passwd", "is no directory"),
        ("unit:none-60667", "there is no file"),
        ("cron:nobody-60667", "nobody-60667"),
        ("thing:x", "is no ID; one is process:PID"),
        ("process:", "is no ID"),
    ],
)
def test_what_is_not_there_is_said_and_nothing_is_printed(
    free: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], word: str, reason: str
) -> None:
    assert main(["--adopt", word, "--state-dir", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert said.out == "" and reason in said.err


LINES = b"""# mine
PATH=/usr/bin:/bin
30 3  * * mon-fri   /usr/local/bin/backup --all >/dev/null
@reboot /bin/true 50\\%
*/5 * * * * /bin/cat%in
"""


@pytest.mark.root
def test_a_crontab_is_taken_and_no_line_doubled(cron: Cron) -> None:
    machine = cron.machine
    cron.write(LINES)
    done = machine.reconcile("--adopt", "cron:root")
    assert done.returncode == 0, done.stderr
    assert "/bin/cat%" in done.stderr and "# left out" in done.stdout
    spec, document = adopted(machine, "cron:root")
    assert sorted(document["cron"]) == ["backup", "true"]
    assert cron.raw() == LINES
    # From then on it is the spec that counts: another time moves the line, and doubles nothing.
    spec.write_text(spec.read_text().replace("30 3 * * mon-fri", "30 4 * * mon-fri"))
    (step,) = machine.once(spec)["steps"]
    assert step["id"] == "cron:backup"
    machine.converged(spec)
    text = cron.raw() or b""
    assert text.count(b"backup --all") == 1 and b"\n30 4 * * mon-fri /usr/local/bin/backup" in text
    assert text.count(b"/bin/true 50\\%") == 1
    # Put there again by hand, it is taken out.
    cron.write(text + b"30 3  * * mon-fri   /usr/local/bin/backup --all >/dev/null\n")
    machine.once(spec)
    machine.converged(spec)
    assert (cron.raw() or b"").count(b"backup --all") == 1
    # What has stayed a person's own stays so when the spec lets go of it.
    spec.write_text(f"version: 1\nname: {document['name']}\ncron: {{true: {{state: absent}}}}\n")
    machine.once(spec)
    assert cron.raw() == LINES.replace(
        b"30 3  * * mon-fri   /usr/local/bin/backup --all >/dev/null\n", b""
    )


UNIT = "[Service]\nExecStart=/bin/sleep 60668\n\n[Install]\nWantedBy=multi-user.target\n"


@pytest.mark.root
def test_a_unit_of_this_host_is_taken_and_not_restarted(systemd_host: DisposableHost) -> None:
    host = systemd_host
    program, spec = host.bin / "reconcile", "/etc/adopted.yaml"
    host.write("/etc/systemd/system/mine.service", UNIT)
    host.run("systemctl", "daemon-reload")
    host.run("systemctl", "enable", "--now", "mine")
    (pid,) = host.until(lambda: host.running("sleep 60668"))
    done = host.run(program, "--adopt", "unit:mine", "unit:ssh", check=False)
    assert done.returncode == 1 and "a unit of the distribution" in done.stderr
    host.write(spec, host.run(program, "--adopt", "unit:mine.service").stdout)
    assert "adopt: true" in host.read(spec) and "enabled: true" in host.read(spec)
    host.run(program, "--once", spec, "--detailed-exitcode")
    assert host.running("sleep 60668") == [pid]
    assert host.read("/etc/systemd/system/mine.service") == UNIT
    # The file is made from the spec from now on.
    host.write(spec, host.read(spec).replace("[Install]", "[Install] ").replace("60668", "60669"))
    host.run(program, "--once", spec)
    host.until(lambda: host.running("sleep 60669") and not host.running("sleep 60668"))
    assert "# reconcile: " in host.read("/etc/systemd/system/mine.service")
    host.run(program, "--plan", spec, "--detailed-exitcode")
    # Another spec does not take over what is this one's now.
    other = (
        "version: 1\nname: other-60668\nunits: {mine.service: {adopt: true, content: '[Unit]'}}\n"
    )
    host.write("/etc/other.yaml", other)
    done = host.run(program, "--plan", "/etc/other.yaml", check=False)
    assert done.returncode == 1 and "was not made by this spec" in done.stdout
