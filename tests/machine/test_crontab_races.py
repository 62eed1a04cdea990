"""The real crontab(1) of root, in a spool of the test's own, while somebody else installs one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
from support import Machine

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root has a mount namespace"),
]

IN_A_SPOOL_OF_ITS_OWN = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /var/spool/cron/crontabs
chown root:crontab /var/spool/cron/crontabs
chmod 1730 /var/spool/cron/crontabs
exec "$@"
"""
PROGRAM = """
import subprocess, sys
from reconciler.host import Host, kernel
from reconciler.host import place

call, before, way, state = sys.argv[1:]
SPOOL = "/var/spool/cron/crontabs/root"
if before:
    subprocess.run(["crontab", "-"], input=before.encode(), check=True)
module = place.Draft if call == "publish" else kernel
real, saved = getattr(module, call), []

def save(*given, **named):
    # The very last moment before the name is taken.
    if not saved:
        saved.append(1)
        old = subprocess.run(["crontab", "-l"], capture_output=True).stdout
        if way == "crontab":
            subprocess.run(["crontab", "-"], input=old + b"# theirs\\n", check=True)
        else:
            with open(SPOOL, "ab") as file:
                file.write(b"# theirs\\n")
    return real(*given, **named)

setattr(module, call, save)
host = Host("demo", state)
ours = b"# ours\\n"
if call != "rename_new":
    host.crontabs.change("root", lambda text: (text or b"").replace(ours, b"") + ours)
else:
    host.crontabs.change("root", lambda text: text.replace(ours, b"") or None)
assert saved == [1]
print(subprocess.run(["crontab", "-l"], capture_output=True, text=True).stdout, end="")
"""


def run(machine: Machine, text: str, *argv: str) -> list[str]:
    """What a program prints that has a spool of its own; its last argument is its state."""
    if shutil.which("crontab") is None or not os.path.isdir("/var/spool/cron/crontabs"):
        pytest.skip("wants Debian's cron; install it with: apt-get install cron")
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("no mount namespace can be made here")
    program = machine.base / "program.py"
    program.write_text(text)
    state = machine.state / "demo"
    state.mkdir(parents=True, mode=0o700)
    done = machine.run(
        "unshare", "-m", "sh", "-c", IN_A_SPOOL_OF_ITS_OWN, "sh",
        sys.executable, program, *argv, state, environ={"PATH": machine.real_path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in state.iterdir()) == []
    return done.stdout.splitlines()


def changed(machine: Machine, call: str, before: str, way: str) -> list[str]:
    """The lines of root's crontab after a change of ours that somebody else comes in between."""
    return run(machine, PROGRAM, call, before, way)


@pytest.mark.parametrize("way", ["crontab", "append"])
def test_what_somebody_installs_while_ours_is_written_stays(machine: Machine, way: str) -> None:
    lines = changed(machine, "exchange", "MAILTO=x\n", way)
    assert lines == ["MAILTO=x", "# theirs", "# ours"]


@pytest.mark.parametrize("way", ["crontab", "append"])
def test_what_somebody_installs_while_ours_is_taken_away_stays(machine: Machine, way: str) -> None:
    assert changed(machine, "rename_new", "# ours\n", way) == ["# theirs"]


def test_the_first_crontab_of_somebody_else_comes_at_the_same_moment(machine: Machine) -> None:
    assert changed(machine, "publish", "", "crontab") == ["# theirs", "# ours"]


FIRST = """
import os, subprocess, sys
from reconciler.host import Host

spool, user, state = "/var/spool/cron/crontabs/", *sys.argv[1:]

def rights():
    status = os.stat(spool + user)
    os.unlink(spool + user)
    return oct(status.st_mode), status.st_uid, status.st_gid

subprocess.run(["crontab", "-u", user, "-"], input=b"# by itself\\n", check=True)
theirs = rights()
assert Host("demo", state).crontabs.change(user, lambda text: b"# ours\\n") == b"# ours\\n"
print(rights() == theirs, theirs)
"""


@pytest.mark.parametrize("user", ["root", "daemon"])
def test_a_first_crontab_has_the_rights_that_crontab_gives_it(machine: Machine, user: str) -> None:
    (line,) = run(machine, FIRST, user)
    assert line.startswith("True "), line
