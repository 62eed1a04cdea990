"""A Linux host that a test may break: a real init on a copy of the real root, gone afterwards.

It shows the real machine's files, and keeps what it writes to itself. Nothing outside may change,
and nothing of it may be left when the test has ended, has failed or has been killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from machine.possible import PATH
from support import CHECKOUT, LONG, until

HERE = Path(__file__).resolve().parent
SYSTEMD = "/lib/systemd/systemd"
# What would reach the real machine from in there: its clock, its kernel and its devices.
CAPS = "-sys_time,-sys_module,-sys_rawio,-mknod,-syslog,-mac_admin,-audit_read,-wake_alarm"
NAMESPACES = {"mnt": "--mount", "uts": "--uts", "ipc": "--ipc", "net": "--net", "pid": "--pid",
              "cgroup": "--cgroup"}  # fmt: skip

# Joins the host's control group from outside, where it still can be reached. Whether this process
# lives is seen in there by what it has open: /proc/PID/stat, proc(5).
JOIN = 'echo $$ >"$0"; exec 9</proc/$$/stat; exec "$@"'
WRITE = """
parent() {
    [ -d "$1" ] || { parent "$(dirname "$1")" "$2"; mkdir "$1"; chown "$2:" "$1"; }
}
parent "$(dirname "$1")" "$2"
rm -f "$1"
(umask 077; cat >"$1")
chown "$2:" "$1"
chmod "$3" "$1"
"""


class DisposableHost:
    """A host with systemd. ``boot`` it, ``run`` commands, ``reboot`` it, ``close`` it."""

    _look: tuple[str, ...] = ("journalctl", "-b", "-n", "60", "--no-pager")

    def __init__(self) -> None:
        self._holder: subprocess.Popen[str] | None = None
        self._fds: dict[str, int] = {}
        self._target = ""
        self.bin = Path(sys.executable).parent

    def __enter__(self) -> DisposableHost:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def boot(self, target: str = "multi-user.target") -> None:
        """Switch it on, and wait until it is up. Raises AssertionError with what went wrong."""
        if self._holder is None:
            self._start_holder()
        self._target = target
        answer = self._order(boot=self._init())
        self._open(answer["pid"], answer["group"])
        self._wait_until_up()

    def reboot(self) -> None:
        """Pull the plug, and switch it on again. Files stay, but for /run, /tmp and /dev."""
        self.kill()
        self.boot(self._target)

    def kill(self) -> None:
        """Pull the plug: all processes end at once, by SIGKILL."""
        self._close_fds()
        self._order(stop=True)

    def close(self) -> None:
        """End it, and remove all of it."""
        self._close_fds()
        holder, self._holder = self._holder, None
        if holder is None:
            return
        assert holder.stdin and holder.stdout
        with contextlib.suppress(BrokenPipeError):
            holder.stdin.close()
        try:
            holder.wait(LONG)
        finally:
            holder.kill()
            holder.wait()
            rest = holder.stdout.read()
            holder.stdout.close()
        assert (holder.returncode, rest) == (0, ""), f"the holder ended badly: {rest}"

    def argv(
        self, *argv: str | Path, user: str = "root", environ: dict[str, str] | None = None
    ) -> list[str]:
        """The command line that runs a command in there, from out here; for Popen.

        It gets what a login gives. What is in ``environ`` can be seen in the argument list.
        """
        assert self._fds, "it is not up"
        # Through this process's descriptors and not by number: a number may be another's by now.
        fds = {name: f"/proc/{os.getpid()}/fd/{fd}" for name, fd in self._fds.items()}
        wanted = {"PATH": PATH, "LANG": "C.UTF-8", **(environ or {})}
        return [
            "sh", "-c", JOIN, fds["group"],
            "nsenter", *(f"{option}={fds[name]}" for name, option in NAMESPACES.items()),
            f"--root={fds['root']}", f"--wd={fds['root']}",
            "sh", str(HERE / "enter.sh"), user, CAPS,
            *(f"{name}={value}" for name, value in wanted.items()), *map(str, argv),
        ]  # fmt: skip

    def run(
        self,
        *argv: str | Path,
        input: str | bytes | None = None,
        user: str = "root",
        environ: dict[str, str] | None = None,
        timeout: float = LONG,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in there to its end, as if that user had just logged in.

        Raises subprocess.TimeoutExpired, and AssertionError when it fails unless ``check`` is
        false.
        """
        done = self._run(self.argv(*argv, user=user, environ=environ), input, timeout)
        out, err = (text.decode(errors="replace") for text in (done.stdout, done.stderr))
        said = f"{' '.join(map(str, argv))}: status {done.returncode}\n{out}{err}"
        assert not (check and done.returncode), said
        return subprocess.CompletedProcess(list(map(str, argv)), done.returncode, out, err)

    def write(
        self, path: str | Path, content: str | bytes, mode: int = 0o644, owner: str = "root"
    ) -> None:
        """Make or replace a file in there, with its missing parents, which get the same owner."""
        self.run("sh", "-ec", WRITE, "write", path, owner, f"{mode:o}", input=content)

    def read(self, path: str | Path) -> str:
        """What a file in there holds."""
        return self.run("cat", path).stdout

    def exists(self, path: str | Path) -> bool:
        """Is there such a file in there?"""
        return not self.run("test", "-e", path, check=False).returncode

    def path(self, path: str | Path) -> Path:
        """A file in there, as it can be reached from out here until the next boot.

        Symlinks are followed now, in there: out here they would lead into the real machine.
        """
        real = self.run("realpath", "-m", path).stdout.rstrip("\n")
        return Path(f"/proc/{os.getpid()}/fd/{self._fds['root']}{real}")

    def running(self, text: str) -> list[int]:
        """The numbers, in there, of the processes whose command line holds that text."""
        found = []
        for entry in Path(f"/proc/{os.getpid()}/fd/{self._fds['root']}/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                if text in line.decode(errors="replace"):
                    found.append(int(entry.name))
        return sorted(found)

    def outside(self) -> set[int]:
        """The numbers, out here, of all its processes, and of the one that holds it."""
        assert self._holder
        lists = [path.read_text().split() for path in self._groups.rglob("cgroup.procs")]
        return {self._holder.pid, *(int(number) for numbers in lists for number in numbers)}

    def until(self, condition: Callable[[], Any], seconds: float = LONG) -> Any:
        """Like ``support.until``, with what the host's journal says when it never comes true."""

        def alive_and_true() -> Any:
            assert self._alive(), "it is dead"
            return condition()

        try:
            return until(alive_and_true, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self._journal()}") from None

    def add_user(self, name: str, linger: bool = False) -> int:
        """Make an ordinary user with a home, and with ``linger`` a service manager of its own
        that starts at boot. Returns its number."""
        self.run("useradd", "--create-home", "--shell", "/bin/bash", name)
        uid = int(self.run("id", "-u", name).stdout)
        if linger:
            self.run("loginctl", "enable-linger", name)
            self.until(lambda: self.user_manager(name) == "running")
        return uid

    def admit(self) -> None:
        """Let everybody in there come to the program that is tested, wherever it lies."""
        shown = (self.bin.parent, Path(sys.base_prefix), CHECKOUT)
        self.run("chmod", "o+x", *{parent for path in shown for parent in path.parents})

    def user_manager(self, name: str) -> str:
        """What the service manager of that user says of itself, "running" when all is well."""
        done = self.run("systemctl", "--user", "is-system-running", user=name, check=False)
        return done.stdout.strip()

    def _init(self) -> list[str]:
        return [SYSTEMD, "--system", f"--unit={self._target}", "--show-status=no"]

    def _wait_until_up(self) -> None:
        state = self.until(self._ended_booting, 60)
        if state != "running":
            failed = self.run("systemctl", "--failed", "--plain", "--no-legend", check=False).stdout
            raise AssertionError(f"it is {state}:\n{failed}\n{self._journal()}")

    def _ended_booting(self) -> str | None:
        done = self.run("systemctl", "is-system-running", check=False)
        state = done.stdout.strip()
        return state if state in ("running", "degraded", "maintenance", "stopping") else None

    def _journal(self) -> str:
        printed: str = self._order(log=True)["log"]
        if "group" not in self._fds or not self._alive():
            return printed  # Nobody is there, or not yet, who could be asked.
        return printed + self.run(*self._look, check=False).stdout

    def _alive(self) -> bool:
        try:
            os.stat("stat", dir_fd=self._fds["process"])
        except (KeyError, OSError):
            return False
        return True

    def _start_holder(self) -> None:
        self._holder = subprocess.Popen(
            # -I and -S: it needs the standard library only, and has to be quick.
            ["unshare", "--mount", "--propagation", "private",
             sys.executable, "-I", "-S", HERE / "holder.py"],
            env={"PATH": PATH, "LANG": "C.UTF-8"}, cwd="/", start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        )  # fmt: skip
        try:
            show = [str(CHECKOUT), sys.prefix, sys.base_prefix, str(HERE)]
            self.mark = self._order(show=show, caps=CAPS)["mark"]
        except BaseException:
            self.close()
            raise

    def _order(self, **order: Any) -> dict[str, Any]:
        """Have the holder do something. Raises AssertionError with its reason."""
        assert self._holder and self._holder.stdin and self._holder.stdout, "it is closed"
        self._holder.stdin.write(json.dumps(order) + "\n")
        ready, _, _ = select.select([self._holder.stdout], [], [], 60)
        assert ready, f"the holder does not answer to {order}"
        line = self._holder.stdout.readline()
        answer: dict[str, Any] = json.loads(line or '{"error": "the holder has ended"}')
        assert "error" not in answer, answer["error"]
        return answer

    def _open(self, pid: int, group: str) -> None:
        """Take hold of process 1: from here on its number no longer matters."""
        assert self._holder
        self._groups = Path(f"/proc/{self._holder.pid}/root{group}")
        try:
            fds = self._fds
            process = fds["process"] = os.open(f"/proc/{pid}", os.O_PATH | os.O_DIRECTORY)
            for name in NAMESPACES:
                fds[name] = os.open(f"ns/{name}", os.O_RDONLY, dir_fd=process)
            fds["root"] = os.open("root", os.O_PATH | os.O_DIRECTORY, dir_fd=process)
            fds["group"] = os.open(self._groups / "tests" / "cgroup.procs", os.O_WRONLY)
        except OSError as error:
            raise AssertionError(f"it is dead: {error}\n{self._journal()}") from None
        # The right one, and after its boot.sh: before that it still had the real root.
        with open(os.open("run/disposable", os.O_RDONLY, dir_fd=fds["root"])) as file:
            assert file.read() == f"{self.mark}\n"

    def _close_fds(self) -> None:
        fds, self._fds = self._fds, {}
        for fd in fds.values():
            os.close(fd)

    def _run(
        self, argv: list[str], input: str | bytes | None, timeout: float
    ) -> subprocess.CompletedProcess[bytes]:
        """Its descriptors are ours, so that nothing of the terminal gets in."""
        given = input.encode() if isinstance(input, str) else input
        source: dict[str, Any] = {"stdin": subprocess.DEVNULL} if given is None else {}
        return subprocess.run(
            argv, input=given, capture_output=True, timeout=timeout, cwd="/",
            env={"PATH": PATH}, start_new_session=True, **source,
        )  # fmt: skip


class CronHost(DisposableHost):
    """A host without systemd, on which Debian's cron runs. Its crontabs are its own."""

    _look = ("ps", "axf")

    def boot(self, target: str = "") -> None:
        """Switch it on, and wait until cron has its jobs. There is no target to choose."""
        super().boot(target)

    def _init(self) -> list[str]:
        return [sys.executable, "-I", "-S", str(HERE / "small_init.py"), "/usr/sbin/cron", "-f"]

    def _wait_until_up(self) -> None:
        # cron makes this one when it has read the crontabs, so that @reboot happens once a boot.
        self.until(lambda: self.exists("/run/crond.reboot"))
