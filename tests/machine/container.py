"""A container of a real OCI runtime, as an image of Docker or Podman would run: read-only, with few
rights, no init but ours.

Nothing of it may be left when the test has ended, nor may it write to the real machine but to what
it is lent.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from machine.possible import PATH
from support import CHECKOUT, LONG

HERE = Path(__file__).resolve().parent
NAMESPACES = ("pid", "network", "ipc", "uts", "mount")
USUAL = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
         "NET_BIND_SERVICE", "NET_RAW", "SYS_CHROOT", "MKNOD", "AUDIT_WRITE",
         "SETFCAP")  # fmt: skip
"""What Docker leaves to root."""
FORBIDDEN = ("keyctl", "add_key", "request_key", "unshare", "setns", "mount", "umount2",
             "pivot_root", "bpf", "perf_event_open", "userfaultfd", "swapon", "reboot",
             "kexec_load")  # fmt: skip
"""Of what Docker's profile of seccomp forbids to all, what we or our tools could want."""


class Container:
    """One container. ``start`` it, ``run`` commands in it, ``stop`` it."""

    def __init__(self, base: Path, mark: str) -> None:
        self._base, self._mark = base, f"t{mark}"
        self._runtime: subprocess.Popen[bytes] | None = None
        self._printed = b""

    def __enter__(self) -> Container:
        return self

    def __exit__(self, *_: object) -> None:
        if self._runtime is not None:
            if self._runtime.poll() is None:
                self.send(signal.SIGKILL)
            self._runtime.communicate()

    def start(
        self,
        *argv: str | Path,
        uid: int = 1000,
        lent: Mapping[str, Path] | None = None,
        environ: Mapping[str, str] | None = None,
        users: bool = False,
    ) -> None:
        """Run it with ``argv`` as process 1; ``lent`` folders are its volumes.

        ``users``: in a user namespace in which that uid is nobody's but 0's, as rootless Podman.
        """
        self.__exit__()
        for name in ("overlay", "root", "state"):
            (self._base / name).mkdir(exist_ok=True)
        shown = {CHECKOUT, Path(sys.prefix), Path(sys.base_prefix)}
        config = _config(argv, uid, shown, lent or {}, environ or {})
        if users:
            maps = [{"containerID": 0, "hostID": uid, "size": 1}]
            config["process"]["user"] = {"uid": 0, "gid": 0}
            config["linux"]["namespaces"].append({"type": "user"})
            config["linux"] |= {"uidMappings": maps, "gidMappings": maps}
        (self._base / "config.json").write_text(json.dumps(config))
        admit = sorted({str(parent) for path in shown for parent in path.parents} - {"/"})
        given = {
            "PATH": PATH, "BUNDLE": str(self._base), "MARK": self._mark, "UID_OF": str(uid),
            "VOLUMES": " ".join(lent or {}), "ADMIT": "\n".join(admit),
        }  # fmt: skip
        self._runtime = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", HERE / "container.sh"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=given, cwd="/",
        )  # fmt: skip
        assert self._runtime.stdout
        os.set_blocking(self._runtime.stdout.fileno(), False)

    @property
    def has_ended(self) -> bool:
        """Is process 1, and with it all else, no more?"""
        return self._runtime is None or self._runtime.poll() is not None

    @property
    def output(self) -> str:
        """What it has printed until now."""
        assert self._runtime and self._runtime.stdout
        self._printed += self._runtime.stdout.read() or b""
        return self._printed.decode()

    def argv(self, *argv: str | Path, uid: int = 1000) -> list[str | Path]:
        """The command line that runs a command in there, as ``docker exec`` does; for Popen."""
        return self._crun("exec", "--user", f"{uid}:{uid}", self._mark, *argv)

    def run(
        self, *argv: str | Path, uid: int = 1000, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in there to its end. Raises AssertionError when it fails."""
        done = subprocess.run(
            self.argv(*argv, uid=uid), stdin=subprocess.DEVNULL, text=True, capture_output=True,
            env={"PATH": PATH}, cwd="/", timeout=LONG,
        )  # fmt: skip
        assert not (check and done.returncode), done.stdout + done.stderr + self.output
        return done

    def processes(self) -> dict[int, str]:
        """The processes in there, the dead too: their numbers and command lines, [name] if dead."""
        lines = self.run("ps", "-e", "-o", "pid=,stat=,args=", uid=0).stdout.splitlines()
        found = (line.split(None, 2) for line in lines)
        return {int(pid): line for pid, state, line in found if not line.startswith("ps ")}

    def send(self, number: signal.Signals) -> None:
        """Send it to process 1, as ``docker kill`` does."""
        subprocess.run(
            self._crun("kill", self._mark, number.name), check=True, env={"PATH": PATH}, cwd="/",
            capture_output=True,
        )  # fmt: skip

    def stop(self, seconds: float = LONG, how: signal.Signals = signal.SIGTERM) -> int:
        """End it as ``docker stop`` does; its exit status, as Docker has it (137: killed)."""
        assert self._runtime
        self.send(how)
        try:
            return self._runtime.wait(seconds)
        except subprocess.TimeoutExpired:
            self.send(signal.SIGKILL)
            return self._runtime.wait(LONG)

    def wait(self) -> int:
        """The exit status with which it ends by itself."""
        assert self._runtime
        return self._runtime.wait(LONG)

    def _crun(self, *words: str | Path) -> list[str | Path]:
        assert self._runtime
        # Where it runs there are the control groups that it was made with.
        into = ["nsenter", f"--mount=/proc/{self._runtime.pid}/ns/mnt", "--"]
        return [*into, "crun", "--root", self._base / "state", *words]


def _config(
    argv: Sequence[str | Path],
    uid: int,
    shown: set[Path],
    lent: Mapping[str, Path],
    environ: Mapping[str, str],
) -> dict[str, Any]:
    """What Docker would ask of its runtime for ``docker run --read-only --tmpfs /tmp --user``."""
    caps = [f"CAP_{name}" for name in USUAL]
    mine = caps if uid == 0 else []
    usual = {"HOME": "/", "HOSTNAME": "box", **environ}
    mounts: list[dict[str, Any]] = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        _tmpfs("/dev", "nosuid", "strictatime", "mode=755"),
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
         "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs",
         "options": ["nosuid", "noexec", "nodev", "ro"]},
        _tmpfs("/tmp", "nosuid", "nodev", "mode=1777"),
        *(_bind(str(path), path, "ro") for path in sorted(shown)),
        *(_bind(where, path, "rw") for where, path in lent.items()),
    ]  # fmt: skip
    rules = [{"names": list(FORBIDDEN), "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]
    return {
        "ociVersion": "1.0.0",
        "hostname": "box",
        "root": {"path": "root", "readonly": True},
        "mounts": mounts,
        "process": {
            "args": [str(word) for word in argv],
            "cwd": "/",
            "env": [f"{name}={value}" for name, value in {"PATH": PATH, **usual}.items()],
            "user": {"uid": uid, "gid": uid},
            "noNewPrivileges": True,
            "capabilities": {"bounding": caps, "effective": mine, "permitted": mine},
        },
        "linux": {
            "namespaces": [{"type": name} for name in NAMESPACES],
            "seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules},
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"],
        },
    }


def _tmpfs(where: str, *options: str) -> dict[str, Any]:
    return {"destination": where, "type": "tmpfs", "source": "tmpfs", "options": list(options)}


def _bind(where: str, path: Path, access: str) -> dict[str, Any]:
    options = ["rbind", access, "nosuid", "nodev"]
    return {"destination": where, "type": "bind", "source": str(path), "options": options}
