"""Lines from templates in a crontab and in /etc/cron.d, and a real cron daemon that runs them."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
from faults.test_place import ACCESS, acl
from machine.disposable import CronHost
from machine.test_cron import SPOOL, Cron, cron
from support import Machine

__all__ = ["cron"]
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root has a mount namespace of its own"),
    pytest.mark.skipif(shutil.which("crontab") is None, reason="crontab is not installed"),
]
SPEC = """
cron:
  jobs:
    content: |
      @daily /bin/true {word}
      */5 * * * * /bin/cat%in {word}%
  file:
    file: own-jobs
    content: |
      # mine
      MAILTO=ops@example.org
      @daily {user} /bin/true {word}
"""
FILE = "/etc/cron.d/own-jobs"
MINE = b"0 0 * * * /bin/mine\n"


@pytest.fixture
def host(cron: Cron) -> Cron:
    cron.sh("mount -t tmpfs none /etc/cron.d")
    return cron


def changes(machine: Machine, spec: Path) -> list[str]:
    return [f"{step['id']} {one['field']}" for step in machine.plan(spec)["steps"]
            for one in step["changes"]]  # fmt: skip


def test_up_drift_and_down(host: Cron) -> None:
    machine = host.machine
    spec = machine.spec(SPEC.format(word="x", user="nobody"))
    host.write(MINE)
    machine.once(spec)
    machine.converged(spec)
    assert b"\n@daily /bin/true x\n" in (host.raw() or b"")
    assert b"\n*/5 * * * * /bin/cat%in x%\n" in (host.raw() or b"")
    assert host.sh(f"stat -c '%a %U' {FILE}") == "644 root\n"
    text = host.sh(f"cat {FILE}")
    assert text.endswith("\n# mine\nMAILTO=ops@example.org\n@daily nobody /bin/true x\n")
    # Edited by hand, also where it is not shown.
    host.write((host.raw() or b"").replace(b"%in x%", b"%out%"))
    host.sh(f"chmod 664 {FILE}; sed -i s/nobody/root/ {FILE}")
    found = ["cron:jobs line 2", "cron:jobs block", "cron:file content", "cron:file mode"]
    assert changes(machine, spec) == found
    report = machine.once(spec)
    assert "out" not in json.dumps(report["steps"][0])
    machine.converged(spec)
    assert host.sh(f"cat {FILE}") == text
    # With one line less, in the other place, and then no more.
    less = SPEC.replace("      */5 * * * * /bin/cat%in {word}%\n", "")
    spec = machine.spec(less.format(word="x", user="nobody"))
    assert changes(machine, spec) == ["cron:jobs line 2"]
    machine.once(spec)
    machine.converged(spec)
    spec = machine.spec("cron: {file: {content: '@daily /bin/true y'}}")
    machine.once(spec)
    machine.converged(spec)
    assert host.sh("ls /etc/cron.d") == ""
    assert b"true y\n" in (host.raw() or b"") and b"true x" not in (host.raw() or b"")
    machine.once(machine.spec("cron: {file: {state: absent}}"))
    assert host.raw() == MINE


def test_ten_times_the_files_take_ten_times_the_calls(host: Cron) -> None:
    """Each is looked at, written and read back, or removed; and what runs is looked at once."""
    machine = host.machine
    passes: dict[int, list[Counter[str]]] = {}
    for number in (3, 30):
        lines = "".join(
            f"  c{at}: {{file: f{at:03}, content: '@daily root /bin/true', state: WHICH}}\n"
            for at in range(number)
        )
        passes[number] = []
        for state in ("present", "present", "absent"):
            spec = machine.spec(f"cron:\n{lines.replace('WHICH', state)}")
            machine.run(*machine.argv("--check", spec))
            trace = machine.traced("%file", *machine.argv("--once", spec))
            calls = re.findall(r'(?m)^\d+ +(\w+)\([^"\n]*"(?:/etc/cron.d/)?f\d{3}"', trace)
            read = Counter(re.findall(r'"/proc/(\d+)/comm"', trace))
            assert max(read.values(), default=0) <= 4  # Before, at and behind the steps.
            passes[number].append(Counter(calls))
        assert host.sh("ls /etc/cron.d") == ""
    assert [{call: 10 * n for call, n in one.items()} for one in passes[3]] == passes[30]


def test_a_file_that_is_written_anew_keeps_its_acl(host: Cron) -> None:
    machine = host.machine
    spec = machine.spec(SPEC.format(word="x", user="nobody"))
    machine.once(spec)
    shared = acl(4, 4, 4, 4).hex()
    python = "python3 -c 'import os; print({})'"
    host.sh(python.format(f'os.setxattr("{FILE}", "{ACCESS}", bytes.fromhex("{shared}"))'))
    machine.converged(spec)
    spec = machine.spec(SPEC.format(word="y", user="nobody"))
    machine.once(spec)
    machine.converged(spec)
    assert "true y" in host.sh(f"cat {FILE}")
    assert host.sh(python.format(f'os.getxattr("{FILE}", "{ACCESS}").hex()')).strip() == shared


def test_absent_removes_the_file_and_nothing_of_others(host: Cron) -> None:
    machine = host.machine
    spec = machine.spec(SPEC.format(word="x", user="nobody"))
    machine.once(spec)
    host.sh("echo '@daily root true' >/etc/cron.d/his")
    absent = "cron: {jobs: {state: absent}, file: {state: absent, file: own-jobs}}"
    spec = machine.spec(absent.replace("}}", "}, his: {state: absent, file: his}}"))
    machine.once(spec)
    machine.converged(spec)
    assert host.sh("ls /etc/cron.d") == "his\n"
    assert host.raw() is None
    assert "was not made by this spec" in json.dumps(machine.plan(spec))


@pytest.mark.parametrize(
    ("before", "reason"),
    [
        (f"echo '@daily root true' >{FILE}", "was not made by this spec"),
        (f"ln -s /etc/crontab {FILE}", "was not made by this spec"),
        (f"mkdir {FILE}", "is a directory"),
    ],
)
def test_what_is_in_the_way_is_left(host: Cron, before: str, reason: str) -> None:
    host.sh(before)
    listing = host.sh("ls -l /etc/cron.d")
    machine = host.machine
    spec = machine.spec(SPEC.format(word="x", user="nobody"))
    report = machine.once(spec, status=1)
    (unknown,) = report["unknown"]
    assert unknown["id"] == "cron:file" and reason in unknown["reason"]
    assert [step["id"] for step in report["steps"]] == ["cron:jobs"]
    assert host.sh("ls -l /etc/cron.d") == listing


def test_a_user_who_is_not_there_would_cost_the_whole_file(host: Cron) -> None:
    machine = host.machine
    spec = machine.spec(SPEC.format(word="x", user="nobody2"))
    (unknown,) = machine.once(spec, status=1)["unknown"]
    assert "nobody2" in unknown["reason"] and "pass over the whole file" in unknown["reason"]
    assert host.sh("ls /etc/cron.d") == ""


def test_a_secret_is_shown_to_nobody(host: Cron) -> None:
    machine = host.machine
    machine.environ["MY_TOKEN"] = "sesame-4711"
    text = SPEC.format(word="{{ env.MY_TOKEN }}", user="nobody")
    spec = machine.spec(text)
    assert "sesame" not in machine.reconcile("--plan", spec, "-v").stdout
    machine.once(spec)
    machine.converged(spec)
    assert "sesame-4711" in host.sh(f"cat {FILE}")
    assert host.sh(f"stat -c %a {FILE}") == "600\n"
    machine.environ["MY_TOKEN"] = "sesame-4712"
    done = machine.reconcile("--once", spec, "-v")
    assert done.returncode == 0 and "sesame" not in done.stdout + done.stderr
    assert b"sesame-4712" in (host.raw() or b"")
    for path in machine.state.rglob("*"):
        assert not path.is_file() or b"sesame" not in path.read_bytes(), path


def test_a_user_without_rights_is_told_what_root_can_do(host: Cron) -> None:
    from machine.test_cron import as_alice

    as_alice(host)
    machine = host.machine
    spec = machine.spec("cron: {f: {file: own, content: '@daily nobody /bin/true'}}")
    done = machine.reconcile("--plan", spec)
    assert "only root may change files in /etc/cron.d" in done.stdout
    host.user = ()
    assert SPOOL not in done.stdout


SENDMAIL = '#!/bin/sh\necho "$@" >>/srv/mail\ncat >>/srv/mail\n'
RUNS = """\
version: 1
name: run_by_cron
cron:
  mine:
    content: |
      {time} cat >/srv/mine%in%100\\%
  templated:
    template: jobs.cron
    vars:
      jobs:
        - ["{time}", "echo 50% $PWD >/srv/templated"]
        - ["{time}", [/usr/bin/touch, "/srv/a b%"]]
  watchdog:
    template: watchdog.cron
    vars: {{ command: [/bin/sh, -c, "echo $A >>/srv/pass"], environment: [A=b%], every: "{time}" }}
  file:
    file: own-jobs
    template: jobs.cron
    vars:
      jobs: [["{time}", "id -un; echo 7%"]]
      run_as: nobody
      mailto: ops@example.org
