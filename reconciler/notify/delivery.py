"""Messages to one target, by apprise, in a process that is there for nothing else.

It must not print, log, raise or answer anything that holds the URL or a piece of it: what went
wrong is said in words that stand in this file. It must not be run in a process that lives on:
apprise is large, starts threads and writes URLs to its log.
"""

from __future__ import annotations

import os
import signal
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from reconciler.base.errors import UnknownState
from reconciler.base.values import Target
from reconciler.host import trust

TIMEOUT = 15.0
"""Seconds for one message, after which its delivery is killed."""
_LARGEST = 64 * 1024
_TYPES = {"failed": "warning", "gave_up": "failure", "recovered": "success"}
_OFF = b"off:"


class Off(Exception):
    """The target is switched off; the message says why, without its URL."""


def off(target: Target) -> str | None:
    """Why the target is off, or None. Looks at the file of its URL, and does not read it."""
    try:
        if target.url_file is not None:
            os.close(_opened(target.url_file))
        elif target.url is not None and target.url.digest == target.url.of("").digest:
            return "its url is empty"
    except Off as why:
        return str(why)
    return None


def _opened(path: str) -> int:
    """A descriptor of the file of a URL. Raises Off."""
    try:
        handle = trust.opened(path, what="who is told")
    except trust.Untrusted as untrusted:
        raise Off(
            f"{path} could be written to by others, who would be told in your place: {untrusted}"
        ) from None
    except FileNotFoundError:
        raise Off(f"{path} is not there; write its URL into it to switch it on") from None
    except OSError as error:
        raise Off(f"{path} cannot be read: {(error.strerror or 'error').lower()}") from None
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        os.close(handle)
        raise Off(f"{path} is not a regular file")
    return handle


def address(target: Target) -> str:
    """The URL of a target. Raises Off."""
    if target.url_file is None:
        url = target.url.reveal() if target.url is not None else ""
        if not url:
            raise Off("its url is empty")
        return url
    with os.fdopen(_opened(target.url_file), "rb") as file:
        text = file.read(_LARGEST).decode("utf-8-sig", "replace")
    for line in text.splitlines():
        if line.strip() and not line.strip().startswith("#"):
            return line.strip()
    raise Off(f"{target.url_file} holds no URL")


def work(
    target: Target,
    messages: Sequence[tuple[str, str, str]],
    arrived: Callable[[int], None] = lambda number: None,
) -> Callable[[], Iterator[bytes]]:
    """What a child has to do to deliver messages: each has a title, a body and an event.

    ``arrived`` is called in the child as soon as the one of that number was taken: nobody may be
    left who hears the answer. That has a line for each, which ``understood`` reads. It ends behind
    one that was not taken, and when they have taken too long together.
    """

    def deliver() -> Iterator[bytes]:
        end = time.monotonic() + TIMEOUT
        # Its default action ends us.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        _hush()
        seen = _watch_http()
        for number, (title, body, event) in enumerate(messages):
            signal.setitimer(signal.ITIMER_REAL, TIMEOUT)
            answer = _delivered(target, title, body, event, seen)
            signal.setitimer(signal.ITIMER_REAL, 0)
            if not answer:
                arrived(number)
            yield answer + b"\n"
            if answer or time.monotonic() >= end:
                return

    return deliver


def _delivered(target: Target, title: str, body: str, event: str, seen: list[str]) -> bytes:
    seen.clear()
    try:
        return (_sent(address(target), title, body, event, seen) or "").encode()
    except Off as why:
        return _OFF + " ".join(str(why).split()).encode("utf-8", "replace")
    except ImportError:
        return b"apprise cannot be loaded; is it installed?"
    except BaseException:
        return b"apprise failed"


def unanswered(error: UnknownState) -> str:
    """Why a delivery has ended without an answer, as that of its child says."""
    late = f"status {-signal.SIGALRM})" in str(error) or " within " in str(error)
    return f"no answer within {TIMEOUT:g} s" if late else "its delivery came to no end"


def understood(answer: bytes) -> str | None:
    """Why a message was not taken, or None when it was. Raises Off."""
    if answer.startswith(_OFF):
        raise Off(answer[len(_OFF) :].decode("utf-8", "replace"))
    return answer.decode("utf-8", "replace") or None


def _hush() -> None:
    """Nothing of what happens from here on is seen anywhere: no output, no log, no core."""
    import logging
    import resource
    import sys
    import threading
    import warnings

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    null = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    os.chdir("/")
    logging.disable(logging.CRITICAL)
    logging.raiseExceptions = False
    warnings.simplefilter("ignore")
    sys.excepthook = lambda *about: None
    sys.unraisablehook = lambda about: None
    threading.excepthook = lambda about: None


def _sent(url: str, title: str, body: str, event: str, seen: list[str]) -> str | None:
    """Hand it to apprise; why it was not taken, or None."""
    import apprise

    asset = apprise.AppriseAsset(async_mode=False, storage_mode="memory", app_id="reconcile")
    made = apprise.Apprise(asset=asset)
    if not made.add(url):
        return "apprise does not understand its URL"
    kind: Any = _TYPES.get(event, "info")
    if made.notify(body=_unaddressed(body), title=title, notify_type=kind, body_format="text"):
        return None
    return seen[-1] if seen else "it was refused"


def _unaddressed(text: str) -> str:
    """The same to read, but nobody is called by it, and a link says where it leads.

    Names of others' files stand in it, and not every service takes plain text for that. What would
    be taken for more is parted by a ZERO WIDTH SPACE.
    """
    import re

    call = r"(?<!\w)@(?=\w)|@(?=everyone|here|channel|all\b)|<@?(?=[!@#&]|https?:)|\](?=\()"
    return re.sub(call, lambda match: f"{match[0]}\u200b", text, flags=re.IGNORECASE)


def _watch_http() -> list[str]:
    """Gets what became of every HTTP request from now on: apprise tells only its log."""
    seen: list[str] = []
    with suppress(Exception):
        import requests

        send = requests.Session.send

        def watched(self: Any, request: Any, **options: Any) -> Any:
            try:
                response = send(self, request, **options)
            except Exception as error:
                seen.append(_in_words(error))
                raise
            refused = "" if response.status_code >= 300 else ", but it refused the message"
            seen.append(f"HTTP {int(response.status_code)}{refused}")
            return response

        requests.Session.send = watched  # type: ignore[method-assign]
    return seen


def _in_words(error: BaseException) -> str:
    """What went wrong with a request, in words of our own."""
    import socket
    import ssl

    import requests

    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, requests.TooManyRedirects):
        return "redirected in circles"
    chain: list[BaseException] = []
    todo: list[Any] = [error]
    while todo and len(chain) < 50:
        one = todo.pop()
        if isinstance(one, BaseException) and one not in chain:
            chain.append(one)
            todo += [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]
    for one in chain:
        if isinstance(one, (ssl.SSLError, requests.exceptions.SSLError)):
            return "no trusted TLS connection"
        if isinstance(one, socket.gaierror):
            return "its host name is not known"
        if isinstance(one, OSError) and one.errno and not isinstance(one, socket.herror):
            return os.strerror(one.errno).lower()
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return "it cannot be asked"
