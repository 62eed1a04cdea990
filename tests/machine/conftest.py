"""Disposable hosts for tests: one with systemd, one with cron and without systemd."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from machine.disposable import SYSTEMD, CronHost, DisposableHost
from machine.possible import why_not


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