"""


def ran(host: CronHost, time: str) -> None:
    host.write("/usr/sbin/sendmail", SENDMAIL)
    host.run("chmod", "+x", "/usr/sbin/sendmail")
    host.run("chmod", "1777", "/srv")
    host.write("/etc/spec.yaml", RUNS.format(time=time))
    program, spec = host.bin / "reconcile", "/etc/spec.yaml"
    host.run(program, "--once", spec)
    plan = json.loads(host.run(program, "--plan", spec, "--json").stdout)
    assert not plan["steps"] and not plan["unknown"]
    if time == "@reboot":
        host.reboot()
    for path in ("mine", "templated", "a b%", "pass", "mail"):
        host.until(lambda path=path: host.exists(f"/srv/{path}"), 150)
    # Each file is there before all of it is in it.
    host.until(lambda: host.read("/srv/mine") == "in\n100%\n")
    host.until(lambda: host.read("/srv/templated") == "50% /root\n")
    host.until(lambda: host.read("/srv/pass").startswith("b%\n"))
    host.until(lambda: "\nnobody\n7%\n" in host.read("/srv/mail"))
    assert "ops@example.org" in host.read("/srv/mail")
    host.run(program, "--uninstall", spec)
    assert not host.exists("/etc/cron.d/own-jobs")
    assert host.run("crontab", "-l", check=False).returncode == 1


def test_a_real_cron_runs_a_line_of_each_at_boot(cron_host: CronHost) -> None:
    ran(cron_host, "@reboot")


@pytest.mark.slow
def test_a_real_cron_runs_a_line_of_each_at_its_time(cron_host: CronHost) -> None:
    ran(cron_host, "* * * * *")


def test_lines_and_files_are_undone(host: Cron) -> None:
    machine = host.machine

    def seen() -> tuple[bytes | None, str]:
        return host.raw(), host.sh(f"cat {FILE} 2>/dev/null; stat -c '%a %U' {FILE} 2>&1 || true")

    host.write(MINE)
    before = seen()
    spec = machine.spec(SPEC.format(word="x", user="nobody"))
    machine.once(spec)
    made = seen()
    assert machine.reconcile("--undo", spec).returncode == 0
    assert seen() == before
    assert machine.once(spec)["steps"] == []
    assert machine.reconcile("--resume", "*", spec).returncode == 0
    machine.once(spec)
    assert seen() == made
    machine.spec(SPEC.format(word="y", user="nobody").replace("*/5 * * * * /bin/cat%in y%", ""))
    machine.once(spec)
    assert made != seen()
    assert machine.reconcile("--undo", spec).returncode == 0
    assert seen() == made
    # What no spec declares any more stays taken back, too.
    machine.reconcile("--resume", "*", spec)
    spec.write_text("version: 1\nname: demo\ncron: {}\n")
    machine.once(spec)
    assert seen() == before
    assert machine.reconcile("--undo", spec).returncode == 0
    assert seen() == made
    assert machine.once(spec)["steps"] == []
    assert seen() == made
    # A line that a person has edited is left.
    host.write((host.raw() or b"").replace(b"/bin/true", b"/bin/false"))
    left = machine.reconcile("--undo", "5", spec)
    assert b"/bin/false" in (host.raw() or b""), left.stdout
