"""Tells a service elsewhere that passes come to their end, so that a dead host is noticed too.

It must not hold a pass up, nor show the URL, which only the child reads.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from urllib.parse import urlsplit, urlunsplit

from reconciler.base.errors import UnknownState
from reconciler.base.values import Notify, Target
from reconciler.host.child import Child, WithChild
from reconciler.host.clock import Clock
from reconciler.notify.delivery import Off, address

TIMEOUT = 10.0
"""Seconds for one request."""
_TAKEN = (200, 201, 202, 204)


class Pings(WithChild):
    """A part of the loop. ``told`` hears when the service does not answer, and does so again."""

    def __init__(self, clock: Clock, told: Callable[[str, bool], None]) -> None:
        self._clock = clock
        self._told = told
        self._notify = Notify()
        self._last: tuple[bool, float] | None = None
        """What was told last, and when by the monotonic clock."""
        self._waits: bool | None = None
        """What is to be told as soon as the one before is answered."""
        self._wrong = ""

    def take(self, notify: Notify) -> None:
        """This is what is wanted from now on."""
        if notify.alive != self._notify.alive:
            self._last = None
        self._notify = notify

    def passed(self, well: bool) -> None:
        """A pass has come to its end, or has not: tell it, unless the same was told just now."""
        alive, last, now = self._notify.alive, self._last, self._clock.monotonic()
        if alive is not None and (last is None or last[0] != well or now - last[1] >= alive.every):
            self._last, self._waits = (well, now), well
            self._begin()

    def _begin(self) -> None:
        alive, well = self._notify.alive, self._waits
        if alive is None or well is None or self._child is not None:
            return
        self._waits = None
        try:
            self._child = Child(request(alive.target, well), TIMEOUT + 1.0)
        except OSError as error:
            self._say(f"no process can be had: {error.strerror}")

    # -- a part of the loop

    def tend(self, ready: Collection[int]) -> Collection[str]:
        """Take what was answered."""
        child = self._child
        if child is not None and (child.descriptor in ready or child.left <= 0):
            said = result(child.collect)
            if said is not None:
                self._child = None
                self._say(said)
                self._begin()
        return ()

    def _say(self, why: str) -> None:
        if why and why != self._wrong:
            self._told(f"alive: {why}; tried again behind the next pass", True)
        elif self._wrong and not why:
            self._told("alive: it is answered again", False)
        self._wrong = why


def request(target: Target, well: bool) -> Callable[[], bytes]:
    """What a child has to do: one GET. It answers why it was not taken, or nothing."""

    def get() -> bytes:
        from reconciler.host.probe_net import http

        try:
            url = address(target)
        except Off as why:
            return f"it is off: {why}".encode("utf-8", "replace")
        if not url.startswith(("http://", "https://")):
            return b"its URL is not one of http or https"
        try:
            parts = urlsplit(url)
            if not well:
                parts = parts._replace(path=f"{parts.path.rstrip('/')}/fail", fragment="")
            answer = http(urlunsplit(parts), _TAKEN, TIMEOUT)
        except ValueError:
            return b"its URL is not valid"
        return b"" if answer.ok else answer.words.encode("utf-8", "replace")

    return get


def result(collect: Callable[[], bytes | None]) -> str | None:
    """Why it was not taken, empty: it was; None: there is no answer yet."""
    try:
        said = collect()
    except UnknownState:
        return f"no answer within {TIMEOUT:g} s"
    return None if said is None else said.decode("utf-8", "replace")
