"""Disposable hosts for tests: one with systemd, one with cron and without systemd."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from machine.disposable import SYSTEMD, CronHost, DisposableHost
from machine.possible import why_not
from support import CHECKOUT, Machine

_CLONE_NEWNS = 0x00020000  # unshare(2)


@pytest.fixture
def systemd_host(free: None) -> Iterator[DisposableHost]:
    """A host with systemd that has just booted. Mark the test ``root``."""
    yield from booted(DisposableHost, SYSTEMD)


@pytest.fixture
def cron_host(free: None) -> Iterator[CronHost]:
    """A host without systemd, whose cron has just been started. Mark the test ``root``."""
    yield from booted(CronHost, "cron")


def booted(made: type[DisposableHost], program: str) -> Iterator[DisposableHost]:
    if reason := why_not(program):
        pytest.skip(reason)
    with made() as host:
        host.boot()
        yield host


@pytest.fixture
def own_mounts() -> Iterator[None]:
    """Nobody else sees what is mounted here: a pass elsewhere would act otherwise beside it."""
    libc, here = ctypes.CDLL(None, use_errno=True), os.getcwd()
    with open("/proc/thread-self/ns/mnt") as before:
        if libc.unshare(_CLONE_NEWNS):
            pytest.skip("no mount namespace can be had here")
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        yield
        assert libc.setns(before.fileno(), _CLONE_NEWNS) == 0
    os.chdir(here)


@pytest.fixture
def mute(machine: Machine, own_mounts: None) -> Iterator[Callable[..., Path]]:
    """Mounts file systems that answer late or not at all, by what ``mute.py`` is given.

    Mark the test ``root``.
    """
    if not Path("/dev/fuse").exists():
        pytest.skip("there is no /dev/fuse")
    servers: list[tuple[Path, subprocess.Popen[str]]] = []

    def mount(*requests: str) -> Path:
        folder = machine.base / f"mnt{len(servers)}"
        folder.mkdir()
        argv = [sys.executable, CHECKOUT / "tests" / "mute.py", folder, *requests]
        server = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        servers.append((folder, server))
        assert server.stdout
        if server.stdout.readline() != "mounted\n":
            pytest.skip("FUSE cannot be mounted here")
        return folder

    yield mount
    for folder, server in servers:
        # Whoever waits for it in the kernel ends with it.
        server.kill()
        server.communicate()
        subprocess.run(["umount", "-l", folder], check=False, capture_output=True)
