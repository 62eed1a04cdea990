"""The original program with the original file, and ours with the imported one, do the same."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from support import LONG, Machine, until

BIN = Path(sys.executable).parent
ROOT = os.geteuid() == 0


def original(name: str) -> str:
    """The program that is compared with; the test is skipped where it is not installed."""
    found = shutil.which(name, path=f"{BIN}:/usr/local/sbin:/usr/sbin:/sbin:{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def imported(machine: Machine, *files: Path, left: int = 0) -> Path:
    """The spec that is made of these files, with so many settings left out."""
    done = machine.reconcile("--import", *files)
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == left + 1, done.stderr
    path = machine.base / "imported.yaml"
    path.write_text(done.stdout)
    return path


def surroundings(pid: int, names: Iterable[str]) -> dict[str, Any]:
    """What a process was started with, as far as a file may say it."""
    proc = Path(f"/proc/{pid}")
    environ = dict(
        one.split("=", 1) for one in (proc / "environ").read_text().split("\0") if "=" in one
    )
    status = dict(line.split(":\t", 1) for line in (proc / "status").read_text().splitlines())
    return {
        "argv": (proc / "cmdline").read_text().split("\0"),
        "env": {name: environ.get(name) for name in names},
        "cwd": os.readlink(proc / "cwd"),
        "user": status["Uid"], "group": status["Gid"], "umask": status["Umask"],
    }  # fmt: skip


SUPERVISORD = """
[supervisord]
nodaemon=true
logfile={base}/supervisord.log
pidfile={base}/supervisord.pid
childlogdir={base}
environment=SHARED="all of them"
umask=027

[program:first]
command={python} -c "import time; time.sleep(999)" {mark}.1 'a b' "it's" {{{{x}}}} 100%%
directory=/usr
user={user}
environment=OWN="x,y",QUOTED='say "hi"',HERE="%(here)s",NAME="%(program_name)s"
umask=077
autorestart=true

[program:many]
command={python} -c "import time; time.sleep(999)" {mark}.2 %(process_num)02d of %(numprocs)d
process_name=%(program_name)s_%(process_num)02d
numprocs=2
numprocs_start=7
directory={base}

[program:talks]
command={python} -uc "import os, time; print('out'); os.write(2, b'err'); time.sleep(999)" {mark}.3
directory=/
stdout_logfile={base}/out.log
stderr_logfile=err.log

[program:fails]
command=sh -c 'echo x >>fails; exit 3'
directory={base}
exitcodes=0,2
startsecs=0

[program:ends]
command=sh -c 'echo x >>ends; exit 2'
directory={base}
exitcodes=0,2
startsecs=0

[program:never]
command=sleep {mark}.4
autostart=false
directory=/
"""


def test_supervisord_and_its_spec_start_the_same(machine: Machine) -> None:
    program = original("supervisord")
    python = shutil.which("python3", path="/usr/bin:/bin") or sys.executable
    user = "nobody" if ROOT else machine.run("id", "-un").stdout.strip()
    conf = machine.base / "supervisord.conf"
    conf.write_text(
        SUPERVISORD.format(base=machine.base, mark=machine.mark, python=python, user=user)
    )
    names = ("SHARED", "OWN", "QUOTED", "HERE", "NAME")

    def seen() -> dict[str, Any]:
        found = {}
        for number, many in ((1, 1), (2, 2), (3, 1)):
            mark = f"{machine.mark}.{number}"
            pids = until(lambda m=mark, n=many: len(p := machine.running(m)) == n and sorted(p))
            found[number] = sorted((surroundings(pid, names) for pid in pids), key=str)
        until(lambda: (machine.base / "out.log").exists() and (machine.base / "err.log").exists())
        for name in ("out", "err"):
            # Its last line end may come a moment later.
            found[name] = until((machine.base / f"{name}.log").read_text).rstrip()
        fails = machine.base / "fails"
        until(lambda: fails.exists() and len(fails.read_text()) > 2)
        found["ends"] = until(lambda: (file := machine.base / "ends").exists() and file.read_text())
        assert not machine.running(f"{machine.mark}.4")
        for name in ("fails", "ends", "out.log", "err.log"):
            (machine.base / name).unlink()
        return found

    def running(argv: list[str | Path]) -> dict[str, Any]:
        process = subprocess.Popen(
            [*map(str, argv)], env=machine.environ, cwd=machine.base, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            return seen()
        finally:
            process.terminate()
            process.wait(LONG)
            machine.clear()

    theirs = running([program, "-c", conf])
    assert machine.run("id", "-u", user).stdout.strip() in theirs[1][0]["user"]
    spec = imported(machine, conf, left=1)  # [supervisord] says where its own log is.
    ours = running(machine.argv("--loop", spec))
    for name, one in theirs.items():
        assert ours[name] == one


TMUXP = """
session_name: moved
start_directory: {base}
environment: {{ SHARED: "all of them" }}
options: {{ history-limit: 4321 }}
shell_command_before: export BEFORE=1
windows:
  - window_name: edit
    layout: main-vertical
    options: {{ main-pane-width: 50 }}
    panes:
      - shell_command:
          - cd sub
          - echo "$BEFORE-$SHARED" > typed
        focus: true
      - echo x > two; pwd
      - null
  - window_name: logs
    focus: true
    layout: even-horizontal
    start_directory: sub
    panes:
      - [echo a > a, echo b > b]
      - shell: sleep {mark}
  - window_name: edit
    shell_command_before: export AFTER=2
    panes:
      - echo "$BEFORE-$AFTER" > third
