"""Whether a file is open elsewhere: asked by a lease, and else by a look that has a bound."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import Machine

from reconciler.host import openfiles
from reconciler.host.clock import Clock
from reconciler.host.openfiles import OpenFiles

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
HOLDER = "import sys, time; f = open(sys.argv[1], sys.argv[2]); print(flush=True); time.sleep(600)"


class Held:
    """A file, and who holds it open."""

    def __init__(self, base: Path) -> None:
        self.path = base / "x"
        self.path.write_text("x")
        self.folder = os.open(base, os.O_RDONLY)
        self.holders: list[subprocess.Popen[bytes]] = []

    def hold(self, mode: str = "r") -> None:
        argv = [sys.executable, "-c", HOLDER, str(self.path), mode]
        self.holders.append(subprocess.Popen(argv, stdout=subprocess.PIPE))
        assert self.holders[-1].stdout is not None
        self.holders[-1].stdout.readline()

    def let_go(self) -> None:
        while self.holders:
            with self.holders.pop() as one:
                one.kill()

    def asked(self, files: OpenFiles) -> bool | None:
        status = self.path.stat()
        return files.held_at(self.folder, "x", status.st_dev, status.st_ino)


@pytest.fixture
def held(machine: Machine) -> Iterator[Held]:
    made = Held(machine.base)
    yield made
    made.let_go()
    os.close(made.folder)


class Still(Clock):
    """A clock that stands: however long a look takes here, it is not cut off."""

    def monotonic(self) -> float:
        return 0.0


def no_lease(*_: Any) -> None:
    return None


@pytest.mark.parametrize("leases", [True, False])
@pytest.mark.parametrize("mode", ["r", "a"])
def test_who_has_it_open_is_seen(
    held: Held, leases: bool, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not leases:
        monkeypatch.setattr(openfiles, "leased", no_lease)
    free = None if os.geteuid() and not leases else False
    assert OpenFiles(Still()).held_at(held.folder, "x", *key(held)) is free
    held.hold(mode)
    assert held.asked(OpenFiles(Still())) is True
    assert held.asked(OpenFiles(Still(), asked=False)) is False
    held.let_go()
    assert held.asked(OpenFiles(Still())) is free


def key(held: Held) -> tuple[int, int]:
    status = held.path.stat()
    return status.st_dev, status.st_ino


def test_another_file_of_that_name_is_not_free(held: Held) -> None:
    device, inode = key(held)
    assert OpenFiles(Clock()).held_at(held.folder, "x", device, inode + 1) is True


def test_a_lease_needs_no_look_at_processes(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("the processes were looked through")

    monkeypatch.setattr(OpenFiles, "_look", never)
    held.hold()
    assert held.asked(OpenFiles(Clock())) is True


def test_a_look_has_an_end_and_is_taken_once(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openfiles, "leased", no_lease)
    monkeypatch.setattr(openfiles, "_STEP", 1)
    looks = []
    look = OpenFiles._look
    monkeypatch.setattr(OpenFiles, "_look", lambda self: (looks.append(self), look(self)))

    class Slow(Clock):
        """A clock by which every look at it takes half a second."""

        now = 0.0

        def monotonic(self) -> float:
            self.now += 0.5
            return self.now

    held.hold()
    clock = Slow()
    files = OpenFiles(clock)
    for _ in range(5):
        # Nobody has that open, but there was no time to look at all.
        assert files._looked_up(0, 0) is True
    assert len(looks) == 1
    assert clock.now < 10


@pytest.mark.root
@ROOT
def test_what_cannot_be_seen_is_not_taken_for_nobody(held: Held, machine: Machine) -> None:
    held.hold("a")
    os.chown(held.path, 65534, 65534)
    machine.base.chmod(0o711)
    status = held.path.stat()
    answers = {}
    for name, free in (("lease", openfiles.leased), ("no lease", no_lease)):
        said, say = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
                openfiles.leased = free
                files = OpenFiles(Clock())
                found = files.held_at(held.folder, "x", status.st_dev, status.st_ino)
                os.write(say, repr(found).encode())
            finally:
                os._exit(0)
        os.close(say)
        with open(said, "rb") as answer:
            answers[name] = answer.read().decode()
        os.waitpid(child, 0)
    # The kernel knows; somebody else's processes do not show what they have open.
    assert answers == {"lease": "True", "no lease": "None"}
