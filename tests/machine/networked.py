"""Disposable hosts that reach one another: a bridge in a network namespace of its own, and sshd on
each with keys made for the test. Nothing of the real machine's network is seen or touched."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from machine.disposable import CronHost
from support import LONG, until

SSHD = "/usr/sbin/sshd"
_CONFIG = """Port 22
ListenAddress 0.0.0.0
HostKey /etc/ssh/key_of_test
AuthorizedKeysFile /etc/ssh/authorized_by_test
PermitRootLogin prohibit-password
UsePAM no
UseDNS no
Subsystem sftp internal-sftp
PidFile /run/sshd.pid
"""


class Network:
    """A bridge with hosts at it. ``argv`` makes a command line that runs beside the bridge."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hosts: dict[str, NetworkedHost] = {}
        # For those of ssh: a socket's path has at most 107 bytes, unix(7).
        self.sockets = tempfile.mkdtemp(prefix="rc-", dir="/tmp")
        # It holds the namespace, and does nothing.
        self._holder = subprocess.Popen(
            ["unshare", "--net", "sleep", "infinity"], stdin=subprocess.DEVNULL
        )
        self.namespace = f"/proc/{self._holder.pid}/ns/net"
        until(lambda: os.readlink(self.namespace) != os.readlink("/proc/self/ns/net"))
        self._ip("link", "set", "lo", "up")
        self._ip("link", "add", "bridge", "type", "bridge")
        self._ip("address", "add", "10.77.0.254/24", "dev", "bridge")
        self._ip("link", "set", "bridge", "up")
        for name in ("user", "host"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / f"{name}_key"],
                check=True,
            )

    def __enter__(self) -> Network:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        for pid in self._processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._holder.wait(LONG)
        for host in self.hosts.values():
            host.close()
        shutil.rmtree(self.sockets)

    def argv(self, *argv: str | Path) -> list[str]:
        """The command line that runs a command in the bridge's namespace."""
        return ["nsenter", f"--net={self.namespace}", *map(str, argv)]

    def add(self, name: str) -> NetworkedHost:
        """A host that is up, with its address and its sshd."""
        host = NetworkedHost()
        self.hosts[name] = host
        host.boot()
        number = len(self.hosts)
        host.address = f"10.77.0.{number}"
        theirs = f"/proc/{os.getpid()}/fd/{host.net}"
        port = f"port{number}"
        self._ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", theirs)
        self._ip("link", "set", port, "master", "bridge")
        self._ip("link", "set", port, "up")
        host.run("ip", "address", "add", f"{host.address}/24", "dev", "eth0")
        host.run("ip", "link", "set", "eth0", "up")
        host.write("/etc/ssh/key_of_test", (self.folder / "host_key").read_bytes(), 0o600)
        host.write("/etc/ssh/authorized_by_test", (self.folder / "user_key.pub").read_bytes())
        host.write("/etc/ssh/sshd_of_test", _CONFIG)
        host.run("mkdir", "-p", "/run/sshd", "/opt/reconcile/bin")
        host.run("ln", "-s", f"{host.bin}/reconcile", "/opt/reconcile/bin/reconcile")
        host.run(SSHD, "-f", "/etc/ssh/sshd_of_test")
        return host

    def inventory(self) -> str:
        """All hosts, as Ansible has them."""
        known = self.folder / "known_hosts"
        key = " ".join((self.folder / "host_key.pub").read_text().split()[:2])
        known.write_text("".join(f"{one.address} {key}\n" for one in self.hosts.values()))
        common = f"-o UserKnownHostsFile={known} -o StrictHostKeyChecking=yes -o IdentitiesOnly=yes"
        lines = [f"{name} ansible_host={one.address}" for name, one in self.hosts.items()]
        return "\n".join([
            *lines, "[all:vars]", "ansible_user=root",
            "ansible_python_interpreter=" + sys.executable,
            f"ansible_ssh_private_key_file={self.folder}/user_key",
            f"ansible_ssh_common_args='{common}'", "",
        ])  # fmt: skip

    def unplug(self, name: str) -> None:
        """Its cable is drawn: nothing answers any more."""
        number = list(self.hosts).index(name) + 1
        self._ip("link", "set", f"port{number}", "down")

    def carried(self, name: str) -> int:
        """Bytes that have gone to that host and have come from it."""
        port = f"port{list(self.hosts).index(name) + 1}"
        argv = self.argv("ip", "-j", "-s", "link", "show", port)
        (found,) = json.loads(subprocess.run(argv, check=True, capture_output=True).stdout)
        return int(found["stats64"]["rx"]["bytes"] + found["stats64"]["tx"]["bytes"])

    def _ip(self, *argv: str) -> None:
        subprocess.run(self.argv("ip", *argv), check=True)

    def _processes(self) -> Iterator[int]:
        """All that runs in the bridge's namespace."""
        ours = os.stat(self.namespace)
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and os.path.samestat(ours, (entry / "ns/net").stat()):
                    yield int(entry.name)


class NetworkedHost(CronHost):
    """A host with cron and sshd, whose ``address`` is given by its network."""

    address = ""

    @property
    def net(self) -> int:
        """A descriptor of its network namespace."""
        return self._fds["net"]

    def stop_sshd(self) -> None:
        """It takes connections from now on, and never says a word; nor do those that are there."""
        self.run("kill", "-STOP", *map(str, self.running("sshd")))
