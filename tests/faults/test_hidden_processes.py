"""A process of another user that may not be looked at is unknown, and no second one is started."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import LONG

NOBODY, OTHER = 65534, 65533
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts, other users"),
]

LOOK = """
import os, sys
from reconciler.host.clock import Clock
from reconciler.host.files import Files
from reconciler.host.process_search import ProcessSearch
from reconciler.host.process_snapshot import ProcessSnapshot
from reconciler.host.processes import Processes
import grp, pwd, encodings.idna, reconciler.host.reading  # Later they could not be read.
from reconciler.host import trust
from reconciler.base.errors import UnknownState
base, pid = sys.argv[1:3]
os.chdir("/")
for uid in (65534, 65533):
    other = os.fork()
    if other == 0:
        os.setresgid(65534, 65534, 65534)
        os.setgroups([])
        os.setresuid(65534, 65534, 65534)
        table, born = ProcessSearch(ProcessSnapshot()), Processes(Clock()).started
        for what, look in (
            ("cmdline", lambda: table.with_command_line("^hidden", uid)),
            ("exe", lambda: table.with_program(sys.argv[3], uid)),
            ("pidfile", lambda: table.from_file(base, uid, Files(), born)),
        ):
            try:
                print(uid, what, len(look()), flush=True)
            except UnknownState as error:
                print(uid, what, "unknown", flush=True)
        os._exit(0)
    os.waitpid(other, 0)
"""


def looked(options: str, folder: Path) -> list[str]:
    """What somebody sees of another's process, with /proc mounted so."""
    sleep = folder / "sleeps"
    shutil.copy("/bin/sleep", sleep)
    sleeper = subprocess.Popen([sleep, "600"], user=OTHER, group=OTHER)
    try:
        named = folder / "pid"
        named.write_text(f"{sleeper.pid}\n")
        os.chown(named, OTHER, OTHER)
        script = f'mount --make-rprivate / && {options} exec "$0" -c "$@"'
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", script, sys.executable, LOOK, named, str(sleeper.pid),
             sleep],
            capture_output=True, text=True, timeout=LONG, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert not done.stderr, done.stderr
        return done.stdout.splitlines()
    finally:
        sleeper.kill()
        sleeper.wait()


@pytest.mark.namespaces
@pytest.mark.parametrize("hidepid", ["1", "2"])
def test_what_proc_hides_is_unknown(hidepid: str, tmp_path: Path, free: None) -> None:
    mount = f"mount -t proc -o hidepid={hidepid} proc /proc &&"
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_mode & 0o001 == 0:
            folder.chmod(folder.stat().st_mode | 0o011)
    seen = looked(mount, tmp_path)
    assert seen[3:] == ["65533 cmdline unknown", "65533 exe unknown", "65533 pidfile unknown"]
    # Of one's own all is seen, but the file still names one that is not.
    assert seen[:2] == ["65534 cmdline 0", "65534 exe 0"]


@pytest.mark.namespaces
def test_where_nothing_is_hidden_the_command_line_tells(tmp_path: Path, free: None) -> None:
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_mode & 0o001 == 0:
            folder.chmod(folder.stat().st_mode | 0o011)
    seen = looked("", tmp_path)
    # Which program it runs is shown to nobody else in any case.
    assert seen[3:] == ["65533 cmdline 0", "65533 exe unknown", "65533 pidfile 1"]
