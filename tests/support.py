"""Tools for tests: waiting with a bound, and a corner of the real machine."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from reconciler import kinds
from reconciler.base.values import Facts
from reconciler.config import load
from reconciler.core.model import Spec

SYSTEM = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
CHECKOUT = Path(__file__).resolve().parent.parent
FAKES = CHECKOUT / "tests/fakes"


LONG = 120.0
"""Seconds in which something ends on whatever machine. Only what hangs takes so long."""
LIKE = [sys.executable, "-I", "-c", ""]
"""A new interpreter: it takes processor, memory and disk, as all that the tests wait for."""
_LOADED = 25
"""So many times as long as this machine takes for that may come to a promised time by load."""


def allowed(seconds: float) -> float:
    """The promised seconds, with what this machine is slow by, or was until a moment ago."""
    begin, before = time.monotonic(), os.times()
    for _ in range(3):
        subprocess.run(LIKE, check=True)
    took, now = time.monotonic() - begin, os.times()
    used = now.children_user + now.children_system - before.children_user - before.children_system
    # The load of the last minute tells what the same would have taken then.
    crowd = os.getloadavg()[0] / (os.cpu_count() or 1)
    return seconds + _LOADED * max(took, used * crowd) / 3


def late(took: float, seconds: float) -> bool:
    """Has it taken longer than promised? Only then it matters how slow the machine is."""
    return took >= seconds and took >= allowed(seconds)


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Fails the test when what is done here takes longer than promised."""
    begin = time.monotonic()
    yield
    took = time.monotonic() - begin
    assert not late(took, seconds), f"took {took:.1f} s instead of {seconds:g}"


def until(condition: Callable[[], Any], seconds: float = LONG) -> Any:
    """What the condition says as soon as it is true.

    Fails the test when it is not within so many seconds, and what the machine is slow by.
    """
    begin = time.monotonic()
    end, final = begin + seconds, False
    while True:
        asked = time.monotonic()
        value = condition()
        if value:
            return value
        now = time.monotonic()
        if now > end:
            if final:
                raise AssertionError(f"did not come true within {seconds:g} s")
            end, final = begin + allowed(seconds), True
        # What is waited for wants the processors that are looked with.
        time.sleep(min(max(0.01, 5 * (now - asked)), 0.2))


def free_port() -> int:
    """A port that nobody listens at, and that no connection of another test is given."""
    while True:
        port = random.randrange(10_000, 30_000)  # The kernel gives others, ip(7).
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def freeze(pid: int) -> None:
    """Stop a process, and wait until it has: it has to be given a processor for that."""
    os.kill(pid, signal.SIGSTOP)
    until(lambda: "State:\tT" in Path(f"/proc/{pid}/status").read_text())


def open_files() -> Counter[str]:
    """What this process holds open. Not the numbers: those of earlier tests may be free by now."""
    found: Counter[str] = Counter()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # The one that the folder was read by.
            found[os.readlink(f"/proc/self/fd/{name}")] += 1
    return found


def passed(seconds: float, since: float | None = None) -> None:
    """Wait until so many seconds are over: the time itself is what the test is about."""
    end = (time.monotonic() if since is None else since) + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(left)


def is_tmux(line: str) -> bool:
    """Is this the command line of a tmux server? It keeps that of the client that started it."""
    return os.path.basename(line.split(" ")[0]).rstrip(":") == "tmux"


def is_server(pid: int) -> bool:
    """Is that a tmux server, and no client? Not one that has ended meanwhile."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().startswith("tmux: server")
    except OSError:
        return False


def is_about_to_execute(pid: int, lines: Mapping[int, str]) -> bool:
    """Is that a fork on its way to another program, as a shell's for each of its commands?

    ``lines`` has the command lines by number. One that was forked to stay waits for something.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return True
    state, parent, flags = fields[0], int(fields[1]), int(fields[6])
    forked = bool(flags & 0x40)  # PF_FORKNOEXEC of linux/sched.h
    return forked and state in "RD" and lines.get(parent) == lines[pid]