"""


def test_tmuxp_and_its_spec_make_the_same_session(machine: Machine) -> None:
    program = original("tmuxp")
    workspace = machine.base / "work.yaml"
    workspace.write_text(TMUXP.format(base=machine.base, mark=machine.mark))
    (machine.base / "sub").mkdir()
    typed = ("sub/typed", "two", "sub/a", "sub/b", "third")

    def seen(socket: str) -> dict[str, Any]:
        def asked(*argv: str) -> list[str]:
            return machine.tmux(*argv, socket=socket).splitlines()

        found: dict[str, Any] = {}
        for name in typed:
            file = machine.base / name
            found[name] = until(lambda f=file: f.exists() and f.read_text())
            file.unlink()
        until(lambda: machine.running(f"sleep {machine.mark}"))
        found["windows"] = asked("list-windows", "-t", "=moved", "-F",
                                 "#{window_name} #{window_active} #{window_panes}")  # fmt: skip
        layouts = asked("list-windows", "-t", "=moved", "-F", "#{window_layout}")
        # Without the checksum and the numbers of panes.
        found["layouts"] = [re.sub(r"^\w+,|,\d+(?=[,\]}]|$)", "", one) for one in layouts]
        found["panes"] = asked("list-panes", "-s", "-t", "=moved", "-F",
                               "#{pane_current_path} #{pane_dead}")  # fmt: skip
        found["active"] = asked("list-panes", "-t", "=moved:0", "-F", "#{pane_active}")
        found["options"] = asked("show-options", "-t", "=moved:", "history-limit")
        found["window"] = asked("show-options", "-w", "-t", "=moved:0", "main-pane-width")
        found["env"] = asked("show-environment", "-t", "=moved", "SHARED")
        return found

    size = {"TMUXP_DEFAULT_COLUMNS": "200", "TMUXP_DEFAULT_ROWS": "50"}  # As ours are made.
    done = machine.run(program, "load", "-d", "-L", "theirs", workspace, environ=size)
    assert done.returncode == 0, done.stdout + done.stderr
    theirs = seen("theirs")
    machine.tmux("kill-server", socket="theirs")
    until(lambda: not machine.running(f"sleep {machine.mark}"))
    spec = imported(machine, workspace)
    machine.once(spec)
    assert seen("default") == theirs
    machine.converged(spec)


LOGROTATE = """
compress
rotate 3
{base}/a.log {{
    size 1k
    create 0640
    postrotate
        echo done >> {base}/told
    endscript
}}
{base}/b.log {base}/other/*.log {{
    size 1k
    delaycompress
    rotate 2
    missingok
}}
{base}/c.log {{
    size 1k
    copytruncate
    nocompress
}}
{base}/small.log {{
    size 100k
}}
{base}/d.log {{
    size 1k
    dateext
    dateformat -%Y%m%d
    create 0600
    nocompress
}}
"""


def tree(base: Path) -> dict[str, Any]:
    """All that is below a folder, with mode, owner, and what is in it or where it leads."""
    found: dict[str, Any] = {}
    for path in sorted(base.rglob("*")):
        status = path.lstat()
        data: Any = None
        if path.is_symlink():
            data = os.readlink(path)
        elif path.is_file():
            raw = path.read_bytes()
            data = gzip.decompress(raw) if path.suffix == ".gz" else raw
        name = str(path.relative_to(base))
        mode = None if path.is_symlink() else oct(stat.S_IMODE(status.st_mode))
        found[name] = (mode, status.st_uid, status.st_gid, data)
    return found


def test_logrotate_and_its_spec_leave_the_same_files(machine: Machine) -> None:
    program = original("logrotate")
    spec = None
    folders = [machine.base / name for name in ("theirs", "ours")]
    for folder in folders:
        (folder / "other").mkdir(parents=True)
        conf = machine.base / f"{folder.name}.logrotate.conf"
        conf.write_text(LOGROTATE.format(base=folder))
        conf.chmod(0o644)
    spec = imported(machine, conf)
    logs = ("a.log", "b.log", "c.log", "d.log", "small.log", "other/x.log", "other/y.log")
    for number in range(5):
        for folder in folders:
            for name in logs:
                if name == "d.log" and number:
                    continue  # logrotate takes no name twice a day.
                with open(folder / name, "a") as file:
                    file.write(f"{number} {name}\n" * 5000)
                (folder / name).chmod(0o644)
            if number == 4:
                (folder / "b.log").unlink()
        state = machine.base / "logrotate.state"
        theirs = machine.base / "theirs.logrotate.conf"
        done = machine.run(program, "-s", state, theirs)
        assert done.returncode == 0, done.stderr
        machine.once(spec)
        left, made = (tree(folder) for folder in folders)
        assert list(made) == list(left), number
        assert made == left, number
    assert any(name.endswith(".2.gz") for name in left)


TMPFILES = """
d {base}/plain 0750 - - -
d {base}/sticky 1777 - - -
d {base}/aged 0755 - - m:2d
x {base}/aged/keep*
d {base}/aged/own 0755 - - -
e {base}/there 2770 - - -
z {base}/single 0600 - -
Z {base}/tree 0710 - -
d "{base}/with space" 0700
L {base}/link - - - - ../target
L+ {base}/sticky/inner - - - - {base}/plain
f+ {base}/written 0640 - - - hello\\nworld \\x41 100%%
F {base}/empty 0600 - - -
"""


def test_tmpfiles_and_its_spec_leave_the_same_files(machine: Machine) -> None:
    program = original("systemd-tmpfiles")
    folders = [machine.base / name for name in ("theirs", "ours")]
    (machine.base / "tmpfiles.d").mkdir()
    old = time.time() - 3 * 86400
    for folder in folders:
        conf = machine.base / "tmpfiles.d" / f"{folder.name}.conf"
        conf.write_text(TMPFILES.format(base=folder))
        for name in ("there", "tree/below", "aged/deep", "aged/own"):
            (folder / name).mkdir(parents=True)
        for name in ("single", "tree/file", "tree/below/file"):
            (folder / name).write_text(name)
        for name in ("aged/old", "aged/new", "aged/keep-old", "aged/deep/old", "aged/own/old"):
            (folder / name).write_text(name)
            if "old" in name:
                os.utime(folder / name, (old, old))
        for name in ("aged/deep", "aged"):
            os.utime(folder / name, (old, old))
    theirs = machine.base / "tmpfiles.d" / "theirs.conf"
    done = machine.run(program, "--create", "--clean", theirs)
    assert done.returncode == 0, done.stderr
    spec = imported(machine, conf, left=2)  # What is in the place of its two links.
    machine.once(spec)
    left, made = (tree(folder) for folder in folders)
    left = json.loads(json.dumps(left, default=bytes.decode).replace(*map(str, folders)))
    made = json.loads(json.dumps(made, default=bytes.decode))
    assert made == left
    machine.converged(spec)


SPOOL = "/var/spool/cron/crontabs"
CRON = """\
set -e
for folder in {spool} /run /mnt; do mount -t tmpfs none $folder; done
mkdir /mnt/out && chmod 1777 /mnt/out
case $1 in
theirs) crontab "$2" ;;
ours) reconcile --once "$2" --state-dir /mnt/state >/dev/null ;;
esac
cron -f &
# Each has made its file, and has ended: until then cron has a child for it.
for try in $(seq 700); do
    [ "$(ls /mnt/out | wc -l) $(cat /proc/$!/task/$!/children)" = "$3 " ] && break
    sleep 0.1
done
kill $!
cd /mnt/out && ls | wc -l && head -n 100 *
"""
CRONTAB = """\
# A comment above.
MAILTO=""
A = "one two"
@reboot { pwd; printf '\\%s\\n' "$A" "$B" 100\\% 'a\\b' 'c\\\\d' "$LOGNAME" {{; cat; } >/mnt/out/1
B='three'
SHELL=/bin/bash
@reboot { [[ a == a ]] && echo "$A $B ${BASH:+bash}"; cat; } >/mnt/out/2%line 1%%line \\% 3
SHELL=/bin/sh
HOME=/usr/share
@reboot { pwd; echo "$HOME # no comment"; umask; } >/mnt/out/3
PATH=/usr/bin:/bin
@reboot { echo "$PATH"; id -un; ulimit -n >/dev/null; tty; } >/mnt/out/4 2>&1
"""


@pytest.mark.root
@pytest.mark.skipif(not ROOT, reason="only root has a mount namespace of its own")
@pytest.mark.parametrize("schedule", ["@reboot", pytest.param("* * * * *", marks=pytest.mark.slow)])
def test_cron_and_its_spec_run_the_same(machine: Machine, schedule: str) -> None:
    """With a daemon each: lines that it runs as it starts, or in the next minute."""
    original("cron")
    original("crontab")
    table = machine.base / "crontab"
    table.write_text(CRONTAB.replace("@reboot", schedule))
    spec = imported(machine, table)
    script = CRON.format(spool=SPOOL).replace("reconcile", str(BIN / "reconcile"), 1)
    outputs = []
    for who, file in (("theirs", table), ("ours", spec)):
        path = f"/usr/sbin:{machine.real_path}"
        done = machine.run(
            "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c",
            script, "sh", who, file, "4", environ={"PATH": path},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        outputs.append(done.stdout)
    theirs, ours = outputs
    assert "one two three bash" in theirs and theirs.startswith("4\n")
    assert ours == theirs
