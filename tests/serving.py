"""A status page in the background, for tests and benchmarks, asked as a program would."""

from __future__ import annotations

import http.client
import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from support import LONG, Machine, until


class Serving:
    """``reconcile --serve`` of one spec, at a port of its own."""

    def __init__(
        self, machine: Machine, spec: Path, *options: str, at: str = "127.0.0.1:0"
    ) -> None:
        self.errors = machine.base / f"page-{len(list(machine.base.iterdir()))}.errors"
        with open(self.errors, "wb") as errors:
            self.process = subprocess.Popen(
                [str(word) for word in machine.argv("--serve", at, spec, *options)],
                env=machine.environ, cwd=machine.base, text=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
            )  # fmt: skip
        assert self.process.stdout is not None
        said = self.process.stdout.readline() + self.process.stdout.readline()
        assert "the page is at http://" in said, said + self.errors.read_text()
        self.url = said.split("the page is at ")[1].split(";")[0]
        self.port = int(self.url.rstrip("/").rpartition(":")[2])

    @property
    def pid(self) -> int:
        return self.process.pid

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=LONG)

    def ask(
        self, path: str = "/", method: str = "GET", **headers: str
    ) -> tuple[int, Mapping[str, str], str]:
        """The status, the headers (names in lower case) and the text of an answer."""
        connection = self.connection()
        given = {name.replace("_", "-"): text for name, text in headers.items()}
        connection.request(method, path, headers=given)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, text

    def text(self, path: str = "/", **headers: str) -> str:
        """What is there, which must be something."""
        status, _, text = self.ask(path, **headers)
        assert status == 200, text
        return text

    def state(self, ident: str) -> str:
        """That of a resource, by status.json."""
        found = json.loads(self.text("/status.json"))["resources"]
        return str({one["id"]: one["state"] for one in found}[ident])

    def events(self, connection: http.client.HTTPConnection) -> Iterator[dict[str, Any]]:
        """What a stream of events says is new, by section."""
        connection.request("GET", "/events")
        answer = connection.getresponse()
        assert answer.status == 200
        while line := answer.readline():
            if line.startswith(b"data: "):
                yield json.loads(line[6:])

    def end(self) -> int:
        """Have it end in an orderly way; its exit status."""
        self.process.terminate()
        return self.process.wait(LONG)

    def kill(self) -> None:
        """kill -9, if it still runs."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def until_state(self, ident: str, state: str) -> None:
        until(lambda: self.state(ident) == state)