def is_executing(pid: int) -> bool:
    """Is that between one program and the next, when it has no command line and no surroundings?

    Those of the kernel and what has ended have none either.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    of_the_kernel = bool(int(fields[6]) & 0x200000)  # PF_KTHREAD of linux/sched.h
    return fields[0] not in "ZX" and not of_the_kernel


def told_of(entry: Path) -> tuple[bytes, bytes]:
    """The command line of a process and its surroundings, by its folder in /proc."""
    for _ in range(100):
        if (line := (entry / "cmdline").read_bytes()) or not is_executing(int(entry.name)):
            break
        time.sleep(0.01)
    # It may begin to execute just now; some have none at all.
    looks = ((entry / "environ").read_bytes() for _ in range(3 if line else 1))
    return line, next(filter(None, looks), b"")


class Machine:
    """A corner of the real machine: own home, own tmux servers, own state directory."""

    def __init__(self, base: Path, sockets: Path) -> None:
        self.base = base
        self.home = base / "home"
        self.state = base / "state"
        self.sockets = sockets
        self.spool = base / "spool"
        self.bin = Path(sys.executable).parent
        self.mark = f"{1000 + os.getpid() % 9000}.{time.time_ns() % 10**12:012}"
        """A duration for sleep(1) by which nobody else on this machine finds a process."""
        self.environ = {
            "HOME": str(self.home),
            # The crontabs of this machine are out of reach, whoever runs the tests, and of what
            # a test that was killed has left running when its folder is gone, too.
            "PATH": f"{base}/fakes:{FAKES}:{self.bin}:{SYSTEM}",
            "TMUX_TMPDIR": str(sockets),
            "LANG": "C.UTF-8",
            # Of the shells that people have, the one that forks for a last command too.
            "SHELL": "/bin/sh",
        }
        self.spool.mkdir()
        self.fake(
            "crontab",
            f"CRON_SPOOL={self.spool} CRON_USER={getpass.getuser()} exec {FAKES}/crontab",
        )

    @property
    def real_path(self) -> str:
        """Its PATH, but with this machine's own programs: for namespaces of one's own."""
        parts = self.environ["PATH"].split(":")
        return ":".join(one for one in parts if one not in (f"{self.base}/fakes", str(FAKES)))

    def fake(self, name: str, command: str) -> None:
        """Put a program in front of the real one; what runs in tmux finds it too."""
        program = self.base / "fakes" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\n{command} "$@"\n')
        program.chmod(0o755)

    def run(self, *argv: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a program to its end, with this machine's surroundings."""
        environ = {**self.environ, **options.pop("environ", {})}
        return subprocess.run(
            [str(word) for word in argv],
            env=environ, stdin=subprocess.DEVNULL, text=True, timeout=LONG,
            **{"cwd": self.base, "capture_output": True, **options},
        )  # fmt: skip

    def argv(self, *argv: str | Path) -> list[str | Path]:
        """The command line of ``reconcile`` with this machine's state directory."""
        return [self.bin / "reconcile", *argv, "--state-dir", self.state]

    def reconcile(self, *argv: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run ``reconcile`` to its end."""
        return self.run(*self.argv(*argv), **options)

    def spec(self, text: str, name: str = "spec.yaml") -> Path:
        """Write a spec; ``version`` and ``name`` are put in front unless it has them."""
        path = self.base / name
        head = "" if "version:" in text else "version: 1\nname: demo\n"
        path.write_text(head + text)
        return path

    def plan(self, spec: Path, *options: str) -> dict[str, Any]:
        """The plan, read from its JSON."""
        done = self.reconcile("--plan", spec, "--json", *options)
        assert done.returncode in (0, 1), done.stderr
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    def steps(self, spec: Path, *options: str) -> list[str]:
        """The ids that the plan would change."""
        return [step["id"] for step in self.plan(spec, *options)["steps"]]

    def once(self, spec: Path, *options: str, status: int = 0) -> dict[str, Any]:
        """One pass, with its report; it must end with that exit status."""
        done = self.reconcile("--once", spec, "--json", *options)
        assert done.returncode == status, done.stdout + done.stderr
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    def converged(self, spec: Path, *options: str) -> None:
        """Asserts that the plan is empty, and that nothing is unknown."""
        plan = self.plan(spec, *options)
        assert (plan["steps"], plan["unknown"]) == ([], [])

    @property
    def crontab(self) -> Path:
        """The caller's crontab in the private spool of the stand-in for crontab(1)."""
        return self.spool / getpass.getuser()

    def write_crontab(self, text: bytes) -> None:
        """Give the caller a crontab, as crontab(1) keeps it."""
        self.crontab.write_bytes(b"# DO NOT EDIT THIS FILE\n# (x)\n# (y)\n" + text)

    def crontab_text(self) -> bytes | None:
        """The caller's crontab without the header; None when there is none."""
        if not self.crontab.exists():
            return None
        return self.crontab.read_bytes().split(b"\n", 3)[3]

    def tmux(self, *argv: str, socket: str = "default") -> str:
        """What a tmux command prints."""
        return self.run("tmux", "-u", "-L", socket, *argv).stdout

    def ours(self) -> dict[int, str]:
        """The processes that were started here, by their number, with their command line."""
        wanted = f"TMUX_TMPDIR={self.sockets}".encode()
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                line, environ = told_of(entry)
                if wanted in environ.split(b"\0"):
                    text = line.replace(b"\0", b" ").decode(errors="replace")
                    found[int(entry.name)] = text.strip()
            except OSError:
                continue
        return found

    def running(self, text: str) -> list[int]:
        """The processes started here whose command line holds that text; no tmux server.

        None that has just been forked, either: it has the line of its parent until it executes.
        """
        lines = self.ours()
        found = [pid for pid, line in lines.items() if text in line and not is_tmux(line)]
        return [pid for pid in found if not is_about_to_execute(pid, lines)]

    def only(self, text: str) -> int:
        """The one process of that kind, once it is alone."""
        (pid,) = until(lambda: len(found := self.running(text)) == 1 and found)
        return int(pid)

    def server(self) -> int:
        """The number of the only tmux server here."""
        found = [pid for pid, line in self.ours().items() if is_tmux(line)]
        (pid,) = (pid for pid in found if is_server(pid))
        return pid

    def traced(self, calls: str, *argv: str | Path, options: Sequence[str] = ()) -> str:
        """Run a program to its end under strace, with its children; the lines of the trace.

        ``calls`` is what strace -e takes; execve must be among them.
        """
        trace = self.base / "trace"
        trace.unlink(missing_ok=True)
        strace = subprocess.Popen(
            ["strace", "-f", "-s", "9999", "-e", calls, *options, "-o", trace, *argv],
            env=self.environ, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

        def ended() -> bool:
            # What the program starts and leaves behind is followed too, and never ends. A number
            # of less than five digits is filled up with blanks.
            lines = read().splitlines()
            first = lines[0].split()[0] if lines else "none"
            return any(re.match(rf"{first} +\+\+\+ (exited|killed)", line) for line in lines)

        def read() -> str:
            return trace.read_text(errors="replace") if trace.exists() else ""

        try:
            until(ended)
        finally:
            # Asked politely it would wait for what it follows; killed, it just lets go.
            strace.kill()
            strace.wait()
        return read()

    def clear(self) -> None:
        """End what was started here, each by its number."""

        def gone() -> bool:
            # A watchdog among them may be starting others just now.
            left = self.ours()
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not left

        until(gone)


def ends_before_it_is_proved(ident: str, number: Path) -> str:
    """For ``sitecustomize.py``: a pass asks whether that start has held once what has written its
    number into the file has ended, however late it came to run on a loaded machine."""
    return f"""
import time
from reconciler.core.proving import Proving
def ended():
    pid = 0
    try:
        with open({str(number)!r}) as file:
            pid = int(file.read() or 0)
        with open(f"/proc/{{pid}}/stat") as file:
            return ") Z " in file.read()
    except OSError:
        return pid > 0
def wait(self, ids):
    while {ident!r} in self._fresh.keys() & set(ids) and not ended():
        time.sleep(0.01)
    return before(self, ids)
before, Proving.wait = Proving.wait, wait
"""


def changes(trace: str) -> list[str]:
    """The lines of a trace that change something: files, or processes that are not its own."""
    own = {line.split(" ")[0] for line in trace.splitlines()}
    found = []
    for line in trace.splitlines():
        killed = re.search(r" kill\(-?(\d+), ", line)
        opened = " openat(" in line and "O_WRONLY" not in line and "O_RDWR" not in line
        quiet = opened or "/dev/null" in line or "+++" in line or " execve(" in line
        if not (quiet or "---" in line or "resumed>" in line or (killed and killed[1] in own)):
            found.append(line)
    return found


def facts(home: Path, **changed: Any) -> Facts:
    """Facts of a host that has everything."""
    values: dict[str, Any] = {
        "user_name": "me",
        "user_home": str(home),
        "user_uid": os.geteuid(),
        "host_name": "host",
        "systemd": True,
        "crontab": True,
        "tmux": True,
        "state_dir": str(home / "state"),
    }
    return Facts(**{**values, **changed})


def compiled(
    folder: Path, text: str, host: Mapping[str, Any] = MappingProxyType({}), **settings: str
) -> Spec:
    """The spec with that text; ``version`` and ``name`` are put in front unless it has them.

    ``host`` are facts that differ from those of a host that has everything.
    """
    path = folder / "spec.yaml"
    path.write_text(("" if "version:" in text else "version: 1\nname: demo\n") + text)
    return load(
        str(path),
        all_kinds=kinds.all_kinds,
        facts=facts(folder, **host),
        settings=lambda: settings,
        environ={},
        state_dir=None,
        write_cache=False,
    )
