"""Programs that keep a worker alive, side by side: reconcile, supervisord, monit, s6 and runit.

It must not install anything on this machine: what is not here is unpacked into its own folder.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from births import Births
from looping import Looping
from support import Machine


class Keeper:
    """A program that keeps one worker, or several, and runs in the foreground."""

    def __init__(self, name: str, machine: Machine, argv: Sequence[str | Path]) -> None:
        self.name = name
        with open(machine.base / f"{name}.out", "wb") as output:
            self.process = subprocess.Popen(
                [str(word) for word in argv], env=machine.environ, cwd=machine.base,
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        return self.process.pid

    def end(self) -> None:
        """End it; what it keeps may go with it."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def reconcile(machine: Machine, births: Births, every: str) -> Looping:
    """A loop that keeps the workers "daemon" and "tmux", and forgives after a second."""
    lines = ["version: 1", "name: keeps", f"loop: {{every: {every}}}", "sessions: {s: {}}"]
    lines.append("processes:")
    for name, place in (("daemon", ""), ("tmux", ", session: s")):
        restart = "restart: {healthy_after: 1s}"
        lines.append(f"  {name}: {{command: {births.argv(name)}, {restart}{place}}}")
    return Looping(machine, machine.spec("\n".join(lines) + "\n", "keeps.yaml"))


def beside_a_crash(machine: Machine, births: Births, every: str) -> Looping:
    """A loop that keeps the worker "beside", and one that ends at once, twenty times a second."""
    text = f"version: 1\nname: crash\nloop: {{every: {every}}}\nprocesses:\n"
    text += f"  beside: {{command: {births.argv('beside')}, restart: {{healthy_after: 1s}}}}\n"
    text += (
        "  bad: {command: exit 3, restart: {attempts: 1000, backoff: {initial: 50ms, factor: 1}}}"
    )
    return Looping(machine, machine.spec(f"{text}\n", "crash.yaml"))


def supervisord(machine: Machine, births: Births, names: Sequence[str]) -> Keeper | str:
    """supervisord from PyPI with those workers, or why it is not to be had."""
    folder = machine.base / "supervisord"
    folder.mkdir(exist_ok=True)
    program = machine.bin / "supervisord"
    if not program.exists():
        program = folder / "venv/bin/supervisord"
    if not program.exists():
        done = subprocess.run([sys.executable, "-m", "venv", folder / "venv"], capture_output=True)
        pip = [folder / "venv/bin/pip", "install", "--quiet", "--disable-pip-version-check"]
        if done.returncode == 0:
            done = subprocess.run([*pip, "supervisor"], capture_output=True, timeout=300)
        if done.returncode != 0:
            return "supervisord cannot be had: " + _last(done.stderr + done.stdout)
    text = f"[supervisord]\nnodaemon=true\nlogfile={folder}/log\npidfile={folder}/pid\n"
    text += f"childlogdir={folder}\n" + ("user=root\n" if os.geteuid() == 0 else "")
    for name in names:
        text += f"[program:{name}]\ncommand={' '.join(births.argv(name))}\n"
        text += "autorestart=true\nstartsecs=0\nstartretries=1000000\n"
    (folder / "conf").write_text(text)
    return Keeper("supervisord", machine, [program, "-c", folder / "conf"])


def monit(machine: Machine, births: Births) -> Keeper | str:
    """Debian's monit with a cycle of one second and a worker "monit", or why there is none."""
    folder = machine.base / "monit"
    folder.mkdir()
    program = shutil.which("monit") or _unpacked(folder, "monit")
    if program is None:
        return "monit is not installed, and apt-get cannot download it"
    start, control = folder / "start.sh", folder / "monitrc"
    start.write_text(
        f"#!/bin/sh\nTMUX_TMPDIR={machine.sockets}; export TMUX_TMPDIR\n"
        f"setsid {' '.join(births.argv('monit'))} </dev/null >/dev/null 2>&1 &\n"
        f"echo $! > {folder}/worker.pid\n"
    )
    start.chmod(0o755)
    control.write_text(
        f"set daemon 1\nset log {folder}/log\nset pidfile {folder}/pid\n"
        f"set idfile {folder}/id\nset statefile {folder}/state\n"
        f'check process worker with pidfile {folder}/worker.pid\n  start program = "{start}"\n'
    )
    control.chmod(0o600)
    return Keeper("monit", machine, [program, "-I", "-c", control])


def supervise(machine: Machine, births: Births, name: str) -> Keeper | str:
    """Debian's s6 or runit with a worker of that name, or why there is none."""
    keeper, packages = {
        "s6": ("s6-supervise", ("s6", "libs6-2.11", "libskarnet2.13", "libexecline2.9")),
        "runit": ("runsv", ("runit",)),
    }[name]
    folder = machine.base / name
    service = folder / "service"
    service.mkdir(parents=True)
    (service / "run").write_text(f"#!/bin/sh\nexec {' '.join(births.argv(name))}\n")
    (service / "run").chmod(0o755)
    _unpacked(folder, *packages)
    program = folder / "root/usr/bin" / keeper
    if not program.exists():
        return f"{name} cannot be had: apt-get cannot download it"
    libraries = ":".join(str(one) for one in (folder / "root/usr/lib").glob("*-linux-gnu"))
    environ = [f"PATH={program.parent}:/usr/bin:/bin", f"LD_LIBRARY_PATH={libraries}"]
    return Keeper(name, machine, ["/usr/bin/env", *environ, program, service])


def _unpacked(folder: Path, package: str, *others: str) -> str | None:
    """A program of a Debian package of the same name, taken out of it without installing it."""
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        return None
    command = ["apt-get", "download", "-qq", package, *others]
    subprocess.run(command, cwd=folder, capture_output=True)
    for file in folder.glob("*.deb"):
        subprocess.run(["dpkg", "-x", file, folder / "root"], check=True, capture_output=True)
    program = folder / "root/usr/bin" / package
    ready = program.exists() and not subprocess.run([program, "-V"], capture_output=True).returncode
    return str(program) if ready else None


def _last(output: bytes) -> str:
    return (output.decode(errors="replace").strip().splitlines() or ["no reason was given"])[-1]
