"""What is told of what a process said last: why it ended, before all else."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from reconciler.host.systemd import is_routine
from reconciler.kinds.process.last_words import telling
from reconciler.kinds.unit.observed import _UnitObserver

NODE = """node:internal/modules/cjs/loader:1080
  throw err;
  ^

Error: Cannot find module 'express'
    at Module._resolveFilename (node:internal/modules/cjs/loader:1077:15)
    at node:internal/main/run_main_module:23:47 {
  code: 'MODULE_NOT_FOUND'
}

Node.js v18.19.0
"""
PYTHON = """Traceback (most recent call last):
  File "socketserver.py", line 472, in server_bind
    self.socket.bind(self.server_address)
PermissionError: [Errno 13] Permission denied
"""


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("", []),
        ("no port\n", ["no port"]),
        ("one\ntwo\n\n  three\nno port\n", ["no port", "two", "three"]),
        (
            PYTHON,
            [
                "PermissionError: [Errno 13] Permission denied",
                'File "socketserver.py", line 472, in server_bind',
                "self.socket.bind(self.server_address)",
            ],
        ),
        (
            NODE,
            [
                "Error: Cannot find module 'express'",
                "code: 'MODULE_NOT_FOUND'",
                "}",
                "Node.js v18.19.0",
            ],
        ),
        ("error: old\n" + "well\n" * 20, ["well"]),
        ("error: no disk\nGET /\nerror: no disk\nGET /\n", ["error: no disk", "GET /"]),
    ],
)
def test_the_cause_comes_first_and_nothing_twice(said: str, expected: list[str]) -> None:
    assert telling(said.splitlines()) == expected


def test_no_long_line_makes_that_slow() -> None:
    """A process of anybody's may say it, and a pass waits."""
    begun = time.process_time()
    for line in ("a" * 65536, "error_" * 10000):
        assert telling([line]) == [line]
    assert time.process_time() - begun < 2


@pytest.mark.parametrize(
    ("line", "routine"),
    [
        ("Started web.service - A web service.", True),
        ("Stopping web.service...", True),
        ("Failed to start web.service - A web service.", True),
        ("web.service: Main process exited, code=exited, status=1/FAILURE", True),
        ("web.service: Failed with result 'exit-code'.", True),
        ("web.service: Start request repeated too quickly.", False),
        ("web.service: Failed to load environment files: No such file or directory", False),
        ("Started other.service - Another one.", False),
        ("Started web", False),
        ("Failed to start", False),
        ("no port", False),
    ],
)
def test_what_systemd_logs_of_each_start_and_end_says_nothing(line: str, routine: bool) -> None:
    assert is_routine(line, "web.service") is routine


def test_a_unit_that_ends_well_and_is_started_again_needs_no_further_words() -> None:
    known = {"ActiveState": "activating", "SubState": "auto-restart", "Result": "success"}
    want = SimpleNamespace(scope="system", hides=True)
    observer: Any = SimpleNamespace(known=known, want=want, host=None, unit="a", notes=[])
    assert _UnitObserver._active(observer) is False
    assert observer.notes == ["fails and is restarted by systemd"]
