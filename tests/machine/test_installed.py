"""What is set up to run later names commands that are there, however the program was installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from looping import Looping
from machine.disposable import CronHost
from support import CHECKOUT, LONG, Machine, until

SPEC = """processes: {w: {command: [sleep, "%(mark)s"]}}
cron:
  boot: {schedule: "@reboot", command: [reconcile, --once, -q, "{{ spec.path }}"]}
"""
BASE = getattr(sys, "_base_executable", sys.executable)


@pytest.fixture(scope="module")
def wheel() -> Iterator[Path]:
    """The program as it is handed out, where a disposable host sees it."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        words = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, CHECKOUT]
        done = subprocess.run(words, capture_output=True, text=True, timeout=LONG)
        if done.returncode:
            pytest.skip(f"no wheel can be built here: {done.stderr[-200:]}")
        (made,) = Path(folder).glob("*.whl")
        yield made


def pip(python: str | Path, *words: str | Path) -> list[str | Path]:
    """pip for another interpreter, which need not have it; what it needs is that of the tests."""
    return [sys.executable, "-m", "pip", "-q", "--python", python, "install", "--no-deps", *words]


def lend(site: Path) -> None:
    """What the program needs is found where the tests have it."""
    (site / "needs.pth").write_text(sysconfig.get_path("purelib") + "\n")


def test_of_a_user(machine: Machine, wheel: Path) -> None:
    local = machine.base / "local"
    machine.environ |= {"PYTHONUSERBASE": str(local), "PIP_BREAK_SYSTEM_PACKAGES": "1"}
    machine.run(*pip(BASE, "--user", "--no-index", wheel), check=True)
    lend(next(local.glob("lib/python*/site-packages")))
    machine.bin = local / "bin"
    spec = machine.spec(SPEC % {"mark": machine.mark})
    assert machine.reconcile("--once", spec).returncode == 0
    (table,) = machine.spool.iterdir()
    assert f"{local}/bin/reconcile --once" in table.read_text()
    # It is the same one whichever way it was called.
    done = machine.run(BASE, "-m", "reconciler", "--plan", spec, "--state-dir", machine.state)
    assert "Nothing to do" in done.stdout, done.stdout + done.stderr


@pytest.mark.root
def test_of_the_system_over_a_reboot(cron_host: CronHost, wheel: Path, tmp_path: Path) -> None:
    host, python = cron_host, "/usr/bin/python3"
    code = "import sys; print(*sys.version_info[:2])"
    version = host.run(python, "-c", code, check=False).stdout.split()
    if version != [str(part) for part in sys.version_info[:2]]:
        pytest.skip(f"{python} is not the Python of the tests")
    install = pip(python, "--no-index", wheel)
    host.run("env", "PIP_BREAK_SYSTEM_PACKAGES=1", *install, timeout=LONG)
    code = "import reconciler; print(*reconciler.__path__)"
    package = host.run("sh", "-c", f"cd / && {python} -c '{code}'").stdout.strip()
    host.write(f"{Path(package).parent}/needs.pth", sysconfig.get_path("purelib") + "\n")
    host.write("/etc/demo.yaml", "version: 1\nname: demo\n" + SPEC % {"mark": "90.417"})
    host.run("reconcile", "--once", "/etc/demo.yaml")
    assert host.running("sleep 90.417")
    assert "/usr/local/bin/reconcile --once" in host.run("crontab", "-l").stdout
    host.reboot()
    host.until(lambda: host.running("sleep 90.417"))
    plan = host.run("reconcile", "--plan", "--detailed-exitcode", "/etc/demo.yaml")
    assert "Nothing to do" in plan.stdout


def test_a_shipped_spec_is_named_by_its_bare_name(machine: Machine, wheel: Path) -> None:
    """Its path goes with the version of Python; the name is found by the next one, too."""
    folder = machine.base / "venv"
    machine.run(BASE, "-m", "venv", "--without-pip", folder, check=True)
    machine.run(*pip(folder / "bin/python", "--no-index", wheel), check=True)
    lend(next(folder.glob("lib/python*/site-packages")))
    machine.bin = folder / "bin"
    # What only looks like it is no spec.
    (machine.base / "executor").mkdir()
    plan = machine.plan(Path("executor"))
    (boot,) = (step for step in plan["steps"] if step["id"] == "cron:boot")
    assert f"{folder}/bin/reconcile --once -q executor " in str(boot)
    assert "site-packages" not in str(plan["steps"])


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["uv", "pipx"])
def test_another_python_under_a_running_watchdog(
    machine: Machine, wheel: Path, looping: type[Looping], tool: str
) -> None:
    """The tool's environment is made anew for another Python; the loop goes on with it."""
    program = shutil.which(tool)
    pythons = [shutil.which(f"python3.{minor}") for minor in (11, 12, 13, 14)]
    found = [path for path in pythons if path and path != BASE and _works(path)]
    if program is None or len(found) < 2:
        pytest.skip(f"needs {tool} and two versions of Python")
    machine.environ |= {
        name: value for name, value in os.environ.items() if name.startswith(("PIP_", "UV_", "SSL"))
    }

    install = ["tool", "install", "--force"] if tool == "uv" else ["install"]
    machine.run(program, *install, "--python", found[0], wheel, check=True)
    machine.bin = machine.home / ".local/bin"
    spec = machine.spec("loop: {every: 200ms}\n" + SPEC % {"mark": machine.mark})
    assert machine.reconcile("--once", spec).returncode == 0
    loop = looping(spec).up()
    pid = loop.pid
    again = [*install, wheel] if tool == "uv" else ["reinstall", "reconcile-host"]
    machine.run(program, *again, "--python", found[1], check=True)
    until(lambda: "replaced" in loop.names())
    loop.full_pass()
    assert loop.pid == pid
    assert os.path.realpath(f"/proc/{pid}/exe") == os.path.realpath(found[1])
    assert machine.reconcile("--plan", "--detailed-exitcode", spec).returncode == 0


def _works(python: str) -> bool:
    done = subprocess.run([python, "-c", "import venv"], capture_output=True, timeout=LONG)
    return done.returncode == 0
