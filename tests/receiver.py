"""Servers on loopback: a target of messages that takes them, refuses them, hangs, trickles or is
down; and one that is asked whether it is well."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path
from socketserver import BaseServer, UnixStreamServer
from typing import Any


class Receiver:
    """Listens while it is ``up``; ``got`` has what it has taken, as (path, document).

    ``asked`` is how many requests have come, taken or not, and ``pings`` has the paths of GETs.
    """

    def __init__(self, mode: str = "take") -> None:
        self.mode = mode
        self.asked = 0
        self.pings: list[str] = []
        self.got: list[tuple[str, dict[str, Any]]] = []
        self._server: ThreadingHTTPServer | None = None
        self.up()
        assert self._server is not None
        self.port = self._server.server_port
        self.where = f"127.0.0.1:{self.port}"

    def up(self) -> None:
        """Listen, from now on, at the same port as before."""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                receiver.pings.append(self.path)
                while receiver.mode == "hang":
                    time.sleep(0.05)
                self.send_response(200 if receiver.mode == "take" else 404)
                self.end_headers()

            def do_POST(self) -> None:
                receiver.handle(self)

            def log_message(self, *about: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # The other side was killed.

        self._server = Server(("127.0.0.1", getattr(self, "port", 0)), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def down(self) -> None:
        """Refuse every connection, from now on."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        document = json.loads(request.rfile.read(int(request.headers["Content-Length"])))
        self.asked += 1
        end = time.monotonic() + 60
        while self.mode == "hang" and time.monotonic() < end:
            time.sleep(0.05)
            with suppress(BlockingIOError):
                if not request.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                    return  # The other side has given up.
        if self.mode == "trickle":
            # Always in time for the next read.
            request.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Length: 5000\r\n\r\n")
            while time.monotonic() < end:
                request.wfile.write(b"x")
                time.sleep(0.5)
            return
        status = {"take": 200, "short": 200}.get(self.mode, 500)
        if self.mode == "never" or (self.mode == "short" and len(document["message"]) > 2000):
            status = 400  # As services say of what they will never take.
        if status == 200:
            self.got.append((request.path, document))
        request.send_response(status)
        request.end_headers()

    def bodies(self) -> list[str]:
        """The messages themselves, in order."""
        return [document["message"] for _, document in self.got]


class _Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/secret?token=canary":
            self.send_response(200 if self.headers["Authorization"] == "Basic YTpi" else 401)
        else:
            self.send_response(int(self.path[1:4]))
            self.send_header("Location", "http://127.0.0.1:1/")
        self.end_headers()
        if self.path == "/200/echo":
            self.wfile.write(f"status: well\n{self.headers}".encode())

    def log_message(self, *words: object) -> None:
        pass


@contextmanager
def answering() -> Iterator[int]:
    """The port of a server that answers ``/404`` with that status, and leads nowhere."""
    with HTTPServer(("127.0.0.1", 0), _Answers) as made, _serving(made):
        yield made.server_port


@contextmanager
def answering_at(path: Path, certificate: Path | None = None) -> Iterator[str]:
    """The same at a Unix socket, with TLS where there is a file with a certificate and its key."""
    with UnixStreamServer(str(path), _Answers) as made:
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            made.socket = context.wrap_socket(made.socket, server_side=True)
        with _serving(made):
            yield str(path)


def certificate_of(host: str, folder: Path) -> tuple[Path, Path]:
    """A certificate for that host with its key, and the certificate alone, by which it is known."""
    alone, key, both = folder / "ca.pem", folder / "key.pem", folder / "both.pem"
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-nodes", "-days", "2", "-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}",
            "-keyout", str(key), "-out", str(alone)]  # fmt: skip
    subprocess.run(argv, check=True, capture_output=True)
    both.write_bytes(alone.read_bytes() + key.read_bytes())
    return both, alone


@contextmanager
def _serving(made: BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=made.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield
    finally:
        made.shutdown()
        thread.join()
