"""What ten thousand hosts, each of which keeps itself, send inward: requests and bytes.

    .venv-tests/bin/python tests/benchmarks/fleet.py [--hosts 10000] [--alive 300] [--scrape 60]
        [--pull 900] [--resources 20]

Each host tells `alive` once by the program's own code, its real metrics are asked for once, and it
looks once whether its spec in git is a newer one; all of it on loopback, through a server that
counts. Prints a table in Markdown. Bytes are those that are sent, without what TCP and TLS add.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from bench import corner
from support import Machine

from reconciler.base.values import Secret, Target
from reconciler.notify.alive import request


class Counter:
    """A server on loopback that answers each request with ``body``, or hands it on to a port, and
    counts what comes in and goes out."""

    def __init__(self, body: bytes = b"", onward: int = 0) -> None:
        self.taken = self.sent = self.asked = 0
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        self._answer, self._onward = head.encode() + body, onward
        self._loop = asyncio.new_event_loop()
        started = threading.Event()

        async def serve() -> None:
            server = await asyncio.start_server(self._talk, "127.0.0.1", 0, backlog=1000)
            self.port = int(server.sockets[0].getsockname()[1])
            started.set()
            await server.serve_forever()

        threading.Thread(target=lambda: self._loop.run_until_complete(serve()), daemon=True).start()
        assert started.wait(10)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked += 1
        if self._onward:
            there, out = await asyncio.open_connection("127.0.0.1", self._onward)
            await asyncio.gather(self._relay(reader, out, True), self._relay(there, writer, False))
        else:
            self.taken += len(await reader.readuntil(b"\r\n\r\n"))
            writer.write(self._answer)
            self.sent += len(self._answer)
            await writer.drain()
        writer.close()

    async def _relay(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, inward: bool
    ) -> None:
        while data := await reader.read(1 << 16):
            if inward:
                self.taken += len(data)
            else:
                self.sent += len(data)
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


def metrics(machine: Machine, resources: int) -> bytes:
    """What a host with so many resources says."""
    lines = "".join(f"  d{at}: {{ path: {machine.base}/d{at} }}\n" for at in range(resources))
    spec = machine.spec(f"directories:\n{lines}")
    machine.once(spec)
    return machine.reconcile("--metrics", spec).stdout.encode()


def repository(machine: Machine) -> tuple[Path, Path]:
    """A repository with a spec, and a clone of it that is up to date."""
    origin, clone = machine.base / "origin.git", machine.base / "clone"
    given = ("-c", "user.name=x", "-c", "user.email=x@localhost")
    for argv in (
        ("git", "init", "-q", str(origin)),
        ("git", "-C", str(origin), *given, "commit", "-q", "--allow-empty", "-m", "x"),
        ("git", "clone", "-q", str(origin), str(clone)),
    ):
        done = machine.run(*argv)
        assert done.returncode == 0, done.stderr
    return origin, clone


def row(what: str, hosts: int, every: int, counter: Counter, seconds: float) -> str:
    """How it adds up."""
    number = max(1, counter.asked)
    each = (counter.taken + counter.sent) / number
    per_second = hosts / every
    return (
        f"| {what}, every {every} s | {counter.taken // number:,} + {counter.sent // number:,} B "
        f"| {per_second:.1f}/s, {per_second * each / 1000:,.1f} kB/s "
        f"| {number / seconds:,.0f}/s from {number:,} measured |"
    )


def timed(work: Callable[[], None]) -> float:
    begin = time.monotonic()
    work()
    return time.monotonic() - begin


def main() -> None:
    """Measure all, and print the table."""
    parser = argparse.ArgumentParser()
    for name, default in (("hosts", 10_000), ("alive", 300), ("scrape", 60), ("pull", 900),
                          ("resources", 20), ("pulls", 20)):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    print(f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, {options.hosts:,} hosts\n")
    print("| what each host does | asks + is answered | all hosts together | this machine does |")
    print("|---|---|---|---|")
    with corner() as machine:
        body = metrics(machine, options.resources)
        pings, scrapes = Counter(), Counter(body)
        url = f"http://127.0.0.1:{pings.port}/ping/0f7c3b1e-3c1d-4a55-9f0e-1a2b3c4d5e6f"
        tell = request(Target("alive", url=Secret.of(url)), True)
        scrape = request(
            Target("scrape", url=Secret.of(f"http://127.0.0.1:{scrapes.port}/metrics")), True
        )

        def asked(one: Callable[[], bytes]) -> Callable[[], None]:
            def ask() -> None:
                for _ in range(options.hosts):
                    assert (said := one()) == b"", said

            return ask

        took = timed(asked(tell))
        print(row("`alive`", options.hosts, options.alive, pings, took), flush=True)
        took = timed(asked(scrape))
        what = f"metrics of {options.resources} resources"
        print(row(what, options.hosts, options.scrape, scrapes, took), flush=True)
        if shutil.which("git") is not None:
            pull(machine, options)


def pull(machine: Machine, options: argparse.Namespace) -> None:
    """The row about git; a process for each, so fewer are measured."""
    origin, clone = repository(machine)
    for port in range(20000 + os.getpid() % 20000, 60000):
        argv = ["git", "daemon", "--reuseaddr", "--listen=127.0.0.1", f"--port={port}",
                "--export-all", f"--base-path={origin.parent}"]  # fmt: skip
        daemon = subprocess.Popen(argv, stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            time.sleep(0.3)
            if daemon.poll() is not None:
                continue
            counter = Counter(onward=port)
            url = f"git://127.0.0.1:{counter.port}/{origin.name}"

            def fetch(url: str = url) -> None:
                for _ in range(options.pulls):
                    done = machine.run("git", "-C", clone, "fetch", "-q", url, "HEAD")
                    assert done.returncode == 0, done.stderr

            took = timed(fetch)
            print(row("`git pull` with nothing new", options.hosts, options.pull, counter, took))
            return
        finally:
            os.killpg(daemon.pid, 15)
            daemon.wait()


if __name__ == "__main__":
    main()
