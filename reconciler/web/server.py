"""The server: connections with a bound on how many there are and how long one may be slow, and an
end that comes soon after a signal.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from uvicorn import Config, Server
from uvicorn.protocols.http.h11_impl import H11Protocol

from reconciler.host.descriptors import raise_limit
from reconciler.web import address
from reconciler.web.access import Guard, Token
from reconciler.web.app import App
from reconciler.web.looks import Looks

_MOST = 128
"""Connections at a time."""
_SLOW = 5.0
"""Seconds; twice as long, at most, may a request take to come, or an answer to be taken."""
_LEAVING = 1
"""Seconds after which the streams of readers are ended when it ends itself."""
_LONGEST_HEADER = 16384


class Connection(H11Protocol):
    """A connection that is dropped where nothing comes or goes, or others want to have theirs."""

    _before: object = None
    _timer: asyncio.TimerHandle | None = None
    _made = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Whoever comes gets in: where there are too many, one that asks for nothing gives way."""
        others: list[Any] = [*self.connections]
        super().connection_made(transport)
        self._made = self.loop.time()
        if len(others) >= _MOST:
            last = min(others, key=lambda one: (not one._waits, one._made))
            last.transport.abort()
            self.connections.discard(last)
        self._timer = self.loop.call_later(_SLOW, self._sweep)

    @property
    def _waits(self) -> bool:
        """Is no whole request there that is not answered yet?"""
        return self.cycle is None or self.cycle.response_complete

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def _sweep(self) -> None:
        """Drop it where it stands as it stood the last time: without a request, or stuck."""
        stands: object = None
        if self.flow.write_paused or self.transport.is_closing():
            stands = "stuck"
        elif self._waits:
            stands = self.cycle or "nothing"
        if stands is not None and stands is self._before:
            self.transport.abort()
            return
        self._before = stands
        self._timer = self.loop.call_later(_SLOW, self._sweep)


class _Server(Server):
    """uvicorn's, which would wake ten times a second and end by the signal that it gets."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.end = asyncio.Event()

    async def main_loop(self) -> None:
        await self.end.wait()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.end.set)
        yield


def serve(listener: socket.socket, looks: Looks, token: Token | None, given: str) -> bool:
    """Answer until SIGTERM or SIGINT; True: until another program is to go on.

    ``given`` is what stands behind ``--serve``.
    """
    # What goes wrong with a request is told to who made it.
    logging.getLogger("uvicorn.error").disabled = True
    logging.getLogger("asyncio").disabled = True
    raise_limit()
    asyncio.run(_serve(listener, looks, token, given))
    return looks.replaced.is_set()


async def _serve(listener: socket.socket, looks: Looks, token: Token | None, given: str) -> None:
    is_known = partial(address.is_known, listener=listener, given=given)
    app = Guard(App(looks).router, is_known, token)
    config: Any = Config(
        app, log_config=None, access_log=False, lifespan="off",
        loop="asyncio", http=Connection, ws="none", proxy_headers=False, server_header=False,
        date_header=False, h11_max_incomplete_event_size=_LONGEST_HEADER,
        timeout_graceful_shutdown=_LEAVING,
    )  # fmt: skip
    server = _Server(config)
    tasks = [
        asyncio.create_task(one) for one in (looks.run(), looks.replaced.wait(), server.end.wait())
    ]
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    await asyncio.wait([serving, *tasks], return_when=asyncio.FIRST_COMPLETED)
    server.end.set()
    await serving
    for one in tasks:
        one.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
