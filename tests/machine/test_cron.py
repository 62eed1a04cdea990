"""Cron lines with the real crontab(1), over a private spool and a private user database."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from support import LONG, Machine, until

from reconciler.kinds.cron.schedule import parse_schedule

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root has a mount namespace of its own"),
    pytest.mark.skipif(shutil.which("crontab") is None, reason="crontab is not installed"),
]
SPOOL = "/var/spool/cron/crontabs"
ALICE = 47110
SETUP = f"""
set -e
mount -t tmpfs -o mode=1730,gid="$(stat -c %g {SPOOL})" none {SPOOL}
cp /etc/passwd "$1/passwd"
echo 'alice:x:{ALICE}:{ALICE}::/:/bin/sh' >>"$1/passwd"
mount --bind "$1/passwd" /etc/passwd
echo ready >"$1/ready"
exec sleep 600
"""


class Cron:
    """A machine whose crontab(1) is the real one, in a mount namespace of its own."""

    def __init__(self, machine: Machine, pid: int) -> None:
        self.machine = machine
        self.pid = pid
        machine.environ["PATH"] = machine.real_path
        machine.argv = self.argv  # type: ignore[method-assign]
        self.user: Sequence[str] = ()

    def inside(self, *argv: str | Path) -> list[str | Path]:
        return ["nsenter", "-t", str(self.pid), "-m", "--", *self.user, *argv]

    def argv(self, *argv: str | Path) -> list[str | Path]:
        program = [self.machine.bin / "reconcile", *argv, "--state-dir", self.machine.state]
        return self.inside(*program)

    def sh(self, script: str, **options: object) -> str:
        done = self.machine.run(*self.inside("sh", "-c", script), **options)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def write(self, text: bytes, user: str = "root") -> None:
        subprocess.run(
            [*map(str, self.inside("crontab", "-u", user, "-"))],
            input=text, check=True, timeout=LONG, env=self.machine.environ,
        )  # fmt: skip

    def raw(self, user: str = "root") -> bytes | None:
        """What is in the spool, without the header."""
        done = subprocess.run(
            [*map(str, self.inside("cat", f"{SPOOL}/{user}"))], capture_output=True, timeout=LONG
        )
        return done.stdout.split(b"\n", 3)[3] if done.returncode == 0 else None


@pytest.fixture
def cron(machine: Machine) -> Iterator[Cron]:
    # A real cron daemon of this machine would look into its own spool, which this is not.
    child = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", SETUP, "sh", machine.base],
        env=machine.environ,
    )
    try:
        until(lambda: (machine.base / "ready").exists() or child.poll() is not None)
        assert child.poll() is None
        yield Cron(machine, child.pid)
    finally:
        child.kill()
        child.wait()


MINE = b"# mine \xff\n0 0 * * * /bin/mine\n"
SPEC = "cron: {{a: {{schedule: '*/5 * * * *', command: [/bin/true, {word}]}}}}"


def test_up_down_and_drift(cron: Cron) -> None:
    machine = cron.machine
    spec = machine.spec(SPEC.format(word="'50%'"))
    cron.write(MINE)
    assert machine.steps(spec) == ["cron:a"]
    machine.once(spec)
    machine.converged(spec)
    assert (cron.raw() or b"").startswith(MINE + b"# BEGIN reconcile demo --")
    assert b"\n*/5 * * * * /bin/true 50\\%\n# END reconcile demo\n" in (cron.raw() or b"")
    cron.write((cron.raw() or b"").replace(b"*/5", b"*/6") + b"# below\n")
    machine.once(spec)
    machine.converged(spec)
    machine.once(machine.spec("cron: {}"))
    assert cron.raw() == MINE + b"# below\n"


def test_what_was_not_there_is_not_there_again(cron: Cron) -> None:
    machine = cron.machine
    machine.once(machine.spec(SPEC.format(word="x")))
    machine.once(machine.spec("cron: {}"))
    assert cron.raw() is None
    cron.write(b"")
    machine.once(machine.spec(SPEC.format(word="x")))
    machine.once(machine.spec("cron: {}"))
    assert cron.raw() == b""


@pytest.mark.parametrize(
    "text",
    [
        b"# dos\r\n0 0 * * * /bin/mine\r\n",
        b"# \\r as two characters\n0 0 * * * printf 'a\\r\\b'\n",
        b"# both \r \\r \x08 \\b\r\n# nul \0\n",
    ],
)
def test_bytes_that_crontab_does_not_show_come_back(cron: Cron, text: bytes) -> None:
    # Debian's crontab -l shows a carriage return as the two characters \ and r.
    machine = cron.machine
    spec = machine.spec(SPEC.format(word="'\\r'"))
    cron.write(text)
    machine.once(spec)
    machine.converged(spec)
    assert (cron.raw() or b"").startswith(text + b"# BEGIN")
    machine.once(machine.spec("cron: {}"))
    assert cron.raw() == text


def test_comments_that_crontab_hides_come_back(cron: Cron) -> None:
    # crontab -l leaves out the first three comments, also where nobody wrote a header.
    machine = cron.machine
    spec = machine.spec(SPEC.format(word="x"))
    cron.sh(f"printf '# one\\n# two\\n0 0 * * * mine\\n' >{SPOOL}/root; chmod 600 {SPOOL}/root")
    machine.once(spec)
    machine.converged(spec)
    assert (cron.raw() or b"").startswith(b"# one\n# two\n0 0 * * * mine\n# BEGIN")


def test_root_keeps_the_lines_of_others(cron: Cron) -> None:
    machine = cron.machine
    cron.write(MINE, "alice")
    text = "cron: {a: {schedule: '@daily', command: /bin/true, user: alice}}"
    spec = machine.spec(text)
    machine.once(spec)
    machine.converged(spec)
    assert b"@daily /bin/true\n" in (cron.raw("alice") or b"")
    # Another user: the old line goes, the new one comes, in one pass.
    machine.spec(text.replace("alice", "root"))
    assert machine.steps(spec) == ["cron:a", "cron:a (alice)"]
    machine.once(spec)
    machine.converged(spec)
    assert cron.raw("alice") == MINE
    assert b"@daily /bin/true\n" in (cron.raw() or b"")
    assert (machine.state / "demo/marks/cron").read_text() == "root\n"


def as_alice(cron: Cron) -> None:
    """From now on as alice, who may read all, so that she finds this checkout wherever it is."""
    cron.user = (
        "setpriv", "--reuid", str(ALICE), "--regid", str(ALICE), "--clear-groups",
        "--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search",
    )  # fmt: skip
    cron.machine.state = cron.machine.sockets / "state"
    cron.machine.sockets.chmod(0o755)
    cron.machine.state.mkdir()
    os.chown(cron.machine.state, ALICE, ALICE)


def test_a_user_keeps_her_own(cron: Cron) -> None:
    cron.write(MINE, "alice")
    as_alice(cron)
    machine = cron.machine
    spec = machine.spec(SPEC.format(word="x"))
    machine.once(spec)
    machine.converged(spec)
    machine.once(machine.spec("cron: {}"))
    assert cron.raw("alice") == MINE


@pytest.mark.parametrize("before", [MINE, None])
def test_who_may_not_gets_the_command_for_somebody_who_may(
    cron: Cron, before: bytes | None
) -> None:
    if before is not None:
        cron.write(before)
    as_alice(cron)
    machine = cron.machine
    command = json.dumps("printf '%s\\n' 'a/b' \"$HOME\" [.*]")
    spec = machine.spec(
        "cron:\n"
        f"  a: {{schedule: '*/5 * * * *', command: {command}, user: root}}\n"
        "  b: {schedule: '@daily', command: [/bin/echo, '50%', \"it's\"], user: root}\n"
    )
    found = machine.plan(spec)["unknown"]
    assert [one["id"] for one in found] == ["cron:a", "cron:b"]
    assert found[0]["reason"] == found[1]["reason"]
    why, _, command = found[0]["reason"].partition(
        "; a user with the rights can do it; fix it with: "
    )
    assert why == "only root may look at the crontab of root"
    assert "\n" not in command
    cron.user = ()
    for _ in range(2):
        cron.sh(command)
        machine.state = machine.base / "root-state"
        machine.converged(spec)
    assert (cron.raw() or b"").startswith(before or b"# BEGIN")
    machine.once(machine.spec("cron: {}"))
    assert cron.raw() == (before or b"")


def test_cron_deny_is_told(cron: Cron) -> None:
    machine = cron.machine
    cron.sh(
        'cp -r /etc "$1/etc" && echo alice >"$1/etc/cron.deny" && mount --bind "$1/etc" /etc'
        .replace("$1", str(machine.base))
    )  # fmt: skip
    cron.sh(f"echo 'alice:x:{ALICE}:{ALICE}::/:/bin/sh' >>/etc/passwd")
    as_alice(cron)
    (one,) = machine.plan(machine.spec(SPEC.format(word="x")))["unknown"]
    assert "not allowed to use this program" in one["reason"]
    assert "(crontab -u alice -l" in one["reason"]


def test_schedules_that_we_take_are_taken_by_cron_and_what_it_refuses_we_refuse(
    cron: Cron,
) -> None:
    from test_schedule import REFUSED, TAKEN

    lines = "".join(f"{text} true\n" for text in TAKEN)
    file = cron.machine.base / "tab"
    file.write_text(lines)
    cron.sh(f"crontab -n {file}")
    for text in REFUSED:
        file.write_text(f"{text} true\n")
        done = cron.machine.run(*cron.inside("crontab", "-n", file))
        if done.returncode != 0:
            with pytest.raises(ValueError):
                parse_schedule(text)


@pytest.mark.parametrize(("size", "status"), [(998, 0), (999, 1)])
def test_the_longest_command_is_that_of_cron(cron: Cron, size: int, status: int) -> None:
    file = cron.machine.base / "tab"
    file.write_text(f"* * * * * {'x' * size}\n")
    done = cron.machine.run(*cron.inside("crontab", "-n", file))
    assert done.returncode == status
