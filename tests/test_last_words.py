"""What is told of what a process said last: why it ended, before all else."""

from __future__ import annotations

import pytest

from reconciler.kinds.process.last_words import telling

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
