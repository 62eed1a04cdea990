"""What the page answers at each of its addresses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, Router

from reconciler.output.data import laid_out
from reconciler.web.looks import Looks
from reconciler.web.page import Page

_AGE, _PATIENCE = 2.0, 5.0
"""Seconds that what is shown may be old, and for which a new look is waited for."""
_PING = 20.0
"""Seconds after which a stream says that it is there."""
_MOST_STREAMS = 64
_RETRY = 3000
"""Milliseconds after which a browser connects again."""
_FILES = {
    "/page.css": "text/css; charset=utf-8",
    "/page.js": "text/javascript; charset=utf-8",
    "/icon.svg": "image/svg+xml",
}


class App:
    """The addresses of the page, over the looks that all share."""

    def __init__(self, looks: Looks) -> None:
        self._looks = looks
        self._page = Page(looks)
        self._streams: dict[int, asyncio.Event] = {}
        """Of each reader, what ends its stream; the oldest first."""
        self._number = 0
        folder = files("reconciler.web")
        self._files = {path: (folder / path[1:]).read_bytes() for path in _FILES}
        self.router = Router(
            [
                Route("/", self._whole),
                Route("/events", self._events),
                Route("/status.json", self._status),
                Route("/metrics", self._metrics),
                *(Route(path, self._file) for path in _FILES),
            ],
            redirect_slashes=False,
        )

    async def _whole(self, request: Request) -> Response:
        await self._looks.fresh(_AGE, _PATIENCE)
        return Response(self._page.whole(), media_type="text/html; charset=utf-8")

    async def _file(self, request: Request) -> Response:
        path = request.url.path
        return Response(self._files[path], media_type=_FILES[path])

    async def _status(self, request: Request) -> Response:
        """As ``--status --json``."""
        await self._looks.fresh(_AGE, _PATIENCE)
        document = self._looks.document
        if document is None or self._looks.error:
            words = self._looks.error or "it was not looked at yet"
            return Response(f"{json.dumps({'error': words})}\n", 503, media_type="application/json")
        return Response(f"{laid_out(document['status'])}\n", media_type="application/json")

    async def _metrics(self, request: Request) -> Response:
        await self._looks.fresh(_AGE, _PATIENCE)
        document = self._looks.document
        if document is None or self._looks.error:
            return PlainTextResponse(f"{self._looks.error or 'it was not looked at yet'}\n", 503)
        from reconciler.output.metrics import Metrics

        try:
            from prometheus_client.exposition import choose_encoder
        except ImportError:
            words = "metrics need prometheus-client: pip install 'prometheus-client>=0.20'\n"
            return PlainTextResponse(words, 503)
        encoder, form = choose_encoder(request.headers.get("accept", ""))
        made = Metrics({**document["status"], **document["metrics"]})
        return Response(encoder(made), headers={"content-type": form})

    async def _events(self, request: Request) -> Response:
        """A stream of what has changed on the page, by server-sent events."""
        return StreamingResponse(self._stream(), media_type="text/event-stream")

    async def _stream(self) -> AsyncIterator[str]:
        self._number += 1
        number, end = self._number, asyncio.Event()
        self._streams[number] = end
        if len(self._streams) > _MOST_STREAMS:
            self._streams.pop(next(iter(self._streams))).set()  # Its browser connects again.
        self._looks.readers = len(self._streams)
        ended = asyncio.create_task(end.wait())
        shown: dict[str, str] = {}
        try:
            yield f"retry: {_RETRY}\n\n"
            await self._looks.fresh(_AGE, _PATIENCE)
            while not end.is_set():
                seen = self._looks.number
                now = self._page.sections()
                changed = {name: html for name, html in now.items() if shown.get(name) != html}
                shown = now
                yield f"event: look\ndata: {json.dumps(changed)}\n\n" if changed else ": \n\n"
                more = asyncio.create_task(self._looks.next(seen, _PING))
                await asyncio.wait((more, ended), return_when=asyncio.FIRST_COMPLETED)
                more.cancel()
        finally:
            ended.cancel()
            self._streams.pop(number, None)
            self._looks.readers = len(self._streams)
